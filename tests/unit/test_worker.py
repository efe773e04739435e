import asyncio
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.core.errors import RetryAfter, UnavailableError
from chalicelib.core.lane import LEASE_MS, Lease
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import LaneStore
from chalicelib.core.task import Json, TaskState
from chalicelib.core.visibility import NEWER_SECONDS, SHORT_SLEEP_MS
from chalicelib.tasks.registry import TaskDefinition
from chalicelib.tasks.runner import InProcess, Room
from chalicelib.worker.finalizer import FINALIZE_TRIES
from chalicelib.worker.lease_renewal import RENEW_AFTER_MS, LeaseRenewer
from chalicelib.worker.messages import Deferred, Done
from chalicelib.worker.steps import LEAD_MS
from chalicelib.worker.worker import UNKNOWN_AGAIN_MS, UNKNOWN_FOR_MS
from tests.factories import NOW, make_task, task_id_of
from tests.strategies import Step, steps
from tests.unit.workshop import WorkerDiedError, Workshop
from tests.windows import assert_pace_kept


class Flaky:
    """Fails the given number of times, then returns its payload."""

    def __init__(self, failures: int) -> None:
        self._left = failures

    def __call__(self, payload: Json) -> Json:
        if self._left:
            self._left -= 1
            raise ValueError("not yet")
        return payload


# --- time


def test_task_within_the_limits_runs_at_once() -> None:
    shop = Workshop()
    task = shop.submit(payload={"n": 1})
    assert isinstance(shop.handle_next(), Done)
    assert shop.ran == [(0, {"n": 1})]
    assert shop.record(task).state is TaskState.SUCCEEDED
    assert len(shop.queue) == 0


def test_backlog_runs_at_the_pace_and_in_order() -> None:
    shop = Workshop()
    for number in range(25):
        shop.submit(payload=number)
    shop.run()
    assert shop.ran == [(second * 1_000, second) for second in range(20)] + [
        (60_000 + second * 1_000, 20 + second) for second in range(5)
    ]


def test_backlog_of_one_user_keeps_the_only_thread_from_another_until_its_pace_defers_it() -> None:
    # AWS was seen to give the group whose next message is older, and each wait of up to a second is slept.
    assert 18_000 <= first_start_behind_a_backlog(Workshop()) <= 20_200


def test_backlog_of_one_user_keeps_no_thread_from_another_where_no_worker_sleeps() -> None:
    assert first_start_behind_a_backlog(Workshop(LATE_UP_TO="1s")) <= 1_200


def first_start_behind_a_backlog(shop: Workshop) -> int:
    """Milliseconds after which the first of bob's two tasks starts, behind 30 of ann's."""
    for number in range(30):
        shop.submit("ann", payload=number)
    shop.submit("bob", payload="bob")
    shop.submit("bob", payload="bob")
    shop.run()
    first, second = [at for at, payload in shop.ran if payload == "bob"]
    assert 1_000 <= second - first <= 1_200
    return first


def test_wait_up_to_about_a_second_is_slept_to_the_millisecond() -> None:
    shop = Workshop()
    shop.submit()
    shop.handle_next()
    shop.clock.advance(300)
    shop.submit()
    assert isinstance(shop.handle_next(), Done)
    assert shop.started_ms == [0, 1_000]


@pytest.mark.parametrize("early_ms", [200, 501, 700, 1_149, 1_151, 1_900, 2_500, 40_000])
def test_where_a_start_may_be_late_no_worker_sleeps_for_longer_than_a_deferral_is_worth(early_ms: int) -> None:
    shop = Workshop(LATE_UP_TO="1s")
    slept, sleep = list[int](), shop.clock.sleep

    def counted(milliseconds: int) -> bool:
        slept.append(milliseconds)
        return sleep(milliseconds)

    shop.clock.sleep = counted  # type: ignore[method-assign]
    shop.queue.send(make_task(1, planned_at=NOW + early_ms))
    shop.run()
    assert early_ms <= shop.started_ms[0] <= early_ms + 1_000
    assert all(one <= SHORT_SLEEP_MS for one in slept)
    assert len(shop.deferrals) == (early_ms - LEAD_MS > SHORT_SLEEP_MS)


def test_message_that_aws_fails_is_hidden_for_ever_longer_by_the_receives_that_sqs_counts() -> None:
    shop = Workshop()
    shop.submit()
    hidden = list[int]()
    for _ in range(33):
        shop.clock.sleep_until(shop.queue.next_available_at())
        shop.lanes.fail("try_fast_claim")
        with pytest.raises(UnavailableError):
            shop.handle_next()
        hidden.append((shop.queue.next_available_at() - shop.clock.now_ms()) // 1_000)
    assert hidden == [1, 2, 4, *[5] * 27, 57, 57, 57]
    shop.run()
    assert len(shop.events) == 1


@pytest.mark.parametrize("early_ms", [1_351, 2_000, 2_149, 2_151, 2_500, 10_000, 59_999, 600_000])
def test_deferred_message_comes_back_before_its_time_by_at_most_what_is_slept(early_ms: int) -> None:
    shop = Workshop()
    task = make_task(1, planned_at=NOW + early_ms)
    shop.queue.send(task)
    outcome = shop.handle_next()
    assert isinstance(outcome, Deferred)
    comes_back_at = shop.queue.next_available_at()
    assert NOW + early_ms - 1_200 <= comes_back_at <= NOW + early_ms - 150
    shop.run()
    assert shop.started_ms == [early_ms]


def test_waiting_writes_no_start_and_uses_no_attempt() -> None:
    shop = Workshop()
    task = make_task(1, planned_at=NOW + 3_600_000)
    shop.queue.send(task)
    shop.tasks.create_if_absent(task)
    for _ in range(50):
        shop.clock.advance(30_000)
        for message in shop.queue.receive():
            shop.deliver(message)
    assert shop.lanes.get("ann").started == 0
    shop.run()
    assert shop.started_ms == [3_600_000]
    assert shop.event_of(task)["attempt"] == 1


@given(st.lists(st.tuples(steps(), st.sampled_from(["ann", "bob"])), min_size=1, max_size=30))
def test_whatever_is_submitted_runs_once_in_order_at_the_pace_and_on_time(submits: list[tuple[Step, str]]) -> None:
    shop = Workshop(LIMITS="2/second; 5/10 seconds", MAX_DELAY="12h")
    at, planned = NOW, dict[str, list[int]](ann=[], bob=[])

    def submit(user: str) -> None:
        task = shop.submit(user, payload=(user, len(planned[user])))
        planned[user].append(task.planned_at - NOW)

    for step, user in submits:
        at += step.milliseconds
        shop.clock.at(at, lambda user=user: submit(user))  # type: ignore[misc]
    shop.run()
    while shop.clock.now_ms() < at:
        shop.clock.advance(100)
        shop.run()
    for user in planned:
        mine = [(start, payload[1]) for start, payload in shop.ran if payload[0] == user]
        assert [number for _, number in mine] == list(range(len(planned[user])))
        assert_pace_kept([start for start, _ in mine], parse_limits("2/second; 5/10 seconds"))
        assert all(start >= plan for (start, _), plan in zip(mine, planned[user], strict=True))
        alone = {user for _, user in submits} == {user}
        if alone:  # the only thread does not sleep for another
            assert all(start - plan <= 100 for (start, _), plan in zip(mine, planned[user], strict=True))


# --- attempts


def test_failed_task_is_tried_again_after_its_backoff_at_the_head_of_its_lane() -> None:
    shop = Workshop(BACKOFF="3s", LIMITS="10/second")
    shop.register("flaky", Flaky(2))
    shop.submit(payload="first", name="flaky")
    shop.submit(payload="second")
    shop.run()
    assert shop.ran == [(0, "first"), (3_000, "first"), (9_000, "first"), (9_000, "second")]


def test_retry_takes_a_start_of_the_pace() -> None:
    shop = Workshop(BACKOFF="0s")
    shop.register("flaky", Flaky(1))
    shop.submit(payload="first", name="flaky")
    shop.submit(payload="second")
    shop.run()
    assert shop.ran == [(0, "first"), (1_000, "first"), (2_000, "second")]


def test_completion_counts_attempts_and_names_earlier_starts() -> None:
    shop = Workshop(BACKOFF="1s")
    shop.register("flaky", Flaky(2))
    task = shop.submit(payload="x", name="flaky")
    shop.run()
    event = shop.event_of(task)
    assert (event["event"], event["attempt"], event["result"]) == ("task_completed", 3, "x")
    assert event["starts"] == [NOW, NOW + 1_000]
    assert event["started_at"] == NOW + 3_000
    assert "error" not in event


@pytest.mark.parametrize("changed_at_ms", [500, 2_500], ids=["before its first start", "in its backoff"])
def test_task_planned_anew_and_tried_again_is_not_logged_as_early(changed_at_ms: int) -> None:
    shop = Workshop(LIMITS="1/second", BACKOFF="3s")
    shop.register("flaky", Flaky(1))
    shop.submit()
    task = shop.submit(name="flaky")
    shop.clock.at(NOW + changed_at_ms, lambda: shop.control.set_limits("ann", parse_limits("2/3 seconds")) and None)
    shop.run()
    event = shop.event_of(task)
    assert (event["attempt"], event["limits"]) == (2, "2/3 seconds")
    assert event["planned_at"] <= event["starts"][0]
    assert event["late_ms"] >= 0


def test_waiting_for_the_next_attempt_shows_the_last_error() -> None:
    shop = Workshop()
    shop.register("flaky", Flaky(1))
    task = shop.submit(name="flaky")
    shop.handle_next()
    record = shop.record(task)
    assert (record.state, record.attempts, record.error) == (TaskState.QUEUED, 1, "ValueError: not yet")


def test_task_that_keeps_failing_ends_failed_with_a_dead_letter_and_the_lane_goes_on() -> None:
    shop = Workshop(MAX_ATTEMPTS="3", BACKOFF="1s")
    shop.register("flaky", Flaky(99))
    task = shop.submit(payload="never", name="flaky")
    last = shop.submit(payload="after")
    shop.run()
    assert [payload for _, payload in shop.ran] == ["never", "never", "never", "after"]
    record, event = shop.record(task), shop.event_of(task)
    assert (record.state, record.error) == (TaskState.FAILED, "ValueError: not yet")
    assert (event["event"], event["attempt"], event["error"]) == ("task_failed", 3, "ValueError: not yet")
    [letter] = shop.queue.dead_letters
    assert (letter.body, letter.reason) == (task.to_message(), "ValueError: not yet")
    assert shop.record(last).state is TaskState.SUCCEEDED


def test_task_whose_worker_dies_every_time_is_given_up() -> None:
    shop = Workshop(MAX_ATTEMPTS="2")
    shop.register("deadly", dies)
    task = shop.submit(payload="deadly", name="deadly")
    for _ in range(2):
        with pytest.raises(WorkerDiedError):
            shop.handle_next()
        shop.replace_worker()
        shop.clock.advance(90_000)
    shop.run()
    assert len(shop.ran) == 2
    event = shop.event_of(task)
    assert (event["event"], event["attempt"]) == ("task_failed", 2)
    assert "worker died" in event["error"]
    assert event["started_at"] == NOW + 90_000
    assert [letter.body for letter in shop.queue.dead_letters] == [task.to_message()]


def dies(payload: Json) -> Json:
    raise WorkerDiedError


def test_exit_from_a_task_is_a_failed_attempt() -> None:
    shop = Workshop(MAX_ATTEMPTS="1")
    shop.register("leaves", lambda payload: sys.exit(3))
    task = shop.submit(name="leaves")
    shop.run()
    assert shop.event_of(task)["error"] == "SystemExit: 3"


@pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, GeneratorExit])
def test_exception_of_any_kind_fails_its_attempt_and_the_lane_goes_on(kind: type[BaseException]) -> None:
    def leave(payload: Json) -> Json:
        raise kind

    shop = Workshop(MAX_ATTEMPTS="2", BACKOFF="0s")
    shop.register("leave", leave)
    task, after = shop.submit(name="leave"), shop.submit()
    shop.run()
    event = shop.event_of(task)
    assert (event["event"], event["attempt"], event["error"]) == ("task_failed", 2, f"{kind.__name__}: ")
    assert shop.record(after).state is TaskState.SUCCEEDED


class ScarceRunner(InProcess):
    """Has no room for the first so many runs; waits that long before it says so, or before it gives room."""

    def __init__(self, shop: Workshop, refusals: int, wait_ms: int = 0) -> None:
        self._shop = shop
        self._refusals = refusals
        self._wait_ms = wait_ms

    def room(self, definition: TaskDefinition, deadline_ms: int) -> AbstractContextManager[Room | None]:
        self._shop.clock.advance(self._wait_ms)
        self._refusals -= 1
        return nullcontext(None) if self._refusals >= 0 else nullcontext(self)


def scarce(refusals: int, wait_ms: int = 0) -> Workshop:
    shop = Workshop(MAX_ATTEMPTS="2")
    shop.task_runner = ScarceRunner(shop, refusals, wait_ms)
    shop.replace_worker()
    return shop


def test_without_room_no_start_is_claimed_and_no_attempt_used() -> None:
    shop = scarce(refusals=3)
    task = shop.submit()
    assert isinstance(shop.handle_next(), Deferred)
    lane = shop.lanes.get("ann")
    assert (lane.started_seq, lane.starts, lane.running) == (0, (), None)
    shop.run()
    event = shop.event_of(task)
    assert (event["event"], event["attempt"]) == ("task_completed", 1)


def test_start_that_had_to_wait_for_room_is_not_dated_back() -> None:
    shop = scarce(refusals=0, wait_ms=700)
    tasks = [shop.submit() for _ in range(3)]
    shop.run()
    for task, (ran_ms, _) in zip(tasks, shop.ran, strict=True):
        assert shop.event_of(task)["started_at"] - NOW == ran_ms


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (object(), "the result is not JSON"),
        (float("nan"), "the result is not JSON"),
        ({("a", "b"): 1}, "the result is not JSON"),
        ("\ud800", "the result is not JSON"),
    ],
)
def test_result_that_is_no_json_fails_the_task_without_running_it_again(result: Any, reason: str) -> None:
    shop = Workshop()
    shop.register("odd", lambda payload: result)
    task = shop.submit(name="odd")
    shop.run()
    assert len(shop.ran) == 1
    assert shop.record(task).state is TaskState.FAILED
    assert reason in shop.event_of(task)["error"]


def test_result_too_large_for_the_table_fails_the_task_without_running_it_again() -> None:
    shop = Workshop()
    shop.register("large", lambda payload: "x" * 500_000)
    task = shop.submit(name="large")
    shop.run()
    assert len(shop.ran) == 1
    assert shop.record(task).state is TaskState.FAILED


def test_task_whose_function_is_gone_fails_and_the_lane_goes_on() -> None:
    shop = Workshop()
    task = shop.submit(name="gone")
    shop.submit(payload="after")
    shop.run()
    assert shop.event_of(task)["error"] == "there is no task 'gone' in this deployment"
    assert shop.ran == [(UNKNOWN_FOR_MS + 1_000, "after")]
    assert len(shop.queue.dead_letters) == 1


def test_new_name_that_this_worker_does_not_know_yet_waits_for_a_worker_that_does() -> None:
    shop = Workshop()
    task = shop.submit(name="new")
    shop.run(until_ms=60_000)
    assert (shop.events, shop.lanes.get("ann").started) == ([], 0)
    shop.register("new", lambda payload: "done")
    shop.replace_worker()
    shop.run()
    assert (shop.event_of(task)["result"], shop.event_of(task)["attempt"]) == ("done", 1)
    assert shop.event_of(task)["late_ms"] <= 60_000 + UNKNOWN_AGAIN_MS


def test_task_whose_function_went_while_it_waited_for_long_fails_at_once() -> None:
    shop = Workshop(LIMITS="1/second")
    first, second = shop.submit(name="gone"), shop.submit(name="gone")
    shop.run()
    first_at, second_at = (shop.event_of(task)["completed_at"] - NOW for task in (first, second))
    assert first_at == UNKNOWN_FOR_MS
    assert second_at - first_at <= UNKNOWN_AGAIN_MS
    assert len(shop.deferrals) <= 2 * UNKNOWN_FOR_MS / UNKNOWN_AGAIN_MS


@pytest.mark.parametrize("text", ["nul \x00", "lone \ud800", "not a character \uffff", "lines\r\nand\x85more"])
def test_error_with_characters_that_aws_does_not_take_becomes_one_clean_line(text: str) -> None:
    shop = Workshop(MAX_ATTEMPTS="1")

    def fails(payload: Json) -> Json:
        raise ValueError(text)

    shop.register("fails", fails)
    task = shop.submit(name="fails")
    shop.run()
    error = shop.record(task).error
    assert error
    assert error.startswith("ValueError: ")
    assert error.isprintable()


# --- each task once, by one worker


def test_task_that_runs_keeps_other_workers_off() -> None:
    shop = Workshop()
    other = shop.new_worker()
    outcomes = []

    def slow(payload: Json) -> Json:
        shop.clock.advance(5_000)
        outcomes.append(shop.deliver(replace(message, receipt="copy"), other))
        return payload

    shop.register("slow", slow)
    shop.submit(name="slow")
    message = shop.receive()
    shop.deliver(message)
    assert [type(outcome) for outcome in outcomes] == [Deferred]
    assert shop.started_ms == [0]
    assert len(shop.events) == 1


def test_other_worker_may_take_over_once_the_lease_has_ended() -> None:
    shop = Workshop()
    shop.register("deadly", dies)
    shop.submit(name="deadly")
    message = shop.receive()
    with pytest.raises(WorkerDiedError):
        shop.deliver(message)
    shop.clock.advance(LEASE_MS - 1_201)
    assert isinstance(shop.deliver(message, shop.new_worker()), Deferred)
    shop.clock.advance(1_201)
    with pytest.raises(WorkerDiedError):
        shop.deliver(message, shop.new_worker())
    assert shop.started_ms == [0, LEASE_MS]


@pytest.mark.parametrize("by", ["the same worker", "a new one"])
def test_task_delivered_again_after_its_end_does_nothing(by: str) -> None:
    shop = Workshop()
    shop.submit()
    message = shop.receive()
    shop.deliver(message)
    shop.clock.advance(100_000)
    if by == "a new one":
        shop.replace_worker()
    assert isinstance(shop.deliver(message), Done)
    assert len(shop.ran) == len(shop.events) == 1


def test_claim_whose_answer_was_lost_is_not_taken_twice() -> None:
    shop = Workshop()
    task = shop.submit()
    shop.lanes.fail("try_fast_claim", after=True)
    shop.run()
    assert len(shop.events) == 1
    assert shop.lanes.get("ann").started == len(shop.event_of(task).get("starts", ())) + 1


# --- order


def test_submits_that_reach_the_queue_in_the_other_order_still_start_in_theirs() -> None:
    shop = Workshop(LIMITS="10/second")
    first, second = make_task(1, payload="first"), make_task(2, payload="second")
    for task in (second, first):
        shop.queue.send(task)
        shop.tasks.create_if_absent(task)
    shop.run()
    assert [payload for _, payload in shop.ran] == ["first", "second"]
    assert len(shop.events) == 2
    assert len(shop.queue) == 0


def test_task_waits_for_a_predecessor_that_is_noted_a_moment_later() -> None:
    shop = Workshop(LIMITS="10/second")
    first, second = make_task(1, payload="first"), make_task(2, payload="second")
    shop.queue.send(second)
    shop.queue.send(first)
    shop.clock.at(NOW + 700, lambda: shop.tasks.create_if_absent(first))
    shop.run()
    assert [payload for _, payload in shop.ran] == ["first", "second"]
    assert shop.started_ms[0] <= 750


def test_submit_that_was_never_sent_delays_the_next_by_the_grace_at_most() -> None:
    shop = Workshop(LIMITS="10/second")
    shop.submit(payload="first")
    shop.queue.fail("send")
    with pytest.raises(UnavailableError):
        shop.submit(payload="lost")
    shop.submit(payload="third")
    shop.submit(payload="fourth")
    shop.run()
    assert [payload for _, payload in shop.ran] == ["first", "third", "fourth"]
    assert shop.started_ms[1] <= 2_050
    assert shop.started_ms[2] - shop.started_ms[1] <= 50


def test_hole_that_is_older_than_the_grace_delays_nothing() -> None:
    shop = Workshop(LIMITS="10/second")
    shop.queue.send(make_task(9, payload="late", submitted_at=NOW - 2_000))
    shop.run()
    assert shop.ran == [(0, "late")]


def test_missing_predecessor_that_fails_is_tried_again() -> None:
    shop = Workshop(LIMITS="10/second", BACKOFF="2s")
    shop.register("flaky", Flaky(1))
    first, second = make_task(1, name="flaky", payload="first"), make_task(2, payload="second")
    for task in (second, first):
        shop.queue.send(task)
        shop.tasks.create_if_absent(task)
    shop.run()
    assert shop.ran[0] == (0, "first")
    assert sorted(payload for _, payload in shop.ran) == ["first", "first", "second"]
    assert shop.record(first).state is TaskState.SUCCEEDED


# --- poison


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{not json",
        "[]",
        "null",
        "{}",
        '{"v":0}',
        make_task().to_message().replace('"seq":1', '"seq":"1"'),
        make_task().to_message().replace('"seq":1', '"seq":true'),
        make_task().to_message().replace('"user_id":"ann"', '"user_id":"bob"'),
        make_task().to_message().replace('"task":"log"', '"task":null'),
        "[" * 100_000,
    ],
)
def test_message_that_is_no_task_is_buried_and_the_lane_goes_on(body: str) -> None:
    shop = Workshop()
    shop.queue.send_body("ann", "poison", body)
    task = shop.submit()
    assert isinstance(shop.handle_next(), Done)
    shop.run()
    [letter] = shop.queue.dead_letters
    assert letter.body == body
    assert letter.reason
    assert shop.record(task).state is TaskState.SUCCEEDED


# --- AWS away, disk full, stopping


@pytest.mark.parametrize(("port", "call"), [("log", "write"), ("tasks", "finish")])
@pytest.mark.parametrize("times", [1, 3])
def test_end_that_can_not_be_settled_at_once_is_tried_again(port: str, call: str, times: int) -> None:
    shop = Workshop()
    task = shop.submit()
    getattr(shop, port).fail(call, times=times)
    assert isinstance(shop.handle_next(), Done)
    assert len(shop.ran) == len(shop.events) == 1
    assert shop.record(task).state is TaskState.SUCCEEDED


@pytest.mark.parametrize(("port", "call"), [("log", "write"), ("tasks", "finish")])
def test_end_that_can_not_be_settled_for_long_is_settled_later_without_running_again(port: str, call: str) -> None:
    shop = Workshop()
    task = shop.submit()
    getattr(shop, port).fail(call, times=FINALIZE_TRIES + 2)
    with pytest.raises(UnavailableError):
        shop.handle_next()
    shop.run()
    assert len(shop.ran) == len(shop.events) == 1
    assert shop.event_of(task)["completed_at"] == NOW
    assert shop.record(task).state is TaskState.SUCCEEDED


def test_lease_is_kept_until_the_end_is_noted() -> None:
    shop = Workshop()
    shop.submit()
    message = shop.receive()
    shop.tasks.fail("finish", times=9)
    left_ms = []

    def renew() -> None:
        shop.renewer.renew_due()
        left_ms.append(shop.lanes.get("ann").running.until - shop.clock.now_ms())

    for second in range(1, 9):
        shop.clock.at(NOW + 1000 * second + 1, renew)
    shop.deliver(message)
    assert min(left_ms) >= LEASE_MS - 3_000


def test_failed_task_whose_dead_letter_can_not_be_sent_keeps_its_reason() -> None:
    shop = Workshop(MAX_ATTEMPTS="1")
    shop.register("flaky", Flaky(99))
    task = shop.submit(name="flaky")
    shop.queue.fail("send_dead")
    shop.run()
    assert len(shop.ran) == 1
    assert shop.event_of(task)["error"] == "ValueError: not yet"
    assert len(shop.queue.dead_letters) == 1


@pytest.mark.parametrize("call", ["get", "try_fast_claim", "claim"])
@pytest.mark.parametrize("after", [False, True], ids=["not done", "done, answer lost"])
def test_lane_that_is_away_for_a_moment_loses_nothing(call: str, after: bool) -> None:
    shop = Workshop(LIMITS="10/second", BACKOFF="1s")
    shop.register("flaky", Flaky(1))
    tasks = [shop.submit(payload=n, name="flaky" if n == 1 else "log") for n in range(4)]
    shop.lanes.fail(call, times=2, after=after)
    shop.run()
    assert [shop.record(task).state for task in tasks] == [TaskState.SUCCEEDED] * 4
    assert sorted(shop.ran, key=lambda ran: (ran[1], ran[0])) == sorted(shop.ran)


def test_worker_that_stops_gives_a_waiting_message_back_at_once() -> None:
    shop = Workshop()
    shop.queue.send(make_task(1, planned_at=NOW + 1_100))
    shop.clock.stopping = True
    assert isinstance(shop.handle_next(), Deferred)
    assert shop.ran == []
    assert shop.queue.next_available_at() == NOW
    assert shop.lanes.get("ann").started == 0


def test_worker_that_stops_gives_back_a_message_that_waits_for_its_predecessor() -> None:
    shop = Workshop()
    shop.queue.send(make_task(2))
    shop.clock.stopping = True
    assert isinstance(shop.handle_next(), Deferred)
    assert shop.queue.next_available_at() == NOW


def test_start_that_was_claimed_is_run_although_the_worker_stops() -> None:
    shop = Workshop()
    shop.queue.send(make_task(1, planned_at=NOW + 100))
    shop.clock.stopping = True
    assert isinstance(shop.handle_next(), Done)
    assert shop.started_ms == [100]


def test_clock_that_steps_back_makes_no_start_early() -> None:
    shop = Workshop()
    for number in range(3):
        shop.submit(payload=number)
    shop.handle_next()
    shop.clock.step_back(5_000)
    shop.run()
    assert shop.started_ms == [0, 1_000, 2_000]


# --- limits, pause and cancellations of the lane


def test_lane_s_own_limits_hold_for_its_backlog() -> None:
    shop = Workshop()
    for number in range(3):
        shop.submit(payload=number)
    shop.lanes.prepare("ann", lambda lane: replace(lane, limits=parse_limits("1/5 seconds"), revision=1))
    shop.run()
    assert shop.started_ms == [0, 5_000, 10_000]


def test_task_that_was_cancelled_takes_no_start_and_is_logged() -> None:
    shop = Workshop(LIMITS="1/5 seconds")
    tasks = [shop.submit(payload=number) for number in range(3)]
    shop.lanes.prepare("ann", lambda lane: replace(lane, cancelled={tasks[1].task_id: 2}, revision=1))
    shop.run()
    assert [payload for _, payload in shop.ran] == [0, 2]
    assert shop.lanes.get("ann").started == 2
    assert [event["event"] for event in shop.events] == ["task_completed", "task_cancelled", "task_completed"]


def test_paused_lane_starts_nothing_until_the_pause_ends() -> None:
    shop = Workshop()
    shop.submit()
    shop.lanes.prepare("ann", lambda lane: replace(lane, paused_until=NOW + 30_000, revision=1))
    shop.run()
    assert shop.started_ms == [30_000]


# --- the lease of a long task


def make_lease(token: str = "mine") -> Lease:
    return Lease(task_id_of(1), 1, NOW + LEASE_MS, token, (NOW,))


def test_lease_of_a_long_task_is_renewed_before_it_ends_and_not_after_the_task() -> None:
    shop = Workshop()
    shop.lanes.prepare("ann", lambda lane: replace(lane, running=make_lease()))
    renewer = shop.renewer

    def until() -> int:
        return shop.lanes.get("ann").running.until - NOW

    with renewer.renewing("ann", make_lease(), NOW + 60_000, lambda: None):
        for advance_ms, expected in ((999, LEASE_MS), (1, 11_000), (2_999, 11_000), (1, 14_000)):
            shop.clock.advance(advance_ms)
            renewer.renew_due()
            assert until() == expected
        shop.clock.advance(3_000)
        shop.lanes.fail("renew_lease")
        renewer.renew_due()
        assert until() == 14_000
        shop.clock.advance(1_000)
        renewer.renew_due()
        assert until() == 18_000
    shop.clock.advance(9_000)
    renewer.renew_due()
    assert until() == 18_000


@pytest.mark.parametrize("backoff_ms", [3_000, 60_000])
def test_renewal_that_lands_after_the_attempt_does_not_change_its_backoff(backoff_ms: int) -> None:
    shop = Workshop(BACKOFF=f"{backoff_ms // 1000}s")
    shop.register("flaky", Flaky(1))
    shop.submit(name="flaky")
    message = shop.receive()
    release, late = shop.lanes.release_lease, list[bool]()

    def release_and_renew(user_id: str, lease: Lease, retry_at: int) -> Any:
        released = release(user_id, lease, retry_at)
        late.append(bool(shop.lanes.renew_lease(user_id, lease, NOW + LEASE_MS)))  # the renewer sent it before
        return released

    shop.lanes.release_lease = release_and_renew  # type: ignore[attr-defined]
    shop.deliver(message)
    assert late == [False]
    shop.run()
    assert shop.started_ms == [0, backoff_ms]


# --- a task that never ends


def test_task_past_its_deadline_fails_for_good_and_its_lane_goes_on() -> None:
    shop = Workshop(DEADLINE="5")

    def hang(payload: Json) -> None:
        shop.clock.advance(6_000)
        shop.renewer.renew_due()  # as the renewer's thread does while the function runs

    shop.register("hang", hang)
    task = shop.submit(name="hang")
    after = shop.submit()
    shop.run()
    assert shop.record(task).state is TaskState.FAILED
    assert shop.record(task).outcome.error == "it did not end within 5 s"
    assert [letter.reason for letter in shop.queue.dead_letters] == ["it did not end within 5 s"]
    assert shop.processes_ended == 1
    assert len(shop.ran) == 2
    assert shop.record(after).state is TaskState.SUCCEEDED


def test_task_that_ends_in_time_is_not_expired() -> None:
    shop = Workshop(DEADLINE="5")

    def work(payload: Json) -> None:
        shop.clock.advance(4_999)
        shop.renewer.renew_due()

    shop.register("work", work)
    task = shop.submit(name="work")
    shop.run()
    assert shop.record(task).state is TaskState.SUCCEEDED
    assert shop.processes_ended == 0


# --- throttled


def test_task_told_to_slow_down_holds_its_lane_and_uses_no_attempt() -> None:
    shop = Workshop(MAX_ATTEMPTS="1")
    asked = iter([7, 3])

    def call(payload: Json) -> None:
        if seconds := next(asked, None):
            raise RetryAfter(seconds, "the API said so")

    shop.register("call", call)
    task, after, other = shop.submit(name="call"), shop.submit(), shop.submit("bob")
    shop.run()
    assert shop.record(task).state is TaskState.SUCCEEDED
    assert shop.record(task).outcome.attempts == 1
    assert sorted(shop.started_ms) == [0, 0, 7_000, 10_000, 11_000]
    assert shop.record(after).outcome.started_at == NOW + 11_000
    assert shop.record(other).outcome.started_at == NOW
    assert shop.lanes.get("ann").throttled_until == 0


def test_lane_told_to_slow_down_shows_until_when_and_why() -> None:
    shop = Workshop()

    def call(payload: Json) -> None:
        raise RetryAfter(7, "the API said so")

    shop.register("call", call)
    shop.submit(name="call")
    shop.handle_next()
    lane = shop.lanes.get("ann")
    assert (lane.throttled_until, lane.throttled_reason) == (NOW + 7_000, "the API said so")


def test_message_of_a_newer_deployment_waits_for_one_of_its_workers() -> None:
    shop = Workshop()
    task = shop.submit()
    message = shop.receive()
    newer = replace(message, body=message.body.replace('"v":1', '"v":4'))
    assert shop.deliver(newer) == Deferred(NOW + 1000 * NEWER_SECONDS)
    assert len(shop.queue.dead_letters) == 0
    shop.clock.advance(1000 * NEWER_SECONDS)
    assert isinstance(shop.deliver(shop.receive()), Done)
    assert shop.record(task).state is TaskState.SUCCEEDED


def test_message_of_a_form_that_never_was_is_a_dead_letter() -> None:
    shop = Workshop()
    shop.submit()
    message = shop.receive()
    assert isinstance(shop.deliver(replace(message, body=message.body.replace('"v":1', '"v":0'))), Done)
    assert [letter.reason for letter in shop.queue.dead_letters] == [
        "unsupported message version 0; this worker supports 1 to 3"
    ]


def test_whatever_goes_wrong_with_one_lease_the_others_are_renewed(caplog: pytest.LogCaptureFixture) -> None:
    shop = Workshop()
    renewed = []

    class Lanes:
        def renew_lease(self, user_id: str, lease: Lease, _until: int) -> Lease:
            if user_id == "bad":
                raise RuntimeError("an answer of another form")
            renewed.append(user_id)
            return lease

    def fail() -> None:
        raise RuntimeError("not finished")

    renewer = LeaseRenewer(cast("LaneStore", Lanes()), shop.clock, in_background=False)
    leases = [make_lease(token) for token in ("a", "b", "c")]
    with (
        renewer.renewing("bad", leases[0], NOW + 60_000, fail),
        renewer.renewing("late", leases[1], NOW, fail) as late,
        renewer.renewing("good", leases[2], NOW + 60_000, fail),
    ):
        shop.clock.advance(RENEW_AFTER_MS)
        renewer.renew_due()
    assert (renewed, late.is_expired) == (["good"], True)
    assert "the lease of bad was not renewed" in caplog.text
    assert "not finished" in caplog.text


def test_line_names_the_limits_of_each_start() -> None:
    shop = Workshop(BACKOFF="2s")
    shop.register("flaky", Flaky(2))
    task = shop.submit(name="flaky")
    shop.run(until_ms=1_000)
    shop.control.set_limits("ann", parse_limits("1/4 seconds"))
    shop.run(until_ms=5_000)
    shop.control.set_limits("ann", None)
    shop.run()
    event = shop.event_of(task)
    assert (event["starts"], event["started_at"]) == ([NOW, NOW + 4_000], NOW + 8_000)
    assert event["starts_limits"] == [None, "1/4 seconds"]
    assert "limits" not in event


def test_two_starts_in_one_millisecond_are_both_logged() -> None:
    shop = Workshop(LIMITS="5/second", BACKOFF="0s")
    shop.register("flaky", Flaky(1))
    task = shop.submit(name="flaky")
    shop.run()
    assert (shop.event_of(task)["starts"], shop.event_of(task)["started_at"]) == ([NOW], NOW)
