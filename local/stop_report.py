"""Says on the terminal which running tasks a stop waits for, and which ones it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from local.running_calls import RunningCall

#: Seconds before the first line, since most tasks end within a moment, and between two lines.
FIRST_SECONDS, AGAIN_SECONDS = 2.0, 60.0
#: Tasks that a line names.
_NAMED = 5


class StopReport:
    """The lines of one stop."""

    def __init__(
        self,
        say: Callable[[str], None],
        until: str,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """until: what else ends the wait, for the first line. monotonic, now: clocks, in seconds."""
        self._say = say
        self._until = until
        self._monotonic = monotonic
        self._now = now
        self._say_at = monotonic() + FIRST_SECONDS
        self._has_said = False
        self._calls: Sequence[RunningCall] = ()

    def waits_for(self, calls: Sequence[RunningCall]) -> None:
        """Call it every moment; says at times which tasks still run."""
        self._calls = calls
        if not calls or self._monotonic() < self._say_at:
            return
        self._say_at = self._monotonic() + AGAIN_SECONDS
        head = "Still waiting for" if self._has_said else f"{self._until} Waiting for"
        self._has_said = True
        self._say(f"{head} {_count(calls)}: {self._named(calls)}")

    def ends(self) -> None:
        """Says which of the tasks that were waited for last are now ended."""
        if self._calls:
            again = "it takes another attempt" if len(self._calls) == 1 else "they take another attempt"
            self._say(f"Ended {_count(self._calls)}, {again} if there is one left: {self._named(self._calls)}")

    def _named(self, calls: Sequence[RunningCall]) -> str:
        named = ", ".join(map(self._line, calls[:_NAMED]))
        return f"{named} and {len(calls) - _NAMED} more" if len(calls) > _NAMED else named

    def _line(self, call: RunningCall) -> str:
        now_ms = self._now() * 1000
        runs, left = _span(now_ms - call.started_at), _span(call.deadline_at - now_ms)
        return f"{call.name} of {call.user_id} (runs for {runs}, at most {left} more)"


def _count(calls: Sequence[RunningCall]) -> str:
    return f"{len(calls)} running task{'' if len(calls) == 1 else 's'}"


def _span(milliseconds: float) -> str:
    """`40 s`, `5 min`, `3 h 20 min`."""
    seconds = max(0, round(milliseconds / 1000))
    if seconds < 120:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
