"""The steps of a call, apart from their execution, so that both clients share one implementation of the rules.

The rules are generators. They yield a step, get its outcome, and return the call's result; a client performs the steps.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import httpx

from paceline_client.calls import Call
from paceline_client.errors import AnswerError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Send:
    """Send a request once; its outcome is the answer, or the error that came instead."""

    call: Call
    #: seconds that each wait for the network may take
    try_seconds: float


@dataclass(frozen=True)
class Sleep:
    """Wait; its outcome is None."""

    seconds: float


Step = Send | Sleep
Outcome = httpx.Response | httpx.TransportError | None
#: A call's steps; they return the call's result.
Steps = Generator[Step, Any, Value]


class Times(Protocol):
    def now(self) -> float:
        """Epoch seconds."""
        ...

    def monotonic(self) -> float:
        """Monotonic seconds."""
        ...


def run(steps: Steps[Value], perform: Callable[[Step], Outcome]) -> Value:
    """Performs each step and returns the call's result; errors of a step are raised inside the rules."""
    proceed: Callable[[Any], Step] = steps.send
    outcome: Any = None
    try:
        while True:
            step = proceed(outcome)
            try:
                proceed, outcome = steps.send, perform(step)
            except Exception as error:  # noqa: BLE001 - the rules decide about every error
                proceed, outcome = steps.throw, error
    except StopIteration as ended:
        value: Value = ended.value
        return value


async def run_async(steps: Steps[Value], perform: Callable[[Step], Awaitable[Outcome]]) -> Value:
    """As `run`; a cancelled call sends nothing further."""
    proceed: Callable[[Any], Step] = steps.send
    outcome: Any = None
    try:
        while True:
            step = proceed(outcome)
            try:
                proceed, outcome = steps.send, await perform(step)
            except Exception as error:  # noqa: BLE001 - the rules decide about every error
                proceed, outcome = steps.throw, error
    except StopIteration as ended:
        value: Value = ended.value
        return value


def request_options(step: Send, token: str | None, connect_seconds: float) -> dict[str, Any]:
    """The arguments of httpx's `request`."""
    call = step.call
    return {
        "method": call.method,
        "url": call.path,
        "content": call.content,
        "headers": {**call.headers, **_authorization(token)},
        "params": call.params or None,
        "timeout": httpx.Timeout(step.try_seconds, connect=min(connect_seconds, step.try_seconds)),
    }


def transport_error(error: httpx.HTTPError, call: Call) -> httpx.TransportError:
    """Returns an error of the network, as the step's outcome. AnswerError for any other."""
    if isinstance(error, httpx.TimeoutException | httpx.NetworkError | httpx.RemoteProtocolError | httpx.ProxyError):
        return error
    raise AnswerError(f"{call.method} {call.path}: {error}") from error


def _authorization(token: str | None) -> dict[str, str]:
    if token is None:
        return {}
    if not token.isascii() or not token.isprintable():
        raise ValueError("the token has characters that no header can hold")
    return {"Authorization": f"Bearer {token}"}
