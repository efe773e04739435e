"""Shared limits: their values, and the operations on them, which need an admin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from urllib.parse import quote

from paceline_client.answers import read_answer
from paceline_client.calls import Call, epoch_ms, json_call
from paceline_client.errors import AnswerError
from paceline_client.values import Limit


@dataclass(frozen=True)
class Waiter:
    """A lane that waits for its turn at a shared limit."""

    user_id: str
    task_id: str
    #: lower turns start first
    turn: int


@dataclass(frozen=True)
class SharedLimit:
    """A limit that tasks of many users count against."""

    name: str
    #: in force, as text: `25/second; 10 at once`; empty if it was deleted
    limits: str
    #: as SHARED_LIMITS has it; None if it does not
    setting: str | None
    policies: tuple[Limit, ...]
    #: how many tasks may run at once; None for any number
    at_once: int | None
    #: tasks that run; counted only with a number at once
    running: int
    #: lanes that wait for their turn, about
    waiting: int
    #: up to 20 of them, in order of turns
    waiters: tuple[Waiter, ...]
    #: None when it is paused without an end, or full at once
    next_start_at: int | None
    paused: bool
    #: None when not paused, or paused without an end
    paused_until: int | None
    #: end of the throttling; None if it is not throttled
    throttled_until: int | None
    #: why; None when it is not throttled
    throttled_reason: str | None
    #: the newest starts of all users, newest first
    starts: tuple[int, ...]
    #: all starts ever taken
    started: int
    #: the server's time
    now: int


class SharedLimitCalls(ABC):
    """The operations of a client on shared limits."""

    @abstractmethod
    def _body(self, call: Call) -> dict[str, Any]:
        """Sends the call and returns the answer's body; raises the error of an unsuccessful one."""

    def shared_limits(self) -> list[SharedLimit]:
        """Returns all shared limits, by name, each with who waits."""
        body = self._body(Call("GET", "/api/v1/limits"))
        if not isinstance(body.get("limits"), list):
            raise AnswerError("the answer has no list of limits: is this a Paceline?")
        return [_shared_limit(one) for one in body["limits"]]

    def shared_limit(self, name: str) -> SharedLimit:
        """Returns the shared limit and who waits. NotFoundError if there is none of that name."""
        return _shared_limit(self._body(Call("GET", _path(name))))

    def set_shared_limit(self, name: str, limits: str) -> SharedLimit:
        """Sets limits such as `25/second; 10 at once`, in force from the next start on, whatever SHARED_LIMITS says."""
        return _shared_limit(self._body(json_call("PUT", _path(name), {"limits": limits})))

    def delete_shared_limit(self, name: str) -> SharedLimit:
        """Takes back what was set: the setting's limits hold again, or none; `waiting` is how many lanes waited."""
        return _shared_limit(self._body(Call("DELETE", _path(name))))

    def pause_shared_limit(self, name: str, until: int | datetime | None = None) -> SharedLimit:
        """Pauses it until that time, None for no end. Once this returns, no task that counts against it starts."""
        body = {} if until is None else {"until": epoch_ms(until, "until")}
        return _shared_limit(self._body(json_call("POST", _path(name, "/pause"), body)))

    def resume_shared_limit(self, name: str) -> SharedLimit:
        """Ends its pause and its throttling, if there are any."""
        return _shared_limit(self._body(json_call("POST", _path(name, "/resume"), {})))


def _path(name: str, rest: str = "") -> str:
    return f"/api/v1/limits/{quote(name, safe='')}{rest}"


def _shared_limit(body: Mapping[str, Any]) -> SharedLimit:
    """Ignores unknown fields."""
    try:
        known = {field.name: body[field.name] for field in fields(SharedLimit) if field.name in body}
        known["policies"] = tuple(read_answer(Limit, one) for one in body["policies"])
        known["waiters"] = tuple(_waiter(one) for one in body["waiters"])
        return SharedLimit(**{**known, "starts": tuple(body["starts"])})
    except (TypeError, KeyError) as error:
        raise AnswerError(f"the answer is no SharedLimit: is this a Paceline? {error}") from error


def _waiter(body: Mapping[str, Any]) -> Waiter:
    return Waiter(**{field.name: body[field.name] for field in fields(Waiter)})
