"""Sends requests to Paceline with timeouts and retries, and turns problem answers into errors.

Every call may be sent again: a submit carries an idempotency key, all others change nothing the second time.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import httpx

from paceline_client.answers import http_date, json_object
from paceline_client.calls import Call
from paceline_client.errors import (
    AnswerError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    ProblemError,
    Refused,
    UnauthenticatedError,
    UnavailableError,
)

Token = str | Callable[[], str] | None

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


class Clock(Protocol):
    def now(self) -> float:
        """Epoch seconds."""
        ...

    def monotonic(self) -> float:
        """Monotonic seconds."""
        ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Sender:
    """Holds no state but httpx's pool of connections, so threads may share it."""

    def __init__(
        self,
        http: httpx.Client,
        token: Token,
        clock: Clock,
        random: Callable[[], float],
        try_seconds: float,
        total_seconds: float,
    ) -> None:
        self._http = http
        self._token = token
        self._clock = clock
        self._random = random
        self._try_seconds = try_seconds
        self.total_seconds = total_seconds

    def close(self) -> None:
        self._http.close()

    def send(self, call: Call, within_seconds: float | None = None) -> httpx.Response:
        """Sends until an answer is final; UnavailableError if none is within the time.

        A Retry-After that ends later than the call may last is not waited for.
        """
        total = self.total_seconds if within_seconds is None else min(self.total_seconds, within_seconds)
        deadline = self._clock.monotonic() + total
        tries = 0
        while True:
            tries += 1
            outcome = self._try(call, deadline - self._clock.monotonic())
            if isinstance(outcome, httpx.Response) and not _is_transient(outcome):
                return outcome
            pause = self._backoff(outcome, tries)
            if _is_hopeless(outcome) or self._clock.monotonic() + pause >= deadline:
                raise _unavailable(outcome, tries)
            self._clock.sleep(pause)

    def send_once(self, call: Call) -> httpx.Response:
        """Sends once and returns any answer."""
        outcome = self._try(call, self.total_seconds)
        if isinstance(outcome, httpx.Response):
            return outcome
        raise _unavailable(outcome, 1)

    def body_of(self, response: httpx.Response) -> dict[str, Any]:
        """Returns a successful answer's body; raises the error of any other answer."""
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

    def _try(self, call: Call, seconds_left: float) -> httpx.Response | httpx.TransportError:
        try:
            return self._http.request(
                call.method,
                call.path,
                content=call.content,
                headers={**call.headers, **self._authorization()},
                params=call.params or None,
                timeout=max(0.01, min(self._try_seconds, seconds_left)),
            )
        except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError) as error:
            return error
        except httpx.HTTPError as error:
            raise AnswerError(f"{call.method} {call.path}: {error}") from error

    def _authorization(self) -> dict[str, str]:
        token = self._token() if callable(self._token) else self._token
        if token is None:
            return {}
        if not token.isascii() or not token.isprintable():
            raise ValueError("the token has characters that no header can hold")
        return {"Authorization": f"Bearer {token}"}

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
        return None if at is None else max(0.0, at - self._clock.now())


def _is_transient(response: httpx.Response) -> bool:
    """True for answers that a retry can change. A 409 about the key means that the first try is still being served."""
    is_being_served = response.status_code == 409 and json_object(response).get("field") == "Idempotency-Key"
    return is_being_served or response.status_code in TRANSIENT_STATUSES


def _is_hopeless(outcome: object) -> bool:
    """True for errors that no retry can mend, such as an invalid certificate."""
    error = outcome if isinstance(outcome, BaseException) else None
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _unavailable(outcome: httpx.Response | httpx.TransportError, tries: int) -> UnavailableError:
    if isinstance(outcome, httpx.Response):
        title = json_object(outcome).get("title") or outcome.reason_phrase
        return UnavailableError(f"{outcome.status_code} {title}", tries, outcome.status_code)
    unavailable = UnavailableError(f"{type(outcome).__name__}: {outcome}", tries)
    unavailable.__cause__ = outcome
    return unavailable
