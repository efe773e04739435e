"""The pace: what a limit is, and the earliest start that a list of limits allows. Pure.

Everything exact about Paceline follows from `earliest_start`: admission uses it on planned starts, the claim
on real ones. Nothing here knows a clock, a user or AWS.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct

from chalicelib.core.errors import LimitsError

#: The highest quota of one limit. A lane remembers as many starts, and its item has to stay small.
MAX_QUOTA = 100
#: The longest window, in seconds: within it no start may be forgotten, and a lane is kept for longer than this.
MAX_WINDOW_SECONDS = 7 * 24 * 3600
#: The most limits that hold at once.
MAX_LIMITS = 5

_UNIT_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_SHORT_UNITS = {
    **dict.fromkeys(("s", "sec", "secs"), "second"),
    **dict.fromkeys(("m", "min", "mins"), "minute"),
    "h": "hour",
    "d": "day",
}
_LIMIT = re.compile(r"(?P<quota>\d{1,9})\s*(?:/|\bper\b)\s*(?P<count>\d{1,9})?\s*(?P<unit>[a-z]+)", re.ASCII)
_ALLOWED = (
    f"allowed: up to {MAX_LIMITS} limits such as '1/second; 20/minute' or '5/10 seconds', each a quota from 1 to "
    f"{MAX_QUOTA} per second, minute, hour or day, at most 7 days"
)


class Limit(Struct, frozen=True, order=True):
    """At most `quota` starts in every half-open window of `window_ms`, wherever it begins."""

    quota: int
    #: milliseconds, a whole number of seconds
    window_ms: int

    @property
    def window_seconds(self) -> int:
        return self.window_ms // 1000

    @property
    def name(self) -> str:
        """The policy's name in the RateLimit headers: `second`, `minute`, `10-seconds`."""
        count, unit = self._window()
        return unit if count == 1 else f"{count}-{unit}s"

    def __str__(self) -> str:
        count, unit = self._window()
        return f"{self.quota}/{unit}" if count == 1 else f"{self.quota}/{count} {unit}s"

    def _window(self) -> tuple[int, str]:
        unit = next(u for u, s in reversed(_UNIT_SECONDS.items()) if self.window_seconds % s == 0)
        return self.window_seconds // _UNIT_SECONDS[unit], unit


#: Several limits that hold at once, shortest window first.
Limits = tuple[Limit, ...]


@lru_cache(maxsize=1024)
def parse_limits(text: str) -> Limits:
    """The limits that a text such as `1/second; 20/minute` names, shortest window first.

    Units are second, minute, hour and day, also s, sec, m, min, h and d, with or without plural; `20/5 minutes` and
    `20 per 5 minutes` are the same. Raises LimitsError for anything else, a quota over MAX_QUOTA and a window
    named twice among them.
    """
    parts = [part.strip() for part in re.split(r"[;,\n]", text.lower()) if part.strip()]
    if not parts or len(parts) > MAX_LIMITS:
        raise LimitsError(f"{len(parts)} limits found in {text[:200]!r}; {_ALLOWED}")
    limits = tuple(sorted((_parse_limit(part) for part in parts), key=lambda limit: limit.window_ms))
    if len({limit.window_ms for limit in limits}) < len(limits):
        raise LimitsError(f"the same window twice in {text!r}; {_ALLOWED}")
    return limits


def format_limits(limits: Limits) -> str:
    """The text that `parse_limits` reads back as the same limits."""
    return "; ".join(map(str, limits))


def _parse_limit(part: str) -> Limit:
    match = _LIMIT.fullmatch(part)
    unit = match and _SHORT_UNITS.get(match["unit"], match["unit"].removesuffix("s"))
    if not match or unit not in _UNIT_SECONDS:
        raise LimitsError(f"{part[:200]!r} is no limit; {_ALLOWED}")
    quota, seconds = int(match["quota"]), int(match["count"] or 1) * _UNIT_SECONDS[unit]
    if not 1 <= quota <= MAX_QUOTA:
        raise LimitsError(f"the quota of {part!r} is {quota}; {_ALLOWED}")
    if not 1 <= seconds <= MAX_WINDOW_SECONDS:
        raise LimitsError(f"the window of {part!r} is {seconds} seconds; {_ALLOWED}")
    return Limit(quota, seconds * 1000)


def memory_needed(limits: Limits) -> int:
    """How many starts a lane has to remember: one more than the largest quota.

    The one more stands for all that was forgotten: nothing forgotten is newer than it, so limits that grow
    later are still kept to (see `earliest_start`).
    """
    return max(limit.quota for limit in limits) + 1


def earliest_start(starts: Sequence[int], limits: Limits, now_ms: int, forgotten: bool = False) -> int:
    """The earliest time at or after now_ms at which one more start breaks no limit. Epoch milliseconds.

    starts: the starts so far, newest first, epoch milliseconds; never before one of them, so order is kept also when
    a clock steps back.
    forgotten: older starts than these existed and are no longer known; they are taken to be as new as the
    oldest known one, which can only make the answer later, never too early.

    The q-th newest start leaves the window of `q per w` exactly w after it began, since windows are half-open:

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
    """How much of the limit's quota is taken at now_ms, starts planned for later included; at most the quota."""
    return min(limit.quota, sum(1 for start in starts if start > now_ms - limit.window_ms))
