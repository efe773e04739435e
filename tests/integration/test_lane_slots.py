"""The contract of lane stores for lanes whose tasks may run beside each other: slots are taken, freed, taken over."""

import pytest
from msgspec.structs import replace

from chalicelib.core.claim import SLOT_KEPT_MS, Candidate, Start, claim, without_cancelled
from chalicelib.core.lane import Lane, Lease, Phase
from chalicelib.core.lane_changes import with_limits, without
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import Stale, Write, Written
from tests.factories import NOW
from tests.integration.ports import Ports

LIMITS = parse_limits("100/second; 2 at once")
ONE = parse_limits("100/second")


def written(write: Write) -> Lane:
    assert isinstance(write, Written)
    return write.lane


def stale(write: Write) -> Lane:
    assert isinstance(write, Stale)
    return write.lane


def decide(lane: Lane, seq: int, now_ms: int = NOW, token: str = "", limits=LIMITS, in_slot: bool = True) -> Start:
    candidate = Candidate(f"t{seq}", seq, 0, in_slot=in_slot)
    decision = claim(lane, candidate, limits, now_ms, 10_000, token or f"token-{seq}")
    assert isinstance(decision, Start), decision
    return decision


def start_exactly(ports: Ports, user: str, seq: int, now_ms: int = NOW, token: str = "", limits=LIMITS) -> Start:
    lane = ports.lanes.get(user)
    start = decide(lane, seq, now_ms, token, limits)
    return replace(start, lane=written(ports.lanes.claim(lane, start)))


def lease_of(start: Start) -> Lease:
    assert start.lease
    return start.lease


@pytest.fixture
def two(ports: Ports, user: str) -> tuple[Start, Start]:
    """Two tasks that run."""
    return start_exactly(ports, user, 1), start_exactly(ports, user, 2)


def test_the_first_slot_is_taken_exactly_and_the_second_one_quickly(ports: Ports, user: str) -> None:
    quick = decide(Lane(user), 1)
    stale(ports.lanes.try_fast_claim(quick, LIMITS))
    first = start_exactly(ports, user, 1)
    second = decide(first.lane, 2, NOW + 10)
    lane = written(ports.lanes.try_fast_claim(second, LIMITS))
    assert lane == ports.lanes.get(user)
    assert lane.slots == {"t1": first.lease, "t2": second.lease}
    assert (lane.running, lane.started_seq, lane.starts) == (None, 2, (NOW + 10, NOW))


def test_no_quick_claim_takes_more_slots_than_there_are(ports: Ports, user: str, two: tuple[Start, Start]) -> None:
    third = decide(replace(two[1].lane, slots={}), 3)
    assert set(stale(ports.lanes.try_fast_claim(third, LIMITS)).slots or {}) == {"t1", "t2"}


def test_no_task_alone_starts_quickly_beside_slots(ports: Ports, user: str, two: tuple[Start, Start]) -> None:
    alone = decide(replace(two[1].lane, slots=None), 3, limits=ONE, in_slot=False)
    stale(ports.lanes.try_fast_claim(alone, ONE))
    for start in two:
        written(ports.lanes.release_slot(user, lease_of(start), 0))
    stale(ports.lanes.try_fast_claim(alone, ONE))
    lane = ports.lanes.get(user)
    alone = decide(lane, 3, limits=ONE, in_slot=False)
    lane = written(ports.lanes.claim(lane, alone))
    assert (lane.slots, lane.running) == (None, alone.lease)
    again = decide(lane, 4, NOW + 10_000, limits=ONE, in_slot=False)
    written(ports.lanes.try_fast_claim(again, ONE))


def test_a_claim_whose_answer_was_lost_is_recognised(ports: Ports, user: str, two: tuple[Start, Start]) -> None:
    assert ports.lanes.release_slot(user, lease_of(two[0]), 0)
    before = ports.lanes.get(user)
    third = decide(before, 3)
    written(ports.lanes.claim(before, third))
    written(ports.lanes.claim(before, third))
    written(ports.lanes.try_fast_claim(third, LIMITS))
    assert ports.lanes.get(user).started == 3


def test_a_slot_is_released_once(ports: Ports, user: str, two: tuple[Start, Start]) -> None:
    lane = written(ports.lanes.release_slot(user, lease_of(two[0]), 400))
    assert (set(lane.slots or {}), lane.took_ms, lane.freed) == ({"t2"}, 400, 1)
    assert stale(ports.lanes.release_slot(user, lease_of(two[0]), 900)) == lane
    start_exactly(ports, user, 3)
    assert set(stale(ports.lanes.release_slot(user, lease_of(two[0]), 0)).slots or {}) == {"t2", "t3"}


def test_a_slot_that_another_worker_took_over_is_not_released(ports: Ports, user: str) -> None:
    first = start_exactly(ports, user, 1)
    second = start_exactly(ports, user, 1, NOW + 10_000, "other")
    assert (second.attempt, lease_of(second).starts) == (2, (NOW, NOW + 10_000))
    stale(ports.lanes.release_slot(user, lease_of(first), 0))
    assert not ports.lanes.renew_lease(user, lease_of(first), NOW + 30_000)
    assert not ports.lanes.release_lease(user, lease_of(first), NOW + 30_000)
    assert ports.lanes.get(user).slots == {"t1": second.lease}


def test_a_renewal_moves_the_end_of_its_own_lease_alone(ports: Ports, user: str, two: tuple[Start, Start]) -> None:
    assert ports.lanes.renew_lease(user, lease_of(two[0]), NOW + 20_000)
    slots = ports.lanes.get(user).slots or {}
    assert slots["t1"] == replace(lease_of(two[0]), until=NOW + 20_000, phase=Phase.RUNNING)
    assert slots["t2"] == two[1].lease


def test_a_claim_that_takes_a_lease_for_over_fails_if_that_was_renewed(
    ports: Ports, user: str, two: tuple[Start, Start]
) -> None:
    seen = ports.lanes.get(user)
    late = decide(seen, 3, NOW + 10_000)
    assert ports.lanes.renew_lease(user, lease_of(two[0]), NOW + 20_000)
    assert stale(ports.lanes.claim(seen, late)).started == 2


def test_a_slot_whose_lease_is_over_is_free(ports: Ports, user: str, two: tuple[Start, Start]) -> None:
    third = start_exactly(ports, user, 3, NOW + 10_000)
    assert set(third.lane.slots or {}) == {"t1", "t2", "t3"}


def test_a_claim_from_an_old_lane_fails(ports: Ports, user: str, two: tuple[Start, Start]) -> None:
    seen = ports.lanes.get(user)
    written(ports.lanes.release_slot(user, lease_of(two[0]), 0))
    start_exactly(ports, user, 3)
    late = decide(replace(seen, slots={}), 3, token="other")
    stale(ports.lanes.claim(seen, late))


def test_a_task_between_two_attempts_uses_no_slot(ports: Ports, user: str, two: tuple[Start, Start]) -> None:
    assert ports.lanes.release_lease(user, lease_of(two[0]), NOW + 60_000)
    lane = ports.lanes.get(user)
    retry = lane.retry_of("t1")
    assert retry == replace(lease_of(two[0]), until=NOW + 60_000, phase=Phase.RETRY, token=lease_of(two[0]).last_token)
    assert (len(lane.in_use(NOW)), lane.freed) == (1, 1)
    start_exactly(ports, user, 3)
    lane = written(ports.lanes.release_slot(user, retry, 0))
    assert set(lane.slots or {}) == {"t2", "t3"}


def test_throttling_frees_the_slot_and_stops_the_lane(ports: Ports, user: str, two: tuple[Start, Start]) -> None:
    assert ports.lanes.throttle(user, lease_of(two[0]), NOW + 5_000, "429")
    lane = ports.lanes.get(user)
    retry = lane.retry_of("t1")
    assert retry
    assert (retry.attempt, retry.until) == (0, NOW + 5_000)
    assert (lane.throttled_until, lane.revision, (lane.slots or {})["t2"]) == (NOW + 5_000, 1, two[1].lease)


def test_units_of_a_task_in_a_slot_are_corrected_once(ports: Ports, user: str) -> None:
    first = start_exactly(ports, user, 1)
    assert ports.lanes.correct_units(first, 40, NOW + 100)
    assert ports.lanes.correct_units(first, 40, NOW + 200)
    lane = ports.lanes.get(user)
    assert ((lane.slots or {})["t1"].used, lane.reported_at) == ((40, NOW + 100), NOW + 100)
    assert lane.real.extras == (NOW + 100, 39)


UNITS = parse_limits("100/second; 50 units/minute; 3 at once")


def test_two_reports_of_one_millisecond_are_two_for_a_claim(ports: Ports, user: str) -> None:
    """The claim was decided on the first."""
    first, second = (start_exactly(ports, user, seq, limits=UNITS) for seq in (1, 2))
    assert ports.lanes.correct_units(first, 20, NOW + 100)
    seen = ports.lanes.get(user)
    assert ports.lanes.correct_units(second, 40, NOW + 100)
    stale(ports.lanes.claim(seen, decide(seen, 3, NOW + 200, limits=UNITS)))


def test_units_beyond_those_claimed_count_from_a_start_that_was_claimed_ahead(ports: Ports, user: str) -> None:
    """Its claim did not know of them."""
    first = start_exactly(ports, user, 1)
    start_exactly(ports, user, 2, NOW + 150)
    assert [ports.lanes.correct_units(first, 40, NOW + 100) for _ in range(2)] == [NOW + 151] * 2
    lane = ports.lanes.get(user)
    assert ((lane.slots or {})["t1"].used, lane.reported_at, lane.reports) == ((40, NOW + 151), NOW + 151, 1)
    assert lane.real.extras == (NOW + 151, 39)


def test_units_that_are_given_back_ask_for_no_order(ports: Ports, user: str) -> None:
    limits = parse_limits("100/second; 50 units/minute; 3 at once")
    lane = ports.lanes.get(user)
    candidate = Candidate("t1", 1, 0, units=40, in_slot=True)
    start = claim(lane, candidate, limits, NOW, 10_000, "token-1")
    assert isinstance(start, Start)
    start = replace(start, lane=written(ports.lanes.claim(lane, start)))
    start_exactly(ports, user, 2, NOW + 150, limits=limits)
    assert ports.lanes.correct_units(start, 5, NOW + 100) == NOW + 100


def test_a_claim_clears_slots_of_tasks_whose_messages_are_surely_lost(
    ports: Ports, user: str, two: tuple[Start, Start]
) -> None:
    assert ports.lanes.release_lease(user, lease_of(two[1]), NOW + 60_000)
    later = NOW + 10_000 + SLOT_KEPT_MS
    third = start_exactly(ports, user, 3, later)
    assert set(third.lane.slots or {}) == {"t2", "t3"}
    assert set(start_exactly(ports, user, 4, later + 60_000).lane.slots or {}) == {"t3", "t4"}
    assert ports.lanes.get(user).slots is not None


def test_a_slot_that_was_renewed_meanwhile_is_not_cleared(ports: Ports, user: str, two: tuple[Start, Start]) -> None:
    seen = ports.lanes.get(user)
    later = NOW + 10_000 + SLOT_KEPT_MS
    assert ports.lanes.renew_lease(user, lease_of(two[0]), later + 5_000)
    stale(ports.lanes.claim(seen, decide(seen, 3, later)))


def test_a_later_attempt_leaves_the_receipt_of_the_next_task(ports: Ports, user: str, two: tuple[Start, Start]) -> None:
    assert ports.lanes.release_lease(user, lease_of(two[0]), NOW + 100)
    written(ports.lanes.save_next_receipt(ports.lanes.get(user), "next"))
    assert start_exactly(ports, user, 1, NOW + 100).lane.next_receipt == "next"


def test_receipts_are_saved_unless_a_slot_was_freed_meanwhile(
    ports: Ports, user: str, two: tuple[Start, Start]
) -> None:
    seen = ports.lanes.get(user)
    assert written(ports.lanes.save_head_receipt(seen, "head")).head_receipt == "head"
    assert written(ports.lanes.save_next_receipt(seen, "next")).next_receipt == "next"
    assert ports.lanes.release_lease(user, lease_of(two[0]), NOW + 60_000)
    stale(ports.lanes.save_head_receipt(seen, "late"))
    stale(ports.lanes.save_next_receipt(seen, "late"))
    lane = ports.lanes.get(user)
    retry = lane.retry_of("t1")
    assert retry
    lane = written(ports.lanes.save_slot_receipt(lane, retry, "own", NOW + 60_000))
    assert (lane.slots or {})["t1"].receipt == "own"
    door = [[lease.task_id for lease in lane.at_the_door(NOW + at)] for at in (59_999, 60_000, 69_999, 70_000)]
    assert door == [[], ["t1"], ["t1"], []]
    third = start_exactly(ports, user, 3)
    assert (third.lane.head_receipt, third.lane.next_receipt) == ("head", "")
    stale(ports.lanes.save_next_receipt(lane, "late"))


def test_a_change_of_the_lane_leaves_its_slots(ports: Ports, user: str, two: tuple[Start, Start]) -> None:
    seen = ports.lanes.get(user)
    assert ports.lanes.renew_lease(user, lease_of(two[0]), NOW + 20_000)
    after = written(ports.lanes.change(seen, with_limits(seen, parse_limits("1/second; 5 at once"), LIMITS, NOW)))
    assert (after.slots or {})["t1"].until == NOW + 20_000
    assert after.limits == parse_limits("1/second; 5 at once")


def test_a_cancelled_task_leaves_its_slot_and_the_lane_stays_closed_to_tasks_alone(
    ports: Ports, user: str, two: tuple[Start, Start]
) -> None:
    assert ports.lanes.release_lease(user, lease_of(two[0]), NOW + 60_000)
    seen = ports.lanes.get(user)
    seen = written(ports.lanes.change(seen, without(seen, {"t1": 1})))
    after = written(ports.lanes.change(seen, without_cancelled(seen, "t1", 1)))
    assert (set(after.slots or {}), after.cancelled) == ({"t2"}, {})
    alone = decide(replace(after, slots=None), 3, NOW + 10, limits=ONE, in_slot=False)
    stale(ports.lanes.try_fast_claim(alone, ONE))


def test_a_task_that_was_the_newest_alone_takes_a_slot_for_its_next_attempt(ports: Ports, user: str) -> None:
    alone = decide(Lane(user), 1, limits=ONE, in_slot=False)
    lane = written(ports.lanes.try_fast_claim(alone, ONE))
    start = decide(lane, 1, NOW + 10_000, "other")
    lane = written(ports.lanes.claim(lane, start))
    assert (start.attempt, lane.running, lane.slots) == (2, None, {"t1": start.lease})


@pytest.mark.parametrize("elapsed", [5_000, 10_000])
def test_a_task_that_runs_alone_uses_a_slot(ports: Ports, user: str, elapsed: int) -> None:
    """The limits were raised while it ran."""
    lane = written(ports.lanes.try_fast_claim(decide(Lane(user), 1, limits=ONE, in_slot=False), ONE))
    second = decide(lane, 2, NOW + 100)
    lane = written(ports.lanes.claim(lane, second))
    assert len(lane.in_use(NOW + 100)) == 2
    third = decide(replace(lane, slots={}, running=None), 3, NOW + elapsed)
    write = ports.lanes.try_fast_claim(third, LIMITS)
    assert isinstance(write, Written) == (elapsed == 10_000)
