"""Measures the pace of the stage: how late its tasks start, and how far apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from operations.first_hour.findings import Finding, percentile
from operations.first_hour.sizes import Sizes
from operations.first_hour.stage import Api


def pace(api: Api, sizes: Sizes, run: str, now: Callable[[], float], sleep: Callable[[float], None]) -> list[Finding]:
    """Submits tasks of several users to the stage, and measures how late they start and how far apart."""
    count, tasks = sizes.paced
    users = [f"paced-{n}-{run}" for n in range(count)]
    for user in users:
        body = {"user_id": user, "tasks": [{"payload": {"n": n}} for n in range(tasks)]}
        answer = api.call("POST", "/api/v1/tasks", body, {"Prefer": "respond-async"})
        if answer.status != 202:
            raise RuntimeError(f"a bulk submit was answered {answer.status}: {answer.text[:200]}")
    deadline = now() + 60 + 10 * tasks
    ended = {user: _ended(api, user, tasks, now, deadline, sleep) for user in users}
    return _pace_findings(ended, count * tasks)


def _ended(
    api: Api, user: str, count: int, now: Callable[[], float], deadline: float, sleep: Callable[[float], None]
) -> list[dict[str, Any]]:
    """Returns the user's tasks that have ended, in their order, once all have or the time is over."""
    while True:
        listed = api.call("GET", f"/api/v1/users/{user}/tasks").body["tasks"]
        ended = sorted((one for one in listed if one["state"] == "succeeded"), key=lambda one: int(one["seq"]))
        if len(ended) == count or now() > deadline:
            return ended
        sleep(1)


def _pace_findings(ended: Mapping[str, list[dict[str, Any]]], count: int) -> list[Finding]:
    late = [one["started_at"] - one["planned_at"] for tasks in ended.values() for one in tasks]
    gaps = [after["started_at"] - before["started_at"] for tasks in ended.values() for before, after in pairwise(tasks)]
    if not late:
        raise TimeoutError("no task of the stage succeeded")
    return [
        Finding("stage: tasks that succeeded", len(late), str(count), len(late) == count),
        Finding(
            "stage: ms between two starts of a user at 1/second, least", min(gaps), "1000 or more", min(gaps) >= 1000
        ),
        Finding("stage: ms from planned start to start, median", percentile(late, 50)),
        Finding(
            "stage: ms from planned start to start, p99",
            percentile(late, 99),
            "below 5000, the alarm late-starts",
            percentile(late, 99) < 5000,
        ),
    ]
