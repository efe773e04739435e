"""How many starts or units fell into one window: the arithmetic of the audit, free of logs and of words about them."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from chalicelib.core.limits import Limit, Limits


@dataclass(frozen=True, slots=True)
class Used:
    """A function's report of the units that its start really used."""

    units: int
    #: When the limits learned of it, epoch ms.
    at: int


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a user, with the limits that were in force for it."""

    #: Epoch ms.
    at: int
    #: The task's seq; tells starts of the same millisecond apart.
    seq: int
    limits: Limits
    #: What it counted for in limits of units.
    units: int = 1
    #: None if its function reported nothing.
    used: Used | None = None


@dataclass(frozen=True, slots=True)
class Busiest:
    """The fullest window that one user's starts made under one limit."""

    #: Starts in the window, or units for a limit of units.
    most: int
    #: The first and the last of them, epoch ms.
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


def trailing_units(ordered: Sequence[Start], window_ms: int) -> Iterator[tuple[int, int]]:
    """For each start: the first time in the window that ends with it, and the units it holds, as known at that start.

    A start counts its units from its time on. Once its function has reported what it used, units that it did not use
    count no more, and units beyond its own count from the report on. So a report changes no window that ended before.
    In a window of 1000 a start of 5 units at 0 that reports 2 at 300, one of 4 at 400 that reports 9 at 600, and one of
    1 at 1100 give (0, 5), (0, 6), (400, 10).
    """
    starts_at = Counter(start.at for start in ordered)
    counted: deque[_Counted] = deque()
    by_start: dict[int, _Counted] = {}
    total = 0
    for at, _, index, is_report in _events(ordered):
        while counted and counted[0].at <= at - window_ms:
            total -= counted.popleft().units
        start = ordered[index]
        known = _known_at_once(start) if starts_at[start.at] > 1 else start.units
        change = start.used.units - known if is_report and start.used else known
        if change < 0:
            begun = by_start[index]
            begun.units += change
            total += change if begun.at > at - window_ms else 0
        else:
            counted.append(_Counted(at, change))
            total += change
        if not is_report:
            by_start[index] = counted[-1]
            yield counted[0].at, total


def _known_at_once(start: Start) -> int:
    """The units of a start that other starts of its millisecond may have known: fewer, if it reported them in it."""
    is_known = start.used is not None and start.used.at <= start.at
    return min(start.units, start.used.units) if is_known and start.used else start.units


def _events(ordered: Sequence[Start]) -> list[tuple[int, int, int, bool]]:
    """Starts and reports by time, and in one millisecond by task, each report after its start.

    A report of fewer units comes before the other starts of its millisecond: tasks may run beside each other, and the
    log does not tell whether a claim knew of it.
    """
    starts = [(start.at, 1, start.seq, index, False) for index, start in enumerate(ordered)]
    reports = [
        (max(s.at, s.used.at), int(s.used.units >= s.units or s.used.at <= s.at), s.seq, index, True)
        for index, s in enumerate(ordered)
        if s.used
    ]
    return [(at, seq, index, is_report) for at, _, seq, index, is_report in sorted(starts + reports)]


@dataclass(slots=True)
class _Counted:
    """Units that count from a time on."""

    at: int
    units: int


def _busiest(limit: Limit, ordered: Sequence[Start]) -> Busiest:
    if limit.counts_units:
        windows = trailing_units(ordered, limit.window_ms)
    else:
        windows = trailing_windows([start.at for start in ordered], limit.window_ms)
    judged = [
        (count, first_at, start.at)
        for start, (first_at, count) in zip(ordered, windows, strict=True)
        if limit in start.limits
    ]
    most, first_at, last_at = max(judged, key=lambda window: window[0])
    return Busiest(most, first_at, last_at, len(judged), sum(count > limit.quota for count, _, _ in judged))
