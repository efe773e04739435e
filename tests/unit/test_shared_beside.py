"""Lanes with several tasks at once that wait for a shared limit: how often their messages look, and when they start."""

from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.core.shared_limit import paused_shared, resumed_shared
from tests.factories import NOW
from tests.unit.workshop import Workshop

OPENS_MS = 3_600_000


def pause(shop: Workshop) -> None:
    shared = shop.shared_limits.get("db")
    shop.shared_limits.change(shared, paused_shared(shared, NOW + OPENS_MS))


def throttle(shop: Workshop) -> None:
    shop.shared_limits.throttle("db", NOW + OPENS_MS, "429")


def receives_of(limits: str, close: Callable[[Workshop], None], shared: str) -> tuple[int, list[int]]:
    """How often six tasks' messages were received, and the starts, ms after the shared limit opened."""
    shop = Workshop(LIMITS=limits, SHARED_LIMITS=f"db: {shared}")
    close(shop)
    for _ in range(6):
        shop.submit(shared="db")
    shop.run()
    return len(shop.handled), [at - OPENS_MS for at in shop.started_ms]


@pytest.mark.parametrize("close", [pause, throttle])
@pytest.mark.parametrize("limits", ["100/second; 3 at once", "100/second; 20 at once"])
@pytest.mark.parametrize("shared", ["1 at once", "100/second"])
def test_two_messages_of_a_lane_look_at_a_closed_shared_limit(close: Any, limits: str, shared: str) -> None:
    alone, _ = receives_of("100/second", close, shared)
    received, starts = receives_of(limits, close, shared)
    assert received <= 2 * alone + 10
    assert len(starts) == 6
    assert min(starts) >= 0
    assert max(starts) <= 2_000


def test_a_full_shared_limit_is_looked_at_about_as_often_as_by_a_lane_with_one_at_once() -> None:
    no_close: Callable[[Workshop], None] = lambda shop: None  # noqa: E731
    alone, _ = receives_of("100/second", no_close, "1/hour")
    received, starts = receives_of("100/second; 20 at once", no_close, "1/hour")
    assert received <= 6 * alone
    assert [at // OPENS_MS for at in starts] == [-1, 0, 1, 2, 3, 4]
    assert all(at % OPENS_MS <= 2_000 for at in starts)


def waiting(shop: Workshop, name: str) -> None:
    """Submits two tasks, and leaves the first one waiting for the closed limit in a group of its own."""
    pause(shop)
    for _ in range(2):
        shop.submit(shared="db", name=name)
    shop.handle_next()
    for message in shop.queue.receive():
        shop.deliver(message)


def open_now(shop: Workshop) -> None:
    shared = shop.shared_limits.get("db")
    shop.shared_limits.change(shared, resumed_shared(shared, shop.clock.now_ms()))


@pytest.mark.parametrize("looks", [1, 2, 3])
@pytest.mark.parametrize("shared", ["100/second", "2 at once"])
def test_the_start_of_the_first_wakes_the_next_before_its_own_end(shared: str, looks: int) -> None:
    shop = Workshop(LIMITS="100/second; 3 at once", SHARED_LIMITS=f"db: {shared}")
    shown: list[int] = []
    shop.register("call", lambda _: shown.append(shop.queue.next_available_at() or 0))
    waiting(shop, "call")
    for look in range(1, looks + 1):  # one of them looks for the message of the first, too
        shop.run(until_ms=10_000 * look)
        shop.queue.defer(shop.lanes.get("ann").head_receipt, 0)
    shop.run(until_ms=50_000)
    lane = shop.lanes.get("ann")
    assert lane.head_receipt
    assert lane.next_receipt
    open_now(shop)
    shop.queue.defer(lane.next_receipt, 0)
    shop.handle_next()
    assert shown == [shop.clock.now_ms()]


def test_a_start_while_the_next_message_is_being_hidden_is_not_missed() -> None:
    shop = Workshop(LIMITS="100/second; 3 at once", SHARED_LIMITS="db: 100/second")
    waiting(shop, "log")
    save, opened = shop.lanes.save_head_receipt, list[int]()

    def start_first(*arguments: Any) -> Any:
        shop.lanes.save_head_receipt = save
        open_now(shop)
        opened.append(shop.clock.now_ms() - NOW)
        shop.queue.defer(shop.lanes.get("ann").next_receipt, 0)
        shop.deliver(shop.receive(), shop.new_worker())
        return save(*arguments)

    shop.lanes.save_head_receipt = start_first
    shop.run()
    assert [at - opened[0] < 2_000 for at in shop.started_ms] == [True, True]
