"""One worker at a time, many users, and a shared limit."""

import pytest
from msgspec.structs import replace

from chalicelib.core.errors import RetryAfter, UnavailableError
from chalicelib.core.lane import Turn
from chalicelib.core.limits import parse_limits, parse_shared_limits
from chalicelib.core.shared_limit import SharedLimit, Taken, claim_shared, paused_shared, with_shared_limits
from chalicelib.core.task import Json, TaskState
from chalicelib.worker.messages import Deferred, Done, Handled
from paceline.testing.memory.task_queue import Message
from tests.factories import NOW
from tests.unit.workshop import WorkerDiedError, Workshop
from tests.windows import assert_pace_kept

THREE = "stripe: 3/second; 50/minute"


def shop_of(shared: str = THREE, limits: str = "100/second", **env: str) -> Workshop:
    return Workshop(SHARED_LIMITS=shared, LIMITS=limits, **env)


def submit_many(shop: Workshop, users: int, each: int, shared: str = "stripe") -> None:
    for user in range(users):
        for number in range(each):
            shop.submit(f"u{user}", payload=[f"u{user}", number], shared=shared)


def shared_starts(shop: Workshop) -> list[int]:
    return sorted(at for event in shop.events if event["shared"] for at in [event["started_at"]])


def test_task_within_the_shared_limit_runs_at_once_with_one_write_more() -> None:
    shop = shop_of()
    shop.submit(shared="stripe")
    assert isinstance(shop.handle_next(), Done)
    shared = shop.shared_limits.get("stripe")
    assert (shop.started_ms, shared.started, shared.starts, shared.asked) == ([0], 1, (NOW,), 0)
    assert shop.events[0]["shared"] == "stripe"
    assert "shared_limits" not in shop.events[0]


def test_task_without_a_shared_limit_touches_none() -> None:
    shop = shop_of()
    shop.shared_limits.fail("get", "try_claim", "claim", "ask", times=99)
    shop.submit()
    assert isinstance(shop.handle_next(), Done)


def test_shared_limit_holds_over_all_users_and_loses_no_start() -> None:
    shop = shop_of()
    submit_many(shop, users=6, each=10)
    shop.run()
    starts = shared_starts(shop)
    assert len(starts) == 60
    assert_pace_kept(starts, parse_limits("3/second; 50/minute"))
    assert starts[49] - starts[0] <= 16_700  # 50 at 3 a second
    assert starts[-1] - starts[0] <= 63_500
    assert shop.shared_limits.get("stripe").starts[0] == starts[-1]


def test_every_start_was_taken_of_the_shared_limit_once() -> None:
    shop = shop_of("stripe: 5/second")
    submit_many(shop, users=4, each=6)
    shop.run()
    starts, shared = shared_starts(shop), shop.shared_limits.get("stripe")
    assert shared.started == len(starts) == 24
    assert list(shared.starts) == starts[::-1][: len(shared.starts)]


def test_own_limits_of_a_user_still_hold_and_take_no_turn_while_they_are_the_reason() -> None:
    shop = shop_of("stripe: 10/second", limits="1/second")
    submit_many(shop, users=2, each=5)
    shop.run()
    assert len(shop.ran) == 10
    assert shop.shared_limits.get("stripe").asked == 0


def test_turn_is_stored_in_the_lane_and_survives_its_worker() -> None:
    shop = shop_of("stripe: 1/10 seconds")
    for user in ("ann", "bob", "cid", "dan"):
        shop.submit(user, payload=user, shared="stripe")
    for _ in range(4):
        shop.handle_next()
    assert [shop.lanes.get(user).turn for user in ("bob", "cid", "dan")] == [
        Turn("stripe", number, 0) for number in (1, 2, 3)
    ]
    assert [waiter.user_id for waiter in shop.shared_limits.waiters("stripe", 0, 9)] == ["bob", "cid", "dan"]
    shop.replace_worker()
    shop.run()
    assert [(at, user) for at, user in shop.ran if at % 10_000 == 0] == [
        (0, "ann"), (10_000, "bob"), (20_000, "cid"), (30_000, "dan"),
    ]  # fmt: skip
    assert shop.lanes.get("dan").turn is None
    assert shop.shared_limits.get("stripe").waiting == 0


def test_waiting_is_no_polling() -> None:
    shop = shop_of("stripe: 1/minute")
    for user in range(12):
        shop.submit(f"u{user}", shared="stripe")
    shop.run()
    assert len(shop.ran) == 12
    assert (
        len(shop.handled) <= 12 * 14
    )  # about a look for each time that the wait halves, and one after the turn before


def test_emptied_lane_loses_its_turn_and_the_next_takes_it_without_a_gap() -> None:
    shop = shop_of("stripe: 1/10 seconds")
    tasks = [shop.submit(user, payload=user, shared="stripe") for user in ("ann", "bob", "cid")]
    for _ in range(3):
        shop.handle_next()
    shop.control.cancel("bob", tasks[1].task_id)
    shop.run()
    assert [(at, user) for at, user in shop.ran] == [(0, "ann"), (10_060, "cid")]


def test_paused_lane_loses_its_turn_and_is_passed_over() -> None:
    shop = shop_of("stripe: 1/10 seconds")
    for user in ("ann", "bob", "cid"):
        shop.submit(user, payload=user, shared="stripe")
    for _ in range(3):
        shop.handle_next()
    shop.control.pause("bob", NOW + 60_000)
    assert shop.lanes.get("bob").turn_for("stripe") == 0
    shop.run()
    by_user = {user: at for at, user in shop.ran}
    assert by_user["cid"] <= 11_000
    assert by_user["bob"] == 60_000


@pytest.mark.parametrize("after", [False, True])
def test_start_taken_by_a_worker_that_then_fails_is_lost_and_none_is_taken_too_many(after: bool) -> None:
    shop = shop_of("stripe: 1/second")
    shop.submit("ann", payload="ann", shared="stripe")
    shop.submit("bob", payload="bob", shared="stripe")
    shop.lanes.fail("try_fast_claim", after=after)
    shop.run()
    starts = shared_starts(shop)
    assert len(starts) == 2
    assert_pace_kept([*starts, *shop.shared_limits.get("stripe").starts[-1:]][:2], parse_limits("1/second"))
    assert shop.shared_limits.get("stripe").started >= 3 - after


def test_retry_takes_a_start_of_its_own() -> None:
    shop = shop_of("stripe: 1/second", BACKOFF="0s")
    failures = iter([True, False])

    def fails_once(_: Json) -> Json:
        if next(failures):
            raise ValueError
        return None

    shop.register("flaky", fails_once)
    task = shop.submit(name="flaky", shared="stripe")
    shop.run()
    assert shop.started_ms == [0, 1_000]
    assert shop.record(task).state is TaskState.SUCCEEDED
    assert shop.shared_limits.get("stripe").started == 2


def test_units_count_against_the_shared_limit() -> None:
    shop = shop_of("llm: 100 units/second")
    for user in ("ann", "bob", "cid"):
        shop.submit(user, payload=user, shared="llm", units=50)
    shop.run()
    times = [at for at, _ in shop.ran]
    assert times[:2] == [0, 0]
    assert 1_000 <= times[2] <= 1_020


def test_task_with_more_units_than_the_shared_limit_ever_allows_fails_with_that_reason() -> None:
    shop = shop_of("llm: 100 units/second")
    task = shop.submit("ann", shared="llm", units=101)
    shop.submit("ann", shared="llm", units=100)
    shop.run()
    assert shop.record(task).error == "its 101 units are more than 100 units/second allows"
    assert len(shop.ran) == 1


# --- throttled, paused, changed, deleted


def test_answer_slow_down_throttles_all_users_of_the_shared_limit_and_no_lane() -> None:
    shop = shop_of("stripe: 10/second")
    answers = iter([RetryAfter(30, "429", shared=True)])

    def called(_: Json) -> Json:
        if answer := next(answers, None):
            raise answer
        return None

    shop.register("call", called)
    first = shop.submit("ann", payload="ann", name="call", shared="stripe")
    shop.handle_next()
    shared = shop.shared_limits.get("stripe")
    assert (shared.throttled_until, shared.throttled_reason) == (NOW + 30_000, "429")
    assert not shop.lanes.get("ann").is_throttled(NOW)
    shop.submit("bob", payload="bob", name="call", shared="stripe")
    shop.submit("cid", payload="cid")
    shop.run()
    assert shop.ran == [(0, "ann"), (0, "cid"), (30_000, "ann"), (30_000, "bob")]
    assert shop.event_of(first)["attempt"] == 1


def test_task_without_a_shared_limit_that_asks_for_it_throttles_its_lane() -> None:
    shop = shop_of()
    answers = iter([RetryAfter(30, "429", shared=True)])

    def called(_: Json) -> Json:
        if answer := next(answers, None):
            raise answer
        return None

    shop.register("call", called)
    shop.submit("ann", name="call")
    shop.handle_next()
    assert shop.lanes.get("ann").throttled_until == NOW + 30_000


def test_nothing_starts_while_paused_and_all_look_again_within_a_minute_of_a_resume() -> None:
    shop = shop_of()
    shop.shared_limits.change(shop.shared_limits.get("stripe"), paused_shared(shop.shared_limits.get("stripe"), None))
    submit_many(shop, users=3, each=1)
    shop.run(until_ms=600_000)
    assert shop.ran == []
    assert len(shop.handled) <= 3 * 14
    seen = shop.shared_limits.get("stripe")
    shop.shared_limits.change(seen, with_shared_limits(paused_shared(seen, shop.clock.now_ms()), None, 0))
    shop.run()
    assert len(shop.ran) == 3
    assert max(shop.started_ms) <= 660_000


def test_limits_set_at_run_time_win_over_the_setting_and_are_logged() -> None:
    shop = shop_of("stripe: 1/hour")
    seen = shop.shared_limits.get("stripe")
    shop.shared_limits.change(seen, with_shared_limits(seen, parse_shared_limits("2/second"), NOW))
    submit_many(shop, users=2, each=2)
    shop.run()
    assert_pace_kept(shared_starts(shop), parse_limits("2/second"))
    assert {event["shared_limits"] for event in shop.events} == {"2/second"}


def test_tasks_whose_shared_limit_was_deleted_run_under_their_own_limits_alone() -> None:
    shop = shop_of("other: 1/second")
    submit_many(shop, users=2, each=2, shared="gone")
    shop.run()
    assert shop.started_ms == [0, 0, 0, 0]
    assert {event["shared_limits"] for event in shop.events} == {""}


# --- at once


def test_no_more_tasks_run_at_once_than_the_shared_limit_says_and_a_release_wakes_the_first() -> None:
    shop = shop_of("db: 2 at once")
    running, most, outcomes = list[str](), list[int](), list[Handled]()

    def runs(payload: Json) -> Json:
        running.append(payload)
        most.append(len(running))
        if len(running) < 3 and len(shop.queue) > 1:  # another one comes while it runs
            outcomes.append(shop.handle_next())
        running.remove(payload)
        return None

    shop.register("query", runs)
    for user in ("ann", "bob", "cid"):
        shop.submit(user, payload=user, name="query", shared="db")
    shop.run()
    assert max(most) == 2
    assert isinstance(outcomes[0], Deferred)  # of cid, the innermost
    assert max(shop.started_ms) == 0  # a release woke cid
    assert sorted(payload for _, payload in shop.ran) == ["ann", "bob", "cid"]
    assert shop.shared_limits.get("db").holders == {}


def test_slot_of_a_worker_that_died_comes_back_when_its_lease_is_over() -> None:
    shop = shop_of("db: 1 at once")
    deaths = iter([True])

    def runs(_: Json) -> Json:
        if next(deaths, False):
            raise WorkerDiedError
        return None

    shop.register("query", runs)
    shop.submit("ann", payload="ann", name="query", shared="db")
    shop.submit("bob", payload="bob", name="query", shared="db")
    with pytest.raises(WorkerDiedError):
        shop.handle_next()
    shop.replace_worker()
    shop.run()
    assert {payload for _, payload in shop.ran} == {"ann", "bob"}
    assert next(at for at, payload in shop.ran if payload == "bob") <= 61_000


def test_failure_of_the_shared_store_leaves_the_task_for_later() -> None:
    shop = shop_of()
    shop.submit(shared="stripe")
    shop.shared_limits.fail("get")
    with pytest.raises(UnavailableError):
        shop.handle_next()
    shop.run()
    assert len(shop.ran) == 1


def test_worker_whose_clock_is_off_takes_no_start_and_blocks_nobody() -> None:
    shop = shop_of("stripe: 1/second")
    ahead = shop.new_worker()
    ahead._shared._is_clock_off = lambda: True  # type: ignore[union-attr]
    task = shop.submit("ann", payload="ann", shared="stripe")
    assert isinstance(shop.deliver(shop.receive(), ahead), Deferred)
    assert (shop.shared_limits.get("stripe").started, shop.lanes.get("ann").started) == (0, 0)
    shop.submit("bob", payload="bob", shared="stripe")
    shop.run()
    assert shop.ran[0] == (0, "bob")
    assert shop.record(task).state is TaskState.SUCCEEDED
    assert max(shop.started_ms) <= 3_000


def test_release_wakes_a_lane_whose_wait_began_with_the_rate() -> None:
    shop, others = shop_of("db: 1/2 seconds; 1 at once"), list[Message]()

    def runs(payload: Json) -> Json:
        if payload == "long":
            shop.deliver(others.pop())  # bob's worker is late, and finds cid's task running
            shop.clock.sleep(10_000)
        return None

    shop.register("query", runs)
    for user, payload in (("ann", "short"), ("bob", "bob"), ("cid", "long")):
        shop.submit(user, payload=payload, name="query", shared="db")
        shop.handle_next()
    assert [waiter.user_id for waiter in shop.shared_limits.waiters("db", 0, 9)] == ["cid"]
    shop.clock.sleep_until(NOW + 2_070)
    of_cid, *others[:] = sorted(shop.queue.receive(9), key=lambda message: message.user_id, reverse=True)
    shop.deliver(of_cid)
    shop.run()
    assert [payload for _, payload in shop.ran] == ["short", "long", "bob"]
    assert shop.ran[-1][0] <= 13_000


def with_turns_before(shop: Workshop, count: int) -> None:
    """Turns that nobody uses come before those of the lanes."""
    seen = shop.shared_limits.get("stripe")
    shop.shared_limits.change(seen, with_shared_limits(seen, None, NOW))
    for _ in range(count):
        shop.shared_limits.ask("stripe")


def test_of_many_lanes_that_wait_for_a_fast_limit_a_few_are_listed() -> None:
    shop = shop_of("stripe: 10/second")
    with_turns_before(shop, 50)
    submit_many(shop, users=30, each=1)
    for _ in range(30):
        shop.handle_next()
    assert [waiter.turn for waiter in shop.shared_limits.waiters("stripe", 0, 99)] == [55, 60, 65, 70, 75, 80]


def test_lane_thousands_of_turns_behind_looks_when_half_of_its_wait_is_over() -> None:
    shop = shop_of("stripe: 100/second")
    with_turns_before(shop, 10_000)
    shop.submit(shared="stripe")
    shop.run(until_ms=300_000)
    assert len(shop.ran) == 1  # turns that nobody uses are passed over, however many
    assert 90_000 <= shop.ran[0][0] <= 103_000
    assert len(shop.handled) <= 12


def test_start_under_a_number_at_once_comes_after_the_pause_that_another_start_ended() -> None:
    limits = parse_shared_limits("1 at once")
    paused = paused_shared(SharedLimit("db"), NOW + 100)
    first = claim_shared(paused, limits, NOW, NOW + 150, task=("ann", "t1"))
    assert isinstance(first, Taken)
    released = replace(first.after, holders={})
    second = claim_shared(released, limits, NOW, NOW + 150, task=("bob", "t2"))
    assert isinstance(second, Taken)
    assert (first.at, second.at) == (NOW + 100, NOW + 100)
