"""The contract of scheduled tasks, over every adapter: one of admission and cancellation wins, counts are bounded."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.core.scheduled import DueTask
from chalicelib.core.task import Outcome, Task, TaskState
from tests.factories import NOW, make_task
from tests.integration.ports import Ports

ENDED = Outcome(TaskState.CANCELLED, None, NOW + 1, 0)
URL = "https://hooks.example.com/"


def scheduled(user: str) -> Task:
    return make_task(seq=0, user_id=user, run_at=NOW + 5, planned_at=NOW + 5, callback_url=URL)


@pytest.mark.parametrize("is_stored", [True, False])
def test_parked_task_gets_its_place_once(ports: Ports, user: str, is_stored: bool) -> None:
    task = scheduled(user)
    if is_stored:
        ports.tasks.create_if_absent(task)
    placed = replace(task, seq=3, planned_at=NOW + 9)
    assert ports.tasks.mark_admitted(placed)
    assert not ports.tasks.mark_admitted(replace(placed, seq=4))
    assert not ports.tasks.cancel_scheduled(task, ENDED)
    record = ports.tasks.get(user, task.task_id)
    assert record
    assert (record.task, record.state, record.outcome) == (placed, TaskState.QUEUED, None)
    assert [one.task.seq for one in ports.tasks.between(user, 1, 9, 9)] == [3]


@pytest.mark.parametrize("is_stored", [True, False])
def test_cancelled_task_gets_no_seq(ports: Ports, user: str, is_stored: bool) -> None:
    task = scheduled(user)
    if is_stored:
        ports.tasks.create_if_absent(task)
    assert ports.tasks.cancel_scheduled(task, ENDED)
    assert not ports.tasks.cancel_scheduled(task, ENDED)
    assert not ports.tasks.mark_admitted(replace(task, seq=3))
    record = ports.tasks.get(user, task.task_id)
    assert record
    assert (record.task, record.state) == (task, TaskState.CANCELLED)
    assert record.outcome == ENDED


def test_of_admission_and_cancellation_at_once_one_wins(
    atomic_ports: Ports, user: str, in_threads: Callable[[int, Callable[[int], Any]], list[Any]]
) -> None:
    task = scheduled(user)
    atomic_ports.tasks.create_if_absent(task)

    def one(number: int) -> bool:
        if number % 2:
            return atomic_ports.tasks.cancel_scheduled(task, ENDED)
        return atomic_ports.tasks.mark_admitted(replace(task, seq=number + 1))

    assert sum(in_threads(8, one)) == 1


# How many are scheduled.

TODAY = 20_000


def test_each_day_has_a_bound_of_its_own(ports: Ports, user: str) -> None:
    assert ports.scheduled_counts.add(user, TODAY, {TODAY: 2, TODAY + 13: 3}, 3)
    assert ports.scheduled_counts.add(user, TODAY, {TODAY: 1}, 3)
    assert not ports.scheduled_counts.add(user, TODAY, {TODAY: 1}, 3)
    assert ports.scheduled_counts.add(f"{user}-other", TODAY, {TODAY: 3}, 3)


def test_of_days_of_which_one_is_full_none_is_counted(ports: Ports, user: str) -> None:
    assert ports.scheduled_counts.add(user, TODAY, {TODAY + 1: 3}, 3)
    assert not ports.scheduled_counts.add(user, TODAY, {TODAY: 2, TODAY + 1: 1}, 3)
    assert not ports.scheduled_counts.add(user, TODAY, {TODAY: 1, TODAY + 2: 4}, 3)
    assert ports.scheduled_counts.add(user, TODAY, {TODAY: 3}, 3)


def test_what_is_given_back_can_be_taken_again(ports: Ports, user: str) -> None:
    assert ports.scheduled_counts.add(user, TODAY, {TODAY: 3}, 3)
    assert ports.scheduled_counts.add(user, TODAY, {TODAY: -2}, 3)
    assert not ports.scheduled_counts.add(user, TODAY, {TODAY: 3}, 3)
    assert ports.scheduled_counts.add(user, TODAY, {TODAY: 2}, 3)


def test_bound_that_was_lowered_holds_at_once(ports: Ports, user: str) -> None:
    assert ports.scheduled_counts.add(user, TODAY, {TODAY: 3}, 3)
    assert not ports.scheduled_counts.add(user, TODAY, {TODAY: 1}, 2)


def test_days_that_are_over_are_forgotten_and_those_to_come_are_not(ports: Ports, user: str) -> None:
    assert ports.scheduled_counts.add(user, TODAY, {TODAY: 3, TODAY + 13: 3}, 3)
    assert ports.scheduled_counts.add(user, TODAY + 13, {TODAY + 14: 1}, 3)
    assert not ports.scheduled_counts.add(user, TODAY + 13, {TODAY + 13: 1}, 3)
    assert ports.scheduled_counts.add(user, TODAY, {TODAY: 3}, 3)


def test_counts_are_no_tasks(ports: Ports, user: str) -> None:
    assert ports.scheduled_counts.add(user, TODAY, {TODAY: 1}, 3)
    assert ports.tasks.newest(user, None, 10, None) == ([], None)
    assert ports.tasks.get(user, "scheduled") is None


def test_of_many_at_once_as_many_as_there_is_room_for_are_counted(
    atomic_ports: Ports, user: str, in_threads: Callable[[int, Callable[[int], Any]], list[Any]]
) -> None:
    numbers = in_threads(8, lambda _: atomic_ports.scheduled_counts.add(user, TODAY, {TODAY: 1}, 5))
    assert sorted(number for number in numbers if number) == [1, 2, 3, 4, 5]


def test_each_count_has_a_greater_number_than_those_before(ports: Ports, user: str) -> None:
    days = ({TODAY: 1}, {TODAY + 1: 2}, {}, {TODAY: -1}, {TODAY: 1})
    numbers = [ports.scheduled_counts.add(user, TODAY, each, 3) for each in days]
    assert numbers == [1, 2, 3, 4, 5]


# The list of those that are due.

LISTED = [
    DueTask(NOW, 9, 0, "0199-a"),
    DueTask(NOW, 10, 0, "0198-f"),
    DueTask(NOW, 10, 2, "0198-c"),
    DueTask(NOW, 10, 11, "0198-b"),
    DueTask(NOW + 1, 2, 0, "0198-a"),
]


def test_scheduled_tasks_are_listed_by_time_then_number_then_index(ports: Ports, user: str) -> None:
    for task in reversed(LISTED[:2]):
        ports.due_tasks.add(user, [task])
    ports.due_tasks.add(user, LISTED[:1:-1])
    ports.due_tasks.add(user, LISTED)  # a repeat
    ports.due_tasks.add(f"{user}-other", LISTED[:1])
    assert ports.due_tasks.due(user, NOW + 1, 10) == LISTED
    assert ports.due_tasks.due(user, NOW, 10) == LISTED[:4]
    assert ports.due_tasks.due(user, NOW - 1, 10) == []
    assert ports.due_tasks.due(user, NOW + 1, 2) == LISTED[:2]


def test_more_scheduled_tasks_than_one_batch_writes_are_listed(ports: Ports, user: str) -> None:
    many = [DueTask(NOW, 1, index, f"0198-{index}") for index in range(60)]
    ports.due_tasks.add(user, many)
    assert ports.due_tasks.due(user, NOW, 100) == many


def test_task_that_is_taken_off_the_list_is_due_no_more(ports: Ports, user: str) -> None:
    ports.due_tasks.add(user, LISTED)
    for _ in range(2):
        ports.due_tasks.remove(user, LISTED[1:3])
    assert ports.due_tasks.due(user, NOW + 1, 10) == [LISTED[0], *LISTED[3:]]


def test_one_dispatcher_at_a_time_admits(ports: Ports, user: str) -> None:
    due = ports.due_tasks
    assert due.try_begin_admitting(user, "a", NOW, NOW + 10)
    assert due.try_begin_admitting(user, "a", NOW, NOW + 10)  # the answer to the first call was lost
    assert not due.try_begin_admitting(user, "b", NOW + 9, NOW + 20)
    assert due.try_begin_admitting(f"{user}-other", "b", NOW, NOW + 10)
    due.end_admitting(user, "b")
    assert not due.try_begin_admitting(user, "b", NOW + 9, NOW + 20)
    due.end_admitting(user, "a")
    assert due.try_begin_admitting(user, "b", NOW + 9, NOW + 20)
    assert due.try_begin_admitting(user, "c", NOW + 20, NOW + 30)


def test_list_of_those_that_are_due_holds_no_tasks(ports: Ports, user: str) -> None:
    ports.due_tasks.add(user, LISTED)
    ports.due_tasks.try_begin_admitting(user, "a", NOW, NOW + 10)
    assert ports.tasks.newest(user, None, 10, None) == ([], None)
    assert ports.tasks.between(user, 0, 9, 9) == []
