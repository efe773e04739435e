"""DynamoDB fails for a while, and SQS goes on delivering: nothing is lost, nothing runs twice, every lane goes on."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import app
from chalicelib import container as wiring
from chalicelib.core.errors import UnavailableError
from chalicelib.core.task import Json
from chalicelib.submit.submission import Submission, Submitted, TaskRequest
from chalicelib.tasks import Context
from chalicelib.tasks.registry import registry
from local.parts import make_container
from local.worker_process import Trigger, handler
from tests.chaos.proxy import FaultProxy
from tests.integration.aws import Aws

OUTAGE_SECONDS = 20
#: SQS dead-letters a message after so many receives, here as on AWS after 1,000: a message that came back each second
#: would use them up.
RECEIVES, RECEIVES_OF_THE_STACK = 12, 1_000
#: Submits until one is answered: a busy machine takes its time.
TRIES = 10
ARN = "arn:aws:sqs:us-east-1:000000000000:queue"


class Cut:
    """A worker in this process whose calls of DynamoDB go through a proxy, and what it logged."""

    def __init__(self, aws: Aws, proxy: FaultProxy, log_dir: Path) -> None:
        self._aws = aws
        self._log_dir = log_dir
        self.proxy = proxy

    def submit(self, user: str, *tasks: TaskRequest) -> None:
        """Repeats a submit that AWS did not answer in time, as a client does."""
        parts, ids = wiring.container(), [wiring.new_id() for _ in tasks]
        submission = Submission(user, list(tasks), parts.clock.now_ms())
        for number in range(TRIES):
            with suppress(UnavailableError):
                assert isinstance(parts.submitter.submit_bulk(submission, ids, number > 0), Submitted)
                return
        raise AssertionError(f"AWS did not answer {TRIES} submits")

    def bound_receives(self, most: int) -> None:
        for url in (self._aws.queue_url, self._aws.later_url):
            answer = self._aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
            policy = json.loads(answer["Attributes"]["RedrivePolicy"]) | {"maxReceiveCount": most}
            self._aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})

    def completions(self, user: str) -> list[dict[str, Any]]:
        lines = [line for file in self._log_dir.rglob("*.log") for line in file.read_text().splitlines()]
        found = [entry for entry in map(json.loads, lines) if entry["user_id"] == user]
        return sorted(found, key=lambda entry: int(entry["completed_at"]))

    def wait_for(self, count: int, *users: str) -> None:
        deadline = time.monotonic() + 120
        while sum(len(self.completions(user)) for user in users) < count:
            assert time.monotonic() < deadline, {user: len(self.completions(user)) for user in users}
            time.sleep(0.1)


@pytest.fixture
def cut(ministack: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cut]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    proxy = FaultProxy(ministack.endpoint_url, port, tmp_path / "microburst.log")
    for name, value in {**ministack.environment, "AWS_ENDPOINT_URL": proxy.url, "STAGE": "dev"}.items():
        monkeypatch.setenv(name, value)
    for name in ("LOG_DIR", "RUN_DIR", "STATE_DIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("LIMITS", "1/second; 3/5 seconds")
    before = wiring.use(make_container)
    triggers = [
        Trigger(ministack.queue_url, handler(app.worker, "worker", ARN, 60), tmp_path / "worker", 10),
        Trigger(ministack.later_url, handler(app.scheduled, "scheduled", ARN, 60), tmp_path / "scheduled", 10),
    ]
    cut = Cut(ministack, proxy, tmp_path / "LOG_DIR")
    try:
        for trigger in triggers:
            trigger.start()
        yield cut
    finally:
        proxy.set([])
        cut.bound_receives(RECEIVES_OF_THE_STACK)
        for trigger in triggers:
            trigger.stop()
        wiring.stopping.set()
        for trigger in triggers:
            trigger.join()
        wiring.stopping.clear()
        wiring.use(before)
        proxy.stop()


@pytest.fixture
def second_time() -> Iterator[None]:
    def fails_first(payload: Json, context: Context) -> int:
        if context.attempt == 1:
            raise ValueError("not the first time")
        return context.attempt

    registry.task("second-time", backoff_seconds=4)(fails_first)
    yield
    del registry._definitions["second-time"]


@pytest.mark.usefixtures("second_time")
def test_outage_loses_nothing_and_every_lane_goes_on_within_a_minute_of_its_end(cut: Cut, ministack: Aws) -> None:
    cut.bound_receives(RECEIVES)
    waiting, retrying, scheduled = users = [f"{name}-{uuid4().hex[:8]}" for name in ("waiting", "retrying", "due")]
    cut.submit(retrying, TaskRequest("second-time", None), TaskRequest("log", None))
    cut.submit(scheduled, TaskRequest("log", None, delay_seconds=6), TaskRequest("log", None, delay_seconds=7))
    cut.submit(waiting, *(TaskRequest("log", number) for number in range(8)))
    cut.wait_for(2, waiting)
    cut.proxy.set([{"service": "dynamodb", "probability": 1, "error": {"code": "InternalServerError", "status": 500}}])
    time.sleep(OUTAGE_SECONDS)
    before = {user: len(cut.completions(user)) for user in users}
    cut.proxy.set([])
    ended_at = time.time() * 1000
    cut.wait_for(12, *users)
    entries = [entry for user in users for entry in cut.completions(user)]
    assert len({entry["task_id"] for entry in entries}) == len(entries) == 12
    assert [entry["seq"] for entry in cut.completions(waiting)] == list(range(1, 9))
    assert [entry["attempt"] for entry in cut.completions(retrying)] == [2, 1]
    assert sum(before.values()) < 12
    for user in users:
        assert cut.completions(user)[before[user]]["completed_at"] <= ended_at + 60_000, f"{user} goes on late"
    dead = ministack.sqs.receive_message(QueueUrl=ministack.dead_letter_url, AttributeNames=["All"]).get("Messages", [])
    assert not {one["Attributes"]["MessageGroupId"] for one in dead} & set(users)
