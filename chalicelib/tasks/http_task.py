"""The task `http`: a call to somebody's server on behalf of a user, signed, told to slow down by the answer's status.

2xx succeeds. 429 and 503 with Retry-After hold the user's lane until then. 408, 425, 429 and 5xx are tried again; any
other status fails at once.
"""

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Literal, Protocol

from msgspec import Meta, Struct, json

from chalicelib.core.errors import DestinationError, PayloadError, PermanentError, RetryAfter
from chalicelib.outbound.destinations import MAX_URL, destination
from chalicelib.outbound.signing import signed_headers
from chalicelib.tasks.registry import Context

#: Statuses after which trying again may help.
RETRIED = {408, 425, 429}
#: Statuses whose Retry-After holds the lane.
SLOW_DOWN = {429, 503}
MAX_TIMEOUT_SECONDS = 30

# `\Z`, since `$` also matches before a line break at the end, and that would end the header.
Url = Annotated[str, Meta(min_length=8, max_length=MAX_URL, pattern=r"^https?://[!-~]+\Z")]
HeaderName = Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}\Z")]
HeaderValue = Annotated[str, Meta(pattern=r"^[\x21-\x7e\xa1-\xff][\t\x20-\x7e\xa0-\xff]*\Z", max_length=4096)]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]
Timeout = Annotated[float, Meta(gt=0, le=MAX_TIMEOUT_SECONDS)]
#: Set by the client or by the signature, not by the payload.
RESERVED = {
    *("accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization"),
    *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    *("webhook-id", "webhook-signature", "webhook-timestamp"),
}


class Answered(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def is_cut(self) -> bool: ...


#: method, URL, headers with lower-case names, body, time-out in seconds
Call = Callable[[str, str, Mapping[str, str], bytes, float], Answered]


class HttpTask(Struct, frozen=True):
    """call: raises PermanentError when it is not allowed, anything else when there was no answer.

    key: signs each call; None signs none. allowed_hosts: those that `call` allows. now: epoch seconds.
    """

    call: Call
    key: bytes | None
    allowed_hosts: Sequence[str] = ("*",)
    now: Callable[[], float] = time.time

    def check(self, payload: Mapping[str, Any]) -> None:
        """Refuses at submit what could only fail later. PayloadError."""
        try:
            destination(payload["url"], self.allowed_hosts)
        except DestinationError as error:
            raise PayloadError(str(error), "/url") from error
        if taken := RESERVED & {name.lower() for name in payload["headers"]}:
            raise PayloadError(f"the header {sorted(taken)[0]!r} can't be set", "/headers")

    def __call__(
        self,
        url: Url,
        method: Method = "POST",
        headers: dict[HeaderName, HeaderValue] = {},  # noqa: B006 - never changed; it is the default of a type
        body: Any = None,
        timeout: Timeout = 10.0,
        *,
        context: Context,
    ) -> dict[str, Any]:
        """Makes the call; the answer's status, headers and body are the result.

        body: text is sent as it is, anything else as JSON; none with null.
        """
        content = body.encode() if isinstance(body, str) else b"" if body is None else json.encode(body)
        sent = self._headers(headers, body, content, context)
        answer = self.call(method, url, sent, content, timeout)
        self._judge(answer)
        return {"status": answer.status, **_kept_body(answer)}

    def _headers(self, given: Mapping[str, str], body: Any, content: bytes, context: Context) -> dict[str, str]:
        headers = {"user-agent": "Paceline", **{name.lower(): value for name, value in given.items()}}
        if body is not None:
            headers.setdefault("content-type", "text/plain" if isinstance(body, str) else "application/json")
        if self.key is None:
            return headers
        return headers | dict(signed_headers(self.key, context.task_id, int(self.now()), content))

    def _judge(self, answer: Answered) -> None:
        """Raises what an answer means that is no success."""
        if 200 <= answer.status < 300:
            return
        told = answer.headers.get("retry-after")
        if answer.status in SLOW_DOWN and told is not None and (seconds := self._seconds(told)) is not None:
            raise RetryAfter(seconds, f"HTTP {answer.status} with Retry-After {told[:40]}")
        reason = f"HTTP {answer.status}: {answer.body[:200].decode(errors='replace')}"
        if answer.status in RETRIED or answer.status >= 500:
            raise RuntimeError(reason)
        raise PermanentError(reason)

    def _seconds(self, told: str) -> float | None:
        """Retry-After in seconds from now; None when it is neither a number nor a date."""
        if (digits := told.strip()).isascii() and digits.isdigit():
            return float(digits[:9])
        try:
            at = parsedate_to_datetime(told)
        except (ValueError, TypeError, OverflowError):
            return None
        at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
        return max(0.0, (at - datetime.fromtimestamp(self.now(), timezone.utc)).total_seconds())


def _kept_body(answer: Answered) -> dict[str, Any]:
    """The body as JSON or text if it is that, else as base64."""
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
