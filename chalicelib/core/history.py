"""The starts of one lane, real or planned, as far as large limits and units need them. Pure.

A lane lists its newest starts one by one, `listed`, newest first; that is all that small limits need. For large limits
it keeps tallies beside the list. A quick write only adds to the list and lowers the room; the next exact write counts
what was listed since, and finds the room anew. Units beyond one for each start are entries of their own, `extras`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.limits import MAX_QUOTA, Limit, Limits, large_limits, memory_needed, small_limits
from chalicelib.core.tally import BUCKETS, Tally, counted, used_at

#: Extra units that a lane without a limit of units remembers, one entry for each start, for a limit to come.
MAX_EXTRAS = 20

#: Times, epoch ms, and counts.
Entries = list[tuple[int, int]]


class History(Struct, frozen=True):
    """What a lane stores of its starts beside the list; empty for a lane with small limits and no units."""

    #: of the large limits in force at the last exact write, by `key_of` them
    tallies: Mapping[str, Tally] = {}
    #: how many starts they count; the lane lists those since
    tallied: int = 0
    #: units beyond one that no tally of units counts: epoch ms and units in turn, newest first; below 0: given back
    extras: tuple[int, ...] = ()
    #: units beyond one of all starts ever
    extra_units: int = 0
    #: starts, and units, that all large limits still allow at the newest start; None if none is stored
    room: int | None = None
    unit_room: int | None = None
    #: fingerprint of the limits that the room was found under
    under: str = ""
    #: how many starts the room counts: claims under small limits alone don't lower it; 0 for planned starts
    roomed: int = 0
    #: for planned starts: units were corrected since the waiting tasks were planned
    is_outdated: bool = False


NO_HISTORY = History()


def key_of(limit: Limit) -> str:
    """The same for limits that count the same in the same window, whatever their quotas: `60`, `60u`."""
    return f"{limit.window_seconds}{'u' if limit.counts_units else ''}"


def tallies_of(history: History, listed: Sequence[int], total: int, limits: Limits) -> dict[Limit, Tally]:
    """The tally of each large limit among these, with all that is known.

    total: how many starts were taken, listed or not. A limit without a tally, since limits may change at any time, gets
    one of what is known: a start then counts from a later time than its own, never from an earlier one.

    >>> from chalicelib.core.limits import parse_limits
    >>> limits = parse_limits("500/minute")
    >>> history = History({"60": Tally(3, (499,))}, tallied=499)
    >>> list(tallies_of(history, (2_000, 1_700), 500, limits).values())  # one more is listed since
    [Tally(newest=4, counts=(1, 499))]
    >>> list(tallies_of(History(), (2_000, 1_700), 900, limits).values())  # 898 are forgotten, all before 1_700
    [Tally(newest=4, counts=(1, 899))]
    """
    since: Entries = [(at, 1) for at in listed[: max(0, total - history.tallied)]]
    extras = list(_pairs(history.extras))[::-1]
    tallies = {}
    for limit in large_limits(limits):
        entries = since + extras if limit.counts_units else since
        known = history.tallies.get(key_of(limit))
        tallies[limit] = (
            counted(known, limit, entries)
            if known is not None
            else counted(Tally(), limit, _bounded(_older(history, listed, total, limit)) + entries)
        )
    return tallies


def listed_for(
    history: History, listed: Sequence[int], total: int, limits: Limits, needed: int | None = None
) -> Sequence[int]:
    """The list, longer by starts of a tally if it holds fewer than needed; None: than these small limits need.

    Such a start counts from the end of its bucket, but not from later than those listed, which are newer.
    """
    needed = memory_needed(limits) if needed is None else needed
    small = small_limits(limits)
    source = _nearest(history, small[-1] if small else limits[0]) if len(listed) < min(total, needed) else None
    if source is None or not listed:
        return listed
    seconds, tally = source
    older: list[int] = []
    known = len(listed) - max(0, total - history.tallied)
    for number, count in tally.buckets.items():
        older += [min(number * _bucket_ms(seconds), listed[-1])] * min(needed, max(0, count - known))
        known = max(0, known - count)
    return (*listed, *older[: needed - len(listed)])


def updated(
    history: History, listed: Sequence[int], total: int, tallies: Mapping[Limit, Tally], under: str = ""
) -> History:
    """The history with these tallies, which count all starts; listed and total: as they are then."""
    units = [limit for limit in tallies if limit.counts_units]
    starts = [limit for limit in tallies if not limit.counts_units]
    return History(
        tallies={key_of(limit): tally for limit, tally in tallies.items()},
        tallied=total if tallies else 0,
        extras=() if units else _still_listed(history.extras, listed),
        extra_units=history.extra_units,
        room=_room(starts, tallies, listed),
        unit_room=_room(units, tallies, listed),
        under=under if tallies else "",
        roomed=total if tallies and under else 0,
    )


def without_future(history: History, latest: int) -> History:
    """The history with all that it counts after that time, epoch ms, counted then; the next exact write finds the room.

    A tally forgot older buckets on account of the later ones: all that it forgot counts then, too.
    """
    extras = tuple(value for at, units in _pairs(history.extras) for value in (min(at, latest), units))
    tallies = {key: _tally_without_future(history, key, latest) for key in history.tallies}
    return replace(history, extras=extras, tallies=tallies, room=None, unit_room=None, under="")


def _tally_without_future(history: History, key: str, latest: int) -> Tally:
    tally, length = history.tallies[key], _bucket_ms(int(key.removesuffix("u")))
    last, buckets = -(-latest // length), Counter[int]()
    for number, count in tally.buckets.items():
        buckets[min(number, last)] += count
    if tally.newest > last:
        extra_units = history.extra_units - sum(units for _, units in _pairs(history.extras))
        counted_ever = history.tallied + (extra_units if key.endswith("u") else 0)
        buckets[min(tally.newest - BUCKETS - 1, last)] += max(0, min(counted_ever - tally.total, MAX_QUOTA))
    return Tally.of(buckets)


def _room(kind: Sequence[Limit], tallies: Mapping[Limit, Tally], listed: Sequence[int]) -> int | None:
    newest = listed[0] if listed else 0
    return min((limit.quota - used_at(tallies[limit], limit, newest) for limit in kind), default=None)


def _still_listed(extras: Sequence[int], listed: Sequence[int]) -> tuple[int, ...]:
    """The newest extras, as far back as the list goes."""
    kept = [pair for pair in _pairs(extras) if listed and pair[0] >= listed[-1]]
    return tuple(value for pair in kept[:MAX_EXTRAS] for value in pair)


def _older(history: History, listed: Sequence[int], total: int, limit: Limit) -> Entries:
    """Starts, or units, before the last exact write, each at the latest time that it can have had.

    From the nearest tally, or the list; and in one lump all that neither of them shows, at the end of what is known.
    """
    if not listed:
        return []
    since = max(0, total - history.tallied)
    if limit.counts_units and (source := _nearest(history, limit, counts_units=True)):
        seconds, tally = source
        extras = sum(units for _, units in _pairs(history.extras))
        rest = total + history.extra_units - since - extras - tally.total
        entries = [(number * _bucket_ms(seconds), count) for number, count in tally.buckets.items()]
        return [(_reach(source), rest), *entries]
    if source := _nearest(history, limit):
        seconds, tally = source
        entries = [(min(number * _bucket_ms(seconds), listed[0]), count) for number, count in tally.buckets.items()]
        entries.append((_reach(source), total - since - tally.total))
    else:
        entries = [(at, 1) for at in listed[since:]] + [(listed[-1], total - len(listed))]
    return entries + (_unlisted_extras(history, listed) if limit.counts_units else [])


def _bounded(entries: Entries) -> Entries:
    """The entries that count, as far as any limit looks."""
    return [(at, min(count, MAX_QUOTA)) for at, count in entries if count > 0 and at > 0]


def _unlisted_extras(history: History, listed: Sequence[int]) -> Entries:
    """The extra units that the lane has forgotten: older than those that it lists, or as new as the newest start."""
    pairs = list(_pairs(history.extras))
    oldest = max(pairs[-1][0], listed[-1]) if pairs else listed[0]
    return [(oldest, history.extra_units - sum(units for _, units in pairs))]


def _reach(source: tuple[int, Tally]) -> int:
    """The latest time that a tally is too new to count."""
    seconds, tally = source
    return (tally.newest - BUCKETS - 1) * _bucket_ms(seconds)


def _nearest(history: History, limit: Limit, counts_units: bool = False) -> tuple[int, Tally] | None:
    """The tally of starts, or units, with the shortest window that is as long as the limit's, or else the longest one.

    With its window in seconds.
    """
    windows = {
        int(key.removesuffix("u")): tally for key, tally in history.tallies.items() if key.endswith("u") == counts_units
    }
    longer = [seconds for seconds in windows if seconds >= limit.window_seconds]
    if not windows:
        return None
    seconds = min(longer) if longer else max(windows)
    return seconds, windows[seconds]


def _bucket_ms(window_seconds: int) -> int:
    return window_seconds * 1000 // BUCKETS


def _pairs(extras: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(extras[::2], extras[1::2], strict=True)
