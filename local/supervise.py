"""Runs supervisord as a child of the runner: when the runner is gone, stops its programs in order, then itself."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor.loggers import Handler, RotatingFileHandler
from supervisor.options import ServerOptions
from supervisor.supervisord import main

from local import pid_files
from local.parent import end_with_parent


def survive_full_disk() -> None:
    """Lets supervisord go on when it can't write a log: it then drops lines instead of ending with all processes."""
    emit = RotatingFileHandler.emit

    def emit_if_possible(handler: Any, record: Any) -> None:
        with suppress(OSError, ValueError):
            if handler.stream.closed:  # a rotation failed in the middle
                handler.reopen()
            emit(handler, record)

    RotatingFileHandler.emit = emit_if_possible
    # It writes the error to another log, which is on the same disk.
    Handler.handleError = lambda _handler: None


def keep_open_files() -> None:
    """Lets supervisord keep the file that marks it as running; it would close all files it does not know."""
    ServerOptions.cleanup_fds = lambda _options: None


def kill_workers() -> None:
    """Kills the workers whose tasks still run; supervisord then stops the other programs and ends."""
    for pid, name in pid_files.running(Path(os.environ["RUN_DIR"])).items():
        if name.startswith("worker"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent(kill_workers)
    survive_full_disk()
    keep_open_files()
    main()
