"""Which lanes there are, over every adapter."""

from __future__ import annotations

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
