"""The task `http`: makes a signed HTTP call for a user and maps the response's status to the task's outcome.

2xx succeeds. 429 and 503 with Retry-After throttle the task's shared limit; if it has none, the user's lane. 408, 425,
429 and 5xx are retried. Any other status fails the task at once.
"""

import base64
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Literal, Protocol

from msgspec import Meta, Struct, json

from chalicelib.core.errors import DestinationError, PayloadError, PermanentError, RetryAfter
from chalicelib.core.shared_names import SharedHost
from chalicelib.outbound.destinations import MAX_URL_LENGTH, destination, shared_limit_of
from chalicelib.outbound.signing import signed_headers
from chalicelib.tasks.registry import MAX_DEADLINE_SECONDS, Context

#: Statuses that are retried.
RETRIED_STATUSES = {408, 425, 429}
#: Statuses whose Retry-After throttles the shared limit or the lane.
THROTTLING_STATUSES = {429, 503}
#: Longest time-out of a call in seconds where the deadline is short.
LEAST_MAX_TIMEOUT_SECONDS = 30
#: Seconds before the deadline at which the longest call ends, so that its answer is still stored.
BEFORE_DEADLINE_SECONDS = 5

Url = Annotated[str, Meta(min_length=8, max_length=MAX_URL_LENGTH)]
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e\xa1-\xff][\t\x20-\x7e\xa0-\xff]{0,4095}")
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]
Timeout = Annotated[float, Meta(gt=0, le=MAX_DEADLINE_SECONDS)]
#: Headers that the client or the signature sets, so the payload may not.
RESERVED = {
    *("accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization"),
    *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    *("webhook-id", "webhook-signature", "webhook-timestamp"),
}


class HttpResponse(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def is_cut(self) -> bool: ...


#: method, URL, headers with lower-case names, body, timeout in seconds
Call = Callable[[str, str, Mapping[str, str], bytes, float], HttpResponse]


class HttpTask(Struct, frozen=True):
    """call: raises PermanentError if the call is not allowed, any other exception if the server did not answer.

    key: signs each call; None disables signing. allowed_hosts: the hosts that `call` allows. deadline_ms: of the task.
    now: epoch seconds. shared_hosts: those whose calls count against a shared limit.
    """

    call: Call
    key: bytes | None
    allowed_hosts: Sequence[str] = ("*",)
    deadline_ms: int = 0
    now: Callable[[], float] = time.time
    shared_hosts: Sequence[SharedHost] = ()

    def shared_of(self, payload: Mapping[str, Any]) -> str:
        """The shared limit that a call of the payload's URL counts against; empty for none."""
        return shared_limit_of(payload["url"], self.shared_hosts)

    def check(self, payload: Mapping[str, Any]) -> None:
        """Rejects at submit a payload that could only fail at its run. Raises PayloadError."""
        try:
            destination(payload["url"], self.allowed_hosts)
        except DestinationError as error:
            raise PayloadError(str(error), "/url") from error
        if payload["timeout"] > (most := self._max_timeout_seconds):
            raise PayloadError(f"a time-out of {payload['timeout']:g} s; allowed: at most {most:g}", "/timeout")
        for name, value in payload["headers"].items():
            _check_header(name, value)
        if taken := RESERVED & {name.lower() for name in payload["headers"]}:
            raise PayloadError(f"the header {sorted(taken)[0]!r} is set by Paceline", "/headers")

    def __call__(
        self,
        url: Url,
        method: Method = "POST",
        headers: dict[str, str] = {},  # noqa: B006 - a payload's default; never mutated
        body: Any = None,
        timeout: Timeout = 10.0,
        *,
        context: Context,
    ) -> dict[str, Any]:
        """Makes the call and returns the response's status, headers and body.

        body: a string is sent unchanged, other JSON is encoded, null sends an empty body.
        """
        content = body.encode() if isinstance(body, str) else b"" if body is None else json.encode(body)
        sent = self._headers(headers, body, content, context)
        answer = self.call(method, url, sent, content, timeout)
        self._raise_for_status(answer)
        return {"status": answer.status, **_body(answer)}

    @property
    def _max_timeout_seconds(self) -> float:
        return max(LEAST_MAX_TIMEOUT_SECONDS, self.deadline_ms / 1000 - BEFORE_DEADLINE_SECONDS)

    def _headers(self, given: Mapping[str, str], body: Any, content: bytes, context: Context) -> dict[str, str]:
        headers = {"user-agent": "Paceline", **{name.lower(): value for name, value in given.items()}}
        if context.traceparent:
            headers.setdefault("traceparent", context.traceparent)
        if body is not None:
            headers.setdefault("content-type", "text/plain" if isinstance(body, str) else "application/json")
        if self.key is None:
            return headers
        return headers | dict(signed_headers(self.key, context.task_id, int(self.now()), content))

    def _raise_for_status(self, answer: HttpResponse) -> None:
        """Raises the exception that a non-2xx status maps to."""
        if 200 <= answer.status < 300:
            return
        retry_after = answer.headers.get("retry-after")
        if (
            answer.status in THROTTLING_STATUSES
            and retry_after is not None
            and (seconds := self._seconds(retry_after)) is not None
        ):
            # The API refuses everybody who uses the same account, not this user.
            raise RetryAfter(seconds, f"HTTP {answer.status} with Retry-After {retry_after[:40]}", shared=True)
        reason = f"HTTP {answer.status}: {answer.body[:200].decode(errors='replace')}"
        if answer.status in RETRIED_STATUSES or answer.status >= 500:
            raise RuntimeError(reason)
        raise PermanentError(reason)

    def _seconds(self, retry_after: str) -> float | None:
        """Returns Retry-After in seconds from now; None if it is neither a number nor a date."""
        if (digits := retry_after.strip()).isascii() and digits.isdigit():
            return float(digits[:9])
        try:
            at = parsedate_to_datetime(retry_after)
        except (ValueError, TypeError, OverflowError):
            return None
        at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
        return max(0.0, (at - datetime.fromtimestamp(self.now(), timezone.utc)).total_seconds())


def _check_header(name: str, value: str) -> None:
    """Raises PayloadError, also for a line break, which could add another header."""
    if not _HEADER_NAME.fullmatch(name):
        allowed = "1 to 64 letters, digits and !#$%&'*+.^_`|~-"
        raise PayloadError(f"{name[:64]!r} is not a header's name, which has {allowed}", "/headers")
    if not _HEADER_VALUE.fullmatch(value):
        allowed = "1 to 4096 characters of ISO 8859-1 without line breaks, the first of them visible"
        raise PayloadError(f"the header {name!r} has a value that is not allowed; allowed: {allowed}", "/headers")


def _body(answer: HttpResponse) -> dict[str, Any]:
    """Returns the body as JSON or text if it parses as such, else as base64."""
    kept: dict[str, Any] = {"cut": True} if answer.is_cut else {}
    if not answer.is_cut and "json" in answer.headers.get("content-type", ""):
        try:
            return kept | {"json": json.decode(answer.body)}
        except (ValueError, RecursionError):
            pass
    try:
        return kept | {"text": answer.body.decode()}
    except UnicodeDecodeError:
        return kept | {"base64": base64.b64encode(answer.body).decode()}
