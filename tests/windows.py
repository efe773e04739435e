"""Checks the pace the slow way, apart from the code that keeps it."""

from collections.abc import Iterable, Sequence

from chalicelib.core.limits import Limits


def most_in_any_window(starts: Iterable[int], window_ms: int) -> int:
    """The most starts that a half-open window of that length holds; the fullest one begins with a start."""
    found = list(starts)
    return max((sum(1 for at in found if begin <= at < begin + window_ms) for begin in found), default=0)


def assert_pace_kept(starts: Sequence[int], limits: Limits) -> None:
    for limit in limits:
        assert most_in_any_window(starts, limit.window_ms) <= limit.quota, f"{limit} broken by {list(starts)}"


def breaks_a_limit(starts: Sequence[int], at: int, limits: Limits) -> bool:
    """Whether one more start at `at` overfills a window that holds it."""
    for limit in limits:
        for begin in [start for start in (*starts, at) if at - limit.window_ms < start <= at]:
            if sum(1 for start in (*starts, at) if begin <= start < begin + limit.window_ms) > limit.quota:
                return True
    return False
