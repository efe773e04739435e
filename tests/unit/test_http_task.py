"""The task `http`: what it sends, and what it makes of the answer."""

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from chalicelib.core.errors import PayloadError, PermanentError, RetryAfter
from chalicelib.outbound.signing import secret_bytes
from chalicelib.tasks.http_task import RESERVED, HttpTask
from chalicelib.tasks.registry import Context, Registry

NOW = 1_795_324_829
CONTEXT = Context("ann", "0198-0001", "http", 1, 1, 0, logging.getLogger("test"))
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@dataclass
class Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_cut: bool = False


@dataclass
class Server:
    """Answers so, and keeps what it was sent."""

    answer: Answer = field(default_factory=Answer)
    method: str = ""
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    timeout: float = 0.0

    def call(self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        self.timeout = timeout
        self.method, self.url, self.headers, self.body = method, url, headers, body
        return self.answer


def run(
    payload: Mapping[str, Any], answer: Answer | None = None, key: bytes | None = None, deadline_ms: int = 0
) -> tuple[Server, Any]:
    server = Server(answer or Answer())
    registry = Registry()
    http = HttpTask(server.call, key, ("api.example.com",), deadline_ms, lambda: NOW)
    registry.task("http", check=http.check)(http.__call__)
    return server, registry["http"].run({"url": "https://api.example.com/", **payload}, CONTEXT)


def test_body_is_sent_as_json_and_text_as_it_is() -> None:
    server, result = run({"body": {"a": [1, "ä"]}})
    assert (server.method, json.loads(server.body)) == ("POST", {"a": [1, "ä"]})
    assert server.headers["content-type"] == "application/json"
    assert result == {"status": 200, "text": ""}
    server, _ = run({"body": "ä", "headers": {"Content-Type": "text/csv", "X-A": "b"}, "method": "PUT"})
    assert (server.method, server.body, server.headers["content-type"]) == ("PUT", "ä".encode(), "text/csv")
    assert server.headers["x-a"] == "b"
    server, _ = run({"method": "GET"})
    assert (server.method, server.body) == ("GET", b"")
    assert "content-type" not in server.headers


@pytest.mark.parametrize(
    ("deadline_seconds", "longest"), [(5, 30), (35, 30), (50, 45), (900, 895), (39_600, 39_595), (36.5, 31.5)]
)
def test_call_may_take_until_shortly_before_the_deadline(deadline_seconds: float, longest: float) -> None:
    deadline_ms = round(deadline_seconds * 1000)
    server, _ = run({"timeout": longest}, deadline_ms=deadline_ms)
    assert server.timeout == longest
    with pytest.raises(PayloadError, match=f"allowed: at most {longest:g}") as caught:
        run({"timeout": longest + 0.1}, deadline_ms=deadline_ms)
    assert caught.value.pointer == "/timeout"


def test_call_is_signed_so_that_the_receiver_can_tell() -> None:
    server, _ = run({"body": {"a": 1}}, key=secret_bytes(SECRET))
    assert server.headers["webhook-id"] == "0198-0001"
    assert server.headers["webhook-timestamp"] == str(NOW)
    from datetime import datetime, timezone

    at = datetime.fromtimestamp(NOW, timezone.utc)
    assert server.headers["webhook-signature"] == Webhook(SECRET).sign("0198-0001", at, server.body.decode())


def test_without_a_secret_nothing_is_signed() -> None:
    assert not [name for name in run({})[0].headers if name.startswith("webhook")]


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        ({"url": "ftp://api.example.com/"}, "/url"),
        ({"url": "https://api.example.com/\n"}, "/url"),
        ({"url": "https://api.example.com/ x"}, "/url"),
        ({"url": "https://evil.example/"}, "/url"),
        ({"url": "https://user:word@api.example.com/"}, "/url"),
        ({"url": "https://api.example.com/" + "x" * 2_048}, "/url"),
        ({"url": 1}, "/url"),
        ({"method": "TRACE"}, "/method"),
        ({"method": "get"}, "/method"),
        ({"timeout": 0}, "/timeout"),
        ({"timeout": 31}, "/timeout"),
        ({"timeout": "1"}, "/timeout"),
        ({"headers": {"x-a": "b\r\nx-c: d"}}, "/headers"),
        ({"headers": {"x-a": "b\n"}}, "/headers"),
        ({"headers": {"x-a": "b\x00"}}, "/headers"),
        ({"headers": {"x-a": "\u20ac"}}, "/headers"),
        ({"headers": {"x-a": ""}}, "/headers"),
        ({"headers": {"x-a": 1}}, "/headers"),
        ({"headers": {"x a": "b"}}, "/headers"),
        ({"headers": {"x-a\n": "b"}}, "/headers"),
        ({"headers": {"x-a:": "b"}}, "/headers"),
        ({"headers": {"": "b"}}, "/headers"),
        *(({"headers": {name.title(): "x"}}, "/headers") for name in sorted(RESERVED)),
        ({"more": 1}, ""),
    ],
)
def test_payload_that_could_only_fail_is_refused_at_submit(payload: Mapping[str, Any], pointer: str) -> None:
    with pytest.raises(PayloadError) as refused:
        run(payload)
    assert refused.value.pointer == pointer


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_succeeds(status: int) -> None:
    assert run({}, Answer(status))[1]["status"] == status


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with pytest.raises(RuntimeError, match=f"HTTP {status}: why"):
        run({}, Answer(status, body=b"why\xff"))


@pytest.mark.parametrize("status", [300, 304, 400, 401, 403, 404, 410, 418, 422])
def test_what_will_not_pass_fails_at_once(status: int) -> None:
    with pytest.raises(PermanentError, match=f"HTTP {status}"):
        run({}, Answer(status))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("99999999999", 43_200.0),
        ("Sun, 22 Nov 2026 05:20:39 GMT", 10.0),
        ("Sun, 22 Nov 2026 05:20:39 -0000", 10.0),
        ("Sun, 22 Nov 2020 05:20:39 GMT", 0.0),
    ],
)
def test_retry_after_throttles_all_who_share_the_limit(status: int, retry_after: str, seconds: float) -> None:
    with pytest.raises(RetryAfter) as throttled:
        run({}, Answer(status, {"retry-after": retry_after}))
    assert throttled.value.seconds == seconds
    assert throttled.value.reason == f"HTTP {status} with Retry-After {retry_after}"
    assert throttled.value.shared


@pytest.mark.parametrize(
    "retry_after", ["", "soon", "-1", "1.5", "\u0661", "Sun, 99 Nov 2026 99:99:99 GMT", "x" * 10_000]
)
def test_retry_after_that_is_none_is_a_failure_like_others(retry_after: str) -> None:
    with pytest.raises(RuntimeError, match="HTTP 429"):
        run({}, Answer(429, {"retry-after": retry_after}))


def test_retry_after_with_another_status_holds_nothing() -> None:
    with pytest.raises(PermanentError):
        run({}, Answer(404, {"retry-after": "7"}))


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (Answer(200, {"content-type": "application/json"}, b'{"a": 1}'), {"json": {"a": 1}}),
        (Answer(200, {"content-type": "application/problem+json"}, b"[1]"), {"json": [1]}),
        (Answer(200, {"content-type": "application/json"}, b"{broken"), {"text": "{broken"}),
        (Answer(200, {"content-type": "application/json"}, b"[" * 16_000), {"text": "[" * 16_000}),
        (Answer(200, {"content-type": "application/json"}, b'{"a": 1}', True), {"text": '{"a": 1}', "cut": True}),
        (Answer(200, {}, "ä".encode()), {"text": "ä"}),
        (Answer(200, {}, b"\xff\x00"), {"base64": "/wA="}),
    ],
)
def test_answer_is_the_result(answer: Answer, kept: Mapping[str, Any]) -> None:
    assert run({}, answer)[1] == {"status": 200, **kept}
