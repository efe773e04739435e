"""All lanes at a glance, and how the dashboard behaves as a page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import DESKTOP, PHONE, missing
from tests.browser.conftest import Open, Window, wait_until
from tests.e2e.running import Paceline

if TYPE_CHECKING or not missing():
    from playwright.sync_api import Page, Route, expect


def submit(paceline: Paceline, user: str, count: int) -> None:
    paceline.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": [{}] * count})


def total(page: Page, name: str) -> int:
    expect(page.locator(".page:not(.loading)")).to_be_visible()
    figure = page.locator(".totals > div", has_text=name).locator("dd").first
    expect(figure).to_have_text(re.compile(r"^[\d,]+"))
    return int(figure.inner_text().replace(",", ""))


def hide(page: Page, *, hidden: bool) -> None:
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def test_lanes_move_and_their_pictures_have_words(window: Window, open_system: Paceline, user: str) -> None:
    submit(open_system, user, 30)
    page = window.go()
    row = page.locator(".lanes .row", has_text=user)
    expect(row.locator(".state")).to_have_text(re.compile("waiting, next"))
    assert total(page, "Waiting") >= 1
    label = row.locator("canvas").get_attribute("aria-label") or ""
    assert re.search(
        rf"^Lane of {user}, \d of 2 a second used, \d+ of 20 a minute used, \d+ waiting, next start", label
    )
    expect(page.locator(".feed tbody tr", has_text=user).first).to_contain_text("succeeded")
    picture = "canvas => canvas.toDataURL()"
    first = row.locator("canvas").evaluate(picture)
    wait_until(lambda: row.locator("canvas").evaluate(picture) != first, "the line moves")
    window.shoot("lanes-light")


def test_newest_completions_are_tasks_and_say_which(window: Window, open_system: Paceline, user: str) -> None:
    submit(open_system, user, 3)
    open_system.wait_for_completions(3, user)
    page = window.go()
    rows = page.locator(".feed tbody tr", has_text=user)
    expect(rows).to_have_count(3)
    expect(rows.locator("td:nth-child(4)")).to_have_text(["3", "2", "1"])
    expect(page.locator("section", has_text="Newest completions")).to_contain_text("10 that failed before")
    window.shoot("completions")


def test_users_are_found_and_their_pages_opened_by_keyboard_alone(
    window: Window, open_system: Paceline, user: str
) -> None:
    submit(open_system, user, 1)
    page = window.go()
    expect(page.locator(".pulse")).to_have_text("live")
    expect(page.locator(".page:not(.loading)")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Find users")).to_be_focused()
    page.keyboard.type(user)
    expect(page.locator(".lanes .row")).to_have_count(1)
    link = page.get_by_role("link", name=user).first
    for _ in range(4):
        page.keyboard.press("Tab")
        if link.evaluate("link => link === document.activeElement"):
            break
    expect(link).to_be_focused()
    assert link.evaluate("link => getComputedStyle(link).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(user)
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(document.activeElement.id || document.activeElement.textContent)"))
    wanted = {"All lanes", "Pause", "Pause until…", "task", "count", "payload", "Submit", "limits", "Change", "state"}
    assert wanted <= reached


def idle_since(window: Window, user: str, seconds: int) -> None:
    """Shows the page lanes of `user` as they will be once they were idle for so long."""

    def later(route: Route) -> None:
        answer = route.fetch().json()
        for lane in answer["lanes"]:
            if lane["user_id"].startswith(user):
                lane["starts"] = [at - seconds * 1000 for at in lane["starts"]]
        route.fulfill(json=answer)

    window.page.route("**/api/v1/lanes?*", later)


def test_idle_lanes_fold_and_leave_room_for_the_others(window: Window, open_system: Paceline, user: str) -> None:
    for name in (f"{user}-idle", f"{user}-busy"):
        submit(open_system, name, 1)
        open_system.wait_for_completions(1, name)
    idle_since(window, f"{user}-idle", 200)
    page = window.go()
    page.get_by_label("Find users").fill(user)
    expect(page.locator(".idle li", has_text=user)).to_have_text(re.compile(f"^{user}-idlelast 3 min ago"))
    expect(page.locator(".lanes .row")).to_have_count(1)
    window.shoot("idle-lanes")
    page.get_by_role("link", name=f"{user}-idle").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{user}-idle")


def test_nothing_moves_while_a_page_loads(window: Window, open_system: Paceline, user: str) -> None:
    for number in range(20):
        submit(open_system, f"{user}-{number}", 2)
    shifts = "() => new Promise(done => new PerformanceObserver(list => done(list.getEntries().reduce("
    shifts += "(sum, one) => sum + one.value, 0))).observe({type: 'layout-shift', buffered: true}) ||"
    shifts += " setTimeout(() => done(0), 500))"
    for go in (window.go, lambda: window.lane(f"{user}-0")):
        page = go()
        page.reload()
        expect(page.locator(".page:not(.loading)")).to_be_visible()
        page.wait_for_timeout(1_500)
        assert page.evaluate(shifts) < 0.1


def test_rows_out_of_sight_have_their_words_before_they_are_drawn(
    window: Window, open_system: Paceline, user: str
) -> None:
    for number in range(24):
        open_system.request("POST", f"/api/v1/users/{user}-{number:02}/pause", {})
    page = window.go()
    page.get_by_label("Find users").fill(user)
    expect(page.locator(".lanes .row")).to_have_count(24)
    expect(page.locator(".lanes .row .state")).to_have_text(["paused"] * 24)


def test_unknown_user_is_said_to_be_unknown(window: Window) -> None:
    page = window.go()
    page.get_by_label("Find users").fill("nobody-")
    expect(page.locator(".empty")).to_have_text("No user id starts with “nobody-”.")


def test_many_lanes_come_in_pages(window: Window, open_system: Paceline, user: str) -> None:
    for number in range(30):
        open_system.request("POST", f"/api/v1/users/{user}-{number:02}/pause", {})
    page = window.go()
    page.get_by_label("Find users").fill(user)
    expect(page.locator(".range[role=status]")).to_have_text(re.compile("^1.25 of 30$"))
    page.get_by_label("Order").select_option("By user id")
    expect(page.locator(".range[role=status]")).to_have_text(re.compile("^1.25$"))
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".range[role=status]")).to_have_text(re.compile("^26.30 of 30$"))
    expect(page.locator(".lanes .row")).to_have_count(5)
    page.get_by_role("button", name="Previous").click()
    expect(page.locator(".lanes .row")).to_have_count(25)


def test_api_is_asked_once_a_second_at_most_and_not_at_all_while_hidden(window: Window, user: str) -> None:
    window.with_clock()
    for go in (window.go, lambda: window.lane(user)):
        page = go()
        expect(page.locator(".pulse")).to_have_text("live")
        if go != window.go:  # at first each part of a lane's page is asked for at once, the names of the tasks last
            expect(page.locator("#task-names option")).not_to_have_count(0)
        window.stop_time()
        assert 2 <= window.api_calls(5) <= 5
        page.clock.resume()
    window.stop_time()
    hide(page, hidden=True)
    assert window.api_calls(10) == 0
    hide(page, hidden=False)
    assert 1 <= window.api_calls(2) <= 3


#: The banner's texts for a screen reader.
ALERTS = """() => {
  window.alerts = [];
  new MutationObserver(() => alerts.push(document.querySelector("[role=alert]").textContent))
    .observe(document.querySelector("[role=alert]"), {childList: true, characterData: true, subtree: true});
}"""


def test_banner_says_that_the_api_is_down_and_goes_when_it_is_back(window: Window) -> None:
    page = window.with_clock().go()
    expect(page.locator(".pulse")).to_have_text("live")
    window.expected = re.compile("ERR_FAILED|503")
    window.stop_time()
    page.evaluate(ALERTS)
    page.route(re.compile("/api/"), lambda route: route.abort())
    assert 4 <= window.api_calls(20) <= 6  # after 1, 2, 4, 8 and 15 s
    banner = page.get_by_role("alert")
    expect(banner).to_have_text("The API does not answer. The page shows its last state.")
    expect(page.locator(".banner")).to_contain_text("Next try in 15 s.")
    expect(page.locator(".pulse")).to_have_text("not live")
    assert page.evaluate("alerts.length") == 1  # a screen reader reads it once
    window.shoot("down")
    page.unroute(re.compile("/api/"))
    page.get_by_role("button", name="Try now").click()
    expect(banner).to_be_hidden()


@pytest.mark.parametrize("path", ["/", "/#/lane/phone"])
def test_phone_shows_everything_without_scrolling_sideways(open_window: Open, open_system: Paceline, path: str) -> None:
    submit(open_system, "phone", 6)
    window = open_window(open_system, PHONE, has_touch=True, is_mobile=True)
    page = window.go(path)
    expect(page.locator(".row canvas, .picture canvas").first).to_be_visible()
    expect(page.locator("table.feed tr, table.tasks tr").nth(1)).to_be_attached()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    buttons = page.locator("button:visible, summary:visible, input:visible, select:visible")
    for box in [one.bounding_box() for one in buttons.all()]:
        assert box is None or (box["height"] >= 32 and box["x"] >= 0 and box["x"] + box["width"] <= PHONE[0])
    window.shoot(f"phone-{'lane' if 'lane' in path else 'lanes'}")


#: WCAG 2's contrast of text against what is behind it.
CONTRAST = """() => {
  const light = (color) => {
    const linear = (c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const [r, g, b] = color.match(/[\\d.]+/g).map((c) => linear(c / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility() || node.disabled) continue;
    const [one, other] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
    if ((one + .05) / (other + .05) < 4.5) poor.push(node.className + ": " + node.textContent);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(open_window: Open, open_system: Paceline, user: str, scheme: str) -> None:
    submit(open_system, user, 8)
    open_system.request("POST", f"/api/v1/users/{user}-p/pause", {})
    window = open_window(open_system, DESKTOP, scheme)
    page = window.go()
    expect(page.locator(".feed tbody tr").first).to_be_visible()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 384) is (scheme == "light")
    assert page.evaluate(CONTRAST) == []
    window.lane(user)
    expect(page.locator(".tasks tbody tr").first).to_be_visible()
    assert page.evaluate(CONTRAST) == []
    window.shoot(f"lane-{scheme}")


def test_nothing_glides_for_those_who_want_no_motion(open_window: Open, open_system: Paceline, user: str) -> None:
    submit(open_system, user, 8)
    window = open_window(open_system, reduced_motion="reduce")
    window.page.add_init_script(
        "let drawn = window.drawn = {count: 0}; const clear = CanvasRenderingContext2D.prototype.clearRect;"
        "CanvasRenderingContext2D.prototype.clearRect = function (...a) {"
        " if (this.canvas.className === 'axis') drawn.count += 1; return clear.apply(this, a); }"
    )
    page = window.with_clock().go()
    expect(page.locator(".pulse")).to_have_text("live")
    window.stop_time()
    before = page.evaluate("drawn.count")
    page.clock.run_for(5000)
    assert 4 <= page.evaluate("drawn.count") - before <= 6


def test_screen_reader_finds_landmarks_and_one_heading(window: Window, user: str) -> None:
    for page in (window.go(), window.lane(user)):
        expect(page.get_by_role("banner")).to_be_visible()
        expect(page.get_by_role("main")).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        expect(page.locator("canvas:not([aria-label]):not([aria-hidden]):not([role=img] canvas)")).to_have_count(0)
        unnamed = "[...document.querySelectorAll('input, select, textarea')].filter((one) => !one.labels.length).length"
        assert page.evaluate(unnamed) == 0
