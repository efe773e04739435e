"""The table of a worker's decisions: which facts lead to which step."""

import doctest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.core import admission, claim, estimates, lane_changes, limits
from chalicelib.core.claim import Gap
from chalicelib.core.lane import Lane, Lease
from chalicelib.core.limits import Limit, parse_limits
from chalicelib.core.task import Outcome, Task, TaskRecord, TaskState
from chalicelib.worker import next_step as module
from chalicelib.worker.next_step import next_step
from chalicelib.worker.steps import (
    GAP_GRACE_MS,
    GAP_POLL_MS,
    LEAD_MS,
    SERVED_POLL_MS,
    Claim,
    DropCancelled,
    DropEmptied,
    Facts,
    FailTooLarge,
    GiveUp,
    ReadLane,
    ReadNewest,
    ReadPredecessors,
    ReadRecord,
    Rules,
    RunFirst,
    Skip,
    WaitUntil,
)

RULES = Rules(parse_limits("1/second; 20/minute"), max_attempts=3)
NOW = 1_000_000
TASK = Task("ann", "t2", 2, "log", None, planned_at=NOW, submitted_at=NOW)
FIRST = replace(TASK, task_id="t1", seq=1)
SUCCEEDED = Outcome(TaskState.SUCCEEDED, NOW - 5_000, NOW - 5_000, 1)
#: the first task started long ago, the second is next
LANE = Lane("ann", admitted=2, started_seq=1, started=1, starts=(NOW - 5_000,))
BEHIND = Lane("ann", admitted=2)


def lane_with(**changes: Any) -> Facts:
    return Facts(replace(LANE, **changes), is_lane_fresh=True)


def leased(until: int, attempt: int = 1) -> Lease:
    return Lease("t2", attempt, until, "other", (NOW - 4_000,) * attempt)


def facts_behind(*records: TaskRecord, fresh: bool = True) -> Facts:
    return Facts(BEHIND, is_lane_fresh=fresh, predecessors=tuple(records))


STARTED = replace(LANE, started_seq=2, started=2, starts=(NOW - 4_000, NOW - 5_000))


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        (Facts(BEHIND), ReadLane()),
        (Facts(BEHIND, is_lane_fresh=True), ReadPredecessors(Gap(1, 1))),
        (facts_behind(TaskRecord(FIRST)), RunFirst((FIRST,))),
        (facts_behind(), WaitUntil(NOW, NOW + GAP_POLL_MS)),
        (Facts(STARTED), ReadRecord()),
        (Facts(STARTED, record=TaskRecord(TASK, TaskState.SUCCEEDED, SUCCEEDED), is_record_read=True), Skip()),
        (lane_with(cancelled={"t2": 2}), DropCancelled()),
        (Facts(replace(LANE, cancelled={"t2": 2})), ReadLane()),
        (lane_with(paused_until=NOW + 9_000), WaitUntil(NOW + 9_000, NOW + 9_000)),
        (lane_with(throttled_until=NOW + 8_000), WaitUntil(NOW + 8_000, NOW + 8_000)),
        (Facts(replace(LANE, throttled_until=NOW + 8_000)), ReadLane()),
        (lane_with(running=leased(NOW + 7_000)), WaitUntil(NOW + 7_000, NOW + 7_000)),
        (
            replace(lane_with(running=leased(NOW - 1)), is_served=True),
            WaitUntil(NOW + SERVED_POLL_MS, NOW + SERVED_POLL_MS),
        ),
        (lane_with(starts=(NOW - 500,)), WaitUntil(NOW + 500, NOW + 500 - LEAD_MS)),
    ],
)
def test_step(facts: Facts, step: object) -> None:
    assert next_step(facts, TASK, NOW, RULES) == step


EMPTIED = Lane("ann", admitted=2, started_seq=2, emptied_seq=2, emptied_at=NOW)
#: the third task, submitted after the emptying, has overtaken the cancelled ones
OVERTAKEN = replace(
    EMPTIED, admitted=3, started_seq=3, started=1, running=Lease("t3", 1, NOW + 9_000, "w", (NOW,), filled_seq=3)
)
THIRD = replace(TASK, task_id="t3", seq=3)


@pytest.mark.parametrize(
    ("lane", "predecessors", "step"),
    [
        (EMPTIED, None, DropEmptied(NOW)),
        (replace(EMPTIED, admitted=3), None, ReadNewest(Gap(3, 3))),
        (replace(EMPTIED, admitted=3), (), DropEmptied(NOW)),
        (replace(EMPTIED, admitted=3), (TaskRecord(THIRD),), RunFirst((THIRD,))),
        (replace(EMPTIED, admitted=40), None, ReadPredecessors(Gap(3, 12))),
        (OVERTAKEN, None, ReadNewest(Gap(3, 3))),
        (OVERTAKEN, (TaskRecord(THIRD, TaskState.SUCCEEDED, SUCCEEDED),), DropEmptied(NOW)),
        (replace(EMPTIED, admitted=3, paused_until=NOW + 9_000), None, DropEmptied(NOW)),
    ],
)
def test_task_of_an_emptied_lane_gives_way_to_a_later_one_and_is_dropped(
    lane: Lane, predecessors: Any, step: object
) -> None:
    facts = Facts(lane, True, TaskRecord(TASK), is_record_read=True, predecessors=predecessors)
    assert next_step(facts, TASK, NOW + 60_000 if lane.running else NOW, RULES) == step


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        (lane_with(running=leased(NOW + 7_000)), WaitUntil(NOW + 7_000, NOW + 7_000)),
        (
            replace(lane_with(running=leased(NOW - 1)), is_served=True),
            WaitUntil(NOW + SERVED_POLL_MS, NOW + SERVED_POLL_MS),
        ),
        (lane_with(), ReadRecord()),
        (replace(lane_with(), is_record_read=True), FailTooLarge(Limit(50, 60_000, counts_units=True))),
    ],
)
def test_task_with_too_many_units_for_a_lowered_limit_does_not_fail_while_another_worker_runs_it(
    facts: Facts, step: object
) -> None:
    lowered = Rules(parse_limits("50 units/minute"), max_attempts=3)
    assert next_step(facts, replace(TASK, units=80), NOW, lowered) == step


def test_a_message_on_time_is_claimed_without_a_read() -> None:
    step = next_step(Facts(), TASK, NOW, RULES, "token")
    assert isinstance(step, Claim)
    assert step.is_fast
    assert (step.start.at, step.start.attempt, step.start.lane.running.token) == (NOW, 1, "token")


@pytest.mark.parametrize("task", [replace(TASK, planned_at=NOW + 1), replace(TASK, is_repeat=True)])
def test_an_early_or_repeated_message_reads_the_lane_first(task: Task) -> None:
    assert next_step(Facts(), task, NOW, RULES) == ReadLane()


def test_a_repeat_does_not_trust_a_remembered_lane() -> None:
    assert next_step(Facts(LANE), replace(TASK, is_repeat=True), NOW, RULES) == ReadLane()


@pytest.mark.parametrize("facts", [facts_behind(TaskRecord(FIRST, TaskState.SUCCEEDED, SUCCEEDED)), facts_behind()])
def test_a_gap_is_passed_when_it_is_finished_or_no_record_at_all_holds_it_after_its_grace(facts: Facts) -> None:
    later = NOW + (0 if facts.predecessors else GAP_GRACE_MS)
    if not facts.predecessors:
        assert next_step(facts, TASK, later, RULES) == ReadPredecessors(Gap(1, 1), is_whole=True)
        facts = replace(facts, is_search_whole=True)
    assert isinstance(next_step(facts, TASK, later, RULES), Claim)


def test_an_attempt_too_many_is_given_up_only_on_a_fresh_lane() -> None:
    facts = Facts(replace(STARTED, running=leased(NOW - 1, 3)), record=TaskRecord(TASK), is_record_read=True)
    assert next_step(facts, TASK, NOW, RULES) == ReadLane()
    assert isinstance(next_step(replace(facts, is_lane_fresh=True), TASK, NOW, RULES), GiveUp)


@given(
    starts=st.lists(st.integers(NOW - 70_000, NOW + 500), max_size=25).map(lambda found: sorted(found, reverse=True)),
    late=st.integers(0, 70_000),
    fresh=st.booleans(),
)
def test_no_claim_is_for_a_start_that_the_limits_refuse(starts: list[int], late: int, fresh: bool) -> None:
    lane_now = replace(LANE, starts=tuple(starts), started=len(starts))
    step = next_step(Facts(lane_now, is_lane_fresh=fresh), TASK, NOW + late, RULES)
    if isinstance(step, Claim):
        at = step.start.at
        assert all(
            at >= starts[limit.quota - 1] + limit.window_ms
            for limit in RULES.default_limits
            if len(starts) >= limit.quota
        )
        assert at - LEAD_MS <= NOW + late


@pytest.mark.parametrize("documented", [module, admission, claim, estimates, lane_changes, limits])
def test_examples_in_the_docstrings_hold(documented: Any) -> None:
    result = doctest.testmod(documented)
    assert (result.failed, result.attempted > 0) == (0, True)
