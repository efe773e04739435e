"""Limits of thousands and of units, by the claims that a store makes: quick ones, and exact ones where these refuse."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.core.admission import admit, reserved
from chalicelib.core.claim import Candidate, Start, TooLarge, Wait, claim
from chalicelib.core.estimates import estimated_start, open_at
from chalicelib.core.history import tallies_of
from chalicelib.core.lane import Lane
from chalicelib.core.lane_changes import replanned, up_to_date
from chalicelib.core.limits import Limit, Limits, parse_limits
from chalicelib.core.planner import Planner
from chalicelib.core.ports import Stale, Written
from chalicelib.core.tally import Tally, bucket_ms
from tests.factories import NOW
from tests.memory.stores import MemoryLaneStore
from tests.strategies import Step, any_large_limits, steps


@dataclass
class Shop:
    """One user's lane, and all its starts as they are known: time and units."""

    limits: Limits
    now_ms: int = NOW
    lanes: MemoryLaneStore = field(default_factory=MemoryLaneStore)
    #: a start's time and units, and units that were used beyond those
    entries: list[list[int]] = field(default_factory=list)
    quick: int = 0
    exact: int = 0
    seq: int = 0

    @property
    def lane(self) -> Lane:
        return self.lanes.get("ann")

    def submit(self, units: int = 1) -> int:
        """Admits one task as a submit does; its planned start."""
        self.seq += 1
        write = self.lanes.try_fast_admit("ann", self.limits, self.now_ms, f"t{self.seq}", False, units)
        while isinstance(write, Stale):
            limits = write.lane.limits_or(self.limits)
            lane = up_to_date(write.lane, limits, self.now_ms)
            write = self.lanes.admit(write.lane, admit(lane, limits, self.now_ms, f"t{self.seq}", 1, [units]))
        return write.lane.planned[0]

    def start(self, seq: int, units: int = 1, planned_at: int = 0) -> Start | None:
        """Starts the task as a worker does that sleeps until the lane allows it; None if it has too many units."""
        lane, is_quick = Lane("ann", admitted=seq, started_seq=seq - 1), True  # of a worker that knows nothing
        while True:
            limits = lane.limits_or(self.limits)
            candidate = Candidate(f"t{seq}", seq, planned_at, units=units)
            decision = claim(lane, candidate, limits, self.now_ms, 1, f"token-{len(self.entries)}")
            if isinstance(decision, TooLarge):
                return None
            if isinstance(decision, Wait):
                self.now_ms = decision.until
                continue
            assert isinstance(decision, Start)
            write = self.lanes.try_fast_claim(decision, limits) if is_quick else self.lanes.claim(lane, decision)
            if isinstance(write, Written):
                self.quick, self.exact = self.quick + is_quick, self.exact + (not is_quick)
                self.now_ms = max(self.now_ms, decision.at)
                self.entries.append([decision.at, units])
                return decision
            lane, is_quick = write.lane, False

    def correct(self, start: Start, used_units: int, now_ms: int) -> None:
        assert self.lanes.correct_units(start, used_units, now_ms)
        if used_units > start.units:
            self.entries.append([now_ms, used_units - start.units])
            self.entries[-1].append(0)  # no start of its own
        else:
            self.entries[-1][1] = used_units

    def counts(self, limit: Limit, at: int) -> int:
        """What counts at that time by the definition of a window, those later included."""
        found = [entry for entry in self.entries if entry[0] > at - limit.window_ms]
        return sum(entry[1] for entry in found) if limit.counts_units else sum(len(entry) == 2 for entry in found)


@given(any_large_limits(), st.lists(st.tuples(steps(), st.integers(1, 9)), max_size=60))
def test_no_window_holds_more_starts_or_units_than_its_quota(limits: Limits, taken: list[tuple[Step, int]]) -> None:
    shop = Shop(limits)
    for seq, (step, units) in enumerate(taken, start=1):
        shop.now_ms += step.milliseconds
        if start := shop.start(seq, units):
            for limit in limits:
                assert shop.counts(limit, start.at) <= limit.quota


@given(
    st.lists(
        st.tuples(any_large_limits(), st.booleans(), steps(400), st.integers(1, 9), st.integers(0, 27) | st.none()),
        max_size=60,
    )
)
def test_limits_that_change_at_any_time_and_corrections_hold_for_each_start(
    tasks: list[tuple[Limits, bool, Step, int, int | None]],
) -> None:
    """Units are reported up to three times too low or too high; limits change, and clocks differ, at any time."""
    shop = Shop(parse_limits("3/second; 9 units/2 seconds"))
    for seq, (limits, changes, step, units, used) in enumerate(tasks, start=1):
        shop.limits = limits if changes else shop.limits
        shop.now_ms += step.milliseconds
        start = shop.start(seq, units)
        if start is None:
            continue
        for limit in shop.limits:
            assert shop.counts(limit, start.at) <= limit.quota, limit
        if used is not None and used != units:
            shop.now_ms = max(shop.now_ms, start.at) + 40
            shop.correct(start, used, shop.now_ms)


def test_limits_that_are_taken_back_count_the_starts_under_those_between() -> None:
    shop = Shop(parse_limits("3 units/second"))
    shop.start(1)
    shop.limits = parse_limits("9/second")
    shop.start(2)
    shop.start(3)
    shop.limits = parse_limits("3 units/second")
    start = shop.start(4)
    assert start
    assert start.at >= NOW + 1_000


@given(
    st.lists(
        st.tuples(any_large_limits(), st.integers(1, 30), st.sampled_from((0, 40, 300, 1_100)), st.integers(1, 9)),
        min_size=2,
        max_size=5,
    )
)
def test_starts_that_the_lane_has_forgotten_count_under_limits_that_grow(
    phases: list[tuple[Limits, int, int, int]],
) -> None:
    shop, seq = Shop(parse_limits("1/second")), 0
    for limits, starts, gap_ms, units in phases:
        shop.limits = limits
        for _ in range(starts):
            seq, shop.now_ms = seq + 1, shop.now_ms + gap_ms
            if start := shop.start(seq, units):
                for limit in limits:
                    assert shop.counts(limit, start.at) <= limit.quota, limit


@given(
    st.lists(
        st.tuples(any_large_limits(), st.integers(1, 30), st.sampled_from((0, 40, 300, 1_100)), st.integers(1, 9)),
        max_size=3,
    ),
    any_large_limits(),
)
def test_tally_of_new_limits_counts_each_start_no_earlier_than_it_was(
    phases: list[tuple[Limits, int, int, int]], limits: Limits
) -> None:
    shop, seq = Shop(parse_limits("20/second")), 30
    for number in range(1, seq + 1):
        shop.start(number, 3)
    for shop.limits, starts, gap_ms, units in phases:
        for _ in range(starts):
            seq, shop.now_ms = seq + 1, shop.now_ms + gap_ms
            shop.start(seq, units)
    lane = shop.lane
    for limit, tally in tallies_of(lane.real, lane.starts, lane.started, limits).items():
        for since in {entry[0] for entry in shop.entries if entry[0] > lane.starts[0] - limit.window_ms}:
            found = sum(count for number, count in tally.buckets.items() if number * bucket_ms(limit) >= since)
            assert found >= shop.counts(limit, since - 1 + limit.window_ms), limit


@pytest.mark.parametrize(
    ("before", "gap_ms", "after"),
    [
        ("10/second", 100, "100/minute"),
        ("200/10 seconds", 50, "300/minute"),
        ("200/10 seconds", 50, "900 units/minute"),
        ("600 units/10 seconds", 50, "900 units/minute"),
        ("2/second", 500, "200 units/minute"),
        ("500/minute", 50, "20/2 seconds; 60/minute"),
        ("10000/day", 50, "500/minute"),
    ],
)
def test_limits_that_change_hold_at_once_and_soon_for_no_longer(before: str, gap_ms: int, after: str) -> None:
    shop = Shop(parse_limits(before))
    for seq in range(1, 401):
        shop.now_ms += gap_ms
        shop.start(seq, 3)
    shop.limits, changed_ms = parse_limits(after), shop.now_ms
    for seq in range(401, 1_201):
        start = shop.start(seq, 3)
        assert start
        for limit in shop.limits:
            assert shop.counts(limit, start.at) <= limit.quota, limit
    rate = min(limit.quota / limit.taken_by(3) / limit.window_ms for limit in shop.limits)
    slowest_ms = 800 / rate / 0.99 + max(limit.window_ms for limit in shop.limits)
    assert shop.now_ms - changed_ms <= slowest_ms


@given(any_large_limits(), st.lists(st.tuples(steps(), st.integers(1, 9)), max_size=60))
def test_no_start_counts_for_longer_than_a_hundredth_more_than_its_window(
    limits: Limits, taken: list[tuple[Step, int]]
) -> None:
    shop = Shop(limits)
    for seq, (step, units) in enumerate(taken, start=1):
        shop.now_ms += step.milliseconds
        asked_ms, before = max([shop.now_ms, *(entry[0] for entry in shop.entries)]), list(shop.entries)
        if (start := shop.start(seq, units)) and start.at > asked_ms:
            assert any(_is_full(before, limit, start.at - 1, units) for limit in limits)


def _is_full(entries: list[list[int]], limit: Limit, at: int, units: int) -> bool:
    """Whether one more start breaks the limit if each of these counts for 1.01 windows, or 1 in a small limit."""
    counts_ms = limit.window_ms * 101 // 100 if limit.is_large else limit.window_ms
    found = [entry for entry in entries if entry[0] + counts_ms > at]
    return sum(limit.taken_by(one[1]) for one in found) + limit.taken_by(units) > limit.quota


@given(any_large_limits(), st.lists(st.tuples(steps(), st.integers(1, 9)), max_size=60))
def test_planner_gives_the_times_at_which_the_tasks_then_start(limits: Limits, taken: list[tuple[Step, int]]) -> None:
    shop, planner = Shop(limits), Planner((), False, limits, tallies_of(Lane("ann").real, (), 0, limits))
    for seq, (step, units) in enumerate(taken, start=1):
        shop.now_ms += step.milliseconds
        asked_ms = shop.now_ms
        if start := shop.start(seq, units):
            assert planner.next(asked_ms, units) == start.at


@given(any_large_limits(), st.integers(1, 9), st.integers(1, 60))
def test_starts_that_are_planned_together_are_those_planned_one_by_one(limits: Limits, units: int, count: int) -> None:
    lane = admit(Lane("ann"), limits, NOW, "t0").lane
    together = admit(lane, limits, NOW, "last", count, [units] * count)
    planned, one_by_one = list[int](), lane
    for number in range(count):
        single = admit(one_by_one, limits, NOW, "last" if number == count - 1 else f"t{number}", 1, [units])
        planned, one_by_one = [*planned, *single.planned], single.lane
    assert list(together.planned) == planned
    assert _as_planned(together.lane, limits, units) == _as_planned(one_by_one, limits, units)


def _as_planned(lane: Lane, limits: Limits, units: int) -> tuple[object, ...]:
    """What the next admissions go by; a tally may still hold a bucket that has just left its window."""
    return (
        *(lane.planned, lane.admitted, lane.waiting_units, lane.plans.room, lane.plans.unit_room),
        open_at(lane, limits, NOW, units),
    )


@pytest.mark.parametrize(
    ("text", "units"),
    [("10000/day", 1), ("101/20 minutes; 250/hour", 1), ("90000 units/hour", 500)],
)
def test_lane_that_is_always_full_keeps_99_percent_of_its_rate_for_20_days(text: str, units: int) -> None:
    """The first starts come at any time, so that no window begins with a bucket."""
    limits, random = parse_limits(text), Random(text)
    planner = Planner((), False, limits, tallies_of(Lane("ann").real, (), 0, limits))
    at, starts, end = NOW, 0, NOW + 20 * 86_400_000
    while at < end:
        at = planner.next(at + (random.randint(0, 9_000) if starts < 5_000 else 0), units)
        starts += 1
    rate = min(limit.quota / limit.taken_by(units) / limit.window_ms for limit in limits)
    assert starts >= 0.99 * rate * (end - NOW)


def test_start_after_the_10000th_of_a_day_comes_a_day_later_however_they_were_submitted() -> None:
    limits = parse_limits("10000/day")
    singles, bulks = Shop(limits), Lane("ann")
    for number in range(1, 10_001):
        singles.now_ms += 700
        singles.start(number)
        if number % 100 == 0:
            bulks = admit(bulks, limits, singles.now_ms, f"t{number}", count=100).lane
    first_ms = NOW + 700
    assert singles.start(10_001)
    assert 0 <= singles.now_ms - first_ms - 86_400_000 < 864_000
    assert 0 <= admit(bulks, limits, first_ms, "t10001").planned[0] - NOW - 70_000 - 86_400_000 < 864_000


@given(st.dictionaries(st.integers(3_000, 3_200), st.integers(0, 9), max_size=4))
def test_tally_is_read_as_it_was_stored(buckets: dict[int, int]) -> None:
    tally = Tally.of(buckets)
    assert Tally.from_text(tally.to_text()) == tally


def calls_of(function: Callable[[], object]) -> int:
    """How many functions of ours it calls."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("text", ["10000/day", "500/minute; 5000/hour", "90000 units/minute; 500/minute"])
def test_work_goes_by_buckets_not_by_tasks(text: str) -> None:
    limits = parse_limits(text)
    lane = admit(Lane("ann"), limits, NOW, "t0").lane
    assert calls_of(lambda: admit(lane, limits, NOW, "t100", count=100)) <= 200
    waiting = replace(lane, admitted=10_000, starts=(NOW,), started=1, started_seq=1)
    assert calls_of(lambda: replanned(waiting, limits, NOW + 5)) <= 1_000
    assert calls_of(lambda: estimated_start(waiting, limits, NOW + 5, 9_999)) <= 1_000


def test_bulk_whose_answer_was_lost_has_its_planned_starts_to_a_bucket() -> None:
    limits = parse_limits("150/minute")
    lane = admit(Lane("ann"), limits, NOW, "t120", count=120).lane
    admission = admit(lane, limits, NOW + 9_000, "t220", count=100)
    again = reserved(admission.lane, limits, [NOW + 70_000] * 100)
    assert again == tuple(sorted(again))
    assert all(0 <= late - early < 600 for early, late in zip(admission.planned, again, strict=True))


@pytest.mark.parametrize("text", ["500/minute", "5/second; 500/minute", "500/minute; 1500/hour; 2500/day"])
def test_thousands_of_starts_keep_each_window(text: str) -> None:
    shop = Shop(parse_limits(text))
    for seq in range(1, 2_800):
        shop.start(seq)
    starts = [at for at, _ in shop.entries]
    for limit in shop.limits:
        least = min(late - early for early, late in zip(starts, starts[limit.quota :], strict=False))
        assert least >= limit.window_ms
        assert least <= limit.window_ms * 1.01 or len(shop.limits) > 1
