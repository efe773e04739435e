"""Deletes what has been handled, several messages in one call."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from infra.local.source import BATCH, Message, Source, SourceError

#: How long a delete waits for company while other messages are being handled.
GATHER_SECONDS = 0.005
_RETRY_SECONDS = 0.2
_RETRY_SECONDS_LIMIT = 3.0
#: After this the message has come back anyway, and is found to be done.
_GIVE_UP_SECONDS = 60.0

log = logging.getLogger(__name__)


class Deletions:
    """A thread that deletes in batches; a queue that can't be reached is tried again for a minute."""

    def __init__(self, source: Source, on_deleted: Callable[[], None]) -> None:
        self._source = source
        self._on_deleted = on_deleted
        self._queue: queue.Queue[Message | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="deletions")

    def start(self, is_quiet: Callable[[], bool]) -> None:
        """is_quiet: nothing is being handled, so that waiting for more would be in vain."""
        self._is_quiet = is_quiet
        self._thread.start()

    def add(self, message: Message) -> None:
        self._queue.put(message)

    def close(self) -> None:
        """Delete what is still to be deleted, and return when that is done."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, is_last = self._gather(first)
            self._delete(batch)
            if is_last:
                return

    def _gather(self, first: Message) -> tuple[list[Message], bool]:
        batch = [first]
        deadline = time.monotonic() + GATHER_SECONDS
        while len(batch) < BATCH:
            wait_seconds = 0.0 if self._is_quiet() else deadline - time.monotonic()
            try:
                message = self._queue.get(wait_seconds > 0, max(wait_seconds, 0))
            except queue.Empty:
                break
            if message is None:
                return batch, True
            batch.append(message)
        return batch, False

    def _delete(self, batch: list[Message]) -> None:
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        pause = _RETRY_SECONDS
        while True:
            try:
                for refused in self._source.delete(batch):
                    log.warning("not deleted, comes back: %s", refused)
                self._on_deleted()
                return
            except SourceError as error:
                if time.monotonic() > deadline:
                    log.error("giving up, they come back: %s", error)
                    return
                if pause == _RETRY_SECONDS:
                    log.warning("trying again: %s", error)
                time.sleep(pause)
                pause = min(pause * 2, _RETRY_SECONDS_LIMIT)
