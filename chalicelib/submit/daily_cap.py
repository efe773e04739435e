"""The daily cap: how many of one user's tasks may be due on one day.

A day's count only grows, and expires with the day: cancelled and finished tasks count until then. So a process that
dies leaves no count too high for good, and the admission of a scheduled task costs no call here.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone

from chalicelib.core.ports import ScheduledCounts

DAY_MS = 86_400_000


class DailyCap:
    def __init__(self, counts: ScheduledCounts, per_day: int) -> None:
        """per_day: tasks of a user that may be due on one day, UTC."""
        self._counts = counts
        self.per_day = per_day

    def take(self, user_id: str, due_at: Sequence[int], now_ms: int) -> int | None:
        """Takes room for tasks due then, epoch ms, for all or none: None if one of the days is full.

        Returns a number greater than that of each submit of this user that was answered before. With no times it takes
        no room: for a repeat, whose first try has taken it.
        """
        days = Counter(at // DAY_MS for at in due_at)
        return self._counts.add(user_id, now_ms // DAY_MS, days, self.per_day)

    def give_back(self, user_id: str, due_at: Sequence[int], now_ms: int) -> None:
        """Gives back the room of tasks that were not scheduled after all."""
        days = {day: -count for day, count in Counter(at // DAY_MS for at in due_at).items()}
        if days:
            self._counts.add(user_id, now_ms // DAY_MS, days, self.per_day)


def room_at(due_at: Sequence[int], now_ms: int) -> int:
    """The time, epoch ms, from which on the same request, with the same delays, is due on none of today's full days.

    >>> room_at([18 * 3_600_000], now_ms=10 * 3_600_000) // 3_600_000
    16
    """
    return now_ms + (max(due_at) // DAY_MS + 1) * DAY_MS - min(due_at)


def days_of(due_at: Sequence[int]) -> list[str]:
    """The days (UTC) on which something is due, in order, such as `2026-11-22`."""
    days = sorted({at // DAY_MS for at in due_at})
    return [datetime.fromtimestamp(day * DAY_MS // 1000, timezone.utc).date().isoformat() for day in days]
