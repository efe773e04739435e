"""Starting, stopping, and what the runner says when it can't."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from local import pid_files
from tests.e2e.running import Paceline, assert_in_order, most_in_any_window, running
from tests.e2e.test_pace import SHORT_LIMITS

LIMITS = "3/second; 10/4 seconds"


def test_a_backlog_survives_a_stop_and_a_start_without_an_early_start(tmp_path: Path) -> None:
    users = ["left-a", "left-b"]
    with running(tmp_path, LIMITS=LIMITS) as paceline:
        paceline.submit_all([user for user in users for _ in range(16)])
        location = paceline.submit("busy", {"seconds": 3}, task="sleep").headers["Location"]
        paceline.wait_for(lambda: paceline.request("GET", location).body["state"] == "running", 5, "the task runs")
        assert paceline.stop(signal.SIGTERM) == 0
        assert paceline.output.rstrip().endswith("Paceline stopped")
        assert "Traceback" not in paceline.output
        assert [entry["attempt"] for entry in paceline.completions("busy")] == [1]
        assert len(paceline.completions(*users)) < 32

    with running(tmp_path, LIMITS=LIMITS, PORT=str(paceline.port)) as again:
        again.wait_for_completions(32, *users)
        for user in users:
            entries = again.completions(user)
            assert len(entries) == 16
            assert_in_order(entries, paceline.answered)
            assert {entry["attempt"] for entry in entries} == {1}
            for quota, window_ms in SHORT_LIMITS:
                assert most_in_any_window([entry["started_at"] for entry in entries], window_ms) <= quota


def test_a_stop_waits_for_running_tasks_and_says_so_and_a_second_one_ends_them(tmp_path: Path) -> None:
    """STOP_WAIT, much shorter than the tasks, is for those who can't ask a second time."""
    with running(tmp_path, LIMITS=LIMITS, DEADLINE="1h", STOP_WAIT="1") as paceline:
        short = start_report(paceline, "short", 20)
        long = start_report(paceline, "long", 3600)
        paceline.signal(signal.SIGINT)
        paceline.wait_for(lambda: "Waiting for 2 running tasks: report of short (runs for" in paceline.output, 20, "it")
        assert paceline.request("GET", long).body["state"] == "running", "the API answers meanwhile"
        paceline.wait_for(lambda: paceline.request("GET", short).body["state"] == "succeeded", 60, "the short one ends")
        paceline.signal(signal.SIGINT)
        assert paceline.stop() == 0
        assert "Ctrl-C again ends running tasks at once. Waiting for" in paceline.output
        assert "Ended 1 running task, it takes another attempt if there is one left: report of long" in paceline.output
        assert "Traceback" not in paceline.output

    with running(tmp_path, LIMITS=LIMITS, DEADLINE="1h", PORT=str(paceline.port)) as again:
        again.wait_for(lambda: again.request("GET", long).body["attempts"] == 2, 60, "it takes another attempt")
        assert again.request("DELETE", long).status == 202
        [ended] = again.wait_for_completions(1, "long")
        assert (ended["event"], ended["attempt"]) == ("task_cancelled", 2)
        assert [entry["attempt"] for entry in again.completions("short")] == [1]


def test_a_killed_runner_takes_its_running_tasks_along_after_a_time(tmp_path: Path) -> None:
    with running(tmp_path, LIMITS=LIMITS, DEADLINE="1h", STOP_WAIT="2") as paceline:
        path = start_report(paceline, "orphan", 3600)
        pids = [paceline.process(name).pid for name in ("emulator", "api-1", "api-2", "worker-1", "worker-2")]
        assert paceline.stop(signal.SIGKILL) == -signal.SIGKILL
        deadline = time.monotonic() + 40
        while alive := [pid for pid in pids if _is_alive(pid)]:
            assert time.monotonic() < deadline, alive
            time.sleep(0.1)
    with running(tmp_path, LIMITS=LIMITS, DEADLINE="1h", PORT=str(paceline.port)) as again:
        again.wait_for(lambda: again.request("GET", path).body["attempts"] == 2, 60, "it takes another attempt")
        again.request("DELETE", path)
        again.wait_for_completions(1, "orphan")


def test_a_killed_runner_leaves_nothing_and_the_next_start_has_everything(tmp_path: Path) -> None:
    with running(tmp_path, LIMITS="1/3 seconds") as paceline:
        paceline.submit_all(["orphan"] * 3)
        pids = [paceline.process(name).pid for name in ("emulator", "api-1", "api-2", "worker-1", "worker-2")]
        assert paceline.stop(signal.SIGKILL) == -signal.SIGKILL
    with running(tmp_path, LIMITS="1/3 seconds", PORT=str(paceline.port)) as again:
        assert not [pid for pid in pids if _is_alive(pid)]
        again.wait_for_completions(3, "orphan")


def test_the_processes_of_a_killed_supervisor_do_not_keep_the_port_from_the_next_start(tmp_path: Path) -> None:
    paceline = Paceline(tmp_path)
    try:
        paceline.start()
        os.kill(supervisor_pid(paceline), signal.SIGKILL)
        paceline.wait_until_ended("The process supervisor ended, and all processes with it")
    finally:
        paceline.stop()
    with running(tmp_path, PORT=str(paceline.port)) as again:
        assert again.submit("next").status == 202


def test_a_frozen_supervisor_keeps_neither_the_stop_nor_the_next_start(tmp_path: Path) -> None:
    with running(tmp_path) as paceline:
        os.kill(supervisor_pid(paceline), signal.SIGSTOP)
        assert paceline.stop() == 0
        assert paceline.output.rstrip().endswith("Paceline stopped")
    with running(tmp_path, PORT=str(paceline.port)) as paceline:
        frozen = supervisor_pid(paceline)
        os.kill(frozen, signal.SIGSTOP)
        assert paceline.stop(signal.SIGKILL) == -signal.SIGKILL
    with running(tmp_path, PORT=str(paceline.port)) as again:
        assert again.output.startswith("Waiting for the processes of an earlier run to end")
        assert not _is_alive(frozen)


def test_a_deleted_state_ends_the_run_with_a_message(tmp_path: Path) -> None:
    paceline = Paceline(tmp_path)
    try:
        paceline.start()
        shutil.rmtree(paceline.env["STATE_DIR"])
        with suppress(OSError, HTTPException):  # it may have ended already
            assert paceline.submit("late").status == 503
        paceline.wait_until_ended("was deleted while Paceline ran")
    finally:
        assert paceline.stop() == 1


def test_a_second_run_on_the_same_state_is_refused(paceline: Paceline, tmp_path: Path) -> None:
    second = Paceline(tmp_path, STATE_DIR=paceline.env["STATE_DIR"])
    assert second.run() == 1
    assert second.output.startswith("Paceline is already running with its state in ")
    assert len(second.output.splitlines()) == 1


def test_a_taken_port_is_named_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        paceline = Paceline(tmp_path, PORT=str(port))
        assert paceline.run() == 1
    assert paceline.output == f"Port {port} on 127.0.0.1 is taken: choose another one, as in PORT=8001 make run\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIMITS", "often"),
        ("LIMITS", "1000001/second"),
        ("PORT", "http"),
        ("HEALTH_INTERVAL", "0"),
        ("OVER_LIMIT", "no"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(tmp_path: Path, name: str, value: str) -> None:
    paceline = Paceline(tmp_path)
    paceline.env[name] = value
    assert paceline.run() == 2
    assert paceline.output.startswith(name)
    assert len(paceline.output.splitlines()) == 1


def test_an_endpoint_that_does_not_answer_is_named_in_one_line(tmp_path: Path) -> None:
    paceline = Paceline(tmp_path, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert paceline.run() == 1
    assert paceline.output.startswith("AWS_ENDPOINT_URL http://127.0.0.1:9 does not answer")
    assert len(paceline.output.splitlines()) == 1


def start_report(paceline: Paceline, user: str, seconds: int) -> str:
    """Submits a task that takes this time, and waits until it runs; returns its path."""
    path = paceline.submit(user, {"seconds": seconds}, task="report").headers["Location"]
    paceline.wait_for(lambda: paceline.request("GET", path).body["progress"], 20, "it reports")
    return path


def supervisor_pid(paceline: Paceline) -> int:
    return next(pid for pid, name in paceline.pids().items() if name == pid_files.SUPERVISOR)


def _is_alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and only waits to be collected does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")
