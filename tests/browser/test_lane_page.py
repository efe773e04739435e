"""The page of one lane: its controls and its figures."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.chromium import DESKTOP, missing
from tests.browser.conftest import Open, Window
from tests.e2e.running import Paceline

if TYPE_CHECKING or not missing():
    from playwright.sync_api import Locator, Page, Route, expect


def task_row(page: Page, seq: int) -> Locator:
    return page.locator("table.tasks tbody tr").filter(has=page.get_by_role("cell", name=str(seq), exact=True))


def submit(page: Page, count: int, **fields: str) -> None:
    for label, text in fields.items():
        page.get_by_label(label.title(), exact=True).fill(text)
    page.get_by_label("How many").fill(str(count))
    page.get_by_role("button", name="Submit").click()


def test_tasks_are_submitted_queue_start_and_finish(window: Window, user: str) -> None:
    page = window.lane(user)
    submit(page, 12, payload='{"mail": 7}')
    expect(page.locator("#submit-form .status")).to_have_text(re.compile("12 tasks queued, the last starts in about"))
    expect(task_row(page, 12)).to_contain_text("queued")
    expect(task_row(page, 12)).to_contain_text(re.compile(r"in \d"))
    window.shoot("queued")
    for seq in (1, 12):
        expect(task_row(page, seq)).to_contain_text("succeeded")
    picture = page.get_by_role("img", name=re.compile(f"^Lane of {user}, .*12 of 20 a minute used, nothing waiting"))
    expect(picture).to_be_visible()
    expect(page.locator("#live")).to_have_text(re.compile("Task 12 succeeded|tasks succeeded"))
    window.shoot("finished")


def test_running_task_is_shown_and_a_long_outcome_unfolds(window: Window, open_system: Paceline, user: str) -> None:
    page = window.lane(user)
    submit(page, 1, task="sleep", payload=json.dumps({"seconds": 3, "text": "long " * 30}))
    expect(task_row(page, 1)).to_contain_text("running")
    expect(task_row(page, 1)).to_contain_text("succeeded")
    task_row(page, 1).locator(".outcome summary").click()
    expect(task_row(page, 1).locator(".outcome pre")).to_contain_text("long " * 20)
    assert open_system.completions(user)[0]["result"]["seconds"] == 3


def test_running_task_shows_its_progress_and_stops_when_it_is_cancelled(window: Window, user: str) -> None:
    page = window.lane(user)
    submit(page, 1, task="report", payload=json.dumps({"seconds": 60}))
    expect(task_row(page, 1)).to_contain_text(re.compile(r"running.*\d %.* step \d+"))
    expect(task_row(page, 1).get_by_role("progressbar")).to_have_js_property("max", 1)
    expect(task_row(page, 1).get_by_role("progressbar")).to_have_attribute("value", re.compile(r"^0\.\d+$"))
    window.shoot("progress")
    task_row(page, 1).get_by_role("button").click()
    expect(page.get_by_role("region", name="Tasks").get_by_role("status")).to_have_text("Task 1 asked to stop")
    expect(task_row(page, 1).get_by_role("button")).to_have_count(0)
    expect(task_row(page, 1)).to_contain_text(re.compile(r"cancelled.*ended at \d+ % step \d+"))
    expect(task_row(page, 1).get_by_role("progressbar")).to_have_count(0)
    window.shoot("stopped")


def test_running_task_that_ignores_its_cancellation_says_so_at_its_deadline(window: Window, user: str) -> None:
    page = window.lane(user)
    submit(page, 1, task="ignore", payload="")
    expect(task_row(page, 1)).to_contain_text("running")
    task_row(page, 1).get_by_role("button").click()
    expect(task_row(page, 1)).to_contain_text(re.compile(r"running.*asked to stop at \d\d:\d\d:\d\d"))
    expect(task_row(page, 1)).to_contain_text("failed")
    expect(task_row(page, 1)).to_contain_text(re.compile(r"asked to stop at \d\d:\d\d:\d\d"))
    expect(task_row(page, 1)).to_contain_text("it did not end within 8 s, although it was asked to stop")
    window.shoot("ignored")


def test_units_of_a_task_fill_a_limit_of_units(window: Window, open_system: Paceline, user: str) -> None:
    open_system.request("PUT", f"/api/v1/users/{user}/limits", {"limits": "2/second; 1000 units/minute"})
    page = window.lane(user)
    page.get_by_label("Units of each").fill("300")
    submit(page, 3)
    expect(task_row(page, 3)).to_contain_text("succeeded")
    picture = page.get_by_role("img", name=re.compile("900 of 1,000 units a minute used, nothing waiting"))
    expect(picture).to_be_visible()
    expect(page.get_by_text("900 used")).to_be_visible()
    expect(task_row(page, 1).get_by_title("300 units")).to_have_text("log")
    submit(page, 1)
    expect(task_row(page, 4)).to_contain_text("queued")
    window.shoot("units")


def test_paused_lane_holds_its_tasks_until_it_is_resumed(window: Window, user: str) -> None:
    page = window.lane(user)
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator(".title .status")).to_have_text("Paused")
    submit(page, 3)
    expect(task_row(page, 3)).to_contain_text("when resumed")
    task_row(page, 2).get_by_role("button").click()
    expect(task_row(page, 2)).to_contain_text("cancelled")
    window.shoot("paused")
    expect(task_row(page, 1)).to_contain_text("queued")
    page.get_by_role("button", name="Resume").click()
    for seq in (1, 3):
        expect(task_row(page, seq)).to_contain_text("succeeded")
    expect(task_row(page, 2)).to_contain_text("never")
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()


def test_lane_is_paused_until_a_time(window: Window, open_system: Paceline, user: str) -> None:
    page = window.lane(user)
    page.get_by_text("Pause until…").click()
    page.get_by_label("Pause until").fill("2030-01-01T12:00:00")
    page.get_by_role("button", name="Set").click()
    expect(page.locator(".title .state")).to_have_text(re.compile("paused for .* days more"))
    lane = open_system.request("GET", f"/api/v1/users/{user}").body
    assert lane["paused_until"] == page.evaluate("new Date('2030-01-01T12:00:00').getTime()")


def test_throttled_lane_shows_until_when_and_why(window: Window, open_system: Paceline, user: str) -> None:
    open_system.submit(user, {"seconds": 600}, "slow-down")
    page = window.lane(user)
    expect(page.locator(".title .state")).to_have_text("throttled for 10 min more: the bank asked for a pause")
    expect(page.locator(".totals", has_text="Free for a new task")).to_contain_text(re.compile(r"in (10 min|\d+ s)$"))
    expect(page.get_by_role("img", name=re.compile("throttled until .*: the bank asked for a pause"))).to_be_visible()
    page.get_by_role("link", name="All lanes").click()
    page.get_by_label("Find users").fill(user)
    expect(page.locator(".lanes .row", has_text=user)).to_contain_text("throttled for 10 min more")


def test_scheduled_task_is_listed_with_its_time_and_can_be_cancelled(
    window: Window, open_system: Paceline, user: str
) -> None:
    run_at = open_system.request("POST", "/api/v1/task", {"user_id": user, "delay_seconds": 3600}).body["planned_at"]
    page = window.lane(user)
    row = page.locator("table.tasks tbody tr")
    expect(row.get_by_role("cell").first).to_have_text("\N{EN DASH}")
    at = page.evaluate("at => new Date(at).toTimeString().slice(0, 8)", run_at)
    expect(row).to_contain_text(f"logqueuedjoins {at}")
    row.get_by_role("button", name=f"Cancel task for {at}").press("Enter")
    expect(row).to_contain_text("logcancellednever")
    expect(page.get_by_role("region", name="Tasks").get_by_role("status")).to_have_text(f"Task for {at} cancelled")
    assert open_system.request("GET", f"/api/v1/users/{user}/tasks").body["tasks"][0]["state"] == "cancelled"


def test_task_behind_one_that_runs_is_said_to_wait_for_its_turn(
    window: Window, open_system: Paceline, user: str
) -> None:
    open_system.submit(user, {"seconds": 15}, "sleep")
    open_system.submit(user)
    page = window.lane(user)
    expect(task_row(page, 2)).to_contain_text("in turn")
    expect(page.locator(".title .state")).to_have_text("waiting, one running")


def test_limits_are_changed_and_wrong_ones_explained(window: Window, user: str) -> None:
    page = window.lane(user)
    limits = page.get_by_label("All limits apply together")
    expect(limits).to_have_value("2/second; 20/minute")
    window.expected = re.compile("422")
    limits.fill("often")
    page.get_by_role("button", name="Change").click()
    expect(page.locator("#limits-form .status")).to_have_text(re.compile("'often' is not a valid limit"))
    limits.fill("5 per 10 seconds")
    page.get_by_role("button", name="Change").click()
    expect(page.locator(".band .limit b")).to_have_text(["5 in 10 s"])
    page.get_by_role("button", name="Use the default").click()
    expect(page.locator(".band .limit b")).to_have_text(["2 a second", "20 a minute"])


def test_next_tasks_and_failures_are_on_the_first_screen(window: Window, open_system: Paceline, user: str) -> None:
    open_system.submit(user, {"path": "/nowhere"}, task="when-there")
    open_system.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": [{"payload": {"mail": 7}}] * 60})
    open_system.wait_for_completions(5, user)
    open_system.request("POST", f"/api/v1/users/{user}/pause", {})
    page = window.lane(user)
    upcoming, failed = page.get_by_role("region", name="Next to start"), page.get_by_role("region", name="Failed")
    expect(upcoming.locator("li")).to_have_count(5)
    expect(failed.locator("li")).to_have_count(1)
    expect(failed.locator("li")).to_contain_text("FileNotFoundError")
    seqs = [int(text) for text in upcoming.locator("li b").all_inner_texts()]
    assert seqs == list(range(seqs[0], seqs[0] + 5))
    assert seqs[0] < 61 - 25, "the list of the newest tasks does not reach as far"
    expect(upcoming.locator("li").first).to_contain_text('{"mail":7}')
    expect(upcoming.locator("li").first).to_contain_text("when resumed")
    for card in (upcoming, failed):
        box = card.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= DESKTOP[1]
    window.shoot("first-screen")
    upcoming.get_by_role("button", name=f"Cancel task {seqs[0]}").press("Enter")
    expect(upcoming.locator("li b").first).to_have_text(str(seqs[1]))
    expect(page.get_by_role("heading", name="Next to start")).to_be_focused()


def test_failure_behind_a_long_backlog_is_found(window: Window, user: str) -> None:
    """A page of failed tasks may be empty and have a next one."""

    def pages(route: Route) -> None:
        query = parse_qs(urlsplit(route.request.url).query)
        if query.get("state") != ["failed"]:
            return route.fulfill(json={"tasks": [], "next": None})
        read = int(query.get("before", ["0"])[0])
        return route.fulfill(
            json={"tasks": [failed_task(1)] if read == 3 else [], "next": str(read + 1) if read < 3 else None}
        )

    window.page.route(re.compile(r"/tasks\?"), pages)
    page = window.lane(user)
    expect(page.get_by_role("region", name="Failed").locator("li")).to_contain_text("out of order")


def failed_task(seq: int) -> dict[str, Any]:
    task: dict[str, Any] = {"user_id": "ann", "task_id": str(seq), "seq": seq, "task": "log", "state": "failed"}
    task |= dict.fromkeys(("position", "planned_at", "submitted_at", "started_at", "completed_at"), 1)
    return task | {"attempts": 1, "result": None, "error": "out of order", "estimated_at": None, "redriven_as": None}


def test_payload_is_shown_and_a_large_one_fetched_when_it_unfolds(
    window: Window, open_system: Paceline, user: str
) -> None:
    open_system.submit(user, {"text": "long " * 20})
    open_system.submit(user, {"text": "larger " * 500})
    open_system.submit(user, {"n": 1})
    page = window.lane(user)
    expect(task_row(page, 3).locator(".payload")).to_have_text('{"n":1}')
    task_row(page, 1).locator(".payload summary").click()
    expect(task_row(page, 1).locator(".payload pre")).to_contain_text("long " * 20)
    task_row(page, 2).locator(".payload summary").click()
    expect(task_row(page, 2).locator(".payload pre")).to_contain_text("larger " * 500)


def test_form_offers_the_names_of_the_tasks(window: Window, user: str) -> None:
    page = window.lane(user)
    options = page.locator("#task-names option")
    expect(options).not_to_have_count(0)
    names = [option.get_attribute("value") for option in options.all()]
    assert {"http", "log", "report", "sleep"} <= set(names)
    expect(page.get_by_label("Task", exact=True)).to_have_attribute("list", "task-names")


def test_wrong_payload_is_explained_and_not_sent(window: Window, user: str) -> None:
    page = window.lane(user)
    page.get_by_label("Payload").fill("{oops")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#submit-form .status")).to_have_text(re.compile("The payload is not valid JSON"))
    assert [request for request in window.requests if request.method == "POST"] == []


HOSTILE = "<img/src=x/onerror=alert(1)>\"'&;<script>alert(2)</script>"


def test_what_strangers_send_is_shown_as_text(window: Window, open_system: Paceline) -> None:
    open_system.submit(HOSTILE)
    page = window.page
    page.on("dialog", lambda dialog: window.complaints.append(f"a dialog: {dialog.message}"))
    page.route(re.compile(r"/tasks\?"), hostile_tasks)
    window.go()
    page.get_by_label("Find users").fill("<img")
    page.locator("a.name", has_text=HOSTILE).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    expect(task_row(page, 1)).to_contain_text(HOSTILE)
    expect(task_row(page, 2)).to_contain_text(HOSTILE[:50])
    assert page.locator("main img, main script").count() == 0
    assert page.title().startswith(HOSTILE)


def hostile_tasks(route: Route) -> None:
    task = failed_task(1) | {"user_id": HOSTILE, "task": HOSTILE, "error": HOSTILE, "payload": HOSTILE}
    other = task | {"task_id": "2", "seq": 2, "state": "succeeded", "error": None, "result": [HOSTILE]}
    route.fulfill(json={"tasks": [task, other], "next": None})


@pytest.mark.parametrize("user", ["a/b?c#d%20e", "%", "0xe2", ".", ".."])
def test_any_user_id_has_a_page(open_window: Open, open_system: Paceline, user: str) -> None:
    open_system.submit(user)
    window = open_window(open_system)
    page = window.go()
    page.get_by_label("Find users").fill(user)
    page.locator("a.name").get_by_text(user, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(user)
    expect(task_row(page, 1)).to_contain_text("log")
