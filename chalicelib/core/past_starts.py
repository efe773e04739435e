"""When one more start keeps the limits, by those that were taken: of a lane, or of a shared limit. Pure."""

from typing import Protocol

from msgspec.structs import replace

from chalicelib.core.history import NO_HISTORY, History, listed_for, tallies_of, updated
from chalicelib.core.limits import Limits, earliest_start, fingerprint, large_limits, memory_needed, small_limits
from chalicelib.core.tally import counted, free_at


class Started(Protocol):
    """Whoever takes starts: what it stores of those that were taken."""

    @property
    def starts(self) -> tuple[int, ...]:
        """The newest ones, newest first, epoch ms."""

    @property
    def started(self) -> int:
        """How many were taken, listed or not."""

    @property
    def real(self) -> History: ...


def next_start(taken: Started, limits: Limits, now_ms: int, units: int = 1) -> int:
    """The earliest time at or after now_ms at which the real starts allow one more, epoch ms."""
    if not large_limits(limits) and not taken.real.tallies:
        return earliest_start(taken.starts, limits, now_ms, taken.started > len(taken.starts))
    listed = listed_for(taken.real, taken.starts, taken.started, limits)
    at = earliest_start(listed, small_limits(limits), now_ms, taken.started > len(listed))
    tallies = tallies_of(taken.real, taken.starts, taken.started, limits)
    return max([at, *(free_at(tally, limit, limit.taken_by(units)) for limit, tally in tallies.items())])


def with_start(taken: Started, limits: Limits, at: int, units: int) -> tuple[tuple[int, ...], History]:
    """The list of starts and their history, with one more start at that time."""
    if units == 1 and taken.real is NO_HISTORY and not large_limits(limits):
        return (at, *taken.starts)[: memory_needed(limits)], NO_HISTORY
    earlier = listed_for(taken.real, taken.starts, taken.started, limits)
    listed = (at, *earlier)[: memory_needed(limits)]
    tallies = {
        limit: counted(tally, limit, [(at, limit.taken_by(units))])
        for limit, tally in tallies_of(taken.real, taken.starts, taken.started, limits).items()
    }
    extras = (at, units - 1, *taken.real.extras) if units != 1 else taken.real.extras
    history = replace(taken.real, extras=extras, extra_units=taken.real.extra_units + units - 1)
    return listed, updated(history, listed, taken.started + 1, tallies, fingerprint(limits))
