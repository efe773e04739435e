"""Several tasks of a user at once on a deployed stage, and many lanes that race for one shared limit."""

from __future__ import annotations

import os

import pytest

from chalicelib.core.limits import parse_limits
from completions.audit import audit
from tests.deployed.deployment import Deployment
from tests.deployed.pollers import polling
from tests.integration.racing import race
from tests.windows import assert_pace_kept

TASKS, AT_ONCE = 9, 3
LIMITS = f"5/second; {AT_ONCE} at once"
#: Processes that claim starts of one shared limit, each for a lane of its own, for so many seconds.
PROCESSES, SECONDS = 64, 10
IS_LOCALSTACK = bool(os.environ.get("AWS_ENDPOINT_URL"))


@pytest.mark.skipif("shop_tasks" not in os.environ.get("TASKS_DIR", ""), reason="TASKS_DIR names other tasks")
def test_three_tasks_of_a_user_run_at_once_and_never_a_fourth(deployment: Deployment) -> None:
    user = deployment.user("three")
    path = f"/api/v1/users/{user}"
    assert deployment.request("PUT", f"{path}/limits", {"limits": LIMITS}).status == 200
    tasks = [{"task": "nap", "payload": {"seconds": 3}}] * TASKS
    with polling(deployment.stage, AT_ONCE + 1):
        answer = deployment.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": tasks})
        assert answer.status in (202, 429), answer
        ends = deployment.wait_for_completions([user], TASKS, timeout_seconds=120)
    report = audit(ends, parse_limits(LIMITS))
    assert report.breaches == []
    assert report.events == {"completed": TASKS}
    assert report.at_once is not None
    assert report.at_once.most == AT_ONCE
    starts = [end.started_at for end in sorted(ends, key=lambda end: end.seq)]
    assert starts == sorted(starts, key=lambda at: at or 0)
    lane = deployment.request("GET", path).body
    assert (lane["at_once"], lane["slots_in_use"], lane["backlog"]) == (AT_ONCE, 0, 0)


@pytest.mark.skipif(
    not IS_LOCALSTACK, reason="it writes into the table of the stage: AWS_ENDPOINT_URL names LocalStack"
)
@pytest.mark.parametrize("limits", ["20/second; 60/5 seconds", "500/10 seconds"])
def test_many_processes_never_take_more_of_a_shared_limit_than_it_allows(
    deployment: Deployment, limits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    shared, table = deployment.user(f"raced-{limits.partition('/')[0]}"), f"paceline-{deployment.stage}"
    starts = race(os.environ["AWS_ENDPOINT_URL"], table, shared, limits, PROCESSES, SECONDS)
    assert len(starts) > 20
    assert_pace_kept(starts, parse_limits(limits))
