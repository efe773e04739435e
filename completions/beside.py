"""How many tasks of a user ran at once, by their starts and ends in the log. Judges only runs that are sure."""

import heapq
from collections.abc import Iterable, Iterator

from chalicelib.core.limits import Limits, at_once
from completions.reader import Completion
from completions.report import AtOnce, Breach

#: Milliseconds by which the clocks of two workers may differ.
CLOCKS_DIFFER_MS = 1_000
#: Milliseconds from a start for which its task's lease surely lasts: 10 s, less that difference. A worker that is cut
#: off from DynamoDB after that may run its task although its slot is free again.
SURE_MS = 10_000 - CLOCKS_DIFFER_MS


def most_at_once(user_id: str, ends: Iterable[Completion]) -> AtOnce | None:
    """The most tasks of the user that ran at once, and when the last of them started; None if none has succeeded."""
    counts = [(count, end.started_at) for end, count in _beside(ends, is_sure=False) if end.word == "completed"]
    most = max(counts, key=lambda found: found[0], default=None)
    return AtOnce(most[0] + 1, user_id, most[1] or 0) if most else None


def too_many(ends: Iterable[Completion], default_limits: Limits) -> Iterator[Breach]:
    """The starts beside as many running tasks as may run at once."""
    for end, count in _beside(ends, is_sure=True):
        allowed = at_once(default_limits if end.limits is None else end.limits)
        if count >= allowed:
            what = f"task {end.task_id} started beside {count} that ran; {allowed} at once"
            yield Breach("at once", end.user_id, end.started_at or 0, what)


def _beside(ends: Iterable[Completion], is_sure: bool) -> Iterator[tuple[Completion, int]]:
    """Each task whose last start is known, by start, and how many others ran then. Ends of earlier attempts are not."""
    started = {end.task_id: end for end in ends if end.started_at is not None}
    running: list[int] = []
    for end in sorted(started.values(), key=lambda end: (end.started_at or 0, end.seq)):
        at = end.started_at or 0
        while running and running[0] <= at:
            heapq.heappop(running)
        yield end, len(running)
        if end.word == "completed":  # another task's worker may have died long before its outcome
            until = min(end.completed_at - CLOCKS_DIFFER_MS, at + SURE_MS) if is_sure else end.completed_at
            heapq.heappush(running, until)
