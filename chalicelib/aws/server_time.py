"""Compares this machine's clock with the `Date` of AWS's answers: one that is ahead would block a shared limit."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

#: Milliseconds by which the clock may be off.
MAX_OFF_MS = 1_000


class ServerTime:
    """Thread-safe."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._is_off = False

    def is_off(self) -> bool:
        """The last answer shows that this machine's clock is surely off by over a second."""
        return self._is_off

    @contextmanager
    def comparing(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Gives a function that compares the answer to the body's one call."""
        begun_at = self._now_ms()

        def compare(answer: Mapping[str, Any]) -> None:
            date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
            try:
                second_ms = int(parsedate_to_datetime(date).timestamp()) * 1000
            except (TypeError, ValueError):
                return  # an emulator that sends none
            # It was answered between the two, in that second.
            least_ms, most_ms = begun_at - second_ms - 1_000, self._now_ms() - second_ms
            self._is_off = least_ms > MAX_OFF_MS or most_ms < -MAX_OFF_MS

        yield compare
