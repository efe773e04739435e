"""Which claims are being served on this machine, by locks of the operating system: they go when their process does."""

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MachinePresence:
    """A claim's lock is one byte of a file that is never written, so there is nothing to clean up.

    Nothing else in the process may open the file: closing it anywhere would let go of all locks.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        #: a process has no locks against itself
        self._mine: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def serving(self, token: str) -> Iterator[None]:
        with self._lock:
            self._mine.add(token)
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, _place(token))
        try:
            yield
        finally:
            with self._lock:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(token))
                self._mine.discard(token)

    def is_served(self, token: str) -> bool:
        with self._lock:
            if token in self._mine:
                return True
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(token))
            except BlockingIOError:
                return True
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(token))
            return False


def _place(token: str) -> int:
    """A byte for each claim, far too many for two to meet; a file may be 2^63 bytes long."""
    return int.from_bytes(hashlib.sha256(token.encode()).digest()[:7], "big")
