"""A day in the life: failed tasks are found and redriven, a full lane is emptied, a customer is forgotten."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import Paceline, most_in_any_window, running

WAITING = 3_000
#: Seconds in which the cancellations are logged on a machine with other work; alone it takes about 20.
DRAINED_IN_SECONDS = 240


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paceline]:
    directory = tmp_path_factory.mktemp("day")
    with running(directory, LIMITS="5/second; 30/minute", MAX_DELAY="12d") as paceline:
        yield paceline


def body_of(paceline: Paceline, method: str, path: str, body: Any = None, *expected: int) -> Any:
    answer = paceline.request(method, path, body)
    assert answer.status in (expected or (200,)), answer
    return answer.body


def events(paceline: Paceline, user: str, event: str) -> list[dict[str, Any]]:
    """In order of their starts; cancelled tasks may have none."""
    found = [line for line in lines_of(paceline, user) if line["event"] == event]
    return sorted(found, key=lambda line: (line["started_at"] or 0, line["seq"]))


def cancellations(paceline: Paceline, user: str) -> int:
    """Counts them without reading each line: while many are logged, that would take a core of its own."""
    line = f'"event":"task_cancelled","user_id":"{user}"'.encode()
    return sum(path.read_bytes().count(line) for path in Path(paceline.env["LOG_DIR"]).rglob("*.log"))


def lines_of(paceline: Paceline, user: str) -> list[dict[str, Any]]:
    texts = [path.read_bytes() for path in Path(paceline.env["LOG_DIR"]).rglob("*.log")]
    lines = [line for text in texts for line in text.splitlines(keepends=True) if line.endswith(b"\n")]
    return [entry for entry in map(json.loads, lines) if entry["user_id"] == user]


def test_failed_tasks_are_found_and_run_again(day: Paceline, tmp_path: Path) -> None:
    """One is redriven by hand, the others since a time; repeats change nothing."""
    there, begun_at = tmp_path / "there", round(time.time() * 1000)
    for _ in range(4):
        day.submit("failing", {"path": str(there)}, task="when-there")
    day.wait_for(lambda: len(events(day, "failing", "task_failed")) == 4, 60, "four failures")
    failed = body_of(day, "GET", "/api/v1/tasks?state=failed")["tasks"]
    assert [(one["user_id"], one["seq"]) for one in failed] == [("failing", seq) for seq in (4, 3, 2, 1)]
    assert all(one["error"].startswith("FileNotFoundError") for one in failed)
    there.write_text("at last")
    by_hand = f"/api/v1/users/failing/tasks/{failed[-1]['task_id']}/redrive"
    ids = {body_of(day, "POST", by_hand, None, 202, 429)["task_id"] for _ in range(2)}
    assert len(ids) == 1
    for _ in range(2):
        page = body_of(day, "POST", "/api/v1/redrive", {"since": begun_at})
        assert (len(page["tasks"]), page["stays"], page["next"]) == (4, [], None)
    day.wait_for(lambda: len(events(day, "failing", "task_completed")) == 4, 60, "four tasks that run again")
    assert [line["seq"] for line in events(day, "failing", "task_completed")] == [5, 6, 7, 8]


def test_a_full_lane_is_emptied_while_another_goes_on(day: Paceline) -> None:
    for _ in range(WAITING // 100):
        body_of(day, "POST", "/api/v1/tasks", {"user_id": "full", "tasks": [{}] * 100}, 202, 429)
    day.submit("other")
    begun = time.monotonic()
    emptied = body_of(day, "DELETE", "/api/v1/users/full/tasks?state=queued")
    assert time.monotonic() - begun < 10
    assert WAITING - 300 < emptied["cancelled"] < WAITING
    lane = body_of(day, "GET", "/api/v1/users/full")
    assert lane["backlog"] == 0
    assert body_of(day, "GET", "/api/v1/users/full/tasks?state=queued")["tasks"] == []
    later = day.submit("full").body
    assert later["seq"] == WAITING + 1
    day.wait_for(
        lambda: any(line["seq"] == later["seq"] for line in events(day, "full", "task_completed")),
        75,  # a minute's quota may be used up
        "the task that was submitted after the emptying",
    )
    day.wait_for(lambda: cancellations(day, "full") >= emptied["cancelled"], DRAINED_IN_SECONDS, "all cancellations")
    cancelled = [line["seq"] for line in events(day, "full", "task_cancelled")]
    assert len(cancelled) == len(set(cancelled)) == emptied["cancelled"]
    completed = [line["seq"] for line in events(day, "full", "task_completed")]
    assert sorted(cancelled + completed) == list(range(1, WAITING + 2))


def test_a_forgotten_user_stays_within_the_limit(day: Paceline) -> None:
    for _ in range(30):
        day.submit("gone")
    assert body_of(day, "DELETE", "/api/v1/users/gone", None, 409)["status"] == 409
    day.wait_for(lambda: len(events(day, "gone", "task_completed")) == 30, 60, "30 tasks")
    day.wait_for(lambda: day.request("DELETE", "/api/v1/users/gone").status == 200, 20, "the user is forgotten")
    assert body_of(day, "GET", "/api/v1/users/gone/tasks")["tasks"] == []
    answer = day.submit("gone")
    assert (answer.status, answer.body["seq"]) == (429, 31)
    day.wait_for(lambda: len(events(day, "gone", "task_completed")) == 31, 90, "one more task")
    starts = [line["started_at"] for line in events(day, "gone", "task_completed")]
    assert most_in_any_window(starts, 60_000) <= 30
