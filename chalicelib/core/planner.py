"""Plans many starts one after the other, as one start after the other would be, with work by buckets. Pure."""

from collections import deque
from collections.abc import Mapping, Sequence

from chalicelib.core.limits import Limit, Limits, earliest_start, memory_needed, small_limits
from chalicelib.core.tally import Tally, bucket_ms, bucket_of


class Planner:
    """The starts that are known and those that it has planned. Each plan begins no earlier than the one before."""

    def __init__(
        self, listed: Sequence[int], forgotten: bool, limits: Limits, tallies: Mapping[Limit, Tally] | None = None
    ) -> None:
        """listed: starts, newest first. forgotten: true if there were older ones. tallies: of the large limits."""
        #: newest first
        self.listed = list(listed)
        self._forgotten = forgotten
        self._small = small_limits(limits)
        self._memory = memory_needed(limits)
        self._windows = [_Window(limit, tally) for limit, tally in (tallies or {}).items()]

    def next(self, begin: int, units: int = 1) -> int:
        """Takes the earliest start at or after `begin`, epoch ms, that all limits allow a task with these units."""
        at = earliest_start(self.listed, self._small, begin, self._forgotten)
        if not self._windows:
            self.listed.insert(0, at)
            del self.listed[self._memory :]
            return at
        for window in self._windows:
            at = window.free_at(at, units)
        self.take(at, units)
        return at

    def more(self, at: int, units: int, most: int) -> int:
        """Takes up to `most` further starts at that time, which the planner gave last, as many as the limits allow."""
        if self._small or not self._windows:
            return 0
        count = min(most, *(window.fitting(units) for window in self._windows))
        if count > 0:
            self.take(at, units, count)
        return max(0, count)

    def take(self, at: int, units: int = 1, count: int = 1) -> None:
        """Counts `count` starts at that time, whether the limits allow them or not."""
        for window in self._windows:
            window.take(at, units * count if window.limit.counts_units else count)
        self.listed[:0] = [at] * min(count, self._memory)
        del self.listed[self._memory :]

    def tallies(self) -> dict[Limit, Tally]:
        return {window.limit: window.tally() for window in self._windows}


class _Window:
    """The buckets that count against one limit, at times that only go on."""

    def __init__(self, limit: Limit, tally: Tally) -> None:
        self.limit = limit
        #: number and count, newest first
        self._buckets = deque(tally.buckets.items())
        self._used = tally.total
        self._begin = (tally.newest - 1) * bucket_ms(limit) + 1 if tally.counts else 0

    def free_at(self, at: int, units: int) -> int:
        at, most = max(at, self._begin), self.limit.quota - self.limit.taken_by(units)
        while self._buckets and (self._used > most or self._leaves_at() <= at):
            at = max(at, self._leaves_at())
            self._used -= self._buckets.pop()[1]
        return at

    def fitting(self, units: int) -> int:
        return (self.limit.quota - self._used) // max(1, self.limit.taken_by(units))

    def take(self, at: int, count: int) -> None:
        number = bucket_of(at, self.limit)
        if self._buckets and self._buckets[0][0] >= number:
            number, earlier = self._buckets.popleft()
            self._buckets.appendleft((number, earlier + count))
        else:
            self._buckets.appendleft((number, count))
        self._used += count

    def tally(self) -> Tally:
        return Tally.of(dict(self._buckets))

    def _leaves_at(self) -> int:
        return self._buckets[-1][0] * bucket_ms(self.limit) + self.limit.window_ms
