"""The app over memory as a system that runs: an HTTP server on a port of its own, and threads that run its tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from waitress.server import create_server

from app import app
from chalicelib.container import SystemClock
from local.gateway import Gateway
from tests.factories import VirtualClock
from tests.in_process import Paceline, Record, deploying
from tests.memory.container import Memory, MemoryContainer

#: Seconds between two looks for messages.
LOOK_SECONDS = 0.02


@contextmanager
def served(directory: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> Iterator[str]:
    """Yields the URL. Tasks run by the real clock."""
    clock = SystemClock()
    memory = Memory(clock.now_ms)
    virtual = cast(VirtualClock, clock)
    with deploying(partial(MemoryContainer, memory=memory), memory, virtual, {}, directory, monkeypatch) as deploy:
        paceline = deploy(**settings)
        server = create_server(Gateway(app), host="127.0.0.1", port=0, threads=4)
        serving = threading.Thread(target=server.run)
        serving.start()
        try:
            with _working(paceline, memory):
                yield f"http://127.0.0.1:{server.effective_port}"
        finally:
            server.close()
            serving.join()


@contextmanager
def _working(paceline: Paceline, memory: Memory) -> Iterator[None]:
    stopping = threading.Event()

    def run(receive: Callable[[], list[Record]], invoke: Callable[[Record], list[str]]) -> None:
        while not stopping.wait(LOOK_SECONDS):
            for record in receive():
                if not invoke(record):
                    memory.delete(record)

    with ThreadPoolExecutor(3) as threads:
        roles = [
            threads.submit(run, partial(memory.receive, 1), paceline.work),
            threads.submit(run, partial(memory.receive, 1), paceline.work),
            threads.submit(run, memory.receive_scheduled, paceline.dispatch),
        ]
        try:
            yield
        finally:
            stopping.set()
    for role in roles:
        role.result()
