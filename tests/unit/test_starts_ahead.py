"""A resume of a lane in which a clock that was ahead left starts in the future."""

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.claim import Candidate, Start, claim
from chalicelib.core.lane import CLOCKS_DIFFER_MS
from chalicelib.core.lane_changes import resumed
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import Written
from tests.factories import NOW, make_lane
from tests.strategies import any_large_limits, steps
from tests.unit.test_large_limits import Shop

LIMITS = parse_limits("2/second; 5/minute")
#: before now, a little ahead as a claim may be, or far ahead
times = st.one_of(st.integers(-90_000, 0), st.integers(0, CLOCKS_DIFFER_MS), st.integers(0, 86_400_000))
lists = st.lists(times, max_size=6).map(lambda offsets: tuple(sorted((NOW + at for at in offsets), reverse=True)))


@given(lists)
def test_no_start_is_left_in_the_future_and_none_gets_earlier_than_it_really_was(starts):
    lane = make_lane(admitted=9, started=len(starts), started_seq=len(starts), starts=starts)
    after = resumed(lane, LIMITS, NOW).starts
    # A start that is far ahead really happened before now
    real = [at if at <= NOW + CLOCKS_DIFFER_MS else NOW for at in starts]
    assert list(after) == sorted(after, reverse=True)
    assert all(at <= NOW + CLOCKS_DIFFER_MS for at in after)
    assert all(at >= really for at, really in zip(after, real, strict=True))


@given(lists)
def test_the_next_task_starts_within_a_window_of_the_resume(starts):
    lane = resumed(make_lane(admitted=9, started=len(starts), started_seq=len(starts), starts=starts), LIMITS, NOW)
    start = claim(lane, Candidate("next", len(starts) + 1, NOW), LIMITS, NOW, 10_000, "token")
    assert isinstance(start, Start)
    assert start.at <= NOW + CLOCKS_DIFFER_MS + 60_000


@given(
    any_large_limits(),
    st.lists(st.tuples(steps(), st.integers(1, 9)), max_size=20),
    st.integers(0, 86_400_000),
    st.integers(1, 9),
    st.integers(0, 27),
    st.integers(1, 9),
)
def test_a_resume_counts_units_neither_too_early_nor_in_the_future(limits, taken, ahead_ms, units, used, next_units):
    """A worker whose clock is ahead starts one task and reports its units."""
    shop = Shop(limits)
    for seq, (step, each) in enumerate(taken, start=1):
        shop.now_ms += step.milliseconds
        shop.start(seq, each)
    shop.now_ms, real_ms = shop.now_ms + ahead_ms, shop.now_ms
    seq = len(taken) + 2
    if start := shop.start(seq - 1, units):
        shop.entries[-1][0] = real_ms
        if used != units:
            shop.correct(start, used, shop.now_ms)
            shop.entries[-1][0] = real_ms
    shop.now_ms = real_ms
    assert isinstance(shop.lanes.change(shop.lane, resumed(shop.lane, limits, real_ms)), Written)
    if start := shop.start(seq, next_units):
        assert all(shop.counts(limit, start.at) <= limit.quota for limit in limits)
        longest_ms = max(limit.window_ms for limit in limits)
        assert start.at <= real_ms + CLOCKS_DIFFER_MS + longest_ms * 102 // 100


def test_a_resume_counts_the_starts_that_a_start_in_the_future_made_a_tally_forget():
    shop = Shop(parse_limits("100 units/minute"))
    shop.start(1, 70)
    shop.now_ms += 86_400_000
    for seq in range(2, 20):  # so many that an exact claim is among them
        shop.start(seq)
    shop.now_ms = NOW + 1_000
    assert isinstance(shop.lanes.change(shop.lane, resumed(shop.lane, shop.limits, shop.now_ms)), Written)
    start = shop.start(20, 30)
    assert start
    assert start.at >= NOW + 60_000
