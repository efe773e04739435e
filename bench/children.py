"""What a child process costs: a task's time in one and in the worker itself, a new child, its memory."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Results
from chalicelib.tasks.registry import Context, registry
from chalicelib.tasks.runner import Call, InProcess, Returned, TaskRunner
from local.child_runner import ChildRunner
from local.children import ForkServerClient

#: A deadline below which built-in tasks run in a child too, so that both runners run the same one.
DEADLINE_MS = 10_000
TASK = registry["log"]


def measure(*, quick: bool) -> Results:
    results = Results()
    rounds, tasks, children = (1, 5, 3) if quick else (7, 300, 20)
    env = {**os.environ, "RUN_DIR": tempfile.mkdtemp(prefix="bench-"), "TABLE_NAME": "bench"}
    server = ForkServerClient(Path(__file__).parents[1], env)
    runner = ChildRunner(server)
    try:
        _run(runner)  # the fork server has to load the app
        results.add("a task in the worker", [_per_task(InProcess(), tasks) for _ in range(rounds)], "ms")
        results.add("a task in a child", [_per_task(runner, tasks) for _ in range(rounds)], "ms")
        results.add("a new child", [_new_child(runner) for _ in range(rounds * 5)], "ms")
        results.add("memory of an idle child of its own", _memory(runner, children), "MB")
    finally:
        runner.end_idle()
        server.close()
    return results


def _run(runner: TaskRunner) -> None:
    with runner.room(TASK, DEADLINE_MS) as room:
        assert room is not None, "there is room"
        context = Context("ann", "0198-0001", TASK.name, 1, 1, 0, logging.getLogger("bench"))
        assert isinstance(room.run(Call(TASK, {"item": 12}, context, "bench", DEADLINE_MS)), Returned)


def _timed(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def _per_task(runner: TaskRunner, tasks: int) -> float:
    return sum(_timed(lambda: _run(runner)) for _ in range(tasks)) / tasks


def _new_child(runner: ChildRunner) -> float:
    runner.end_idle()
    return _timed(lambda: _run(runner))


def _memory(runner: ChildRunner, children: int) -> list[float]:
    """Returns the megabytes that each child shares with no other process, after a task."""
    with ExitStack() as stack:
        for _ in range(children):
            stack.enter_context(runner.room(TASK, DEADLINE_MS))
    _run(runner)
    return [_private_mb(pid) for pid in runner.pids]


def _private_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
