"""A running system recovers from each fault: nothing is lost, early or out of order."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path

import boto3
import pytest

from infra.stack import stack_outputs
from local.run_settings import LocalSettings
from tests.e2e.running import Paceline, most_in_any_window, running
from tests.e2e.test_pace import SHORT_LIMITS, assert_exact_and_in_order

CREDENTIALS = {"aws_access_key_id": "paceline", "aws_secret_access_key": "paceline"}


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
    seqs = []
    for _ in range(3):
        answer = paceline.submit_until_answered("emulator")
        pid = paceline.kill("emulator")  # right after the answer
        seqs.append(answer.body["seq"])
        paceline.wait_for(lambda pid=pid: paceline.is_replaced("emulator", pid), 5, "the emulator is back")
    paceline.wait_for(lambda: {end["seq"] for end in paceline.completions("emulator")} >= {*seqs}, 60, "all complete")
    assert seqs == sorted(set(seqs))
    assert "address already in use" not in paceline.process("emulator").log.read_text()


def test_a_table_and_a_queue_that_vanish_are_created_again(tmp_path: Path) -> None:
    with running(tmp_path) as paceline:
        endpoint_url = LocalSettings.from_env(paceline.env).endpoint_file.read_text()
        outputs = stack_outputs(endpoint_url, "dev")
        client = partial(boto3.client, endpoint_url=endpoint_url, region_name="us-east-1", **CREDENTIALS)
        client("sqs").delete_queue(QueueUrl=outputs["QueueUrl"])
        client("dynamodb").delete_table(TableName=outputs["TableName"])
        paceline.wait_for(lambda: paceline.output.count("it was missing") == 2, 20, "it says so")
        assert paceline.submit_until_answered("ann").status == 202
        paceline.wait_for_completions(1, "ann")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_loses_nothing_and_the_run_goes_on_by_itself(small_disk: Path) -> None:
    with running(small_disk, LIMITS="20/second") as paceline:
        users = [f"user-{n}" for n in range(4)]
        answers = {user: [paceline.submit_until_answered(user).body["task_id"]] for user in users}
        for user in users:  # so that some tasks run and wait meanwhile
            answers[user] += [paceline.submit(user, {"seconds": 0.5}, task="sleep").body["task_id"] for _ in range(3)]
        filler = small_disk / "filler"
        refused = 0
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            fill(filler)
            answer = paceline.submit(users[refused % 4])
            if answer.status == 503:
                refused += 1
            else:
                answers[users[refused % 4]].append(answer.body["task_id"])
        assert refused
        assert not paceline.is_down
        paceline.kill("emulator")
        paceline.wait_for(lambda: paceline.submit(users[0]).status == 503, 20, "a new emulator refuses too")
        filler.unlink()
        for user in users:
            answers[user].append(paceline.submit_until_answered(user).body["task_id"])
        for user in users:
            known = answers[user]
            paceline.wait_for(
                lambda user=user, known=known: {end["task_id"] for end in paceline.completions(user)} >= {*known},
                150,
                f"all tasks of {user} complete",
            )
            first_ends = {end["task_id"]: end for end in reversed(paceline.completions(user))}
            ends = sorted(first_ends.values(), key=lambda end: end["started_at"])
            assert [end["task_id"] for end in ends if end["task_id"] in known] == known
            starts = [start for end in ends for start in (*end.get("starts", ()), end["started_at"])]
            assert most_in_any_window(sorted({*starts}), 1000) <= 20
        assert "Paceline stopped" not in paceline.output


def fill(path: Path) -> None:
    """Makes the file as long as its file system allows."""
    with suppress(OSError), path.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(b"x" * size):
                    pass
