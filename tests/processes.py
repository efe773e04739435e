"""A server of somebody else, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.emulator_address import free_port

PATIENCE_SECONDS = 60


@contextmanager
def serving(folder: Path, *command: str, **environment: str) -> Iterator[str]:
    """Starts the command with PORT in its environment, and in its arguments for `{port}`; yields the URL."""
    port = str(free_port())
    output = folder / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [part.replace("{port}", port) for part in command],
            cwd=folder,
            env={**os.environ, "PORT": port, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(int(port), process, output)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _wait_for(port: int, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
