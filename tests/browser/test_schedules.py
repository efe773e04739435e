"""The list of schedules on the page of a lane."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.browser.chromium import missing
from tests.browser.conftest import Window
from tests.e2e.running import Paceline

if TYPE_CHECKING or not missing():
    from playwright.sync_api import expect


def test_schedules_are_listed_with_their_next_tick(window: Window, open_system: Paceline, user: str) -> None:
    path = f"/api/v1/users/{user}/schedules"
    open_system.request("PUT", f"{path}/report", {"cron": "30 7 * * MON-FRI", "timezone": "Europe/Zurich"})
    open_system.request("PUT", f"{path}/poll", {"every_seconds": 3600, "paused": True})
    page = window.lane(user)
    rows = page.get_by_role("table", name="Schedules").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("poll")
    expect(rows.nth(0)).to_contain_text("every 60 min")
    expect(rows.nth(0)).to_contain_text("paused")
    expect(rows.nth(1)).to_contain_text("30 7 * * MON-FRI, Europe/Zurich")
    expect(rows.nth(1)).to_contain_text(re.compile(r", in \d+"))
    rows.nth(1).scroll_into_view_if_needed()
    window.shoot("schedules")


def test_a_user_without_schedules_sees_no_list(window: Window, user: str) -> None:
    with window.page.expect_response(re.compile("/schedules")):
        page = window.lane(user)
    expect(page.get_by_role("heading", name="Schedules")).to_be_hidden()
