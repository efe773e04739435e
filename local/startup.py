"""Waits until processes are ready, and fails early with the end of their log if one exits."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from local.supervisor import ProcessInfo, Supervisor

#: Seconds to wait; generous for slow machines, since a process that exits is detected at once.
START_SECONDS = 120.0
_LOOK_SECONDS = 0.1
_LOG_TAIL_LINES = 15


class StartError(Exception):
    """A process did not start; the message includes the end of its log."""


class Startup:
    """Waits for a set of processes under supervisord."""

    def __init__(self, supervisor: Supervisor, names: Sequence[str]) -> None:
        self._supervisor = supervisor
        self._names = names
        self._pids: dict[str, int] = {}

    def wait(self, is_ready: Callable[[], bool], is_stopped: Callable[[float], bool]) -> bool:
        """Returns True once they are ready, False if a stop was requested. Raises StartError.

        is_stopped: sleeps for the given seconds or until a stop is requested, and returns whether it was.
        """
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            if is_stopped(_LOOK_SECONDS):
                return False
            for name, info in self._supervisor.processes().items():
                if name in self._names and (self._has_ended(info) or time.monotonic() > deadline):
                    raise StartError(_words(info))
        return True

    def _has_ended(self, info: ProcessInfo) -> bool:
        # supervisord may already have restarted it.
        was_replaced = info.pid and self._pids.setdefault(info.name, info.pid) != info.pid
        return info.state in ("BACKOFF", "EXITED", "FATAL") or bool(was_replaced)


def _words(info: ProcessInfo) -> str:
    tail = "".join(f"\n  {line}" for line in _tail(info.log))
    return f"{info.name} did not start; the end of {info.log}:{tail}"


def _tail(path: Path) -> list[str]:
    with suppress(FileNotFoundError), path.open(errors="replace") as log:
        return [line.rstrip("\n") for line in deque(log, _LOG_TAIL_LINES)]
    return []
