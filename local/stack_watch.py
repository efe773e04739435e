"""Creates again the table or the queues if they vanish from a running emulator."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from infra.stack import StackError, restore_resources


class StackWatch:
    """Compares what is there with the template, in its own thread from `start` to `stop`."""

    def __init__(self, endpoint_url: str, stage: str, interval_seconds: float, say: Callable[[str], None]) -> None:
        self._endpoint_url = endpoint_url
        self._stage = stage
        self._interval_seconds = interval_seconds
        self._say = say
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_seconds):
            # The emulator may be restarting or without disk space; the next look finds it again.
            with suppress(StackError):
                restore_resources(self._endpoint_url, self._stage, self._say)
