"""Detects that files of a running Paceline were deleted, such as by `rm -rf .paceline`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class StateWatch:
    """Compares files and folders with those that were there at its creation."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._identities = {path: _identity(path) for path in paths}

    def deleted(self) -> Path | None:
        """Returns the first path that is gone or was replaced by another file; None if all are there."""
        return next((path for path, known in self._identities.items() if _identity(path) != known), None)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
