"""The client against the system as it runs."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import httpx
import pytest

import paceline_client
from paceline_client import ConflictError, InvalidError, NotFoundError, Refused, TaskOrder
from tests.e2e.running import ROOT, Paceline


class Lossy(httpx.HTTPTransport):
    """Loses every other answer once Paceline has given it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()
        self.sent = 0
        self.lost = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        with self._lock:
            self.sent += 1
            loses = self.sent % 2 == 1
            self.lost += loses
        if loses:
            response.read()
            response.close()
            raise httpx.ReadError("lost on the way")
        return response


@pytest.fixture
def client(paceline: Paceline) -> Iterator[paceline_client.Paceline]:
    with connected(paceline) as client:
        yield client


def connected(paceline: Paceline, **options: Any) -> paceline_client.Paceline:
    return paceline_client.Paceline(f"http://127.0.0.1:{paceline.port}", **options)


def test_a_task_is_submitted_and_waited_for(client: paceline_client.Paceline) -> None:
    assert client.wait(client.submit("client-waits"), timeout=10).seq == 1
    submitted_tasks = client.submit_many("client-waits", [TaskOrder({"n": n}) for n in range(5)])
    assert [submitted.seq for submitted in submitted_tasks] == [2, 3, 4, 5, 6]
    assert submitted_tasks[-1].queued
    outcome = client.wait(submitted_tasks[-1], timeout=10)
    assert (outcome.state, outcome.attempts) == ("succeeded", 1)
    assert outcome.started_at is not None
    assert outcome.started_at >= submitted_tasks[-1].planned_at
    assert outcome.completed_at is not None
    assert time.time() - outcome.completed_at / 1000 < 2, "the wait ends soon after the task does"


def test_asynchronous_calls_of_many_users_are_submitted_and_waited_for(paceline: Paceline) -> None:
    async def submit_and_wait() -> list[paceline_client.Task]:
        async with paceline_client.AsyncPaceline(f"http://127.0.0.1:{paceline.port}") as client:
            users = [f"client-async-{n}" for n in range(8)]
            submitted = await asyncio.gather(*(client.submit(user) for user in users))
            many = await client.submit_many(users[0], [TaskOrder({"n": n}) for n in range(3)])
            assert [task.seq for task in many] == [2, 3, 4]
            assert [task.seq async for task in client.tasks(users[0], page_size=3)] == [4, 3, 2, 1]
            return await asyncio.gather(*(client.wait(task, timeout=30) for task in [*submitted, *many]))

    outcomes = asyncio.run(submit_and_wait())
    assert {(task.state, task.attempts) for task in outcomes} == {("succeeded", 1)}
    assert len(outcomes) == 11


def test_lost_answers_make_no_task_twice(paceline: Paceline) -> None:
    lossy = Lossy()
    with connected(paceline, transport=lossy) as client, ThreadPoolExecutor(4) as pool:
        submitted_tasks = list(pool.map(lambda n: client.submit("client-lossy", {"n": n}), range(6)))
        many = client.submit_many("client-lossy", [TaskOrder({"n": n}) for n in range(104)])
        ids = [task.task_id for task in client.tasks("client-lossy")]
    assert lossy.lost >= 6
    assert sorted(submitted.seq for submitted in submitted_tasks) == [1, 2, 3, 4, 5, 6]
    assert [submitted.seq for submitted in many] == list(range(7, 111))
    assert sorted(ids) == sorted(submitted.task_id for submitted in [*submitted_tasks, *many])


def test_the_same_key_gives_the_same_tasks(client: paceline_client.Paceline) -> None:
    user = "client/of-a-key"
    assert client.submit(user, idempotency_key="mine").task_id == client.submit(user, idempotency_key="mine").task_id
    orders = [TaskOrder({"n": n}) for n in range(3)]
    first = client.submit_many(user, orders, idempotency_key="mine")
    assert client.submit_many(user, orders, idempotency_key="mine") == first
    assert client.lane(user).admitted == 4
    with pytest.raises(InvalidError) as caught:
        client.submit(user, "something else", idempotency_key="mine")
    assert caught.value.field == "Idempotency-Key"


def test_a_strict_submit_over_the_limit_is_refused(client: paceline_client.Paceline) -> None:
    client.set_limits("client-strict", "3/minute")
    for _ in range(3):
        client.submit("client-strict", strict=True)
    with pytest.raises(Refused) as caught:
        client.submit("client-strict", strict=True)
    assert caught.value.retry_after is not None
    assert 50 <= caught.value.retry_after <= 60
    assert client.lane("client-strict").admitted == 3


def test_a_lane_is_held_changed_and_let_go(client: paceline_client.Paceline) -> None:
    user = "client-control"
    assert client.set_limits(user, "10/second").own_limits
    assert client.pause(user).paused
    submitted_tasks = client.submit_many(user, [TaskOrder() for _ in range(4)])
    assert client.task(user, submitted_tasks[0].task_id).estimated_at is None
    assert client.cancel(user, submitted_tasks[1].task_id).state == "cancelled"
    assert client.cancel(user, submitted_tasks[1].task_id).state == "cancelled"
    assert not client.resume(user).paused
    assert client.wait(submitted_tasks[3], timeout=5).state == "succeeded"
    assert [task.seq for task in client.tasks(user, state="succeeded", page_size=2)] == [4, 3, 1]
    assert not client.clear_limits(user).own_limits
    with pytest.raises(ConflictError):
        client.cancel(user, submitted_tasks[0].task_id)
    with pytest.raises(NotFoundError):
        client.task("client-other", submitted_tasks[0].task_id)


def test_what_is_wrong_is_named_by_its_field(client: paceline_client.Paceline) -> None:
    with pytest.raises(InvalidError) as caught:
        client.submit_many("client-wrong", [TaskOrder(), TaskOrder(task="dance")])
    assert (caught.value.status, caught.value.field) == (422, "/tasks/1/task")
    with pytest.raises(InvalidError, match="user_id"):
        client.submit("")
    assert client.health().is_ok


def test_the_readme_works(paceline: Paceline, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "client" / "README.md").read_text(), re.DOTALL)
    exec(code.replace(":8000", f":{paceline.port}"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" 0 False")
    assert lines[1:5] == ["succeeded", "5 5", "True cancelled", "cancelled"]
