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


def test_a_task_that_holds_the_interpreter_delays_nobody(isolated: Paceline) -> None:
    greedy, quick = [f"greedy-{n}" for n in range(4)], [f"quick-{n}" for n in range(6)]
    for user in greedy:
        isolated.submit(user, {}, "search")
    for user in greedy:
        isolated.wait_for(lambda user=user: _state(isolated, user) == "running", 20, "the search runs")
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


def _state(paceline: Paceline, user: str) -> str:
    [task] = paceline.request("GET", f"/api/v1/users/{user}/tasks").body["tasks"]
    return str(task["state"])


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
