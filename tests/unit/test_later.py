"""Tasks that wait for their time outside of their lane, and callbacks: whatever is given twice or dies in between."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from chalicelib.core.errors import ConflictError, MessageError, UnavailableError
from chalicelib.core.scheduled import (
    MOST_AHEAD_MS,
    Callback,
    Parked,
    Withdrawal,
    delay_seconds,
    from_message,
    to_message,
)
from chalicelib.core.task import Task, TaskState
from chalicelib.core.visibility import AGAIN_SECONDS, NEWER_SECONDS
from chalicelib.scheduled.callbacks import Untold
from chalicelib.scheduled.dispatcher import TRIED_FOR_MS, ErrandDelivery, ErrandRunner
from chalicelib.settings import OverLimit
from chalicelib.submit.submitter import NewTask, Refused, Submitted
from chalicelib.worker.execution import SETTLE_TRIES
from tests.factories import NOW, make_task
from tests.unit.workshop import Workshop

URL = "https://hooks.example.com/end"
DAY_MS = 86_400_000


class LaterShop(Workshop):
    """A workshop whose function `later` works too."""

    def __init__(self, **env: str) -> None:
        super().__init__(**env)
        #: what the receiver of callbacks says, one after the other, then None for well received
        self.answers: Iterator[Untold | None] = iter(())
        self.told: list[tuple[int, Callback]] = []
        #: times at which an errand was handled
        self.errands_at: list[int] = []

    def _tell(self, callback: Callback) -> Untold | None:
        self.told.append((self.clock.now_ms() - NOW, callback))
        return next(self.answers, None)

    def runner(self) -> ErrandRunner:
        return ErrandRunner(self.later, self.tasks, self.queue, self.submitter, self.attempts, self._tell, self.clock)

    def park(self, delay_ms: int, user_id: str = "ann", payload: Any = None, **options: Any) -> Task:
        outcome = self.try_submit_many(user_id, NewTask("log", payload, delay_ms=delay_ms, **options))
        assert isinstance(outcome, Submitted)
        return outcome.places[0].task

    def run_errand(self, is_deleted: bool = True) -> bool:
        body, receipt, message_id = self.later.receive()
        self.errands_at.append(self.clock.now_ms() - NOW)
        done = self.runner().handle(ErrandDelivery(body, receipt, message_id))
        if done and is_deleted:
            self.later.delete(receipt)
        return done

    def run_all(self, until_ms: int = 30 * DAY_MS) -> None:
        """Everything in both queues, each at its time."""
        while True:
            times = [(at, name) for name in ("later", "queue") if (at := getattr(self, name).next_available_at())]
            if not times or min(times)[0] > NOW + until_ms:
                return
            at, name = min(times)
            self.clock.sleep_until(at)
            try:
                if name == "later":
                    self.run_errand()
                else:
                    self.run(until_ms=self.clock.now_ms() - NOW + 1)
            except UnavailableError:
                continue

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.events]


@pytest.fixture
def shop() -> LaterShop:
    return LaterShop()


# Parked tasks.


@pytest.mark.parametrize("delay_ms", [1, 500, 999, 1_000, 1_001, 15_500, 900_000, 900_999, 3_600_000, MOST_AHEAD_MS])
def test_parked_task_starts_at_its_time_and_not_before(shop: LaterShop, delay_ms: int) -> None:
    shop.register("note", lambda payload: None)
    outcome = shop.try_submit_many("ann", NewTask("note", "late", delay_ms=delay_ms))
    assert isinstance(outcome, Submitted)
    shop.run_all()
    assert shop.ran == [(delay_ms, "late")]
    assert shop.events[0]["planned_at"] == NOW + delay_ms
    assert len(shop.errands_at) <= 3 + delay_ms // 43_000_000  # what waiting costs


def test_parked_task_holds_up_nobody_in_its_lane(shop: LaterShop) -> None:
    late = shop.park(5_500)
    first, second = shop.submit(), shop.submit()
    shop.run_all()
    assert [event["task_id"] for event in shop.events] == [first.task_id, second.task_id, late.task_id]
    assert shop.seqs == [1, 2, 3]
    assert [event["started_at"] - NOW for event in shop.events] == [0, 1_000, 5_500]


def test_parked_tasks_get_their_places_by_their_times(shop: LaterShop) -> None:
    for delay_ms in (9_000, 3_000, 6_000):
        shop.park(delay_ms, payload=delay_ms)
    shop.run_all()
    assert [event["planned_at"] - NOW for event in shop.events] == [3_000, 6_000, 9_000]
    assert shop.seqs == [1, 2, 3]


def test_many_due_at_once_keep_the_pace(shop: LaterShop) -> None:
    for _ in range(5):
        shop.park(2_000)
    shop.run_all()
    assert [event["started_at"] - NOW for event in shop.events] == [2_000, 3_000, 4_000, 5_000, 6_000]
    assert shop.seqs == [1, 2, 3, 4, 5]


def test_answer_says_that_it_waits_and_has_no_place_yet(shop: LaterShop) -> None:
    outcome = shop.try_submit_many("ann", NewTask("log", None, run_at=NOW + 7_000))
    assert isinstance(outcome, Submitted)
    [place] = outcome.places
    assert (place.task.seq, place.position, place.delay_ms, place.queued) == (0, 0, 7_000, True)
    assert not outcome.is_over_limit
    view = shop.control.task("ann", place.task.task_id)
    assert (view.state, view.position, view.estimated_at) == (TaskState.QUEUED, 0, NOW + 7_000)
    assert [view.record.task.run_at for view in shop.control.tasks("ann", None, 10, None)[0]] == [NOW + 7_000]


def test_time_that_is_past_is_now(shop: LaterShop) -> None:
    outcome = shop.try_submit_many("ann", NewTask("log", None, run_at=NOW - 1), NewTask("log", None, delay_ms=0))
    assert isinstance(outcome, Submitted)
    assert [place.task.seq for place in outcome.places] == [1, 2]
    assert len(shop.later) == 0


def test_of_many_some_may_wait(shop: LaterShop) -> None:
    new = [NewTask("log", n, delay_ms=n % 2 * 4_000) for n in range(5)]
    outcome = shop.try_submit_many("ann", *new)
    assert isinstance(outcome, Submitted)
    assert [place.task.seq for place in outcome.places] == [1, 0, 2, 0, 3]
    shop.run_all()
    assert shop.seqs == [1, 2, 3, 4, 5]
    assert [event["started_at"] - NOW for event in shop.events] == [0, 1_000, 2_000, 4_000, 5_000]


def test_of_many_none_is_parked_when_the_others_can_not_be_sent(shop: LaterShop) -> None:
    shop.queue.fail("send_many")
    with pytest.raises(UnavailableError):
        shop.try_submit_many("ann", NewTask("log", 1), NewTask("log", 2), NewTask("log", 3, delay_ms=4_000))
    shop.run_all()
    assert "task_completed" not in {event["event"] for event in shop.events}


def test_refusal_at_its_time_only_puts_it_off() -> None:
    shop = LaterShop(LIMITS="1/10 seconds", MAX_DELAY="20s")
    late = shop.park(1_000)
    for _ in range(3):
        shop.submit()
    shop.run_all()
    assert shop.event_of(late)["event"] == "task_completed"
    assert shop.seqs == [1, 2, 3, 4]
    assert [event["started_at"] - NOW for event in shop.events] == [0, 10_000, 20_000, 30_000]


# Given twice, and dying in between.


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("port", "call", "after"),
    [
        ("tasks", "get", False),
        ("lanes", "admit_within", False),
        ("lanes", "admit_within", True),
        ("tasks", "admitted", False),
        ("tasks", "admitted", True),
        ("queue", "send", False),
        ("queue", "send", True),
    ],
)
def test_failure_at_any_step_loses_nothing_and_doubles_nothing(
    shop: LaterShop, port: str, call: str, after: bool, times: int
) -> None:
    late = shop.park(2_000)
    getattr(shop, port).fail(call, times=times, after=after)
    for _ in range(times):
        shop.clock.sleep_until(shop.later.next_available_at() or 0)
        with suppress(UnavailableError):
            shop.run_errand()
    shop.run_all()
    assert [event["task_id"] for event in shop.events] == [late.task_id]
    assert shop.record(late).state is TaskState.SUCCEEDED
    then = shop.submit()
    shop.run_all()
    assert shop.record(then).state is TaskState.SUCCEEDED


def test_parked_task_whose_reservation_was_not_answered_keeps_the_start_that_was_reserved(shop: LaterShop) -> None:
    late = shop.park(1_000)
    for _ in range(200):
        shop.submit()
    shop.clock.sleep_until(shop.later.next_available_at() or 0)
    shop.lanes.fail("admit", after=True)
    with pytest.raises(UnavailableError):
        shop.run_errand()
    reserved_at = shop.lanes.get("ann").planned[0]
    shop.clock.sleep_until(shop.later.next_available_at() or 0)
    shop.run_errand()
    task = shop.record(late).task
    assert (task.seq, task.planned_at) == (201, reserved_at)


def test_errand_that_aws_failed_comes_back_soon(shop: LaterShop) -> None:
    late = shop.park(2_000)
    shop.lanes.fail("admit_within")
    shop.run_all()
    [event] = shop.events
    assert (event["task_id"], event["started_at"] - NOW) == (late.task_id, 2_000 + 1_000 * AGAIN_SECONDS)


def test_errand_that_can_not_even_be_put_off_comes_back_when_its_visibility_ends(shop: LaterShop) -> None:
    late = shop.park(2_000)
    shop.lanes.fail("admit_within")
    shop.later.fail("defer")
    shop.run_all()
    [event] = shop.events
    assert (event["task_id"], event["started_at"] - NOW) == (late.task_id, 92_000)


@pytest.mark.parametrize("again_after_ms", [0, 90_000, 400_000])
def test_parked_task_that_is_given_twice_runs_once(shop: LaterShop, again_after_ms: int) -> None:
    late = shop.park(2_000)
    copy = to_message(Parked(late))
    shop.run_all(until_ms=2_500)
    shop.clock.advance(again_after_ms)
    shop.later.send_body(copy)
    shop.later.send_body(copy)
    shop.run_all()
    assert len(shop.events) == 1
    assert shop.record(late).task.seq == 1


def test_parked_task_that_was_never_noted_runs_all_the_same(shop: LaterShop) -> None:
    shop.tasks.fail("put")
    with pytest.raises(UnavailableError):
        shop.park(2_000)
    shop.run_all()
    assert shop.seqs == [1]


# How many.


def test_no_more_are_parked_for_a_day_than_allowed() -> None:
    shop = LaterShop(MAX_PARKED="3")
    for _ in range(3):
        shop.park(60_000)
    refused = shop.try_submit_many("ann", NewTask("log", None, delay_ms=60_000))
    assert isinstance(refused, Refused)
    assert "No more than 3 tasks" in refused.reason
    assert refused.retry_at + 60_000 == (NOW // DAY_MS + 1) * DAY_MS
    assert shop.park(60_000, user_id="bob").seq == 0
    assert shop.park(DAY_MS).seq == 0
    assert shop.submit().seq == 1
    assert len(shop.later) == 5


def test_of_many_that_are_too_many_none_is_parked_or_admitted() -> None:
    shop = LaterShop(MAX_PARKED="3")
    new = [NewTask("log", None), *(NewTask("log", None, delay_ms=60_000) for _ in range(4))]
    assert isinstance(shop.try_submit_many("ann", *new), Refused)
    assert (shop.lanes.get("ann").admitted, len(shop.later), len(shop.queue)) == (0, 0, 0)
    assert isinstance(shop.try_submit_many("ann", *new[:4]), Submitted)


def test_tasks_that_the_lane_refuses_take_no_room_among_the_parked() -> None:
    shop = LaterShop(MAX_PARKED="1", MAX_DELAY="0")
    shop.submit()
    both = (NewTask("log", None), NewTask("log", None, delay_ms=60_000))
    assert isinstance(shop.try_submit_many("ann", *both), Refused)
    assert isinstance(shop.try_submit_many("ann", both[1]), Submitted)


def test_repeat_is_not_refused_for_the_room_that_it_took_itself() -> None:
    shop = LaterShop(MAX_PARKED="1")
    late = shop.park(60_000)
    new = [NewTask("log", None, delay_ms=60_000)]
    again = shop.submitter.submit("ann", new, [late.task_id], OverLimit.QUEUE, is_repeat=True)
    assert isinstance(again, Submitted)
    shop.run_all()
    assert len(shop.events) == 1


def test_task_that_is_not_parked_costs_no_count(shop: LaterShop) -> None:
    shop.parked.fail("add", times=9)
    assert shop.submit().seq == 1
    with pytest.raises(UnavailableError):
        shop.park(60_000)
    assert len(shop.later) == 0


# Cancelling.


def test_cancelled_before_its_time_it_never_gets_a_place(shop: LaterShop) -> None:
    late = shop.park(7_200_000)
    assert shop.control.cancel("ann", late.task_id).state is TaskState.CANCELLED
    assert shop.control.cancel("ann", late.task_id).state is TaskState.CANCELLED
    shop.run_all()
    [event] = shop.events
    assert (event["event"], event["started_at"], event["completed_at"]) == ("task_cancelled", None, NOW)
    assert shop.lanes.get("ann").admitted == 0
    assert len(shop.later) == 0


def ends_of(shop: LaterShop, task: Task) -> tuple[list[str], int]:
    """The lines of the log about the task, and how often its end was told."""
    return [event["event"] for event in shop.events if event["task_id"] == task.task_id], len(shop.told)


def test_cancelled_twice_at_once_it_ends_once(shop: LaterShop) -> None:
    late = shop.park(7_200_000, callback_url=URL)
    real = shop.later.send

    def send(errands: Any) -> None:
        shop.later.send = real  # type: ignore[method-assign]
        shop.control.cancel("ann", late.task_id)
        real(errands)

    shop.later.send = send  # type: ignore[method-assign]
    assert shop.control.cancel("ann", late.task_id).state is TaskState.CANCELLED
    assert len(shop.later) == 3
    shop.run_all()
    assert ends_of(shop, late) == (["task_cancelled"], 1)


@pytest.mark.parametrize("again_after_ms", [0, 1_000, 90_000])
def test_cancellation_that_is_given_twice_is_logged_once(shop: LaterShop, again_after_ms: int) -> None:
    late = shop.park(7_200_000, callback_url=URL)
    shop.control.cancel("ann", late.task_id)
    shop.later.send([(Withdrawal(late), 0)])
    shop.run_errand()
    shop.clock.advance(again_after_ms)
    shop.run_all()
    assert ends_of(shop, late) == (["task_cancelled"], 1)


def test_cancellation_that_is_given_twice_at_once_is_logged_once(shop: LaterShop) -> None:
    late = shop.park(7_200_000, callback_url=URL)
    shop.control.cancel("ann", late.task_id)
    shop.later.send([(Withdrawal(late), 0)])
    real, second = shop.log.write, list[bool]()

    def write(event: Any) -> None:
        shop.log.write = real  # type: ignore[attr-defined]
        second.append(shop.run_errand())
        real(event)

    shop.log.write = write  # type: ignore[attr-defined]
    assert shop.run_errand()
    assert second == [False]
    shop.run_all()
    assert ends_of(shop, late) == (["task_cancelled"], 1)
    assert len(shop.later) == 0


def test_cancellation_that_can_not_be_logged_is_logged_later(shop: LaterShop) -> None:
    late = shop.park(7_200_000, callback_url=URL)
    shop.control.cancel("ann", late.task_id)
    shop.log.fail("write", times=SETTLE_TRIES)
    with pytest.raises(UnavailableError):
        shop.run_errand()
    shop.run_all()
    assert ends_of(shop, late) == (["task_cancelled"], 1)


def test_cancelled_after_it_got_its_place_it_is_passed_over(shop: LaterShop) -> None:
    shop.submit()
    late = shop.park(100)
    shop.clock.sleep_until(shop.later.next_available_at() or 0)
    shop.run_errand()
    assert shop.control.cancel("ann", late.task_id).state is TaskState.CANCELLED
    shop.run_all()
    assert [event["event"] for event in shop.events] == ["task_completed", "task_cancelled"]


def test_cancelled_while_it_gets_its_place_it_ends_once(shop: LaterShop) -> None:
    """The place is reserved, and the note that it has one comes too late."""
    late, control = shop.park(1_000), shop.control
    shop.clock.sleep_until(shop.later.next_available_at() or 0)
    real = shop.submitter.reserve

    class Slow:
        def reserve(self, user_id: str, task_id: str, now_ms: int) -> Any:
            control.cancel(user_id, task_id)
            return real(user_id, task_id, now_ms)

    runner = ErrandRunner(shop.later, shop.tasks, shop.queue, Slow(), shop.attempts, shop._tell, shop.clock)  # type: ignore[arg-type]
    body, receipt, message_id = shop.later.receive()
    assert runner.handle(ErrandDelivery(body, receipt, message_id))
    shop.later.delete(receipt)
    then = shop.submit()
    shop.run_all()
    assert [event["event"] for event in shop.events if event["task_id"] == late.task_id] == ["task_cancelled"]
    assert shop.record(then).state is TaskState.SUCCEEDED


def test_task_that_has_run_can_not_be_cancelled(shop: LaterShop) -> None:
    late = shop.park(1_000)
    shop.run_all()
    with pytest.raises(ConflictError):
        shop.control.cancel("ann", late.task_id)


# Callbacks.


@pytest.mark.parametrize("delay_ms", [0, 5_000])
def test_end_is_told_with_the_completion_event(shop: LaterShop, delay_ms: int) -> None:
    task = shop.park(delay_ms, callback_url=URL)
    shop.run_all()
    [(_, callback)] = shop.told
    assert (callback.url, callback.task_id) == (URL, task.task_id)
    event = shop.event_of(task)
    assert callback.event.items() <= event.items()
    assert event.keys() - callback.event.keys() == {"_aws", "stage", "task_completed", "run_ms"}


def test_failed_and_cancelled_ends_are_told_too() -> None:
    shop = LaterShop(MAX_ATTEMPTS="1")
    shop.register("break", lambda payload: 1 / 0)
    shop.try_submit_many("ann", NewTask("break", None, callback_url=URL))
    waiting = shop.park(0, callback_url=URL)
    parked = shop.park(60_000, callback_url=URL)
    shop.control.cancel("ann", waiting.task_id)
    shop.control.cancel("ann", parked.task_id)
    shop.run_all()
    assert sorted(callback.event["event"] for _, callback in shop.told) == [
        "task_cancelled",
        "task_cancelled",
        "task_failed",
    ]


def test_nobody_is_told_of_other_tasks(shop: LaterShop) -> None:
    shop.submit()
    shop.run_all()
    assert shop.told == []


def test_callback_takes_no_start(shop: LaterShop) -> None:
    shop.park(0, callback_url=URL)
    shop.run_all()
    assert shop.lanes.get("ann").started == 1


def test_callback_that_fails_is_tried_again_more_and_more_seldom(shop: LaterShop) -> None:
    shop.answers = iter([Untold("HTTP 500", is_final=False)] * 6)
    shop.park(0, callback_url=URL)
    shop.run_all()
    assert [at for at, _ in shop.told] == [0, 5_000, 10_000, 20_000, 40_000, 80_000, 160_000]
    assert (len(shop.later), shop.queue.dead_letters) == (0, ())


def test_callback_is_tried_at_doubling_ages_then_each_6_hours_and_for_the_last_time_after_a_day(
    shop: LaterShop,
) -> None:
    shop.answers = iter([Untold("HTTP 503", is_final=False)] * 100)
    shop.park(0, callback_url=URL)
    shop.run_all()
    doubling = [5 * 2**n for n in range(14)]  # 5 s to 11 h 22 min 40 s
    assert [at // 1000 for at, _ in shop.told] == [0, *doubling, 40_960 + 21_600, 40_960 + 43_200, 86_400]


def test_slow_answers_do_not_make_a_callback_be_tried_more_often(shop: LaterShop) -> None:
    shop.answers = iter([Untold("time-out", is_final=False)] * 3)
    tell = shop._tell

    def tell_slowly(callback: Callback) -> Untold | None:
        answer = tell(callback)
        shop.clock.advance(9_500)
        return answer

    shop._tell = tell_slowly  # type: ignore[method-assign]
    shop.park(0, callback_url=URL)
    shop.run_all()
    assert [at for at, _ in shop.told] == [0, 19_500, 58_000, 135_500]


def test_callback_that_nobody_takes_for_a_day_is_a_dead_letter_with_its_reason(shop: LaterShop) -> None:
    shop.answers = iter([Untold("HTTP 503", is_final=False)] * 100)
    task = shop.park(0, callback_url=URL)
    shop.run_all()
    assert shop.told[-1][0] == TRIED_FOR_MS
    [letter] = shop.queue.dead_letters
    assert (letter.user_id, letter.reason) == ("ann", f"callback to {URL}: HTTP 503")
    dead = from_message(letter.body)
    assert isinstance(dead, Callback)
    assert dead.task_id == task.task_id


def test_callback_that_can_never_succeed_is_a_dead_letter_at_once(shop: LaterShop) -> None:
    shop.answers = iter([Untold("HTTP 410", is_final=True)])
    shop.park(0, callback_url=URL)
    shop.run_all()
    assert len(shop.told) == len(shop.queue.dead_letters) == 1


def test_callback_that_can_not_be_put_off_is_part_of_the_end(shop: LaterShop) -> None:
    task = shop.park(0, callback_url=URL)
    shop.later.fail("send", times=2)
    shop.run_all()
    assert len(shop.told) == len(shop.events) == 1
    assert shop.record(task).state is TaskState.SUCCEEDED


# Messages.


def test_errand_survives_its_message() -> None:
    for errand in (
        Parked(make_task(seq=0, run_at=NOW + 5, callback_url=URL, payload={"a": "ä"})),
        Callback("ann", "0198-0001", URL, {"event": "task_completed"}, NOW),
    ):
        assert from_message(to_message(errand)) == errand
        assert to_message(errand).isascii()


@pytest.mark.parametrize(
    "body",
    [
        *(
            "",
            "null",
            "[]",
            "{}",
            '{"v": 0}',
            '{"v": "2"}',
            '{"v": 1, "errand": "dance"}',
            '{"v": 1, "errand": "admit"}',
            "[" * 9_999,
        ),
        json.dumps({"v": 1, "errand": "admit", "task": {"v": 1}}),
        json.dumps(
            {"v": 1, "errand": "callback", "user_id": "", "task_id": "x", "url": "x", "event": {}, "begun_at": 1}
        ),
    ],
)
def test_message_that_is_no_errand_is_a_dead_letter(shop: LaterShop, body: str) -> None:
    with pytest.raises(MessageError):
        from_message(body)
    shop.later.send_body(body)
    assert shop.run_errand()
    assert [letter.body for letter in shop.queue.dead_letters] == [body]


@pytest.mark.parametrize("part", ["errand", "task"])
def test_errand_of_a_newer_deployment_waits_for_its_function(shop: LaterShop, part: str) -> None:
    fields = json.loads(to_message(Parked(make_task(seq=0, run_at=NOW))))
    (fields if part == "errand" else fields["task"])["v"] = 2
    shop.later.send_body(json.dumps(fields))
    assert not shop.run_errand()
    assert shop.later.next_available_at() == NOW + 1000 * NEWER_SECONDS
    assert shop.queue.dead_letters == ()


@pytest.mark.parametrize(
    ("due_in_ms", "seconds"), [(-1, 0), (0, 0), (999, 0), (1_000, 1), (900_000, 900), (10**9, 900)]
)
def test_message_is_delayed_for_whole_seconds_that_end_in_time(due_in_ms: int, seconds: int) -> None:
    assert delay_seconds(NOW + due_in_ms, NOW) == seconds
