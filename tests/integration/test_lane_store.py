from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.core.admission import admit
from chalicelib.core.claim import Cancelled, Candidate, SharedStart, Start, claim, without_cancelled
from chalicelib.core.lane import Lane, Lease, Phase, Turn
from chalicelib.core.lane_changes import forgotten, paused, with_group, with_limits, without, without_retrying
from chalicelib.core.limits import fingerprint, memory_needed, parse_limits
from chalicelib.core.ports import Stale, Write, Written
from tests.factories import NOW
from tests.integration.ports import Ports
from tests.windows import assert_pace_kept

LIMITS = parse_limits("1/second; 5/10 seconds")
InThreads = Callable[[int, Callable[[int], Any]], list[Any]]


def reserve(ports: Ports, user: str, task_id: str, now_ms: int = NOW) -> Lane:
    """Admits as a submit does: quickly if that works, else from what the lane is."""
    write = ports.lanes.try_fast_admit(user, LIMITS, now_ms, task_id)
    while isinstance(write, Stale):
        write = ports.lanes.admit(write.lane, admit(write.lane, LIMITS, now_ms, task_id))
    return write.lane


def decide(lane: Lane, seq: int, now_ms: int, token: str = "mine", task_id: str = "") -> Start:
    decision = claim(lane, Candidate(task_id or f"t{seq}", seq, 0), LIMITS, now_ms, 10_000, token)
    assert isinstance(decision, Start)
    return decision


def start_in_turn(ports: Ports, user: str, seq: int, now_ms: int = NOW) -> Lane:
    return written(ports.lanes.try_fast_claim(decide(ports.lanes.get(user), seq, now_ms, f"token-{seq}"), LIMITS))


def written(write: Write) -> Lane:
    assert isinstance(write, Written)
    return write.lane


def stale(write: Write) -> Lane:
    assert isinstance(write, Stale)
    return write.lane


def set_limits(ports: Ports, user: str, text: str) -> Lane:
    lane = ports.lanes.get(user)
    return written(ports.lanes.change(lane, with_limits(lane, parse_limits(text), LIMITS, NOW)))


def pause(ports: Ports, user: str, until: int) -> Lane:
    lane = ports.lanes.get(user)
    return written(ports.lanes.change(lane, paused(lane, until, LIMITS, NOW)))


def cancel(ports: Ports, user: str, *task_ids: str) -> Lane:
    lane = ports.lanes.get(user)
    return written(ports.lanes.change(lane, without(lane, {task_id: int(task_id[1:]) for task_id in task_ids})))


def test_unknown_user_has_the_empty_lane(ports: Ports, user: str) -> None:
    assert ports.lanes.get(user) == Lane(user)


# --- try_fast_admit


def test_first_admission_reserves_now(ports: Ports, user: str) -> None:
    lane = written(ports.lanes.try_fast_admit(user, LIMITS, NOW, "t1"))
    assert lane == Lane(user, admitted=1, planned=(NOW,), newest="t1", planned_under=fingerprint(LIMITS))
    assert ports.lanes.get(user) == lane


def test_admission_a_millisecond_too_early_writes_nothing(ports: Ports, user: str) -> None:
    before = written(ports.lanes.try_fast_admit(user, LIMITS, NOW, "t1"))
    assert stale(ports.lanes.try_fast_admit(user, LIMITS, NOW + 999, "t2")) == before
    assert ports.lanes.get(user) == before


def test_admission_a_window_later_reserves_now(ports: Ports, user: str) -> None:
    ports.lanes.try_fast_admit(user, LIMITS, NOW, "t1")
    assert written(ports.lanes.try_fast_admit(user, LIMITS, NOW + 1_000, "t2")).planned == (NOW + 1_000, NOW)


def test_longer_window_counts_too(ports: Ports, user: str) -> None:
    for second in range(5):
        written(ports.lanes.try_fast_admit(user, LIMITS, NOW + second * 1_000, f"t{second}"))
    assert stale(ports.lanes.try_fast_admit(user, LIMITS, NOW + 9_999, "early")).admitted == 5
    assert written(ports.lanes.try_fast_admit(user, LIMITS, NOW + 10_000, "on time")).admitted == 6


def test_admission_never_lies_before_an_earlier_one(ports: Ports, user: str) -> None:
    loose = parse_limits("100/second")
    ports.lanes.try_fast_admit(user, loose, NOW, "t1")
    assert stale(ports.lanes.try_fast_admit(user, loose, NOW - 1, "t2")).admitted == 1


def test_limits_that_grew_are_not_decided_from_a_list_too_short_to_show_it(ports: Ports, user: str) -> None:
    lane = ports.lanes.get(user)
    written(ports.lanes.admit(lane, admit(lane, parse_limits("1/second"), NOW, "t9", count=9)))
    late = NOW + 60_000
    assert stale(ports.lanes.try_fast_admit(user, parse_limits("9/day"), late, "t10")).admitted == 9


def test_pause_and_limits_of_the_user_s_own_are_left_to_the_exact_way(ports: Ports, user: str) -> None:
    set_limits(ports, user, "1/minute")
    assert stale(ports.lanes.try_fast_admit(user, LIMITS, NOW, "t1")).limits == parse_limits("1/minute")
    pause(ports, f"{user}-2", NOW + 1)
    assert stale(ports.lanes.try_fast_admit(f"{user}-2", LIMITS, NOW, "t1")).paused_until == NOW + 1


def test_list_of_planned_starts_stays_short(ports: Ports, user: str) -> None:
    for number in range(50):
        lane = reserve(ports, user, f"t{number}", NOW + number * 10_000)
        assert len(lane.planned) <= memory_needed(LIMITS) + 25
    assert lane.admitted == 50


def test_repeated_admission_whose_answer_was_lost_is_recognised(ports: Ports, user: str) -> None:
    first = written(ports.lanes.try_fast_admit(user, LIMITS, NOW, "t1"))
    assert written(ports.lanes.try_fast_admit(user, LIMITS, NOW, "t1")) == first
    admission = admit(first, LIMITS, NOW, "t2")
    second = written(ports.lanes.admit(first, admission))
    assert written(ports.lanes.admit(first, admission)) == second
    assert second.admitted == 2


# --- admit


def test_admission_is_refused_when_another_came_between(ports: Ports, user: str) -> None:
    seen = ports.lanes.get(user)
    reserve(ports, user, "t1")
    assert stale(ports.lanes.admit(seen, admit(seen, LIMITS, NOW, "t2"))).admitted == 1


def test_admission_is_refused_when_limits_changed_in_between(ports: Ports, user: str) -> None:
    seen = ports.lanes.get(user)
    set_limits(ports, user, "1/minute")
    assert stale(ports.lanes.admit(seen, admit(seen, LIMITS, NOW, "t1"))).admitted == 0


def test_admission_of_many_takes_one_write(ports: Ports, user: str) -> None:
    seen = reserve(ports, user, "t1")
    lane = written(ports.lanes.admit(seen, admit(seen, LIMITS, NOW, "t4", count=3)))
    assert (lane.admitted, lane.newest) == (4, "t4")
    assert lane.planned == tuple(NOW + second * 1_000 for second in (3, 2, 1, 0))


def test_admission_leaves_claims_alone(ports: Ports, user: str) -> None:
    seen = reserve(ports, user, "t1")
    started = start_in_turn(ports, user, 1)
    lane = written(ports.lanes.admit(seen, admit(seen, LIMITS, NOW, "t2")))
    assert (lane.starts, lane.running, lane.started_seq) == (started.starts, started.running, 1)


# --- try_fast_claim


def test_first_claim_takes_start_lease_and_number(ports: Ports, user: str) -> None:
    reserve(ports, user, "t1")
    start = decide(ports.lanes.get(user), 1, NOW + 5)
    lane = written(ports.lanes.try_fast_claim(start, LIMITS))
    assert (lane.starts, lane.started, lane.started_seq) == ((NOW + 5,), 1, 1)
    assert lane.running == Lease("t1", 1, NOW + 5 + 10_000, "mine", (NOW + 5,))
    assert ports.lanes.get(user) == lane


def test_lease_keeps_the_own_limits_of_each_start(ports: Ports, user: str) -> None:
    reserve(ports, user, "t1")
    first = written(ports.lanes.try_fast_claim(decide(ports.lanes.get(user), 1, NOW), LIMITS))
    changed = written(ports.lanes.change(first, with_limits(first, parse_limits("9/second"), LIMITS, NOW)))
    second = written(ports.lanes.claim(changed, decide(changed, 1, NOW + 20_000)))
    assert second.running
    assert second.running.start_limits == ("", "9/second")
    assert ports.lanes.get(user) == second


def test_claim_of_a_worker_that_knows_nothing_succeeds_when_the_task_is_next(ports: Ports, user: str) -> None:
    for seq in (1, 2, 3):
        reserve(ports, user, f"t{seq}")
    start_in_turn(ports, user, 1)
    guess = decide(Lane(user, admitted=2, started_seq=1), 2, NOW + 1_000)
    assert written(ports.lanes.try_fast_claim(guess, LIMITS)).started_seq == 2


def test_claim_of_a_worker_that_knows_nothing_is_stopped_by_the_real_starts(ports: Ports, user: str) -> None:
    for seq in (1, 2):
        reserve(ports, user, f"t{seq}")
    start_in_turn(ports, user, 1)
    guess = decide(Lane(user, admitted=2, started_seq=1), 2, NOW + 999)
    assert stale(ports.lanes.try_fast_claim(guess, LIMITS)).started == 1


def test_claim_out_of_turn_is_stopped(ports: Ports, user: str) -> None:
    for seq in (1, 2, 3):
        reserve(ports, user, f"t{seq}")
    guess = decide(Lane(user, admitted=3, started_seq=2), 3, NOW)
    assert stale(ports.lanes.try_fast_claim(guess, LIMITS)).started == 0
    start_in_turn(ports, user, 1)
    again = decide(Lane(user, admitted=3, started_seq=0), 1, NOW + 5_000, "another")
    assert stale(ports.lanes.try_fast_claim(again, LIMITS)).started == 1


def test_claim_is_left_to_the_exact_way_when_anything_is_special(ports: Ports, user: str) -> None:
    guess = decide(Lane(user), 1, NOW)
    pause(ports, user, NOW - 1)
    assert stale(ports.lanes.try_fast_claim(guess, LIMITS)).paused_until == NOW - 1
    other, third = f"{user}-2", f"{user}-3"
    cancel(ports, other, "t9")
    assert stale(ports.lanes.try_fast_claim(decide(Lane(other), 1, NOW), LIMITS)).cancelled == {"t9": 9}
    set_limits(ports, third, "1/minute")
    assert stale(ports.lanes.try_fast_claim(decide(Lane(third), 1, NOW), LIMITS)).limits == parse_limits("1/minute")


def test_claim_on_the_user_s_own_limits_needs_them_to_be_the_same(ports: Ports, user: str) -> None:
    set_limits(ports, user, "1/minute")
    lane = ports.lanes.get(user)
    assert lane.limits
    decision = claim(lane, Candidate("t1", 1, 0), lane.limits, NOW, 10_000, "mine")
    assert isinstance(decision, Start)
    set_limits(ports, user, "1/hour")
    assert stale(ports.lanes.try_fast_claim(decision, lane.limits)).started == 0
    set_limits(ports, user, "1/minute")
    assert written(ports.lanes.try_fast_claim(decision, lane.limits)).started == 1


def test_list_of_real_starts_stays_short(ports: Ports, user: str) -> None:
    for seq in range(1, 51):
        lane = ports.lanes.get(user)
        start = decide(lane, seq, NOW + seq * 10_000, f"token-{seq}")
        write = ports.lanes.try_fast_claim(start, LIMITS)
        lane = written(write if isinstance(write, Written) else ports.lanes.claim(write.lane, start))
        assert len(lane.starts) <= memory_needed(LIMITS) + 25
    assert lane.started == 50


def test_repeated_claim_whose_answer_was_lost_is_recognised(ports: Ports, user: str) -> None:
    start = decide(Lane(user), 1, NOW)
    first = written(ports.lanes.try_fast_claim(start, LIMITS))
    assert written(ports.lanes.try_fast_claim(start, LIMITS)) == first
    assert written(ports.lanes.claim(Lane(user), start)) == first
    assert first.started == 1


# --- claim


def test_next_attempt_is_written_when_the_lease_is_as_it_was(ports: Ports, user: str) -> None:
    reserve(ports, user, "t1")
    seen = start_in_turn(ports, user, 1)
    lane = written(ports.lanes.claim(seen, decide(seen, 1, NOW + 20_000)))
    assert lane.running
    assert (lane.running.attempt, lane.running.starts) == (2, (NOW, NOW + 20_000))
    assert (lane.started, lane.started_seq, lane.starts) == (2, 1, (NOW + 20_000, NOW))


def test_task_that_ran_in_place_of_a_later_one_keeps_the_quick_claim_from_its_lease(ports: Ports, user: str) -> None:
    for seq in (1, 2):
        reserve(ports, user, f"t{seq}")
    filling = claim(ports.lanes.get(user), Candidate("t1", 1, 0, out_of_order=True), LIMITS, NOW, 10_000, "mine")
    assert isinstance(filling, Start)
    lane = written(ports.lanes.try_fast_claim(filling, LIMITS))
    assert lane.running is not None
    assert lane.running.filled_seq == 1
    later = decide(lane, 2, NOW + 5_000)
    assert stale(ports.lanes.try_fast_claim(later, LIMITS)) == lane
    lane = written(ports.lanes.claim(lane, later))
    assert lane.running is not None
    assert (lane.running.task_id, lane.running.filled_seq) == ("t2", 0)


def test_next_attempt_is_refused_when_the_lease_was_renewed(ports: Ports, user: str) -> None:
    seen = start_in_turn(ports, user, 1)
    assert seen.running
    assert ports.lanes.renew_lease(user, seen.running, NOW + 40_000)
    assert stale(ports.lanes.claim(seen, decide(seen, 1, NOW + 20_000))).started == 1


def test_claim_is_refused_when_another_start_came_between(ports: Ports, user: str) -> None:
    seen = ports.lanes.get(user)
    start_in_turn(ports, user, 1)
    assert stale(ports.lanes.claim(seen, decide(seen, 2, NOW, "other"))).started == 1


def test_claim_is_refused_when_limits_changed_in_between(ports: Ports, user: str) -> None:
    seen = ports.lanes.get(user)
    set_limits(ports, user, "1/minute")
    assert stale(ports.lanes.claim(seen, decide(seen, 1, NOW))).started == 0


def test_claim_after_a_pause_ends_it(ports: Ports, user: str) -> None:
    pause(ports, user, NOW)
    seen = ports.lanes.get(user)
    assert written(ports.lanes.claim(seen, decide(seen, 1, NOW))).paused_until is None


def test_claim_leaves_admissions_alone(ports: Ports, user: str) -> None:
    seen = reserve(ports, user, "t1")
    reserve(ports, user, "t2")
    lane = written(ports.lanes.claim(seen, decide(seen, 1, NOW)))
    assert (lane.admitted, lane.planned, lane.newest) == (2, (NOW + 1_000, NOW), "t2")


def test_claim_in_a_lane_that_was_deleted_counts_on(ports: Ports, user: str) -> None:
    seen = ports.lanes.get(user)
    lane = written(ports.lanes.claim(seen, decide(seen, 17, NOW)))
    assert (lane.admitted, lane.started_seq) == (17, 17)
    assert reserve(ports, user, "t18", NOW + 30_000).admitted == 18


# --- change


def test_change_writes_all_of_the_lane_but_what_runs(ports: Ports, user: str) -> None:
    for seq in (1, 2, 3):
        reserve(ports, user, f"t{seq}")
    seen = start_in_turn(ports, user, 1)
    changed = without(with_limits(seen, parse_limits("1/5 seconds"), LIMITS, NOW), {"t3": 3})
    changed = paused(changed, NOW + 99_000, LIMITS, NOW)
    assert written(ports.lanes.change(seen, changed)) == changed
    assert ports.lanes.get(user) == changed
    assert (changed.limits, changed.paused_until) == (parse_limits("1/5 seconds"), NOW + 99_000)
    assert (changed.cancelled, changed.running) == ({"t3": 3}, seen.running)


def test_change_can_take_back_what_is_special(ports: Ports, user: str) -> None:
    pause(ports, user, NOW + 5_000)
    set_limits(ports, user, "1/minute")
    seen = cancel(ports, user, "t9")
    plain = replace(seen, limits=None, paused_until=None, cancelled={}, revision=seen.revision + 1)
    assert written(ports.lanes.change(seen, plain)) == plain
    assert ports.lanes.get(user) == plain


@pytest.mark.parametrize("meanwhile", ["admitted", "started", "changed"])
def test_change_is_refused_when_anything_came_between(ports: Ports, user: str, meanwhile: str) -> None:
    seen = reserve(ports, user, "t1")
    if meanwhile == "admitted":
        reserve(ports, user, "t2", NOW + 5_000)
    elif meanwhile == "started":
        start_in_turn(ports, user, 1)
    else:
        cancel(ports, user, "t1")
    now = ports.lanes.get(user)
    assert stale(ports.lanes.change(seen, paused(seen, NOW + 1, LIMITS, NOW))) == now
    assert ports.lanes.get(user) == now


def test_cancelled_task_is_passed_over_once(ports: Ports, user: str) -> None:
    for seq in (1, 2):
        reserve(ports, user, f"t{seq}")
    seen = cancel(ports, user, "t1", "t2")
    assert isinstance(claim(seen, Candidate("t1", 1, 0), LIMITS, NOW, 10_000, "mine"), Cancelled)
    lane = written(ports.lanes.change(seen, without_cancelled(seen, "t1", 1)))
    assert (lane.started_seq, lane.started, lane.starts, lane.cancelled) == (1, 0, (), {"t2": 2})
    assert stale(ports.lanes.change(seen, without_cancelled(seen, "t1", 1))) == lane


def test_last_cancellation_leaves_nothing_special_behind(ports: Ports, user: str) -> None:
    seen = cancel(ports, user, "t1")
    assert isinstance(claim(seen, Candidate("t1", 1, 0), LIMITS, NOW, 10_000, "mine"), Cancelled)
    assert written(ports.lanes.change(seen, without_cancelled(seen, "t1", 1))).cancelled == {}
    assert start_in_turn(ports, user, 2).started_seq == 2


# --- schedule


def test_handle_of_the_hidden_head_is_kept(ports: Ports, user: str) -> None:
    seen = pause(ports, user, NOW + 99_000)
    assert written(ports.lanes.save_head_receipt(seen, "receipt-1")) == replace(seen, head_receipt="receipt-1")
    assert ports.lanes.get(user).head_receipt == "receipt-1"


def test_handle_is_refused_when_the_lane_was_changed(ports: Ports, user: str) -> None:
    seen = pause(ports, user, NOW + 99_000)
    resumed = set_limits(ports, user, "1/minute")
    assert stale(ports.lanes.save_head_receipt(seen, "receipt-1")) == resumed
    assert ports.lanes.get(user).head_receipt == ""


@pytest.mark.parametrize("is_fast", [True, False], ids=["quick", "exact"])
def test_claim_removes_the_handle_of_the_hidden_head(ports: Ports, user: str, is_fast: bool) -> None:
    seen = written(ports.lanes.save_head_receipt(reserve(ports, user, "t1"), "receipt-1"))
    start = decide(seen, 1, NOW)
    write = ports.lanes.try_fast_claim(start, LIMITS) if is_fast else ports.lanes.claim(seen, start)
    assert written(write).head_receipt == ""
    assert ports.lanes.get(user).head_receipt == ""


# --- the lease


def test_lease_is_renewed_by_its_worker_only(ports: Ports, user: str) -> None:
    lease = start_in_turn(ports, user, 1).running
    assert lease
    assert ports.lanes.renew_lease(user, lease, NOW + 40_000)
    assert not ports.lanes.renew_lease(user, replace(lease, token="other"), NOW + 99_000)
    assert not ports.lanes.renew_lease(f"{user}-2", lease, NOW + 99_000)
    running = ports.lanes.get(user).running
    assert running == replace(lease, until=NOW + 40_000, phase=Phase.RUNNING)


def test_released_lease_is_neither_renewed_nor_released_again(ports: Ports, user: str) -> None:
    lease = start_in_turn(ports, user, 1).running
    assert lease
    assert ports.lanes.release_lease(user, lease, NOW + 60_000)
    assert not ports.lanes.renew_lease(user, lease, NOW + 10_000)
    assert not ports.lanes.release_lease(user, lease, NOW + 99_000)
    running = ports.lanes.get(user).running
    assert running
    assert (running.until, running.attempt, running.starts) == (NOW + 60_000, 1, lease.starts)
    again = decide(ports.lanes.get(user), 1, NOW + 60_000, "again")
    assert again.attempt == 2
    written(ports.lanes.claim(ports.lanes.get(user), again))


def test_cancel_request_is_in_each_answer_about_the_lease_and_keeps_its_first_time(ports: Ports, user: str) -> None:
    lease = start_in_turn(ports, user, 1).running
    assert lease
    before = ports.lanes.get(user)
    assert ports.lanes.renew_lease(user, lease, NOW + 30_000) == replace(lease, until=NOW + 30_000, phase=Phase.RUNNING)
    assert ports.lanes.request_cancel(user, lease, NOW + 5_000)
    assert ports.lanes.request_cancel(user, lease, NOW + 6_000)
    renewed = ports.lanes.renew_lease(user, lease, NOW + 40_000)
    assert renewed == replace(lease, until=NOW + 40_000, phase=Phase.RUNNING, cancel_requested_at=NOW + 5_000)
    released = ports.lanes.release_lease(user, lease, NOW + 60_000)
    assert released
    assert (released.cancel_requested_at, released.phase) == (NOW + 5_000, Phase.RETRY)
    assert ports.lanes.get(user).revision > before.revision, "so that no claim decided before it succeeds"


def test_cancel_request_reaches_no_other_lease(ports: Ports, user: str) -> None:
    lease = start_in_turn(ports, user, 1).running
    assert lease
    assert not ports.lanes.request_cancel(user, replace(lease, token="other"), NOW)
    assert not ports.lanes.request_cancel(f"{user}-2", lease, NOW)
    assert ports.lanes.end_lease(user, lease, NOW + 4_000, 3_900)
    assert not ports.lanes.request_cancel(user, lease, NOW)
    running = ports.lanes.get(user).running
    assert running
    assert running.cancel_requested_at == 0


def test_no_next_attempt_is_claimed_of_a_task_that_was_cancelled_while_it_ran(ports: Ports, user: str) -> None:
    lease = start_in_turn(ports, user, 1).running
    assert lease
    assert ports.lanes.renew_lease(user, lease, NOW + 20_000)
    seen = ports.lanes.get(user)
    again = decide(seen, 1, NOW + 20_000, "again")
    assert ports.lanes.request_cancel(user, lease, NOW + 5_000)
    assert isinstance(ports.lanes.claim(seen, again), Stale)


def test_lease_of_a_throttled_lane_is_not_renewed(ports: Ports, user: str) -> None:
    lease = start_in_turn(ports, user, 1).running
    assert lease
    assert ports.lanes.throttle(user, lease, NOW + 1_000, "slow")
    assert not ports.lanes.renew_lease(user, lease, NOW + 10_000)
    running = ports.lanes.get(user).running
    assert running
    assert (running.until, running.attempt) == (NOW + 1_000, 0)


def test_claim_while_a_task_waits_for_its_next_attempt_is_left_to_the_exact_way(ports: Ports, user: str) -> None:
    lease = start_in_turn(ports, user, 1).running
    assert lease
    following = decide(ports.lanes.get(user), 2, NOW + 5_000)
    assert ports.lanes.release_lease(user, lease, NOW + 60_000)
    seen = stale(ports.lanes.try_fast_claim(following, LIMITS))
    assert (seen.started_seq, seen.retrying and seen.retrying.task_id) == (1, "t1")


def test_admission_while_a_task_waits_for_its_next_attempt_is_left_to_the_exact_way(ports: Ports, user: str) -> None:
    lease = start_in_turn(ports, user, 1).running
    assert lease
    later = NOW + 5_000
    assert ports.lanes.release_lease(user, lease, NOW + 60_000)
    seen = stale(ports.lanes.try_fast_admit(user, LIMITS, later, "t2"))
    assert (seen.retrying and seen.retrying.until) == NOW + 60_000
    assert written(ports.lanes.admit(seen, admit(seen, LIMITS, later, "t2"))).planned[0] == NOW + 61_000


def test_admission_decided_before_a_task_failed_is_decided_again(ports: Ports, user: str) -> None:
    seen = start_in_turn(ports, user, 1)
    assert seen.running
    assert ports.lanes.release_lease(user, seen.running, NOW + 60_000)
    failed = stale(ports.lanes.admit(seen, admit(seen, LIMITS, NOW + 100, "t2")))
    assert (failed.retrying and failed.retrying.task_id) == "t1"


def test_start_of_a_second_attempt_counts_for_the_next_admission(ports: Ports, user: str) -> None:
    reserve(ports, user, "t1")
    seen = start_in_turn(ports, user, 1)
    assert seen.running
    ports.lanes.release_lease(user, seen.running, NOW + 6_000)
    seen = ports.lanes.get(user)
    lane = written(ports.lanes.claim(seen, decide(seen, 1, NOW + 6_000, "again")))
    assert (lane.retries, lane.counted) == ((NOW + 6_000,), (NOW + 6_000, NOW))
    seen = stale(ports.lanes.try_fast_admit(user, LIMITS, NOW + 6_900, "t2"))
    assert written(ports.lanes.admit(seen, admit(seen, LIMITS, NOW + 6_900, "t2"))).planned == (NOW + 7_000, NOW)
    assert isinstance(ports.lanes.try_fast_admit(user, LIMITS, NOW + 15_999, "t3"), Stale)
    assert isinstance(ports.lanes.try_fast_admit(user, LIMITS, NOW + 17_000, "t3"), Written)
    seen = set_limits(ports, user, "1/minute")
    assert (seen.retries, ports.lanes.get(user).retries) == ((), ())


def test_admission_while_a_task_runs_shows_that_it_runs_or_is_refused(ports: Ports, user: str) -> None:
    reserve(ports, user, "t1")
    lease = start_in_turn(ports, user, 1).running
    assert lease
    assert ports.lanes.renew_lease(user, lease, NOW + 15_000)
    later = NOW + 5_000
    for write in (
        stale(ports.lanes.try_fast_admit(user, LIMITS, later, "t2", True)),
        written(ports.lanes.try_fast_admit(user, LIMITS, later, "t2")),
    ):
        assert write.running
        assert (write.running.phase, write.running.until) == (Phase.RUNNING, NOW + 15_000)


@pytest.mark.parametrize(("took_ms", "is_free"), [(5, True), (400, False)])
def test_lane_is_free_of_long_tasks_only_when_none_waits_and_none_may_run(
    ports: Ports, user: str, took_ms: int, is_free: bool
) -> None:
    reserve(ports, user, "t1")
    start = decide(Lane(user), 1, NOW)
    ports.lanes.try_fast_claim(replace(start, lane=replace(start.lane, took_ms=took_ms)), LIMITS)
    only_if_free = partial(ports.lanes.try_fast_admit, user, LIMITS, only_if_free=True)
    assert isinstance(only_if_free(NOW + 1_199, "t2"), Written) == is_free
    assert isinstance(only_if_free(NOW + 2_500, "t3"), Written)
    assert isinstance(only_if_free(NOW + 9_000, "t4"), Written) == is_free


def test_claims_store_the_average_run_time_that_is_known(ports: Ports, user: str) -> None:
    start = decide(Lane(user), 1, NOW)
    lane = written(ports.lanes.try_fast_claim(replace(start, lane=replace(start.lane, took_ms=250)), LIMITS))
    assert lane.took_ms == 250
    assert start_in_turn(ports, user, 2, NOW + 5_000).took_ms == 250
    seen = ports.lanes.get(user)
    exact = decide(replace(seen, took_ms=300), 3, NOW + 9_000)
    assert written(ports.lanes.claim(seen, exact)).took_ms == 300
    assert ports.lanes.get(user).took_ms == 300


def test_ended_lease_is_not_renewed_and_no_task_runs_any_more(ports: Ports, user: str) -> None:
    lease = start_in_turn(ports, user, 1).running
    assert lease
    assert ports.lanes.renew_lease(user, lease, NOW + 11_000)
    assert ports.lanes.end_lease(user, lease, NOW + 4_000, 3_900)
    assert not ports.lanes.renew_lease(user, lease, NOW + 14_000)
    assert not ports.lanes.end_lease(user, lease, NOW + 5_000, 1)
    lane = ports.lanes.get(user)
    assert lane.running
    assert (lane.running.phase, lane.running.until, lane.took_ms) == (Phase.STARTED, NOW + 4_000, 3_900)


def test_task_between_two_attempts_is_cancelled_with_its_lease(ports: Ports, user: str) -> None:
    for seq in (1, 2):
        reserve(ports, user, f"t{seq}")
    lease = start_in_turn(ports, user, 1).running
    assert lease
    ports.lanes.release_lease(user, lease, NOW + 60_000)
    seen = ports.lanes.get(user)
    changed = without_retrying(seen, seen.running, 1, LIMITS, NOW + 2_000)
    lane = written(ports.lanes.change(seen, changed))
    assert lane == changed == ports.lanes.get(user)
    assert (lane.retrying, lane.cancelled, lane.planned[0]) == (None, {"t1": 1}, NOW + 2_000)


# --- at the same time


def test_forty_submits_at_once_get_forty_numbers_and_legal_planned_starts(
    atomic_ports: Ports, user: str, in_threads: InThreads
) -> None:
    lanes = in_threads(40, lambda number: reserve(atomic_ports, user, f"t{number}"))
    assert sorted(lane.admitted for lane in lanes) == list(range(1, 41))
    planned = [lane.planned[0] for lane in sorted(lanes, key=lambda lane: lane.admitted)]
    assert planned == sorted(planned)
    assert len(set(planned)) == 40
    assert_pace_kept(planned, LIMITS)


def test_twenty_quick_admissions_at_once_have_one_winner(atomic_ports: Ports, user: str, in_threads: InThreads) -> None:
    writes = in_threads(20, lambda number: atomic_ports.lanes.try_fast_admit(user, LIMITS, NOW, f"t{number}"))
    assert sum(isinstance(write, Written) for write in writes) == 1
    assert atomic_ports.lanes.get(user).admitted == 1


def test_twenty_workers_at_once_take_one_start(atomic_ports: Ports, user: str, in_threads: InThreads) -> None:
    reserve(atomic_ports, user, "t1")
    seen = atomic_ports.lanes.get(user)
    writes = in_threads(
        20, lambda number: atomic_ports.lanes.try_fast_claim(decide(seen, 1, NOW, f"token-{number}"), LIMITS)
    )
    assert sum(isinstance(write, Written) for write in writes) == 1
    assert atomic_ports.lanes.get(user).started == 1


def test_twenty_workers_at_once_take_one_next_attempt(atomic_ports: Ports, user: str, in_threads: InThreads) -> None:
    seen = start_in_turn(atomic_ports, user, 1)
    writes = in_threads(
        20, lambda number: atomic_ports.lanes.claim(seen, decide(seen, 1, NOW + 20_000, f"again-{number}"))
    )
    assert sum(isinstance(write, Written) for write in writes) == 1
    assert atomic_ports.lanes.get(user).started == 2


# --- group


def join(ports: Ports, user: str, group: str) -> Lane:
    lane = ports.lanes.get(user)
    return written(ports.lanes.change(lane, with_group(lane, group)))


def test_group_stays_through_quick_and_exact_writes_until_its_user_is_forgotten(ports: Ports, user: str) -> None:
    assert join(ports, user, "acme").group == "acme"
    reserve(ports, user, "t1")
    assert start_in_turn(ports, user, 1).group == "acme"
    assert reserve(ports, user, "t2", NOW + 1_500).group == "acme"
    lane = ports.lanes.get(user)
    assert written(ports.lanes.claim(lane, decide(lane, 2, NOW + 2_000))).group == "acme"
    lane = ports.lanes.get(user)
    assert written(ports.lanes.forget(lane, forgotten(lane, LIMITS, NOW), 2_000_000_000)).group == ""


def test_new_group_takes_the_turn_of_the_old_one_and_refuses_one_asked_before(ports: Ports, user: str) -> None:
    seen = join(ports, user, "acme")
    turn = Turn("stripe", 3, seen.revision, "acme")
    lane = written(ports.lanes.save_turn(seen, turn))
    assert (lane.turn, lane.turn_in_group("stripe"), lane.turn_for("stripe")) == (turn, 3, 0)
    changed = join(ports, user, "other")
    assert (changed.group, changed.turn) == ("other", None)
    assert stale(ports.lanes.save_turn(lane, turn)).turn is None
    assert join(ports, user, "").turn_in_group("stripe") == 0


@pytest.mark.parametrize("first", [None, 1])
def test_turn_is_refused_if_the_lane_got_another_one_since_it_was_read(
    ports: Ports, user: str, first: int | None
) -> None:
    reserve(ports, user, "t1")
    seen = ports.lanes.get(user)
    if first:
        seen = written(ports.lanes.save_turn(seen, Turn("stripe", first, seen.revision)))
    turn = Turn("stripe", 2, seen.revision)
    assert written(ports.lanes.save_turn(seen, turn)).turn == turn
    assert written(ports.lanes.save_turn(seen, turn)).turn == turn  # the repeat of a call whose answer was lost
    assert stale(ports.lanes.save_turn(seen, Turn("stripe", 3, seen.revision))).turn == turn


def test_turn_that_was_used_is_not_stored_again_by_the_repeat_of_a_call(ports: Ports, user: str) -> None:
    reserve(ports, user, "t1")
    seen = ports.lanes.get(user)
    turn = Turn("stripe", 1, seen.revision)
    lane = written(ports.lanes.save_turn(seen, turn))
    start = claim(lane, Candidate("t1", 1, 0, shared=SharedStart("stripe", NOW)), LIMITS, NOW, 10_000, "mine")
    assert isinstance(start, Start)
    assert written(ports.lanes.claim(lane, start)).turn is None
    assert stale(ports.lanes.save_turn(seen, turn)).turn is None
