"""Concurrent writes to one lane: retried with jitter, and serialised within a process."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from chalicelib.core.ports import Clock

#: Tries of a write that loses the race against other writes to the same lane.
RACE_TRIES = 30
#: The longest first wait between two tries; it grows to ten times this. Each wait is drawn at random below it.
RACE_JITTER_MS = 10
#: After this wait a submit goes on without the lock: while AWS is slow, waits must not add up beyond a client's.
MAX_LOCK_WAIT_SECONDS = 1.0


class RetryWithJitter(Struct, frozen=True):
    """Retries, with jitter, a write that lost the race against other writes to the same lane."""

    clock: Clock
    #: in [0, 1)
    random: Callable[[], float]

    def tries(self) -> Sequence[int]:
        return range(RACE_TRIES)

    def pause(self, tries: int) -> None:
        """Waits before a try; not before the first, number 0."""
        if tries:
            self.clock.sleep(round(self.random() * RACE_JITTER_MS * min(tries, 10)))


class PerUserLock:
    """A lock for each user, within this process: concurrent submits of one user would only lose races."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def lock(self, user_id: str) -> Iterator[None]:
        with self._lock:
            lock, waiting = self._waiting.get(user_id, (threading.Lock(), 0))
            self._waiting[user_id] = (lock, waiting + 1)
        is_ours = lock.acquire(timeout=MAX_LOCK_WAIT_SECONDS)
        try:
            yield
        finally:
            if is_ours:
                lock.release()
            with self._lock:
                lock, waiting = self._waiting.pop(user_id)
                if waiting > 1:
                    self._waiting[user_id] = (lock, waiting - 1)
