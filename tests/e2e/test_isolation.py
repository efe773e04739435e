"""A task's crash, time-out or memory ends its own process: its neighbours notice nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import Paceline, running

#: Task, payload, and the error of each task that goes wrong; `hang` and `search` are ended at their deadlines.
VILLAINS: list[tuple[str, Any, str]] = [
    ("exit", {"seconds": 0.5}, "its process ended with exit status 3"),
    ("die", None, "its process was killed by SIGKILL"),
    ("segfault", {}, "its process was killed by SIGSEGV"),
    ("hang", None, "it did not end within 2 s"),
    ("swallow", {}, "MemoryError: "),
    ("leave", {"by": "cancel"}, "CancelledError: "),
    ("leave", {"by": "interrupt"}, "KeyboardInterrupt: "),
    ("leave", {"by": "close"}, "GeneratorExit: "),
]


@pytest.fixture(scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paceline]:
    directory = tmp_path_factory.mktemp("isolation")
    with running(directory, LIMITS="20/second", BACKOFF="100ms", CHILD_MEMORY_MB="300") as paceline:
        yield paceline


def test_neighbours_of_tasks_that_go_wrong_fail_nothing_and_lose_no_attempt(isolated: Paceline) -> None:
    innocents = [f"innocent-{n}" for n in range(20)]
    for user in innocents:
        assert isolated.submit(user, {"seconds": 5}, "sleep").status == 202
    users = [f"villain-{n}" for n in range(len(VILLAINS))]
    for user, (task, payload, _) in zip(users, VILLAINS, strict=True):
        for _ in range(2):
            assert isolated.submit(user, payload, task).status in (202, 429)
    ends = isolated.wait_for_completions(2 * len(VILLAINS), *users, timeout_seconds=60)
    errors = {(end["user_id"], end["event"], end["error"]) for end in ends}
    assert errors == {(user, "task_failed", error) for user, (*_, error) in zip(users, VILLAINS, strict=True)}
    results = isolated.wait_for_completions(len(innocents), *innocents)
    assert {(end["event"], end["attempt"]) for end in results} == {("task_completed", 1)}
    assert "ended (" not in isolated.output, "no worker was restarted"


@pytest.mark.parametrize(
    ("name", "payload", "event", "error"),
    [
        ("report", {"seconds": 60}, "task_cancelled", None),
        ("report-async", {"seconds": 60}, "task_cancelled", None),
        ("sleep", {"seconds": 6}, "task_completed", None),
        ("ignore", None, "task_failed", "it did not end within 8 s, although it was asked to stop"),
    ],
)
def test_a_running_task_that_is_cancelled_stops_or_says_how_it_ended(
    isolated: Paceline, name: str, payload: Any, event: str, error: str | None
) -> None:
    user = f"stop-{name}"
    path = isolated.submit(user, payload, name).headers["Location"]
    isolated.submit(user, {"seconds": 0}, "sleep")
    isolated.wait_for(lambda: _state(isolated, path) == "running", 20, "it runs")
    if name.startswith("report"):
        isolated.wait_for(lambda: isolated.request("GET", path).body["progress"], 20, "its progress is shown")
    answer = isolated.request("DELETE", path)
    assert (answer.status, answer.body["state"]) == (202, "running")
    ended, following = isolated.wait_for_completions(2, user, timeout_seconds=30)
    assert (ended["event"], ended.get("error"), ended["attempt"]) == (event, error, 1)
    assert (following["event"], following["seq"]) == ("task_completed", 2)
    isolated.wait_for(lambda: isolated.request("GET", path).body["completed_at"], 20, "its outcome is stored")
    view = isolated.request("GET", path).body
    assert view["started_at"] < view["cancel_requested_at"] <= view["completed_at"]
    if name.startswith("report"):
        assert view["started_at"] <= view["progress"]["at"] <= view["completed_at"]
        assert ended["completed_at"] < view["cancel_requested_at"] + 20_000, "long before its time"


def test_a_task_that_holds_the_interpreter_delays_nobody(isolated: Paceline) -> None:
    greedy, quick = [f"greedy-{n}" for n in range(4)], [f"quick-{n}" for n in range(6)]
    paths = [isolated.submit(user, {}, "search").headers["Location"] for user in greedy]
    for path in paths:
        isolated.wait_for(lambda path=path: _state(isolated, path) == "running", 20, "the search runs")
    for user in quick:
        isolated.submit(user, {"seconds": 0}, "sleep")
    ends = isolated.wait_for_completions(len(quick), *quick)
    searches = isolated.wait_for_completions(len(greedy), *greedy)
    assert {end["error"] for end in searches} == {"it did not end within 6 s"}
    assert max(end["completed_at"] for end in ends) < min(end["completed_at"] for end in searches)


def test_an_attempt_whose_worker_was_killed_is_repeated_once_its_process_is_gone(
    isolated: Paceline, tmp_path: Path
) -> None:
    """The fork server, which would end the process, stands still: as if the machine were too busy for it."""
    path = tmp_path / "diary"
    isolated.submit("orphan", {"path": str(path), "seconds": 13}, "diary")
    isolated.wait_for(lambda: path.exists() and path.read_text(), 20, "the task runs")
    server = _parent(int(path.read_text().split()[1]))
    os.kill(server, signal.SIGSTOP)
    try:
        os.kill(_parent(server), signal.SIGKILL)
        (end,) = isolated.wait_for_completions(1, "orphan", timeout_seconds=80)
    finally:
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGCONT)
    assert (end["event"], end["attempt"]) == ("task_completed", 2)
    steps = [(line.split()[0], float(line.split()[2])) for line in path.read_text().splitlines()]
    assert [step for step, _ in steps] == ["begin", "end", "begin", "end"]
    assert steps[2][1] > steps[1][1]


def test_a_process_ends_with_its_worker(isolated: Paceline, tmp_path: Path) -> None:
    path = tmp_path / "diary"
    isolated.submit("widow", {"path": str(path), "seconds": 600}, "diary")
    isolated.wait_for(lambda: path.exists() and path.read_text(), 20, "the task runs")
    pid = int(path.read_text().split()[1])
    server = _parent(pid)
    worker = _parent(server)
    os.kill(worker, signal.SIGKILL)
    isolated.wait_for(lambda: not _lives(pid) and not _lives(server), 10, "both are gone")
    # A stop that meets the start of the next worker can get lost in supervisord, which then waits for 65 s.
    isolated.wait_for(lambda: _is_replaced(isolated, worker), 20, "the worker is replaced")


def _state(paceline: Paceline, path: str) -> str:
    return str(paceline.request("GET", path).body["state"])


def _is_replaced(paceline: Paceline, pid: int) -> bool:
    workers = [paceline.process(name) for name in ("worker-1", "worker-2")]
    return all(worker.state == "RUNNING" and worker.pid != pid for worker in workers)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False
