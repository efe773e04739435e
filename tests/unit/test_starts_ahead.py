"""A resume of a lane in which a clock that was ahead left starts in the future."""

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.claim import Candidate, Start, claim
from chalicelib.core.lane import CLOCKS_DIFFER_MS
from chalicelib.core.lane_changes import resumed
from chalicelib.core.limits import parse_limits
from tests.factories import NOW, make_lane

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
