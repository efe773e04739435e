"""Answers calls of DynamoDB's items and SQS's messages past MiniStack's routing, which costs more than the calls.

Results are MiniStack's own: its handlers run, and whatever is unusual about a request takes its usual way. Answers wait
until the changes of all calls of this turn of the event loop are stored, in one transaction. They lack the headers for
web pages, which may not call (CORS), and `x-amz-id-2`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from local.ministack_json import decode, encode
from local.ministack_state import MinistackState

#: Status, headers and body of an answer.
Answer = tuple[int, dict[str, str], bytes]
Headers = dict[bytes, bytes]

#: MiniStack's function for each call of DynamoDB.
_ITEM_CALLS = {
    "GetItem": "_get_item",
    "PutItem": "_put_item",
    "UpdateItem": "_update_item",
    "DeleteItem": "_delete_item",
    "Query": "_query",
    "Scan": "_scan",
    "BatchGetItem": "_batch_get_item",
    "BatchWriteItem": "_batch_write_item",
    "TransactGetItems": "_transact_get_items",
    "TransactWriteItems": "_transact_write_items",
}
_MESSAGE_CALLS = frozenset(
    {
        *("SendMessage", "SendMessageBatch", "ReceiveMessage", "DeleteMessage", "DeleteMessageBatch"),
        *("ChangeMessageVisibility", "ChangeMessageVisibilityBatch", "GetQueueAttributes"),
    }
)
_DYNAMODB, _SQS = "DynamoDB_20120810", "AmazonSQS"
_JSON = "application/x-amz-json-1.0"
UNAVAILABLE = "The emulator can't store its state. Is the disk full, or was the state deleted?"

log = logging.getLogger("emulator")


class Calls:
    """The calls that take the short way."""

    def __init__(self, state: MinistackState) -> None:
        from ministack.core import responses  # noqa: PLC0415 - MiniStack reads the environment when it is imported
        from ministack.services import dynamodb, sqs  # noqa: PLC0415

        self._responses, self._dynamodb, self._sqs = responses, dynamodb, sqs
        self._state = state
        self._waiting: list[tuple[asyncio.Transport, Answer]] = []
        self._request = itertools.count(1)
        dynamodb.json_response = _json_response

    def find(self, method: bytes, url: bytes, headers: Headers) -> str:
        """The `X-Amz-Target` of a call that takes the short way; empty for other requests."""
        target = headers.get(b"x-amz-target", b"").decode("latin-1")
        service, _, action = target.partition(".")
        known = action in _ITEM_CALLS if service == _DYNAMODB else service == _SQS and action in _MESSAGE_CALLS
        is_plain = method == b"POST" and url == b"/" and _credential(headers) is not None
        return target if known and is_plain and headers.keys().isdisjoint(_UNUSUAL) else ""

    def run(
        self, target: str, headers: Headers, body: bytes, transport: asyncio.Transport
    ) -> asyncio.Task[None] | None:
        """Answers the call; returns the task of one that may wait."""
        account, region = _credential(headers) or ("", "")
        self._responses.set_request_account_id(account)
        self._responses.set_request_region(region)
        if self._state.is_failing and not self._state.is_stored():
            self._answer(transport, refusal())
        elif target.startswith(_DYNAMODB):
            self._answer(transport, self._items(target, body))
        elif target.endswith(".ReceiveMessage"):
            return asyncio.get_running_loop().create_task(self._receive(target, headers, body, transport))
        else:
            with self._answering(transport, target) as answer:
                answer(self._call_handler(target, headers, body))
        return None

    async def _receive(self, target: str, headers: Headers, body: bytes, transport: asyncio.Transport) -> None:
        with self._answering(transport, target) as answer:
            answer(await self._call_handler(target, headers, body))

    @contextmanager
    def _answering(self, transport: asyncio.Transport, target: str) -> Iterator[Callable[[Any], None]]:
        """Gives a function that answers with a result of SQS; answers with the error that is raised in the block."""
        try:
            yield lambda result: self._answer(transport, _json_response(result))
        except self._sqs._Err as error:
            self._answer(transport, self._sqs._json_err_resp(error.code, error.message, error.status))
        except Exception as error:  # noqa: BLE001 - answered, as by MiniStack
            self._answer(transport, _failure(target, error))

    def _call_handler(self, target: str, headers: Headers, body: bytes) -> Any:
        call = self._message_call(headers, body)
        return self._sqs._HANDLERS[_action(target)](call, call.get("QueueUrl", ""))

    def _message_call(self, headers: Headers, body: bytes) -> dict[str, Any]:
        self._sqs._request_host.set(headers.get(b"host", b"").decode("latin-1"))
        try:
            call: dict[str, Any] = decode(body) if body else {}
        except ValueError:
            call = {}
        return call

    def _items(self, target: str, body: bytes) -> Answer:
        try:
            call = decode(body) if body else {}
        except ValueError:
            malformed: Answer = self._responses.error_response_json("SerializationException", "Invalid JSON", 400)
            return malformed
        try:
            answer: Answer = getattr(self._dynamodb, _ITEM_CALLS[_action(target)])(call)
        except Exception as error:  # noqa: BLE001 - answered, as by MiniStack
            return _failure(target, error)
        answer[1]["x-amz-crc32"] = str(zlib.crc32(answer[2]))
        return answer

    def _answer(self, transport: asyncio.Transport, answer: Answer) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append((transport, answer))

    def _send(self) -> None:
        """Stores what changed, then sends all answers that wait for that."""
        waiting, self._waiting = self._waiting, []
        is_stored = self._state.are_calls_stored()
        for transport, answer in waiting:
            if not transport.is_closing():
                transport.write(self._bytes(answer if is_stored else refusal()))

    def _bytes(self, answer: Answer) -> bytes:
        status, headers, body = answer
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"paceline-{next(self._request)}"
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}Content-Length: {len(body)}\r\n"
            f"x-amzn-requestid: {request}\r\ndate: {_date(int(time.time()))}\r\n\r\n"
        )
        return head.encode("latin-1") + body


class CallProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, with the short way for calls."""

    calls: Calls

    _target = ""
    _task: asyncio.Task[None] | None = None

    def on_headers_complete(self) -> None:
        if self._task is not None and not self._task.done():  # AWS's clients wait for their answer
            self.transport.close()
        is_usual = not self.parser.should_keep_alive() or self.expect_100_continue or self._is_answering()
        self._headers: Headers = dict(self.headers)
        self._target = "" if is_usual else self.calls.find(self.parser.get_method(), self.url, self._headers)
        self._body: list[bytes] = []
        if not self._target:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._target:
            self._body.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._target:
            self._task = self.calls.run(self._target, self._headers, b"".join(self._body), self.transport)
        else:
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends a receive that waits: the messages it got would stay hidden from everyone."""
        if self._task is not None:
            self._task.cancel()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete


#: Headers that browsers add to the requests of web pages.
FROM_PAGES = frozenset({b"origin", b"sec-fetch-site"})
#: Headers of requests that take the usual way.
_UNUSUAL = frozenset({b"content-encoding", b"x-amz-content-sha256-trailer", b"upgrade"}) | FROM_PAGES


def _credential(headers: Headers) -> tuple[str, str] | None:
    """Access key and region of a request signed as usual."""
    return _scope(headers.get(b"authorization", b"").partition(b",")[0])


@lru_cache(1000)
def _scope(text: bytes) -> tuple[str, str] | None:
    algorithm, _, credential = text.decode("latin-1").partition(" Credential=")
    parts = credential.split("/")
    return (parts[0], parts[2]) if algorithm == "AWS4-HMAC-SHA256" and len(parts) == 5 else None


@lru_cache(2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _action(target: str) -> str:
    return target.partition(".")[2]


def _json_response(data: Any, status: int = 200, *, content_type: str = _JSON) -> Answer:
    """Stands for MiniStack's function of this name."""
    return status, {"Content-Type": content_type}, encode(data)


def _failure(target: str, error: Exception) -> Answer:
    log.exception("Error in %s", target)
    body = json.dumps({"__type": "InternalError", "message": str(error)}).encode()
    return 500, {"Content-Type": "application/json"}, body


def refusal() -> Answer:
    """As AWS answers, so that its SDKs repeat the call."""
    body = json.dumps({"__type": "ServiceUnavailable", "message": UNAVAILABLE}).encode()
    return 503, {"Content-Type": _JSON}, body
