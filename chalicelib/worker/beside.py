"""Decides the next step with a task that may run beside others of its user: pure, as `next_step` is for one at a time.

The message at a lane's head is forwarded to a group of its own once its start is near and a slot is free, so that the
one behind it comes up. There the task is claimed: in order, since a claim needs the start of the task before, and with
a slot, since a claim counts the leases in use. A task between two attempts waits in its own group and delays nobody.
"""

from chalicelib.core.claim import Cancelled, Candidate, Decision, Gap, Start, TooLarge, Wait, claim
from chalicelib.core.estimates import estimated_start, estimated_starts
from chalicelib.core.lane import MARKED_AFTER_MS, SLOT_LEASE_MS, Lane
from chalicelib.core.limits import Limits, at_once
from chalicelib.core.past_starts import next_start
from chalicelib.core.recovery import is_open
from chalicelib.core.task import Task, TaskState
from chalicelib.core.visibility import again_seconds
from chalicelib.worker.steps import (
    GAP_GRACE_MS,
    LEAD_MS,
    LOOK_FOR_MS,
    SERVED_POLL_MS,
    Claim,
    DropCancelled,
    Facts,
    Forward,
    GiveUp,
    ReadLane,
    ReadPredecessors,
    ReadRecord,
    ReadShared,
    Rules,
    SendBack,
    Skip,
    Step,
    WaitUntil,
    fail_too_large,
    is_record_expired,
    last_attempt,
)

#: Milliseconds before its start at which a message is forwarded: as long as its way to the next worker may take.
FORWARD_AHEAD_MS = 500
#: The pause between two looks for a predecessor's start, or a slot of brief tasks.
LOOK_AGAIN_MS = 50
#: The pause between two looks at whether the tasks ahead have started, which were forwarded shortly before.
LOOK_FORWARD_MS = 300
#: Milliseconds for which a forwarded message, which no change of its lane wakes, is hidden at most.
FORWARDED_WAIT_MS = 30_000
#: A message that waits for a slot looks again when the first lease in use may end; after this many receives only after
#: SLOW_LOOK_MS, so that 1,000 receives, after which SQS dead-letters it, allow three days.
QUICK_LOOKS = 100
SLOW_LOOK_MS = 300_000
#: Milliseconds after which a forwarded message that still may not start goes back to the lane's group. SQS takes no
#: second message with one id for five minutes, so none is forwarded or sent back again within that time.
SENT_BACK_AFTER_MS = 600_000
#: Tasks whose messages are forwarded from their records by one message behind them.
MOST_FORWARDED = 10
#: Milliseconds after which the head looks again while the task before it waits for a shared limit: that task's start
#: wakes it. After OFTEN_WOKEN receives it looks less often, so that 1,000 receives last for a message's 14 days.
WOKEN_LOOK_MS = 60_000
OFTEN_WOKEN = 300
SELDOM_LOOK_MS = 1_800_000
#: Receives after which a message goes back that waits for a slot, whose release wakes it.
MANY_LOOKS = 500


def is_beside(facts: Facts, rules: Rules) -> bool:
    """True if the task's lease takes a slot: several may run at once, or did lately."""
    lane = facts.lane
    limits = lane.limits_or(rules.default_limits) if lane else rules.default_limits
    return facts.is_forwarded or at_once(limits) > 1 or bool(lane and lane.slots)


def step_beside(facts: Facts, task: Task, now_ms: int, rules: Rules, token: str) -> Step:
    lane = facts.lane
    if task.is_repeat and not facts.is_lane_fresh:
        return ReadLane()
    if lane is None and (task.planned_at > now_ms or not facts.is_forwarded):
        return ReadLane()
    if lane is None:
        lane = Lane(task.user_id, admitted=task.seq, started_seq=task.seq - 1)
    limits = lane.limits_or(rules.default_limits)
    if step := _step_of_started(facts, lane, task, now_ms):
        return step
    if not facts.is_forwarded and at_once(limits) > 1:
        return _forward_or_wait(facts, lane, task, limits, now_ms, token)
    return _after_predecessors(facts, lane, task, now_ms) or _claim_or_wait(facts, lane, task, now_ms, rules, token)


def _step_of_started(facts: Facts, lane: Lane, task: Task, now_ms: int) -> Step | None:
    """Skips a finished task; None for one that has not started, or not finished."""
    if task.task_id in lane.cancelled or not (task.seq <= lane.started_seq or task.is_repeat):
        return None
    if not facts.is_record_read:
        return ReadRecord()
    if is_record_expired(facts, now_ms):
        return Skip()
    if facts.record and facts.record.outcome:
        may_be_unlogged = facts.record.state is TaskState.CANCELLED
        return Skip() if facts.is_lane_fresh or not may_be_unlogged else ReadLane()
    return None


def _forward_or_wait(facts: Facts, lane: Lane, task: Task, limits: Limits, now_ms: int, token: str) -> Step:
    """The step with the message at the lane's head."""
    is_started = task.seq <= lane.started_seq
    if (is_started or facts.receives > 1) and not facts.is_lane_fresh:
        return ReadLane()  # the message waited, or a change of the lane woke it
    is_passed_over = is_started and _is_passed_over(facts, lane, task)
    if task.task_id in lane.cancelled or (is_started and not is_passed_over):
        return Forward((task,))
    decision = _decide(facts, lane, task, limits, now_ms, token)
    if isinstance(decision, TooLarge | Cancelled):
        return Forward((task,))
    if isinstance(decision, Start):
        forward_at = decision.at - (LEAD_MS if is_passed_over else FORWARD_AHEAD_MS)
        if step := _forward_in_time(facts, lane, task, limits, forward_at, now_ms):
            return step
    elif facts.is_lane_fresh:
        assert isinstance(decision, Wait), "nothing else is left"
        return _wait_for(decision, facts, lane, task, now_ms)
    if not facts.is_lane_fresh:
        return ReadLane()
    return _after_predecessors(facts, lane, task, now_ms) or Forward((task,))


def _forward_in_time(facts: Facts, lane: Lane, task: Task, limits: Limits, forward_at: int, now_ms: int) -> Step | None:
    """The step with a message that is to be forwarded at that time, epoch ms; None while no slot is left for it."""
    ahead = lane.waiting_before(task.seq)
    has_slot = ahead + len(lane.in_use(now_ms)) < at_once(limits)
    if now_ms < forward_at:
        return _wait_for_start(facts, lane, task, limits, forward_at, now_ms) if facts.is_lane_fresh else ReadLane()
    if has_slot and ahead and (shared := lane.awaited_shared or task.shared):
        if not facts.is_lane_fresh:
            return ReadLane()
        if facts.is_shared_near is None:
            return ReadShared(shared)
        has_slot = facts.is_shared_near  # one task of the lane is enough to wait for it
    if has_slot and ahead and _is_far_behind(facts, lane, limits, ahead, now_ms):
        return WaitUntil(now_ms, now_ms + LOOK_FORWARD_MS) if facts.is_lane_fresh else ReadLane()
    return Forward((task,)) if has_slot else None


def _is_passed_over(facts: Facts, lane: Lane, task: Task) -> bool:
    """True if later tasks started before this one's submit sent its message.

    It is forwarded only when it may start, since no claim of a later task waits for it; until then it keeps those
    behind it back.
    """
    attempts = facts.record.attempts if facts.record else 0
    return lane.lease_of(task.task_id) is None and attempts == 0


def _wait_for_start(facts: Facts, lane: Lane, task: Task, limits: Limits, forward_at: int, now_ms: int) -> Step:
    """Waits until the message is to be forwarded, or until one behind it is, of a task before this one.

    If the task before does not start when it may, the message is forwarded early, so that those behind it come up.
    """
    if _may_be_ahead_of_its_turn(facts, lane, task, limits, now_ms):
        next_at = next_start(lane, limits, now_ms) - FORWARD_AHEAD_MS
        if next_at <= now_ms:
            is_new = now_ms < facts.received_at + LOOK_FOR_MS
            return WaitUntil(now_ms, now_ms + LOOK_FORWARD_MS) if is_new else Forward((task,))
        forward_at = min(forward_at, next_at)
    return WaitUntil(forward_at + LEAD_MS, forward_at)


def _may_be_ahead_of_its_turn(facts: Facts, lane: Lane, task: Task, limits: Limits, now_ms: int) -> bool:
    """True if tasks before this one have not started whose messages may be behind this one.

    Of two concurrent submits the second may be the first to send its message. In order, this message comes up when the
    one before it is forwarded, which is shortly before its start; it then waits for nothing but its own.
    """
    ahead = lane.waiting_before(task.seq)
    if not ahead or lane.awaited_shared:  # the one before was received, and waits
        return False
    if facts.receives > 1 or now_ms < task.submitted_at + GAP_GRACE_MS:
        return True
    return estimated_start(lane, limits, now_ms, ahead - 1) > now_ms + FORWARD_AHEAD_MS


def _is_far_behind(facts: Facts, lane: Lane, limits: Limits, ahead: int, now_ms: int) -> bool:
    """True if the task starts long after those ahead, which were forwarded and are about to start.

    One that does not start may have its message behind this one.
    """
    if now_ms >= facts.received_at + LOOK_FOR_MS:
        return False
    return estimated_starts(lane, limits, now_ms, [now_ms] * (ahead + 1))[-1] > now_ms + FORWARD_AHEAD_MS


def _after_predecessors(facts: Facts, lane: Lane, task: Task, now_ms: int) -> Step | None:
    """The step while tasks before this one have not started; None if it is next, or if they will never start.

    Their messages are mostly on their way. After LOOK_FOR_MS they are looked for, and forwarded from their records.
    """
    gap = Gap(lane.started_seq + 1, task.seq - 1)
    if gap.last < gap.first:
        return None
    if not facts.is_lane_fresh:
        return ReadLane()
    if lane.awaited_shared and facts.is_shared_near is None:
        return ReadShared(lane.awaited_shared)
    is_shared_far = facts.is_shared_near is False
    if lane.awaited_shared and is_shared_far:
        if step := _wait_behind(facts, now_ms):
            return step
    elif now_ms < facts.received_at + LOOK_FOR_MS:
        return WaitUntil(now_ms, now_ms + LOOK_AGAIN_MS)
    if facts.predecessors is None:
        return ReadPredecessors(gap)
    unfinished = [record.task for record in facts.predecessors if is_open(record, lane)]
    if unfinished and _is_long_forwarded(facts, now_ms):
        return SendBack()
    if unfinished:
        again_at = _woken_at(facts, now_ms) if lane.awaited_shared and is_shared_far else _again_at(facts, now_ms)
        return Forward(tuple(unfinished[: 1 if is_shared_far else MOST_FORWARDED]), again_at)
    if len(facts.predecessors) > gap.last - gap.first:  # all are finished
        return None
    if now_ms < task.submitted_at + GAP_GRACE_MS:
        return WaitUntil(now_ms, now_ms + LOOK_AGAIN_MS)
    return None if facts.is_search_whole else ReadPredecessors(gap, is_whole=True)


def _wait_behind(facts: Facts, now_ms: int) -> Step | None:
    """Waits while the next task cannot start; None to look for the next task's message first.

    Its start wakes the head. The head looks for that message each time its own receives have doubled.
    """
    if not facts.is_forwarded:
        is_doubled = facts.receives > 2 and facts.receives & (facts.receives - 1) == 0
        again_at = _woken_at(facts, now_ms)
        return None if is_doubled else WaitUntil(again_at, again_at)
    if _is_long_forwarded(facts, now_ms):
        return SendBack()
    again_at = _again_at(facts, now_ms)
    return WaitUntil(again_at, again_at)


def _again_at(facts: Facts, now_ms: int) -> int:
    """When a message looks again that nothing wakes, epoch ms."""
    return now_ms + 1_000 * min(again_seconds(facts.receives), FORWARDED_WAIT_MS // 1_000)


def _woken_at(facts: Facts, now_ms: int) -> int:
    """When the head looks again that the start of the task before it wakes, epoch ms."""
    return now_ms + (WOKEN_LOOK_MS if facts.receives < OFTEN_WOKEN else SELDOM_LOOK_MS)


def _claim_or_wait(facts: Facts, lane: Lane, task: Task, now_ms: int, rules: Rules, token: str) -> Step:
    decision = _decide(facts, lane, task, lane.limits_or(rules.default_limits), now_ms, token)
    if isinstance(decision, Cancelled):
        # A lane that is not fresh may lack a running task's last renewal, or that the cancellation is logged.
        return DropCancelled(last_attempt(lane, task)) if facts.is_lane_fresh else ReadLane()
    is_last = isinstance(decision, Start) and decision.attempt > rules.max_attempts
    if isinstance(decision, TooLarge):
        return fail_too_large(facts, lane, task, decision.limit)
    if not facts.is_lane_fresh and (is_last or isinstance(decision, Wait)):
        return ReadLane()
    if isinstance(decision, Wait):
        return _wait_or_send_back(decision, facts, lane, task, now_ms)
    if is_last:
        return GiveUp(decision)
    if now_ms < decision.at - LEAD_MS:
        if not facts.is_lane_fresh:
            return ReadLane()
        return _wait_or_send_back(Wait(decision.at), facts, lane, task, now_ms, LEAD_MS)
    is_next = decision.attempt == 1 and lane.started_seq == task.seq - 1
    return Claim(decision, is_fast=is_next and not facts.is_lane_fresh)


def _decide(facts: Facts, lane: Lane, task: Task, limits: Limits, now_ms: int, token: str) -> Decision:
    failed = facts.record.attempts if facts.record else 0
    candidate = Candidate(
        task.task_id, task.seq, task.planned_at, failed, units=task.units, in_slot=True, shared=facts.shared_start
    )
    decision = claim(lane, candidate, limits, now_ms, SLOT_LEASE_MS, token)
    is_run_here = facts.is_served and task.task_id not in lane.cancelled
    if isinstance(decision, Start) and facts.served_beside:
        running = sum(lease.task_id != task.task_id for lease in lane.in_use(now_ms)) + facts.served_beside
        if running >= at_once(limits):
            return Wait(now_ms + SERVED_POLL_MS, is_for_slot=True)
    return Wait(now_ms + SERVED_POLL_MS) if is_run_here and not isinstance(decision, Wait) else decision


def _is_long_forwarded(facts: Facts, now_ms: int) -> bool:
    return facts.is_forwarded and now_ms >= facts.sent_at + SENT_BACK_AFTER_MS


def _wait_or_send_back(wait: Wait, facts: Facts, lane: Lane, task: Task, now_ms: int, lead_ms: int = 0) -> Step:
    is_long = _is_long_forwarded(facts, now_ms) and task.task_id not in (lane.slots or {})
    if is_long and wait.until >= now_ms + 2 * LOOK_FOR_MS and (not wait.is_for_slot or facts.receives >= MANY_LOOKS):
        return SendBack()
    if lead_ms:  # for the pace: a task that reports fewer units than it counted for may shorten it
        return WaitUntil(wait.until, wait.until - lead_ms)
    return _wait_for(wait, facts, lane, task, now_ms)


def _wait_for(wait: Wait, facts: Facts, lane: Lane, task: Task, now_ms: int) -> WaitUntil:
    until = wait.until
    is_woken = task.task_id in (lane.slots or {})  # its lease has the receipt
    if wait.is_for_slot:
        if lane.took_ms < MARKED_AFTER_MS and now_ms < facts.received_at + LOOK_FOR_MS:
            return WaitUntil(now_ms, now_ms + LOOK_AGAIN_MS)
        until = until if facts.receives < QUICK_LOOKS else max(until, now_ms + SLOW_LOOK_MS)
    elif facts.is_forwarded and not is_woken:
        until = min(until, now_ms + FORWARDED_WAIT_MS)
    return WaitUntil(until, until, is_for_slot=wait.is_for_slot)
