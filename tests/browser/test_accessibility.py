"""axe-core finds nothing on any page: in light and dark, on a desktop and a phone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import DESKTOP, PHONE, missing
from tests.browser.conftest import Open, Window
from tests.browser.test_overview import submit
from tests.e2e.running import Paceline

if TYPE_CHECKING or not missing():
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect

PAGES: dict[str, Callable[[Window, str], object]] = {
    "all lanes": lambda window, _: window.go(),
    "a lane": lambda window, user: window.lane(user),
    "an unknown lane": lambda window, user: window.lane(f"{user}-unknown"),
}


@pytest.fixture(scope="module")
def busy_user(open_system: Paceline) -> str:
    """A lane with succeeded, failed and waiting tasks."""
    name = "axe"
    body = {"user_id": name, "task": "http", "payload": {"url": "http://127.0.0.1:1/"}}
    open_system.request("POST", "/api/v1/task", body)
    submit(open_system, name, 40)
    open_system.wait_for_completions(2, name)
    return name


def findings(window: Window) -> list[str]:
    found = Axe().run(window.page).response["violations"]
    return [f"{one['id']}: {one['help']} ({node['html']})" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("page", PAGES)
def test_axe_finds_nothing(
    open_window: Open, open_system: Paceline, busy_user: str, page: str, size: tuple[int, int], scheme: str
) -> None:
    window = open_window(open_system, size, scheme)
    PAGES[page](window, busy_user)
    expect(window.page.locator(".page:not(.loading)")).to_be_visible()
    assert findings(window) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_where_a_token_is_asked_for(open_window: Open, closed_system: Paceline, scheme: str) -> None:
    window = open_window(closed_system, scheme=scheme)
    window.expected = re.compile("401")
    window.go()
    expect(window.page.get_by_label("Token")).to_be_visible()
    assert findings(window) == []


def test_axe_would_find_a_picture_without_words(window: Window) -> None:
    page = window.go()
    expect(page.locator(".page:not(.loading)")).to_be_visible()
    page.evaluate("document.querySelector('main').append(new Image(20, 20))")
    assert [one.partition(":")[0] for one in findings(window)] == ["image-alt"]
