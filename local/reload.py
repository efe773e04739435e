"""Restarts the API and the workers when the code changes, and reports it in one line.

If the new code fails to load, the running processes keep the old code until the error is fixed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from watchfiles import Change, PythonFilter, watch

from chalicelib.core.errors import OwnTasksError
from infra.tasks_folder import TasksFolder
from local.background import Background
from local.health import heartbeat_files, is_healthy
from local.pid_files import running
from local.running_calls import read_calls
from local.startup import START_SECONDS
from local.stop_report import StopReport
from local.supervisor import Supervisor, SupervisorError

#: Runs everything that can fail in a new process, except AWS.
_LOAD = """
import os, sys, app
from chalicelib.container import load_own_tasks
from chalicelib.core.errors import OwnTasksError
try:
    load_own_tasks(os.environ.get("TASKS_DIR", ""))
except OwnTasksError as error:
    sys.exit(str(error))
"""
_LOAD_SECONDS = 60
_SETTLE_MS = 300
_LONGEST_LINE = 300


class _Code(PythonFilter):
    """Lets Python files through, and lists of requirements."""

    def __call__(self, change: Change, path: str) -> bool:
        return super().__call__(change, path) or Path(path).name == "requirements.txt"


class Reload:
    """Runs in a thread of its own."""

    def __init__(
        self,
        supervisor: Supervisor,
        run_dir: Path,
        names: Iterable[str],
        root: Path,
        say: Callable[[str], None],
        stop_wait_seconds: float,
        tasks: TasksFolder | None = None,
    ) -> None:
        """tasks: the own tasks outside `root`. names: the processes to restart, each once the one before it is healthy.
        stop_wait_seconds: after which a worker is killed with the tasks that it still runs.

        Workers are restarted first: the API must not accept a new task before they know it.
        """
        self._supervisor = supervisor
        self._run_dir = run_dir
        self._names = sorted(names, key=lambda name: not name.startswith("worker"))
        self._root = root
        self._say = say
        self._tasks = tasks
        self._stop_wait_seconds = stop_wait_seconds
        self.thread = Background("looking for changed code", self._run, 0, say)

    def stop(self) -> None:
        """Waits until no restart is running."""
        self.thread.stop()
        self.thread.join(10)

    def _run(self) -> None:
        of_tasks = self._tasks.watched if self._tasks else ()
        watched = [path for path in (self._root / "app.py", self._root / "chalicelib", *of_tasks) if path.exists()]
        for changes in watch(*watched, watch_filter=_Code(), step=_SETTLE_MS, stop_event=self.thread.stopping):
            self._reload(sorted({self._name(Path(path)) for _, path in changes}))

    def _name(self, path: Path) -> str:
        bases = [self._root, *([self._tasks.path.parent] if self._tasks else [])]
        return next((str(path.relative_to(base)) for base in bases if path.is_relative_to(base)), str(path))

    def _reload(self, changed: list[str]) -> None:
        what = changed[0] if len(changed) == 1 else f"{changed[0]} and {len(changed) - 1} more"
        if fault := self._fault():
            self._say(f"{what} changed, not reloaded: {fault}")
            return
        self._say(f"{what} changed: reloading, the workers first")
        try:
            for name in self._names:
                if self.thread.stopping.is_set():
                    return
                self._restart(name)
        except SupervisorError as error:
            self._say(f"{what} changed, not all reloaded: {error}")
        else:
            self._say(f"{what} changed: reloaded")

    def _fault(self) -> str | None:
        try:
            if self._tasks:
                self._tasks.install()
        except OwnTasksError as error:
            return str(error)
        return load_fault(self._root)

    def _restart(self, name: str) -> None:
        if not self._end(name):
            return
        for heartbeat in heartbeat_files(self._run_dir, name):
            heartbeat.unlink(missing_ok=True)  # else the old process's heartbeat would count for the new one
        self._supervisor.start_process(name)
        deadline = time.monotonic() + START_SECONDS
        while not is_healthy(self._run_dir, name) and time.monotonic() < deadline:
            if self.thread.stopping.wait(0.1):
                return

    def _end(self, name: str) -> bool:
        """Ends the process and says which tasks it waits for; False if the run is to end meanwhile."""
        until = f"{name} restarts once its tasks have ended, in {self._stop_wait_seconds:g} s at the latest."
        report = StopReport(self._say, until)

        def is_stopped(seconds: float) -> bool:
            report.waits_for(read_calls(self._run_dir, running(self._run_dir)))
            return self.thread.stopping.wait(seconds)

        if not self._supervisor.end_process(name, self._stop_wait_seconds, is_stopped):
            if self.thread.stopping.is_set():
                return False
            report.ends()
        return True


def load_fault(root: Path) -> str | None:
    """Returns the error that loading the code raises, in one line; None if it loads."""
    try:
        ran = subprocess.run(
            [sys.executable, "-c", _LOAD],
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LOAD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"loading takes longer than {_LOAD_SECONDS} s"
    if not ran.returncode:
        return None
    lines = ran.stderr.strip().splitlines()
    if lines and lines[-1].startswith("TASKS_DIR: "):
        return lines[-1]
    # Keep the last location of the traceback and its error.
    locations = [line.strip() for line in lines if line.lstrip().startswith('File "')]
    location = locations[-1].replace('File "', "").replace('"', "").replace(f"{root}/", "") if locations else ""
    return f"{lines[-1] if lines else 'no reason given'} ({location})"[:_LONGEST_LINE]
