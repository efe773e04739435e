"""Ends a process when its parent dies, so that `kill -9` of the runner leaves no processes behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from local import pid_files
from local.run_settings import stop_wait_seconds

_LOOK_SECONDS = 0.5

#: Variable with the parent's process id, since the parent may be dead before this process can look it up.
_VARIABLE = "PACELINE_PARENT"


def end_with_parent(end_late: Callable[[], None] | None = None) -> None:
    """Sends this process a SIGTERM, as for a clean stop, soon after its parent has died.

    In a local run (RUN_DIR), also registers this process, so that the next run can wait for its end.
    end_late: called STOP_WAIT after that SIGTERM; None for a SIGKILL of this process.
    """
    parent = int(os.environ.get(_VARIABLE) or os.getppid())
    if run_dir := os.environ.get("RUN_DIR"):
        pid_files.register(Path(run_dir), os.environ.get("PROCESS_NAME") or pid_files.SUPERVISOR)
    os.environ.update(as_parent())
    end = (parent, stop_wait_seconds(os.environ), end_late or _die)
    threading.Thread(target=_watch, args=end, daemon=True).start()


def as_parent() -> dict[str, str]:
    """Returns the environment variables that child processes of this one need."""
    return {_VARIABLE: str(os.getpid())}


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int, wait_seconds: float, end_late: Callable[[], None]) -> None:
    # An orphan gets a new parent. Polling for that works on Linux and macOS; PR_SET_PDEATHSIG only on Linux.
    try:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
    finally:  # after an error too: without this thread the process could outlive its parent
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(wait_seconds)  # a stop may wait for a task that runs for hours
    end_late()
