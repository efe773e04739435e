"""The demo's submits, computed from the limits alone, so that they fit any limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from chalicelib.core.limits import Limit, Limits, earliest_start

#: A demo takes at most about twice this long.
MAX_WINDOW_MS = 120_000
FAST_LIMITS = "1/second; 6/12 seconds"


@dataclass(frozen=True)
class Burst:
    """Tasks that one user submits at once."""

    name: str
    #: after the beginning, ms
    at: int
    count: int


def longest(limits: Limits) -> Limit:
    return max(limits, key=lambda limit: limit.window_ms)


def bursts(limits: Limits) -> list[Burst]:
    """Five different users: a flood, a trickle, waves, two large bursts, and a few tasks in between.

    With 20/minute: ann 25 at once; bob 8, one at a time; cho 7, 7 and 7; dee 12 and 12; eve 3 and 3.
    """
    quota, window = longest(limits).quota, longest(limits).window_ms

    def burst(name: str, at: float, share: float) -> Burst:
        return Burst(name, round(at * window), ceil(share * quota))

    singles = max(2, round(0.4 * quota))
    found = [burst("ann", 0, 1.25)]
    found += [Burst("bob", round((one + 0.5) * window / singles), 1) for one in range(singles)]
    found += [burst("cho", at, 0.35) for at in (0.04, 0.25, 0.5)]
    found += [burst("dee", at, 0.6) for at in (1 / 12, 2 / 3)]
    found += [burst("eve", at, 0.15) for at in (1 / 3, 5 / 6)]
    return sorted(found, key=lambda one: one.at)


def planned_starts(script: Sequence[Burst], limits: Limits) -> Mapping[str, list[int]]:
    """When each user's tasks may start, in ms after the beginning, oldest first."""
    planned: dict[str, list[int]] = {}
    for burst in script:
        starts = planned.setdefault(burst.name, [])
        for _ in range(burst.count):
            starts.insert(0, earliest_start(starts, limits, burst.at))
    return {name: starts[::-1] for name, starts in planned.items()}
