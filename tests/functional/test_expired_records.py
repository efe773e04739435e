"""Messages and requests that come after the records of their finished tasks have expired."""

from typing import cast

import pytest

from tests.functional.conftest import Deploy, Paceline
from tests.in_process import Record
from tests.memory.container import Memory

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
ONE, BESIDE = "1/second", "1/second; 2 at once"
each_kind_of_lane = pytest.mark.parametrize("limits", [ONE, BESIDE])


def expire_records(paceline: Paceline) -> None:
    vars(cast(Memory, paceline.queues).tasks)["_records"].clear()


def run_all(paceline: Paceline) -> list[Record]:
    """Handles what waits, each message until it is done; returns the messages."""
    received = []
    while records := paceline.queues.receive(1):
        received += records
        while paceline.work(*records):
            paceline.clock.advance(1_000)
        paceline.delete(*records)
    return received


def completed(paceline: Paceline) -> list[str]:
    return [event["task_id"] for event in paceline.events]


@each_kind_of_lane
def test_late_message_of_a_finished_task_runs_it_no_second_time(deploy: Deploy, user: str, limits: str) -> None:
    paceline = deploy(LIMITS=limits)
    ids = [paceline.submit(user).json_body["task_id"] for _ in range(3)]
    late = run_all(paceline)
    assert completed(paceline) == ids
    expire_records(paceline)
    paceline.clock.advance(DAY)
    assert [paceline.work(record) for record in late] == [[]] * len(late)
    assert completed(paceline) == ids
    later = paceline.submit(user).json_body
    assert later["seq"] == 4
    run_all(paceline)
    assert completed(paceline) == [*ids, later["task_id"]]


@each_kind_of_lane
def test_late_message_of_a_cancelled_task_is_logged_no_second_time(deploy: Deploy, user: str, limits: str) -> None:
    paceline = deploy(LIMITS=limits)
    paceline.submit(user)
    paceline.request("POST", f"/api/v1/users/{user}/pause")
    task_id = paceline.submit(user).json_body["task_id"]
    paceline.request("DELETE", f"/api/v1/users/{user}/tasks?state=queued")
    late = run_all(paceline)
    before = completed(paceline)
    assert before.count(task_id) == 1
    expire_records(paceline)
    paceline.clock.advance(DAY)
    assert [paceline.work(record) for record in late] == [[]] * len(late)
    assert completed(paceline) == before


def test_late_message_of_a_scheduled_task_submits_it_no_second_time(paceline: Paceline, user: str) -> None:
    paceline.request("POST", "/api/v1/task", {"user_id": user, "delay_seconds": 60})
    paceline.clock.advance(MINUTE)
    late = paceline.receive_scheduled()
    assert [paceline.dispatch(record) for record in late] == [[]]
    run_all(paceline)
    assert len(completed(paceline)) == 1
    expire_records(paceline)
    paceline.clock.advance(DAY)
    assert [paceline.dispatch(record) for record in late] == [[]]
    run_all(paceline)
    assert len(completed(paceline)) == 1


@pytest.mark.parametrize(
    ("method", "end"), [("GET", ""), ("DELETE", ""), ("POST", "/redrive")], ids=["view", "cancel", "redrive"]
)
def test_expired_task_is_not_found(paceline: Paceline, user: str, method: str, end: str) -> None:
    task_id = paceline.submit(user).json_body["task_id"]
    run_all(paceline)
    expire_records(paceline)
    assert paceline.request(method, f"/api/v1/users/{user}/tasks/{task_id}{end}").status_code == 404


def test_message_whose_submit_is_about_to_store_the_record_runs_its_task(paceline: Paceline, user: str) -> None:
    paceline.submit(user)
    [passed] = paceline.queues.receive(1)
    expire_records(paceline)
    later = paceline.submit(user).json_body["task_id"]
    paceline.clock.advance(MINUTE)
    paceline.delete(passed)
    run_all(paceline)
    assert completed(paceline) == [later]
    assert paceline.work(passed) == []
    assert len(completed(paceline)) == 2


def test_repeat_with_its_key_gets_the_first_answer_and_runs_nothing(paceline: Paceline, user: str) -> None:
    first = paceline.submit(user, Idempotency_Key='"order-1"')
    run_all(paceline)
    expire_records(paceline)
    paceline.clock.advance(6 * DAY)
    repeat = paceline.submit(user, Idempotency_Key='"order-1"')
    assert (repeat.status_code, repeat.json_body) == (first.status_code, first.json_body)
    run_all(paceline)
    assert len(completed(paceline)) == 1
