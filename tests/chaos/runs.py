"""Collects the tasks' own reports of each run's begin and end, and judges them as they arrive."""

from __future__ import annotations

import os
import socket
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Run:
    """One run of a task's function."""

    pid: int
    #: process that ends with the worker
    parent: int
    attempt: int
    #: epoch ms, by this machine's clock
    begun_at: int
    #: `end`, `failed`, or None while it runs or if its process died
    how: str | None = None
    ended_at: int | None = None


@dataclass
class Runs:
    """Runs by task, and the violations found when a run began."""

    by_task: defaultdict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    #: tasks run again although an earlier run succeeded and its worker is alive
    twice: list[str] = field(default_factory=list)
    #: tasks run twice at once
    run_twice_at_once: list[str] = field(default_factory=list)
    #: tasks run again after their process died
    after_a_death: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        what, task_id, pid, parent, attempt, at = line.split()
        runs = self.by_task[task_id]
        if what == "begin":
            if runs:
                self._judge_again(task_id, runs[-1])
            runs.append(Run(int(pid), int(parent), int(attempt), int(at)))
        else:
            run = next(run for run in reversed(runs) if run.pid == int(pid))
            run.how, run.ended_at = what, int(at)

    def _judge_again(self, task_id: str, last: Run) -> None:
        if last.how == "failed":
            return
        if not _is_alive(last.pid):
            self.after_a_death.append(task_id)
        elif last.how is None:
            self.run_twice_at_once.append(task_id)
        else:
            self.twice.append(task_id)


class RunReports:
    """Receives the reports on a socket at `path`, in a thread."""

    def __init__(self, path: Path) -> None:
        self.runs = Runs()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _receive(self) -> None:
        while line := self._socket.recv(256):
            self.runs.note(line.decode())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # A dead process that is not yet reaped has this state.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (ProcessLookupError, FileNotFoundError):
        return False
