"""Renews the leases of running tasks and reports tasks that pass their deadline. One thread for the whole process.

The first renewal, a second after the start, marks the task in its lane as running; a lease in a slot says so by itself,
and is renewed later. Each renewal's answer also says whether a client has cancelled the task. On Lambda each renewal
also extends the visibility of the task's message, from a second after the start on and in short steps: however late an
invocation began, the message stays hidden while the task runs, and comes back soon once its worker is dead.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import FOREVER_MS, MARKED_AFTER_MS, SLOT_LEASE_MS, Lease
from chalicelib.core.ports import Clock, LaneStore

#: Milliseconds after which a failed renewal is tried again, and the longest pause of the renewer's thread.
LOOK_AGAIN_MS = 1_000
#: Milliseconds after its last renewal at which a lease is renewed.
RENEW_AFTER_MS = 3_000
#: Milliseconds for which a renewed lease is valid.
RENEWED_LEASE_MS = 10_000
#: The same for a lease in a slot: each renewal writes the leases of all that run beside it, so there are fewer.
RENEW_SLOT_AFTER_MS = 6_000
RENEWED_SLOT_MS = SLOT_LEASE_MS
#: Seconds for which each renewal hides the task's message.
EXTENDED_SECONDS = 15
#: A worker that could renew neither ends itself so many milliseconds before another one may take its task.
LOST_BEFORE_MS = 2_000
#: Milliseconds between two looks whether a renewal under way has ended.
POLL_MS = 10

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
    #: of its message; "" if that is not extended here
    receipt: str = ""
    #: called once, from the renewer's thread, when another worker may soon run the task beside this one
    on_lost: Callable[[], None] | None = None
    #: called from the renewer's thread at each renewal whose answer says that the task was cancelled
    on_cancelled: Callable[[], None] | None = None
    #: epoch ms; until then its lease or its hidden message keeps other workers off
    safe_until: int = 0
    #: epoch ms; a renewal before then extends its message alone
    lease_renew_at: int = 0
    #: its last renewal renewed neither
    is_failing: bool = False
    is_expired: bool = False
    is_renewing: bool = False


class LeaseRenewer:
    def __init__(
        self,
        lanes: LaneStore,
        clock: Clock,
        in_background: bool = True,
        hide: Callable[[str, int], bool] | None = None,
    ) -> None:
        """in_background: a thread calls `renew_due` each second while tasks run; otherwise the caller does.

        hide: hides a message for so many seconds. None where the process extends all that it received, and sees the
        other ones of its machine: `make run`.
        """
        self._hide = hide
        self._in_background = in_background
        self._lanes = lanes
        self._clock = clock
        self._running: dict[str, RunningTask] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def renewing(
        self,
        user_id: str,
        lease: Lease,
        deadline_at: int,
        on_expired: Callable[[], None],
        receipt: str = "",
        on_lost: Callable[[], None] | None = None,
        on_cancelled: Callable[[], None] | None = None,
    ) -> Iterator[RunningTask]:
        """Renews the lease while the body runs; afterwards `is_expired` says whether the deadline passed first."""
        renew_at = self._clock.now_ms() + MARKED_AFTER_MS
        actions = (on_expired, receipt, on_lost, on_cancelled)
        running = RunningTask(user_id, lease, renew_at, deadline_at, *actions, lease.until)
        if lease.in_slot:
            running.lease_renew_at = max(renew_at, lease.until - RENEWED_SLOT_MS + RENEW_SLOT_AFTER_MS)
            running.renew_at = renew_at if self._extends(running) else running.lease_renew_at
        with self._lock:
            self._running[lease.token] = running
            self._start()
        try:
            yield running
        finally:
            with self._lock:
                self._running.pop(lease.token, None)
            while self._hide and running.is_renewing:  # it would undo a deferral that follows
                self._clock.sleep_until(self._clock.now_ms() + POLL_MS)

    def renew_due(self) -> None:
        """Renews each lease that is due, or tries to, and expires each task whose deadline has passed."""
        now_ms = self._clock.now_ms()
        with self._lock:
            expired = [task for task in self._running.values() if task.deadline_at <= now_ms]
            for task in expired:
                task.is_expired = True
                del self._running[task.lease.token]
            lost = [task for task in self._running.values() if self._is_lost(task, now_ms)]
            for task in lost:
                del self._running[task.lease.token]
            due = [task for task in self._running.values() if task.renew_at <= now_ms]
            for task in due:
                task.is_renewing = True
        for task in due:
            self._renew(task)
        for task in expired:
            _call(task.on_expired, task)
        for task in lost:
            _call(task.on_lost, task)

    def _is_lost(self, task: RunningTask, now_ms: int) -> bool:
        """True if renewals failed for too long. A function that kept this thread waiting is no failure: renewing tells
        whether another worker has its task.
        """
        is_late = now_ms >= task.safe_until - LOST_BEFORE_MS
        return self._hide is not None and task.on_lost is not None and task.is_failing and is_late

    def _renew(self, task: RunningTask) -> None:
        """Renews the lease, then extends the message: a lease outlives a call that times out and the pause after it."""
        now_ms = self._clock.now_ms()
        is_lease_due = now_ms >= task.lease_renew_at
        renewals = [self._renew_lease] if is_lease_due else []
        renewals += [self._extend] if self._extends(task) else []
        try:
            renewed = [self._try(task, renew) for renew in renewals]
            if all(renewed) and is_lease_due:
                task.lease_renew_at = now_ms + (RENEW_SLOT_AFTER_MS if task.lease.in_slot else RENEW_AFTER_MS)
            task.renew_at = task.lease_renew_at if all(renewed) else now_ms + LOOK_AGAIN_MS
            task.is_failing = not any(renewed)
        finally:
            task.is_renewing = False

    def _extends(self, task: RunningTask) -> bool:
        return self._hide is not None and bool(task.receipt)

    def _renew_lease(self, task: RunningTask) -> bool:
        until = self._clock.now_ms() + (RENEWED_SLOT_MS if task.lease.in_slot else RENEWED_LEASE_MS)
        stored = self._lanes.renew_lease(task.user_id, task.lease, until)
        if stored:
            task.safe_until = max(task.safe_until, until)
        if stored and stored.cancel_requested_at and task.on_cancelled:
            task.on_cancelled()
        return stored is not None

    def _extend(self, task: RunningTask) -> bool:
        assert self._hide is not None, "the worker extends its messages here"
        until = self._clock.now_ms() + EXTENDED_SECONDS * 1000
        is_hidden = self._hide(task.receipt, EXTENDED_SECONDS)
        if is_hidden:
            task.safe_until = max(task.safe_until, until)
        return is_hidden

    def _try(self, task: RunningTask, renew: Callable[[RunningTask], bool]) -> bool:
        """True if it was renewed."""
        try:
            return renew(task)
        except UnavailableError:
            return False
        except Exception:
            log.exception("the lease of %s was not renewed", task.user_id)
            return False

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


def _call(end: Callable[[], None] | None, task: RunningTask) -> None:
    try:
        if end:
            end()
    except Exception:  # one task's end must not keep the others from being renewed
        log.exception("a task of %s that passed its deadline was not finished", task.user_id)
