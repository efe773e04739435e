"""Tasks that take seconds on a deployed stage: cancelled while they run, lost with their workers, beyond a deadline."""

from __future__ import annotations

import os
from typing import Any

import pytest

from completions.reader import Completion
from tests.deployed.deployment import Deployment, wait_for
from tests.deployed.pollers import polling

pytestmark = pytest.mark.skipif(
    "shop_tasks" not in os.environ.get("TASKS_DIR", ""), reason="TASKS_DIR names other tasks"
)
#: Milliseconds within which a dead worker's message comes back, by docs/production/troubleshooting.md.
NOTICED_MS = 15_000
#: Milliseconds that LocalStack may take from then on to deliver it, and to start a process.
DELIVERED_MS = 8_000
POLLERS = 4


def submit(deployment: Deployment, user: str, task: str, **payload: object) -> str:
    answer = deployment.request("POST", "/api/v1/task", {"user_id": user, "task": task, "payload": payload})
    assert answer.status in (202, 429), answer
    return f"/api/v1/users/{user}/tasks/{answer.body['task_id']}"


def only(deployment: Deployment, user: str, timeout_seconds: float) -> Completion:
    (end,) = deployment.wait_for_completions([user], 1, timeout_seconds)
    return end


def test_a_long_task_shows_its_progress_and_stops_when_it_is_cancelled(deployment: Deployment) -> None:
    user = deployment.user("reader")
    path = submit(deployment, user, "count-pages", pages=45)

    def reading() -> Any:
        body = deployment.request("GET", path).body
        return body if body["state"] == "running" and (body.get("progress") or {}).get("text") else None

    task = wait_for(reading, 40, "it reports its progress")
    assert task["progress"]["text"].startswith("page ")
    assert 0 <= task["progress"]["fraction"] < 1
    answer = deployment.request("DELETE", path)
    assert (answer.status, answer.body["state"]) == (202, "running")
    end = only(deployment, user, 30)
    assert (end.word, end.attempt) == ("cancelled", 1)
    assert end.started_at is not None
    view = wait_for(lambda: (body := deployment.request("GET", path).body)["state"] == "cancelled" and body, 10, "so")
    assert view["progress"]["fraction"] < 1
    assert deployment.request("DELETE", path).status in (200, 409)


def test_a_task_whose_worker_dies_runs_again_soon_and_other_users_do_not_wait(deployment: Deployment) -> None:
    lost, other, died_after_ms = deployment.user("lost"), deployment.user("beside"), 6_000
    with polling(deployment.stage, POLLERS):
        path = submit(deployment, lost, "lose-worker", seconds=died_after_ms / 1000)
        for _ in range(5):
            submit(deployment, other, "nap", seconds=0.05)
        others = deployment.wait_for_completions([other], 5, timeout_seconds=60)
        end = only(deployment, lost, 60)
    assert (end.word, end.attempt, len(end.starts)) == ("completed", 2, 2)
    first, second = end.starts
    assert first + died_after_ms < second <= first + died_after_ms + NOTICED_MS + DELIVERED_MS
    assert [(one.word, one.attempt) for one in others] == [("completed", 1)] * 5
    assert max(one.completed_at for one in others) < second
    assert deployment.request("GET", path).body["result"] == 2


def test_a_task_beyond_its_deadline_fails_and_its_lane_goes_on(deployment: Deployment) -> None:
    user, other = deployment.user("overrun"), deployment.user("beside-overrun")
    with polling(deployment.stage, POLLERS):
        path = submit(deployment, user, "overrun")
        submit(deployment, user, "nap", seconds=0.05)
        for _ in range(3):
            submit(deployment, other, "nap", seconds=0.05)
        others = deployment.wait_for_completions([other], 3, timeout_seconds=60)
        ends = deployment.wait_for_completions([user], 2, timeout_seconds=90)
    failed, after = sorted(ends, key=lambda end: end.seq)
    assert (failed.word, failed.attempt, after.word, after.attempt) == ("failed", 1, "completed", 1)
    assert failed.started_at is not None
    assert after.started_at is not None
    assert failed.completed_at - failed.started_at >= 8_000
    assert after.started_at <= failed.completed_at + NOTICED_MS + DELIVERED_MS
    assert [(one.word, one.attempt) for one in others] == [("completed", 1)] * 3
    assert max(one.completed_at for one in others) < failed.completed_at
    assert "did not end within 8 s" in deployment.request("GET", path).body["error"]
