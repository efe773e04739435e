"""One user's lane and what may happen to it, as pure decisions on values; the stores make them atomic.

A decision says what to write; a store writes it on condition that the lane is still the one decided on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from chalicelib.limits import Limits, earliest_start, memory_needed


@dataclass(frozen=True)
class Lease:
    """Who runs the lane's newest start: it keeps a task from running in two places, and counts attempts."""

    task_id: str
    #: 1 for the first
    attempt: int
    #: epoch ms; until then no other worker may take the task
    until: int
    #: names this one claim, so that a claim whose answer was lost is recognised as done
    token: str
    #: epoch ms of each start of this task, oldest first, the running one last
    starts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Lane:
    """A lane as it was read. A user that never submitted has the empty one."""

    user_id: str
    #: how many tasks were admitted; the newest one's seq
    admitted: int = 0
    #: planned starts, newest first, epoch ms
    planned: tuple[int, ...] = ()
    #: the task admitted last, so that an admission whose answer was lost is recognised as done
    newest: str = ""
    #: the highest seq that has started or was passed over
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
    cancelled: frozenset[str] = frozenset()
    #: moves with each change that a decision must not overlook: limits, pause, cancellations
    revision: int = 0

    @property
    def waiting(self) -> int:
        """Tasks admitted and not started."""
        return max(0, self.admitted - self.started_seq)

    def limits_or(self, default: Limits) -> Limits:
        return self.limits or default


@dataclass(frozen=True)
class Admission:
    """Planned starts that the lane allows for tasks to be admitted, in order, epoch ms."""

    planned: tuple[int, ...]
    lane: Lane = field(repr=False)

    @property
    def first_seq(self) -> int:
        return self.lane.admitted - len(self.planned) + 1


def admit(lane: Lane, limits: Limits, now_ms: int, newest: str, count: int = 1) -> Admission:
    """Plans the next `count` starts of the lane; the lane inside is how it looks once they are reserved.

    newest: the id of the last of the tasks to be admitted.

    >>> from chalicelib.limits import parse_limits
    >>> one = admit(Lane("ann"), parse_limits("1/second; 20/minute"), 5_000, "t1")
    >>> one.planned, one.first_seq
    ((5000,), 1)
    >>> admit(one.lane, parse_limits("1/second; 20/minute"), 5_010, "t3", count=2).planned
    (6000, 7000)
    """
    planned = list(lane.planned)
    remember = memory_needed(limits)
    for _ in range(count):
        planned.insert(0, earliest_start(planned, limits, now_ms, forgotten=lane.admitted > len(lane.planned)))
    after = replace(
        lane,
        admitted=lane.admitted + count,
        planned=tuple(planned[:remember]),
        newest=newest,
    )
    return Admission(tuple(reversed(planned[:count])), after)


@dataclass(frozen=True)
class Candidate:
    """What a claim has to know of a task."""

    task_id: str
    seq: int
    planned_at: int


@dataclass(frozen=True)
class Start:
    """The task may start at `at` (epoch ms, now or a little later) as this attempt; `lane` is how it looks then."""

    at: int
    attempt: int
    lane: Lane = field(repr=False)


@dataclass(frozen=True)
class Wait:
    """The task may not start before `until`, epoch ms."""

    until: int


@dataclass(frozen=True)
class Gap:
    """Tasks of these seqs were admitted earlier, and the lane has not seen them start."""

    first: int
    last: int


@dataclass(frozen=True)
class Cancelled:
    """The task was cancelled; `lane` is how it looks once that is settled."""

    lane: Lane = field(repr=False)


Decision = Start | Wait | Cancelled


def gap_before(lane: Lane, seq: int) -> Gap | None:
    """The tasks that are missing before `seq`, None when it is next.

    Two submits at the same time may reach the queue in the other order; the lane's numbers tell.
    """
    return Gap(lane.started_seq + 1, seq - 1) if lane.started_seq + 1 < seq else None


def claim(lane: Lane, task: Candidate, limits: Limits, now_ms: int, lease_ms: int, token: str) -> Decision:
    """When the task may start, given the lane's real starts, pause, cancellations and lease.

    A Start may lie in the future: whoever writes it has taken that start, and waits for its time. The
    lease runs from the start.

    >>> from chalicelib.limits import parse_limits
    >>> limits = parse_limits("1/second; 20/minute")
    >>> lane = Lane("ann", admitted=2, started_seq=1, started=1, starts=(5_004,))
    >>> start = claim(lane, Candidate("t2", 2, 6_000), limits, 5_900, 10_000, "w")
    >>> start.at, start.attempt, start.lane.starts
    (6004, 1, (6004, 5004))
    """
    if task.task_id in lane.cancelled:
        return Cancelled(_pass_over(lane, task))
    if lane.paused_until is not None and lane.paused_until > now_ms:
        return Wait(lane.paused_until)
    mine = lane.running if lane.running and lane.running.task_id == task.task_id else None
    if mine and mine.until > now_ms:
        return Wait(mine.until)
    earliest = max(now_ms, task.planned_at)
    at = earliest_start(lane.starts, limits, earliest, forgotten=lane.started > len(lane.starts))
    return _start(lane, task, limits, at, lease_ms, token)


def _start(lane: Lane, task: Candidate, limits: Limits, at: int, lease_ms: int, token: str) -> Start:
    mine = lane.running if lane.running and lane.running.task_id == task.task_id else None
    attempt = mine.attempt + 1 if mine else 1
    lease = Lease(task.task_id, attempt, at + lease_ms, token, (*(mine.starts if mine else ()), at))
    after = replace(
        lane,
        admitted=max(lane.admitted, task.seq),
        started_seq=max(lane.started_seq, task.seq),
        started=lane.started + 1,
        starts=(at, *lane.starts)[: memory_needed(limits)],
        running=lease,
    )
    return Start(at, attempt, after)


def _pass_over(lane: Lane, task: Candidate) -> Lane:
    return replace(
        lane,
        started_seq=max(lane.started_seq, task.seq),
        cancelled=lane.cancelled - {task.task_id},
        revision=lane.revision + 1,
    )


def estimated_starts(lane: Lane, limits: Limits, now_ms: int, planned: Sequence[int]) -> list[int]:
    """When the lane's waiting tasks will start if nothing else is late, from its real starts, in order.

    planned: the planned starts of the waiting tasks, in order, epoch ms. A pause without an end counts as ended now.
    """
    starts, estimates = list(lane.starts), []
    forgotten = lane.started > len(lane.starts)
    begin = max(now_ms, lane.paused_until or 0) if (lane.paused_until or 0) < FOREVER_MS else now_ms
    for at in planned:
        starts.insert(0, earliest_start(starts, limits, max(begin, at), forgotten))
        estimates.append(starts[0])
        del starts[memory_needed(limits) :]
    return estimates


#: A pause without an end: the year 9999, epoch ms.
FOREVER_MS = 253_370_764_800_000
