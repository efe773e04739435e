"""Where the embedded emulator listens and keeps its state, for those who need not import the emulator itself."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"

STATE_FILE = "state.sqlite3"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
