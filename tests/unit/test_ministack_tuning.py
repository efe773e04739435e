"""The tuning's own parts, without MiniStack; the adapters' tests show that its calls keep their results."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from local.ministack_tuning import WaitingReceives, given_up_with_client

URL = "http://queue"
LONG_SECONDS = 60


class Queue:
    """A queue of one message group for each message."""

    def __init__(self) -> None:
        self.messages = 0
        self.looks = 0
        self.waiting = WaitingReceives(self._receive, lambda _url: {}, look_seconds=LONG_SECONDS)

    async def _receive(self, data: dict[str, Any], _url: str) -> dict[str, Any]:
        assert data["WaitTimeSeconds"] == 0
        self.looks += 1
        count = min(self.messages, data["MaxNumberOfMessages"])
        self.messages -= count
        return {"Messages": [{}] * count} if count else {}

    async def receive(self, most: int = 10, seconds: float = LONG_SECONDS) -> int:
        call = {"QueueUrl": URL, "MaxNumberOfMessages": most, "WaitTimeSeconds": seconds}
        return len((await self.waiting.receive(call, ""))["Messages"])

    def send(self, count: int) -> None:
        self.messages += count
        self.waiting.after(lambda _data, _url: {})({"QueueUrl": URL}, "")


def run(scenario: Callable[[Queue], Any]) -> Queue:
    queue = Queue()
    asyncio.run(asyncio.wait_for(scenario(queue), LONG_SECONDS / 2))
    return queue


def test_receive_that_waits_is_answered_once_there_is_a_message() -> None:
    async def scenario(queue: Queue) -> None:
        receive = asyncio.create_task(queue.receive())
        await asyncio.sleep(0)
        queue.send(1)
        assert await receive == 1

    assert run(scenario).looks == 2


def test_one_of_those_that_wait_looks_for_one_call_that_sends() -> None:
    async def scenario(queue: Queue) -> None:
        receives = [asyncio.create_task(queue.receive()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.send(1)
        assert await receives[0] == 1
        for receive in receives[1:]:
            receive.cancel()

    assert run(scenario).looks == 4


def test_receive_that_got_all_it_could_has_the_next_one_look() -> None:
    async def scenario(queue: Queue) -> None:
        receives = [asyncio.create_task(queue.receive(most=2)) for _ in range(2)]
        await asyncio.sleep(0)
        queue.send(3)
        assert await asyncio.gather(*receives) == [2, 1]

    run(scenario)


def test_receive_that_gave_up_or_was_cancelled_is_told_nothing() -> None:
    async def scenario(queue: Queue) -> None:
        gone = [asyncio.create_task(queue.receive()) for _ in range(2)]
        await asyncio.sleep(0)
        for receive in gone:
            receive.cancel()
        await asyncio.wait(gone)
        waits = asyncio.create_task(queue.receive())
        await asyncio.sleep(0)
        queue.send(1)
        assert await waits == 1

    run(scenario)


@pytest.mark.parametrize(("operation", "is_given_up"), [(b"ReceiveMessage", True), (b"SendMessage", False)])
def test_receive_ends_with_its_connection(operation: bytes, is_given_up: bool) -> None:
    outcome = list[str]()

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        assert (await receive())["body"] == b"{}"
        try:
            await asyncio.sleep(0.1)
            outcome.append("served")
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    messages = [{"type": "http.request", "body": b"{}"}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    scope = {"type": "http", "headers": [(b"x-amz-target", b"AmazonSQS." + operation)]}
    asyncio.run(given_up_with_client(app)(scope, receive, None))  # type: ignore[arg-type]
    assert outcome == ["cancelled" if is_given_up else "served"]


@pytest.mark.parametrize("failure", [None, KeyError])
def test_receive_whose_client_stays_is_served_to_its_end(failure: type[Exception] | None) -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(0)
        if failure:
            raise failure
        await send("answer")

    async def receive() -> Any:
        if requests:
            return requests.pop()
        return await asyncio.get_running_loop().create_future()

    async def send(message: str) -> None:
        sent.append(message)

    requests, sent = [{"type": "http.request", "body": b""}], list[str]()
    scope = {"type": "http", "headers": [(b"x-amz-target", b"AmazonSQS.ReceiveMessage")]}
    with pytest.raises(failure) if failure else nullcontext():
        asyncio.run(given_up_with_client(app)(scope, receive, send))
    assert sent == ([] if failure else ["answer"])
