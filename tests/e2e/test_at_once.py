"""Several tasks of one user at once, on real processes: their starts, the answers about them, and workers that die."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.running import Paceline, most_in_any_window, running

#: Milliseconds by which a start may come late on a busy machine.
LATE_MS = 1_500


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paceline]:
    settings = {"LIMITS": "1/second; 3 at once", "BACKOFF": "1s"}
    with running(tmp_path_factory.mktemp("several"), **settings) as paceline:
        yield paceline


def sleep(paceline: Paceline, user: str, seconds: float, count: int) -> list[dict[str, Any]]:
    """The answers to that many tasks, in order."""
    body = {"user_id": user, "tasks": [{"task": "sleep", "payload": {"seconds": seconds}}] * count}
    answer = paceline.request("POST", "/api/v1/tasks", body)
    assert answer.status in (202, 429), answer
    return list(answer.body["tasks"])


def set_limits(paceline: Paceline, user: str, limits: str) -> None:
    assert paceline.request("PUT", f"/api/v1/users/{user}/limits", {"limits": limits}).status == 200


def starts_of(entries: list[dict[str, Any]]) -> list[int]:
    """Milliseconds from the first start to each, in order of seq."""
    ordered = sorted(entries, key=lambda entry: int(entry["seq"]))
    assert [entry["seq"] for entry in ordered] == list(range(1, len(entries) + 1))
    return [entry["started_at"] - ordered[0]["started_at"] for entry in ordered]


def most_at_once(entries: list[dict[str, Any]]) -> int:
    return max(
        sum(one["started_at"] <= entry["started_at"] < one["completed_at"] for one in entries) for entry in entries
    )


def assert_on_time(starts: list[int], expected_seconds: list[int]) -> None:
    late = [start - 1_000 * seconds for start, seconds in zip(starts, expected_seconds, strict=True)]
    assert min(late) >= 0, starts
    assert max(late) < LATE_MS, starts


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("1/second; 3 at once", [0, 1, 2, 4, 5, 6]),
        ("1/second; 1 at once", [0, 4, 8, 12, 16, 20]),
    ],
)
def test_tasks_start_as_soon_as_a_slot_is_free_and_the_views_say_so(several: Paceline, limits, expected) -> None:
    user = f"slow-{limits[-9]}"
    set_limits(several, user, limits)
    sleep(several, user, 4, 1)
    several.wait_for_completions(1, user)  # the lane knows how long they take
    started = time.time() * 1000
    answers = sleep(several, user, 4, 6)
    several.wait_for(lambda: several.request("GET", f"/api/v1/users/{user}").body["running"], 10, "one runs")
    tasks = [several.request("GET", f"/api/v1/users/{user}/tasks/{one['task_id']}").body for one in answers]
    told = [task["estimated_at"] - started for task in tasks if task["state"] == "queued"]
    entries = several.wait_for_completions(7, user)[1:]
    starts = [entry["started_at"] - entries[0]["started_at"] for entry in entries]
    assert [entry["seq"] for entry in entries] == list(range(2, 8))
    assert_on_time(starts, expected)
    assert len(told) >= 4
    assert told == pytest.approx([1_000 * seconds for seconds in expected[-len(told) :]], abs=2 * LATE_MS)
    assert most_at_once(entries) == int(limits[-9])


def test_a_strict_submit_is_refused_while_all_slots_are_taken(several: Paceline) -> None:
    user, body = "strict", {"task": "sleep", "payload": {"seconds": 6}}
    set_limits(several, user, "5/second; 2 at once")
    sleep(several, user, 6, 2)
    lane = lambda: several.request("GET", f"/api/v1/users/{user}").body  # noqa: E731
    several.wait_for(lambda: lane()["slots_in_use"] == 2, 10, "both run")
    time.sleep(1.5)  # until the pace alone would allow one more, and both are marked
    refused = several.request("POST", "/api/v1/task", {"user_id": user, **body}, {"Prefer": "handling=strict"})
    assert (refused.status, refused.body["queued"]) == (429, False)
    assert "2 tasks of this user are running" in refused.body["detail"]
    assert not any("at once" in value or "at-once" in value for value in refused.headers.values())
    assert lane()["at_once"] == 2


@pytest.mark.parametrize(
    ("before", "after", "most_after"),
    [("5/second; 1 at once", "5/second; 5 at once", 5), ("5/second; 5 at once", "5/second; 2 at once", 2)],
)
def test_another_number_at_once_holds_for_a_backlog_at_once(several: Paceline, before, after, most_after) -> None:
    user = f"change-{before[10]}-{after[10]}"
    set_limits(several, user, before)
    sleep(several, user, 1, 24)
    several.wait_for(lambda: len(several.completions(user)) >= 4, 20, "some are done")
    set_limits(several, user, after)
    changed_at = time.time() * 1000
    entries = several.wait_for_completions(24, user, timeout_seconds=60)
    assert sorted(starts_of(entries)) == starts_of(entries), "in order"
    assert {entry["event"] for entry in entries} == {"task_completed"}
    assert most_in_any_window([entry["started_at"] for entry in entries], 1_000) <= 5
    later = [entry for entry in entries if entry["started_at"] > changed_at]
    for entry in later:
        beside = [one for one in entries if one["started_at"] <= entry["started_at"] < one["completed_at"]]
        assert len(beside) <= most_after
    if most_after == 5:
        assert most_at_once(later) >= 4


def test_tasks_whose_workers_are_killed_run_once_more_each_and_never_beside_an_eleventh(
    several: Paceline, tmp_path
) -> None:
    user, diary = "killed", tmp_path / "diary"
    set_limits(several, user, "20/second; 10 at once")
    task = {"task": "diary", "payload": {"path": str(diary), "seconds": 8}}
    assert several.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": [task] * 14}).status in (202, 429)
    lines = lambda word: diary.read_text().count(word) if diary.exists() else 0  # noqa: E731
    several.wait_for(lambda: lines("begin") == 10, 30, "ten run")
    killed = {name: several.kill(name) for name in ("worker-1", "worker-2")}
    several.wait_for(lambda: all(several.is_replaced(*one) for one in killed.items()), 60, "both are replaced")
    entries = several.wait_for_completions(14, user, timeout_seconds=120)
    assert len(entries) == 14
    assert {entry["event"] for entry in entries} == {"task_completed"}
    first = [min([*entry.get("starts", ()), entry["started_at"]]) for entry in sorted(entries, key=lambda e: e["seq"])]
    assert first == sorted(first)
    assert [entry["attempt"] for entry in sorted(entries, key=lambda e: e["seq"])] == [2] * 10 + [1] * 4
    assert most_at_once(entries) <= 10
    assert lines("begin") == 24


def test_a_user_with_brief_tasks_waits_for_no_user_with_long_ones(several: Paceline) -> None:
    users = [f"long-{number}" for number in range(10)]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda user: set_limits(several, user, "1/second; 1 at once"), users))
        list(pool.map(lambda user: sleep(several, user, 30, 10), users))
    several.wait_for(
        lambda: all(several.request("GET", f"/api/v1/users/{user}").body["running"] for user in users), 30, "all run"
    )
    set_limits(several, "brief", "5/second; 1 at once")
    for _ in range(5):
        sleep(several, "brief", 0.05, 1)
        time.sleep(0.3)
    entries = several.wait_for_completions(5, "brief")
    assert max(entry["late_ms"] for entry in entries) < LATE_MS
    assert not several.completions(*users)
