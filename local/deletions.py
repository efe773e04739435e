"""Deletes handled messages in batches."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from local.queue_source import BATCH, Message, Source, SourceError

#: Seconds that a delete waits for others to share its call: if its lane waits for it, and if not.
GATHER_SECONDS = 0.005
LEISURE_SECONDS = 0.25
_RETRY_SECONDS = 0.2
_RETRY_SECONDS_LIMIT = 3.0
#: Seconds of retries; after that the messages have reappeared, and their handler skips finished tasks.
_GIVE_UP_SECONDS = 60.0

log = logging.getLogger(__name__)


class Deletions:
    """A thread that deletes in batches and retries for a minute if the queue is unreachable."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._queue: queue.Queue[tuple[Message, bool] | None] = queue.Queue()
        self.thread = threading.Thread(target=self._run, name="deletions")

    def start(self, is_quiet: Callable[[], bool]) -> None:
        """is_quiet: True if no message is being handled, so no further delete will arrive soon."""
        self._is_quiet = is_quiet
        self.thread.start()

    def add(self, message: Message, lane_waits: bool) -> None:
        """lane_waits: the rest of the message's lane can only be received after its deletion."""
        self._queue.put((message, lane_waits))

    def close(self) -> None:
        """Deletes all pending messages, then returns."""
        self._queue.put(None)
        self.thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last and (first := self._queue.get()) is not None:
            try:
                batch, is_last = self._gather(*first)
                self._delete([message for message, _ in batch])
            except BaseException:  # a SystemExit would end the thread
                log.exception("not deleted, messages will be redelivered")

    def _gather(self, first: Message, lane_waits: bool) -> tuple[list[tuple[Message, bool]], bool]:
        """Returns the next batch, and whether it is the last."""
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
                    log.warning("not deleted, will be redelivered: %s", refused)
                return
            except SourceError as error:
                if time.monotonic() > deadline:
                    log.error("giving up deleting, messages will be redelivered: %s", error)
                    return
                if pause == _RETRY_SECONDS:
                    log.warning("retrying the delete: %s", error)
                time.sleep(pause)
                pause = min(pause * 2, _RETRY_SECONDS_LIMIT)


def _deadline(lane_waits: bool) -> float:
    return time.monotonic() + (GATHER_SECONDS if lane_waits else LEISURE_SECONDS)
