"""Which lanes there are, over every adapter."""

from __future__ import annotations

import pytest

from chalicelib.core.task import Outcome, TaskState
from tests.factories import NOW, make_lane, make_settings, make_task
from tests.integration.ports import Ports

LIMITS = make_settings().limits


def admit(ports: Ports, *users: str) -> None:
    for user in users:
        ports.lanes.try_fast_admit(user, LIMITS, NOW, "task-1")


def test_users_are_found_by_the_beginning_of_their_id_and_in_its_order(ports: Ports, user: str) -> None:
    admit(ports, f"{user}-c", f"{user}-a", f"{user}-b", f"other-{user}")
    assert ports.directory.user_ids(user, "", 10) == [f"{user}-{letter}" for letter in "abc"]
    assert ports.directory.user_ids(user, "", 2) == [f"{user}-{letter}" for letter in "ab"]
    assert ports.directory.user_ids(f"{user}-d", "", 10) == []


def test_users_are_found_after_a_user_id_whether_that_user_has_a_lane_or_not(ports: Ports, user: str) -> None:
    admit(ports, f"{user}-a", f"{user}-a!", f"{user}-b", f"{user}~")
    assert ports.directory.user_ids(user, f"{user}-a", 10) == [f"{user}-a!", f"{user}-b", f"{user}~"]
    assert ports.directory.user_ids(user, f"{user}-aa", 10) == [f"{user}-b", f"{user}~"]
    assert ports.directory.user_ids(user, "!", 1) == [f"{user}-a"]
    assert ports.directory.user_ids(user, f"{user}~", 10) == []
    assert ports.directory.user_ids(user, f"{user}~~~", 10) == []


def test_every_lane_can_be_found_without_a_prefix(ports: Ports, user: str) -> None:
    admit(ports, user)
    assert user in ports.directory.user_ids("", "", 10_000)


def test_lanes_are_read_as_the_store_has_them(ports: Ports, user: str) -> None:
    users = [f"{user}-{number:03}" for number in range(120)]  # more than one BatchGetItem takes
    admit(ports, *users)
    found = ports.directory.lanes([*users, f"{user}-nobody"])
    assert sorted(found, key=lambda lane: lane.user_id) == [ports.lanes.get(one) for one in users]
    assert make_lane(user_id=f"{user}-nobody") not in found
    assert ports.directory.lanes([]) == []


def test_tasks_are_read_as_the_store_has_them(ports: Ports, user: str) -> None:
    tasks = [make_task(seq, user) for seq in range(1, 6)]
    ports.tasks.create_many(tasks)
    found = ports.directory.tasks([*((user, task.task_id) for task in tasks), (user, "0198-9999")])
    assert sorted(record.task.seq for record in found) == [1, 2, 3, 4, 5]
    assert ports.tasks.get(user, tasks[0].task_id) in found
    assert ports.directory.tasks([]) == []


def test_newest_tasks_are_read_up_to_a_task(ports: Ports, user: str) -> None:
    tasks = [make_task(seq, user) for seq in range(1, 6)]
    ports.tasks.create_many(tasks)
    admit(ports, user)

    def seqs(up_to: str | None, limit: int) -> list[int]:
        return [record.task.seq for record in ports.directory.newest_tasks(user, up_to, limit)]

    assert seqs(None, 3) == [5, 4, 3]
    assert seqs(tasks[2].task_id, 2) == [3, 2]
    assert seqs(tasks[0].task_id, 9) == [1]
    assert seqs("0198-0000", 9) == []


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_hold_each_lane_once_though_lanes_change_between_them(ports: Ports, user: str, size: int) -> None:
    names = [f"{user}{letter}" for letter in ("!", "-", "0", "A", "a", "a!", "aa", "~")]
    admit(ports, *names)
    seen, after = list[str](), ""
    while page := ports.directory.user_ids(user, after, size):
        seen += page
        after = page[-1]
        for name in names:  # each lane gets another task, and one more lane begins behind the page
            ports.lanes.try_fast_admit(name, LIMITS, NOW + len(seen) * 60_000, f"task-{len(seen)}")
        admit(ports, f"{user}!{len(seen)}")
    assert [one for one in seen if one in names] == names
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_of_tasks_hold_each_task_once_though_tasks_finish_between_them(
    ports: Ports, user: str, size: int
) -> None:
    tasks = [make_task(seq, user) for seq in range(1, 8)]
    ports.tasks.create_many(tasks)
    seen, before = list[int](), None
    while True:
        page, before = ports.tasks.newest(user, None, size, before)
        seen += [record.task.seq for record in page]
        for task in tasks[len(seen) % 3 :: 3]:
            ports.tasks.finish(task, Outcome(TaskState.SUCCEEDED, NOW, NOW + len(seen), 1))
        ports.tasks.create_if_absent(make_task(10 + len(seen), user))
        if before is None:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]
