"""Writes of one lane that race each other: tried again with jitter, and within a process taken one by one."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from chalicelib.core.ports import Clock

#: How often a write is tried while others of the same user come between.
RACE_TRIES = 30
#: The first wait between two tries; it grows up to ten times this, and each is drawn at random below it.
RACE_JITTER_MS = 10
#: When AWS is slow, the next one's turn begins all the same, or waits would add up to more than a client waits.
MAX_TURN_SECONDS = 1.0


class RetryWithJitter(Struct, frozen=True):
    """Tries again, with jitter, what lost a race against other writes of the same lane."""

    clock: Clock
    #: in [0, 1)
    random: Callable[[], float]

    def tries(self) -> Sequence[int]:
        return range(RACE_TRIES)

    def pause(self, tries: int) -> None:
        """Waits before the next try; not before the first."""
        if tries:
            self.clock.sleep(round(self.random() * RACE_JITTER_MS * min(tries, 10)))


class PerUserLock:
    """One turn at a time for each user, within this process: submits of one user would only race each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def turn(self, user_id: str) -> Iterator[None]:
        with self._lock:
            lock, waiting = self._waiting.get(user_id, (threading.Lock(), 0))
            self._waiting[user_id] = (lock, waiting + 1)
        is_ours = lock.acquire(timeout=MAX_TURN_SECONDS)
        try:
            yield
        finally:
            if is_ours:
                lock.release()
            with self._lock:
                lock, waiting = self._waiting.pop(user_id)
                if waiting > 1:
                    self._waiting[user_id] = (lock, waiting - 1)
