"""One user's lane, its changes and its estimates, as pure functions of values; the stores make the writes atomic.

A decision says what to write; a store writes it on condition that the lane is still the one decided on.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import accumulate

from msgspec import Struct, field
from msgspec.structs import replace

from chalicelib.core.limits import Limits, earliest_start, fingerprint, memory_needed

#: Milliseconds after which a running task is marked in the lane. A task that is expected to wait less than this for the
#: tasks ahead may start now.
MARKED_AFTER_MS = 1_000
#: Milliseconds after its start by which the mark of a task that still runs is stored, with room for the write.
MARKED_BY_MS = 1_200


#: Milliseconds that a start may lie in the future: workers claim ahead of time, and clocks differ a little.
CLOCKS_DIFFER_MS = 500
#: Milliseconds for which a claim keeps other workers off; renewed while the task runs.
LEASE_MS = 10_000
#: Average run time, milliseconds, below which waiting tasks hardly delay each other.
BRIEF_MS = 10


class Phase(Enum):
    """How far the task of the newest start has come, as the lane knows it."""

    #: it started; its end is known only if it ran for a second
    STARTED = ""
    #: it has run for a second, and has not ended unless its lease has
    RUNNING = "running"
    #: its attempt is over and the next one may start once the lease ends
    RETRY = "retry"


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
    phase: Phase = Phase.STARTED
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
    #: starts of second and later attempts, newest first, epoch ms: they count beside the planned starts
    retries: tuple[int, ...] = ()
    running: Lease | None = None
    #: average run time of the user's latest tasks, milliseconds; 0 while unknown
    took_ms: int = 0
    #: the user's own limits, None for the deployment's
    limits: Limits | None = None
    #: epoch ms until which no task starts; None when not paused
    paused_until: int | None = None
    #: fingerprint of the limits that the waiting tasks were planned under; empty if it was not stored
    planned_under: str = ""
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
    def counted(self) -> tuple[int, ...]:
        """The starts that a new planned start has to respect, newest first, epoch ms."""
        return tuple(sorted((*self.planned, *self.retries), reverse=True)) if self.retries else self.planned

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

    @property
    def retrying(self) -> Lease | None:
        """The lease of the task that waits between two attempts, at the head of the lane."""
        return self.running if self.running and self.running.phase is Phase.RETRY else None

    def is_paused(self, now_ms: int) -> bool:
        return self.paused_until is not None and self.paused_until > now_ms

    def limits_or(self, default: Limits) -> Limits:
        return self.limits or default

    def is_replanned(self, seq: int, limits: Limits) -> bool:
        """True if the task's planned start no longer counts: it starts as soon as these limits, now in force, allow."""
        return seq <= self.replanned_seq or self.has_old_plans(limits)

    def has_old_plans(self, limits: Limits) -> bool:
        """True if the waiting tasks were planned under other limits than these: the deployment's default changed."""
        return bool(self.planned_under) and self.planned_under != fingerprint(limits)


def estimated_starts(
    lane: Lane, limits: Limits, now_ms: int, planned: Sequence[int], with_run_times: bool = False
) -> list[int]:
    """When the lane's next tasks will start if nothing else is late, from its real starts, in order.

    planned: the earliest time of each of them, in order, epoch ms. A pause without an end counts as over now. A task
    between two attempts starts before them.
    with_run_times: each task waits for the end of the one before it, by the lane's average run time.
    """
    starts, estimates = list(lane.starts), []
    forgotten = lane.started > len(lane.starts)
    begin, took_ms = opens_at(lane, now_ms), lane.took_ms if with_run_times else 0
    if lane.retrying:
        starts.insert(0, retry_at(lane, limits, now_ms))
        begin = max(begin, starts[0] + took_ms)
    elif with_run_times:
        begin = max(begin, expected_end(lane, now_ms) or 0)
    for at in planned:
        starts.insert(0, earliest_start(starts, limits, max(begin, at), forgotten))
        estimates.append(starts[0])
        begin = starts[0] + took_ms
        del starts[memory_needed(limits) :]
    return estimates


def retry_at(lane: Lane, limits: Limits, now_ms: int) -> int:
    """When the task between two attempts will start, epoch ms."""
    backoff_ends_at = lane.retrying.until if lane.retrying else 0
    begin = max(opens_at(lane, now_ms), backoff_ends_at)
    return earliest_start(lane.starts, limits, begin, forgotten=lane.started > len(lane.starts))


def expected_end(lane: Lane, now_ms: int) -> int | None:
    """When the lane's started task will end, by the average run time, epoch ms; None if none is known to run.

    A marked task that has outlasted the average ends in a second at the earliest. A task without a mark counts as
    running while it may not have been marked yet, if the average says that it runs.

    >>> lease = Lease("t1", 1, until=15_000, token="w")
    >>> lane = Lane("ann", starts=(5_000,), running=lease, took_ms=3_000)
    >>> [expected_end(lane, now_ms) for now_ms in (5_400, 6_199, 6_200)]
    [8000, 8000, None]
    >>> marked = replace(lane, running=replace(lease, phase=Phase.RUNNING))
    >>> [expected_end(marked, now_ms) for now_ms in (6_500, 9_000, 15_000)]
    [8000, 10000, None]
    """
    lease = lane.running
    if lane.retrying:
        return max(now_ms, lane.retrying.until) + lane.took_ms
    if lease is None or lease.until <= now_ms or not lane.starts:
        return None
    started_at = lane.starts[0]
    if lease.phase is Phase.RUNNING:
        return max(started_at + lane.took_ms, now_ms + MARKED_AFTER_MS)
    return started_at + lane.took_ms if now_ms < started_at + min(lane.took_ms, MARKED_BY_MS) else None


def busy_ms(lane: Lane, seq: int, now_ms: int) -> int:
    """How long the tasks ahead of that seq keep the lane, which runs one task at a time; 0 if less than a second."""
    end = expected_end(lane, now_ms)
    waiting_ms = lane.waiting_before(seq) * lane.took_ms if lane.took_ms >= BRIEF_MS else 0
    expected_ms = (end - now_ms if end else 0) + waiting_ms
    return expected_ms if expected_ms >= MARKED_AFTER_MS else 0


def position_of(lane: Lane, limits: Limits, seq: int, planned_at: int, now_ms: int) -> int:
    """The position of a task that was just admitted: 0 if it may start now, else its number in line.

    It may not start now if limits, a pause or throttling keep it, or if the tasks ahead run for a second or more.
    While these keep even the first of those that wait from starting, that one is number 1; a running task, and one
    between two attempts, is ahead of it. Behind workers that are late a task has position 0 all the same: the user did
    not cause that wait.

    >>> from chalicelib.core.limits import parse_limits
    >>> limits = parse_limits("1/second; 20/minute")
    >>> begun = Lane("ann", admitted=3, started_seq=1, started=1, starts=(5_000,))
    >>> [position_of(begun, limits, seq, planned_at, 5_100) for seq, planned_at in ((2, 6_000), (3, 7_000))]
    [1, 2]
    """
    is_paused = lane.is_paused(now_ms)
    if planned_at <= now_ms and not is_paused and not busy_ms(lane, seq, now_ms):
        return 0
    is_running = not lane.retrying and (expected_end(lane, now_ms) or 0) >= now_ms + MARKED_AFTER_MS
    ahead = lane.waiting_before(seq) + (is_running or lane.retrying is not None)
    does_first_wait = is_paused or is_running or _first_start(lane, limits, now_ms) > now_ms
    return ahead + 1 if does_first_wait else max(1, ahead)


def _first_start(lane: Lane, limits: Limits, now_ms: int) -> int:
    """When the first of the waiting tasks may start; a task between two attempts is the first."""
    return retry_at(lane, limits, now_ms) if lane.retrying else estimated_starts(lane, limits, now_ms, [now_ms])[0]


def plans_from(lane: Lane, limits: Limits, now_ms: int) -> int:
    """The earliest planned start of a new task: after pause, throttling, and the next attempt of a failed task."""
    return estimated_starts(lane, limits, now_ms, [now_ms])[0] if lane.retrying else opens_at(lane, now_ms)


def opens_at(lane: Lane, now_ms: int) -> int:
    """The end of pause and throttling, epoch ms; now if there is neither, or if the pause has no end."""
    end = 0 if lane.paused_until is None or lane.paused_until == FOREVER_MS else lane.paused_until
    return max(now_ms, end, lane.throttled_until)


# Changes of the whole lane. Each returns the changed lane; `LaneStore.change` writes it if no other write came first.


def with_limits(lane: Lane, own: Limits | None, default: Limits, now_ms: int) -> Lane:
    """The lane under limits of its own, or under the default again; its backlog is planned anew."""
    return replanned(replace(lane, limits=own), own or default, now_ms)


def up_to_date(lane: Lane, limits: Limits, now_ms: int) -> Lane:
    """The lane itself, or planned anew if its waiting tasks were planned under an earlier default.

    limits: in force now.
    """
    return replanned(lane, limits, now_ms) if lane.waiting and lane.has_old_plans(limits) else lane


def paused(lane: Lane, until: int, default: Limits, now_ms: int) -> Lane:
    """The lane, paused until that time, epoch ms; FOREVER_MS for no end."""
    return replanned(replace(lane, paused_until=until), lane.limits_or(default), now_ms)


def resumed(lane: Lane, default: Limits, now_ms: int) -> Lane:
    """The lane without pause and throttling, and without starts in the future; its backlog is planned anew.

    Such a start comes from a worker whose clock was ahead, so its task really started before now.
    """
    opened = replace(
        lane,
        paused_until=None,
        throttled_until=0,
        throttled_reason="",
        starts=_without_future(lane.starts, now_ms),
        running=_reopened(lane, now_ms),
    )
    return replanned(opened, lane.limits_or(default), now_ms)


def _without_future(starts: Sequence[int], now_ms: int) -> tuple[int, ...]:
    """The starts, newest first, those in the future set to now, or to an older one that was claimed ahead of time.

    >>> _without_future((9_000_000, 5_100, 4_000), 5_000)
    (5100, 5100, 4000)
    """
    oldest_first = (now_ms if at > now_ms + CLOCKS_DIFFER_MS else at for at in reversed(starts))
    return tuple(reversed([*accumulate(oldest_first, max)]))


def _reopened(lane: Lane, now_ms: int) -> Lease | None:
    """The lane's lease: over if it only keeps a throttled task back, and no longer than any worker's lease."""
    lease = lane.running
    if lease is None:
        return None
    if lane.throttled_until > now_ms and lease.until == lane.throttled_until:
        return replace(lease, until=now_ms)
    is_ahead = bool(lane.starts) and lane.starts[0] > now_ms + CLOCKS_DIFFER_MS
    return replace(lease, until=min(lease.until, now_ms + LEASE_MS)) if is_ahead else lease


def start_ahead(lane: Lane, now_ms: int) -> int | None:
    """A start in the future, epoch ms, which a worker recorded whose clock was ahead. Nothing starts before it."""
    newest = max(lane.starts, default=0)
    return newest if newest > now_ms + CLOCKS_DIFFER_MS else None


def without(lane: Lane, cancelled: Mapping[str, int]) -> Lane:
    """The lane with these waiting tasks, id and seq, cancelled; those behind them keep their planned starts."""
    return replace(lane, cancelled={**lane.cancelled, **cancelled}, revision=lane.revision + 1)


def without_retrying(lane: Lane, seq: int, default: Limits, now_ms: int) -> Lane:
    """The lane with its task between two attempts, which has that seq, cancelled; the tasks behind it start at once."""
    lease = lane.retrying
    assert lease is not None, "a task waits for its next attempt"
    over = replace(lease, phase=Phase.STARTED, until=now_ms)
    lane = replace(without(lane, {lease.task_id: seq}), running=over)
    return replanned(lane, lane.limits_or(default), now_ms)


def replanned(lane: Lane, limits: Limits, now_ms: int) -> Lane:
    """Plans the waiting tasks anew from the real starts, so they start as soon as the limits allow now."""
    estimates = estimated_starts(lane, limits, now_ms, [now_ms] * lane.waiting)
    planned = [*reversed(estimates), *lane.starts]
    if lane.started == len(lane.starts):  # the lane remembers all of them; cancelled tasks took none
        planned += [0] * (lane.admitted - len(planned))
    return replace(
        lane,
        planned=tuple(planned[: memory_needed(limits)]),
        planned_under=fingerprint(limits),
        retries=(),  # the real starts among the planned ones include them
        replanned_seq=lane.admitted,
        replanned_at=opens_at(lane, now_ms),
        revision=lane.revision + 1,
    )


def with_run_time(lane: Lane, took_ms: int) -> Lane:
    """The lane with one more task in its average run time, in which the latest ones count most.

    >>> from itertools import accumulate
    >>> list(accumulate((3_000, 3_000, 1_000), with_run_time, initial=Lane("ann")))[-1].took_ms
    2500
    """
    average_ms = (3 * lane.took_ms + took_ms) // 4 if lane.took_ms else took_ms
    return replace(lane, took_ms=max(1, average_ms))  # 0 stands for unknown


#: A pause without an end: the year 9999, epoch ms.
FOREVER_MS = 253_370_764_800_000
