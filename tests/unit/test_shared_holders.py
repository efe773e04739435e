"""A finished task is in no shared limit's list of those that run, whatever became of the worker that ran it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from chalicelib.core.errors import UnavailableError
from chalicelib.core.limits import parse_shared_limits
from chalicelib.core.shared_limit import with_shared_limits
from chalicelib.core.task import Json
from chalicelib.worker.finalizer import FINALIZE_TRIES
from chalicelib.worker.messages import Deferred
from tests.factories import NOW
from tests.unit.workshop import WorkerDiedError, Workshop

LIMITS = ["100/second", "100/second; 3 at once"]


def shop_of(limits: str = LIMITS[0], shared: str = "db: 1 at once", **env: Any) -> Workshop:
    return Workshop(SHARED_LIMITS=shared, LIMITS=limits, **env)


def dies(_: Json) -> Json:
    raise WorkerDiedError


def dies_once() -> Callable[[Json], Json]:
    runs = count(1)

    def function(payload: Json) -> Json:
        return dies(payload) if next(runs) == 1 else None

    return function


def change_shared(shop: Workshop, limits: str | None) -> None:
    seen = shop.shared_limits.get("db")
    changed = with_shared_limits(seen, limits and parse_shared_limits(limits), shop.clock.now_ms())
    shop.shared_limits.change(seen, changed)


def run_through(shop: Workshop) -> None:
    """Handles all that comes; a worker that dies is replaced."""
    while shop.queue.next_available_at() is not None:
        try:
            shop.run()
        except WorkerDiedError:
            shop.replace_worker()


def deliver_waiting(shop: Workshop) -> None:
    """Hands over the messages that are visible while a task runs."""
    while messages := shop.queue.receive():
        for message in messages:
            shop.deliver(message)


def assert_nobody_is_listed(shop: Workshop, event: str) -> None:
    assert [one["event"] for one in shop.events] == [event]
    assert shop.shared_limits.get("db").holders == {}


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("attempts", ["1", "2"])
def test_a_task_that_is_given_up_since_each_worker_died(limits: str, attempts: str) -> None:
    shop = shop_of(limits, MAX_ATTEMPTS=attempts)
    shop.register("query", dies)
    shop.submit(name="query", shared="db")
    run_through(shop)
    assert_nobody_is_listed(shop, "task_failed")


def test_a_task_that_was_cancelled_after_its_worker_died() -> None:
    shop = shop_of()
    shop.register("query", dies)
    task = shop.submit(name="query", shared="db")
    with pytest.raises(WorkerDiedError):
        shop.handle_next()
    shop.replace_worker()
    shop.control.cancel("ann", task.task_id)
    run_through(shop)
    assert_nobody_is_listed(shop, "task_cancelled")


def test_a_task_whose_process_ended_at_its_deadline() -> None:
    shop = shop_of(DEADLINE="5s")

    def overruns(_: Json) -> Json:
        shop.clock.sleep_until(shop.clock.now_ms() + 6_000)
        shop.renewer.renew_due()  # fails the task, and ends the process
        raise WorkerDiedError

    shop.register("query", overruns)
    shop.submit(name="query", shared="db")
    run_through(shop)
    assert shop.processes_ended == 1
    assert_nobody_is_listed(shop, "task_failed")


@pytest.mark.parametrize("limits", LIMITS)
def test_a_task_whose_outcome_could_not_be_stored_at_once(limits: str) -> None:
    shop = shop_of(limits)
    shop.submit(shared="db")
    shop.tasks.fail("finish", times=FINALIZE_TRIES)
    run_through(shop)
    assert_nobody_is_listed(shop, "task_completed")


@pytest.mark.parametrize("limits", LIMITS)
def test_a_task_that_could_not_be_taken_off_the_list_at_once(limits: str) -> None:
    shop = shop_of(limits)
    shop.submit(shared="db")
    shop.shared_limits.fail("release")
    run_through(shop)
    assert_nobody_is_listed(shop, "task_completed")


def test_a_task_between_two_attempts_does_not_run() -> None:
    shop = shop_of(BACKOFF="1h")
    seen = list[int]()

    def fails_once(_: Json) -> Json:
        seen.append(len(shop.shared_limits.get("db").holders or {}))
        if len(seen) == 1:
            raise UnavailableError("its API is away")
        return None

    shop.register("query", fails_once)
    shop.submit(name="query", shared="db")
    shop.shared_limits.fail("release")
    shop.run(until_ms=1_000)
    shop.submit("bob", shared="db")
    shop.run(until_ms=1_800_000)
    assert [event["user_id"] for event in shop.events] == ["bob"]
    run_through(shop)
    assert (seen, shop.shared_limits.get("db").holders) == ([1, 1], {})


class OneMachine:
    """The workers of one machine, by the claims that they serve."""

    def __init__(self) -> None:
        self._served = set[str]()

    @contextmanager
    def serving(self, token: str) -> Iterator[None]:
        self._served.add(token)
        yield
        self._served.discard(token)

    def is_served(self, token: str) -> bool:
        return token in self._served


@pytest.mark.parametrize("limits", LIMITS)
def test_a_task_whose_lease_could_not_be_renewed_still_runs_on_this_machine(limits: str) -> None:
    shop = shop_of(limits, presence=OneMachine())

    def takes_long(_: Json) -> Json:
        shop.clock.sleep_until(shop.clock.now_ms() + 20_000)  # without a renewal
        deliver_waiting(shop)
        return None

    shop.register("long", takes_long)
    shop.submit("ann", name="long", shared="db")
    shop.submit("bob", shared="db")
    shop.run()
    assert [(event["user_id"], event["started_at"] - NOW) for event in shop.events] == [("ann", 0), ("bob", 20_000)]


@pytest.mark.parametrize("limits", LIMITS)
def test_a_lane_is_woken_when_the_task_that_runs_ends(limits: str) -> None:
    shop = shop_of(limits)

    def takes_long(_: Json) -> Json:
        deliver_waiting(shop)
        shop.clock.sleep_until(shop.clock.now_ms() + 5_000)
        return None

    shop.register("long", takes_long)
    shop.submit("ann", name="long", shared="db")
    shop.submit("bob", shared="db")
    shop.run()
    assert [(event["user_id"], event["started_at"] - NOW) for event in shop.events] == [("ann", 0), ("bob", 5_000)]


def test_a_lane_that_first_waited_for_the_rate_is_woken_when_the_task_that_runs_ends() -> None:
    shop = shop_of(shared="db: 2/2 seconds; 1 at once")

    def takes_long(_: Json) -> Json:
        deliver_waiting(shop)  # of cid, whose turn has come too
        shop.clock.sleep_until(shop.clock.now_ms() + 5_000)
        return None

    shop.register("long", takes_long)
    for user in ("ann", "eve"):
        shop.submit(user, shared="db")
        shop.handle_next()
    shop.submit("bob", name="long", shared="db")
    shop.submit("cid", shared="db")
    for _ in range(2):
        assert isinstance(shop.handle_next(), Deferred)
    shop.run()
    assert [(event["user_id"], event["started_at"] - NOW) for event in shop.events[2:]] == [
        ("bob", 2_000),
        ("cid", 7_000),
    ]


@pytest.mark.parametrize("lanes", LIMITS)
@pytest.mark.parametrize("then", ["100/second", None], ids=["no number at once", "deleted"])
def test_a_task_whose_shared_limit_lost_its_number_at_once_before_its_next_attempt(
    lanes: str, then: str | None
) -> None:
    shop = shop_of(lanes, shared="")
    change_shared(shop, "1 at once")
    shop.register("query", dies_once())
    shop.submit(name="query", shared="db")
    with pytest.raises(WorkerDiedError):
        shop.run()
    shop.replace_worker()
    change_shared(shop, then)
    run_through(shop)
    assert_nobody_is_listed(shop, "task_completed")


@pytest.mark.parametrize("lanes", LIMITS)
def test_a_task_that_took_a_start_and_was_cancelled_with_its_lane_before_it_began(lanes: str) -> None:
    shop = shop_of(lanes)
    shop.submit(shared="db")
    shop.lanes.fail("try_fast_claim", "claim", times=100)
    shop.run(until_ms=100)
    assert len(shop.shared_limits.get("db").holders) == 1
    shop.lanes.fail()
    shop.clearance.empty("ann")
    run_through(shop)
    assert_nobody_is_listed(shop, "task_cancelled")
