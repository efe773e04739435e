"""How many starts fell into one window: the arithmetic of the audit, free of logs and of words about them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from chalicelib.core.limits import Limit, Limits


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a user, with the limits that were in force for it."""

    #: Epoch ms.
    at: int
    #: The task's seq; tells starts of the same millisecond apart.
    seq: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class Busiest:
    """The fullest window that one user's starts made under one limit."""

    #: Starts in the window.
    starts: int
    #: The first and the last start in it, epoch ms.
    first_at: int
    last_at: int
    #: Starts that were made under this limit, in this window or not.
    examined: int
    #: Those of them that came too early for it.
    too_early: int


def trailing_windows(times: Sequence[int], window_ms: int) -> Iterator[tuple[int, int]]:
    """For each of the ascending `times`: the first time in the window that ends with it, and how many it holds.

    The window that ends with s is (s - w, s]. The fullest of these is the fullest half-open window of length w
    anywhere, because any window can be slid until its last start is its end and lose none of its starts.
    Times 0, 400, 1000, 1200 and a window of 1000 give (0, 1), (0, 2), (400, 2), (400, 3).
    """
    first = 0
    for last, time in enumerate(times):
        while times[first] <= time - window_ms:
            first += 1
        yield times[first], last - first + 1


def busiest_windows(starts: Iterable[Start]) -> dict[Limit, Busiest]:
    """The fullest window under each limit that one user's starts were made under.

    A start is checked against the limits that were in force for it, and every start before it counts, whatever
    limits that one was made under: a lower limit looks back on what a higher one allowed.
    """
    ordered = sorted(starts, key=lambda start: (start.at, start.seq))
    return {limit: _busiest(limit, ordered) for limit in {limit for start in ordered for limit in start.limits}}


def _busiest(limit: Limit, ordered: Sequence[Start]) -> Busiest:
    windows = trailing_windows([start.at for start in ordered], limit.window_ms)
    judged = [
        (count, first_at, start.at)
        for start, (first_at, count) in zip(ordered, windows, strict=True)
        if limit in start.limits
    ]
    most, first_at, last_at = max(judged, key=lambda window: window[0])
    return Busiest(most, first_at, last_at, len(judged), sum(count > limit.quota for count, _, _ in judged))
