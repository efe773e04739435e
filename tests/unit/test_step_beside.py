"""The table of a worker's decisions with a task that may run beside others of its user."""

import doctest
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.core import lane as lane_module
from chalicelib.core.claim import DOOR_MS, Gap
from chalicelib.core.lane import AT_DOOR_MS, Lane, Lease, Phase, Turn
from chalicelib.core.limits import parse_limits
from chalicelib.core.task import Outcome, Task, TaskRecord, TaskState
from chalicelib.worker.beside import (
    FORWARD_AHEAD_MS,
    FORWARDED_WAIT_MS,
    LOOK_AGAIN_MS,
    LOOK_FORWARD_MS,
    MANY_LOOKS,
    OFTEN_WOKEN,
    SELDOM_LOOK_MS,
    SENT_BACK_AFTER_MS,
    SLOW_LOOK_MS,
    WOKEN_LOOK_MS,
)
from chalicelib.worker.next_step import next_step
from chalicelib.worker.steps import (
    LEAD_MS,
    LOOK_FOR_MS,
    SERVED_POLL_MS,
    Claim,
    DropCancelled,
    Facts,
    Forward,
    ReadLane,
    ReadPredecessors,
    ReadRecord,
    ReadShared,
    Rules,
    SendBack,
    Skip,
    WaitUntil,
)

RULES = Rules(parse_limits("1/second; 2 at once"), max_attempts=3)
NOW = 1_000_000
TASK = Task("ann", "t3", 3, "log", None, planned_at=NOW, submitted_at=NOW)
SECOND = replace(TASK, task_id="t2", seq=2)
SUCCEEDED = Outcome(TaskState.SUCCEEDED, NOW - 5_000, NOW - 5_000, 1)


def lease(task_id: str, until: int = NOW + 7_000, **changes: Any) -> Lease:
    return Lease(task_id, 1, until, "other", (NOW - 4_000,), in_slot=True, **changes)


def lane(*leases: Lease, started_seq: int = 2, **changes: Any) -> Lane:
    slots = {one.task_id: one for one in leases}
    fields: dict[str, Any] = {"started": 2, "starts": (NOW - 4_000,), "took_ms": 9_000, **changes}
    return Lane("ann", admitted=3, started_seq=started_seq, slots=slots, **fields)


def head(found: Lane, fresh: bool = True, **changes: Any) -> Facts:
    return Facts(found, is_lane_fresh=fresh, **{"received_at": NOW, **changes})


def forwarded(found: Lane | None, fresh: bool = True, **changes: Any) -> Facts:
    return Facts(found, is_lane_fresh=fresh, is_forwarded=True, **{"received_at": NOW, "sent_at": NOW, **changes})


ONE, TWO = lane(lease("t1")), lane(lease("t1"), lease("t2", NOW + 5_000))
RETRY = lease("t3", NOW - 1, phase=Phase.RETRY)
LATER = NOW + FORWARD_AHEAD_MS + 1
LONG_AGO = NOW - SENT_BACK_AFTER_MS
#: The task before it was forwarded and has not started.
ONE_AHEAD = lane(started_seq=1, started=0, starts=())
#: Submitted long ago, for a start that is far away, with tasks before it that have not started.
FAR = replace(TASK, submitted_at=NOW - 60_000, planned_at=NOW + 9_000)
FAR_WAIT = WaitUntil(NOW + 9_000 - FORWARD_AHEAD_MS + LEAD_MS, NOW + 9_000 - FORWARD_AHEAD_MS)
NEAR, SOON = lane(started_seq=1, starts=(NOW - 2_000,)), lane(started_seq=1, starts=(NOW + 1_000,))
#: Later tasks started before its submit sent its message.
PASSED = lane(lease("t5"), started_seq=5, starts=(NOW - 1_000 + LEAD_MS + 1,))
NO_ATTEMPT, ONE_ATTEMPT = ({"record": TaskRecord(TASK, attempts=n), "is_record_read": True} for n in (0, 1))


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        (Facts(), ReadLane()),
        (head(ONE), Forward((TASK,))),
        (head(ONE, fresh=False), Forward((TASK,))),
        (head(TWO, fresh=False), ReadLane()),
        (head(TWO), WaitUntil(NOW + 5_000, NOW + 5_000, is_for_slot=True)),
        (head(replace(TWO, took_ms=50)), WaitUntil(NOW, NOW + LOOK_AGAIN_MS)),
        (head(lane(lease("t1"), lease("t2", NOW))), Forward((TASK,))),
        (head(lane(lease("t1"), lease("t2", phase=Phase.RETRY))), Forward((TASK,))),
        (
            head(lane(lease("t1"), lease("t2", NOW - 1, phase=Phase.RETRY, receipt="r", visible_at=NOW))),
            WaitUntil(NOW + DOOR_MS, NOW + DOOR_MS, is_for_slot=True),
        ),
        (
            head(
                lane(lease("t1"), lease("t2", NOW - 1, phase=Phase.RETRY, receipt="r", visible_at=NOW - AT_DOOR_MS)),
            ),
            Forward((TASK,)),
        ),
        (
            head(replace(ONE, starts=(LATER - 1_000,))),
            WaitUntil(LATER - FORWARD_AHEAD_MS + LEAD_MS, LATER - FORWARD_AHEAD_MS),
        ),
        (head(replace(ONE, paused_until=NOW + 90_000)), WaitUntil(NOW + 90_000, NOW + 90_000)),
        (head(lane(lease("t1"), started_seq=1)), WaitUntil(NOW, NOW + LOOK_AGAIN_MS)),
        (head(lane(RETRY, started_seq=3)), ReadRecord()),
        (head(lane(RETRY, started_seq=3), record=TaskRecord(TASK), is_record_read=True), Forward((TASK,))),
        (forwarded(lane(lease("t1"), started_seq=1)), WaitUntil(NOW, NOW + LOOK_AGAIN_MS)),
        (forwarded(lane(lease("t1"), started_seq=1), received_at=NOW - LOOK_FOR_MS), ReadPredecessors(Gap(2, 2))),
        (
            forwarded(
                lane(started_seq=1), received_at=NOW - LOOK_FOR_MS, predecessors=(TaskRecord(SECOND),), receives=3
            ),
            Forward((SECOND,), NOW + 4_000),
        ),
        (
            forwarded(
                lane(started_seq=1), received_at=NOW - LOOK_FOR_MS, predecessors=(TaskRecord(SECOND),), sent_at=LONG_AGO
            ),
            SendBack(),
        ),
        (forwarded(TWO), WaitUntil(NOW + 5_000, NOW + 5_000, is_for_slot=True)),
        (forwarded(TWO, receives=100), WaitUntil(NOW + SLOW_LOOK_MS, NOW + SLOW_LOOK_MS, is_for_slot=True)),
        (forwarded(TWO, receives=MANY_LOOKS, sent_at=LONG_AGO), SendBack()),
        (forwarded(replace(ONE, paused_until=NOW + 90_000), sent_at=LONG_AGO), SendBack()),
        (forwarded(replace(ONE, starts=(NOW + 5_000,)), sent_at=LONG_AGO), SendBack()),
        (forwarded(replace(ONE, starts=(NOW + 500,)), sent_at=LONG_AGO), WaitUntil(NOW + 1_500, NOW + 1_350)),
        (head(ONE, fresh=False, receives=2), ReadLane()),
        (head(ONE_AHEAD), WaitUntil(NOW, NOW + LOOK_FORWARD_MS)),
        (head(ONE_AHEAD, fresh=False), ReadLane()),
        (head(ONE_AHEAD, received_at=NOW - LOOK_FOR_MS), Forward((TASK,))),
        (
            forwarded(replace(ONE, paused_until=NOW + 90_000)),
            WaitUntil(NOW + FORWARDED_WAIT_MS, NOW + FORWARDED_WAIT_MS),
        ),
        (forwarded(replace(ONE, cancelled={"t3": 3})), DropCancelled()),
        (forwarded(replace(ONE, cancelled={"t3": 3}), fresh=False), ReadLane()),
        (
            forwarded(
                lane(started_seq=3), record=TaskRecord(TASK, TaskState.SUCCEEDED, SUCCEEDED), is_record_read=True
            ),
            Skip(),
        ),
    ],
)
def test_step(facts: Facts, step: object) -> None:
    assert next_step(facts, TASK, NOW, RULES) == step


@pytest.mark.parametrize(
    ("facts", "task", "step"),
    [
        (head(NEAR), FAR, FAR_WAIT),  # the one before it was forwarded just now
        (head(NEAR, receives=2), FAR, WaitUntil(NOW, NOW + LOOK_FORWARD_MS)),
        (head(NEAR, receives=2, received_at=NOW - LOOK_FOR_MS), FAR, Forward((FAR,))),
        (head(NEAR), replace(FAR, submitted_at=NOW - 500), WaitUntil(NOW, NOW + LOOK_FORWARD_MS)),
        (head(SOON), FAR, WaitUntil(NOW + 2_000 - FORWARD_AHEAD_MS + LEAD_MS, NOW + 2_000 - FORWARD_AHEAD_MS)),
        (head(NEAR, fresh=False, receives=1), FAR, ReadLane()),
    ],
)
def test_a_message_that_came_before_its_predecessors_keeps_it_back_for_a_second_at_most(facts, task, step) -> None:
    assert next_step(facts, task, NOW, RULES) == step


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        (head(PASSED, **NO_ATTEMPT), WaitUntil(NOW + 1 + LEAD_MS, NOW + 1)),
        (head(replace(PASSED, starts=(NOW - 1_000,)), **NO_ATTEMPT), Forward((TASK,))),
        (head(PASSED, fresh=False, **NO_ATTEMPT), ReadLane()),
        (head(PASSED, **ONE_ATTEMPT), Forward((TASK,))),
    ],
)
def test_a_task_that_later_ones_passed_over_waits_at_the_head_for_its_first_start(facts: Facts, step: object) -> None:
    assert next_step(facts, TASK, NOW, RULES) == step


#: The task before it was forwarded, and waits for its shared limit.
AWAITS = lane(started_seq=1, started=0, starts=(), turn=Turn("db", 4, 0))
BEFORE = {"received_at": NOW - LOOK_FOR_MS, "predecessors": (TaskRecord(SECOND),)}


def again(wait_ms: int) -> WaitUntil:
    return WaitUntil(NOW + wait_ms, NOW + wait_ms)


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        (head(AWAITS), ReadShared("db")),
        (head(AWAITS, fresh=False), ReadLane()),
        (head(AWAITS, is_shared_near=True, received_at=NOW - LOOK_FOR_MS), Forward((TASK,))),
        (head(AWAITS, is_shared_near=False), again(WOKEN_LOOK_MS)),
        (head(AWAITS, is_shared_near=False, receives=OFTEN_WOKEN), again(SELDOM_LOOK_MS)),
        (head(AWAITS, is_shared_near=False, receives=4), ReadPredecessors(Gap(2, 2))),
        (head(AWAITS, is_shared_near=False, receives=4, **BEFORE), Forward((SECOND,), NOW + WOKEN_LOOK_MS)),
        (forwarded(AWAITS), ReadShared("db")),
        (forwarded(AWAITS, is_shared_near=True), WaitUntil(NOW, NOW + LOOK_AGAIN_MS)),
        (forwarded(AWAITS, is_shared_near=False, receives=3), again(4_000)),
        (forwarded(AWAITS, is_shared_near=False, receives=31), again(FORWARDED_WAIT_MS)),
        (forwarded(AWAITS, is_shared_near=False, sent_at=LONG_AGO), SendBack()),
    ],
)
def test_one_task_of_a_lane_waits_for_a_shared_limit_and_the_others_look_seldom(facts: Facts, step: object) -> None:
    assert next_step(facts, TASK, NOW, RULES) == step


def test_a_task_that_needs_a_shared_limit_is_not_forwarded_behind_another_before_that_opens() -> None:
    task = replace(TASK, shared="db")
    assert next_step(head(ONE_AHEAD), task, NOW, RULES) == ReadShared("db")
    assert next_step(head(ONE_AHEAD, is_shared_near=False), task, NOW, RULES) == WaitUntil(NOW, NOW + LOOK_AGAIN_MS)


@pytest.mark.parametrize(
    ("facts", "is_fast"),
    [(forwarded(None, fresh=False), True), (forwarded(ONE, fresh=False), True), (forwarded(ONE), False)],
)
def test_a_forwarded_message_on_time_is_claimed_in_a_slot_without_a_read(facts: Facts, is_fast: bool) -> None:
    step = next_step(facts, TASK, NOW, RULES, "token")
    assert isinstance(step, Claim)
    assert (step.is_fast, step.start.slot, step.start.at) == (is_fast, "t3", NOW)
    assert step.start.lease
    assert (step.start.lease.token, step.start.lease.attempt) == ("token", 1)


def test_a_forwarded_message_takes_a_slot_where_limits_now_say_one_at_once() -> None:
    step = next_step(forwarded(lane()), TASK, NOW, Rules(parse_limits("1/second"), 3), "token")
    assert isinstance(step, Claim)
    assert step.start.slot == "t3"


def test_a_slot_is_not_free_while_a_live_process_of_this_machine_runs_its_task() -> None:
    """Its lease ran out, since its worker can't reach AWS."""
    found = lane(lease("t1"), lease("t2", NOW - 1))
    assert isinstance(next_step(forwarded(found), TASK, NOW, RULES), Claim)
    waits = next_step(forwarded(found, served_beside=1), TASK, NOW, RULES)
    assert waits == WaitUntil(NOW + SERVED_POLL_MS, NOW + SERVED_POLL_MS, is_for_slot=True)
    assert isinstance(next_step(forwarded(lane(), served_beside=1), TASK, NOW, RULES), Claim)


def test_a_lane_whose_slots_are_in_use_starts_nothing_outside_them() -> None:
    """The limits said two at once before."""
    rules = Rules(parse_limits("1/second"), 3)
    assert next_step(head(ONE), TASK, NOW, rules) == WaitUntil(NOW + 7_000, NOW + 7_000, is_for_slot=True)
    alone = next_step(head(lane()), TASK, NOW, rules)
    assert isinstance(alone, Claim)
    assert (alone.start.slot, alone.start.lane.slots) == ("", None)


def test_the_examples_of_a_lane_hold() -> None:
    result = doctest.testmod(lane_module)
    assert (result.failed, result.attempted > 0) == (0, True)
