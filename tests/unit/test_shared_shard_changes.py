"""Changes of a shared limit over shards, while workers that know another state of it claim starts."""

from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.core.claim import SharedStart, Start
from chalicelib.core.contention import RetryWithJitter
from chalicelib.core.errors import UnavailableError
from chalicelib.core.limits import parse_shared_limits
from chalicelib.core.ports import SharedWritten
from chalicelib.core.shared_layout import INTERRUPTED_AFTER_MS, SharedLayout
from chalicelib.core.shared_limit import Waiter, paused_shared
from chalicelib.core.shared_shards import MAX_SHARDS, item_name
from chalicelib.core.task import Task
from chalicelib.lanes.shared import SharedControl
from chalicelib.settings import Settings
from chalicelib.worker.shared_claims import SharedClaims
from chalicelib.worker.steps import Facts
from paceline.testing.memory.shared_limits import MemorySharedLimitStore
from paceline.testing.memory.stores import MemoryLaneStore
from tests.factories import NOW, VirtualClock
from tests.unit.workshop import Failing


class Queue:
    def __init__(self) -> None:
        self.shown: list[str] = []

    def defer(self, receipt: str, _seconds: int) -> bool:
        self.shown.append(receipt)
        return True


class Counted:
    """Counts the calls of a port."""

    def __init__(self, port: Any) -> None:
        self._port = port
        self.calls = Counter[str]()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self._port, name)


class Deployment:
    """Workers and an API with one setting, over stores that others may share."""

    def __init__(self, setting: str, of: "Deployment | None" = None) -> None:
        self.clock: VirtualClock = of.clock if of else VirtualClock()
        self.store: Any = of.store if of else Failing(MemorySharedLimitStore())
        self.lanes = of.lanes if of else MemoryLaneStore()
        self.queue = of.queue if of else Queue()
        #: of the tasks, whose ids decide on their shards
        self._numbers: Iterator[int] = of._numbers if of else count(1)
        #: of all starts, epoch ms
        self.starts: list[int] = of.starts if of else []
        self.settings = Settings.from_env({"SHARED_LIMITS": setting})
        self.worker = self.new_worker()

    def new_worker(self, store: Any = None) -> SharedClaims:
        queue: Any = self.queue
        return SharedClaims(store or self.store, self.lanes, queue, self.clock, self.settings)

    @property
    def control(self) -> SharedControl:
        races, queue = RetryWithJitter(self.clock, lambda: 0.5), self.queue
        known: Any = (self.store, self.lanes, queue, self.clock, races, self.settings.shared_limits)
        return SharedControl(*known)

    def start(self, tasks: int, worker: SharedClaims | None = None) -> int:
        """Lets so many tasks of as many users try to start once; how many did."""
        return sum(self._start(worker or self.worker) for _ in range(tasks))

    def _start(self, worker: SharedClaims) -> bool:
        number, now_ms = next(self._numbers), self.clock.now_ms()
        task = Task(f"u{number}", f"t{number}", 1, "call", None, 0, 0, shared="api")
        lane = self.lanes.get(task.user_id)
        start, facts = Start(now_ms, 1, now_ms, lane), Facts(lane)  # it asks for no turn: that needs a lane as it is
        taken, _ = worker.take(task, start, facts, f"{number}")
        if isinstance(taken, SharedStart):
            self.starts.append(taken.at)
        return isinstance(taken, SharedStart)

    def most_within(self, window_ms: int) -> int:
        return max(sum(at - window_ms < one <= at for one in self.starts) for at in self.starts)

    def shards(self) -> dict[str, int]:
        """How many starts each of the items has taken that are in use."""
        names = (item_name("api", index) for index in range(MAX_SHARDS))
        return {name: shard.started for name in names if (shard := self.store.get(name)).revision or shard.started}


def test_first_task_lays_out_the_shards_of_the_setting_and_starts_at_once() -> None:
    deployment = Deployment("api: 300/second")
    assert deployment.start(600) == 300
    assert deployment.shards() == {"api": 60, **{f"api#{index}": 60 for index in range(1, 5)}}
    assert deployment.most_within(1_000) == 300


def test_a_known_shard_costs_a_start_one_write_as_a_shared_limit_of_one_item_does() -> None:
    for setting in ("api: 300/second", "api: 100/second"):
        deployment = Deployment(setting)
        store = Counted(deployment.store)
        worker = deployment.new_worker(store)
        deployment.start(60, worker)
        deployment.clock.advance(2_000)
        store.calls.clear()
        assert deployment.start(30, worker) == 30
        assert store.calls.keys() <= {"try_claim", "trim"}
        assert store.calls["try_claim"] == 30


def test_one_item_never_knows_of_shards() -> None:
    deployment = Deployment("api: 100/second")
    deployment.start(150)
    assert deployment.shards() == {"api": 100}
    assert deployment.store.get("api").revision == 0


@pytest.mark.parametrize("lowered", ["5/second", "120/second", "90 units/second", "7/minute", "250/second; 100000/day"])
def test_after_lowered_limits_were_answered_nothing_starts_beyond_them(lowered: str) -> None:
    deployment = Deployment("api: 300/second")
    workers = [deployment.worker, deployment.new_worker()]
    for worker in workers:
        deployment.start(150, worker)
    deployment.clock.advance(400)
    limits = parse_shared_limits(lowered)
    deployment.control.set_limits("api", limits)
    answered_at = deployment.clock.now_ms()
    for _ in range(20):
        for worker in (*workers, deployment.new_worker()):
            deployment.start(40, worker)
        deployment.clock.advance(max(limit.window_ms for limit in limits if limit.window_ms <= 60_000) // 5)
    new = [at for at in deployment.starts if at >= answered_at]
    assert len(new) >= min(limit.quota for limit in limits) * 0.7
    for limit in limits:
        assert all(sum(at - limit.window_ms < one <= at for one in deployment.starts) <= limit.quota for at in new)


@pytest.mark.parametrize(("day", "left"), [("50/day", 0), ("500/day", 470)])
def test_limit_of_a_day_that_comes_with_lower_limits_counts_the_starts_of_all_shards(day: str, left: int) -> None:
    deployment = Deployment("api: 300/second")
    deployment.start(30)
    deployment.control.set_limits("api", parse_shared_limits(f"90/second; {day}"))
    started = 0
    for _ in range(8):
        deployment.clock.advance(1_100)
        started += deployment.start(90, deployment.new_worker())
    assert started == left  # one with a quota up to 100 counts as used up, like the limits of a second


def test_raised_limits_are_used_by_more_shards() -> None:
    deployment = Deployment("api: 50/second")
    assert deployment.start(60) == 50
    deployment.control.set_limits("api", parse_shared_limits("500/second"))
    deployment.clock.advance(1_100)
    assert deployment.start(1_000) == 500
    assert len(deployment.shards()) == 9
    deployment.control.delete("api")
    deployment.clock.advance(1_100)
    assert deployment.start(100) == 50


def test_pause_that_fails_halfway_is_finished_by_a_repeat_and_then_stops_every_shard() -> None:
    deployment = Deployment("api: 300/second")
    deployment.start(100)
    deployment.store.fail("change", times=1, skip=1)
    with pytest.raises(UnavailableError):
        deployment.control.pause("api", None)
    deployment.control.pause("api", None)
    deployment.clock.advance(3_000)
    assert deployment.start(100) == 0
    assert deployment.start(100, deployment.new_worker()) == 0
    assert deployment.control.one("api").state.shared.paused_until
    deployment.control.resume("api")
    assert deployment.start(600, deployment.new_worker()) == 300


def test_throttling_stops_every_shard() -> None:
    deployment = Deployment("api: 300/second")
    deployment.start(50)
    deployment.worker.throttle("api", deployment.clock.now_ms() + 20_000, "429")
    assert deployment.start(100, deployment.new_worker()) == 0
    deployment.clock.advance(19_800)
    assert deployment.start(100) == 0
    deployment.clock.advance(300)
    assert deployment.start(600, deployment.new_worker()) == 300


@pytest.mark.parametrize("done", range(1, 6))
def test_change_that_its_process_left_halfway_is_finished_by_a_worker(done: int) -> None:
    deployment = Deployment("api: 300/second")
    deployment.start(300)
    deployment.store.fail("change", times=99, skip=done)
    with pytest.raises(UnavailableError):
        deployment.control.set_limits("api", parse_shared_limits("200/second"))
    deployment.store.fail()
    deployment.start(100)  # some, at shards that are still open under the limits of before
    assert deployment.most_within(1_000) <= 300
    deployment.clock.advance(INTERRUPTED_AFTER_MS)
    deployment.start(1)
    deployment.clock.advance(1_000)
    deployment.starts.clear()
    assert deployment.start(600, deployment.new_worker()) == 200
    assert deployment.most_within(1_000) == 200


def test_change_that_was_left_halfway_is_finished_by_the_next_one() -> None:
    deployment = Deployment("api: 300/second")
    deployment.start(300)
    deployment.store.fail("change", times=1, skip=3)
    with pytest.raises(UnavailableError):
        deployment.control.set_limits("api", parse_shared_limits("200/second"))
    deployment.control.set_limits("api", parse_shared_limits("10/second"))
    deployment.clock.advance(1_100)
    deployment.starts.clear()
    assert deployment.start(100) == 10


@pytest.mark.parametrize(
    "settings", [("800/second", "801/second"), ("300/second", "150/second"), ("50/second", "250/second")]
)
def test_old_and_new_workers_of_a_deployment_never_start_more_than_the_higher_setting_allows(
    settings: tuple[str, str],
) -> None:
    old = Deployment(f"api: {settings[0]}")
    old.start(300)
    new = Deployment(f"api: {settings[1]}", old)
    for _ in range(12):
        old.start(150)
        new.start(150)
        old.clock.advance(250)
    assert old.most_within(1_000) <= max(int(one.partition("/")[0]) for one in settings)
    assert len(old.starts) > 500


def test_lowered_setting_that_has_no_part_for_each_shard_gets_fewer_of_them() -> None:
    old = Deployment("api: 800/second")
    old.start(300)
    new = Deployment("api: 5/second", old)
    assert new.control.one("api").next_start_at
    new.start(1)
    new.clock.advance(1_100)
    new.starts.clear()
    assert new.start(50) == 5


def test_old_and_new_workers_that_need_different_shards_do_not_stop_the_shared_limit_in_turn() -> None:
    old = Deployment("api: 800/second")
    old.start(100)
    new = Deployment("api: 5/second", old)
    new.start(1)
    old.starts.clear()
    for _ in range(40):
        old.clock.advance(1_000)
        old.start(3)
        new.start(3)
    assert len(old.starts) > 150
    assert len(old.shards()) > 1
    assert old.store.get("api").shards == 1


def test_lanes_that_wait_at_a_shard_which_is_no_longer_one_are_woken() -> None:
    deployment = Deployment("api: 300/second")
    deployment.start(10)
    turn = deployment.store.ask("api#2").asked
    deployment.lanes.prepare("bob", lambda lane: replace(lane, head_receipt="message of bob"))
    deployment.store.add_waiter("api#2", Waiter(turn, "bob", "t"), NOW + 9_000)
    deployment.control.set_limits("api", parse_shared_limits("50/second"))
    assert deployment.queue.shown == ["message of bob"]


def test_view_sums_the_shards() -> None:
    deployment = Deployment("api: 300/second; 9000/minute")
    deployment.start(90)
    view = deployment.control.one("api")
    assert len(view.shards) == 3
    assert [(str(limit), usage.used, usage.left) for limit, usage in view.usage] == [
        ("300/second", 90, 210),
        ("9000/minute", 90, 8_910),
    ]
    assert (view.started, view.waiting, view.next_start_at) == (90, 0, NOW)
    [backlog] = deployment.control.backlogs()
    assert (backlog.name, backlog.used["second"]) == ("api", (90, 300))
    assert deployment.store.names() == ["api"]


def test_newer_state_of_a_shard_is_not_replaced_by_an_older_one() -> None:
    deployment = Deployment("api: 300/second")
    deployment.start(1)
    first = deployment.store.get("api")
    write = deployment.store.change(first, paused_shared(first, None))
    assert isinstance(write, SharedWritten)
    deployment.control.resume("api")
    deployment.control._layout.spread(write.shared)
    assert deployment.start(300) > 250


def test_a_new_shard_is_not_open_before_a_change_has_closed_it() -> None:
    """A worker that knows the new number from the first shard would claim in an item that counts no earlier start."""
    store = MemorySharedLimitStore()
    layout = SharedLayout(store, VirtualClock(), {"s": parse_shared_limits("240/second")})
    assert not layout.is_open(store.get(item_name("s", 1)))
    layout.lay_out("s")
    assert layout.is_open(store.get(item_name("s", 1)))
