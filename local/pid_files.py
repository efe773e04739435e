"""Knows which processes of a run live, also if the run that started them is gone and its supervisor does not answer.

Each process keeps a file with its name and process id locked. The lock ends with the process, so a process id that was
given to another program is never taken for one of ours.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SUPERVISOR = "supervisord"

#: The open, locked files of this process.
_files: list[int] = []


def register(run_dir: Path, name: str) -> None:
    """Lets `running` return this process until it ends."""
    (run_dir / "pids").mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(run_dir / "pids" / f"{name}.{os.getpid()}", os.O_WRONLY | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    _files.append(file)


def running(run_dir: Path) -> dict[int, str]:
    """Returns the process id and the name of each living process; removes the files of those that ended."""
    return dict(_running(run_dir / "pids"))


def _running(folder: Path) -> Iterator[tuple[int, str]]:
    for path in folder.glob("*.*"):
        with suppress(FileNotFoundError):
            if _is_locked(path):
                name, _, pid = path.name.rpartition(".")
                yield int(pid), name
            else:
                path.unlink()


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
