"""Checks from outside whether an API or worker process is healthy."""

from __future__ import annotations

import socket
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

#: Timeout in seconds; generous, so that a busy machine does not kill healthy processes.
ANSWER_SECONDS = 5.0
#: Largest age of a heartbeat file in seconds. Poll loops touch it each second, or 15 s apart if the queue hangs.
HEARTBEAT_SECONDS = 25.0


def api_socket(run_dir: Path, name: str) -> Path:
    """Returns the private unix socket of the API process with this name."""
    return run_dir / f"{name}.sock"


def heartbeat_files(run_dir: Path, name: str) -> tuple[Path, Path]:
    """Returns a worker's heartbeat files: of its loop for lanes, and of its loop for scheduled messages."""
    return run_dir / f"{name}.beat", run_dir / f"{name}-scheduled.beat"


def is_healthy(run_dir: Path, name: str) -> bool:
    """Checks the process with this name, an API process or a worker."""
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
