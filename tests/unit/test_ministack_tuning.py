"""What the tuning adds, without MiniStack; that its calls do what they did is shown by the tests of the adapters."""

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.ministack_tuning import WaitingReceives, copied, looking_once

URL = "http://queue"
LONG_SECONDS = 60

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def mutables(value: Any) -> set[int]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = {id(value)} if isinstance(value, dict | list) else set()
    return own.union(*map(mutables, inner))


@given(json_values)
def test_copy_is_equal_and_shares_nothing_that_can_change(value: Any) -> None:
    assert copied(value) == value
    assert not mutables(copied(value)) & mutables(value)


def test_copy_of_what_json_does_not_know_is_a_deep_one() -> None:
    value = {"set": {1, 2}}
    assert copied(value) == copy.deepcopy(value)
    assert copied(value)["set"] is not value["set"]


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


def test_receive_that_gave_up_is_told_nothing() -> None:
    async def scenario(queue: Queue) -> None:
        call = {"QueueUrl": URL, "MaxNumberOfMessages": 1, "WaitTimeSeconds": 0}
        assert await queue.waiting.receive(call, "") == {}
        queue.send(1)
        assert await queue.receive() == 1

    run(scenario)


@pytest.mark.parametrize("is_refused", [False, True])
def test_batch_deletes_what_it_names_and_nothing_when_it_is_refused(is_refused: bool) -> None:
    receipts = ["a", None, "b", "c"]
    queue = {"messages": [{"receipt_handle": receipt} for receipt in receipts]}

    def delete(_data: dict[str, Any], _url: str) -> dict[str, Any]:
        assert [message["receipt_handle"] for message in queue["messages"]] == ["a", "c"]
        queue["messages"] = queue["messages"][:1]
        if is_refused:
            raise ValueError
        queue["messages"] = []
        return {}

    call = looking_once(delete, lambda _url: queue)
    try:
        call({"QueueUrl": URL, "Entries": [{"ReceiptHandle": "c"}, {"ReceiptHandle": "a"}, {}]}, "")
    except ValueError:
        assert is_refused
    assert [m["receipt_handle"] for m in queue["messages"]] == (receipts if is_refused else [None, "b"])
