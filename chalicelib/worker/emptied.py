"""Decides the next step with a task that was cancelled when its lane was emptied, however many were; pure.

Its message stands in the queue before those of tasks that were submitted later. So a worker that receives it first lets
the lane's next task go ahead, if that may start now, and then logs this one's cancellation.
"""

from chalicelib.core.claim import Gap, gap_before
from chalicelib.core.estimates import estimated_start, retry_at
from chalicelib.core.lane import Lane
from chalicelib.core.recovery import is_open
from chalicelib.core.task import Task
from chalicelib.worker.beside import is_beside
from chalicelib.worker.steps import (
    LEAD_MS,
    DropEmptied,
    Facts,
    ForwardNext,
    ReadLane,
    ReadNewest,
    ReadPredecessors,
    ReadRecord,
    Rules,
    RunFirst,
    Skip,
    Step,
    is_record_expired,
)

#: Seqs among which the lane's next task is looked for; a seq has no task if its submit died.
NEXT_SEQS = 10


def step_of_emptied(facts: Facts, task: Task, now_ms: int, rules: Rules) -> Step | None:
    """None for a task that was not cancelled by an emptying, and whose user was not forgotten."""
    lane = facts.lane
    if lane is None:
        return None
    if lane.is_forgotten(task.seq):
        return Skip()
    if not lane.is_emptied(task.task_id, task.seq):
        return None
    may_give_way = not facts.gave_way and not facts.is_forwarded
    if may_give_way and not facts.is_lane_fresh:
        return ReadLane()
    if not facts.is_record_read:
        return ReadRecord()
    if is_record_expired(facts, now_ms) or (facts.record and facts.record.outcome):
        return Skip()
    if may_give_way and (step := _step_of_the_next(facts, lane, now_ms, rules)):
        return step
    return DropEmptied(lane.emptied_at)


def _step_of_the_next(facts: Facts, lane: Lane, now_ms: int, rules: Rules) -> Step | None:
    """None if no other task of the lane may start now."""
    gap = gap_before(lane, lane.admitted + 1)
    if gap is None or not _may_start(lane, now_ms, rules):
        return None
    if facts.predecessors is None:
        return _search(gap)
    following = next((record.task for record in facts.predecessors if is_open(record, lane)), None)
    if following is None:
        return None
    return ForwardNext(following) if is_beside(facts, rules) else RunFirst((following,))


def _search(gap: Gap) -> ReadNewest | ReadPredecessors:
    """The read that finds the lane's next task: while many messages are cancelled, mostly one task at most can be it.

    That one may have started and ended before: its lease says until the next start that it ran out of order.
    """
    if gap.first == gap.last:
        return ReadNewest(gap)
    return ReadPredecessors(Gap(gap.first, min(gap.last, gap.first + NEXT_SEQS - 1)))


def _may_start(lane: Lane, now_ms: int, rules: Rules) -> bool:
    limits = lane.limits_or(rules.default_limits)
    if lane.is_paused(now_ms):
        return False
    start = retry_at(lane, limits, now_ms) if lane.retrying else estimated_start(lane, limits, now_ms, 0)
    return start <= now_ms + LEAD_MS
