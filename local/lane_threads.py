"""Runs a worker's received messages: lanes in parallel, each lane's messages one after the other."""

from __future__ import annotations

import bisect
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from local.queue_source import Message, Source, SourceError

#: Threads, and so the number of lanes that can wait for a start at once.
LANES = 500
#: Largest number of received messages. Their visibility must be extended every few seconds, which costs calls.
HELD = 1_000
#: Messages of a lane that are always accepted; further ones only if every other lane could have as many.
LEAST_SHARE = 2

log = logging.getLogger(__name__)

#: Called with a handled message; the flag says that its lane waits for the deletion before it can be received again.
OnDone = Callable[[Message, bool], None]

#: Handles a message. True: delete it. False: the handler deferred it. An exception: it failed.
Handle = Callable[[Message], bool]


class Lanes:
    """Passes messages to the handler and keeps them hidden meanwhile. Thread-safe."""

    def __init__(self, source: Source, handle: Handle, on_done: OnDone) -> None:
        self._source = source
        self._handle = handle
        self._on_done = on_done
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Message]] = {}
        #: received messages, and when their visibility was last set, in monotonic seconds
        self._held: dict[str, tuple[Message, float]] = {}
        self._running = 0
        self._stopping = False
        self._pool = ThreadPoolExecutor(LANES, thread_name_prefix="lane")

    @property
    def room(self) -> int:
        """Returns how many more messages may be received."""
        with self._lock:
            return 0 if len(self._waiting) >= LANES else max(0, HELD - len(self._held))

    def is_quiet(self) -> bool:
        return self._running == 0

    def add(self, messages: Sequence[Message]) -> None:
        """Accepts received messages; after `stop`, makes them visible again instead."""
        with self._lock:
            refused = list(messages) if self._stopping else []
            new_lanes = [] if self._stopping else [m.lane for m in messages if self._enqueue(m)]
            share = max(LEAST_SHARE, HELD // max(1, len(self._waiting)))
            # Messages above a lane's share stay locked in the queue until the lane's earlier ones are deleted.
            refused += [above for lane in {m.lane for m in messages} for above in self._take(lane, share)]
        self._give_back(refused)
        for lane in new_lanes:
            self._pool.submit(self._run, lane)

    def extend(self, older_than_seconds: float, visibility_seconds: int) -> None:
        """Extends the visibility of messages last hidden before then. Raises SourceError."""
        now = time.monotonic()
        with self._lock:
            due = [message for message, since in self._held.values() if now - since >= older_than_seconds]
            for message in due:
                self._held[message.receipt] = (message, now)
        self._source.hide(due, visibility_seconds)

    def stop(self) -> None:
        """Makes messages that have not reached the handler visible again; `join` waits for the others."""
        with self._lock:
            self._stopping = True
            rest = [message for lane in self._waiting for message in self._take(lane)]
        self._give_back(rest)

    def join(self) -> None:
        self._pool.shutdown(wait=True)

    def _enqueue(self, message: Message) -> bool:
        """Returns True if the lane was idle, so a thread must be started for it."""
        is_new = message.lane not in self._waiting
        bisect.insort(self._waiting.setdefault(message.lane, []), message, key=lambda m: m.sequence)
        self._held[message.receipt] = (message, time.monotonic())
        return is_new

    def _run(self, lane: str) -> None:
        while (message := self._next(lane)) is not None:
            is_done, lane_waits, rest = False, False, list[Message]()
            try:
                is_done = self._call(message)
            finally:
                with self._lock:
                    self._running -= 1
                    # Remove it first, so that an extension cannot undo the handler's own deferral.
                    self._forget([message])
                    # The messages behind one that stays in the queue must wait there too.
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
        except BaseException:  # else the pool would keep it, and the lane would stay blocked
            log.exception("message %s of %s failed and will be redelivered", message.id, message.lane)
            return False

    def _take(self, lane: str, kept: int = 0) -> list[Message]:
        """Removes and returns the lane's waiting messages, except the first `kept`."""
        waiting = self._waiting.get(lane, [])
        taken = waiting[kept:]
        del waiting[kept:]
        self._forget(taken)
        return taken

    def _forget(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._held.pop(message.receipt, None)

    def _give_back(self, messages: Sequence[Message]) -> None:
        # If this fails, they reappear when their visibility timeout ends.
        try:
            self._source.hide(messages, 0)
        except SourceError:
            pass
        except Exception:
            log.exception("messages could not be made visible")
