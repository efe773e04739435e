"""The whole app in this process, through Chalice's test client, under a virtual clock: over memory or over moto."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
from chalice.test import Client, HTTPResponse

from app import app
from chalicelib.aws.server_time import ServerTime
from chalicelib.container import Container, SystemClock, container, use
from chalicelib.settings import Settings
from local.file_log import FileLog
from tests.factories import VirtualClock

#: Settings that the environment of whoever runs the tests may hold.
FOREIGN_SETTINGS = (
    "AUTH",
    "LIMITS",
    "OVER_LIMIT",
    "MAX_DELAY",
    "MAX_PAYLOAD",
    "ALLOW_KILL",
    "AWS_ENDPOINT_URL",
    "TASKS_DIR",
)

Record = dict[str, Any]
Deploy = Callable[..., "Paceline"]


class Queues(Protocol):
    """The SQS side: each receive gives records of a Lambda event, an empty list when nothing is visible."""

    def receive(self, most: int = 10) -> list[Record]: ...

    def receive_scheduled(self) -> list[Record]: ...

    def delete(self, record: Record) -> None: ...

    def dead_letters(self) -> list[str]:
        """Bodies of the visible dead letters, which are hidden after this."""
        ...


@dataclass
class Paceline:
    """A deployment: its HTTP side, its SQS side, and its clock."""

    client: Client
    parts: Container
    clock: VirtualClock
    queues: Queues
    log_dir: Path

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> HTTPResponse:
        """body: text and bytes are sent unchanged, anything else as JSON. headers: `Retry_After` for `Retry-After`."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if raw and "Content-Type" not in named:
            named["Content-Type"] = "application/json"
        return self.client.http.request(method, path, headers=named, body=raw)

    def submit(self, user: str, payload: Any = None, path: str = "/api/v1/task", **headers: str) -> HTTPResponse:
        return self.request("POST", path, {"user_id": user, "payload": payload}, **headers)

    def get(self, path: str) -> HTTPResponse:
        return self.request("GET", path)

    def receive(self, *users: str) -> list[Record]:
        """Records of an SQS event: every visible message of these users, each lane in order."""
        records: list[Record] = []
        while found := self.queues.receive():
            records += [record for record in found if record["attributes"]["MessageGroupId"] in users]
        return records

    def receive_scheduled(self) -> list[Record]:
        """Records of an event of the queue of scheduled messages."""
        return self.queues.receive_scheduled()

    def work(self, *records: Record) -> list[str]:
        """Hands the records to the worker; returns the ids of the messages that it reports as not done."""
        return self._invoke("worker", records)

    def dispatch(self, *records: Record) -> list[str]:
        """Hands the records to the dispatcher; returns the ids of the messages that it reports as not done."""
        return self._invoke("scheduled", records)

    def delete(self, record: Record) -> None:
        self.queues.delete(record)

    def _invoke(self, function: str, records: tuple[Record, ...]) -> list[str]:
        answer = self.client.lambda_.invoke(function, {"Records": list(records)}).payload
        assert set(answer) == {"batchItemFailures"}
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of the completion log."""
        files = sorted(self.log_dir.rglob("*.log"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def make_record(body: str, receipt: str, message_id: str, attributes: Mapping[str, Any]) -> Record:
    """A record as Lambda makes it of an SQS message."""
    return {
        "messageId": message_id,
        "receiptHandle": receipt,
        "body": body,
        "attributes": {**attributes, "SenderId": "AIDA"},
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:paceline-test.fifo",
        "awsRegion": "us-east-1",
    }


@contextmanager
def deploying(
    make_parts: Callable[[Settings], Container],
    queues: Queues,
    clock: VirtualClock,
    environment: Mapping[str, str],
    log_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Deploy]:
    """Yields a function that makes a deployment with the settings it is given; the last one made is in force."""
    for name in FOREIGN_SETTINGS:
        monkeypatch.delenv(name, raising=False)

    def make_container() -> Container:
        parts = make_parts(Settings.from_env(os.environ))
        parts.clock = clock  # type: ignore[assignment]
        parts.monotonic = lambda: clock.now_ms() / 1000
        parts.__dict__["server_time"] = ServerTime(SystemClock().now_ms)  # AWS's answers have the real time
        parts.log = FileLog(str(log_dir), "dev", "worker", uuid4().hex, clock.now_ms)
        return parts

    def deploy(**env: str) -> Paceline:
        for name, value in {**environment, **env}.items():
            monkeypatch.setenv(name, value)
        container.cache_clear()
        with Client(app) as test_client:
            return Paceline(test_client, container(), clock, queues, log_dir)

    before = use(make_container)
    try:
        yield deploy
    finally:
        use(before)
