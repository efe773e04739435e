"""Pages ask for one page of a long list and show no more: 10,000 lanes, tasks and failures cost what 25 do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.chromium import missing
from tests.browser.conftest import Window, wait_until
from tests.browser.test_lane_page import failed_task

if TYPE_CHECKING or not missing():
    from playwright.sync_api import Route, expect

MANY = 10_000
#: Largest number of elements of a page, whatever the lists hold.
MOST_ELEMENTS = 1_500


class ManyOfAll:
    """Answers like an API with 10,000 lanes, tasks and failures: as many on a page as are asked for."""

    def __init__(self, lane: dict[str, Any]) -> None:
        self._lane = lane | {"backlog": MANY, "starts": [lane["now"] - 100]}
        #: the largest page that was asked for
        self.largest = 0

    def __call__(self, route: Route) -> None:
        url = urlsplit(route.request.url)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        is_list = url.path.endswith(("/lanes", "/tasks"))
        count = int(query.get("limit", MANY)) if is_list else 0
        self.largest = max(self.largest, count)
        if url.path.endswith("/lanes"):
            route.fulfill(json=self._lanes(count))
        elif url.path.endswith("/tasks"):
            route.fulfill(json=self._tasks(query, count))
        else:
            route.fulfill(json=self._lane)

    def _lanes(self, count: int) -> dict[str, Any]:
        lanes = [self._lane | {"user_id": f"user-{number:05}"} for number in range(count)]
        totals = {"lanes": MANY, "complete": True, "waiting": MANY, "running": 0, "paused": 0}
        totals |= {"starts_per_second": 1.0, "late_ms": 1, "worst_late_ms": 1}
        return {"lanes": lanes, "totals": totals, "completions": [], "now": self._lane["now"], "next": "user-99999"}

    def _tasks(self, query: dict[str, str], count: int) -> dict[str, Any]:
        state = {} if query.get("state") == "failed" else {"state": "queued", "error": None, "completed_at": None}
        state |= {"started_at": None} if state else {}
        seqs = range(1, count + 1) if query.get("order") == "next" else range(MANY, MANY - count, -1)
        listed = [failed_task(seq) | {"task_id": f"{seq:05}", **state} for seq in seqs]
        return {"tasks": listed, "next": None if query.get("order") else f"{seqs[-1]:05}"}


@pytest.fixture
def many(window: Window, open_system: Any, user: str) -> ManyOfAll:
    found = ManyOfAll(open_system.request("GET", f"/api/v1/users/{user}").body)
    window.page.route(re.compile(r"/api/v1/(lanes|tasks|users/[^/]+(/tasks)?)(\?|$)"), found)
    return found


def elements(window: Window) -> int:
    return int(window.page.evaluate("document.querySelectorAll('*').length"))


def test_page_of_ten_thousand_lanes_and_failures_stays_small(window: Window, many: ManyOfAll) -> None:
    page = window.with_clock().go()
    expect(page.locator(".lanes .row")).to_have_count(25)
    expect(page.locator(".failures tbody tr")).to_have_count(10)
    expect(page.locator(".totals > div", has_text="Failed").locator("dd").first).to_have_text("0")
    page.get_by_role("region", name="Failed tasks").get_by_role("button", name="Older").click()
    expect(page.locator(".failures tbody tr")).to_have_count(10)
    window.stop_time()
    assert window.api_calls(200) <= 5, "ten milliseconds of rest for each of the lanes"
    assert elements(window) <= MOST_ELEMENTS
    assert many.largest <= 100


def test_page_of_a_lane_with_ten_thousand_tasks_stays_small(window: Window, many: ManyOfAll, user: str) -> None:
    page = window.with_clock().lane(user)
    expect(page.locator("table.tasks tbody tr")).to_have_count(25)
    expect(page.get_by_role("region", name="Next to start").locator("li b")).to_have_text(list("12345"))
    expect(page.get_by_role("region", name="Failed").locator("li")).to_have_count(5)
    window.stop_time()
    assert window.api_calls(30) <= 30
    for _ in range(3):
        page.get_by_role("region", name="Tasks").get_by_role("button", name="Older").click()
        wait_until(lambda: not page.wait_for_timeout(10) and not window.under_way, "the page is there")
    assert elements(window) <= MOST_ELEMENTS
    assert many.largest <= 25
