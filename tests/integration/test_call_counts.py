"""The number and the order of the calls of AWS that a submit makes: each costs time and money."""

import time
from collections import Counter
from typing import Any

import pytest

from chalicelib.core.scheduled import ScheduleBell
from chalicelib.tasks import Context
from tests.in_process import Paceline


def bulk(user: str, count: int, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "tasks": [{"payload": number, **more} for number in range(count)]}


def test_bulk_of_100_takes_15_calls(paceline: Paceline, user: str, calls: Counter[str]) -> None:
    assert paceline.request("POST", "/api/v1/tasks", bulk(user, 100)).status_code == 429
    assert calls == {"UpdateItem": 1, "BatchWriteItem": 4, "SendMessageBatch": 10}
    calls.clear()
    assert paceline.request("POST", "/api/v1/tasks", bulk(user, 100)).status_code == 429
    assert calls == {"UpdateItem": 2, "BatchWriteItem": 4, "SendMessageBatch": 10}


@pytest.mark.parametrize("came_before", [False, True])
@pytest.mark.parametrize("count", [1, 11, 81, 100])
def test_bulk_takes_no_more_calls_than_it_may(
    paceline: Paceline, user: str, calls: Counter[str], count: int, came_before: bool
) -> None:
    if came_before:
        paceline.submit(user)
        paceline.clock.advance(3_600_000)
        calls.clear()
    paceline.request("POST", "/api/v1/tasks", bulk(user, count))
    assert "SendMessage" not in calls
    assert sum(calls.values()) <= 16


def test_calls_of_a_submit_do_not_grow_with_the_backlog(paceline: Paceline, user: str, calls: Counter[str]) -> None:
    paceline.submit(user)
    counts = []
    for _ in range(2):
        calls.clear()
        paceline.submit(user)
        counts.append(dict(calls))
        paceline.request("POST", "/api/v1/tasks", bulk(user, 40))
    assert counts == [{"UpdateItem": 2, "SendMessage": 1, "PutItem": 1}] * 2


def test_a_tick_takes_seven_calls(paceline: Paceline, user: str, calls: Counter[str]) -> None:
    """A read, its taking, the submit's three, its confirmation, and the hiding of the message."""
    paceline.request("PUT", f"/api/v1/users/{user}/schedules/report", {"every_seconds": 60})
    schedule = paceline.parts.schedules.get(user, "report")
    assert schedule
    tick = Counter(GetItem=1, PutItem=3, UpdateItem=1, SendMessage=1, ChangeMessageVisibility=1)
    # The first tick in ten minutes looks for lost messages: it begins, lists users, reads one's schedules, and ends.
    for search in (Counter(UpdateItem=2, Query=2), Counter[str]()):
        paceline.clock.advance(60_000)
        # The emulator's clock is the real one, by which the message's time has not come.
        paceline.parts.scheduled_queue.send([(ScheduleBell(user, "report", schedule.bell), 0)])
        [record] = paceline.receive_scheduled()
        calls.clear()
        assert paceline.dispatch(record) == [record["messageId"]]
        assert calls == tick + search


def test_a_tick_of_a_user_who_was_forgotten_before_reads_its_schedule_once_more(
    paceline: Paceline, user: str, calls: Counter[str]
) -> None:
    assert paceline.request("DELETE", f"/api/v1/users/{user}").status_code == 200
    paceline.request("PUT", f"/api/v1/users/{user}/schedules/report", {"every_seconds": 60})
    schedule = paceline.parts.schedules.get(user, "report")
    assert schedule
    paceline.clock.advance(60_000)
    paceline.parts.scheduled_queue.send([(ScheduleBell(user, "report", schedule.bell), 0)])
    [record] = paceline.receive_scheduled()
    calls.clear()
    assert paceline.dispatch(record) == [record["messageId"]]
    assert (calls["GetItem"], calls["SendMessage"]) == (2, 1)


def test_a_deployment_without_failures_and_schedules_makes_no_call_for_them(
    paceline: Paceline, user: str, calls: Counter[str]
) -> None:
    """A submit and a run take the five calls that they need."""
    paceline.submit(user)
    [record] = paceline.receive(user)
    calls.pop("ReceiveMessage", None)
    assert paceline.work(record) == []
    assert calls == {"UpdateItem": 3, "SendMessage": 1, "PutItem": 1}


def test_a_deployment_without_schedules_makes_no_call_for_them(
    paceline: Paceline, user: str, calls: Counter[str]
) -> None:
    paceline.request("POST", "/api/v1/task", {"user_id": user, "delay_seconds": 0.5})
    [record] = paceline.receive_scheduled()
    paceline.clock.advance(1_000)
    calls.clear()
    assert paceline.dispatch(record) == []
    assert calls == {"GetItem": 1, "Query": 1, "UpdateItem": 2, "SendMessage": 1, "DeleteItem": 1}


@pytest.mark.parametrize("reports", [0, 1, 5])
def test_progress_within_a_second_takes_one_further_write_and_the_last_report_none(
    paceline: Paceline, user: str, calls: Counter[str], reports: int
) -> None:
    def report(*, context: Context) -> None:
        for page in range(reports):
            context.progress(page / 10, f"page {page}")
            deadline = time.monotonic() + 30
            while page == 0 and not paceline.parts.tasks.get(user, context.task_id).progress:  # type: ignore[union-attr]
                assert time.monotonic() < deadline, "the first report is not stored"

    paceline.parts.registry.task("report")(report)
    body = {"user_id": user, "task": "report"}
    task_id = paceline.request("POST", "/api/v1/task", body).json_body["task_id"]
    [record] = paceline.receive(user)
    calls.clear()
    paceline.work(record)
    assert calls["UpdateItem"] == 2 + (reports > 0), "claim, first report, outcome"
    stored = paceline.parts.tasks.get(user, task_id)
    assert stored
    assert (stored.progress.text if stored.progress else None) == (f"page {reports - 1}" if reports else None)
