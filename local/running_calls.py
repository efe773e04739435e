"""Tells the runner which tasks a stopping worker still runs, in a file that the worker keeps while it stops."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from chalicelib.tasks.registry import TaskDefinition
from chalicelib.tasks.runner import Call, Ended, Room, TaskRunner

log = logging.getLogger(__name__)

#: Seconds between two looks of a stopping worker at its calls.
_REPORT_SECONDS = 0.5


@dataclass(frozen=True)
class RunningCall:
    """A task's function under way. Times are epoch milliseconds."""

    task_id: str
    user_id: str
    #: name of the task
    name: str
    started_at: int
    deadline_at: int


class WatchedRunner:
    """Knows the calls that another runner has under way. Thread-safe. Implements TaskRunner."""

    def __init__(self, runner: TaskRunner) -> None:
        self._runner = runner
        self._calls: dict[str, RunningCall] = {}
        self._lock = threading.Lock()
        #: set whenever a call ends
        self.changed = threading.Event()

    @contextmanager
    def room(self, definition: TaskDefinition, deadline_ms: int) -> Iterator[Room | None]:
        with self._runner.room(definition, deadline_ms) as room:
            yield None if room is None else _WatchedRoom(room, self)

    @contextmanager
    def running(self, call: Call) -> Iterator[None]:
        context = call.context
        now_ms = time.time_ns() // 1_000_000
        running = RunningCall(context.task_id, context.user_id, context.name, now_ms, context.deadline_at)
        with self._lock:
            self._calls[call.token] = running
        try:
            yield
        finally:
            with self._lock:
                del self._calls[call.token]
            self.changed.set()

    @property
    def calls(self) -> list[RunningCall]:
        with self._lock:
            return list(self._calls.values())


class _WatchedRoom:
    """Implements Room."""

    def __init__(self, room: Room, runner: WatchedRunner) -> None:
        self._room = room
        self._runner = runner

    @property
    def ends_overdue(self) -> bool:
        return self._room.ends_overdue

    def run(self, call: Call) -> Ended:
        with self._runner.running(call):
            return self._room.run(call)


@contextmanager
def reporting(runner: WatchedRunner, run_dir: Path, name: str) -> Iterator[None]:
    """Keeps the file of the worker with this name up to date while the body runs."""
    path, ended = _path(run_dir, name), threading.Event()

    def report() -> None:
        while True:
            runner.changed.clear()
            if ended.is_set():  # after the line above, or that could undo the last change
                return
            try:
                write_calls(path, runner.calls)
            except BaseException:  # on a full disk the runner says less
                log.exception("the running tasks were not listed")
            runner.changed.wait(_REPORT_SECONDS)

    thread = threading.Thread(target=report, name="running-calls", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        runner.changed.set()
        thread.join()
        path.unlink(missing_ok=True)


def write_calls(path: Path, calls: Iterable[RunningCall]) -> None:
    """Replaces the file by one with this process's id and these calls."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps([os.getpid(), [asdict(call) for call in calls]]))
    new.replace(path)


def read_calls(run_dir: Path, processes: Mapping[int, str]) -> list[RunningCall]:
    """Returns the calls of the stopping workers among these processes, the oldest first. processes: names by id."""
    calls = list[RunningCall]()
    for pid, name in processes.items():
        with suppress(OSError, ValueError, TypeError):
            owner, fields = json.loads(_path(run_dir, name).read_text())
            calls += [RunningCall(**one) for one in fields] if owner == pid else []
    return sorted(calls, key=lambda call: call.started_at)


def _path(run_dir: Path, name: str) -> Path:
    return run_dir / f"{name}.running"
