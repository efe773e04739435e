"""Keeps the leases of tasks that run for long, and notices those that never end. One thread for the whole process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import Lease
from chalicelib.core.ports import Clock, LaneStore

#: A lease is renewed when the task has run for so long since it was claimed or renewed.
RENEW_AFTER_MS = 3_000
#: and is then good for so long.
RENEWED_LEASE_MS = 10_000


class Kept(Struct):
    """A lease being kept while its task runs."""

    user_id: str
    lease: Lease
    #: epoch ms
    renew_at: int
    #: epoch ms
    deadline_at: int
    #: called once, from the keeper's thread, when the deadline has passed
    on_expired: Callable[[], None]
    is_expired: bool = False


class LeaseKeeper:
    def __init__(self, lanes: LaneStore, clock: Clock, in_background: bool = True) -> None:
        """in_background: a thread looks each second while anything is kept; else `look` is somebody else's to call."""
        self._in_background = in_background
        self._lanes = lanes
        self._clock = clock
        self._kept: dict[str, Kept] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keeping(self, user_id: str, lease: Lease, deadline_at: int, on_expired: Callable[[], None]) -> Iterator[Kept]:
        """Keeps the lease while the body runs; what it yields tells afterwards whether the deadline came first."""
        kept = Kept(user_id, lease, self._clock.now_ms() + RENEW_AFTER_MS, deadline_at, on_expired)
        with self._lock:
            self._kept[lease.token] = kept
            self._start()
        try:
            yield kept
        finally:
            with self._lock:
                self._kept.pop(lease.token, None)

    def look(self) -> None:
        """Renews each lease whose time has come, or tries to, and expires each task whose deadline has passed."""
        now_ms = self._clock.now_ms()
        with self._lock:
            expired = [kept for kept in self._kept.values() if kept.deadline_at <= now_ms]
            for kept in expired:
                kept.is_expired = True
                del self._kept[kept.lease.token]
            due = [kept for kept in self._kept.values() if kept.renew_at <= now_ms]
        for kept in due:
            self._renew(kept, now_ms)
        for kept in expired:
            kept.on_expired()

    def _renew(self, kept: Kept, now_ms: int) -> None:
        try:
            self._lanes.renew_lease(kept.user_id, kept.lease, now_ms + RENEWED_LEASE_MS)
        except UnavailableError:
            return  # tried again at the next look
        kept.renew_at = now_ms + RENEW_AFTER_MS

    def _start(self) -> None:
        if self._in_background and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(1.0)
            self.look()
            with self._lock:
                if not self._kept:
                    self._thread = None
                    return
