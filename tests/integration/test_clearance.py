"""A lane that is emptied, and a user who is forgotten, in the stores: one contract over every adapter."""

from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.aws.dynamodb_lane_items import lane_of
from chalicelib.core.admission import admit
from chalicelib.core.lane_changes import emptied, forgotten, paused
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import Stale, Written
from chalicelib.core.task import Outcome, Task, TaskState
from tests.factories import NOW, make_task
from tests.integration.ports import AwsPorts, Ports

LIMITS = parse_limits("1/second; 20/minute")


def admitted(ports: Ports, user: str, count: int) -> Any:
    lane = ports.lanes.get(user)
    for number in range(1, count + 1):
        lane = ports.lanes.admit(lane, admit(lane, LIMITS, NOW, f"t{number}")).lane
    return lane


def test_emptied_lane_has_its_mark_and_no_waiting_tasks(ports: Ports, user: str) -> None:
    lane = admitted(ports, user, 3)
    changed = emptied(lane, {"t1": 1}, LIMITS, NOW + 5, NOW + 6)
    write = ports.lanes.change(lane, changed)
    assert isinstance(write, Written)
    stored = ports.lanes.get(user)
    assert (stored.emptied_seq, stored.emptied_from, stored.emptied_at) == (3, 0, NOW + 5)
    assert (stored.waiting, stored.started_seq, stored.cancelled) == (0, 3, {"t1": 1})
    assert [stored.is_emptied(f"t{n}", n) for n in (1, 2, 3, 4)] == [False, True, True, False]
    assert isinstance(ports.lanes.try_fast_admit(user, LIMITS, NOW + 5_000, "t4"), Written)
    assert ports.lanes.get(user).emptied_seq == 3


def test_task_that_was_admitted_meanwhile_keeps_a_lane_from_being_emptied(ports: Ports, user: str) -> None:
    seen = admitted(ports, user, 1)
    admitted(ports, user, 1)
    assert isinstance(ports.lanes.change(seen, emptied(seen, {}, LIMITS, NOW, NOW)), Stale)
    assert ports.lanes.get(user).emptied_seq == 0


def test_forgotten_lane_keeps_seqs_and_starts_and_is_listed_from_its_next_submit_on(ports: Ports, user: str) -> None:
    lane = admitted(ports, user, 1)
    lane = ports.lanes.change(lane, paused(replace(lane, limits=parse_limits("5/second")), NOW + 9, LIMITS, NOW)).lane
    lane = ports.lanes.change(lane, replace(lane, started_seq=1, starts=(NOW,))).lane
    write = ports.lanes.forget(lane, forgotten(lane, LIMITS, NOW + 7), 2_000_000_000)
    assert isinstance(write, Written)
    stored = ports.lanes.get(user)
    assert (stored.admitted, stored.started_seq, stored.starts) == (1, 1, (NOW,))
    assert (stored.limits, stored.paused_until, stored.forgotten_seq, stored.forgotten_at) == (None, None, 1, NOW + 7)
    assert ports.directory.user_ids(user, "", 9) == []
    ports.lanes.try_fast_admit(user, LIMITS, NOW + 90_000, "t2")
    assert ports.directory.user_ids(user, "", 9) == [user]


def test_lane_of_a_user_without_tasks_gets_the_mark_too(ports: Ports, user: str) -> None:
    """The user may have had schedules alone."""
    lane = ports.lanes.get(user)
    assert isinstance(ports.lanes.forget(lane, forgotten(lane, LIMITS, NOW), 2_000_000_000), Written)
    assert (ports.lanes.get(user).forgotten_at, ports.directory.user_ids(user, "", 9)) == (NOW, [])


def test_forgotten_lane_expires(ports: Ports, user: str) -> None:
    if not isinstance(ports, AwsPorts):
        pytest.skip("nothing expires in memory")
    lane = admitted(ports, user, 1)
    ports.lanes.forget(lane, forgotten(lane, LIMITS, NOW), 2_000_000_000)
    dynamodb: Any = ports.lanes._client  # type: ignore[attr-defined]
    table: Any = ports.lanes._table  # type: ignore[attr-defined]
    item = dynamodb.get_item(TableName=table, Key={"user_id": {"S": user}, "item": {"S": "lane"}})["Item"]
    assert (item["expires_at"], "listed" in item) == ({"N": "2000000000"}, False)
    assert lane_of(user, item).forgotten_seq == 1


def finished(ports: Ports, user: str, seq: int, state: TaskState | None, payload: Any = None) -> Task:
    task = make_task(seq, user, task_id=f"0198-{seq:04}", payload=payload)
    ports.tasks.create_if_absent(task)
    if state:
        ports.tasks.finish(task, Outcome(state, NOW, NOW, 1))
    return task


def test_finished_tasks_up_to_a_seq_are_deleted_with_their_payloads(ports: Ports, user: str) -> None:
    states = [TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED]
    gone = [finished(ports, user, seq, states[seq % 3], "x" * 5_000 * (seq % 2)) for seq in range(1, 31)]
    gone.append(finished(ports, user, 40, None))  # a slow submit stored it after it was finished
    others = [finished(ports, user, 50, TaskState.SUCCEEDED), finished(ports, user, 0, None)]
    others.append(finished(ports, f"{user}-2", 1, TaskState.SUCCEEDED))
    assert ports.tasks.delete_finished(user, 45, 20) == (20, True)
    assert ports.tasks.delete_finished(user, 45, 20) == (11, False)
    assert ports.tasks.delete_finished(user, 45, 20) == (0, False)
    assert [ports.tasks.get(user, task.task_id) for task in gone] == [None] * 31
    assert all(ports.tasks.get(task.user_id, task.task_id) for task in others)
    if isinstance(ports, AwsPorts):
        payloads: Any = ports.tasks._payloads  # type: ignore[attr-defined]
        assert [payloads.read(user, task.task_id) for task in gone] == [None] * 31
