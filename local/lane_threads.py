"""The messages that a worker process holds: lanes side by side, each lane's messages one after the other."""

from __future__ import annotations

import bisect
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from local.queue_source import Message, Source, SourceError

#: A handler that waits for its start holds a thread, so this is also how many lanes can wait at once.
LANES = 500
#: Held messages have to be extended every few seconds, which costs calls.
HELD = 1_000
#: Of each lane so many may always be held; more only as long as there is room for as many of every other lane.
LEAST_SHARE = 2

log = logging.getLogger(__name__)

#: Told of a message that is done, and whether its lane waits for the deletion: then no further one of it is held here.
OnDone = Callable[[Message, bool], None]

#: Whether the message is done and can be deleted. False: deferred, and hidden by the handler. Raises when it failed.
Handle = Callable[[Message], bool]


class Lanes:
    """Hands messages to the handler and keeps them hidden meanwhile. Thread-safe."""

    def __init__(self, source: Source, handle: Handle, on_done: OnDone) -> None:
        self._source = source
        self._handle = handle
        self._on_done = on_done
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Message]] = {}
        #: Message and when its visibility was set last, monotonic seconds.
        self._held: dict[str, tuple[Message, float]] = {}
        self._running = 0
        self._stopping = False
        self._pool = ThreadPoolExecutor(LANES, thread_name_prefix="lane")

    @property
    def room(self) -> int:
        """How many more messages may be received now."""
        with self._lock:
            return 0 if len(self._waiting) >= LANES else max(0, HELD - len(self._held))

    def is_quiet(self) -> bool:
        return self._running == 0

    def add(self, messages: Sequence[Message]) -> None:
        """Take received messages; once stopping, they are given back."""
        with self._lock:
            refused = list(messages) if self._stopping else []
            new_lanes = [] if self._stopping else [m.lane for m in messages if self._enqueue(m)]
            share = max(LEAST_SHARE, HELD // max(1, len(self._waiting)))
            # Nobody gets what is above a lane's share before the rest of it is done.
            refused += [above for lane in {m.lane for m in messages} for above in self._take(lane, share)]
        self._give_back(refused)
        for lane in new_lanes:
            self._pool.submit(self._run, lane)

    def extend(self, older_than_seconds: float, visibility_seconds: int) -> None:
        """Keep hidden what is held and was hidden last before that time. Raises SourceError."""
        now = time.monotonic()
        with self._lock:
            due = [message for message, since in self._held.values() if now - since >= older_than_seconds]
            for message in due:
                self._held[message.receipt] = (message, now)
        self._source.hide(due, visibility_seconds)

    def stop(self) -> None:
        """Give back what has not been handed to the handler; `join` waits for the rest."""
        with self._lock:
            self._stopping = True
            rest = [message for lane in self._waiting for message in self._take(lane)]
        self._give_back(rest)

    def join(self) -> None:
        self._pool.shutdown(wait=True)

    def _enqueue(self, message: Message) -> bool:
        """Whether this begins a lane that nobody runs yet."""
        is_new = message.lane not in self._waiting
        bisect.insort(self._waiting.setdefault(message.lane, []), message, key=lambda m: m.sequence)
        self._held[message.receipt] = (message, time.monotonic())
        return is_new

    def _run(self, lane: str) -> None:
        while (message := self._next(lane)) is not None:
            is_done = self._call(message)
            with self._lock:
                self._running -= 1
                # Before anything else, so that an extension does not undo the handler's own deferral.
                self._forget([message])
                # What follows a message that stays in the queue has to wait behind it, in the queue.
                rest = [] if is_done else self._take(lane)
                lane_waits = not self._waiting[lane]
            if is_done:
                self._on_done(message, lane_waits)
            self._give_back(rest)

    def _next(self, lane: str) -> Message | None:
        with self._lock:
            if not self._waiting[lane]:
                del self._waiting[lane]
                return None
            self._running += 1
            return self._waiting[lane].pop(0)

    def _call(self, message: Message) -> bool:
        try:
            return self._handle(message)
        except Exception:
            log.exception("message %s of %s failed and comes back", message.id, message.lane)
            return False

    def _take(self, lane: str, kept: int = 0) -> list[Message]:
        """What waits in the lane but for its first ones, to be given back."""
        waiting = self._waiting.get(lane, [])
        taken = waiting[kept:]
        del waiting[kept:]
        self._forget(taken)
        return taken

    def _forget(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._held.pop(message.receipt, None)

    def _give_back(self, messages: Sequence[Message]) -> None:
        # If it fails, they come back by themselves when their visibility ends.
        with suppress(SourceError):
            self._source.hide(messages, 0)
