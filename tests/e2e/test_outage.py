"""DynamoDB fails for a while, and SQS goes on delivering: nothing is lost, nothing runs twice, every lane goes on."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.stack import stack_outputs
from local.emulator import HOST, free_port
from tests.chaos.proxy import FaultProxy
from tests.e2e.running import ROOT, Paceline

OUTAGE_SECONDS = 20
#: SQS dead-letters a message after so many receives, here as on AWS after 1,000: a message that came back each second
#: would use them up.
RECEIVES = 12
USERS = ("waiting", "retrying", "scheduled")


@dataclass
class Cut:
    """A running system whose calls of AWS go through a proxy."""

    paceline: Paceline
    proxy: FaultProxy
    emulator_url: str

    def bound_receives(self) -> None:
        sqs, outputs = boto3.client("sqs", endpoint_url=self.emulator_url), stack_outputs(self.emulator_url, "dev")
        for name in ("QueueUrl", "ScheduledQueueUrl"):
            answer = sqs.get_queue_attributes(QueueUrl=outputs[name], AttributeNames=["RedrivePolicy"])
            policy = json.loads(answer["Attributes"]["RedrivePolicy"]) | {"maxReceiveCount": RECEIVES}
            sqs.set_queue_attributes(QueueUrl=outputs[name], Attributes={"RedrivePolicy": json.dumps(policy)})

    def dead_letters(self) -> int:
        sqs, outputs = boto3.client("sqs", endpoint_url=self.emulator_url), stack_outputs(self.emulator_url, "dev")
        attributes = [
            sqs.get_queue_attributes(QueueUrl=outputs[name], AttributeNames=["ApproximateNumberOfMessages"])
            for name in ("DeadLetterUrl", "ScheduledDeadLetterUrl")
        ]
        return sum(int(answer["Attributes"]["ApproximateNumberOfMessages"]) for answer in attributes)

    def submit(self, user: str, task: str, payload: Any = None, **options: Any) -> None:
        body = {"user_id": user, "task": task, "payload": payload, **options}
        assert self.paceline.request("POST", "/api/v1/task", body).status in (202, 429)


@pytest.fixture
def cut(tmp_path: Path) -> Iterator[Cut]:
    port = free_port()
    emulator = subprocess.Popen(
        [sys.executable, "-m", "local.emulator", str(port), str(tmp_path / "emulator")],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        url = f"http://{HOST}:{port}"
        proxy = FaultProxy(url, free_port(), tmp_path / "microburst.log")
        paceline = Paceline(tmp_path, AWS_ENDPOINT_URL=proxy.url, LIMITS="1/second; 3/5 seconds")
        try:
            paceline.start()
            yield Cut(paceline, proxy, url)
        finally:
            paceline.stop()
            proxy.stop()
    finally:
        emulator.kill()
        emulator.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((HOST, port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_outage_loses_nothing_and_every_lane_goes_on_within_a_minute_of_its_end(cut: Cut) -> None:
    cut.bound_receives()
    for number in range(8):
        cut.submit("waiting", "log", number)
    cut.submit("retrying", "second-time")
    cut.submit("retrying", "log")
    cut.submit("scheduled", "log", delay_seconds=5)
    cut.paceline.wait_for(lambda: len(cut.paceline.completions("waiting")) >= 3, 60, "the first tasks of a backlog")
    cut.proxy.set([{"service": "dynamodb", "probability": 1, "error": {"code": "InternalServerError", "status": 500}}])
    time.sleep(OUTAGE_SECONDS)
    before = {user: len(cut.paceline.completions(user)) for user in USERS}
    cut.proxy.set([])
    ended_at = time.time() * 1000
    entries = cut.paceline.wait_for_completions(11, *USERS, timeout_seconds=120)
    assert len({entry["task_id"] for entry in entries}) == len(entries) == 11
    assert [entry["seq"] for entry in cut.paceline.completions("waiting")] == list(range(1, 9))
    assert [entry["attempt"] for entry in cut.paceline.completions("retrying")] == [2, 1]
    for user in USERS:
        first = cut.paceline.completions(user)[before[user]]
        assert first["completed_at"] <= ended_at + 60_000, f"{user} goes on late"
    assert cut.dead_letters() == 0
