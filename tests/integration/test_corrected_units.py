"""Units that a started task really used: counted once, kept with its lease, and known before the next start."""

import pytest

from chalicelib.core.claim import Candidate, Start, claim
from chalicelib.core.lane import Lane
from chalicelib.core.lane_changes import resumed
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import Stale, Write, Written
from tests.factories import NOW
from tests.integration.ports import Ports

LIMITS = parse_limits("100 units/minute")


def decided(lane: Lane, seq: int, units: int, now_ms: int = NOW) -> Start:
    decision = claim(lane, Candidate(f"t{seq}", seq, 0, units=units), LIMITS, now_ms, 10_000, f"token-{seq}-{now_ms}")
    assert isinstance(decision, Start)
    return decision


def started(ports: Ports, user: str, seq: int, units: int, now_ms: int = NOW) -> Start:
    start = decided(ports.lanes.get(user), seq, units, now_ms)
    assert isinstance(ports.lanes.try_fast_claim(start, LIMITS), Written)
    return start


def next_at(ports: Ports, user: str, units: int, now_ms: int) -> int:
    lane = ports.lanes.get(user)
    return decided(lane, lane.started_seq + 1, units, now_ms).at


def claimed_quickly(ports: Ports, user: str, seq: int, units: int, at: int) -> Write:
    """As a worker does that does not know the lane."""
    start = decided(Lane(user, admitted=seq, started_seq=seq - 1), seq, units, at)
    return ports.lanes.try_fast_claim(start, LIMITS)


@pytest.mark.parametrize(("used", "at_once", "too_many"), [(10, 90, 91), (70, 30, 31), (1, 99, 100)])
def test_next_start_sees_what_was_really_used(ports: Ports, user: str, used: int, at_once: int, too_many: int) -> None:
    start = started(ports, user, 1, 60)
    assert ports.lanes.correct_units(start, used, NOW + 500)
    assert next_at(ports, user, at_once, NOW + 600) == NOW + 600
    assert next_at(ports, user, too_many, NOW + 600) >= NOW + 60_000
    assert isinstance(claimed_quickly(ports, user, 2, too_many, NOW + 600), Stale)
    assert isinstance(claimed_quickly(ports, user, 2, at_once, NOW + 600), Written)


def test_report_counts_once_whatever_is_repeated(ports: Ports, user: str) -> None:
    start = started(ports, user, 1, 60)
    assert [ports.lanes.correct_units(start, used, NOW + 500) for used in (20, 20, 90)] == [NOW + 500] * 3
    assert next_at(ports, user, 80, NOW + 600) == NOW + 600
    assert next_at(ports, user, 81, NOW + 600) >= NOW + 60_000


def test_report_of_a_start_that_another_worker_took_over_does_not_count(ports: Ports, user: str) -> None:
    first = started(ports, user, 1, 60)
    lane = ports.lanes.get(user)
    again = decided(lane, 1, 60, NOW + 70_000)
    assert isinstance(ports.lanes.claim(lane, again), Written)
    before = ports.lanes.get(user)
    assert not ports.lanes.correct_units(first, 0, NOW + 70_500)
    assert ports.lanes.get(user) == before


def test_lease_keeps_the_report_of_each_start(ports: Ports, user: str) -> None:
    first = started(ports, user, 1, 60)
    lease = first.lane.running
    assert lease is not None
    assert ports.lanes.correct_units(first, 0, NOW + 500)
    assert ports.lanes.throttle(user, lease, NOW + 2_000, "429")
    lane = ports.lanes.get(user)
    assert lane.running is not None
    assert lane.running.reports == ((0, NOW + 500),)
    second = decided(lane, 1, 60, NOW + 2_000)
    assert isinstance(ports.lanes.claim(lane, second), Written)
    assert ports.lanes.correct_units(second, 45, NOW + 2_500)
    running = ports.lanes.get(user).running
    assert running is not None
    assert running.starts == (NOW, NOW + 2_000)
    assert running.reports == ((0, NOW + 500), (45, NOW + 2_500))


def test_no_start_lies_before_the_report_that_makes_room_for_it(ports: Ports, user: str) -> None:
    """The clock of the worker that reported may be ahead."""
    start = started(ports, user, 1, 60)
    assert ports.lanes.correct_units(start, 10, NOW + 500)
    assert isinstance(claimed_quickly(ports, user, 2, 90, NOW + 499), Stale)
    assert next_at(ports, user, 90, NOW + 499) == NOW + 500
    assert isinstance(claimed_quickly(ports, user, 2, 90, NOW + 500), Written)


def test_resume_that_moves_starts_out_of_the_future_loses_no_report(ports: Ports, user: str) -> None:
    start = started(ports, user, 1, 60, NOW + 90_000)
    seen = ports.lanes.get(user)
    assert ports.lanes.correct_units(start, 95, NOW + 90_100)
    assert isinstance(ports.lanes.change(seen, resumed(seen, LIMITS, NOW)), Stale)
    seen = ports.lanes.get(user)
    assert isinstance(ports.lanes.change(seen, resumed(seen, LIMITS, NOW)), Written)
    assert ports.lanes.correct_units(start, 95, NOW + 90_200)
    assert NOW <= next_at(ports, user, 5, NOW) < NOW + 1_000
    assert NOW + 60_000 <= next_at(ports, user, 6, NOW) < NOW + 62_000


def test_units_given_back_to_an_old_start_beside_others_make_no_room_for_a_quick_claim(ports: Ports, user: str) -> None:
    limits = parse_limits("100 units/minute; 2 at once")

    def beside(lane: Lane, seq: int, units: int, at: int) -> Start:
        task = Candidate(f"t{seq}", seq, 0, units=units, in_slot=True)
        decision = claim(lane, task, limits, at, 200_000, f"token-{seq}")
        assert isinstance(decision, Start)
        return decision

    starts = []
    for seq, units, at in ((1, 60, NOW), (2, 90, NOW + 70_000)):
        lane = ports.lanes.get(user)
        starts.append(beside(lane, seq, units, at))
        assert isinstance(ports.lanes.claim(lane, starts[-1]), Written)
    ports.lanes.correct_units(starts[0], 10, NOW + 70_500)
    assert starts[1].lease
    ports.lanes.release_slot(user, starts[1].lease, 0)
    unknown = Lane(user, admitted=2, started_seq=2, slots={})
    assert isinstance(ports.lanes.try_fast_claim(beside(unknown, 3, 40, NOW + 70_600), limits), Stale)
    assert beside(ports.lanes.get(user), 3, 40, NOW + 70_600).at >= NOW + 130_000
