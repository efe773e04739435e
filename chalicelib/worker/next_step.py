"""Decides a worker's next step with a task: a pure function of the facts that it has read, and all rules of order.

The facts may be incomplete or old: then the next step is to read them. Nothing rests on them for safety; the claim's
conditional write refuses a start that the lane does not allow.
"""

from msgspec import Struct

from chalicelib.core.claim import Cancelled, Candidate, Gap, Start, TooLarge, Wait, claim, gap_before
from chalicelib.core.lane import LEASE_MS, Lane
from chalicelib.core.limits import Limit, Limits, smallest_units_quota
from chalicelib.core.recovery import is_open
from chalicelib.core.task import Task, TaskRecord, TaskState

#: Milliseconds before its time at which a start is claimed, so that the write's duration makes no start late.
LEAD_MS = 150
#: Milliseconds, from its own submit, for which a task waits for a predecessor that is in no record.
GAP_GRACE_MS = 2_000
#: Milliseconds between two looks for that predecessor.
GAP_POLL_MS = 50
#: Milliseconds after which the worker looks again at a task whose lease ran out while the worker that runs it lives.
SERVED_POLL_MS = 2_500


class Facts(Struct, frozen=True):
    """The facts about a task that a worker has read so far."""

    #: None: not read; the lane is then assumed to be idle, with this task next
    lane: Lane | None = None
    #: `lane` was read or written since this message arrived, so it needs no second read
    is_lane_fresh: bool = False
    #: the record as stored; None if there is none, or before `is_record_read`
    record: TaskRecord | None = None
    is_record_read: bool = False
    #: records of the tasks in the gap before this one; None before they are read
    predecessors: tuple[TaskRecord, ...] | None = None
    #: all of the user's records were searched for them
    is_search_whole: bool = False
    #: a live process of this machine runs the task, although its lease ran out
    is_served: bool = False


class ReadLane(Struct, frozen=True):
    """Read the lane: it is unknown, or perhaps too old to decide on."""


class ReadRecord(Struct, frozen=True):
    """Read the task's record: the task may be finished already."""


class ReadPredecessors(Struct, frozen=True):
    """Read the records of the tasks in the gap. is_whole: search all of the user's records for them."""

    gap: Gap
    is_whole: bool = False


class RunFirst(Struct, frozen=True):
    """Run these tasks first, in order: their messages have not arrived."""

    predecessors: tuple[Task, ...]


class WaitUntil(Struct, frozen=True):
    """Wait until `wake_at`, epoch ms, or defer the message until shortly before `until`; then decide again."""

    until: int
    wake_at: int


class Claim(Struct, frozen=True):
    """Claim the start. is_fast: by the conditional write that needs no knowledge of the lane."""

    start: Start
    is_fast: bool


class Skip(Struct, frozen=True):
    """Drop the message: the task is finished."""


class DropCancelled(Struct, frozen=True):
    """Log that the task was cancelled, and take it out of the lane. `last`: its last attempt, None before the first."""

    last: Start | None = None


class GiveUp(Struct, frozen=True):
    """Fail the task: each of its attempts lost its worker. `start` would be one attempt too many."""

    start: Start


class FailTooLarge(Struct, frozen=True):
    """Fail the task: it has more units than this limit ever allows. `last`: its last attempt, None before the first."""

    limit: Limit
    last: Start | None = None
    #: it has failed already, and only the lane does not show it yet
    is_finished: bool = False


Step = (
    ReadLane
    | ReadRecord
    | ReadPredecessors
    | RunFirst
    | WaitUntil
    | Claim
    | Skip
    | DropCancelled
    | GiveUp
    | FailTooLarge
)


class Rules(Struct, frozen=True):
    """The limits and the number of attempts that hold for the task."""

    default_limits: Limits
    max_attempts: int


def next_step(facts: Facts, task: Task, now_ms: int, rules: Rules, token: str = "", out_of_order: bool = False) -> Step:
    """The next step with the task at `now_ms`, epoch ms.

    token: names the claim that the step may lead to. out_of_order: the task runs on a later task's message.

    >>> from chalicelib.core.limits import parse_limits
    >>> rules = Rules(parse_limits("1/second; 20/minute"), 3)
    >>> lane = Lane("ann", admitted=2, started_seq=1, started=1, starts=(5_000,))
    >>> second = Task("ann", "t2", 2, "log", None, planned_at=6_000, submitted_at=5_100)
    >>> next_step(Facts(), second, 5_200, rules)
    ReadLane()
    >>> next_step(Facts(lane, True), second, 5_200, rules)
    WaitUntil(until=6000, wake_at=5850)
    >>> next_step(Facts(lane, True), second, 5_900, rules).start.at
    6000
    """
    lane = facts.lane
    if task.is_repeat and not facts.is_lane_fresh:
        return ReadLane()  # its record may say cancelled, and only the lane says whether that is logged
    if lane is None and task.planned_at > now_ms:
        return ReadLane()
    if lane and (step := _before_the_task(facts, lane, task, now_ms)):
        return step
    if lane and _may_be_finished(lane, task):
        if not facts.is_record_read:
            return ReadRecord()
        if facts.record and facts.record.outcome:
            may_be_unlogged = facts.record.state is TaskState.CANCELLED and not facts.is_lane_fresh
            return ReadLane() if may_be_unlogged else Skip()
    return _claim_or_wait(facts, task, now_ms, rules, token, out_of_order)


def _before_the_task(facts: Facts, lane: Lane, task: Task, now_ms: int) -> Step | None:
    """The step with the tasks before this one; None if it is next, or if they will never start."""
    gap = gap_before(lane, task.seq)
    if gap is None:
        return None
    if not facts.is_lane_fresh:
        return ReadLane()
    if facts.predecessors is None:
        return ReadPredecessors(gap)
    unfinished = tuple(record.task for record in facts.predecessors if is_open(record, lane))
    if unfinished:
        return RunFirst(unfinished)
    are_all_finished = len(facts.predecessors) > gap.last - gap.first
    if are_all_finished:
        return None
    if now_ms < task.submitted_at + GAP_GRACE_MS:
        return WaitUntil(now_ms, now_ms + GAP_POLL_MS)
    # A task without any record was never promised to anyone, since its submit was not answered.
    return None if facts.is_search_whole else ReadPredecessors(gap, is_whole=True)


def _may_be_finished(lane: Lane, task: Task) -> bool:
    return (task.seq <= lane.started_seq or task.is_repeat) and task.task_id not in lane.cancelled


def _claim_or_wait(facts: Facts, task: Task, now_ms: int, rules: Rules, token: str, out_of_order: bool) -> Step:
    lane = facts.lane or Lane(task.user_id, admitted=task.seq, started_seq=task.seq - 1)
    failed = facts.record.attempts if facts.record else 0
    candidate = Candidate(task.task_id, task.seq, task.planned_at, failed, out_of_order, task.units)
    limits = lane.limits_or(rules.default_limits)
    decision = claim(lane, candidate, limits, now_ms, LEASE_MS, token)
    if isinstance(decision, Cancelled) and task.task_id in lane.cancelled:
        return DropCancelled(_last_attempt(lane, task))
    if isinstance(decision, Start | Cancelled | TooLarge) and facts.is_served:
        decision = Wait(now_ms + SERVED_POLL_MS)
    if isinstance(decision, Cancelled):  # while it ran; a lane that is not fresh may lack its worker's last renewal
        return DropCancelled(_last_attempt(lane, task)) if facts.is_lane_fresh else ReadLane()
    if isinstance(decision, TooLarge):
        return _fail_too_large(facts, lane, task, decision.limit)
    is_last = isinstance(decision, Start) and decision.attempt > rules.max_attempts
    if (is_last or isinstance(decision, Wait)) and not facts.is_lane_fresh:
        return ReadLane()
    if isinstance(decision, Wait):
        return WaitUntil(decision.until, decision.until)
    if is_last:
        return GiveUp(decision)
    if now_ms < decision.at - LEAD_MS:
        if smallest_units_quota(limits) and not facts.is_lane_fresh:
            return ReadLane()  # units may have been given back since
        return WaitUntil(decision.at, decision.at - LEAD_MS)
    is_next = decision.attempt == 1 and decision.lane.started_seq == task.seq
    return Claim(decision, is_fast=is_next and not facts.is_lane_fresh)


def _fail_too_large(facts: Facts, lane: Lane, task: Task, limit: Limit) -> Step:
    """Fails the task, by the lane and the record as they are now."""
    if not facts.is_lane_fresh:
        return ReadLane()
    if not facts.is_record_read:
        return ReadRecord()
    is_finished = facts.record is not None and facts.record.outcome is not None
    return FailTooLarge(limit, _last_attempt(lane, task), is_finished)


def _last_attempt(lane: Lane, task: Task) -> Start | None:
    lease = lane.lease_of(task.task_id)
    if lease is None or not lease.starts:
        return None
    return Start(lease.starts[-1], lease.attempt, min(task.planned_at, lease.starts[0]), lane)
