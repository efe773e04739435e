"""The ticks of a schedule: by a cron expression in a time zone, or every n seconds. Pure. Times are epoch milliseconds.

A cron expression that names hours follows the clock on the wall: a time that the clocks skip runs once, right after the
gap, and a time that they repeat runs once, the first time. One with all hours follows elapsed time: each hour once.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from itertools import takewhile
from typing import Any

from msgspec import Struct

from chalicelib.core.errors import PacelineError

#: Characters of a cron expression.
MAX_CRON_LENGTH = 200
#: Seconds between two ticks of a schedule with `every_seconds`.
MIN_EVERY_SECONDS, MAX_EVERY_SECONDS = 1, 366 * 86_400
UTC_NAME = "UTC"
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
#: Where the search for the last tick begins: this long before the given time, then twice as long.
_FIRST_SEARCH_MS = 60_000
#: Fields of a cron expression, and the index of its minutes and hours; without its seconds.
_FIELDS, _MINUTES, _HOURS = 5, 0, 1


class TimingError(PacelineError):
    """A schedule has no valid ticks. field: of the request, at fault."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class Timing(Struct, frozen=True):
    """When a schedule ticks: `cron` in `timezone`, or `every_seconds` from `anchor` on."""

    cron: str | None = None
    timezone: str | None = None
    every_seconds: int | None = None
    #: epoch ms; the first tick comes every_seconds after it
    anchor: int = 0


def check_timing(timing: Timing, now_ms: int) -> None:
    """Raises TimingError unless there are ticks to come."""
    if (timing.cron is None) == (timing.every_seconds is None):
        given = "both" if timing.cron is not None else "neither"
        raise TimingError("cron", f"Give `cron` or `every_seconds`; this request has {given}.")
    if timing.cron is None:
        _check_interval(timing)
        return
    zone_of(timing.timezone)
    _parsed(timing, now_ms)
    if next_tick(timing, now_ms) is None:
        raise TimingError("cron", f"{timing.cron[:100]!r} names no time within the next 50 years.")


def _check_interval(timing: Timing) -> None:
    if timing.timezone is not None:
        raise TimingError("timezone", "`timezone` is for `cron`; `every_seconds` counts elapsed time.")
    assert timing.every_seconds is not None
    if not MIN_EVERY_SECONDS <= timing.every_seconds <= MAX_EVERY_SECONDS:
        allowed = f"{MIN_EVERY_SECONDS} to {MAX_EVERY_SECONDS}"
        raise TimingError("every_seconds", f"{timing.every_seconds} is not allowed; allowed: {allowed} seconds.")


def next_tick(timing: Timing, after: int) -> int | None:
    """The first tick later than `after`; None if there is none within 50 years.

    >>> next_tick(Timing(every_seconds=10, anchor=5_000), after=15_000)
    25000
    """
    if timing.every_seconds is not None:
        period = timing.every_seconds * 1000
        return timing.anchor + period * (max(0, after - timing.anchor) // period + 1)
    return next(_ticks(timing, after), None)


def last_tick(timing: Timing, first: int, now_ms: int) -> int:
    """The last tick up to now_ms, given `first`, an earlier one or now_ms itself.

    >>> last_tick(Timing(every_seconds=10, anchor=5_000), first=15_000, now_ms=39_999)
    35000
    """
    if timing.every_seconds is not None:
        period = timing.every_seconds * 1000
        return max(first, timing.anchor + period * ((now_ms - timing.anchor) // period))
    searched_ms = _FIRST_SEARCH_MS
    while now_ms - searched_ms > first:  # an outage may have lasted for months: not from the first tick on
        found = list(takewhile(lambda at: at <= now_ms, _ticks(timing, now_ms - searched_ms)))
        if found:
            return max(first, found[-1])
        searched_ms *= 2
    return max([first, *takewhile(lambda at: at <= now_ms, _ticks(timing, first))])


def _ticks(timing: Timing, after: int) -> Iterator[int]:
    """The cron expression's ticks later than `after`, in order, each once.

    cronsim works on the wall's time where it treats hours that are skipped or repeated: it may begin in the past, and
    give the end of a gap once for each time within it.
    """
    previous = after
    for moment in _parsed(timing, after):
        at = (moment.astimezone(timezone.utc) - _EPOCH) // _MILLISECOND
        if at > previous:
            yield at
            previous = at


def _parsed(timing: Timing, after: int) -> Any:
    """An endless iterator of datetimes. TimingError if the expression is invalid."""
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - takes 19 ms, and few requests and messages need it

    assert timing.cron is not None
    fields = timing.cron.split()
    if len(timing.cron) > MAX_CRON_LENGTH or len(fields) != _FIELDS:
        raise TimingError("cron", f"{timing.cron[:100]!r} is not 5 fields: minute hour day month weekday.")
    start = (_EPOCH + after * _MILLISECOND).astimezone(zone_of(timing.timezone))
    try:
        return CronSim(" ".join(_by_the_wall(fields)), start)
    except CronSimError as error:
        raise TimingError("cron", f"{timing.cron[:100]!r} is not a cron expression: {error}.") from error


def _by_the_wall(fields: list[str]) -> list[str]:
    """Writes `*` as a range where the expression names hours, since cronsim takes a `*` for elapsed time.

    >>> _by_the_wall(["*/30", "*/2", "*", "*", "*"])
    ['0-59/30', '0-23/2', '*', '*', '*']
    """
    minutes, hours, *days = fields
    if hours in ("*", "*/1", "0-23"):
        return [minutes, "*", *days]
    return [minutes.replace("*", "0-59"), hours.replace("*", "0-23"), *days]


@lru_cache(maxsize=256)
def zone_of(name: str | None) -> Any:
    """The time zone of an IANA name such as Europe/Zurich; UTC without a name. TimingError if it is unknown."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - takes 7 ms, as above

    if name is None or name == UTC_NAME:
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:  # KeyError: ZoneInfoNotFoundError
        reason = f"{name[:64]!r} is not a known time zone; use an IANA name such as Europe/Zurich or UTC."
        raise TimingError("timezone", reason) from error
