"""Idempotency keys, limits, pause and resume, on real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.e2e.running import ROOT, Answer, Paceline

KEYS = 20
SUBMITS = 200
BACKLOG = 60


def submit_with_key(paceline: Paceline, user: str, number: int) -> Answer:
    headers = {"Idempotency-Key": f'"key-{number % KEYS}"'}
    body = {"user_id": user, "payload": {"number": number % KEYS}}
    while (answer := paceline.request("POST", "/api/v1/task", body, headers)).status == 409:
        pass  # the first one with this key is still being served, it says: try again
    return answer


def control(paceline: Paceline, method: str, user: str, what: str, body: Any = None) -> Any:
    answer = paceline.request(method, f"/api/v1/users/{user}/{what}", body)
    assert answer.status == 200, answer.text
    return answer.body


def audited(paceline: Paceline, user: str) -> Any:
    command = [sys.executable, "-m", "operations", "audit", "--json", "--user", user]
    outcome = subprocess.run(command, cwd=ROOT, env={**os.environ, **paceline.env}, capture_output=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return json.loads(outcome.stdout)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_200_concurrent_submits_with_20_keys_give_20_tasks(paceline: Paceline) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda number: submit_with_key(paceline, "keys", number), range(SUBMITS)))
    assert {answer.status for answer in answers} <= {202, 429}
    by_key = [{answer.body["task_id"] for answer in answers[number::KEYS]} for number in range(KEYS)]
    assert [len(ids) for ids in by_key] == [1] * KEYS
    assert len(set.union(*by_key)) == KEYS
    assert paceline.request("GET", "/api/v1/users/keys").body["admitted"] == KEYS
    entries = paceline.wait_for_completions(KEYS, "keys")
    assert sorted(entry["seq"] for entry in entries) == list(range(1, KEYS + 1))


def test_pause_other_limits_and_resume_with_60_waiting_keep_the_pace(paceline: Paceline) -> None:
    user = "changing"
    bulk = {"user_id": user, "tasks": [{"payload": number} for number in range(BACKLOG + 3)]}
    assert paceline.request("POST", "/api/v1/tasks", bulk).body["queued"]
    paceline.wait_for_completions(3, user)

    control(paceline, "POST", user, "pause")
    paused_at = now_ms()
    lane = control(paceline, "PUT", user, "limits", {"limits": "10/second; 20/4 seconds"})
    assert (lane["paused"], lane["backlog"] >= BACKLOG - 10, lane["next_start_at"]) == (True, True, None)
    paceline.wait_for(lambda: now_ms() > paused_at + 3_000, 5, "some time has gone by")
    resuming_at = now_ms()
    control(paceline, "POST", user, "resume")
    started = paceline.wait_for_completions(BACKLOG + 3 - lane["backlog"] + 1, user, timeout_seconds=5)
    first = next(entry for entry in started if entry["started_at"] > paused_at)
    assert resuming_at <= first["started_at"] < resuming_at + 1_000

    paceline.wait_for_completions(30, user)
    control(paceline, "PUT", user, "limits", {"limits": "4/second; 40/3 seconds"})
    entries = paceline.wait_for_completions(BACKLOG + 3, user)
    assert [entry["seq"] for entry in entries] == list(range(1, BACKLOG + 4))
    assert not [entry for entry in entries if paused_at < entry["started_at"] < resuming_at]
    report = audited(paceline, user)
    assert (report["clean"], report["starts"]) == (True, BACKLOG + 3)


def test_strict_submit_is_refused_while_a_long_task_runs_and_accepted_after_it(paceline: Paceline) -> None:
    user, refusals = "long", list[str]()

    def submits_strictly() -> bool:
        answer = paceline.request("POST", "/api/v1/task", {"user_id": user}, {"Prefer": "handling=strict"})
        refusals.extend([answer.body["detail"]] if answer.status == 429 else [])
        return answer.status == 202

    body = {"user_id": user, "task": "sleep", "payload": {"seconds": 5}}
    assert paceline.request("POST", "/api/v1/task", body).status == 202
    paceline.wait_for(lambda: paceline.request("GET", f"/api/v1/users/{user}").body["running"], 30, "it runs")
    reason = "A task of this user is running, and waiting was not wanted."
    paceline.wait_for(lambda: not submits_strictly() and reason in refusals, 30, "the lane says that a task runs")
    entries = paceline.wait_for_completions(1, user)
    assert entries[0]["task"] == "sleep"
    paceline.wait_for(submits_strictly, 30, "the lane is free again")
