"""The claim: whether a task may start now, and the lane as it is after that start. Pure.

A decision says what to write; a store writes it on condition that the lane is still the one decided on.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.lane import Lane, Lease, Phase
from chalicelib.core.limits import Limit, Limits, at_once, format_limits, memory_needed, smallest_units_quota
from chalicelib.core.past_starts import next_start, with_start

#: Milliseconds after which a task looks again for a slot that one at the door is to take first.
DOOR_MS = 1_000
#: Most leases in the slots of a lane: with more tasks between two attempts nothing else starts, so that its item stays
#: small.
MAX_SLOTS = 200
#: Milliseconds after the end of its lease, or of its backoff, at which a slot is cleared: no message lives as long, so
#: that its task, whose message was lost, never comes back.
SLOT_KEPT_MS = 14 * 24 * 3_600_000
#: Seqs after which a lane forgets a cancelled task whose message never arrived.
CANCELLED_KEPT_SEQS = 300
#: Stands for the limits of a shared limit that was deleted.
NO_SHARED_LIMITS = "none"


class SharedStart(Struct, frozen=True):
    """A start that the task has taken of its shared limit: it is lost unless the task starts in its lane at that time.

    So is one that comes of a shared limit which was deleted, and takes nothing.
    """

    name: str
    #: epoch ms
    at: int
    #: the limits in force, as text; "" for those of the setting, NO_SHARED_LIMITS if there are none any more
    limits: str = ""
    #: when the shared limit and the lane's turn allowed it, epoch ms; 0 if it waited for neither
    allowed_at: int = 0
    #: the start with which the task is listed among those that run at once, epoch ms; 0 if it is not listed. It is an
    #: earlier one where the limits had a number at once before, and a worker died meanwhile.
    listed_at: int = 0
    #: the number of the lane's turn, of its shared limit or its group's queue, that it was taken with; 0 without one.
    #: Another task of the lane may use that turn first: then this start is lost.
    turn: int = 0


class Candidate(Struct, frozen=True):
    """The facts about a task that its claim depends on."""

    task_id: str
    seq: int
    planned_at: int
    #: failed attempts stored in its record; they count if the lane has no lease of the task any more
    failed_attempts: int = 0
    #: it runs on the message of a later task, because its own message has not arrived
    out_of_order: bool = False
    #: counted by limits of units
    units: int = 1
    #: it runs beside others: its lease takes one of the lane's slots
    in_slot: bool = False
    #: None for a task without a shared limit, or before it is taken
    shared: SharedStart | None = None


class Start(Struct, frozen=True):
    """The task may start at `at` (epoch ms, now or up to a moment ahead); `lane` is the lane after that start."""

    at: int
    #: 1 for the first
    attempt: int
    #: epoch ms; from its admission, or computed anew after a change of limits or a pause
    planned_at: int
    lane: Lane
    #: of the task, which limits of units count
    units: int = 1
    #: in force at the claim
    limits: Limits = ()
    #: the task's id if its lease is in a slot of the lane; empty if it is the lane's newest
    slot: str = ""
    shared: SharedStart | None = None

    @property
    def lease(self) -> Lease | None:
        return (self.lane.slots or {}).get(self.slot) if self.slot else self.lane.running


class Wait(Struct, frozen=True):
    """The task may not start before `until`, epoch ms."""

    until: int
    #: it waits for a slot, so it may start as soon as one of those that run ends
    is_for_slot: bool = False


class Gap(Struct, frozen=True):
    """Tasks with these seqs were admitted before, and the lane does not show that they started or finished."""

    first: int
    last: int


class Cancelled(Struct, frozen=True):
    """The task was cancelled; `without_cancelled` takes it out of the lane."""


class TooLarge(Struct, frozen=True):
    """The task has more units than this limit ever allows: the limit was lowered after its submit."""

    limit: Limit


Decision = Start | Wait | Cancelled | TooLarge


def gap_before(lane: Lane, seq: int) -> Gap | None:
    """The tasks that must start before `seq`; None if it is next.

    Two concurrent submits may reach the queue in the reverse order; the lane's seqs show it. A task that ran out of
    order may have lost its worker, and only its lease records that attempt, so it counts as missing until it is over.
    So does a task between two attempts: its message hides those behind it, unless SQS lost that message.
    """
    if lane.running and 0 < lane.running.filled_seq < seq:
        return Gap(lane.running.filled_seq, seq - 1)
    if lane.retrying and 0 < lane.started_seq < seq:
        # After an emptying that left it running, `started_seq` is the last one of those that were cancelled.
        first = lane.emptied_from if lane.started_seq == lane.emptied_seq else lane.started_seq
        return Gap(max(1, first), seq - 1)
    first = first_open_seq(lane)
    return Gap(first, seq - 1) if first < seq else None


def first_open_seq(lane: Lane) -> int:
    """The lowest seq that has not started, or was cancelled between two attempts and is not logged yet."""
    return min((lane.started_seq + 1, *(seq for seq in lane.cancelled.values() if seq > lane.emptied_seq)))


def claim(lane: Lane, task: Candidate, limits: Limits, now_ms: int, lease_ms: int, token: str) -> Decision:
    """Decides when the task may start, from the lane's real starts, pause, throttling, cancellations and lease.

    A Start may lie in the future: the worker that writes it owns that start and waits for its time. The lease runs from
    the start.

    >>> from chalicelib.core.limits import parse_limits
    >>> limits = parse_limits("1/second; 20/minute")
    >>> lane = Lane("ann", admitted=2, started_seq=1, started=1, starts=(5_004,))
    >>> start = claim(lane, Candidate("t2", 2, 6_000), limits, 5_900, 10_000, "w")
    >>> start.at, start.attempt, start.lane.starts
    (6004, 1, (6004, 5004))
    """
    if task.task_id in lane.cancelled or lane.is_cancelled_run(task.task_id, now_ms):
        return Cancelled()
    if lane.is_paused(now_ms):
        return Wait(lane.paused_until or now_ms)
    if lane.throttled_until > now_ms:
        return Wait(lane.throttled_until)
    lease = lane.lease_of(task.task_id)
    if lease and lease.until > now_ms:
        return Wait(lease.until)
    if limit := smallest_exceeded(limits, task.units):
        return TooLarge(limit)
    if task.in_slot and (free_at := slot_free_at(lane, task.task_id, at_once(limits), now_ms)) > now_ms:
        return Wait(free_at, is_for_slot=True)
    planned_at = task.planned_at
    if lane.is_replanned(task.seq, limits):
        planned_at = next_start(lane, limits, lane.replanned_at, task.units)
    # Units that were given back let a task start before its planned start.
    begin = task.shared.at if task.shared else now_ms
    begin = max(begin, _corrected_at(lane) if smallest_units_quota(limits) else planned_at)
    at = next_start(lane, limits, begin, task.units)
    return _start(lane, task, limits, at, planned_at, lease_ms, token)


def slot_free_at(lane: Lane, task_id: str, at_most: int, now_ms: int) -> int:
    """When the lane may have a slot for the task, epoch ms: now, or when the first of the leases in use ends.

    A slot that is in use is free once its lease ends, whatever became of its worker. A task's first attempt leaves a
    slot to each started task at the door.

    >>> leases = {f"t{n}": Lease(f"t{n}", 1, until=5_000 + n, token="w") for n in (1, 2)}
    >>> lane = Lane("ann", slots=leases)
    >>> [slot_free_at(lane, "t3", at_most, 4_000) for at_most in (2, 3)]
    [5001, 4000]
    >>> slot_free_at(lane, "t3", 2, 5_001)
    5001
    """
    others = [lease for lease in lane.in_use(now_ms) if lease.task_id != task_id]
    if len(others) >= at_most:
        return min(lease.until for lease in others)
    if lane.lease_of(task_id):
        return now_ms
    ahead = len(others) + len(lane.at_the_door(now_ms))
    return now_ms if ahead < at_most and len(lane.slots or {}) < MAX_SLOTS else now_ms + DOOR_MS


def smallest_exceeded(limits: Limits, units: int) -> Limit | None:
    """A limit that never allows so many units; None if all may allow them."""
    if units == 1:
        return None
    return next((limit for limit in limits if limit.counts_units and limit.quota < units), None)


def _corrected_at(lane: Lane) -> int:
    """From when on the units of the lane's newest start are known, epoch ms: another worker's clock may be ahead."""
    newest = lane.running.used[1] if lane.running and lane.running.used else 0
    return max(newest, lane.reported_at)


def _start(lane: Lane, task: Candidate, limits: Limits, at: int, planned_at: int, lease_ms: int, token: str) -> Start:
    earlier = lane.lease_of(task.task_id)
    attempt = (earlier.attempt if earlier else task.failed_attempts) + 1
    starts = (*(earlier.starts if earlier else ()), at)
    filled_seq = task.seq if task.out_of_order else 0
    start_limits = _start_limits(earlier, lane.limits)
    lease = Lease(
        task.task_id,
        attempt,
        at + lease_ms,
        token,
        starts,
        filled_seq,
        start_limits=start_limits,
        earlier_used=_earlier_used(earlier),
        in_slot=task.in_slot,
        shared_limits=_shared_limits(earlier, task.shared),
        allowed_at=_allowed_at(earlier, task.shared),
    )
    listed, real = with_start(lane, limits, at, task.units)
    after = replace(
        lane,
        admitted=max(lane.admitted, task.seq),
        started_seq=max(lane.started_seq, task.seq),
        started=lane.started + 1,
        starts=listed,
        real=real,
        waiting_units=_waiting_units_after(lane, task.seq, task.units),
        retries=(at, *lane.retries)[: memory_needed(limits)] if earlier else lane.retries,
        cancelled=_cancelled_after(lane, task.task_id, task.seq),
        next_receipt="" if task.seq > lane.started_seq else lane.next_receipt,
        turn=None if task.shared else lane.turn,
    )
    after = _with_slot(after, lease) if task.in_slot else _without_slots(after, lease)
    # A replanned task is planned after its own first start when it is retried.
    slot = task.task_id if task.in_slot else ""
    return Start(at, attempt, min(planned_at, starts[0]), after, task.units, limits, slot, task.shared)


def _with_slot(lane: Lane, lease: Lease) -> Lane:
    """The lane with this lease in a slot. The message at its head waits on, for its own turn."""
    running = None if lane.running and lane.running.task_id == lease.task_id else lane.running
    oldest = lease.starts[-1] - SLOT_KEPT_MS
    kept = {task_id: known for task_id, known in (lane.slots or {}).items() if known.until > oldest}
    return replace(lane, slots={**kept, lease.task_id: lease}, running=running)


def _without_slots(lane: Lane, lease: Lease) -> Lane:
    """The lane with this one task running, whose message is in a worker's hands: a later deferral saves a new receipt.

    Slots that are in use stay: then nothing starts outside them.
    """
    return replace(lane, running=lease, head_receipt="", slots=lane.slots or None)


def _waiting_units_after(lane: Lane, seq: int, units: int) -> int:
    """The units of the waiting tasks when the one with that seq waits no more."""
    return lane.waiting_units - (units - 1 if seq > lane.started_seq else 0)


def _start_limits(earlier: Lease | None, own: Limits | None) -> tuple[str, ...]:
    """The own limits of the task's starts: those of the earlier lease, and `own` for one more."""
    before = (earlier.start_limits or ("",) * len(earlier.starts)) if earlier else ()
    texts = (*before, format_limits(own) if own else "")
    return texts if any(texts) else ()


def _shared_limits(earlier: Lease | None, shared: SharedStart | None) -> tuple[str, ...]:
    """The same for the shared limit of the task."""
    before = (earlier.shared_limits or ("",) * len(earlier.starts)) if earlier else ()
    texts = (*before, shared.limits if shared else "")
    return texts if any(texts) else ()


def _allowed_at(earlier: Lease | None, shared: SharedStart | None) -> int:
    return earlier.allowed_at if earlier else shared.allowed_at if shared else 0


def _earlier_used(earlier: Lease | None) -> tuple[int, ...]:
    reports = earlier.reports if earlier else ()
    return tuple(value for report in reports for value in report or (-1, -1)) if any(reports) else ()


def without_cancelled(lane: Lane, task_id: str, seq: int, units: int = 1) -> Lane:
    """The lane without this cancelled task, which counts as started."""
    return replace(
        lane,
        started_seq=max(lane.started_seq, seq),
        waiting_units=_waiting_units_after(lane, seq, units),
        cancelled=_cancelled_after(lane, task_id, seq),
        revision=lane.revision + 1,
        turn=lane.kept_turn,
        slots=without_slot(lane, task_id),
    )


def without_slot(lane: Lane, task_id: str) -> Mapping[str, Lease] | None:
    """The lane's slots without this task's."""
    if not lane.slots or task_id not in lane.slots:
        return lane.slots
    return {other: lease for other, lease in lane.slots.items() if other != task_id}


def passed_over(lane: Lane, task_id: str, seq: int, units: int, now_ms: int) -> Lane:
    """The lane without this task, which counts as started; its lease is over if it waits for its next attempt."""
    after = without_cancelled(lane, task_id, seq, units)
    lease = lane.retrying if lane.retrying and lane.retrying.task_id == task_id else None
    return replace(after, running=replace(lease, phase=Phase.STARTED, until=now_ms)) if lease else after


def _cancelled_after(lane: Lane, task_id: str, seq: int) -> Mapping[str, int]:
    """The lane's other cancelled tasks whose messages may still arrive."""
    oldest = seq - CANCELLED_KEPT_SEQS
    # Tasks that were submitted after an emptying overtake those that it cancelled, one for each of these at most.
    is_draining = oldest <= 2 * lane.emptied_seq - lane.emptied_from
    oldest = min(oldest, lane.emptied_from - CANCELLED_KEPT_SEQS) if is_draining else oldest
    return {other: at for other, at in lane.cancelled.items() if at > oldest and other != task_id}
