"""Ends a process when the one that started it is gone, so that `kill -9` of the runner leaves nothing behind."""

from __future__ import annotations

import os
import signal
import threading
import time

_LOOK_SECONDS = 0.5


#: Names the process id of whoever started this one, which may be dead by the time that we look for it.
_VARIABLE = "PACELINE_PARENT"


def end_with_parent() -> None:
    """From now on this process gets a SIGTERM, as for a clean stop, soon after its parent has died."""
    parent = int(os.environ.get(_VARIABLE) or os.getppid())
    os.environ.update(as_parent())
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def as_parent() -> dict[str, str]:
    """What the processes that this one starts have to find in their environment."""
    return {_VARIABLE: str(os.getpid())}


def _watch(parent: int) -> None:
    # An orphan gets a new parent. Polling for that works on Linux and macOS alike; PR_SET_PDEATHSIG only on one.
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
