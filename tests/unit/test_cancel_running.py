"""A running task that is cancelled: it is asked to stop, and however it ends, it is not run again."""

from collections.abc import Callable

import pytest

from chalicelib.core.errors import ConflictError, PermanentError, RetryAfter
from chalicelib.core.task import Json, Outcome, Task, TaskState
from chalicelib.tasks.registry import Context
from tests.factories import NOW
from tests.unit.workshop import WorkerDiedError, Workshop

IGNORED = "it did not end within 20 s, although it was asked to stop"
#: A renewal brings the request after at most so many milliseconds.
WITHIN_MS = 3_000


class Long:
    """Registers a task that runs for a minute, a second at a time, and is cancelled after `cancel_after_ms`."""

    def __init__(self, shop: Workshop, cancel_after_ms: int, at_end: Callable[[Context, int], Json]) -> None:
        """at_end: called each second, with the milliseconds that it has run; a value other than None ends it."""
        self._shop = shop
        self._cancel_after_ms = cancel_after_ms
        self._at_end = at_end
        self.starts: list[int] = []
        self.views: list[tuple[TaskState, int | None]] = []
        shop.registry.task("long")(self._run)

    def _run(self, payload: Json, context: Context) -> Json:
        self.starts.append(self._shop.clock.now_ms() - NOW)
        for ran_ms in range(1_000, 61_000, 1_000):
            self._shop.clock.advance(1_000)
            if ran_ms == self._cancel_after_ms:
                view = self._shop.control.cancel(context.user_id, context.task_id)
                self.views.append((view.state, view.record.cancel_requested_at))
            self._shop.renewer.renew_due()
            if (value := self._at_end(context, ran_ms)) is not None:
                return value
        return "whole"


def stop(context: Context, _ran_ms: int) -> Json:
    if context.cancelled:
        raise InterruptedError("asked to stop")
    return None


def run_one(shop: Workshop) -> Task:
    task, following = shop.submit(name="long"), shop.submit()
    shop.run()
    assert shop.record(following).state is TaskState.SUCCEEDED, "its lane goes on"
    return task


@pytest.mark.parametrize("cancel_after_ms", [1_000, 2_000, 5_000, 30_000])
def test_task_that_stops_when_it_is_cancelled_ends_cancelled_and_its_start_counts(cancel_after_ms: int) -> None:
    shop = Workshop()
    long = Long(shop, cancel_after_ms, stop)
    task = run_one(shop)
    event, record = shop.event_of(task), shop.record(task)
    assert long.views == [(TaskState.RUNNING, NOW + cancel_after_ms)]
    assert (record.state, record.cancel_requested_at) == (TaskState.CANCELLED, NOW + cancel_after_ms)
    assert (event["event"], event["attempt"], event["started_at"]) == ("task_cancelled", 1, NOW)
    assert event["completed_at"] <= NOW + cancel_after_ms + WITHIN_MS
    assert (long.starts, shop.lanes.get("ann").started) == ([0], 2)


def test_task_that_ignores_it_and_returns_has_succeeded() -> None:
    shop = Workshop()
    Long(shop, 2_000, lambda context, ran_ms: "done" if ran_ms == 20_000 else None)
    task = run_one(shop)
    record = shop.record(task)
    assert record.outcome is not None
    assert (record.outcome.result, record.cancel_requested_at) == ("done", NOW + 2_000)
    assert shop.event_of(task)["event"] == "task_completed"


def test_task_that_ignores_it_until_its_deadline_fails_and_says_that_it_was_cancelled() -> None:
    shop = Workshop(DEADLINE="20")
    Long(shop, 2_000, lambda context, ran_ms: None)
    task = shop.submit(name="long")
    shop.run()
    record = shop.record(task)
    assert (record.state, record.error) == (TaskState.FAILED, IGNORED)
    assert record.cancel_requested_at == NOW + 2_000
    assert [event["event"] for event in shop.events] == ["task_failed"]


@pytest.mark.parametrize("error", [ValueError("broken"), RetryAfter(60)])
def test_task_that_fails_after_it_was_cancelled_is_not_tried_again(error: Exception) -> None:
    shop = Workshop(MAX_ATTEMPTS="3", BACKOFF="60s")

    def fail(context: Context, ran_ms: int) -> Json:
        if ran_ms == 10_000:
            raise error
        return None

    long = Long(shop, 2_000, fail)
    task = run_one(shop)
    assert (long.starts, shop.record(task).state) == ([0], TaskState.CANCELLED)
    assert shop.lanes.get("ann").throttled_until == 0


def test_task_that_fails_before_it_learns_of_it_ends_cancelled_without_a_backoff() -> None:
    """The request comes after the last renewal: the answer to the release of the lease has it."""
    shop = Workshop(MAX_ATTEMPTS="3", BACKOFF="600s")

    def fail(context: Context, ran_ms: int) -> Json:
        if ran_ms == 2_000:
            assert not context.cancelled
            raise ValueError("broken")
        return None

    long = Long(shop, 2_000, fail)
    task = run_one(shop)
    event = shop.event_of(task)
    assert (event["event"], event["attempt"], event["completed_at"]) == ("task_cancelled", 1, NOW + 2_000)
    assert long.starts == [0]
    assert shop.lanes.get("ann").retrying is None


def test_task_that_fails_for_good_has_failed_although_it_was_cancelled() -> None:
    shop = Workshop()

    def fail(context: Context, ran_ms: int) -> Json:
        if ran_ms == 10_000:
            raise PermanentError("no such customer")
        return None

    Long(shop, 2_000, fail)
    task = run_one(shop)
    assert (shop.record(task).state, shop.record(task).cancel_requested_at) == (TaskState.FAILED, NOW + 2_000)


def test_task_whose_worker_dies_after_it_was_cancelled_is_not_run_again() -> None:
    shop = Workshop()

    def die(context: Context, ran_ms: int) -> Json:
        if ran_ms == 4_000:
            raise WorkerDiedError
        return None

    long = Long(shop, 2_000, die)
    task = shop.submit(name="long")
    following = shop.submit()
    with pytest.raises(WorkerDiedError):
        shop.handle_next()
    shop.replace_worker()
    shop.run()
    event = shop.event_of(task)
    assert (event["event"], event["attempt"], event["started_at"]) == ("task_cancelled", 1, NOW)
    assert (long.starts, shop.record(task).state) == ([0], TaskState.CANCELLED)
    assert shop.record(following).state is TaskState.SUCCEEDED


def test_task_whose_worker_died_can_be_cancelled_before_another_takes_it() -> None:
    shop = Workshop()

    def die(context: Context, ran_ms: int) -> Json:
        raise WorkerDiedError

    long = Long(shop, 99_000, die)
    task = shop.submit(name="long")
    with pytest.raises(WorkerDiedError):
        shop.handle_next()
    shop.clock.advance(60_000)
    assert shop.control.cancel("ann", task.task_id).record.cancel_requested_at == NOW + 61_000
    shop.replace_worker()
    shop.run()
    assert (long.starts, shop.event_of(task)["event"]) == ([0], "task_cancelled")


def test_lease_that_is_renewed_late_is_not_ended_by_the_worker_that_finds_the_task_cancelled() -> None:
    """It read the lane before that renewal."""
    shop = Workshop()
    stale = []

    def change(seen: object, changed: object) -> object:
        lane = shop.lanes.get("ann")
        if not stale:
            stale.append(shop.lanes.renew_lease("ann", lane.running, shop.clock.now_ms() + 10_000))
        return real_change(seen, changed)

    def die(context: Context, ran_ms: int) -> Json:
        raise WorkerDiedError

    Long(shop, 1_000, die)
    task = shop.submit(name="long")
    with pytest.raises(WorkerDiedError):
        shop.handle_next()
    shop.replace_worker()
    real_change, shop.lanes.change = shop.lanes.change, change  # type: ignore[attr-defined]
    shop.clock.advance(600_000)
    renewed_at = shop.clock.now_ms()
    shop.run()
    assert stale
    assert shop.event_of(task)["completed_at"] >= renewed_at + 10_000


def test_cancel_that_comes_again_keeps_the_first_time_and_one_that_comes_late_changes_nothing() -> None:
    shop = Workshop()
    times = []

    def again(context: Context, ran_ms: int) -> Json:
        if ran_ms >= 2_000:
            times.append(shop.control.cancel("ann", context.task_id).record.cancel_requested_at)
        return "done" if ran_ms == 4_000 else None

    Long(shop, 2_000, again)
    task = run_one(shop)
    before = shop.record(task)
    assert times == [NOW + 2_000] * 3
    with pytest.raises(ConflictError):
        shop.control.cancel("ann", task.task_id)
    assert shop.record(task) == before


def test_cancel_that_meets_the_end_says_that_the_task_has_ended() -> None:
    """The task ends between the mark in its lane and that in its record."""
    shop = Workshop()
    answers = []
    request = shop.tasks.request_cancel

    def end_first(task: Task, now_ms: int) -> None:
        shop.tasks.finish(task, Outcome(TaskState.SUCCEEDED, NOW, now_ms, 1, "done"))
        request(task, now_ms)

    def cancel(payload: Json, context: Context) -> Json:
        with pytest.raises(ConflictError, match="succeeded") as caught:
            shop.control.cancel("ann", context.task_id)
        answers.append(str(caught.value))
        return "done"

    shop.registry.task("cancels-itself")(cancel)
    shop.tasks.request_cancel = end_first  # type: ignore[attr-defined]
    task = shop.submit(name="cancels-itself")
    shop.run()
    assert answers
    assert shop.record(task).cancel_requested_at is None
