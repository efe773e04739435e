"""Reports processes that ended, and kills those that do not answer."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from local.background import Background
from local.health import is_healthy
from local.supervisor import ProcessInfo, Supervisor, SupervisorError

_LOOK_SECONDS = 0.25
#: Seconds that a look may take; one that restores the stack waits for the emulator's start.
_LONGEST_SECONDS = 300
#: Seconds during which a new process is not checked, since it is importing its modules.
_GRACE_SECONDS = 10.0

_EXITED = re.compile(r"exited: (\S+) \((?:terminated by (\w+)|exit status (\d+))")
_SPAWNED = re.compile(r"spawned: '([^']+)' with pid")


class Watch:
    """Runs in its own thread from `start` to `stop`; prints one line per event since its creation."""

    def __init__(
        self,
        supervisor: Supervisor,
        run_dir: Path,
        interval_seconds: float,
        say: Callable[[str], None],
        on_emulator_restart: Callable[[], None],
    ) -> None:
        self._supervisor = supervisor
        self._run_dir = run_dir
        self._interval_seconds = interval_seconds
        self._say = say
        self._on_emulator_restart = on_emulator_restart
        self._ended: dict[str, str] = {}
        self._check_at = time.monotonic() + interval_seconds
        self._is_unanswered = False
        self._log_lines = _follow(supervisor.log, supervisor.log.stat().st_size)
        self.thread = Background(
            "watching the processes", self._look, _LOOK_SECONDS, say, longest_seconds=_LONGEST_SECONDS
        )

    def _look(self) -> None:
        for line in next(self._log_lines):
            self._report(line)
        if time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + self._interval_seconds
            self._check()

    def _report(self, line: str) -> None:
        if found := _EXITED.search(line):
            name, signal_name, status = found.groups()
            self._ended[name] = f"signal {_number(signal_name)}" if signal_name else f"status {status}"
        elif (found := _SPAWNED.search(line)) and (how := self._ended.pop(found.group(1), None)):
            self._say(f"{found.group(1)} ended ({how}): restarted")
            if found.group(1) == "emulator":
                self._on_emulator_restart()

    def _check(self) -> None:
        """Kills each process that fails its check; supervisord restarts it."""
        for process in self._processes():
            if not self._is_checked(process) or is_healthy(self._run_dir, process.name):
                continue
            if not self.thread.stopping.is_set():
                self._say(f"{process.name} does not answer: restarting it")
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    def _processes(self) -> list[ProcessInfo]:
        """Returns the processes; says once if supervisord does not answer, and returns none."""
        try:
            processes = list(self._supervisor.processes().values())
        except SupervisorError as error:
            if not (self._is_unanswered or self.thread.stopping.is_set()):
                self._say(f"processes are neither checked nor restarted: {error}")
            self._is_unanswered = True
            return []
        if self._is_unanswered:
            self._say("the process supervisor answers again")
        self._is_unanswered = False
        return processes

    def _is_checked(self, process: ProcessInfo) -> bool:
        is_new = time.time() - process.started_at < _GRACE_SECONDS
        return process.name != "emulator" and process.state == "RUNNING" and not is_new


def _number(signal_name: str) -> int | str:
    """Returns the signal's number; its name if this machine does not know it."""
    return signal.Signals[signal_name].value if signal_name in signal.Signals.__members__ else signal_name


def _follow(path: Path, position: int) -> Iterator[list[str]]:
    """Yields the lines added to the file since the last call, from this byte on."""
    while True:
        with suppress(OSError):
            position = 0 if path.stat().st_size < position else position  # rotated
            with path.open("rb") as file:
                file.seek(position)
                lines = [line for line in iter(file.readline, b"") if line.endswith(b"\n")]
                position += sum(map(len, lines))
            yield [line.decode(errors="replace") for line in lines]
            continue
        yield []
