"""Calls of AWS that failures, redrives, emptying and forgetting take: docs/production/cost.md gives them in dollars.

Write units are whole KB of an item, and one for each write of an index.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.tasks.registry import registry
from tests.in_process import Deploy, Paceline


@pytest.fixture
def paceline(deploy: Deploy) -> Iterator[Paceline]:
    def fails(payload: Any) -> Any:
        raise RuntimeError("no")

    registry.task("fails", attempts=1)(fails)
    yield deploy(LIMITS="50/second", MAX_DELAY="12d")
    del registry._definitions["fails"]


def submit(paceline: Paceline, user: str, task: str, count: int = 1) -> None:
    tasks = [{"task": task}] * count
    assert paceline.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": tasks}).status_code in (202, 429)


def work(paceline: Paceline, user: str) -> None:
    for record in paceline.receive(user):
        assert paceline.work(record) == []
        paceline.delete(record)


def items(paceline: Paceline, index: str | None = None) -> list[Any]:
    parts: Any = paceline.parts
    named = {"IndexName": index} if index else {}
    return list(parts.dynamodb.scan(TableName=parts.settings.table_name, **named)["Items"])


def test_only_failed_tasks_are_in_the_index_of_failures(paceline: Paceline, user: str) -> None:
    """An item without the index's keys costs no write of it."""
    submit(paceline, user, "log", 3)
    work(paceline, user)
    of_user = lambda found: [one for one in found if one["user_id"]["S"] == user]  # noqa: E731
    assert of_user(items(paceline, "failed")) == []
    assert not any({"failed", "failed_at"} & item.keys() for item in of_user(items(paceline)))
    submit(paceline, user, "fails", 2)
    work(paceline, user)
    assert len(of_user(items(paceline, "failed"))) == 2


def test_task_that_fails_takes_the_calls_of_one_that_succeeds_and_a_dead_letter(
    paceline: Paceline, user: str, calls: Counter[str]
) -> None:
    taken = []
    for task in ("log", "fails"):
        submit(paceline, f"{user}-{task}", task)
        calls.clear()
        [record] = paceline.receive(f"{user}-{task}")
        calls.clear()
        paceline.work(record)
        taken.append(Counter(calls))
    assert taken[0] == {"UpdateItem": 2}
    assert taken[1] == {"UpdateItem": 2, "SendMessage": 1}


def test_calls_of_a_list_and_of_a_redrive(paceline: Paceline, user: str, calls: Counter[str]) -> None:
    submit(paceline, user, "fails")
    work(paceline, user)
    calls.clear()
    [failed] = paceline.get("/api/v1/tasks?state=failed").json_body["tasks"]
    assert calls == {"Query": 8, "BatchGetItem": 1}
    calls.clear()
    path = f"/api/v1/users/{user}/tasks/{failed['task_id']}/redrive"
    assert paceline.request("POST", path).status_code == 202
    # The request, the id in the failed task's record, the admission, the answer; and the submit's message and record.
    assert calls == {"GetItem": 2, "UpdateItem": 4, "SendMessage": 1, "PutItem": 1}
    calls.clear()
    assert paceline.request("POST", path).status_code == 202
    assert calls == {"GetItem": 3}


def test_calls_of_an_emptying_do_not_grow_with_the_backlog(paceline: Paceline, user: str, calls: Counter[str]) -> None:
    counts = []
    for count in (100, 600):
        for _ in range(count // 100):
            submit(paceline, f"{user}-{count}", "log", 100)
        calls.clear()
        assert paceline.request("DELETE", f"/api/v1/users/{user}-{count}/tasks?state=queued").status_code == 200
        counts.append(Counter(calls))
    # The list of scheduled tasks, the message for them, the lane, its write, and the lane again for the answer.
    assert counts == [{"Query": 1, "SendMessageBatch": 1, "GetItem": 2, "UpdateItem": 1}] * 2


def test_calls_for_each_cancellation_of_an_emptied_lane(paceline: Paceline, user: str, calls: Counter[str]) -> None:
    submit(paceline, user, "log", 12)
    paceline.request("DELETE", f"/api/v1/users/{user}/tasks?state=queued")
    records = paceline.receive(user)
    calls.clear()
    assert paceline.work(records[0]) == []
    calls.clear()  # the first one found the worker without the lane
    for record in records[1:]:
        assert paceline.work(record) == []
    others = len(records) - 1
    assert calls == {"GetItem": 2 * others, "UpdateItem": others}


def test_task_that_overtakes_cancelled_ones_makes_none_of_them_search_for_it(
    paceline: Paceline, user: str, calls: Counter[str]
) -> None:
    """A search reads some 300 records, for each of thousands of messages."""
    submit(paceline, user, "log", 12)
    paceline.request("DELETE", f"/api/v1/users/{user}/tasks?state=queued")
    submit(paceline, user, "log")
    records = paceline.receive(user)[:10]
    assert paceline.work(records[0]) == []
    assert [line["seq"] for line in paceline.events if line["event"] == "task_completed"] == [13]
    calls.clear()
    for record in records[1:]:
        assert paceline.work(record) == []
    assert calls == {"GetItem": 3 * 9, "UpdateItem": 9}


def test_calls_of_forgetting(paceline: Paceline, user: str, calls: Counter[str]) -> None:
    submit(paceline, user, "log", 10)
    work(paceline, user)
    calls.clear()
    answer = paceline.request("DELETE", f"/api/v1/users/{user}")
    assert (answer.status_code, answer.json_body["deleted"]) == (200, 10)
    assert calls == {"Query": 3, "GetItem": 2, "UpdateItem": 1, "BatchWriteItem": 1}


def test_forgetting_deletes_each_schedule_and_its_name(paceline: Paceline, user: str, calls: Counter[str]) -> None:
    for name in ("a", "b", "c"):
        put = paceline.request("PUT", f"/api/v1/users/{user}/schedules/{name}", {"every_seconds": 60})
        assert put.status_code == 201
    calls.clear()
    assert paceline.request("DELETE", f"/api/v1/users/{user}").status_code == 200
    # The user's records twice and its schedules; the lane, and its mark; three names, and the item that had them.
    assert calls == {"Query": 3, "GetItem": 1, "UpdateItem": 1 + 3, "DeleteItem": 3 + 1}
