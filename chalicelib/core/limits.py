"""Parses limits and computes the earliest start that they allow. Pure.

Everything exact about Paceline follows from `earliest_start`: admission applies it to planned starts, the claim to
real ones. This module knows no clock, user or AWS.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct

from chalicelib.core.errors import LimitsError

#: Largest quota of a limit, in starts or units.
MAX_QUOTA = 1_000_000
#: Largest quota of starts that is counted one by one: a lane's item stores as many starts and has to stay small.
MAX_EXACT_QUOTA = 100
#: Longest window of a limit, in seconds. A lane and its starts are kept for longer than this.
MAX_WINDOW_SECONDS = 31 * 24 * 3600
#: Largest number of limits per user.
MAX_LIMITS = 5
#: Most tasks of one user that may run at once.
MAX_AT_ONCE = 100

_UNIT_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_SHORT_UNITS = {
    **dict.fromkeys(("s", "sec", "secs"), "second"),
    **dict.fromkeys(("m", "min", "mins"), "minute"),
    "h": "hour",
    "d": "day",
}
_LIMIT = re.compile(
    r"(?P<quota>\d{1,9})\s*(?P<units>units?\b)?\s*(?:/|\bper\b)\s*(?P<count>\d{1,9})?\s*(?P<unit>[a-z]+)", re.ASCII
)
_AT_ONCE = re.compile(r"(?P<count>\d{1,9})\s*at\s+once", re.ASCII)
_ALLOWED = (
    f"allowed: up to {MAX_LIMITS} limits such as '1/second; 20/minute', '5/10 seconds' or '90000 units/minute', each a "
    f"quota from 1 to {MAX_QUOTA:,} per second, minute, hour or day, at most {MAX_WINDOW_SECONDS // 86400} days; and "
    "'5 at once' beside them"
)


class Limit(Struct, frozen=True, order=True):
    """At most `quota` starts, or units, in every half-open window of `window_ms`, wherever it begins."""

    quota: int
    #: milliseconds, a multiple of 1,000
    window_ms: int
    #: it counts the units of the tasks that start, not the starts
    counts_units: bool = False

    @property
    def is_large(self) -> bool:
        """True if it is counted in hundredths of its window (see tally.py), not start by start."""
        return self.counts_units or self.quota > MAX_EXACT_QUOTA

    def taken_by(self, units: int) -> int:
        """What one start of a task with these units takes of the quota."""
        return units if self.counts_units else 1

    @property
    def window_seconds(self) -> int:
        return self.window_ms // 1000

    @property
    def name(self) -> str:
        """The limit's name in the RateLimit headers: `second`, `10-seconds`, `minute-units`."""
        count, unit = self._window()
        name = unit if count == 1 else f"{count}-{unit}s"
        return f"{name}-units" if self.counts_units else name

    def __str__(self) -> str:
        count, unit = self._window()
        quota = f"{self.quota} units" if self.counts_units else f"{self.quota}"
        return f"{quota}/{unit}" if count == 1 else f"{quota}/{count} {unit}s"

    def _window(self) -> tuple[int, str]:
        unit = next(u for u, s in reversed(_UNIT_SECONDS.items()) if self.window_seconds % s == 0)
        return self.window_seconds // _UNIT_SECONDS[unit], unit


#: Limits that apply together, shortest window first; a LimitsAtOnce if their text says how many tasks may run at once.
Limits = tuple[Limit, ...]


class LimitsAtOnce(tuple[Limit, ...]):
    """Limits, and how many tasks may run at once. They differ from the same limits with another number, or none."""

    at_once: int

    def __new__(cls, limits: Limits, at_once: int) -> "LimitsAtOnce":
        made = super().__new__(cls, limits)
        made.at_once = at_once
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LimitsAtOnce) and self.at_once == other.at_once and tuple(self) == tuple(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((tuple(self), self.at_once))

    def __reduce__(self) -> tuple[type["LimitsAtOnce"], tuple[Limits, int]]:
        return LimitsAtOnce, (tuple(self), self.at_once)

    def __bool__(self) -> bool:
        """True also without a rate: the number at once is a limit."""
        return True


def at_once(limits: Limits) -> int:
    """How many tasks of one user may run at once; 1 unless the limits say a number.

    >>> [at_once(parse_limits(text)) for text in ("1/second", "1/second; 5 at once")]
    [1, 5]
    """
    return limits.at_once if isinstance(limits, LimitsAtOnce) else 1


def most_at_once(limits: Limits) -> int | None:
    """How many tasks of all users may run at once under a shared limit; None for any number.

    >>> [most_at_once(parse_limits(text)) for text in ("1/second", "1/second; 5 at once")]
    [None, 5]
    """
    return limits.at_once if isinstance(limits, LimitsAtOnce) else None


@lru_cache(maxsize=1024)
def parse_limits(text: str) -> Limits:
    """Parses a text such as `1/second; 20/minute; 5 at once`; returns the limits, shortest window first.

    Windows are in seconds, minutes, hours and days, also s, sec, m, min, h and d, singular or plural; `20/5 minutes`
    equals `20 per 5 minutes`. Raises LimitsError for any other text, for a quota over MAX_QUOTA, for two limits of
    starts, or two of units, with the same window, and for `5 at once` alone.
    """
    return _parse(text, is_rate_needed=True)


@lru_cache(maxsize=1024)
def parse_shared_limits(text: str) -> Limits:
    """Parses the limits of a shared limit; `10 at once` may stand alone, since calls to a database need no rate.

    >>> most_at_once(parse_shared_limits("10 at once"))
    10
    """
    return _parse(text, is_rate_needed=False)


def _parse(text: str, is_rate_needed: bool) -> Limits:
    found = [part.strip() for part in re.split(r"[;,\n]", text.lower()) if part.strip()]
    parts = [part for part in found if not _AT_ONCE.fullmatch(part)]
    if not (parts if is_rate_needed else found) or len(parts) > MAX_LIMITS:
        raise LimitsError(f"{len(parts)} limits found in {text[:200]!r}; {_ALLOWED}")
    limits = tuple(sorted((_parse_limit(part) for part in parts), key=_kind))
    if len(set(map(_kind, limits))) < len(limits):
        raise LimitsError(f"{text!r} has two limits with the same window; {_ALLOWED}")
    counts = [int(match["count"]) for part in found if (match := _AT_ONCE.fullmatch(part))]
    if len(counts) > 1 or not all(1 <= count <= MAX_AT_ONCE for count in counts):
        raise LimitsError(f"{text[:200]!r} may say once that 1 to {MAX_AT_ONCE} tasks run at once; {_ALLOWED}")
    return LimitsAtOnce(limits, counts[0]) if counts else limits


def _kind(limit: Limit) -> tuple[int, bool]:
    return limit.window_ms, limit.counts_units


def format_limits(limits: Limits) -> str:
    """Formats limits so that `parse_limits` reads the same limits back."""
    several = [f"{limits.at_once} at once"] if isinstance(limits, LimitsAtOnce) else []
    return "; ".join([*map(str, limits), *several])


def _parse_limit(part: str) -> Limit:
    match = _LIMIT.fullmatch(part)
    unit = match and _SHORT_UNITS.get(match["unit"], match["unit"].removesuffix("s"))
    if not match or unit not in _UNIT_SECONDS:
        raise LimitsError(f"{part[:200]!r} is not a valid limit; {_ALLOWED}")
    quota, seconds = int(match["quota"]), int(match["count"] or 1) * _UNIT_SECONDS[unit]
    if not 1 <= quota <= MAX_QUOTA:
        raise LimitsError(f"the quota of {part!r} is {quota}; {_ALLOWED}")
    if not 1 <= seconds <= MAX_WINDOW_SECONDS:
        raise LimitsError(f"the window of {part!r} is {seconds} seconds; {_ALLOWED}")
    return Limit(quota, seconds * 1000, counts_units=match["units"] is not None)


@lru_cache(maxsize=1_000)
def fingerprint(limits: Limits) -> str:
    """Returns a short text that differs between different limits.

    >>> fingerprint(parse_limits("1/second")) == fingerprint(parse_limits("1/second; 20/minute"))
    False
    """
    return hashlib.sha256(format_limits(limits).encode()).hexdigest()[:8]


@lru_cache(maxsize=1_000)
def small_limits(limits: Limits) -> Limits:
    """The limits that are counted start by start."""
    return tuple(limit for limit in limits if not limit.is_large)


@lru_cache(maxsize=1_000)
def large_limits(limits: Limits) -> Limits:
    """The limits that are counted in hundredths of their window."""
    return tuple(limit for limit in limits if limit.is_large)


@lru_cache(maxsize=1_000)
def smallest_units_quota(limits: Limits) -> int | None:
    """The most units that one task may have; None without a limit of units.

    >>> smallest_units_quota(parse_limits("500/minute; 90000 units/minute; 50000 units/10 seconds"))
    50000
    """
    return min((limit.quota for limit in limits if limit.counts_units), default=None)


@lru_cache(maxsize=1_000)
def memory_needed(limits: Limits) -> int:
    """Returns the number of starts that a lane must list: the largest quota of its small limits plus one.

    The additional start bounds all dropped starts, which are at least as old, so limits that are raised later still
    hold (see `earliest_start`).
    """
    return max((limit.quota for limit in limits if not limit.is_large), default=0) + 1


def earliest_start(starts: Sequence[int], limits: Limits, now_ms: int, forgotten: bool = False) -> int:
    """Returns the earliest time at or after now_ms at which one more start keeps every limit. Epoch milliseconds.

    starts: earlier starts, newest first, epoch milliseconds. The result is never before the newest one, so order holds
    even if the clock steps back.
    forgotten: True if older starts were dropped. They count as being as new as the oldest known start, which can make
    the result too late but never too early.

    Windows are half-open, so the q-th newest start leaves the window of `q per w` exactly w after it:

    >>> limits = parse_limits("1/second; 3/10 seconds")
    >>> earliest_start([], limits, 5_000)                    # nothing started yet: now
    5000
    >>> earliest_start([5_000], limits, 5_300)               # one a second: a second after the last
    6000
    >>> earliest_start([7_000, 6_000, 5_000], limits, 7_001) # three in 10 s: when the oldest of three leaves
    15000
    """
    earliest = max(now_ms, starts[0]) if starts else now_ms
    for limit in limits:
        if len(starts) >= limit.quota:
            earliest = max(earliest, starts[limit.quota - 1] + limit.window_ms)
        elif forgotten and starts:
            earliest = max(earliest, starts[-1] + limit.window_ms)
    return earliest


def used(starts: Sequence[int], limit: Limit, now_ms: int) -> int:
    """Returns the starts that count against the limit at now_ms, planned ones included; at most the quota."""
    return min(limit.quota, sum(1 for start in starts if start > now_ms - limit.window_ms))
