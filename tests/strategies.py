"""Random limits and random times, small enough that limits are reached often."""

from dataclasses import dataclass

from hypothesis import strategies as st

from chalicelib.core.limits import Limit, Limits


@dataclass(frozen=True)
class Step:
    """By how much a clock moves before the next thing happens."""

    milliseconds: int


def any_limits() -> st.SearchStrategy[Limits]:
    limit = st.builds(Limit, st.integers(1, 6), st.integers(1, 9).map(lambda seconds: seconds * 1_000))
    several = st.lists(limit, min_size=1, max_size=3, unique_by=lambda found: found.window_ms)
    return several.map(lambda found: tuple(sorted(found, key=lambda limit: limit.window_ms)))


def any_large_limits() -> st.SearchStrategy[Limits]:
    """Small limits beside limits that are counted in hundredths: of units, whose quotas may be low."""
    windows = st.integers(1, 9).map(lambda seconds: seconds * 1_000)
    small, units = (
        st.builds(Limit, st.integers(1, 6), windows),
        st.builds(Limit, st.integers(1, 30), windows, st.just(True)),
    )
    several = st.lists(small | units, min_size=1, max_size=4, unique_by=lambda one: (one.window_ms, one.counts_units))
    return several.map(lambda found: tuple(sorted(found, key=lambda one: (one.window_ms, one.counts_units))))


def steps(back_ms: int = 0) -> st.SearchStrategy[Step]:
    """Mostly bursts and about a second, at times long; back by up to `back_ms` where a clock may do that."""
    usual = st.one_of(st.just(0), st.integers(0, 50), st.integers(900, 1_100), st.integers(0, 20_000))
    return (usual if not back_ms else st.one_of(usual, st.integers(-back_ms, 0))).map(Step)
