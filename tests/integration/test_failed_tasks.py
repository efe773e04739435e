"""Lists of failed tasks over all users and of one, and the ids of their redrives: one contract over every adapter."""

from collections.abc import Callable
from uuid import uuid4

import pytest

from chalicelib.core.task import Outcome, Task, TaskRecord, TaskState
from tests.factories import NOW, make_task
from tests.integration.ports import Ports

#: Later than each failure of other tests that share the table.
LATER = NOW + 90 * 86_400_000


def fail(ports: Ports, task: Task, at: int, state: TaskState = TaskState.FAILED) -> Task:
    ports.tasks.create_if_absent(task)
    ports.tasks.finish(task, Outcome(state, at - 10, at, 3, error=f"no {task.seq}"))
    return task


@pytest.fixture
def since() -> int:
    """A time of this test alone, and of no failure of another one within the next days."""
    return LATER + uuid4().int % 1_000_000 * 1_000_000


def task_of(user: str, seq: int) -> Task:
    return make_task(seq, user, task_id=f"{uuid4()}")


def pages(page: Callable[[str | None], tuple[list[TaskRecord], str | None]]) -> list[list[str]]:
    found, cursor = list[list[str]](), None
    while True:
        records, cursor = page(cursor)
        found.append([record.task.task_id for record in records])
        if cursor is None:
            return found


def test_failures_of_all_users_are_listed_in_pages_the_newest_or_the_oldest_first(
    ports: Ports, user: str, since: int
) -> None:
    tasks = [fail(ports, task_of(f"{user}-{seq % 3}", seq), since + seq // 2) for seq in range(1, 42)]
    fail(ports, task_of(user, 50), since + 5, TaskState.CANCELLED)
    ports.tasks.create_if_absent(task_of(user, 51))
    in_order = [task.task_id for task in sorted(tasks, key=lambda task: (since + task.seq // 2, task.task_id))]
    oldest = pages(lambda cursor: ports.failed_tasks.oldest(since, 9, cursor))
    assert [one for page in oldest for one in page][:41] == in_order
    assert [len(page) for page in oldest[:4]] == [9] * 4
    end = f"{since + 100:015d}-"
    newest = pages(lambda cursor: ports.failed_tasks.newest(9, cursor or end))
    assert [one for page in newest for one in page][:41] == in_order[::-1]


def test_failures_since_a_time_begin_with_that_millisecond(ports: Ports, user: str, since: int) -> None:
    tasks = [fail(ports, task_of(user, seq), since + seq) for seq in (1, 2, 3)]
    records, _ = ports.failed_tasks.oldest(since + 2, 2, None)
    assert [record.task.task_id for record in records] == [task.task_id for task in tasks[1:]]
    assert records[0].outcome is not None
    assert records[0].outcome.error == "no 2"


def test_failures_of_a_user_are_listed_by_id_from_the_cursor_on(ports: Ports, user: str) -> None:
    tasks = [fail(ports, make_task(seq, user), NOW + 100 - seq) for seq in range(1, 8)]
    fail(ports, make_task(8, user), NOW + 90, TaskState.SUCCEEDED)
    fail(ports, make_task(9, f"{user}-2"), NOW + 90)
    found = pages(lambda cursor: ports.failed_tasks.of_user(user, 0, 3, cursor))
    assert found == [[task.task_id for task in tasks[n : n + 3]] for n in (0, 3, 6)]
    since, _ = ports.failed_tasks.of_user(user, NOW + 97, 9, None)
    assert [record.task.seq for record in since] == [1, 2, 3]


def test_first_redrive_of_a_failed_task_decides_its_id(ports: Ports, user: str) -> None:
    task = fail(ports, make_task(1, user), NOW)
    assert ports.failed_tasks.reserve_redrive(task, "id-1") == "id-1"
    assert ports.failed_tasks.reserve_redrive(task, "id-2") == "id-1"
    record = ports.tasks.get(user, task.task_id)
    assert record
    assert record.redriven_as == "id-1"
    ports.failed_tasks.release_redrive(task, "id-2")
    assert ports.failed_tasks.reserve_redrive(task, "id-2") == "id-1"
    ports.failed_tasks.release_redrive(task, "id-1")
    assert ports.failed_tasks.reserve_redrive(task, "id-2") == "id-2"


@pytest.mark.parametrize("state", [TaskState.SUCCEEDED, TaskState.CANCELLED, None])
def test_only_a_failed_task_has_an_id_of_its_redrive(ports: Ports, user: str, state: TaskState | None) -> None:
    task = make_task(1, user)
    assert ports.failed_tasks.reserve_redrive(task, "id-1") is None
    if state:
        fail(ports, task, NOW, state)
    else:
        ports.tasks.create_if_absent(task)
    assert ports.failed_tasks.reserve_redrive(task, "id-1") is None
    record = ports.tasks.get(user, task.task_id)
    assert record
    assert record.redriven_as is None
