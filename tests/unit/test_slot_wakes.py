"""Which hidden messages a worker shows when a slot is free."""

from collections.abc import Callable

import pytest

from chalicelib.core.errors import UnavailableError
from chalicelib.core.limits import parse_limits
from tests.factories import NOW
from tests.unit.workshop import Workshop


def deliver_visible(shop: Workshop) -> None:
    """Delivers each message that is visible, each by a worker of another process."""
    while messages := shop.queue.receive():
        for message in messages:
            shop.deliver(message, shop.new_worker())


def run_two(shop: Workshop, meanwhile: Callable[[], None]) -> None:
    """Submits four tasks and runs the first two, the second one inside the first; `meanwhile` runs in both."""
    todo = iter([lambda: deliver_visible(shop), meanwhile])
    shop.register("call", lambda _: next(todo, lambda: None)())
    for number in range(1, 5):
        shop.submit(payload={"n": number}, name="call")
    deliver_visible(shop)


def forward_third(shop: Workshop) -> None:
    """Leaves the third task in a group of its own, and the fourth one at the head: both wait for one of two slots."""
    shop.clock.sleep_until(NOW + 2_000)
    shop.control.set_limits("ann", parse_limits("10/second; 3 at once"))
    shop.handle_next()
    shop.control.set_limits("ann", parse_limits("10/second; 2 at once"))
    deliver_visible(shop)
    lane = shop.lanes.get("ann")
    assert lane.next_receipt
    assert lane.head_receipt


def test_a_cancelled_task_that_waited_for_a_slot_leaves_it_to_the_one_behind_it() -> None:
    shop = Workshop(LIMITS="10/second; 2 at once")

    def cancel_third() -> None:
        forward_third(shop)
        [third] = [record.task for record in shop.tasks.between("ann", 3, 3, None)]
        shop.control.cancel("ann", third.task_id)
        deliver_visible(shop)

    run_two(shop, cancel_third)
    assert [payload["n"] for _, payload in shop.ran] == [1, 2, 4]
    [_, _, (at, _)] = shop.ran
    assert NOW + at == shop.clock.now_ms()  # as soon as the slot was free


def test_a_worker_that_knows_an_earlier_attempt_frees_the_slot_of_the_last_one() -> None:
    """The release failed, so the message came back to the worker of the first attempt."""
    shop, fails = Workshop(LIMITS="10/second; 2 at once", MAX_ATTEMPTS="3"), iter([ValueError("once")])

    def call(_payload: object) -> None:
        for error in fails:
            raise error

    shop.register("call", call)
    shop.submit(name="call")
    first = shop.new_worker()
    shop.deliver(shop.receive(), first)
    [lease] = (shop.lanes.get("ann").slots or {}).values()
    shop.clock.sleep_until(lease.until)
    shop.lanes.fail("release_slot")
    with pytest.raises(UnavailableError):
        shop.deliver(shop.receive(), shop.new_worker())
    assert shop.lanes.get("ann").slots
    shop.clock.sleep_until(shop.clock.now_ms() + 2_000)
    shop.deliver(shop.receive(), first)
    assert len(shop.ran) == 2
    assert shop.lanes.get("ann").slots == {}
