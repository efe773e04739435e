"""Whether a process does its work, asked of each one by itself and from outside."""

from __future__ import annotations

import socket
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

#: Generous: a busy machine must not get its processes killed.
ANSWER_SECONDS = 5.0
#: Each poll loop of a worker touches its file about once a second, and after 15 seconds at most when the queue hangs.
HEARTBEAT_SECONDS = 25.0


def api_socket(run_dir: Path, name: str) -> Path:
    """Where the API process of this name listens for its own health check, beside the shared port."""
    return run_dir / f"{name}.sock"


def heartbeat_files(run_dir: Path, name: str) -> tuple[Path, Path]:
    """What the worker of this name touches: its loop for tasks the first, its loop for what was put off the second."""
    return run_dir / f"{name}.beat", run_dir / f"{name}-scheduled.beat"


def is_healthy(run_dir: Path, name: str) -> bool:
    """Ask the process of this name, which is an API process or a worker."""
    if name.startswith("api"):
        return _answers(api_socket(run_dir, name))
    return all(_beats(path) for path in heartbeat_files(run_dir, name))


def _answers(path: Path) -> bool:
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/health-check")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _beats(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < HEARTBEAT_SECONDS
    except FileNotFoundError:
        return False


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
