"""MiniStack made quick enough for many lanes on one machine; what its calls do stays MiniStack's.

A long poll answers at once, and takes nothing for a client that is gone. A queue is looked through less often: what was
received too often may come once more before it goes to the dead letters. What DynamoDB's checks work out again and
again is remembered.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

#: How often a receive that waits looks for what only time makes visible, seconds; MiniStack's own is as long.
_LOOK_SECONDS = 0.1
#: How often a queue is searched for what is retained too long, was received too often, or may be sent again.
_CLEAN_SECONDS = 1.0
#: After these there may be something to receive: what they send, show, or were behind.
_REVEALING = (
    "SendMessage",
    "SendMessageBatch",
    "ChangeMessageVisibility",
    "ChangeMessageVisibilityBatch",
    "DeleteMessage",
    "DeleteMessageBatch",
)

#: Work out the same for the same text: a lane's numbers and conditions come again with each of its calls.
_PURE = ("_ddb_canonicalize_number", "_number_error", "_number_size_bytes", "_condition_syntax_error")
_REMEMBERED = 20_000
_ATOMS = (str, int, float, bool, type(None))

Call = dict[str, Any]
Answer = dict[str, Any]
#: As MiniStack has them: the call and its queue's URL.
Handler = Callable[[Call, str], Answer]
Receive = Callable[[Call, str], Awaitable[Answer]]
Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Any, Any], Awaitable[None]]


def tune() -> None:
    """To be called once, before the first call is served."""
    from ministack.services import dynamodb, sqs  # noqa: PLC0415 - MiniStack reads the environment when it is imported

    for name in _PURE:
        setattr(dynamodb, name, functools.lru_cache(_REMEMBERED)(getattr(dynamodb, name)))
    dynamodb.copy = SimpleNamespace(deepcopy=copied)
    handlers = sqs._HANDLERS
    handlers["DeleteMessageBatch"] = looking_once(handlers["DeleteMessageBatch"], sqs._get_q)
    waiting = WaitingReceives(handlers["ReceiveMessage"], lambda url: sqs._get_q(url)["attributes"])
    handlers["ReceiveMessage"] = waiting.receive
    for action in _REVEALING:
        handlers[action] = waiting.after(handlers[action])
    sqs._ensure_msg_fields = _if_need_be(sqs._ensure_msg_fields)
    for look in ("_prune_dedup", "_expire_retained", "_dlq_sweep"):
        setattr(sqs, look, _rarely(getattr(sqs, look)))


def copied(value: Any) -> Any:
    """A deep copy; of what JSON can say, in a quarter of the time that `copy.deepcopy` takes."""
    if type(value) is dict:
        return {key: copied(one) for key, one in value.items()}
    if type(value) is list:
        return [copied(one) for one in value]
    return value if type(value) in _ATOMS else copy.deepcopy(value)


class WaitingReceives:
    """Long polls that look when there may be something new. MiniStack's own look every 100 ms.

    One call that reveals messages has one receive look: of one lane, no other could get any.
    """

    def __init__(
        self, receive: Receive, attributes: Callable[[str], Mapping[str, str]], look_seconds: float = _LOOK_SECONDS
    ) -> None:
        """attributes: a queue's, by its URL."""
        self._receive = receive
        self._attributes = attributes
        self._look_seconds = look_seconds
        self._waiting: dict[str, deque[asyncio.Future[None]]] = defaultdict(deque)

    def after(self, handler: Handler) -> Handler:
        def call(data: Call, url: str) -> Answer:
            answer = handler(data, url)
            self._reveal(data.get("QueueUrl", url))
            return answer

        return call

    async def receive(self, data: Call, url: str) -> Answer:
        url = data.get("QueueUrl", url)
        wait = data.get("WaitTimeSeconds")
        if wait is None:
            wait = self._attributes(url).get("ReceiveMessageWaitTimeSeconds", "0")
        deadline = time.monotonic() + int(wait)
        while True:
            answer = await self._receive({**data, "WaitTimeSeconds": 0}, url)
            left = deadline - time.monotonic()
            if len(answer.get("Messages", ())) == int(data.get("MaxNumberOfMessages", 1)):
                self._reveal(url)  # there may be more
            if answer or left <= 0:
                return answer
            await self._news(url, min(left, self._look_seconds))

    async def _news(self, url: str, seconds: float) -> None:
        """Until something was revealed, so long at most."""
        news = asyncio.get_running_loop().create_future()
        self._waiting[url].append(news)
        try:
            await asyncio.wait([news], timeout=seconds)
        finally:
            if not news.done():
                self._waiting[url].remove(news)

    def _reveal(self, url: str) -> None:
        if self._waiting[url]:
            self._waiting[url].popleft().set_result(None)


def given_up_with_client(app: Asgi) -> Asgi:
    """A receive ends with the connection on which it waits: what it got would be hidden from everybody."""

    async def serve(scope: Scope, receive: Any, send: Any) -> None:
        if not dict(scope.get("headers", ())).get(b"x-amz-target", b"").endswith(b".ReceiveMessage"):
            await app(scope, receive, send)
            return
        is_read = asyncio.Event()

        async def receive_body() -> Any:
            message = await receive()
            if not message.get("more_body"):
                is_read.set()
            return message

        async def client_is_gone() -> None:
            await is_read.wait()
            while (await receive())["type"] != "http.disconnect":
                pass

        served, gone = asyncio.ensure_future(app(scope, receive_body, send)), asyncio.ensure_future(client_is_gone())
        await asyncio.wait([served, gone], return_when=asyncio.FIRST_COMPLETED)
        served.cancel() if gone.done() else gone.cancel()
        with suppress(asyncio.CancelledError):
            await served

    return serve


def looking_once(delete: Handler, queue_of: Callable[[str], Call]) -> Handler:
    """MiniStack looks through the whole queue for each message to be deleted; here it sees only the named ones."""

    def call(data: Call, url: str) -> Answer:
        queue = queue_of(data.get("QueueUrl", url))
        messages, named = queue["messages"], {entry.get("ReceiptHandle") or "" for entry in data.get("Entries", [])}
        queue["messages"] = [message for message in messages if message["receipt_handle"] in named]
        rest = messages
        try:
            answer = delete(data, url)
            rest = [message for message in messages if message["receipt_handle"] not in named]
        finally:
            queue["messages"] = rest
        return answer

    return call


def _if_need_be(complete: Callable[[Call], None]) -> Callable[[Call], None]:
    """What SNS sent may lack fields, but not what was sent here."""

    def complete_if_need_be(message: Call) -> None:
        if "seq" not in message:
            complete(message)

    return complete_if_need_be


def _rarely(look: Callable[[Call], None]) -> Callable[[Call], None]:
    looked_at: dict[int, float] = {}

    def look_rarely(queue: Call) -> None:
        now = time.monotonic()
        if now - looked_at.get(id(queue), 0) >= _CLEAN_SECONDS:
            looked_at[id(queue)] = now
            look(queue)

    return look_rarely
