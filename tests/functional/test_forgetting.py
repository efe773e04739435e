"""Forgetting a user: its scheduled tasks, and messages that come after it."""

from typing import Any

import pytest

from chalicelib.container import container
from tests.functional.conftest import Deploy, Paceline


@pytest.fixture
def paceline(deploy: Deploy) -> Paceline:
    return deploy(LIMITS="1/second; 20/minute", MAX_DELAY="12d")


def schedule(paceline: Paceline, user: str, seconds: int) -> str:
    body = {"user_id": user, "delay_seconds": seconds}
    return str(paceline.request("POST", "/api/v1/task", body).json_body["task_id"])


def cancel(paceline: Paceline, user: str, task_id: str) -> None:
    assert paceline.request("DELETE", f"/api/v1/users/{user}/tasks/{task_id}").status_code == 200


def forget(paceline: Paceline, user: str) -> int:
    return int(paceline.request("DELETE", f"/api/v1/users/{user}").status_code)


def run_all(paceline: Paceline) -> None:
    """Handles each message that is visible, of both queues."""
    for record in paceline.receive_scheduled():
        if not paceline.dispatch(record):
            paceline.delete(record)
    for record in paceline.queues.receive(10):
        if not paceline.work(record):
            paceline.delete(record)


def events(paceline: Paceline, user: str) -> list[tuple[str, str]]:
    return [(line["event"], line["task_id"]) for line in paceline.events if line["user_id"] == user]


def lane_of(paceline: Paceline, user: str) -> Any:
    return paceline.get(f"/api/v1/users/{user}").json_body


def tasks_of(paceline: Paceline, user: str) -> Any:
    return paceline.get(f"/api/v1/users/{user}/tasks").json_body["tasks"]


def test_cancelled_scheduled_task_does_not_run_after_its_user_was_forgotten(paceline: Paceline, user: str) -> None:
    task_id = schedule(paceline, user, 3_600)
    cancel(paceline, user, task_id)
    run_all(paceline)  # its cancellation is logged; its own message stays hidden until its time
    assert events(paceline, user) == [("task_cancelled", task_id)]
    assert forget(paceline, user) == 200
    for _ in range(6):
        paceline.clock.advance(900_000)
        run_all(paceline)
    assert events(paceline, user) == [("task_cancelled", task_id)]


def test_cancelled_scheduled_task_does_not_run_after_its_user_was_forgotten_again(
    paceline: Paceline, user: str
) -> None:
    paceline.submit(user)
    run_all(paceline)
    assert forget(paceline, user) == 200
    paceline.clock.advance(60_000)
    task_id = schedule(paceline, user, 600)
    cancel(paceline, user, task_id)
    run_all(paceline)
    assert forget(paceline, user) == 200
    paceline.clock.advance(600_000)
    run_all(paceline)
    run_all(paceline)
    assert events(paceline, user)[1:] == [("task_cancelled", task_id)]


def test_late_cancellation_of_a_scheduled_task_brings_no_record_back(paceline: Paceline, user: str) -> None:
    task_id = schedule(paceline, user, 3_600)
    cancel(paceline, user, task_id)
    assert forget(paceline, user) == 200
    run_all(paceline)
    assert tasks_of(paceline, user) == []
    assert events(paceline, user) == [("task_cancelled", task_id)]


def test_message_that_comes_late_leaves_no_waiting_task_behind(paceline: Paceline, user: str) -> None:
    schedule(paceline, user, 30)
    paceline.clock.advance(30_000)
    [scheduled] = paceline.receive_scheduled()
    assert paceline.dispatch(scheduled) == []
    run_all(paceline)
    paceline.submit(user)
    paceline.clock.advance(1_000)
    run_all(paceline)
    assert forget(paceline, user) == 200
    assert paceline.dispatch(scheduled) == []
    assert (lane_of(paceline, user)["backlog"], forget(paceline, user)) == (0, 200)


def test_scheduled_task_whose_record_is_stored_while_its_user_is_forgotten_runs(paceline: Paceline, user: str) -> None:
    paceline.submit(user)
    run_all(paceline)
    tasks = container().tasks
    task_id = schedule(paceline, user, 60)
    record = tasks._records.pop((user, task_id))  # type: ignore[attr-defined]
    due = container().due_tasks.due(user, paceline.clock.now_ms() + 90_000, 10)
    container().due_tasks.remove(user, due)
    assert forget(paceline, user) == 200
    tasks.create_if_absent(record.task)
    container().due_tasks.add(user, due)
    for _ in range(70):
        paceline.clock.advance(1_000)
        run_all(paceline)
    assert events(paceline, user)[1:] == [("task_completed", task_id)]


def test_user_with_a_scheduled_task_older_than_all_that_is_searched_is_not_forgotten(
    paceline: Paceline, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.lanes.clearance.PAGES_SEARCHED", 0)
    schedule(paceline, user, 3_600)
    assert forget(paceline, user) == 409


def test_scheduled_task_that_an_emptying_cancelled_at_its_time_leaves_no_waiting_task_behind(
    paceline: Paceline, user: str
) -> None:
    task_id = schedule(paceline, user, 60)
    assert paceline.request("DELETE", f"/api/v1/users/{user}/tasks?state=queued").status_code == 200
    paceline.clock.advance(60_000)
    records = paceline.receive_scheduled()
    due = [record for record in records if "empty_schedule" not in record["body"]]
    assert paceline.dispatch(*due) == []
    lane = lane_of(paceline, user)
    assert (lane["backlog"], lane["next_starts"]) == (0, [])
    assert paceline.dispatch(*[record for record in records if record not in due]) == []
    assert events(paceline, user) == [("task_cancelled", task_id)]
    assert forget(paceline, user) == 200


def test_refused_forgetting_leaves_the_schedules(paceline: Paceline, user: str) -> None:
    path = f"/api/v1/users/{user}/schedules"
    put = paceline.request("PUT", f"{path}/report", {"every_seconds": 60})
    assert put.status_code in (200, 201), put.json_body
    task_id = paceline.submit(user).json_body["task_id"]
    cancel(paceline, user, task_id)  # it is not logged yet
    assert forget(paceline, user) == 409
    assert len(paceline.get(path).json_body["schedules"]) == 1
    run_all(paceline)
    assert forget(paceline, user) == 200
    assert paceline.get(path).json_body["schedules"] == []
