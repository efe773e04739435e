"""Shared limits on the page of all lanes: drawn like lanes, with who waits; paused and resumed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.browser.chromium import PHONE, missing
from tests.browser.conftest import Open, Window
from tests.e2e.running import Paceline

if TYPE_CHECKING or not missing():
    from playwright.sync_api import Locator, Page, expect


@pytest.fixture
def limit(open_system: Paceline) -> Iterator[str]:
    """The name of a shared limit that lets one task start in 10 seconds."""
    name = f"api-{uuid4().hex[:6]}"
    open_system.request("PUT", f"/api/v1/limits/{name}", {"limits": "1/10 seconds; 500/hour; 5 at once"})
    yield name
    open_system.request("DELETE", f"/api/v1/limits/{name}")


def submit(paceline: Paceline, user: str, shared: str) -> None:
    paceline.request("POST", "/api/v1/task", {"user_id": user, "shared": shared})


def row_of(page: Page, limit: str) -> Locator:
    return page.locator(".shared .row", has_text=limit)


def test_shared_limit_is_drawn_with_who_waits(window: Window, open_system: Paceline, user: str, limit: str) -> None:
    users = [f"{user}-{n}" for n in range(4)]
    for one in users:
        submit(open_system, one, limit)
    page = window.go()
    row = row_of(page, limit)
    expect(row.locator(".waiters")).to_have_text(re.compile(rf"^Next: {user}-\d, {user}-\d"))
    expect(row.locator(".state")).to_have_text(re.compile("^waiting, next in"))
    expect(row.locator(".limits")).to_have_text(re.compile(r"^1 of 1 in 10 s · \d of 5 at once$"))
    label = row.locator("canvas").get_attribute("aria-label") or ""
    assert re.search(rf"^Shared limit {limit}, 1 of 1 in 10 s used, .*, \d waiting$", label)
    window.shoot("shared-light")
    waiting = page.locator(".lanes .state", has_text=f"waits for {limit}")
    expect(waiting.first).to_have_text(re.compile(rf"^waits for {limit}(, about \d before it)?$"))


def test_shared_limit_is_paused_and_resumed(window: Window, open_system: Paceline, user: str, limit: str) -> None:
    page = window.go()
    row = row_of(page, limit)
    expect(row.locator(".state")).to_have_text("free")
    expect(row.locator(".waiters")).to_have_text("No lane waits")
    page.get_by_role("button", name=f"Pause {limit}").click()
    expect(row.locator(".state")).to_have_text("paused")
    expect(page.locator("#live")).to_have_text(f"{limit} paused")
    assert open_system.request("GET", f"/api/v1/limits/{limit}").body["paused"]
    page.get_by_role("button", name=f"Resume {limit}").click()
    expect(row.locator(".state")).to_have_text("free")
    assert not open_system.request("GET", f"/api/v1/limits/{limit}").body["paused"]


def test_nothing_moves_while_a_page_with_shared_limits_loads(
    window: Window, open_system: Paceline, user: str, limit: str
) -> None:
    for number in range(3):
        submit(open_system, f"{user}-{number}", limit)
    shifts = "() => new Promise(done => new PerformanceObserver(list => done(list.getEntries().reduce("
    shifts += "(sum, one) => sum + one.value, 0))).observe({type: 'layout-shift', buffered: true}) ||"
    shifts += " setTimeout(() => done(0), 500))"
    page = window.go()
    page.reload()
    expect(page.locator(".page:not(.loading)")).to_be_visible()
    expect(row_of(page, limit)).to_be_visible()
    page.wait_for_timeout(3_000)
    assert page.evaluate(shifts) < 0.1


def test_page_without_shared_limits_has_no_section_for_them(window: Window) -> None:
    page = window.go()
    expect(page.locator(".page:not(.loading)")).to_be_visible()
    expect(page.locator("#shared-title")).to_be_hidden()


def test_phone_shows_shared_limits_without_scrolling_sideways(
    open_window: Open, open_system: Paceline, user: str, limit: str
) -> None:
    for number in range(4):
        submit(open_system, f"{user}-with-a-long-name-{number}", limit)
    window = open_window(open_system, PHONE, has_touch=True, is_mobile=True)
    page = window.go()
    expect(row_of(page, limit)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    window.shoot("phone-shared")
