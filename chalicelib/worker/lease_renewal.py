"""Renews the leases of running tasks and reports tasks that pass their deadline. One thread for the whole process.

The first renewal, a second after the start, marks the task in its lane as running.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import FOREVER_MS, MARKED_AFTER_MS, Lease
from chalicelib.core.ports import Clock, LaneStore

#: Milliseconds after which a failed renewal is tried again, and the longest pause of the renewer's thread.
LOOK_AGAIN_MS = 1_000
#: Milliseconds after its last renewal at which a lease is renewed.
RENEW_AFTER_MS = 3_000
#: Milliseconds for which a renewed lease is valid.
RENEWED_LEASE_MS = 10_000

log = logging.getLogger(__name__)


class RunningTask(Struct):
    """A running task whose lease is renewed."""

    user_id: str
    lease: Lease
    #: epoch ms
    renew_at: int
    #: epoch ms
    deadline_at: int
    #: called once, from the renewer's thread, when the deadline has passed
    on_expired: Callable[[], None]
    is_expired: bool = False


class LeaseRenewer:
    def __init__(self, lanes: LaneStore, clock: Clock, in_background: bool = True) -> None:
        """in_background: a thread calls `renew_due` each second while tasks run; otherwise the caller does."""
        self._in_background = in_background
        self._lanes = lanes
        self._clock = clock
        self._running: dict[str, RunningTask] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def renewing(
        self, user_id: str, lease: Lease, deadline_at: int, on_expired: Callable[[], None]
    ) -> Iterator[RunningTask]:
        """Renews the lease while the body runs; afterwards `is_expired` says whether the deadline passed first."""
        running = RunningTask(user_id, lease, self._clock.now_ms() + MARKED_AFTER_MS, deadline_at, on_expired)
        with self._lock:
            self._running[lease.token] = running
            self._start()
        try:
            yield running
        finally:
            with self._lock:
                self._running.pop(lease.token, None)

    def renew_due(self) -> None:
        """Renews each lease that is due, or tries to, and expires each task whose deadline has passed."""
        now_ms = self._clock.now_ms()
        with self._lock:
            expired = [task for task in self._running.values() if task.deadline_at <= now_ms]
            for task in expired:
                task.is_expired = True
                del self._running[task.lease.token]
            due = [task for task in self._running.values() if task.renew_at <= now_ms]
        for task in due:
            self._renew(task, now_ms)
        for task in expired:
            _expire(task)

    def _renew(self, task: RunningTask, now_ms: int) -> None:
        try:
            self._lanes.renew_lease(task.user_id, task.lease, now_ms + RENEWED_LEASE_MS)
            task.renew_at = now_ms + RENEW_AFTER_MS
        except UnavailableError:
            task.renew_at = now_ms + LOOK_AGAIN_MS
        except Exception:
            log.exception("the lease of %s was not renewed", task.user_id)
            task.renew_at = now_ms + LOOK_AGAIN_MS

    def _pause_ms(self) -> int:
        """Until the next renewal, at most LOOK_AGAIN_MS: no lease that begins meanwhile is due earlier."""
        with self._lock:
            next_at = min((task.renew_at for task in self._running.values()), default=FOREVER_MS)
        return max(0, min(next_at - self._clock.now_ms(), LOOK_AGAIN_MS))

    def _start(self) -> None:
        if self._in_background and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lease-renewer", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            try:
                pause.wait(self._pause_ms() / 1000)
                self.renew_due()
            except BaseException:  # without this thread the leases of all running tasks would end
                log.exception("renewing leases failed, trying again")
                pause.wait(LOOK_AGAIN_MS / 1000)
            with self._lock:
                if not self._running:
                    self._thread = None
                    return


def _expire(task: RunningTask) -> None:
    try:
        task.on_expired()
    except Exception:  # one task's end must not keep the others from being renewed
        log.exception("a task of %s that passed its deadline was not finished", task.user_id)
