"""Failed tasks on the page of all lanes, and an emptied lane."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.chromium import missing
from tests.browser.conftest import Window
from tests.e2e.running import Paceline

if TYPE_CHECKING or not missing():
    from playwright.sync_api import expect


def test_failed_tasks_have_a_count_a_reason_and_a_button(
    window: Window, open_system: Paceline, user: str, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    open_system.submit(user, {"path": str(there)}, task="when-there")
    open_system.wait_for_completions(1, user)
    page = window.go()
    row = page.locator(".failures tbody tr", has_text=user)
    expect(row).to_have_count(1)
    expect(row.locator(".error")).to_contain_text("FileNotFoundError")
    expect(page.locator(".totals > div", has_text="Failed").locator("dd").first).to_have_text(re.compile(r"[1-9]"))
    there.write_text("at last")
    row.get_by_role("button", name=f"Redrive task 1 of {user}").click()
    expect(row).to_contain_text("submitted again")
    expect(row.get_by_role("button")).to_have_count(0)
    open_system.wait_for_completions(2, user)
    window.shoot("failed")


def test_lane_is_emptied_from_its_page(window: Window, open_system: Paceline, user: str) -> None:
    open_system.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": [{}] * 40})
    page = window.lane(user)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Empty").click()
    expect(page.get_by_text(re.compile(r"\d+ waiting tasks cancelled"))).to_be_visible()
    expect(page.locator(".totals.small > div", has_text="Waiting").locator("dd")).to_have_text("0")
