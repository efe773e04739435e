"""AUTH=jwt: a token is asked for, kept for this tab only, and decides what is shown."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from tests.browser.chromium import missing
from tests.browser.conftest import Open
from tests.e2e.running import Paceline
from tests.tokens import make_token

if TYPE_CHECKING or not missing():
    from playwright.sync_api import Page, expect

REFUSED = re.compile("status of 40[13]")


def token(user: str, **claims: object) -> str:
    return make_token(sub=user, exp=int(time.time()) + 600, **claims)


def sign_in(page: Page, text: str) -> None:
    page.get_by_label("Token").fill(text)
    page.get_by_role("button", name="Sign in").last.click()


def test_wrong_token_is_refused_and_a_users_own_leads_to_its_lane(
    open_window: Open, closed_system: Paceline, user: str
) -> None:
    window = open_window(closed_system)
    window.expected = REFUSED
    page = window.go()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_label("Token")).to_be_focused()
    window.shoot("sign-in")
    sign_in(page, "nonsense")
    expect(page.get_by_role("alert")).to_contain_text("token")
    expect(page.locator("#user")).to_be_hidden()
    expect(page.get_by_role("button", name="Sign out")).to_be_hidden()
    sign_in(page, f"Bearer {token(user)}")
    expect(page.get_by_role("heading", level=1)).to_have_text(user)
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("table.tasks tbody tr").first).to_contain_text("succeeded")
    for control in ("Pause", "Change"):  # only an admin may
        expect(page.get_by_role("button", name=control, exact=True)).to_have_count(0)
    expect(page.get_by_role("link", name="All lanes")).to_have_count(0)
    expect(page.get_by_role("button", name="Empty")).to_be_visible()
    window.shoot("own-lane")
    window.lane("somebody-else")
    expect(page.get_by_role("heading", level=1)).to_have_text("Access denied")


def test_admin_sees_all_lanes_until_signing_out(open_window: Open, closed_system: Paceline, user: str) -> None:
    window = open_window(closed_system)
    window.expected = REFUSED
    page = window.with_clock().lane(user)
    sign_in(page, token("root", scope="admin"))
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    page.get_by_role("link", name="All lanes").click()
    expect(page.locator(".lanes .row", has_text=user)).to_contain_text("paused")
    expect(page.locator("#user")).to_have_text("root")
    assert page.evaluate("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
    page.reload()
    expect(page.locator(".lanes .row").first).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    window.stop_time()
    assert window.api_calls(10) == 0


def test_token_that_runs_out_asks_for_another(open_window: Open, closed_system: Paceline, user: str) -> None:
    window = open_window(closed_system)
    window.expected = REFUSED
    page = window.lane(user)
    sign_in(page, token(user))
    expect(page.get_by_role("heading", level=1)).to_have_text(user)
    page.evaluate("text => sessionStorage.setItem('paceline.token', text)", make_token(sub=user, exp=1))
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("expired")
    page.keyboard.insert_text(token(user))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(user)
