"""Tasks that wait for their time outside of their lane, and callbacks: whatever is given twice or dies in between."""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from chalicelib.aws.dynamodb_payloads import PAYLOAD_KEPT_SECONDS
from chalicelib.core.errors import ConflictError, MessageError, UnavailableError
from chalicelib.core.scheduled import (
    MAX_AHEAD_MS,
    Callback,
    CancelScheduled,
    ScheduledMessage,
    ScheduledTask,
    delay_seconds,
    from_message,
    to_message,
)
from chalicelib.core.task import Task, TaskState
from chalicelib.core.visibility import NEWER_SECONDS, SHORT_SLEEP_MS, again_seconds
from chalicelib.scheduled.admission import ADMITTING_MS, PAGE, DueAdmitter
from chalicelib.scheduled.callbacks import Busy, DeliveryFailure
from chalicelib.scheduled.cancellations import ScheduledCancellations
from chalicelib.scheduled.dispatcher import TRIED_FOR_MS, ScheduledDelivery, ScheduledDispatcher
from chalicelib.submit.submission import Refused, Submission, Submitted, TaskRequest
from chalicelib.worker.finalizer import FINALIZE_TRIES
from tests.factories import NOW, make_task, task_id_of
from tests.unit.workshop import Workshop

URL = "https://hooks.example.com/end"
DAY_MS = 86_400_000


class SchedulingShop(Workshop):
    """A workshop whose function `later` works too."""

    def __init__(self, **env: str) -> None:
        super().__init__(**env)
        #: what the receiver of callbacks says, one after the other, then None for well received
        self.answers: Iterator[DeliveryFailure | Busy | None] = iter(())
        self.sent: list[tuple[int, Callback]] = []
        #: times at which a message was handled
        self.scheduled_messages_at: list[int] = []

    def _tell(self, callback: Callback) -> DeliveryFailure | Busy | None:
        self.sent.append((self.clock.now_ms() - NOW, callback))
        return next(self.answers, None)

    def runner(self) -> ScheduledDispatcher:
        return self.runner_with(self.submitter)

    def runner_with(self, submitter: Any) -> ScheduledDispatcher:
        stores = (self.due_tasks, self.tasks, self.queue)
        cancellations = ScheduledCancellations(self.due_tasks, self.tasks, self.finalizer, self.clock)
        new_token = lambda: f"dispatcher-{next(self._tokens)}"  # noqa: E731
        admitter = DueAdmitter(*stores, submitter, self.clock, new_token, cancellations)
        queues = (self.scheduled_queue, self.tasks, self.queue)
        late_up_to_ms = self.settings.late_up_to_ms
        return ScheduledDispatcher(*queues, admitter, cancellations, self._tell, self.clock, late_up_to_ms)

    def schedule(self, delay_ms: int, user_id: str = "ann", payload: Any = None, **options: Any) -> Task:
        outcome = self.try_submit_many(user_id, TaskRequest("log", payload, delay_seconds=delay_ms / 1000, **options))
        assert isinstance(outcome, Submitted)
        return self.stored(outcome)[0]

    def run_scheduled_message(self, is_deleted: bool = True) -> bool:
        delivery = self.scheduled_queue.receive()
        self.scheduled_messages_at.append(self.clock.now_ms() - NOW)
        done = self.runner().handle(delivery)
        if done and is_deleted:
            self.scheduled_queue.delete(delivery.receipt)
        return done

    def run_all(self, until_ms: int = 30 * DAY_MS) -> None:
        """Everything in both queues, each at its time."""
        while True:
            times = [
                (at, name) for name in ("scheduled_queue", "queue") if (at := getattr(self, name).next_available_at())
            ]
            if not times or min(times)[0] > NOW + until_ms:
                return
            at, name = min(times)
            self.clock.sleep_until(at)
            try:
                if name == "scheduled_queue":
                    self.run_scheduled_message()
                else:
                    self.run(until_ms=self.clock.now_ms() - NOW + 1)
            except UnavailableError:
                continue

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.events]


@pytest.fixture
def shop() -> SchedulingShop:
    return SchedulingShop()


# Scheduled tasks.


@pytest.mark.parametrize("delay_ms", [1, 500, 999, 1_000, 1_001, 15_500, 900_000, 900_999, 3_600_000, MAX_AHEAD_MS])
def test_parked_task_starts_at_its_time_and_not_before(shop: SchedulingShop, delay_ms: int) -> None:
    shop.register("note", lambda payload: None)
    outcome = shop.try_submit_many("ann", TaskRequest("note", "late", delay_seconds=delay_ms / 1000))
    assert isinstance(outcome, Submitted)
    shop.run_all()
    assert shop.ran == [(delay_ms, "late")]
    assert shop.events[0]["planned_at"] == NOW + delay_ms
    assert len(shop.scheduled_messages_at) <= 3 + delay_ms // 43_000_000  # what waiting costs


@pytest.mark.parametrize("delay_ms", [1_000, 1_500, 5_700, 900_999])
def test_scheduled_task_may_be_late_by_a_second_where_the_setting_says_so(delay_ms: int) -> None:
    shop = SchedulingShop(LATE_UP_TO="1s")
    late, slept = shop.schedule(delay_ms), count_sleeps(shop)
    shop.run_all()
    assert delay_ms <= shop.event_of(late)["started_at"] - NOW <= delay_ms + 1_000
    assert all(one <= SHORT_SLEEP_MS for one in slept)


def count_sleeps(shop: Workshop) -> list[int]:
    """The waits that are slept from now on, ms."""
    slept, sleep = list[int](), shop.clock.sleep

    def counted(milliseconds: int) -> bool:
        slept.append(milliseconds)
        return sleep(milliseconds)

    shop.clock.sleep = counted  # type: ignore[method-assign]
    return slept


def test_parked_task_holds_up_nobody_in_its_lane(shop: SchedulingShop) -> None:
    late = shop.schedule(5_500)
    first, second = shop.submit(), shop.submit()
    shop.run_all()
    assert [event["task_id"] for event in shop.events] == [first.task_id, second.task_id, late.task_id]
    assert shop.seqs == [1, 2, 3]
    assert [event["started_at"] - NOW for event in shop.events] == [0, 1_000, 5_500]


def test_parked_tasks_get_their_places_by_their_times(shop: SchedulingShop) -> None:
    for delay_ms in (9_000, 3_000, 6_000):
        shop.schedule(delay_ms, payload=delay_ms)
    shop.run_all()
    assert [event["planned_at"] - NOW for event in shop.events] == [3_000, 6_000, 9_000]
    assert shop.seqs == [1, 2, 3]


def test_many_due_at_once_keep_the_pace(shop: SchedulingShop) -> None:
    for _ in range(5):
        shop.schedule(2_000)
    shop.run_all()
    assert [event["started_at"] - NOW for event in shop.events] == [2_000, 3_000, 4_000, 5_000, 6_000]
    assert shop.seqs == [1, 2, 3, 4, 5]


def test_answer_says_that_it_waits_and_has_no_place_yet(shop: SchedulingShop) -> None:
    outcome = shop.try_submit_many("ann", TaskRequest("log", None, run_at=NOW + 7_000))
    assert isinstance(outcome, Submitted)
    [task] = outcome.tasks
    assert (task.seq, task.position, task.delay_ms, task.queued) == (0, 0, 7_000, True)
    assert not outcome.is_over_limit
    view = shop.control.task("ann", task.task_id)
    assert (view.state, view.position, view.estimated_at) == (TaskState.QUEUED, 0, NOW + 7_000)
    assert [view.record.task.run_at for view in shop.control.tasks("ann", None, 10, None)[0]] == [NOW + 7_000]


def test_time_that_is_past_is_now(shop: SchedulingShop) -> None:
    outcome = shop.try_submit_many(
        "ann", TaskRequest("log", None, run_at=NOW - 1), TaskRequest("log", None, delay_seconds=0)
    )
    assert isinstance(outcome, Submitted)
    assert [task.seq for task in outcome.tasks] == [1, 2]
    assert len(shop.scheduled_queue) == 0


def test_of_many_some_may_wait(shop: SchedulingShop) -> None:
    new = [TaskRequest("log", n, delay_seconds=n % 2 * 4) for n in range(5)]
    outcome = shop.try_submit_many("ann", *new)
    assert isinstance(outcome, Submitted)
    assert [task.seq for task in outcome.tasks] == [1, 0, 2, 0, 3]
    shop.run_all()
    assert shop.seqs == [1, 2, 3, 4, 5]
    assert [event["started_at"] - NOW for event in shop.events] == [0, 1_000, 2_000, 4_000, 5_000]


def test_many_that_could_not_be_sent_run_once_when_they_are_submitted_again(shop: SchedulingShop) -> None:
    new = [TaskRequest("log", 1), TaskRequest("log", 2), TaskRequest("log", 3, delay_seconds=4)]
    submission, ids = Submission("ann", new, NOW), [task_id_of(n) for n in (91, 92, 93)]
    shop.queue.fail("send_many")
    with pytest.raises(UnavailableError):
        shop.submitter.submit_bulk(submission, ids)
    assert isinstance(shop.submitter.submit_bulk(submission, ids, is_repeat=True), Submitted)
    shop.run_all()
    assert sorted((event["event"], event["task_id"]) for event in shop.events) == [
        ("task_completed", task_id) for task_id in ids
    ]


def test_refusal_at_its_time_only_puts_it_off() -> None:
    shop = SchedulingShop(LIMITS="1/10 seconds", MAX_DELAY="20s")
    late = shop.schedule(1_000)
    for _ in range(3):
        shop.submit()
    shop.run_all()
    assert shop.event_of(late)["event"] == "task_completed"
    assert shop.seqs == [1, 2, 3, 4]
    assert [event["started_at"] - NOW for event in shop.events] == [0, 10_000, 20_000, 30_000]


def test_task_whose_lane_takes_none_for_days_waits_in_one_message(shop: SchedulingShop) -> None:
    """Lambda stops a chain of messages that a function sends to its own queue after about 16."""
    shop.control.pause("ann", NOW + 5 * DAY_MS)
    late = shop.schedule(60_000)
    sends = count_sends(shop)
    shop.run_all()
    assert (sends, shop.event_of(late)["started_at"]) == ([], NOW + 5 * DAY_MS)


def test_payload_of_a_task_whose_lane_takes_none_for_months_is_kept_before_it_expires(shop: SchedulingShop) -> None:
    shop.control.pause("ann", NOW + 90 * DAY_MS)
    shop.schedule(60_000, payload="x" * 5_000)
    shop.run_all(until_ms=90 * DAY_MS)
    kept = [NOW, *(at for user_id, at in shop.tasks.payloads_kept if user_id == "ann"), NOW + 90 * DAY_MS]
    assert max(later - earlier for earlier, later in pairwise(kept)) < PAYLOAD_KEPT_SECONDS * 1000 / 2


def test_message_near_the_end_of_its_14_days_is_replaced_by_a_new_one(shop: SchedulingShop) -> None:
    shop.control.pause("ann", NOW + 30 * DAY_MS)
    late = shop.schedule(60_000)
    sends = count_sends(shop)
    shop.run_all(until_ms=40 * DAY_MS)
    assert shop.event_of(late)["started_at"] == NOW + 30 * DAY_MS
    assert [at // DAY_MS for at in sends] == [12, 25]
    assert (len(shop.scheduled_queue), shop.scheduled_queue.dead_letters) == (0, ())


def count_sends(shop: SchedulingShop) -> list[int]:
    """Times of the scheduled messages that are sent from now on, ms since the beginning."""
    sent, send = list[int](), shop.scheduled_queue._port.send

    def counted(messages: Any) -> None:
        sent.append(shop.clock.now_ms() - NOW)
        send(messages)

    shop.scheduled_queue._port.send = counted
    return sent


def test_scheduled_message_that_aws_fails_for_hours_comes_back_ever_later_and_within_a_minute_of_the_end(
    shop: SchedulingShop,
) -> None:
    late = shop.schedule(2_000)
    while shop.clock.now_ms() < NOW + 3 * 3_600_000:
        shop.clock.sleep_until(shop.scheduled_queue.next_available_at() or 0)
        shop.lanes.fail("try_fast_admit")
        with pytest.raises(UnavailableError):
            shop.run_scheduled_message()
    ended_at = shop.clock.now_ms()
    assert len(shop.scheduled_messages_at) < 250
    shop.lanes.fail()
    shop.run_all()
    assert shop.event_of(late)["started_at"] <= ended_at + 60_000


# Given twice, and dying in between.


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("port", "call", "after"),
    [
        ("tasks", "get", False),
        ("lanes", "try_fast_admit", False),
        ("lanes", "try_fast_admit", True),
        ("tasks", "mark_admitted", False),
        ("tasks", "mark_admitted", True),
        ("queue", "send", False),
        ("queue", "send", True),
    ],
)
def test_failure_at_any_step_loses_nothing_and_doubles_nothing(
    shop: SchedulingShop, port: str, call: str, after: bool, times: int
) -> None:
    late = shop.schedule(2_000)
    getattr(shop, port).fail(call, times=times, after=after)
    for _ in range(times):
        shop.clock.sleep_until(shop.scheduled_queue.next_available_at() or 0)
        with suppress(UnavailableError):
            shop.run_scheduled_message()
    shop.run_all()
    assert [event["task_id"] for event in shop.events] == [late.task_id]
    assert shop.record(late).state is TaskState.SUCCEEDED
    then = shop.submit()
    shop.run_all()
    assert shop.record(then).state is TaskState.SUCCEEDED


def test_parked_task_whose_reservation_was_not_answered_keeps_the_start_that_was_reserved(shop: SchedulingShop) -> None:
    late = shop.schedule(1_000)
    for _ in range(200):
        shop.submit()
    shop.clock.sleep_until(shop.scheduled_queue.next_available_at() or 0)
    shop.lanes.fail("admit", after=True)
    with pytest.raises(UnavailableError):
        shop.run_scheduled_message()
    reserved_at = shop.lanes.get("ann").planned[0]
    shop.clock.sleep_until(shop.scheduled_queue.next_available_at() or 0)
    shop.run_scheduled_message()
    task = shop.record(late).task
    assert (task.seq, task.planned_at) == (201, reserved_at)


def test_scheduled_message_that_aws_failed_comes_back_soon(shop: SchedulingShop) -> None:
    late = shop.schedule(2_000)
    shop.lanes.fail("try_fast_admit")
    shop.run_all()
    [event] = shop.events
    assert (event["task_id"], event["started_at"] - NOW) == (late.task_id, 2_000 + 1_000 * again_seconds(1))


def test_scheduled_message_that_can_not_even_be_put_off_comes_back_when_its_visibility_ends(
    shop: SchedulingShop,
) -> None:
    late = shop.schedule(2_000)
    shop.lanes.fail("try_fast_admit")
    shop.scheduled_queue.fail("defer")
    shop.run_all()
    [event] = shop.events
    assert (event["task_id"], event["started_at"] - NOW) == (late.task_id, 92_000)


@pytest.mark.parametrize("again_after_ms", [0, 90_000, 400_000])
def test_parked_task_that_is_given_twice_runs_once(shop: SchedulingShop, again_after_ms: int) -> None:
    late = shop.schedule(2_000)
    copy = to_message(ScheduledTask(late))
    shop.run_all(until_ms=2_500)
    shop.clock.advance(again_after_ms)
    shop.scheduled_queue.send_body(copy)
    shop.scheduled_queue.send_body(copy)
    shop.run_all()
    assert len(shop.events) == 1
    assert shop.record(late).task.seq == 1


def test_parked_task_that_was_never_noted_runs_all_the_same(shop: SchedulingShop) -> None:
    shop.tasks.fail("create_if_absent")
    with pytest.raises(UnavailableError):
        shop.schedule(2_000)
    shop.run_all()
    assert shop.seqs == [1]


# In order.


def schedule_many(shop: SchedulingShop, count: int, delay_ms: int = 2_000) -> list[str]:
    return [shop.schedule(delay_ms).task_id for _ in range(count)]


def run_nth_message(shop: SchedulingShop, nth: int) -> bool:
    """Handles the nth message, as if SQS had delivered it first."""
    messages = shop.scheduled_queue._messages
    messages.insert(0, messages.pop(nth))
    return shop.run_scheduled_message()


def admitted(shop: SchedulingShop, ids: list[str]) -> list[int]:
    return [shop.tasks.get("ann", task_id).task.seq for task_id in ids]


def test_tasks_due_at_one_time_keep_the_order_of_their_submits_whatever_their_ids(shop: SchedulingShop) -> None:
    """Clocks of two API processes may differ, and so the order of the ids that they make."""
    ids = [task_id_of(n) for n in (7, 3, 9)]
    for task_id in ids:
        shop.submitter.submit(Submission("ann", [TaskRequest("log", None, delay_seconds=2)], NOW), [task_id])
    shop.run_all()
    assert [event["task_id"] for event in shop.events] == ids


def test_one_message_admits_all_that_is_due_and_the_others_find_it_done(shop: SchedulingShop) -> None:
    ids = schedule_many(shop, 4)
    shop.clock.sleep_until(NOW + 2_000)
    assert run_nth_message(shop, 3)
    assert admitted(shop, ids) == [1, 2, 3, 4]
    assert (len(shop.due_tasks), len(shop.queue)) == (0, 4)
    shop.run_all()
    assert [event["task_id"] for event in shop.events] == ids


def test_more_than_a_page_that_is_due_is_admitted_in_order() -> None:
    shop = SchedulingShop(LIMITS="100/second")
    ids = schedule_many(shop, PAGE + 30)
    shop.clock.sleep_until(NOW + 2_000)
    assert run_nth_message(shop, PAGE + 29)
    assert admitted(shop, ids) == list(range(1, PAGE + 31))


def test_tasks_that_are_not_due_yet_stay(shop: SchedulingShop) -> None:
    first, late = shop.schedule(2_000), shop.schedule(2_001)
    shop.clock.sleep_until(NOW + 2_000)
    assert run_nth_message(shop, 0)
    assert admitted(shop, [first.task_id, late.task_id]) == [1, 0]


def test_cancelled_one_among_those_that_are_due_is_left_out(shop: SchedulingShop) -> None:
    ids = schedule_many(shop, 3)
    shop.control.cancel("ann", ids[1])
    shop.clock.sleep_until(NOW + 2_000)
    assert run_nth_message(shop, 2)
    assert admitted(shop, ids) == [1, 0, 2]
    assert len(shop.due_tasks) == 0
    shop.run_all()
    assert sorted(event["event"] for event in shop.events) == ["task_cancelled", "task_completed", "task_completed"]


def test_message_of_a_task_that_was_cancelled_takes_it_off_the_list(shop: SchedulingShop) -> None:
    late = shop.schedule(2_000)
    shop.control.cancel("ann", late.task_id)
    shop.run_all()
    assert len(shop.due_tasks) == 0


def test_while_another_dispatcher_admits_a_message_waits(shop: SchedulingShop) -> None:
    ids = schedule_many(shop, 2)
    shop.clock.sleep_until(NOW + 2_000)
    shop.due_tasks.try_begin_admitting("ann", "another", NOW + 2_000, NOW + 2_000 + ADMITTING_MS)
    assert not run_nth_message(shop, 1)
    assert admitted(shop, ids) == [0, 0]
    shop.run_all()
    assert [event["task_id"] for event in shop.events] == ids
    assert shop.events[0]["started_at"] <= NOW + 2_000 + ADMITTING_MS + 2_000  # as if the other one had died


def test_dispatcher_that_comes_back_late_breaks_no_order(shop: SchedulingShop) -> None:
    """Between its reserve and its write of the record, another one admits everything."""
    ids = schedule_many(shop, 3)
    shop.clock.sleep_until(NOW + 2_000)
    real, runner = shop.submitter.reserve, shop.runner()

    class Stalled:
        def reserve(self, user_id: str, task_id: str, now_ms: int, units: int) -> Any:
            reserved = real(user_id, task_id, now_ms, units)
            if task_id == ids[0]:
                shop.clock.advance(ADMITTING_MS)
                body = to_message(ScheduledTask(shop.tasks.get("ann", ids[2]).task))
                runner.handle(ScheduledDelivery(body, "", "", NOW))
            return reserved

    shop.runner_with(Stalled()).handle(shop.scheduled_queue.receive())
    assert admitted(shop, ids) == sorted(set(admitted(shop, ids)))
    shop.run_all()
    assert [event["task_id"] for event in shop.events] == ids


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize(
    ("port", "call"),
    [
        ("due_tasks", "due"),
        ("due_tasks", "try_begin_admitting"),
        ("due_tasks", "end_admitting"),
        ("due_tasks", "remove"),
        ("tasks", "mark_admitted"),
        ("lanes", "try_fast_admit"),
        ("queue", "send"),
    ],
)
def test_failure_at_any_step_among_many_changes_no_order(
    shop: SchedulingShop, port: str, call: str, after: bool
) -> None:
    ids = schedule_many(shop, 4)
    shop.clock.sleep_until(NOW + 2_000)
    getattr(shop, port).fail(call, after=after)
    with suppress(UnavailableError):
        run_nth_message(shop, 2)
    shop.run_all()
    assert [event["task_id"] for event in shop.events] == ids
    last = shop.schedule(1_000)  # the next one clears the list of those that could not be taken off it
    shop.run_all()
    assert [event["task_id"] for event in shop.events] == [*ids, last.task_id]
    assert len(shop.due_tasks) == 0


def test_refusal_at_its_time_puts_off_all_that_is_due_in_order() -> None:
    shop = SchedulingShop(LIMITS="1/10 seconds", MAX_DELAY="20s")
    ids = schedule_many(shop, 5, 1_000)
    shop.run_all()
    assert [event["task_id"] for event in shop.events] == ids


def test_task_that_an_earlier_version_scheduled_without_listing_it_is_admitted(shop: SchedulingShop) -> None:
    listed, unlisted = shop.schedule(2_000), shop.schedule(2_000)
    shop.due_tasks.remove("ann", [task for task in shop.due_tasks.due("ann", NOW + 9_000, 9) if task.number == 2])
    shop.clock.sleep_until(NOW + 2_000)
    assert run_nth_message(shop, 1)
    assert admitted(shop, [listed.task_id, unlisted.task_id]) == [1, 2]


# How many.


def test_no_more_are_parked_for_a_day_than_allowed() -> None:
    shop = SchedulingShop(MAX_SCHEDULED="3")
    for _ in range(3):
        shop.schedule(60_000)
    refused = shop.try_submit_many("ann", TaskRequest("log", None, delay_seconds=60))
    assert isinstance(refused, Refused)
    assert "No more than 3 tasks" in refused.reason
    assert refused.retry_at + 60_000 == (NOW // DAY_MS + 1) * DAY_MS
    assert shop.schedule(60_000, user_id="bob").seq == 0
    assert shop.schedule(DAY_MS).seq == 0
    assert shop.submit().seq == 1
    assert len(shop.scheduled_queue) == 5


def test_of_many_that_are_too_many_none_is_parked_or_admitted() -> None:
    shop = SchedulingShop(MAX_SCHEDULED="3")
    new = [TaskRequest("log", None), *(TaskRequest("log", None, delay_seconds=60) for _ in range(4))]
    assert isinstance(shop.try_submit_many("ann", *new), Refused)
    assert (shop.lanes.get("ann").admitted, len(shop.scheduled_queue), len(shop.queue)) == (0, 0, 0)
    assert isinstance(shop.try_submit_many("ann", *new[:4]), Submitted)


def test_tasks_that_the_lane_refuses_take_no_room_among_the_scheduled() -> None:
    shop = SchedulingShop(MAX_SCHEDULED="1", MAX_DELAY="0")
    shop.submit()
    both = (TaskRequest("log", None), TaskRequest("log", None, delay_seconds=60))
    assert isinstance(shop.try_submit_many("ann", *both), Refused)
    assert isinstance(shop.try_submit_many("ann", both[1]), Submitted)


def test_repeat_is_not_refused_for_the_room_that_it_took_itself() -> None:
    shop = SchedulingShop(MAX_SCHEDULED="1")
    late = shop.schedule(60_000)
    new = [TaskRequest("log", None, delay_seconds=60)]
    again = shop.submitter.submit(Submission("ann", new, NOW), [late.task_id], is_repeat=True)
    assert isinstance(again, Submitted)
    shop.run_all()
    assert len(shop.events) == 1


def test_task_that_is_not_parked_costs_no_count(shop: SchedulingShop) -> None:
    shop.scheduled_counts.fail("add", times=9)
    assert shop.submit().seq == 1
    with pytest.raises(UnavailableError):
        shop.schedule(60_000)
    assert len(shop.scheduled_queue) == 0


# Cancelling.


def test_cancelled_before_its_time_it_never_gets_a_seq(shop: SchedulingShop) -> None:
    late = shop.schedule(7_200_000)
    assert shop.control.cancel("ann", late.task_id).state is TaskState.CANCELLED
    assert shop.control.cancel("ann", late.task_id).state is TaskState.CANCELLED
    shop.run_all()
    [event] = shop.events
    assert (event["event"], event["started_at"], event["completed_at"]) == ("task_cancelled", None, NOW)
    assert shop.lanes.get("ann").admitted == 0
    assert len(shop.scheduled_queue) == 0


def ends_of(shop: SchedulingShop, task: Task) -> tuple[list[str], int]:
    """The lines of the log about the task, and the number of its callbacks."""
    return [event["event"] for event in shop.events if event["task_id"] == task.task_id], len(shop.sent)


def test_cancelled_twice_at_once_it_ends_with_one_outcome(shop: SchedulingShop) -> None:
    late = shop.schedule(7_200_000, callback_url=URL)
    real = shop.scheduled_queue.send

    def send(messages: Any) -> None:
        shop.scheduled_queue.send = real  # type: ignore[method-assign]
        shop.control.cancel("ann", late.task_id)
        real(messages)

    shop.scheduled_queue.send = send  # type: ignore[method-assign]
    assert shop.control.cancel("ann", late.task_id).state is TaskState.CANCELLED
    assert len(shop.scheduled_queue) == 3
    shop.run_all()
    assert set(ends_of(shop, late)[0]) == {"task_cancelled"}
    assert len({json.dumps(event) for event in shop.events}) == 1


@pytest.mark.parametrize("again_after_ms", [0, 1_000, 90_000])
def test_cancellation_that_is_given_twice_logs_the_same_line(shop: SchedulingShop, again_after_ms: int) -> None:
    late = shop.schedule(7_200_000, callback_url=URL)
    shop.control.cancel("ann", late.task_id)
    shop.scheduled_queue.send([(CancelScheduled(late), 0)])
    shop.run_scheduled_message()
    shop.clock.advance(again_after_ms)
    shop.run_all()
    first, second = shop.events
    assert first == second
    assert shop.sent[0][1].event == shop.sent[1][1].event
    assert len(shop.scheduled_queue) == 0


def test_cancellation_that_can_not_be_logged_is_logged_later(shop: SchedulingShop) -> None:
    late = shop.schedule(7_200_000, callback_url=URL)
    shop.control.cancel("ann", late.task_id)
    shop.log.fail("write", times=FINALIZE_TRIES)
    with pytest.raises(UnavailableError):
        shop.run_scheduled_message()
    shop.run_all()
    assert ends_of(shop, late) == (["task_cancelled"], 1)


def test_cancelled_after_it_got_its_place_it_is_passed_over(shop: SchedulingShop) -> None:
    shop.submit()
    late = shop.schedule(100)
    shop.clock.sleep_until(shop.scheduled_queue.next_available_at() or 0)
    shop.run_scheduled_message()
    assert shop.control.cancel("ann", late.task_id).state is TaskState.CANCELLED
    shop.run_all()
    assert [event["event"] for event in shop.events] == ["task_completed", "task_cancelled"]


def test_cancelled_while_it_gets_its_place_it_ends_once(shop: SchedulingShop) -> None:
    """The seq is reserved, and the write that stores it comes too late."""
    late, control = shop.schedule(1_000), shop.control
    shop.clock.sleep_until(shop.scheduled_queue.next_available_at() or 0)
    real = shop.submitter.reserve

    class Slow:
        def reserve(self, user_id: str, task_id: str, now_ms: int, units: int) -> Any:
            control.cancel(user_id, task_id)
            return real(user_id, task_id, now_ms, units)

    runner = shop.runner_with(Slow())
    delivery = shop.scheduled_queue.receive()
    assert runner.handle(delivery)
    shop.scheduled_queue.delete(delivery.receipt)
    then = shop.submit()
    shop.run_all()
    assert [event["event"] for event in shop.events if event["task_id"] == late.task_id] == ["task_cancelled"]
    assert shop.record(then).state is TaskState.SUCCEEDED


def test_task_that_has_run_can_not_be_cancelled(shop: SchedulingShop) -> None:
    late = shop.schedule(1_000)
    shop.run_all()
    with pytest.raises(ConflictError):
        shop.control.cancel("ann", late.task_id)


# Callbacks.


@pytest.mark.parametrize("delay_ms", [0, 5_000])
def test_end_is_told_with_the_completion_event(shop: SchedulingShop, delay_ms: int) -> None:
    task = shop.schedule(delay_ms, callback_url=URL)
    shop.run_all()
    [(_, callback)] = shop.sent
    assert (callback.url, callback.task_id) == (URL, task.task_id)
    event = shop.event_of(task)
    assert callback.event.items() <= event.items()
    assert event.keys() - callback.event.keys() == {"_aws", "stage", "task_completed", "run_ms"}


def test_failed_and_cancelled_ends_are_told_too() -> None:
    shop = SchedulingShop(MAX_ATTEMPTS="1")
    shop.register("break", lambda payload: 1 / 0)
    shop.try_submit_many("ann", TaskRequest("break", None, callback_url=URL))
    waiting = shop.schedule(0, callback_url=URL)
    scheduled = shop.schedule(60_000, callback_url=URL)
    shop.control.cancel("ann", waiting.task_id)
    shop.control.cancel("ann", scheduled.task_id)
    shop.run_all()
    assert sorted(callback.event["event"] for _, callback in shop.sent) == [
        "task_cancelled",
        "task_cancelled",
        "task_failed",
    ]


def test_nobody_is_told_of_other_tasks(shop: SchedulingShop) -> None:
    shop.submit()
    shop.run_all()
    assert shop.sent == []


def test_callback_takes_no_start(shop: SchedulingShop) -> None:
    shop.schedule(0, callback_url=URL)
    shop.run_all()
    assert shop.lanes.get("ann").started == 1


def test_callback_that_fails_is_tried_again_more_and_more_seldom(shop: SchedulingShop) -> None:
    shop.answers = iter([DeliveryFailure("HTTP 500", is_final=False)] * 6)
    shop.schedule(0, callback_url=URL)
    shop.run_all()
    assert [at for at, _ in shop.sent] == [0, 5_000, 10_000, 20_000, 40_000, 80_000, 160_000]
    assert (len(shop.scheduled_queue), shop.queue.dead_letters) == (0, ())


def test_callback_is_tried_at_doubling_ages_then_each_6_hours_and_for_the_last_time_after_a_day(
    shop: SchedulingShop,
) -> None:
    shop.answers = iter([DeliveryFailure("HTTP 503", is_final=False)] * 100)
    shop.schedule(0, callback_url=URL)
    shop.run_all()
    doubling = [5 * 2**n for n in range(14)]  # 5 s to 11 h 22 min 40 s
    assert [at // 1000 for at, _ in shop.sent] == [0, *doubling, 40_960 + 21_600, 40_960 + 43_200, 86_400]


def test_slow_answers_do_not_make_a_callback_be_tried_more_often(shop: SchedulingShop) -> None:
    shop.answers = iter([DeliveryFailure("time-out", is_final=False)] * 3)
    tell = shop._tell

    def tell_slowly(callback: Callback) -> DeliveryFailure | Busy | None:
        answer = tell(callback)
        shop.clock.advance(9_500)
        return answer

    shop._tell = tell_slowly  # type: ignore[method-assign]
    shop.schedule(0, callback_url=URL)
    shop.run_all()
    assert [at for at, _ in shop.sent] == [0, 19_500, 58_000, 135_500]


def test_callback_that_nobody_takes_for_a_day_is_a_dead_letter_with_its_reason(shop: SchedulingShop) -> None:
    shop.answers = iter([DeliveryFailure("HTTP 503", is_final=False)] * 100)
    task = shop.schedule(0, callback_url=URL)
    shop.run_all()
    assert shop.sent[-1][0] == TRIED_FOR_MS
    [letter] = shop.queue.dead_letters
    assert (letter.user_id, letter.reason) == ("ann", f"callback to {URL}: HTTP 503")
    dead = from_message(letter.body)
    assert isinstance(dead, Callback)
    assert dead.task_id == task.task_id


def test_callback_that_finds_its_users_others_running_is_put_off_however_old_it_is(shop: SchedulingShop) -> None:
    shop.answers = iter(
        [Busy(7), Busy(30), Busy(43_000), Busy(43_000), Busy(43_000), DeliveryFailure("HTTP 503", False)]
    )
    shop.schedule(0, callback_url=URL)
    shop.run_all()
    assert [at for at, _ in shop.sent] == [0, 7_000, 37_000, 43_037_000, 86_037_000, 129_037_000]
    [letter] = shop.queue.dead_letters  # it was tried once, and its day is over
    assert letter.reason == f"callback to {URL}: HTTP 503"


def test_callback_that_can_never_succeed_is_a_dead_letter_at_once(shop: SchedulingShop) -> None:
    shop.answers = iter([DeliveryFailure("HTTP 410", is_final=True)])
    shop.schedule(0, callback_url=URL)
    shop.run_all()
    assert len(shop.sent) == len(shop.queue.dead_letters) == 1


def test_callback_that_can_not_be_put_off_is_part_of_the_end(shop: SchedulingShop) -> None:
    task = shop.schedule(0, callback_url=URL)
    shop.scheduled_queue.fail("send", times=2)
    shop.run_all()
    assert len(shop.sent) == len(shop.events) == 1
    assert shop.record(task).state is TaskState.SUCCEEDED


# Messages.

SCHEDULED = make_task(seq=0, run_at=NOW + 5, callback_url=URL, payload={"a": "ä"})
CALLBACK = Callback("ann", "0198-0001", URL, {"event": "task_completed"}, NOW)


@pytest.mark.parametrize("message", [ScheduledTask(SCHEDULED), CancelScheduled(SCHEDULED), CALLBACK])
def test_scheduled_message_survives_its_body(message: ScheduledMessage) -> None:
    assert from_message(to_message(message)) == message
    assert to_message(message).isascii()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (ScheduledTask(SCHEDULED), "scheduled_task"),
        (CancelScheduled(SCHEDULED), "cancel_scheduled"),
        (CALLBACK, "callback"),
    ],
)
def test_body_names_version_2_and_its_kind(message: ScheduledMessage, kind: str) -> None:
    fields = json.loads(to_message(message))
    assert (fields["v"], fields["kind"]) == (2, kind)


TASK_IN_VERSION_1 = (
    '{"v":1,"user_id":"ann","task_id":"0198-0001","seq":0,"task":"log","planned_at":1760000007000,'
    '"submitted_at":1760000000000,"payload":{"a":"\\u00e4"},"run_at":1760000007000,'
    '"callback_url":"https://hooks.example.com/end"}'
)
TASK_OF_VERSION_1 = Task(
    user_id="ann",
    task_id="0198-0001",
    seq=0,
    name="log",
    payload={"a": "ä"},
    planned_at=1_760_000_007_000,
    submitted_at=1_760_000_000_000,
    run_at=1_760_000_007_000,
    callback_url=URL,
)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f'{{"v":1,"errand":"admit","task":{TASK_IN_VERSION_1}}}', ScheduledTask(TASK_OF_VERSION_1)),
        (f'{{"v":1,"errand":"withdraw","task":{TASK_IN_VERSION_1}}}', CancelScheduled(TASK_OF_VERSION_1)),
        (
            '{"v":1,"errand":"callback","user_id":"ann","task_id":"0198-0001","url":"https://hooks.example.com/end",'
            '"event":{"event":"task_completed","seq":7},"begun_at":1760000000000}',
            Callback("ann", "0198-0001", URL, {"event": "task_completed", "seq": 7}, 1_760_000_000_000),
        ),
    ],
)
def test_body_of_version_1_is_read(body: str, message: ScheduledMessage) -> None:
    assert from_message(body) == message


def test_scheduled_task_in_version_1_runs(shop: SchedulingShop) -> None:
    late = shop.schedule(2_000)
    shop.clock.sleep_until(NOW + 2_000)
    delivery = shop.scheduled_queue.receive()
    shop.scheduled_queue.delete(delivery.receipt)
    old = {"v": 1, "errand": "admit", "task": json.loads(delivery.body)["task"]}
    shop.scheduled_queue.send_body(json.dumps(old))
    shop.run_all()
    assert [event["task_id"] for event in shop.events] == [late.task_id]


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
            '{"v": 1, "kind": "scheduled_task"}',
            '{"v": 2, "kind": "dance"}',
            '{"v": 2, "kind": "scheduled_task"}',
            '{"v": 2, "errand": "admit"}',
            "[" * 9_999,
        ),
        json.dumps({"v": 2, "kind": "scheduled_task", "task": {"v": 1}}),
        json.dumps({"v": 2, "kind": "callback", "user_id": "", "task_id": "x", "url": "x", "event": {}, "begun_at": 1}),
    ],
)
def test_message_that_is_no_scheduled_message_is_a_dead_letter(shop: SchedulingShop, body: str) -> None:
    with pytest.raises(MessageError):
        from_message(body)
    shop.scheduled_queue.send_body(body)
    assert shop.run_scheduled_message()
    assert [letter.body for letter in shop.queue.dead_letters] == [body]


@pytest.mark.parametrize("part", ["message", "task"])
def test_scheduled_message_of_a_newer_deployment_waits_for_its_function(shop: SchedulingShop, part: str) -> None:
    fields = json.loads(to_message(ScheduledTask(make_task(seq=0, run_at=NOW))))
    (fields if part == "message" else fields["task"])["v"] = 9
    shop.scheduled_queue.send_body(json.dumps(fields))
    assert not shop.run_scheduled_message()
    assert shop.scheduled_queue.next_available_at() == NOW + 1000 * NEWER_SECONDS
    assert shop.queue.dead_letters == ()


@pytest.mark.parametrize(
    ("due_in_ms", "seconds"), [(-1, 0), (0, 0), (999, 0), (1_000, 1), (900_000, 900), (10**9, 900)]
)
def test_message_is_delayed_for_whole_seconds_that_end_in_time(due_in_ms: int, seconds: int) -> None:
    assert delay_seconds(NOW + due_in_ms, NOW) == seconds
