"""Counts starts, or units, in hundredths of a limit's window: what large limits go by. Pure, integers only.

A window is cut into BUCKETS buckets, aligned to the epoch: bucket n holds the times after (n - 1) and up to n
hundredths. Whatever is in it counts as if it were at its end. So a start counts for its window at least and for 1.01
windows at most, and rounding a bucket's end gives that end again.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from chalicelib.core.limits import Limit

#: Buckets in a window. One more of them can count at a time: the one that is just leaving.
BUCKETS = 100


class Tally(Struct, frozen=True):
    """Counts by bucket for one window, as many buckets as a start at or after the newest one has to respect."""

    #: number of the newest bucket
    newest: int = 0
    #: of each bucket from the newest one back, at most BUCKETS + 1
    counts: tuple[int, ...] = ()

    @classmethod
    def of(cls, buckets: Mapping[int, int]) -> "Tally":
        """The tally of these counts by bucket number, without those that are too old to count."""
        if not buckets:
            return cls()
        newest = max(buckets)
        oldest = max(min(buckets), newest - BUCKETS)
        return cls(newest, tuple(buckets.get(number, 0) for number in range(newest, oldest - 1, -1)))

    @classmethod
    def from_text(cls, text: str) -> "Tally":
        if not text:
            return cls()
        newest, _, counts = text.partition(":")
        return cls(int(newest), tuple(int(count or 0) for count in counts.split(",")))

    def to_text(self) -> str:
        """A short text, since each KB of a lane's item costs: the newest bucket's number and the counts; "" for none.

        >>> Tally(3115231, (5, 0, 0, 12)).to_text()
        '3115231:5,,,12'
        """
        if not self.counts:
            return ""
        return f"{self.newest}:{','.join(str(count or '') for count in self.counts)}"

    @property
    def buckets(self) -> dict[int, int]:
        return {self.newest - index: count for index, count in enumerate(self.counts) if count}

    @property
    def total(self) -> int:
        return sum(self.counts)


def bucket_ms(limit: Limit) -> int:
    return limit.window_ms // BUCKETS


def bucket_of(at: int, limit: Limit) -> int:
    """The number of the bucket that holds the time.

    >>> limit = Limit(500, 60_000)
    >>> [bucket_of(at, limit) for at in (1_200, 1_201, 1_800)]
    [2, 3, 3]
    """
    return -(-at // bucket_ms(limit))


def counted(tally: Tally, limit: Limit, entries: Iterable[tuple[int, int]]) -> Tally:
    """The tally with these times and counts. A count below 0 gives back, from its time's bucket, never below 0.

    >>> limit = Limit(500, 60_000)
    >>> counted(Tally(2, (7,)), limit, [(1_300, 1), (1_800, 4), (1_900, 2)])
    Tally(newest=4, counts=(2, 5, 7))
    >>> counted(Tally(2, (7,)), limit, [(1_200, -9)])
    Tally(newest=2, counts=(0,))
    """
    buckets = tally.buckets
    if tally.counts:
        buckets.setdefault(tally.newest, 0)
    for at, count in entries:
        number = bucket_of(at, limit)
        buckets[number] = max(0, buckets.get(number, 0) + count)
    return Tally.of(buckets)


def free_at(tally: Tally, limit: Limit, more: int) -> int:
    """The earliest time, epoch ms, from which on `more` starts or units keep the limit. Work by buckets.

    Never before the newest bucket begins, since older buckets are dropped on its account.

    >>> limit = Limit(500, 60_000)
    >>> tally = counted(Tally(), limit, [(1_000, 300), (1_900, 200)])
    >>> free_at(tally, limit, 1)       # the first 300 count from 1_200, their bucket's end
    61200
    >>> free_at(tally, limit, 301)     # the other 200 from 2_400
    62400
    """
    room, length = limit.quota - more, bucket_ms(limit)
    begin = (tally.newest - 1) * length + 1 if tally.counts else 0
    for index, count in enumerate(tally.counts):
        room -= count
        if room < 0:
            return max(begin, (tally.newest - index) * length + limit.window_ms)
    return begin


def used_at(tally: Tally, limit: Limit, at: int) -> int:
    """What counts against the limit at that time, later starts included."""
    leaving = (at - limit.window_ms) // bucket_ms(limit)  # the newest bucket that has left the window
    return sum(tally.counts[: max(0, tally.newest - leaving)])


def resets_at(tally: Tally, limit: Limit, at: int) -> int:
    """When the limit allows more than at that time, epoch ms; `at` if nothing counts.

    >>> limit = Limit(500, 60_000)
    >>> resets_at(counted(Tally(), limit, [(1_000, 300), (1_900, 100)]), limit, 2_000)
    61200
    """
    if not used_at(tally, limit, at):
        return at
    counting = [n for n in tally.buckets if n * bucket_ms(limit) + limit.window_ms > at]
    return max(free_at(tally, limit, 1), min(counting) * bucket_ms(limit) + limit.window_ms)
