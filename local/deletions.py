"""Deletes what has been handled, several messages in one call."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from local.queue_source import BATCH, Message, Source, SourceError

#: How long a delete waits for company while other messages are being handled: when its lane waits for it, and when not.
GATHER_SECONDS = 0.005
LEISURE_SECONDS = 0.25
_RETRY_SECONDS = 0.2
_RETRY_SECONDS_LIMIT = 3.0
#: After this the message has come back anyway, and is found to be done.
_GIVE_UP_SECONDS = 60.0

log = logging.getLogger(__name__)


class Deletions:
    """A thread that deletes in batches; a queue that can't be reached is tried again for a minute."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._queue: queue.Queue[tuple[Message, bool] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="deletions")

    def start(self, is_quiet: Callable[[], bool]) -> None:
        """is_quiet: nothing is being handled, so that waiting for more would be in vain."""
        self._is_quiet = is_quiet
        self._thread.start()

    def add(self, message: Message, lane_waits: bool) -> None:
        """lane_waits: the rest of its lane is received only after it was deleted."""
        self._queue.put((message, lane_waits))

    def close(self) -> None:
        """Delete what is still to be deleted, and return when that is done."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last and (first := self._queue.get()) is not None:
            batch, is_last = self._gather(*first)
            self._delete([message for message, _ in batch])

    def _gather(self, first: Message, lane_waits: bool) -> tuple[list[tuple[Message, bool]], bool]:
        """What is deleted together, and whether nothing comes after it."""
        batch = [(first, lane_waits)]
        deadline = _deadline(lane_waits)
        while len(batch) < BATCH:
            wait_seconds = 0.0 if self._is_quiet() else deadline - time.monotonic()
            try:
                further = self._queue.get(wait_seconds > 0, max(wait_seconds, 0))
            except queue.Empty:
                break
            if further is None:
                return batch, True
            batch.append(further)
            deadline = min(deadline, _deadline(further[1]))
        return batch, False

    def _delete(self, batch: list[Message]) -> None:
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        pause = _RETRY_SECONDS
        while True:
            try:
                for refused in self._source.delete(batch):
                    log.warning("not deleted, comes back: %s", refused)
                return
            except SourceError as error:
                if time.monotonic() > deadline:
                    log.error("giving up, they come back: %s", error)
                    return
                if pause == _RETRY_SECONDS:
                    log.warning("trying again: %s", error)
                time.sleep(pause)
                pause = min(pause * 2, _RETRY_SECONDS_LIMIT)


def _deadline(lane_waits: bool) -> float:
    return time.monotonic() + (GATHER_SECONDS if lane_waits else LEISURE_SECONDS)
