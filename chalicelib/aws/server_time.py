"""Compares this machine's clock with the `Date` of AWS's answers: one that is ahead would block a shared limit."""

from collections import deque
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from statistics import median
from typing import Any

#: Answers that are compared, and the fewest from which something follows.
SAMPLES, FEWEST = 9, 5
#: Milliseconds between two of them.
EVERY_MS = 1_000
#: Milliseconds by which the clock may be off, and by which the comparison may be: `Date` has whole seconds.
MAX_OFF_MS, ROUNDING_MS = 1_000, 500


class ServerTime:
    """Thread-safe: a lost sample does no harm."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._samples: deque[int] = deque(maxlen=SAMPLES)
        self._sampled_at = 0

    def watch(self, client: Any) -> None:
        """Looks at the answers of that client of DynamoDB from now on."""
        client.meta.events.register("after-call.dynamodb", self._answered)

    def _answered(self, parsed: Any, **_: Any) -> None:
        now_ms = self._now_ms()
        if 0 <= now_ms - self._sampled_at < EVERY_MS:
            return
        self._sampled_at = now_ms
        date = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        try:
            self._samples.append(now_ms - int(parsedate_to_datetime(date).timestamp()) * 1000)
        except ValueError:
            return  # an emulator that sends none

    @property
    def ahead_ms(self) -> int:
        """About how far this machine's clock is ahead; below 0 if it is behind, 0 while unknown."""
        samples = list(self._samples)
        return round(median(samples)) - ROUNDING_MS if len(samples) >= FEWEST else 0

    def is_off(self) -> bool:
        return abs(self.ahead_ms) > MAX_OFF_MS + ROUNDING_MS
