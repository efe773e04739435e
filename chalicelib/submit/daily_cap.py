"""The daily cap: how many of one user's tasks may be due on one day.

A day's count only grows and goes with the day: what was cancelled or has run counts until then. So nothing that dies in
between leaves a count too high for good, and a task that gets its place costs no call here.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone

from chalicelib.core.ports import ScheduledCounts

DAY_MS = 86_400_000


class DailyCap:
    def __init__(self, counts: ScheduledCounts, most: int) -> None:
        """most: tasks that are due on one day, UTC."""
        self._counts = counts
        self.most = most

    def take(self, user_id: str, due_at: Sequence[int], now_ms: int) -> bool:
        """Room for tasks that are due then, epoch ms, for all or for none: False when one of the days is full."""
        days = Counter(at // DAY_MS for at in due_at)
        return not days or self._counts.add(user_id, now_ms // DAY_MS, days, self.most)

    def give_back(self, user_id: str, due_at: Sequence[int], now_ms: int) -> None:
        """Gives back the room of tasks that were not scheduled after all."""
        days = {day: -count for day, count in Counter(at // DAY_MS for at in due_at).items()}
        if days:
            self._counts.add(user_id, now_ms // DAY_MS, days, self.most)


def room_at(due_at: Sequence[int], now_ms: int) -> int:
    """When the same request, due as long after it, has left all the days behind on which it is due now; epoch ms.

    >>> room_at([18 * 3_600_000], now_ms=10 * 3_600_000) // 3_600_000
    16
    """
    return now_ms + (max(due_at) // DAY_MS + 1) * DAY_MS - min(due_at)


def days_of(due_at: Sequence[int]) -> list[str]:
    """The days (UTC) on which something is due, in order, such as `2026-11-22`."""
    days = sorted({at // DAY_MS for at in due_at})
    return [datetime.fromtimestamp(day * DAY_MS // 1000, timezone.utc).date().isoformat() for day in days]
