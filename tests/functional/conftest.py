"""The whole app through Chalice's own test client, over moto in this process, under a clock that moves when told."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from chalice.test import Client, HTTPResponse
from moto import mock_aws

from app import app
from chalicelib.aws.client import client
from chalicelib.container import Container, container
from local.file_log import FileLog
from tests.factories import VirtualClock
from tests.integration.aws import Aws, make_resources


@pytest.fixture(scope="module")
def resources() -> Iterator[Aws]:
    with mock_aws():
        yield make_resources(client("dynamodb", None), client("sqs", None))


@dataclass
class Paceline:
    """A deployment: its HTTP side, its SQS side, and its clock."""

    client: Client
    parts: Container
    clock: VirtualClock
    aws: Aws
    log_dir: Path

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> HTTPResponse:
        """body: sent as it is if it is text or bytes, else as JSON. headers: `Retry_After` for `Retry-After`."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if raw and "Content-Type" not in named:
            named["Content-Type"] = "application/json"
        return self.client.http.request(method, path, headers=named, body=raw)

    def submit(self, user: str, payload: Any = None, path: str = "/api/v1/task", **headers: str) -> HTTPResponse:
        return self.request("POST", path, {"user_id": user, "payload": payload}, **headers)

    def get(self, path: str) -> HTTPResponse:
        return self.request("GET", path)

    def receive(self, *users: str) -> list[dict[str, Any]]:
        """Records of an SQS event, as Lambda makes them, of what these users' lanes have to give, in order."""
        records = []
        while found := self._receive():
            records += [as_record(message) for message in found if message["Attributes"]["MessageGroupId"] in users]
        return records

    def _receive(self) -> list[Any]:
        answer = self.aws.sqs.receive_message(
            QueueUrl=self.aws.queue_url, MaxNumberOfMessages=10, AttributeNames=["All"], WaitTimeSeconds=0
        )
        return list(answer.get("Messages", ()))

    def work(self, *records: dict[str, Any]) -> list[str]:
        """Hands the records to the worker; the ids of the messages that it reports as not done."""
        answer = self.client.lambda_.invoke("worker", {"Records": list(records)}).payload
        assert set(answer) == {"batchItemFailures"}
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the completion log holds."""
        files = sorted(self.log_dir.rglob("*.log"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def as_record(message: dict[str, Any]) -> dict[str, Any]:
    attributes = message["Attributes"]
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": {**attributes, "SenderId": "AIDA"},
        "messageAttributes": {},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:paceline-test.fifo",
        "awsRegion": "us-east-1",
    }


Deploy = Callable[..., Paceline]


@pytest.fixture
def deploy(resources: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Deploy]:
    """Makes a deployment with these settings; the one made last counts."""
    for name in ("AUTH", "LIMITS", "OVER_LIMIT", "MAX_DELAY", "MAX_PAYLOAD", "ALLOW_KILL", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)

    def make(**env: str) -> Paceline:
        for name, value in {**resources.environment, **env}.items():
            monkeypatch.setenv(name, value)
        container.cache_clear()
        clock = VirtualClock()
        container().clock = clock  # type: ignore[assignment]
        container().log = FileLog(str(tmp_path), "dev", "worker", uuid4().hex, clock.now_ms)
        with Client(app) as test_client:
            return Paceline(test_client, container(), clock, resources, tmp_path)

    yield make
    container.cache_clear()


@pytest.fixture
def paceline(deploy: Deploy) -> Paceline:
    return deploy()


@pytest.fixture
def user() -> str:
    """A user that no other test has."""
    return f"ann-{uuid4().hex[:12]}"
