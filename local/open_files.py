"""Raises this process's limit of open files, which its children inherit."""

from __future__ import annotations

import resource
from contextlib import suppress

#: Less than this, and supervisord does not start. An API process alone serves up to 1,000 connections.
LEAST_FILES = 1024
#: Enough for every process. macOS accepts no more, even if its hard limit is unlimited.
_WANTED_FILES = 10_240


class OpenFilesError(Exception):
    """The hard limit of open files is too low; the message is for the terminal."""


def raise_limit() -> None:
    """Raises the soft limit as far as the hard limit lets it. Raises OpenFilesError if that is too little."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(_WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        raise OpenFilesError(
            f"Only {soft} files may be open, and Paceline needs {LEAST_FILES}: "
            f"raise the limit first, as in ulimit -n {LEAST_FILES}"
        )
