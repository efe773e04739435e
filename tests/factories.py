"""Factories with defaults: a clock that tests move, settings, tasks."""

from collections.abc import Callable
from itertools import count
from typing import Any

from chalicelib.core.lane import Lane
from chalicelib.core.task import Task
from chalicelib.settings import Settings

#: Sunday 2026-11-22 05:20:29.123 UTC.
NOW = 1_795_324_829_123


class VirtualClock:
    """Sleeping moves it, at once; what was planned for a time happens when it comes by."""

    def __init__(self, now_ms: int = NOW) -> None:
        self._now_ms = now_ms
        self._plans: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self.stopping = False

    def now_ms(self) -> int:
        return self._now_ms

    def sleep(self, milliseconds: int) -> bool:
        if not self.stopping:
            self.advance(milliseconds)
        return self.stopping

    def sleep_until(self, at: int) -> None:
        self.advance(max(0, at - self._now_ms))

    def advance(self, milliseconds: int) -> None:
        until = self._now_ms + milliseconds
        while self._plans and min(self._plans)[0] <= until:
            plan = min(self._plans)
            self._plans.remove(plan)
            self._now_ms = max(self._now_ms, plan[0])
            plan[2]()
        self._now_ms = max(self._now_ms, until)

    def step_back(self, milliseconds: int) -> None:
        self._now_ms -= milliseconds

    def at(self, when_ms: int, happens: Callable[[], None]) -> None:
        self._plans.append((when_ms, next(self._numbers), happens))


def make_settings(**env: str) -> Settings:
    return Settings.from_env(env)


def task_id_of(seq: int) -> str:
    """An id such as tasks have: hexadecimal, in the order of the submits."""
    return f"0198-{seq:04}"


def make_task(seq: int = 1, user_id: str = "ann", **changed: Any) -> Task:
    fields: dict[str, Any] = {
        "user_id": user_id,
        "task_id": task_id_of(seq),
        "seq": seq,
        "name": "log",
        "payload": None,
        "planned_at": NOW,
        "submitted_at": NOW,
    }
    return Task(**{**fields, **changed})


def make_lane(**fields: Any) -> Lane:
    return Lane(**{"user_id": "ann", **fields})
