"""The port through which starts and outcomes are observed: by metrics, by traces, or not at all."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from chalicelib.core.claim import Start
from chalicelib.core.task import Task
from chalicelib.tasks.runner import Ended


class Attempt(Protocol):
    """An observed attempt, from its start on."""

    @property
    def traceparent(self) -> str:
        """By which what the function calls continues the trace; empty for none."""
        ...

    def ended(self, ended: Ended, at: int) -> None:
        """at: epoch ms."""
        ...


class Observer(Protocol):
    """Its methods never raise: a task does not fail because it could not be observed."""

    def started(self, task: Task, start: Start) -> Attempt: ...

    def finished(self, event: Mapping[str, Any]) -> None:
        """event: the line of the completion log, which has just been written."""
        ...


class UnobservedAttempt:
    """Passes the submit's own trace on."""

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def ended(self, ended: Ended, at: int) -> None:
        pass


class Observers:
    """Several observers as one; with none, the null object. The first one's traceparent is passed on."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = observers

    def started(self, task: Task, start: Start) -> Attempt:
        if not self._observers:
            return UnobservedAttempt(task.traceparent)
        return _Attempts([observer.started(task, start) for observer in self._observers])

    def finished(self, event: Mapping[str, Any]) -> None:
        for observer in self._observers:
            observer.finished(event)


class _Attempts:
    def __init__(self, attempts: Sequence[Attempt]) -> None:
        self._attempts = attempts

    @property
    def traceparent(self) -> str:
        return self._attempts[0].traceparent

    def ended(self, ended: Ended, at: int) -> None:
        for attempt in self._attempts:
            attempt.ended(ended, at)
