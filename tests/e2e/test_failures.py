"""A running system recovers from each fault: nothing is lost, early or out of order."""

from __future__ import annotations

import os
import signal
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.e2e.running import Paceline
from tests.e2e.test_pace import SHORT_LIMITS, assert_exact_and_in_order


def assert_back_within_5_seconds(paceline: Paceline, name: str, pid: int) -> None:
    paceline.wait_for(lambda: paceline.is_replaced(name, pid), 5, f"{name} is back")


@pytest.mark.parametrize("name", ["api-1", "worker-1"])
def test_a_killed_process_is_replaced_and_its_tasks_run(paceline: Paceline, name: str) -> None:
    user = f"kill-{name}"
    for _ in range(12):
        assert paceline.submit(user).status in (202, 429)
    paceline.wait_for_completions(2, user)
    assert_back_within_5_seconds(paceline, name, paceline.kill(name))
    assert paceline.submit(user).status in (202, 429)
    assert_exact_and_in_order(paceline, user, 13, SHORT_LIMITS)
    assert f"{name} ended (signal 9): restarted" in paceline.output


def test_a_task_whose_worker_died_in_it_runs_again_on_another_attempt(paceline: Paceline) -> None:
    location = paceline.submit("died-in", {"seconds": 2}, task="sleep").headers["Location"]
    paceline.wait_for(lambda: paceline.request("GET", location).body["state"] == "running", 5, "the task runs")
    for name in ("worker-1", "worker-2"):
        paceline.kill(name)
    (entry,) = paceline.wait_for_completions(1, "died-in")
    assert (entry["event"], entry["attempt"]) == ("task_completed", 2)


def test_a_process_that_stops_answering_is_restarted(paceline: Paceline) -> None:
    pid = paceline.process("api-2").pid
    os.kill(pid, signal.SIGSTOP)
    paceline.wait_for(lambda: paceline.is_replaced("api-2", pid), 30, "api-2 is back")
    paceline.wait_for(lambda: "api-2 does not answer: restarting it" in paceline.output, 5, "it says so")


def test_kill_ends_a_process_and_another_answers(paceline: Paceline) -> None:
    with pytest.raises((HTTPException, OSError)):
        paceline.request("GET", "/kill")
    paceline.wait_for(lambda: paceline.request("GET", "/health-check").text == "OK", 5, "it answers again")


def test_a_killed_emulator_comes_back_with_its_state(paceline: Paceline) -> None:
    task_id = paceline.submit("emulator").body["task_id"]
    paceline.wait_for_completions(1, "emulator")
    saved = Path(paceline.env["STATE_DIR"]) / "ministack" / "dynamodb.json"
    paceline.wait_for(lambda: saved.exists() and task_id in saved.read_text(), 10, "the emulator has saved the task")
    pid = paceline.kill("emulator")
    paceline.wait_for(lambda: paceline.is_replaced("emulator", pid), 5, "the emulator is back")
    paceline.wait_for(lambda: paceline.submit("emulator").status in (202, 429), 20, "submits are taken again")
    paceline.wait_for(lambda: paceline.completions("emulator")[-1]["seq"] >= 2, 20, "the new task runs")
