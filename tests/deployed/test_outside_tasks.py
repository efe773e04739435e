"""Own tasks outside the project, and the package that they import, on a deployed stage."""

import os

import pytest

from tests.deployed.deployment import Deployment, wait_for

pytestmark = pytest.mark.skipif(
    "shop_tasks" not in os.environ.get("TASKS_DIR", ""), reason="TASKS_DIR says that the stage has other tasks"
)


def test_a_task_outside_runs_with_its_dependency_and_its_types(deployment: Deployment) -> None:
    user = deployment.user("outside")
    refused = deployment.request("POST", "/api/v1/task", {"user_id": user, "task": "size", "payload": {"count": "x"}})
    assert (refused.status, refused.body["field"]) == (422, "/payload/count")
    submitted = deployment.request(
        "POST", "/api/v1/task", {"user_id": user, "task": "size", "payload": {"count": 2**20}}
    )
    assert submitted.status == 202
    path = f"/api/v1/users/{user}/tasks/{submitted.body['task_id']}"

    def ended() -> object:
        body = deployment.request("GET", path).body
        return body if body["state"] in ("succeeded", "failed") else None

    task = wait_for(ended, 60, "the task ends")
    assert (task["state"], task["result"]) == ("succeeded", "1.0 MiB")
