"""A running task's message on Lambda: it stays hidden in short steps, and a worker that loses it ends."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from chalicelib.aws.client import CONNECT_TIMEOUT, READ_TIMEOUT, TRIES
from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import LEASE_MS, MARKED_AFTER_MS, Lease
from chalicelib.worker.lease_renewal import EXTENDED_SECONDS, LOST_BEFORE_MS, RENEW_AFTER_MS, RENEW_SLOT_AFTER_MS
from tests.factories import NOW
from tests.unit.workshop import Failing, Workshop

#: Of a call that AWS never answers, with the second between its two tries.
SLOWEST_CALL_MS = int(1000 * (TRIES * (CONNECT_TIMEOUT + READ_TIMEOUT) + 1))


class LambdaShop(Workshop):
    """A workshop whose worker extends its message itself, and whose task calls `during` each 100 ms while it runs."""

    def __init__(self, runs_ms: int, **env: str) -> None:
        self._runs_ms = runs_ms
        self.hidden: list[tuple[int, int]] = []
        self.during: Callable[[], object] = lambda: None
        super().__init__(**env)
        self.register("long", lambda _: self._run())

    def new_worker(self) -> Any:
        worker = super().new_worker()
        self.renewer._hide = self._hide
        return worker

    def _hide(self, receipt: str, seconds: int) -> bool:
        self.hidden.append((self.clock.now_ms() - NOW, seconds))
        return bool(self.queue.defer(receipt, seconds))

    def _run(self) -> None:
        for _ in range(0, self._runs_ms, 100):
            self.clock.advance(100)
            self.during()
            self.renewer.renew_due()


def test_task_that_ends_within_a_second_pays_no_further_call() -> None:
    shop = LambdaShop(900)
    shop.submit(name="long")
    shop.run()
    assert shop.hidden == []


def test_longer_task_extends_its_message_with_each_renewal_of_its_lease() -> None:
    shop = LambdaShop(8_000)
    shop.submit(name="long")
    shop.run()
    times = [MARKED_AFTER_MS + n * RENEW_AFTER_MS for n in range(3)]
    assert shop.hidden == [(at, EXTENDED_SECONDS) for at in times]


def test_longer_task_in_a_slot_extends_its_message_after_a_second_and_then_with_its_lease() -> None:
    shop = LambdaShop(14_000, LIMITS="1/second; 3 at once", DEADLINE="1m")
    shop.submit(name="long")
    shop.run()
    times = [MARKED_AFTER_MS, RENEW_SLOT_AFTER_MS, 2 * RENEW_SLOT_AFTER_MS]
    assert shop.hidden == [(at, EXTENDED_SECONDS) for at in times]


def test_message_of_a_worker_that_died_comes_back_after_one_step() -> None:
    shop = LambdaShop(4_500)
    shop.submit(name="long")
    seen = list[int]()
    shop.during = lambda: seen.append(shop.queue.next_available_at())
    shop.run()
    assert seen[-1] == NOW + MARKED_AFTER_MS + RENEW_AFTER_MS + 15_000


@pytest.mark.parametrize(("port", "call"), [("lanes", "renew_lease"), ("queue", "defer")])
def test_worker_that_renews_one_of_lease_and_message_goes_on(port: str, call: str) -> None:
    shop = LambdaShop(40_000)
    shop.submit(name="long")
    shop.during = lambda: getattr(shop, port).fail(call, times=1)
    shop.run()
    assert shop.processes_ended == 0


def test_worker_that_can_renew_neither_ends_before_another_one_may_take_its_task() -> None:
    shop = LambdaShop(12_000)
    ended_at = list[int]()
    shop.executor._end_process = lambda: ended_at.append(shop.clock.now_ms() - NOW)
    shop.submit(name="long")

    def cut_off() -> None:
        shop.lanes.fail("renew_lease", times=1)
        shop.queue.fail("defer", times=1)

    shop.during = cut_off
    shop.run()
    assert ended_at[0] == LEASE_MS - LOST_BEFORE_MS


@pytest.mark.parametrize("starved_ms", [LEASE_MS - 500, LEASE_MS + 500])
def test_task_that_kept_its_process_from_renewing_goes_on_if_nobody_took_it(starved_ms: int) -> None:
    """A call of a C library may keep all other threads waiting for many seconds."""
    shop = LambdaShop(1_000)
    shop.submit(name="long")
    shop.clock.at(NOW + 500, lambda: shop.clock.advance(starved_ms))
    shop.run()
    assert shop.processes_ended == 0
    assert [event["event"] for event in shop.events] == ["task_completed"]


def test_task_that_another_worker_took_from_a_starved_one_ends_with_its_process_once() -> None:
    shop = LambdaShop(5_000)
    shop.submit(name="long")

    def take() -> None:
        lease = shop.lanes.get("ann").running
        assert lease is not None
        shop.lanes.release_lease("ann", lease, 0)
        shop.renewer._hide = lambda *_: False
        shop.clock.advance(LEASE_MS)

    shop.clock.at(NOW + 500, take)
    with suppress(UnavailableError):
        shop.run()
    assert shop.processes_ended == 1


@pytest.mark.parametrize("is_queue_slow", [True, False], ids=["SQS", "DynamoDB"])
def test_calls_that_end_in_time_outs_let_neither_lease_and_message_lapse_together(is_queue_slow: bool) -> None:
    shop = LambdaShop(3_000, DEADLINE="10m")
    shop.submit(name="long")
    hidden_until, uncovered = NOW + LEASE_MS, list[int]()

    def time_out() -> None:
        shop.clock.advance(SLOWEST_CALL_MS)
        raise UnavailableError("read time-out")

    def hide(_receipt: str, seconds: int) -> bool:
        nonlocal hidden_until
        if is_queue_slow:
            time_out()
        hidden_until = shop.clock.now_ms() + seconds * 1000
        return True

    class Slow(Failing):
        def renew_lease(self, user_id: str, lease: Lease, until: int) -> Any:
            running = shop.lanes.get("ann").running
            assert running is not None
            if shop.clock.now_ms() >= max(hidden_until, running.until):
                uncovered.append(shop.clock.now_ms() - NOW)
            if not is_queue_slow:
                time_out()
            return self._port.renew_lease(user_id, lease, until)

    shop.renewer._lanes, shop.renewer._hide = Slow(shop.lanes), hide
    shop.run()
    assert (uncovered, shop.processes_ended) == ([], 0)


def test_end_of_a_run_waits_for_a_renewal_under_way_which_would_undo_a_deferral() -> None:
    shop = LambdaShop(0)
    shop.submit()
    shop.run()
    lease = shop.lanes.get("ann").running
    assert lease is not None
    with shop.renewer.renewing("ann", lease, NOW + 60_000, lambda: None, "receipt") as running:
        running.is_renewing = True
        shop.clock.at(NOW + 3_000, lambda: setattr(running, "is_renewing", False))
    assert shop.clock.now_ms() >= NOW + 3_000
