"""Forwarded messages that may not start for long, and tasks that are forwarded from their records."""

import pytest

from tests.factories import NOW
from tests.unit.workshop import Workshop

HOUR_MS = 3_600_000


def submitted(shop: Workshop, count: int) -> None:
    for number in range(1, count + 1):
        shop.submit(payload={"n": number})


def test_a_task_that_is_forwarded_from_its_record_runs_with_its_whole_payload() -> None:
    """The list of records has the first characters of a payload."""
    shop, text = Workshop(LIMITS="5/second; 2 at once"), "x" * 5_000
    shop.submit(payload={"text": text})
    shop.queue._groups.clear()
    shop.submit(payload={"n": 2})
    shop.run()
    assert [payload for _, payload in shop.ran] == [{"text": text}, {"n": 2}]


@pytest.mark.parametrize("forwarded", [1, 2, 3])
def test_a_pause_of_days_uses_up_no_message_and_its_end_brings_the_forwarded_tasks_on_in_order(forwarded: int) -> None:
    shop = Workshop(LIMITS="5/second; 5 at once")
    submitted(shop, 4)
    for _ in range(forwarded - 1):  # the first one needs no forwarding
        received = iter(lambda: shop.queue.receive()[0], None)
        shop.deliver(next(message for message in received if message.user_id == "ann"))
    shop.control.pause("ann", None)
    shop.run(until_ms=72 * HOUR_MS)
    shop.clock.sleep_until(NOW + 72 * HOUR_MS)
    assert shop.ran == []
    waiting = [message for group in shop.queue._groups.values() for message in group.messages]
    assert max(message.receives for message in waiting) < 150
    shop.control.resume("ann")
    shop.run()
    assert [payload["n"] for _, payload in shop.ran] == [1, 2, 3, 4]
    assert shop.started_ms[-1] < 72 * HOUR_MS + 10_000
