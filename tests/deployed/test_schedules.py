"""A schedule on a deployed stage: its ticks come by the queue of scheduled tasks and the function `scheduled`."""

from __future__ import annotations

from tests.deployed.deployment import Deployment

TICKS = 3


def test_a_schedule_ticks_until_it_is_deleted(deployment: Deployment) -> None:
    user = deployment.user("ticking")
    path = f"/api/v1/users/{user}/schedules/poll"
    put = deployment.request("PUT", path, {"every_seconds": 5})
    assert put.status == 201, put.text
    try:
        ends = deployment.wait_for_completions([user], TICKS, timeout_seconds=120)
    finally:
        deleted = deployment.request("DELETE", path)
    assert (deleted.status, deleted.body["refused"]) == (200, 0)
    task = deployment.request("GET", f"/api/v1/users/{user}/tasks/{ends[0].task_id}")
    assert task.body["schedule"] == "poll"
    ticks = [int(end.task_id.replace("-", "")[:12], 16) for end in ends]
    assert len(set(ticks)) == len(ticks)
    assert {(at - put.body["next_at"]) % 5_000 for at in ticks} == {0}
