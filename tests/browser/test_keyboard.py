"""Use of the dashboard by keyboard, and by screen reader."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.browser.chromium import missing
from tests.browser.conftest import Window
from tests.e2e.running import Paceline

if TYPE_CHECKING or not missing():
    from playwright.sync_api import Page, expect

#: The focused element, and whether its focus is visible.
FOCUSED = """() => {
  const node = document.activeElement, {outlineStyle, outlineWidth} = getComputedStyle(node);
  const name = node.ariaLabel || (node.labels?.length && node.labels[0].textContent) || node.textContent;
  const {top, bottom} = node.getBoundingClientRect();
  return {name, shows: outlineStyle === "solid" && outlineWidth === "2px" && top >= 0 && bottom <= innerHeight};
}"""


def tab_to(page: Page, name: str) -> None:
    """Goes on with the tabulator key until the focus is there, and wants to see it all the way."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused["name"] == name:
            assert focused["shows"], name
            return
    raise AssertionError(f"the tabulator key does not lead to {name!r}")


def press(page: Page, name: str) -> None:
    tab_to(page, name)
    page.keyboard.press("Enter")


def write(page: Page, name: str, text: str) -> None:
    tab_to(page, name)
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(text)


def test_lane_is_paused_and_resumed_and_its_focus_kept(window: Window, user: str) -> None:
    page = window.lane(user)
    press(page, "Pause")
    expect(page.get_by_role("button", name="Resume")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_focused()
    press(page, "Pause until\N{HORIZONTAL ELLIPSIS}")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Pause until", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("summary", has_text="Pause until")).to_be_focused()
    page.keyboard.press("Enter")
    press(page, "Set")
    expect(page.locator(".title .state")).to_have_text("paused for 10 min more")


def test_tasks_are_submitted_found_and_cancelled_and_limits_changed(
    window: Window, open_system: Paceline, user: str
) -> None:
    open_system.request("POST", f"/api/v1/users/{user}/pause", {})
    page = window.lane(user)
    write(page, "How many", "3")
    press(page, "Submit")
    expect(page.locator("table.tasks tbody tr")).to_have_count(3)
    tab_to(page, "Payload")  # past the list of the tasks that start next
    press(page, "Cancel task 2")
    row = page.locator("table.tasks tbody tr").filter(has_text="cancelled")
    expect(row).to_be_focused()
    tab_to(page, "Cancel task 1")
    tab_to(page, "Show tasks in this state")
    page.keyboard.type("cancelled")
    expect(page.locator("table.tasks tbody tr")).to_have_count(1)
    write(page, "All limits apply together", "7/minute")
    press(page, "Change")
    expect(page.locator(".band .limit b")).to_have_text(["7 a minute"])
    press(page, "Use the default")
    expect(page.locator(".band .limit b")).to_have_text(["2 a second", "20 a minute"])
    press(page, "All lanes")
    expect(page.locator("main")).to_be_focused()


#: Collects what a screen reader would say.
SAID = """() => {
  window.said = [];
  for (const node of document.querySelectorAll("[aria-live], [role=status], [role=alert]"))
    new MutationObserver(() => said.push(node.textContent))
      .observe(node, {childList: true, characterData: true, subtree: true});
}"""


def test_nothing_is_said_aloud_while_only_time_goes_by(window: Window, open_system: Paceline, user: str) -> None:
    open_system.request("POST", f"/api/v1/users/{user}/pause", {})
    open_system.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": [{}] * 3})
    page = window.with_clock().go()
    page.get_by_label("Find users").fill(user)
    expect(page.locator(".lanes .row")).to_have_count(1)
    assert what_is_said(window) == []
    page.clock.resume()
    window.lane(user)
    expect(page.locator("table.tasks tbody tr")).to_have_count(3)
    assert what_is_said(window) == []


def what_is_said(window: Window) -> object:
    """While nothing happens."""
    window.stop_time()
    window.page.evaluate(SAID)
    assert window.api_calls(6) >= 2
    return window.page.evaluate("said")


def test_ends_of_tasks_are_said_aloud_once(window: Window, open_system: Paceline, user: str) -> None:
    page = window.lane(user)
    expect(page.locator(".pulse")).to_have_text("live")
    open_system.submit(user, {"seconds": 10}, "sleep")
    expect(page.locator("table.tasks tbody tr")).to_contain_text("running")
    page.evaluate(SAID)
    expect(page.locator("table.tasks tbody tr")).to_contain_text("succeeded")
    assert [text for text in page.evaluate("said") if re.search("Task 1", text)] == ["Task 1 succeeded"]
