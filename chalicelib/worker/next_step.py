"""Decides a worker's next step with a task: a pure function of the facts that it has read, and all rules of order.

The facts may be incomplete or old: then the next step is to read them. Nothing rests on them for safety; the claim's
conditional write refuses a start that the lane does not allow.
"""

from chalicelib.core.claim import Cancelled, Candidate, Start, TooLarge, Wait, claim, gap_before
from chalicelib.core.lane import LEASE_MS, Lane
from chalicelib.core.limits import smallest_units_quota
from chalicelib.core.recovery import is_open
from chalicelib.core.task import Task, TaskState
from chalicelib.worker.beside import is_beside, step_beside
from chalicelib.worker.emptied import step_of_emptied
from chalicelib.worker.steps import (
    GAP_GRACE_MS,
    GAP_POLL_MS,
    LEAD_MS,
    SERVED_POLL_MS,
    Claim,
    DropCancelled,
    Facts,
    GiveUp,
    ReadLane,
    ReadPredecessors,
    ReadRecord,
    Rules,
    RunFirst,
    Skip,
    Step,
    WaitUntil,
    fail_too_large,
    is_record_expired,
    last_attempt,
)


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
    WaitUntil(until=6000, wake_at=5850, is_for_slot=False, is_for_shared=False)
    >>> next_step(Facts(lane, True), second, 5_900, rules).start.at
    6000
    """
    lane = facts.lane
    if step := step_of_emptied(facts, task, now_ms, rules):
        return step
    if is_beside(facts, rules):
        return step_beside(facts, task, now_ms, rules, token)
    if task.is_repeat and not facts.is_lane_fresh:
        return ReadLane()  # its record may say cancelled, and only the lane says whether that is logged
    if lane is None and task.planned_at > now_ms:
        return ReadLane()
    if lane and (step := _before_the_task(facts, lane, task, now_ms)):
        return step
    if lane and _may_be_finished(lane, task):
        if not facts.is_record_read:
            return ReadRecord()
        if is_record_expired(facts, now_ms):
            return Skip()
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
    candidate = Candidate(
        task.task_id, task.seq, task.planned_at, failed, out_of_order, task.units, shared=facts.shared_start
    )
    limits = lane.limits_or(rules.default_limits)
    decision = claim(lane, candidate, limits, now_ms, LEASE_MS, token)
    if isinstance(decision, Cancelled) and task.task_id in lane.cancelled:
        # In a lane that is not fresh, a second message would log a cancellation again that is logged already.
        return DropCancelled(last_attempt(lane, task)) if facts.is_lane_fresh else ReadLane()
    if isinstance(decision, Start | Cancelled | TooLarge) and facts.is_served:
        decision = Wait(now_ms + SERVED_POLL_MS)
    if isinstance(decision, Cancelled):  # while it ran; a lane that is not fresh may lack its worker's last renewal
        return DropCancelled(last_attempt(lane, task)) if facts.is_lane_fresh else ReadLane()
    if isinstance(decision, TooLarge):
        return fail_too_large(facts, lane, task, decision.limit)
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
