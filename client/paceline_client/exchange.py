"""Sends one call's requests: timeouts, retries and their budget, and problem answers as errors.

Every request may be sent again: a submit carries an idempotency key, all others change nothing the second time.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from paceline_client.answers import http_date, json_object
from paceline_client.calls import Call
from paceline_client.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    ProblemError,
    Refused,
    UnauthenticatedError,
    UnavailableError,
)
from paceline_client.steps import Send, Sleep, Steps, Times

#: Seconds before the second try; they double from try to try, up to the most.
FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 5.0
#: Answers that say nothing about the request itself.
TRANSIENT_STATUSES = frozenset({502, 503, 504})
PROBLEMS: Mapping[int, type[ProblemError]] = {
    400: InvalidError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidError,
    415: InvalidError,
    422: InvalidError,
    429: Refused,
}


@dataclass(frozen=True)
class Retries:
    """When a request is sent again, and for how long."""

    #: seconds that a request may take, all tries and the pauses between them included
    total_seconds: float
    #: seconds that each wait of one try may take: for the request to be sent, and for bytes of the answer
    try_seconds: float
    #: a call that has not reached Paceline yet fails at its first connection error
    fail_fast: bool


class Exchange:
    """The requests of one call; it keeps whether one of them has reached a server."""

    def __init__(self, retries: Retries, times: Times, random: Callable[[], float]) -> None:
        self.retries = retries
        self._times = times
        self._random = random
        self._has_reached = False

    def send(self, call: Call, within_seconds: float | None = None) -> Steps[httpx.Response]:
        """Sends until an answer is final; UnavailableError if none is within the time.

        A Retry-After that ends later than the call may last is not waited for.
        """
        total = self.retries.total_seconds
        deadline = self._times.monotonic() + (total if within_seconds is None else min(total, within_seconds))
        tries, was_sent = 0, False
        while True:
            tries += 1
            outcome = yield from self._try(call, deadline - self._times.monotonic())
            if isinstance(outcome, httpx.Response) and not _is_transient(outcome):
                return outcome
            was_sent = was_sent or _was_sent(outcome)
            pause = self._backoff(outcome, tries)
            if self._is_hopeless(outcome) or self._times.monotonic() + pause >= deadline:
                raise _unavailable(outcome, tries, was_sent)
            yield Sleep(pause)

    def send_once(self, call: Call) -> Steps[httpx.Response]:
        """Sends once and returns any answer."""
        outcome = yield from self._try(call, self.retries.total_seconds)
        if isinstance(outcome, httpx.Response):
            return outcome
        raise _unavailable(outcome, 1, _was_sent(outcome))

    def body(self, call: Call) -> Steps[dict[str, Any]]:
        """Returns a successful answer's body; raises the error of any other answer."""
        response = yield from self.send(call)
        return self.body_of(response)

    def body_of(self, response: httpx.Response) -> dict[str, Any]:
        if not response.is_success:
            raise self.problem_of(response)
        return json_object(response)

    def problem_of(self, response: httpx.Response) -> ProblemError:
        """The error of an unsuccessful answer: its problem body (RFC 9457), else its status."""
        body = json_object(response)
        title = body.get("title") or body.get("message") or response.reason_phrase
        kind = PROBLEMS.get(response.status_code, ProblemError)
        where = body.get("field")
        return kind(
            response.status_code,
            str(title),
            str(body.get("detail") or ""),
            None if where is None else str(where),
            self._retry_after(response),
        )

    def _try(self, call: Call, seconds_left: float) -> Steps[httpx.Response | httpx.TransportError]:
        step = Send(call, max(0.01, min(self.retries.try_seconds, seconds_left)))
        outcome: httpx.Response | httpx.TransportError = yield step
        self._has_reached = self._has_reached or _was_sent(outcome)
        return outcome

    def _backoff(self, outcome: httpx.Response | httpx.TransportError, tries: int) -> float:
        """Seconds until the next try: half fixed, half random, so that clients do not retry in step."""
        backoff = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(tries - 1, 10))
        jittered = backoff / 2 + backoff / 2 * self._random()
        asked = self._retry_after(outcome) if isinstance(outcome, httpx.Response) else None
        return jittered if asked is None else asked + jittered

    def _retry_after(self, response: httpx.Response) -> float | None:
        """Returns the seconds from now; the header holds seconds or a date."""
        text = response.headers.get("Retry-After", "")
        if text.isascii() and text.isdigit():
            return float(text)
        at = http_date(text)
        return None if at is None else max(0.0, at - self._times.now())

    def _is_hopeless(self, outcome: object) -> bool:
        """True if the call gives up now: no connection, where that fails fast, or an invalid certificate."""
        is_unreached = self.retries.fail_fast and not self._has_reached
        return (is_unreached and isinstance(outcome, UNCONNECTED)) or _has_invalid_certificate(outcome)


#: Errors before a connection was there.
UNCONNECTED = (httpx.ConnectError, httpx.ConnectTimeout)


def _was_sent(outcome: object) -> bool:
    """False only if the server can't have read the request."""
    return not isinstance(outcome, (*UNCONNECTED, httpx.PoolTimeout))


def _is_transient(response: httpx.Response) -> bool:
    """True for answers that a retry can change. A 409 about the key means that the first try is still being served."""
    is_being_served = response.status_code == 409 and json_object(response).get("field") == "Idempotency-Key"
    return is_being_served or response.status_code in TRANSIENT_STATUSES


def _has_invalid_certificate(outcome: object) -> bool:
    error = outcome if isinstance(outcome, BaseException) else None
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _unavailable(outcome: httpx.Response | httpx.TransportError, tries: int, was_sent: bool) -> UnavailableError:
    if isinstance(outcome, httpx.Response):
        title = json_object(outcome).get("title") or outcome.reason_phrase
        return UnavailableError(f"{outcome.status_code} {title}", tries, outcome.status_code, was_sent)
    unavailable = UnavailableError(f"{type(outcome).__name__}: {outcome}", tries, None, was_sent)
    unavailable.__cause__ = outcome
    return unavailable
