"""Creates again the table or the queues if they vanish from a running emulator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from infra.stack import StackError, restore_resources
from local.background import Background

#: Seconds that a look may take, with all retries of its calls.
_LONGEST_SECONDS = 300


class StackWatch:
    """Compares what is there with the template, in a thread of its own."""

    def __init__(self, endpoint_url: str, stage: str, interval_seconds: float, say: Callable[[str], None]) -> None:
        self._endpoint_url = endpoint_url
        self._stage = stage
        self._say = say
        self.thread = Background(
            "looking for missing tables and queues", self._look, interval_seconds, say, longest_seconds=_LONGEST_SECONDS
        )

    def _look(self) -> None:
        # The emulator may be restarting or without disk space; the next look finds it again.
        with suppress(StackError):
            restore_resources(self._endpoint_url, self._stage, self._say)
