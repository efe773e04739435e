"""The promises of the pace, on a deployed stage with the default limits. Lateness is printed, not judged: LocalStack's
queue has faults that make starts late, and AWS promises no time.
"""

from __future__ import annotations

import pytest

from completions.audit_table import as_table
from tests.deployed.deployment import Deployment, audited

TASKS = 25


def test_three_users_over_the_limit_all_complete_at_the_pace(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    users = [deployment.user(name) for name in ("ann", "bob", "eve")]
    answers = deployment.submit_all(users * TASKS)
    assert {answer.status for answer in answers} == {202, 429}, [a.text for a in answers if a.status not in (202, 429)]
    for user in users:
        seqs = [answer.body["seq"] for answer in answers if answer.body["user_id"] == user]
        assert sorted(seqs) == list(range(1, TASKS + 1))

    ends = deployment.wait_for_completions(users, TASKS * len(users), timeout_seconds=300)

    report = audited(ends)
    with capsys.disabled():
        print(f"\n{as_table(report, deployment.log_group)}")
    assert report.clean, report.breaches
    assert report.events == {"completed": TASKS * len(users)}
    assert (report.missing_ends, report.unknown_starts) == (0, 0)


def test_a_task_can_be_followed_to_its_end(deployment: Deployment) -> None:
    user = deployment.user("follower")
    task_id = deployment.submit(user).body["task_id"]
    deployment.wait_for_completions([user], 1, timeout_seconds=60)
    task = deployment.request("GET", f"/api/v1/users/{user}/tasks/{task_id}")
    assert task.status == 200
    assert task.body["state"] == "succeeded"
