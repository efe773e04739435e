from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.core.admission import admit, reserved
from chalicelib.core.claim import Cancelled, Candidate, Gap, Start, Wait, claim, gap_before, without_cancelled
from chalicelib.core.estimates import busy_ms, estimated_starts, plans_from, position_of, retry_at
from chalicelib.core.lane import FOREVER_MS, Lane, Lease, Phase
from chalicelib.core.lane_changes import without_retrying
from chalicelib.core.limits import Limits, fingerprint, memory_needed, parse_limits
from tests.factories import make_lane
from tests.strategies import Step, any_limits, steps
from tests.windows import assert_pace_kept, breaks_a_limit

DEFAULT = parse_limits("1/second; 20/minute")
LEASE_MS = 10_000


def make_candidate(seq: int = 1, planned_at: int = 0) -> Candidate:
    return Candidate(f"t{seq}", seq, planned_at)


def make_lease(task_id: str = "t1", attempt: int = 1, until: int = 15_000, starts: Sequence[int] = (5_000,)) -> Lease:
    return Lease(task_id, attempt, until, "other", tuple(starts))


def claimed(lane: Lane, task: Candidate, now_ms: int = 5_000, limits: Limits = DEFAULT) -> Start:
    decision = claim(lane, task, limits, now_ms, LEASE_MS, "mine")
    assert isinstance(decision, Start)
    return decision


def waits_until(lane: Lane, task: Candidate, now_ms: int = 5_000) -> int:
    decision = claim(lane, task, DEFAULT, now_ms, LEASE_MS, "mine")
    assert isinstance(decision, Wait)
    return decision.until


# --- admit


@pytest.mark.parametrize("count", [1, 2, 21, 22, 60, 90, 100])
def test_what_a_first_try_reserved_is_known_also_beyond_what_the_lane_remembers(count: int) -> None:
    admission = admit(make_lane(), DEFAULT, 5_000, "last", count)
    assert reserved(admission.lane, DEFAULT, admission.planned) == admission.planned
    assert reserved(admission.lane, DEFAULT, range(9_000, 9_000 + count)) == admission.planned


def test_first_submit_starts_now_as_number_one() -> None:
    admission = admit(make_lane(), DEFAULT, 5_000, "t1")
    assert (admission.planned, admission.first_seq) == ((5_000,), 1)
    assert admission.lane == make_lane(admitted=1, planned=(5_000,), newest="t1", planned_under=fingerprint(DEFAULT))


def test_second_submit_within_a_second_is_delayed() -> None:
    lane = admit(make_lane(), DEFAULT, 5_000, "t1").lane
    assert admit(lane, DEFAULT, 5_400, "t2").planned == (6_000,)


def test_twenty_first_submit_within_a_minute_waits_for_the_first_to_leave_it() -> None:
    admission = admit(make_lane(), DEFAULT, 0, "t41", count=41)
    assert admission.planned[:21] == (*range(0, 20_000, 1_000), 60_000)
    assert admission.planned[40] == 120_000


def test_admission_keeps_what_it_does_not_decide_on() -> None:
    lane = make_lane(started_seq=3, started=4, starts=(1, 2), cancelled={"x": 4}, revision=7, admitted=3)
    after = admit(lane, DEFAULT, 5_000, "t4").lane
    assert replace(after, admitted=3, planned=(), newest="", planned_under="") == lane


def test_pause_and_late_starts_do_not_move_what_is_planned() -> None:
    lane = make_lane(starts=(99_000,), started=1, started_seq=1, admitted=1, planned=(5_000,), paused_until=FOREVER_MS)
    assert admit(lane, DEFAULT, 7_000, "t2").planned == (7_000,)


@given(any_limits(), st.lists(steps(back_ms=1_000), max_size=60))
def test_planned_starts_are_legal_in_order_and_as_early_as_can_be(limits: Limits, taken: list[Step]) -> None:
    lane, now_ms, planned = make_lane(), 100_000, list[int]()
    for step in taken:
        now_ms += step.milliseconds
        admission = admit(lane, limits, now_ms, f"t{len(planned) + 1}")
        (at,), lane = admission.planned, admission.lane
        assert admission.first_seq == len(planned) + 1
        assert at == max([now_ms, *planned]) or breaks_a_limit(planned, at - 1, limits)
        planned.append(at)
    assert planned == sorted(planned)
    assert_pace_kept(planned, limits)
    assert len(lane.planned) <= memory_needed(limits)


@given(any_limits(), st.lists(steps(), max_size=30), st.integers(1, 100))
def test_submitting_many_plans_the_same_as_one_after_the_other(limits: Limits, taken: list[Step], many: int) -> None:
    lane, now_ms = make_lane(), 100_000
    for step in taken:
        now_ms += step.milliseconds
        lane = admit(lane, limits, now_ms, "before").lane
    bulk, singles, one_by_one = admit(lane, limits, now_ms, "last", many), list[int](), lane
    for number in range(many):
        single = admit(one_by_one, limits, now_ms, "last" if number == many - 1 else f"t{number}")
        singles.extend(single.planned)
        one_by_one = single.lane
    assert bulk.planned == tuple(singles)
    assert bulk.lane == one_by_one
    assert bulk.first_seq == lane.admitted + 1


# --- gap_before


@pytest.mark.parametrize(
    ("started_seq", "seq", "expected"),
    [(0, 1, None), (0, 2, Gap(1, 1)), (3, 4, None), (3, 7, Gap(4, 6)), (3, 3, None), (3, 1, None)],
)
def test_gap_is_what_was_admitted_earlier_and_has_not_started(started_seq: int, seq: int, expected: Gap | None) -> None:
    assert gap_before(make_lane(started_seq=started_seq, admitted=9), seq) == expected


# --- claim


def test_start_is_taken_with_lease_attempt_and_number() -> None:
    start = claimed(make_lane(admitted=1, planned=(5_000,)), make_candidate(planned_at=5_000))
    lease = Lease("t1", 1, 5_000 + LEASE_MS, "mine", (5_000,))
    assert (start.at, start.attempt) == (5_000, 1)
    assert start.lane == make_lane(
        admitted=1, planned=(5_000,), started_seq=1, started=1, starts=(5_000,), running=lease
    )


@pytest.mark.parametrize(
    ("situation", "starts", "planned_at", "now_ms", "expected"),
    [
        ("on time", (), 5_000, 5_000, 5_000),
        ("before its time", (), 6_000, 5_000, 6_000),
        ("long after its time", (), 1_000, 5_000, 5_000),
        ("a late start before it makes it wait, whatever was planned", (4_600,), 4_500, 5_000, 5_600),
        ("catching up after an outage goes at the pace", (5_000, 4_000, 3_000), 1_000, 5_001, 6_000),
        ("20 in the minute, whatever was planned", tuple(range(24_000, 4_000, -1_000)), 20_000, 26_000, 65_000),
        ("the clock stepped back", (9_000,), 5_000, 1_000, 10_000),
    ],
)
def test_claim_allows_the_earliest_start_that_real_starts_allow(
    situation: str, starts: tuple[int, ...], planned_at: int, now_ms: int, expected: int
) -> None:
    lane = make_lane(admitted=99, starts=starts, started=len(starts), started_seq=len(starts))
    assert claimed(lane, make_candidate(len(starts) + 1, planned_at), now_ms).at == expected


def test_lease_runs_from_the_start_also_when_that_lies_ahead() -> None:
    start = claimed(make_lane(), make_candidate(planned_at=7_000), now_ms=5_000)
    assert start.lane.running
    assert start.lane.running.until == 7_000 + LEASE_MS


def test_task_that_runs_elsewhere_waits_for_the_lease_to_end() -> None:
    lane = make_lane(running=make_lease(until=15_000), started=1, starts=(5_000,), started_seq=1)
    assert waits_until(lane, make_candidate(), now_ms=14_999) == 15_000


def test_ended_lease_gives_the_next_attempt_and_remembers_the_starts_before() -> None:
    lane = make_lane(running=make_lease(attempt=2, starts=(5_000, 8_000)), started=2, starts=(8_000, 5_000))
    start = claimed(lane, make_candidate(), now_ms=15_000)
    assert start.attempt == 3
    assert start.lane.running
    assert start.lane.running.starts == (5_000, 8_000, 15_000)


def test_retry_counts_against_the_pace() -> None:
    lane = make_lane(running=make_lease(until=5_100), started=1, starts=(5_000,), started_seq=1)
    assert claimed(lane, make_candidate(), now_ms=5_100).at == 6_000


def test_retry_of_what_was_planned_anew_was_planned_for_no_later_than_its_first_start() -> None:
    replanned = {"replanned_seq": 1, "replanned_at": 5_050}
    lane = make_lane(running=make_lease(until=5_100), started=1, starts=(5_000,), started_seq=1, **replanned)
    start = claimed(lane, make_candidate(planned_at=4_000), now_ms=6_500)
    assert (start.at, start.planned_at) == (6_500, 5_000)


def test_lease_of_the_task_before_holds_nothing_up() -> None:
    lane = make_lane(running=make_lease("t1", until=99_000), started=1, starts=(5_000,), started_seq=1)
    assert claimed(lane, make_candidate(2), now_ms=6_000).attempt == 1


def test_paused_lane_waits_until_the_pause_ends() -> None:
    assert waits_until(make_lane(paused_until=9_000), make_candidate(), now_ms=8_999) == 9_000
    assert claimed(make_lane(paused_until=9_000), make_candidate(), now_ms=9_000).at == 9_000


def test_cancelled_task_takes_no_start_and_is_passed_over() -> None:
    lane = make_lane(cancelled={"t1": 1, "t5": 5}, admitted=5, paused_until=FOREVER_MS, revision=3)
    assert isinstance(claim(lane, make_candidate(), DEFAULT, 5_000, LEASE_MS, "mine"), Cancelled)
    after = without_cancelled(lane, "t1", 1)
    assert (after.started_seq, after.started) == (1, 0)
    assert (after.cancelled, after.revision) == ({"t5": 5}, 4)


def test_task_after_a_hole_moves_the_lane_past_it() -> None:
    assert claimed(make_lane(admitted=3, started_seq=1), make_candidate(3)).lane.started_seq == 3


def test_late_copy_of_an_earlier_task_does_not_move_the_lane_back() -> None:
    assert claimed(make_lane(admitted=3, started_seq=3), make_candidate(2)).lane.started_seq == 3


def test_lane_that_was_deleted_counts_on_from_the_task() -> None:
    assert claimed(make_lane(), make_candidate(17)).lane.admitted == 17


@given(any_limits(), st.lists(st.tuples(steps(), steps(), st.integers(1, 3)), max_size=40))
def test_real_starts_are_legal_whatever_delays_and_retries_do(
    limits: Limits, tasks: list[tuple[Step, Step, int]]
) -> None:
    """Submits come at any time; workers are late by anything, their clocks wrong; some tasks need several starts."""
    lane, submitted_ms, now_ms, starts = make_lane(), 100_000, 100_000, list[int]()
    for seq, (gap, late, attempts) in enumerate(tasks, start=1):
        submitted_ms += gap.milliseconds
        admission = admit(lane, limits, submitted_ms, f"t{seq}")
        lane = admission.lane
        for _ in range(attempts):
            now_ms = max(now_ms, submitted_ms) + late.milliseconds - 100
            if lane.running and lane.running.task_id == f"t{seq}":
                now_ms = max(now_ms, lane.running.until)
            start = claimed(lane, make_candidate(seq, admission.planned[0]), now_ms, limits)
            assert start.at >= admission.planned[0]
            assert start.at >= now_ms
            starts.append(start.at)
            lane = start.lane
    assert starts == sorted(starts)
    assert_pace_kept(starts, limits)


@given(st.lists(st.tuples(any_limits(), steps(), st.integers(0, 5)), max_size=40))
def test_limit_in_force_at_a_claim_holds_for_that_start(claims: list[tuple[Limits, Step, int]]) -> None:
    """Limits change between any two claims, and lists are at times longer than needed, as quick writes leave them."""
    lane, now_ms, starts = make_lane(), 100_000, list[int]()
    for seq, (limits, step, longer) in enumerate(claims, start=1):
        now_ms += step.milliseconds
        start = claimed(lane, make_candidate(seq), now_ms, limits)
        assert not breaks_a_limit(starts, start.at, limits)
        starts.insert(0, start.at)
        lane = replace(start.lane, starts=tuple(starts[: memory_needed(limits) + longer]))


# --- estimated_starts


@given(any_limits(), st.lists(steps(), min_size=1, max_size=40), st.integers(0, 30))
def test_estimates_come_true_when_nothing_else_is_late(limits: Limits, taken: list[Step], done: int) -> None:
    lane, now_ms, planned = make_lane(), 100_000, list[int]()
    for step in taken:
        now_ms += step.milliseconds
        admission = admit(lane, limits, now_ms, "t")
        lane, planned = admission.lane, [*planned, *admission.planned]
    for seq, at in enumerate(planned[:done], start=1):
        lane = claimed(lane, make_candidate(seq, at), at + 70, limits).lane
    waiting, estimates = planned[done:], estimated_starts(lane, limits, now_ms, planned[done:])
    for seq, (at, estimate) in enumerate(zip(waiting, estimates, strict=True), start=done + 1):
        start = claimed(lane, make_candidate(seq, at), now_ms, limits)
        assert start.at == estimate
        lane = start.lane


@pytest.mark.parametrize(("paused_until", "expected"), [(9_000, [9_000, 10_000]), (FOREVER_MS, [5_000, 6_000])])
def test_estimates_begin_when_a_pause_ends_and_now_when_it_has_no_end(paused_until: int, expected: list[int]) -> None:
    lane = make_lane(paused_until=paused_until, admitted=2)
    assert estimated_starts(lane, DEFAULT, 5_000, [3_000, 4_000]) == expected


@given(
    any_limits(),
    st.lists(steps(), min_size=2, max_size=20),
    st.sampled_from((0, 300, 3_000)),
    st.sampled_from((None, 0, 1_500, 40_000)),
    st.data(),
)
def test_estimates_come_true_when_each_task_takes_as_long_as_those_before(
    limits: Limits, taken: list[Step], took_ms: int, backoff_ms: int | None, data: st.DataObject
) -> None:
    """The newest started task has ended, or runs, or waits for its next attempt."""
    lane, now_ms, planned = make_lane(took_ms=took_ms), 100_000, list[int]()
    for step in taken:
        now_ms += step.milliseconds
        admission = admit(lane, limits, now_ms, "t")
        lane, planned = admission.lane, [*planned, *admission.planned]
    done, free_at = data.draw(st.integers(1, len(planned) - 1)), 0
    for seq, at in enumerate(planned[:done], start=1):
        lane = claimed(lane, make_candidate(seq, at), max(at, free_at), limits).lane
        free_at = lane.starts[0] + took_ms
    assert lane.running
    now_ms = max(now_ms, free_at)
    if backoff_ms is not None:
        lane = replace(lane, running=replace(lane.running, phase=Phase.RETRY, until=free_at + backoff_ms))
    elif took_ms > 1_000 and free_at == now_ms:
        now_ms -= data.draw(st.integers(1_000, took_ms - 1_000))
        lane = replace(lane, running=replace(lane.running, phase=Phase.RUNNING))
    estimates = estimated_starts(lane, limits, now_ms, planned[done:], with_run_times=True)
    for seq, estimate in enumerate(estimates, start=done + 1):
        planned_at = planned[seq - 1]
        assert max(planned_at, now_ms + busy_ms(lane, limits, seq, now_ms)) <= estimate
        assert (position_of(lane, limits, seq, planned_at, now_ms) == 0) <= (planned_at <= now_ms)
    if lane.retrying:
        estimated_at = retry_at(lane, limits, now_ms)
        assert plans_from(lane, limits, now_ms) >= estimated_at >= lane.retrying.until
        lane = claimed(lane, make_candidate(done), max(now_ms, lane.retrying.until), limits).lane
        assert lane.starts[0] == estimated_at
        free_at = estimated_at + took_ms
    for seq, estimate in enumerate(estimates, start=done + 1):
        lane = claimed(lane, make_candidate(seq, planned[seq - 1]), max(now_ms, free_at), limits).lane
        assert lane.starts[0] == estimate
        free_at = estimate + took_ms


@given(any_limits(), st.lists(steps(), min_size=2, max_size=20), st.integers(0, 100_000))
def test_tasks_behind_a_cancelled_retry_start_as_soon_as_the_limits_allow(
    limits: Limits, taken: list[Step], backoff_ms: int
) -> None:
    lane, now_ms = make_lane(), 100_000
    lane = claimed(admit(lane, limits, now_ms, "t1").lane, make_candidate(), now_ms, limits).lane
    lane = replace(lane, running=lane.running and replace(lane.running, phase=Phase.RETRY, until=now_ms + backoff_ms))
    for number, step in enumerate(taken, start=2):
        now_ms += step.milliseconds
        lane = admit(lane, limits, now_ms, f"t{number}").lane
    after = without_retrying(lane, lane.running, 1, limits, now_ms)
    assert after.retrying is None
    assert isinstance(claim(after, make_candidate(), limits, now_ms, LEASE_MS, "mine"), Cancelled)
    after, starts = without_cancelled(after, "t1", 1), list[int]()
    for seq in range(2, after.admitted + 1):
        after = claimed(after, make_candidate(seq, planned_at=FOREVER_MS), now_ms, limits).lane
        starts.append(after.starts[0])
    assert starts == estimated_starts(replace(lane, running=None), limits, now_ms, [now_ms] * len(starts))


# --- position in line


def positions(lane: Lane, plans: Sequence[int], now_ms: int = 5_000, limits: Limits = DEFAULT) -> list[int]:
    """Of the lane's newest tasks, planned for these times."""
    first = lane.admitted - len(plans) + 1
    return [position_of(lane, limits, first + index, at, now_ms) for index, at in enumerate(plans)]


def test_what_may_start_now_has_place_0_and_the_others_those_ahead_of_them() -> None:
    assert positions(make_lane(admitted=3), (5_000, 6_000, 7_000)) == [0, 1, 2]


def test_places_do_not_depend_on_how_soon_the_first_task_started() -> None:
    lane = make_lane(admitted=3, started_seq=1, started=1, starts=(4_990,))
    assert positions(lane, (6_000, 7_000)) == [1, 2]


@pytest.mark.parametrize("until", [9_000, FOREVER_MS])
def test_each_task_of_a_paused_lane_has_a_place_of_its_own(until: int) -> None:
    assert positions(make_lane(admitted=3, paused_until=until), (5_000, 6_000, 7_000)) == [1, 2, 3]


def test_first_task_of_a_held_lane_is_number_1() -> None:
    assert positions(make_lane(admitted=2, throttled_until=9_000), (9_000, 10_000)) == [1, 2]


def test_only_tasks_over_the_limit_say_how_long_a_backlog_is_that_should_have_started() -> None:
    assert positions(make_lane(admitted=22), (5_000, 6_000)) == [0, 21]


def test_tasks_that_may_start_together_all_have_place_0() -> None:
    assert positions(make_lane(admitted=4), (5_000, 5_000, 5_000, 6_000), limits=parse_limits("3/second")) == [
        0,
        0,
        0,
        3,
    ]


def test_cancelled_tasks_do_not_count_as_ahead() -> None:
    assert positions(make_lane(admitted=4, cancelled={"t2": 2, "t3": 3}), (8_000,)) == [1]


def running_lane(phase: Phase, until: int = 15_000, **fields: object) -> Lane:
    """Task 1 started at 2,000 ms, and two more were admitted."""
    started = {"admitted": 3, "started_seq": 1, "started": 1, "starts": (2_000,)}
    return make_lane(running=replace(make_lease(until=until), phase=phase), **started, **fields)


def test_running_task_and_one_between_two_attempts_are_ahead() -> None:
    assert positions(running_lane(Phase.RUNNING), (5_000, 5_000)) == [2, 3]
    assert positions(running_lane(Phase.RETRY), (15_000, 16_000)) == [2, 3]


def test_task_whose_next_attempt_is_due_is_ahead_and_keeps_no_one_from_starting() -> None:
    due = running_lane(Phase.RETRY, until=4_000)
    assert positions(due, (5_000, 5_000), limits=parse_limits("9/second")) == [0, 0]
    assert positions(due, (6_000, 7_000)) == [1, 2]
    assert positions(replace(due, took_ms=4_000), (5_000, 5_000), limits=parse_limits("9/second")) == [1, 2]


def test_mark_counts_no_longer_than_the_lease() -> None:
    assert positions(running_lane(Phase.RUNNING, until=5_000), (5_000,)) == [0]


def test_task_that_may_not_be_marked_yet_counts_if_tasks_of_its_user_take_long() -> None:
    unmarked = running_lane(Phase.STARTED)
    assert positions(unmarked, (3_000, 3_000), now_ms=3_000) == [0, 0]
    assert positions(replace(unmarked, took_ms=4_000), (3_000, 3_000), now_ms=3_000) == [2, 3]
    assert positions(replace(unmarked, took_ms=4_000), (3_200, 3_200), now_ms=3_200) == [0, 1]
