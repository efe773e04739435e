"""Raises the limit of open files, which all processes of a local run inherit."""

from __future__ import annotations

import resource

#: Open files that one process of a run may need; supervisord refuses to start with fewer than 1,024.
FILES_NEEDED = 1024
_FILES_WANTED = 4096


def raise_file_limit() -> int:
    """Raises the soft limit as far as the hard one allows, to 4,096 at most; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _FILES_WANTED if hard == unlimited else min(_FILES_WANTED, hard)
    if soft == unlimited or soft >= wanted:
        return _FILES_WANTED if soft == unlimited else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
