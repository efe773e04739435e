"""The file that keeps the emulator's state: SQLite, written before an answer shows a change.

Changes wait here until `store` writes all of them in one transaction, or none. A process that is killed loses what
waited; a power cut may also lose the last transactions, since none of them waits for the disk.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Raised when the file can't be written or read, such as on a full disk.
StateFileError = sqlite3.Error

_VERSION = 1
#: Pages written before SQLite copies them from its log into the file, which waits for the disk: 16 MB.
_CHECKPOINT_PAGES = 4000
_PRAGMAS = (
    # No second process, and no shared memory that a full disk could take away.
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "synchronous = NORMAL",
    f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
    f"journal_size_limit = {_CHECKPOINT_PAGES * 4096}",
)
#: `owner` is the id of a table or queue. JSON holds whatever else a client may have sent.
_TABLES = (
    "services (name TEXT PRIMARY KEY, state TEXT)",
    "items (owner TEXT, key TEXT, item TEXT, PRIMARY KEY (owner, key))",
    "queues (owner TEXT PRIMARY KEY, fifo_seq INTEGER)",
    "duplicates (owner TEXT, expires REAL, key TEXT, entry TEXT)",
    "messages (row INTEGER PRIMARY KEY, owner TEXT, handle TEXT, visible_at REAL, first_receive_at REAL, "
    "receive_count INTEGER, message TEXT)",
)
_INDEXES = (
    "handles ON messages (handle) WHERE handle IS NOT NULL",
    "expiries ON duplicates (expires)",
)


class StateFile:
    """Belongs to one thread, but any thread may call `add`."""

    def __init__(self, path: Path, wait_seconds: float = 5) -> None:
        """Opens the file, or creates it. Raises StateFileError, also if another process keeps it open for so long."""
        self._db = sqlite3.connect(path, wait_seconds, isolation_level=None)
        self._path = path
        self._identity = _identity(path)
        self._waiting: list[tuple[str, tuple[Any, ...]]] = []
        for pragma in _PRAGMAS:
            self._db.execute(f"PRAGMA {pragma}")
        (self._version,) = self._db.execute("PRAGMA user_version").fetchone()
        if self._version > _VERSION:
            raise StateFileError(f"{path} was written by a newer version of Paceline")
        with self._db:
            for table in _TABLES:
                self._db.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            for index in _INDEXES:
                self._db.execute(f"CREATE INDEX IF NOT EXISTS {index}")

    @property
    def is_new(self) -> bool:
        """True if no state was ever stored here."""
        return bool(self._version == 0)

    @property
    def has_changes(self) -> bool:
        return bool(self._waiting)

    def rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Reads what is stored."""
        return self._db.execute(query, values)

    def add(self, statement: str, *values: Any) -> None:
        """Adds a change to those that wait. It must give the same result if it is done again after later ones."""
        self._waiting.append((statement, values))

    def add_version(self) -> None:
        """Marks the file as one that holds a state."""
        self.add(f"PRAGMA user_version = {_VERSION}")

    def store(self) -> None:
        """Writes all changes that wait, or none. Raises StateFileError; the changes then wait for the next call."""
        # SQLite would go on writing to a deleted file.
        if _identity(self._path) != self._identity:
            raise StateFileError(f"{self._path} was deleted")
        count = len(self._waiting)
        if not count:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for statement, values in self._waiting[:count]:
                self._db.execute(statement, values)
            self._db.execute("COMMIT")
        except StateFileError:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        del self._waiting[:count]
        self._version = _VERSION

    def close(self) -> None:
        """Stores what waits, if possible."""
        with suppress(StateFileError):
            self.store()
        self._db.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time of Path.stat, for each call of the emulator
    except OSError:
        return None
    return found.st_dev, found.st_ino
