"""How workers keep the lane's knowledge of running tasks and of their run times."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.core.errors import RetryAfter
from chalicelib.core.estimates import position_of
from chalicelib.core.lane import MARKED_BY_MS, Lease, Phase
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import Written
from chalicelib.core.task import Json, TaskState
from tests.factories import NOW, make_lane
from tests.memory.stores import MemoryLaneStore
from tests.unit.workshop import Workshop


class Calls:
    """Counts the writes of lanes by name."""

    def __init__(self, lanes: Any) -> None:
        self._lanes = lanes
        self.names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.names.append(name)
        return getattr(self._lanes, name)


def shop_with(*runs_ms: int, **env: str) -> Workshop:
    """The task `work` takes these times, one after the other; leases are renewed meanwhile."""
    shop, left = Workshop(**env), list(runs_ms)

    def work(payload: Json) -> None:
        begun_at, lasts_ms = shop.clock.now_ms(), left.pop(0)
        for at in range(begun_at + 1_000, begun_at + lasts_ms, 1_000):
            shop.clock.at(at, shop.renewer.renew_due)
        shop.clock.advance(lasts_ms)

    shop.register("work", work)
    return shop


def test_short_task_takes_one_write_of_its_lane() -> None:
    shop = shop_with(900)
    shop.submit(name="work")
    message, shop.lanes = shop.receive(), Calls(shop.lanes)
    shop.replace_worker()
    shop.deliver(message)
    assert shop.lanes.names == ["try_fast_claim"]


def test_long_task_is_marked_after_a_second_and_its_end_clears_the_mark() -> None:
    shop = shop_with(5_000)
    shop.submit(name="work")
    marks = []
    for at in (999, 1_001, 4_999):
        shop.clock.at(NOW + at, lambda: marks.append(shop.lanes.get("ann").running.phase))
    shop.run()
    assert marks == [Phase.STARTED, Phase.RUNNING, Phase.RUNNING]
    lane = shop.lanes.get("ann")
    assert (lane.running.phase, lane.running.until, lane.took_ms) == (Phase.STARTED, NOW + 5_000, 5_000)


def test_next_claim_stores_how_long_short_tasks_took() -> None:
    shop, left, took = Workshop(), [400, 800, 0], list[int]()

    def work(payload: Json) -> None:
        took.append(shop.lanes.get("ann").took_ms)
        shop.clock.advance(left.pop(0))

    shop.register("work", work)
    for _ in range(3):
        shop.submit(name="work")
    shop.run()
    assert took == [0, 400, 500]


def test_average_of_another_worker_is_not_lost_with_a_claim_that_knows_nothing() -> None:
    shop = shop_with(4_000, 0)
    shop.submit(name="work")
    shop.run()
    shop.replace_worker()
    shop.submit(name="work")
    shop.run()
    assert shop.lanes.get("ann").took_ms == 4_000


@pytest.mark.parametrize("error", [ValueError("not yet"), RetryAfter(30)])
def test_task_between_two_attempts_is_no_running_task(error: Exception) -> None:
    shop = shop_with(BACKOFF="30s")

    def work(payload: Json) -> None:
        shop.clock.advance(1_500)
        shop.renewer.renew_due()
        raise error

    shop.register("flaky", work)
    task = shop.submit(name="flaky")
    shop.handle_next()
    lane, view = shop.lanes.get("ann"), shop.control.task("ann", task.task_id)
    assert lane.retrying
    assert lane.retrying.until == NOW + 31_500
    assert (view.state, view.estimated_at, shop.control.lane("ann").running) == (TaskState.QUEUED, NOW + 31_500, None)


def test_cancel_between_two_attempts_wakes_the_lane_and_logs_every_start_once() -> None:
    shop = Workshop(BACKOFF="300s", LIMITS="1/second")
    shop.register("flaky", lambda payload: 1 / 0)
    task, later = shop.submit(name="flaky"), shop.submit()
    shop.run(until_ms=400_000)  # two attempts: at 0 s and at 300 s
    shop.clock.sleep_until(NOW + 400_000)
    shop.control.cancel("ann", task.task_id)
    shop.run()
    event = shop.event_of(task)
    assert (event["event"], event["attempt"]) == ("task_cancelled", 2)
    assert (event["starts"], event["started_at"]) == ([NOW], NOW + 300_000)
    assert shop.record(task).outcome.started_at == NOW + 300_000
    assert [event["seq"] for event in shop.events] == [1, 2]
    assert shop.event_of(later)["started_at"] == NOW + 400_000
    assert not shop.lanes.get("ann").cancelled


def test_worker_that_remembers_the_lane_from_before_the_cancellation_logs_it() -> None:
    shop = Workshop(BACKOFF="300s")
    shop.register("flaky", lambda payload: 1 / 0)
    task = shop.submit(name="flaky")
    shop.handle_next()
    shop.control.cancel("ann", task.task_id)
    shop.clock.advance(1_000)
    shop.handle_next()
    assert [event["event"] for event in shop.events] == ["task_cancelled"]


@given(
    st.integers(0, 4_000),
    st.integers(0, 200),
    st.integers(-150, 4_000),
    st.integers(-1_000, 10_000),
    st.sampled_from(Phase),
)
def test_strict_submit_that_is_admitted_by_one_write_may_start_now(
    took_ms: int, waiting: int, started_ms_ago: int, lease_left_ms: int, phase: Phase
) -> None:
    started_at, lanes, limits = NOW - started_ms_ago, MemoryLaneStore(), parse_limits("50/second")
    lease = Lease("t1", 1, NOW + lease_left_ms, "token", (started_at,), phase=phase)
    known = make_lane(started_seq=1, started=1, starts=(started_at,), running=lease, took_ms=took_ms)
    lanes.prepare("ann", lambda _: replace(known, admitted=1 + waiting, planned=(NOW - 9_000,) * 20))
    write = lanes.try_fast_admit("ann", limits, NOW, "new", True)
    lane = write.lane
    if isinstance(write, Written):
        assert position_of(lane, limits, lane.admitted, NOW, NOW) == 0
    elif not waiting and started_ms_ago >= MARKED_BY_MS:
        assert phase is not Phase.STARTED
