"""Patches MiniStack to be fast enough for many lanes on one machine, without changing the results of its calls.

A long poll returns as soon as a message arrives, and receives nothing once its client has disconnected. Queues are
cleaned once a second, so a message may be received once more before it is dead-lettered. The other parts:
`ministack_calls`, `ministack_cleaning`, `ministack_expressions`, `ministack_items`, `ministack_queues`,
`ministack_writes`. Each gains a tenth or more: bench/README.md.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from local.ministack_expressions import tune_expressions
from local.ministack_queues import narrow_cleaning
from local.ministack_writes import tune_writes

#: Seconds between two looks of a long poll for messages that became visible by time; as in MiniStack itself.
_LOOK_SECONDS = 0.1
#: Seconds between two cleanings of a queue: retention, receive counts, deduplication ids.
_CLEAN_SECONDS = 1.0
#: Operations after which a receive may find a message: they send, show or unblock some.
_REVEALING = (
    "SendMessage",
    "SendMessageBatch",
    "ChangeMessageVisibility",
    "ChangeMessageVisibilityBatch",
    "DeleteMessage",
    "DeleteMessageBatch",
)

Call = dict[str, Any]
Answer = dict[str, Any]
#: MiniStack's handler of a call, with the queue's URL.
Handler = Callable[[Call, str], Answer]
Receive = Callable[[Call, str], Awaitable[Answer]]
Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Any, Any], Awaitable[None]]


def tune() -> None:
    """Applies the patches. Call it once, before the first request."""
    from ministack.services import dynamodb, sqs  # noqa: PLC0415 - MiniStack reads the environment when it is imported

    tune_expressions(dynamodb)
    tune_writes(dynamodb)
    handlers = sqs._HANDLERS
    waiting = WaitingReceives(handlers["ReceiveMessage"], lambda url: sqs._get_q(url)["attributes"])
    handlers["ReceiveMessage"] = waiting.receive
    for action in _REVEALING:
        handlers[action] = waiting.after(handlers[action])
    narrow_cleaning(sqs)
    for clean in ("_prune_dedup", "_expire_retained", "_dlq_sweep"):
        setattr(sqs, clean, _once_a_second(getattr(sqs, clean)))


class WaitingReceives:
    """Long polls that wake when a message may have become visible, instead of every 100 ms as in MiniStack.

    A call wakes one waiting receive only: two could not both get messages of one lane.
    """

    def __init__(
        self, receive: Receive, attributes: Callable[[str], Mapping[str, str]], look_seconds: float = _LOOK_SECONDS
    ) -> None:
        """attributes: returns a queue's attributes by its URL."""
        self._receive = receive
        self._attributes = attributes
        self._look_seconds = look_seconds
        self._waiting: dict[str, deque[asyncio.Future[None]]] = defaultdict(deque)

    def after(self, handler: Handler) -> Handler:
        def call(data: Call, url: str) -> Answer:
            answer = handler(data, url)
            self._wake_one(data.get("QueueUrl", url))
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
                self._wake_one(url)  # more messages may be visible
            if answer or left <= 0:
                return answer
            await self._wait_for_message(url, min(left, self._look_seconds))

    async def _wait_for_message(self, url: str, seconds: float) -> None:
        """Waits until a message may be visible, for at most `seconds`."""
        wake_up = asyncio.get_running_loop().create_future()
        self._waiting[url].append(wake_up)
        try:
            await asyncio.wait([wake_up], timeout=seconds)
        finally:
            if not wake_up.done():
                self._waiting[url].remove(wake_up)

    def _wake_one(self, url: str) -> None:
        if self._waiting[url]:
            self._waiting[url].popleft().set_result(None)


def given_up_with_client(app: Asgi) -> Asgi:
    """Cancels a receive when its client disconnects, since the messages it got would stay hidden from everyone."""

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


def _once_a_second(clean: Callable[[Call], None]) -> Callable[[Call], None]:
    """Skips cleaning a queue that was cleaned within the last second: each cleaning goes through all its messages."""
    cleaned_at: dict[int, float] = {}

    def clean_once_a_second(queue: Call) -> None:
        now = time.monotonic()
        if now - cleaned_at.get(id(queue), 0) >= _CLEAN_SECONDS:
            cleaned_at[id(queue)] = now
            clean(queue)

    return clean_once_a_second
