"""The ports of clock, completion log and presence, and the sums that metrics show."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from msgspec import Struct


class Clock(Protocol):
    def now_ms(self) -> int:
        """The current time in epoch milliseconds."""
        ...

    def sleep(self, milliseconds: int) -> bool:
        """Sleeps; True if it ended early because the process must stop."""
        ...

    def sleep_until(self, at: int) -> None:
        """Sleeps until that time, epoch ms, without interruption; returns at once if it is past."""
        ...


class CompletionLog(Protocol):
    def write(self, event: dict[str, Any]) -> None:
        """Appends one event as one whole line. Raises OSError if it cannot."""
        ...


class Presence(Protocol):
    """Tracks the claims that live processes on this machine are serving; does not use AWS."""

    def serving(self, token: str, /) -> AbstractContextManager[None]:
        """Marks the claim as served while the body runs and this process lives."""
        ...

    def is_served(self, token: str, /) -> bool: ...


class Backlog(Struct, frozen=True):
    """Sums over all lanes."""

    lanes: int
    waiting: int
    running: int
    paused: int
    throttled: int


class SharedBacklog(Struct, frozen=True):
    """How far a shared limit is used."""

    name: str
    #: lanes that wait for their turn, about
    waiting: int
    #: tasks that run; counted only with a number at once
    running: int
    #: starts, or units, that count now, and the quota, by the names of its limits
    used: Mapping[str, tuple[int, int]]
