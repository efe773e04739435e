"""Tracks the claims served on this machine by operating-system locks, which end with their process.

A worker and its child that runs the task each lock the claim, so it is free once both are gone. Such locks belong to a
process and are shared: a child takes its own and inherits none. (An inherited lock, by `flock` or F_OFD_SETLK, would
stay with each process that a task forks, and F_OFD_SETLK exists on Linux only.)
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MachinePresence:
    """Locks one byte per claim in a file that is never written, so nothing needs cleaning up.

    Nothing else in the process may open the file: closing it anywhere would release all locks.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        #: claims of this process, which its own locks do not show
        self._mine: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def serving(self, token: str) -> Iterator[None]:
        with self._lock:
            self._mine.add(token)
            fcntl.lockf(self._file, fcntl.LOCK_SH, 1, _lock_offset(token))
        try:
            yield
        finally:
            with self._lock:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _lock_offset(token))
                self._mine.discard(token)

    def is_served(self, token: str) -> bool:
        with self._lock:
            if token in self._mine:
                return True
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _lock_offset(token))
            except BlockingIOError:
                return True
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _lock_offset(token))
            return False


def _lock_offset(token: str) -> int:
    """Returns the claim's byte offset. 2^63 possible offsets make a collision negligible."""
    return int.from_bytes(hashlib.sha256(token.encode()).digest()[:7], "big")
