"""The overview of lanes, and the dashboard's files."""

import re
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from chalice.test import HTTPResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib.api import dashboard
from chalicelib.core.errors import PermanentError
from chalicelib.lanes import overview
from tests.extent import extent
from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline


def lanes(paceline: Paceline, query: str) -> HTTPResponse:
    return paceline.get(f"/api/v1/lanes?{query}")


def submit(paceline: Paceline, user: str, count: int) -> None:
    paceline.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": [{}] * count})


def test_busiest_lanes_are_listed_by_backlog_and_then_by_name(paceline: Paceline, user: str) -> None:
    for name, count in (("c", 1), ("b", 4), ("a", 1), ("d", 14)):
        submit(paceline, f"{user}-{name}", count)
    paceline.request("POST", f"/api/v1/users/{user}-e/pause", {})
    answer = lanes(paceline, f"search={user}&order=active").json_body
    assert answer["next"] is None
    names = [lane["user_id"].rpartition("-")[2] for lane in answer["lanes"]]
    assert names == ["d", "b", "a", "c", "e"]
    assert answer["totals"] | {"late_ms": None} == {
        "lanes": 5,
        "complete": True,
        "waiting": 20,
        "running": 0,
        "paused": 1,
        "starts_per_second": 0,
        "late_ms": None,
        "worst_late_ms": None,
    }
    assert answer["lanes"][1]["next_starts"] == [NOW, NOW + 1_000, NOW + 2_000, NOW + 3_000]


def test_lane_that_ran_shows_its_starts_and_its_newest_completion(paceline: Paceline, user: str) -> None:
    submit(paceline, user, 2)
    paceline.work(paceline.receive(user)[0])
    answer = lanes(paceline, f"search={user}").json_body
    assert answer["lanes"][0]["starts"] == [NOW]
    assert answer["totals"]["starts_per_second"] == 0.1
    (completion,) = answer["completions"]
    assert (completion["user_id"], completion["seq"], completion["state"]) == (user, 1, "succeeded")
    assert (completion["completed_at"], completion["late_ms"]) == (NOW, 0)


def run_all(paceline: Paceline, *users: str) -> None:
    """Handles every message at its time; the queue of the tests hides a deferred one until then."""
    for _ in range(200):
        records = paceline.receive(*users)
        if not records and not paceline.clock.advance(1_000) and not (records := paceline.receive(*users)):
            return
        stuck = paceline.work(*records)
        for record in records:
            if record["messageId"] not in stuck:
                paceline.delete(record)


def completions(paceline: Paceline, user: str, query: str = "order=active") -> list[tuple[str, int, str]]:
    found = lanes(paceline, f"search={user}&{query}").json_body["completions"]
    return [(one["user_id"].removeprefix(user), one["seq"], one["state"]) for one in found]


def test_newest_completions_are_tasks_of_every_lane_and_are_kept(paceline: Paceline, user: str) -> None:
    for name in ("-a", "-b"):
        submit(paceline, f"{user}{name}", 3)
        run_all(paceline, f"{user}{name}")
    expected = [("-b", 3), ("-b", 2), ("-b", 1), ("-a", 3), ("-a", 2), ("-a", 1)]
    assert completions(paceline, user) == [(*one, "succeeded") for one in expected]
    paceline.clock.advance(86_400_000)
    answer = lanes(paceline, f"search={user}&order=active").json_body
    assert len(answer["completions"]) == 6
    assert answer["totals"]["late_ms"] is None  # of the last minute


def test_failure_stays_in_sight_after_later_successes(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="100/second")

    @paceline.parts.registry.task("bad")
    def bad() -> None:
        raise PermanentError("no such host")

    paceline.request("POST", "/api/v1/task", {"user_id": user, "task": "bad"})
    submit(paceline, user, 2)
    run_all(paceline, user)
    submit(paceline, user, 17)
    run_all(paceline, user)
    for number in range(8):
        submit(paceline, f"{user}-{number}", 1)
        run_all(paceline, f"{user}-{number}")
    found = completions(paceline, user)
    assert len(found) == overview.MAX_COMPLETIONS + 1
    assert found[-1] == ("", 1, "failed")


def test_tasks_that_wait_do_not_hide_those_that_finished(paceline: Paceline, user: str) -> None:
    submit(paceline, user, 60)
    for record in paceline.receive(user)[:1]:
        paceline.work(record)
    assert completions(paceline, user) == [("", 1, "succeeded")]


@given(st.data())
@settings(max_examples=extent(10, 40), deadline=None, suppress_health_check=list(HealthCheck))
def test_no_page_misses_or_repeats_a_lane_whatever_changes_between_pages(deploy: Deploy, data: st.DataObject) -> None:
    paceline = deploy()
    prefix = f"p{uuid4().hex[:8]}-"
    names = data.draw(st.sets(st.text("!09AZaz~", min_size=1, max_size=3), min_size=1, max_size=12))
    for name in names:
        submit(paceline, prefix + name, 1)
    seen, before, size = [], "", data.draw(st.integers(1, 4))
    while before is not None:
        page = lanes(paceline, urlencode({"search": prefix, "limit": size, "before": before})).json_body
        seen += [lane["user_id"] for lane in page["lanes"]]
        before = page["next"]
        changed = data.draw(st.lists(st.text("!09AZaz~", min_size=1, max_size=3), max_size=3))
        for name in changed:
            submit(paceline, prefix + name, 2)
            run_all(paceline, prefix + name)
    assert seen == sorted(set(seen))
    assert {prefix + name for name in names} <= set(seen)


def test_pages_by_user_id_hold_each_lane_once_though_lanes_change_between_them(paceline: Paceline, user: str) -> None:
    for number in range(5):
        submit(paceline, f"{user}-{number}", 1)
    pages, before = [], ""
    while before is not None:
        page = lanes(paceline, f"search={user}&limit=2&before={before}").json_body
        pages.append(page)
        before = page["next"]
        submit(paceline, f"{user}-0{len(pages)}", 1)  # a new lane on a page that was read already
        submit(paceline, f"{user}-{5 - len(pages)}", 9)
    assert [lane["user_id"] for page in pages for lane in page["lanes"]] == [f"{user}-{n}" for n in range(5)]
    assert [page["totals"]["lanes"] for page in pages] == [2, 2, 1]
    assert not any(page["totals"]["complete"] for page in pages)


def test_busiest_lanes_are_so_many_and_the_totals_cover_the_others_too(paceline: Paceline, user: str) -> None:
    for number in range(4):
        submit(paceline, f"{user}-{number}", number + 1)
    answer = lanes(paceline, f"search={user}&order=active&limit=2").json_body
    assert [lane["user_id"] for lane in answer["lanes"]] == [f"{user}-3", f"{user}-2"]
    assert (answer["totals"]["lanes"], answer["totals"]["waiting"], answer["totals"]["complete"]) == (4, 10, True)


def test_busiest_lanes_are_those_of_the_first_lanes_and_the_totals_say_so(
    paceline: Paceline, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "MAX_RANKED", 2)
    for number in range(3):
        submit(paceline, f"{user}-{number}", number + 1)
    answer = lanes(paceline, f"search={user}&order=active").json_body
    assert [lane["user_id"] for lane in answer["lanes"]] == [f"{user}-1", f"{user}-0"]
    assert (answer["totals"]["lanes"], answer["totals"]["complete"], answer["next"]) == (2, False, None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("before=a%20b", "before"),
        (f"before={'x' * 129}", "before"),
        ("order=active&before=ann", "before"),
        ("order=newest", "order"),
        ("search=a%20b", "search"),
        ("search=%F0%9F%98%80", "search"),
        (f"search={'x' * 129}", "search"),
    ],
)
def test_wrong_parameter_is_named(paceline: Paceline, query: str, field: str) -> None:
    response = lanes(paceline, query)
    assert (response.status_code, response.json_body["field"]) == (422, field)


def test_dashboard_is_locked_to_its_own_origin(paceline: Paceline) -> None:
    response = paceline.get("/")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert b"<script>" not in response.body


def test_every_file_is_served_as_what_it_is(paceline: Paceline) -> None:
    for path in dashboard.FILES.iterdir():
        response = paceline.get(f"/web/{path.name}")
        assert response.status_code == 200
        assert response.body == path.read_bytes()
        assert response.headers["Content-Type"] == dashboard.CONTENT_TYPES[path.suffix]


def test_file_that_the_browser_has_is_not_sent_again(paceline: Paceline) -> None:
    tag = paceline.get("/web/app.js").headers["ETag"]
    again = paceline.request("GET", "/web/app.js", If_None_Match=f'"other", W/{tag}')
    assert (again.status_code, again.body) == (304, b"")
    assert paceline.request("GET", "/web/app.js", If_None_Match='"other"').status_code == 200


@pytest.mark.parametrize("name", ["nope.js", "..%2Fpages.py", "%2e%2e", "style", "%00", ".js"])
def test_nothing_else_is_served(paceline: Paceline, name: str) -> None:
    assert paceline.get(f"/web/{name}").status_code == 404


def test_files_ask_nothing_of_other_hosts_and_parse_no_markup() -> None:
    for path in Path(dashboard.FILES).iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z]", text), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), path.name


def test_lane_is_free_again_when_its_pause_is_over(paceline: Paceline, user: str) -> None:
    paceline.request("POST", f"/api/v1/users/{user}/pause", {"until": NOW + 90_000})
    assert paceline.get(f"/api/v1/users/{user}").json_body["open_at"] == NOW + 90_000
