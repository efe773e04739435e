"""Lanes with large limits and units: each adapter does what the one in memory does, and what the limits say."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.core.admission import admit
from chalicelib.core.claim import Candidate, Start, claim
from chalicelib.core.lane import Lane
from chalicelib.core.lane_changes import resumed, up_to_date, with_limits
from chalicelib.core.limits import Limits, parse_limits
from chalicelib.core.ports import LaneStore, Stale, Write, Written
from tests.factories import NOW
from tests.integration.ports import Ports
from tests.memory.stores import MemoryLaneStore

UNITS = parse_limits("50 units/minute")
LARGE = parse_limits("200/minute; 90 units/minute; 5/second")
InThreads = Callable[[int, Callable[[int], Any]], list[Any]]


def guess(user: str, seq: int, now_ms: int, limits: Limits, units: int = 1) -> Start:
    """The claim of a worker that knows nothing of the lane."""
    lane = Lane(user, admitted=seq, started_seq=seq - 1)
    decision = claim(lane, Candidate(f"t{seq}", seq, 0, units=units), limits, now_ms, 10_000, f"token-{seq}")
    assert isinstance(decision, Start)
    return decision


def exact(lanes: LaneStore, user: str, seq: int, now_ms: int, limits: Limits, units: int = 1) -> Start:
    lane = lanes.get(user)
    decision = claim(lane, Candidate(f"t{seq}", seq, 0, units=units), limits, now_ms, 10_000, f"token-{seq}")
    assert isinstance(decision, Start)
    assert isinstance(lanes.claim(lane, decision), Written)
    return decision


@dataclass
class Twins:
    """The same calls on the adapter and in memory; their lanes have to be the same after each."""

    user: str
    lanes: LaneStore
    memory: MemoryLaneStore

    def both(self, call: Callable[[LaneStore], Any]) -> Any:
        mine, other = call(self.lanes), call(self.memory)
        assert type(mine) is type(other)
        assert self.lanes.get(self.user) == self.memory.get(self.user)
        return mine

    def submit(self, task_id: str, limits: Limits, now_ms: int, units: int) -> None:
        write: Write = self.both(lambda lanes: lanes.try_fast_admit(self.user, limits, now_ms, task_id, False, units))
        if isinstance(write, Stale):
            lane = up_to_date(write.lane, limits, now_ms)
            admission = admit(lane, limits, now_ms, task_id, 1, [units])
            assert isinstance(self.both(lambda lanes: lanes.admit(write.lane, admission)), Written)

    def start(self, seq: int, limits: Limits, now_ms: int, units: int) -> Start:
        start = guess(self.user, seq, now_ms, limits, units)
        write: Write = self.both(lambda lanes: lanes.try_fast_claim(start, limits))
        if isinstance(write, Stale):
            candidate = Candidate(f"t{seq}", seq, 0, units=units)
            decision = claim(write.lane, candidate, limits, now_ms, 10_000, f"token-{seq}")
            assert isinstance(decision, Start)
            start = decision
            assert isinstance(self.both(lambda lanes: lanes.claim(write.lane, start)), Written)
        return start


@pytest.mark.parametrize("seed", range(3))
def test_lanes_are_the_same_as_in_memory_after_each_write(ports: Ports, user: str, seed: int) -> None:
    random, twins = Random(seed), Twins(user, ports.lanes, MemoryLaneStore())
    limits, now_ms = LARGE, NOW
    for seq in range(1, 61):
        units = random.choice((1, 1, 2, 7))
        now_ms += random.choice((0, 30, 200, 900))
        twins.submit(f"t{seq}", limits, now_ms, units)
        start = twins.start(seq, limits, now_ms, units)
        now_ms = max(now_ms, start.at)
        if random.random() < 0.3:
            used, at = random.choice((units + 3, max(0, units - 1))), now_ms
            assert twins.both(lambda lanes, start=start, used=used, at=at: lanes.correct_units(start, used, at))
        if random.random() < 0.1:
            limits = random.choice((LARGE, UNITS, parse_limits("5/second; 40/minute"), parse_limits("400/hour")))
        if random.random() < 0.1:
            lane = twins.lanes.get(user)
            changed = resumed(with_limits(lane, None, limits, now_ms), limits, now_ms)
            assert isinstance(twins.both(lambda lanes, seen=lane, to=changed: lanes.change(seen, to)), Written)


def test_quick_claim_takes_the_room_that_is_left_and_no_more(ports: Ports, user: str) -> None:
    for seq, units in ((1, 20), (2, 29)):
        assert isinstance(ports.lanes.try_fast_claim(guess(user, seq, NOW + seq, UNITS, units), UNITS), Written)
    assert ports.lanes.get(user).real.unit_room == 1
    assert isinstance(ports.lanes.try_fast_claim(guess(user, 3, NOW + 3, UNITS, 2), UNITS), Stale)
    assert isinstance(ports.lanes.try_fast_claim(guess(user, 3, NOW + 3, UNITS, 1), UNITS), Written)


def test_quick_claim_under_other_limits_than_the_room_is_left_to_the_exact_way(ports: Ports, user: str) -> None:
    ports.lanes.try_fast_claim(guess(user, 1, NOW, UNITS, 20), UNITS)
    lower = parse_limits("21 units/minute")
    assert isinstance(ports.lanes.try_fast_claim(guess(user, 2, NOW, lower, 5), lower), Stale)
    assert exact(ports.lanes, user, 2, NOW, lower, 5).at >= NOW + 60_000


def test_quick_claim_after_one_under_small_limits_is_left_to_the_exact_way(ports: Ports, user: str) -> None:
    """That one did not lower the room."""
    small = parse_limits("9/second")
    assert isinstance(ports.lanes.try_fast_claim(guess(user, 1, NOW, UNITS, 20), UNITS), Written)
    assert isinstance(ports.lanes.try_fast_claim(guess(user, 2, NOW, small, 30), small), Written)
    assert isinstance(ports.lanes.try_fast_claim(guess(user, 3, NOW, UNITS, 1), UNITS), Stale)
    assert exact(ports.lanes, user, 3, NOW, UNITS, 1).at >= NOW + 60_000


def test_quick_admission_takes_room_until_the_exact_one_has_to_plan(ports: Ports, user: str) -> None:
    assert isinstance(ports.lanes.try_fast_admit(user, UNITS, NOW, "t1", False, 30), Written)
    assert isinstance(ports.lanes.try_fast_admit(user, UNITS, NOW, "t2", False, 21), Stale)
    assert isinstance(ports.lanes.try_fast_admit(user, UNITS, NOW, "t2", False, 20), Written)
    seen = ports.lanes.get(user)
    admission = admit(seen, UNITS, NOW, "t3", 1, [5])
    assert NOW + 60_000 <= admission.planned[0] <= NOW + 60_600
    assert isinstance(ports.lanes.admit(seen, admission), Written)
    assert ports.lanes.get(user) == admission.lane


def test_units_are_corrected_once_for_each_lease(ports: Ports, user: str) -> None:
    start = guess(user, 1, NOW, UNITS, 20)
    ports.lanes.try_fast_claim(start, UNITS)
    assert [ports.lanes.correct_units(start, 8, NOW + 900) for _ in range(3)] == [NOW + 900] * 3
    lane = ports.lanes.get(user)
    assert (lane.real.unit_room, lane.real.extras, lane.real.extra_units) == (42, (NOW, -12, NOW, 19), 7)
    assert lane.running
    assert lane.running.is_corrected


def test_units_beyond_those_claimed_count_from_their_report_on(ports: Ports, user: str) -> None:
    start = guess(user, 1, NOW, UNITS, 20)
    ports.lanes.try_fast_claim(start, UNITS)
    assert ports.lanes.correct_units(start, 60, NOW + 30_000)
    assert ports.lanes.get(user).real.unit_room == -10
    assert isinstance(ports.lanes.try_fast_claim(guess(user, 2, NOW + 30_001, UNITS), UNITS), Stale)
    assert exact(ports.lanes, user, 2, NOW + 30_001, UNITS, 11).at >= NOW + 90_000


def test_units_are_not_corrected_by_a_worker_that_lost_the_lease(ports: Ports, user: str) -> None:
    first = guess(user, 1, NOW, UNITS, 20)
    ports.lanes.try_fast_claim(first, UNITS)
    exact(ports.lanes, user, 1, NOW + 20_000, UNITS, 20)
    before = ports.lanes.get(user)
    stolen = replace(first, lane=replace(first.lane, running=replace(before.running, token="other")))
    assert not ports.lanes.correct_units(stolen, 1, NOW + 20_001)
    assert ports.lanes.get(user) == before


def test_exact_claim_does_not_overwrite_a_correction_that_came_between(ports: Ports, user: str) -> None:
    start = guess(user, 1, NOW, UNITS, 20)
    ports.lanes.try_fast_claim(start, UNITS)
    seen = ports.lanes.get(user)
    assert ports.lanes.correct_units(start, 45, NOW + 1)
    late = claim(seen, Candidate("t2", 2, 0, units=9), UNITS, NOW + 2, 10_000, "late")
    assert isinstance(late, Start)
    assert isinstance(ports.lanes.claim(seen, late), Stale)


def test_change_keeps_a_correction_that_came_between(ports: Ports, user: str) -> None:
    start = guess(user, 1, NOW, UNITS, 20)
    ports.lanes.try_fast_claim(start, UNITS)
    seen = ports.lanes.get(user)
    assert ports.lanes.correct_units(start, 45, NOW + 1)
    assert isinstance(ports.lanes.change(seen, resumed(seen, UNITS, NOW + 2)), Written)
    lane = ports.lanes.get(user)
    assert (lane.real.unit_room, lane.real.extras, lane.real.extra_units) == (5, (NOW + 1, 25, NOW, 19), 44)


def test_twenty_workers_at_once_take_no_more_than_the_room(
    atomic_ports: Ports, user: str, in_threads: InThreads
) -> None:
    """Submits of one user take the room at once; each gets a planned start within the limit."""
    writes = in_threads(20, lambda number: atomic_ports.lanes.try_fast_admit(user, UNITS, NOW, f"t{number}", False, 6))
    assert sum(isinstance(write, Written) for write in writes) == 8
    assert atomic_ports.lanes.get(user).plans.unit_room == 2
