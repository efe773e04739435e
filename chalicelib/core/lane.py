"""One user's lane, its changes and its estimates, as pure functions of values; the stores make the writes atomic.

A decision says what to write; a store writes it on condition that the lane is still the one decided on.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from chalicelib.core.limits import Limits, earliest_start, memory_needed


class Lease(Struct, frozen=True):
    """The worker of the lane's newest start: it keeps two workers from running a task at once, and counts attempts."""

    task_id: str
    #: 1 for the first
    attempt: int
    #: epoch ms; until then no other worker may take the task
    until: int
    #: names this one claim, so that a claim whose answer was lost is recognised as done
    token: str
    #: epoch ms of each start of this task, oldest first, the running one last
    starts: tuple[int, ...] = ()
    #: the task's seq if it runs out of order, on a later task's message, which then waits for its outcome; else 0
    filled_seq: int = 0
    #: the user's own limits at each of the starts, as text, "" for the default; empty if all had the default
    start_limits: tuple[str, ...] = ()

    @property
    def last_token(self) -> str:
        """Its token once its attempt is over, so that no renewal finds it."""
        return f"{self.token}-over"


class Lane(Struct, frozen=True):
    """A lane as it was read; empty for a user who never submitted."""

    user_id: str
    #: how many tasks were admitted; the newest one's seq
    admitted: int = 0
    #: planned starts, newest first, epoch ms
    planned: tuple[int, ...] = ()
    #: the task admitted last, so that an admission whose answer was lost is recognised as done
    newest: str = ""
    #: the highest seq that has started or was skipped
    started_seq: int = 0
    #: how many starts were taken, retries included
    started: int = 0
    #: real starts, newest first, epoch ms
    starts: tuple[int, ...] = ()
    running: Lease | None = None
    #: the user's own limits, None for the deployment's
    limits: Limits | None = None
    #: epoch ms until which no task starts; None when not paused
    paused_until: int | None = None
    #: tasks up to this seq were planned under other limits or before a pause: their planned starts no longer count
    replanned_seq: int = 0
    #: epoch ms from which on those tasks start as soon as the limits allow
    replanned_at: int = 0
    #: the receipt of the lane's hidden head message, by which a change of the lane wakes it
    head_receipt: str = ""
    #: epoch ms until which the lane is throttled; 0 if it was not
    throttled_until: int = 0
    throttled_reason: str = ""
    #: cancelled tasks that a worker still has to skip: id and seq
    cancelled: Mapping[str, int] = field(default_factory=dict)
    #: grows with each change of limits, pause, throttling or cancellations
    revision: int = 0

    @property
    def waiting(self) -> int:
        """Tasks admitted, not started and not cancelled."""
        return self.waiting_before(self.admitted + 1)

    def waiting_before(self, seq: int) -> int:
        """Tasks that will start before the one with that seq."""
        passed_over = sum(self.started_seq < other < seq for other in self.cancelled.values())
        return max(0, seq - 1 - self.started_seq - passed_over)

    def lease_of(self, task_id: str) -> Lease | None:
        """The lane's newest lease if it is this task's; it may be over."""
        return self.running if self.running and self.running.task_id == task_id else None

    def is_leased(self, now_ms: int) -> bool:
        """True while no other worker may take the task of the lane's newest start."""
        return self.running is not None and self.running.until > now_ms

    def is_paused(self, now_ms: int) -> bool:
        return self.paused_until is not None and self.paused_until > now_ms

    def limits_or(self, default: Limits) -> Limits:
        return self.limits or default


def estimated_starts(lane: Lane, limits: Limits, now_ms: int, planned: Sequence[int]) -> list[int]:
    """When the lane's next tasks will start if nothing else is late, from its real starts, in order.

    planned: the earliest time of each of them, in order, epoch ms. A pause without an end counts as over now.
    """
    starts, estimates = list(lane.starts), []
    forgotten = lane.started > len(lane.starts)
    begin = opens_at(lane, now_ms)
    for at in planned:
        starts.insert(0, earliest_start(starts, limits, max(begin, at), forgotten))
        estimates.append(starts[0])
        del starts[memory_needed(limits) :]
    return estimates


def position_of(lane: Lane, limits: Limits, seq: int, planned_at: int, now_ms: int) -> int:
    """The position of a task that was just admitted: 0 if the limits let it start now, else its number in line.

    While limits, a pause or throttling keep even the first waiting task from starting, that one has position 1. A task
    whose planned start has come has position 0 even if workers are late: positions tell of the user's limits only.

    >>> from chalicelib.core.limits import parse_limits
    >>> limits = parse_limits("1/second; 20/minute")
    >>> begun = Lane("ann", admitted=3, started_seq=1, started=1, starts=(5_000,))
    >>> [position_of(begun, limits, seq, planned_at, 5_100) for seq, planned_at in ((2, 6_000), (3, 7_000))]
    [1, 2]
    """
    ahead, is_paused = lane.waiting_before(seq), lane.is_paused(now_ms)
    if planned_at <= now_ms and not is_paused:
        return 0
    does_first_wait = is_paused or estimated_starts(lane, limits, now_ms, [now_ms])[0] > now_ms
    return ahead + 1 if does_first_wait else max(1, ahead)


def opens_at(lane: Lane, now_ms: int) -> int:
    """The end of pause and throttling, epoch ms; now if there is neither, or if the pause has no end."""
    end = 0 if lane.paused_until is None or lane.paused_until == FOREVER_MS else lane.paused_until
    return max(now_ms, end, lane.throttled_until)


# Changes of the whole lane. Each returns the changed lane; `LaneStore.change` writes it if no other write came first.


def with_limits(lane: Lane, own: Limits | None, default: Limits, now_ms: int) -> Lane:
    """The lane under limits of its own, or under the default again; its backlog is planned anew."""
    return _replanned(replace(lane, limits=own), own or default, now_ms)


def paused(lane: Lane, until: int, default: Limits, now_ms: int) -> Lane:
    """The lane, paused until that time, epoch ms; FOREVER_MS for no end."""
    return _replanned(replace(lane, paused_until=until), lane.limits_or(default), now_ms)


def resumed(lane: Lane, default: Limits, now_ms: int) -> Lane:
    return _replanned(replace(lane, paused_until=None), lane.limits_or(default), now_ms)


def without(lane: Lane, cancelled: Mapping[str, int]) -> Lane:
    """The lane with these waiting tasks, id and seq, cancelled; those behind them keep their planned starts."""
    return replace(lane, cancelled={**lane.cancelled, **cancelled}, revision=lane.revision + 1)


def _replanned(lane: Lane, limits: Limits, now_ms: int) -> Lane:
    """Plans the waiting tasks anew from the real starts, so they start as soon as the limits allow now."""
    estimates = estimated_starts(lane, limits, now_ms, [now_ms] * lane.waiting)
    planned = [*reversed(estimates), *lane.starts]
    if lane.started == len(lane.starts):  # the lane remembers all of them; cancelled tasks took none
        planned += [0] * (lane.admitted - len(planned))
    return replace(
        lane,
        planned=tuple(planned[: memory_needed(limits)]),
        replanned_seq=lane.admitted,
        replanned_at=opens_at(lane, now_ms),
        revision=lane.revision + 1,
    )


#: A pause without an end: the year 9999, epoch ms.
FOREVER_MS = 253_370_764_800_000
