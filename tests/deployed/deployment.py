"""A deployed stage, known by its URL alone, and its completion log in CloudWatch Logs."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import boto3
import localstack_client.session

from completions.audit import audit, default_limits
from completions.reader import Completion, cloudwatch_lines, read_completions
from completions.report import Report
from tests.answer import Answer

#: Requests at a time: as many as a new AWS account's ten functions at a time can answer, the workers beside them.
CLIENTS = 5


@dataclass
class Deployment:
    url: str
    stage: str
    #: Tells the users of this run from those of others.
    run: str = field(default_factory=lambda: uuid4().hex[:8])
    begun_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    @property
    def log_group(self) -> str:
        return f"/aws/lambda/paceline-{self.stage}-worker"

    def user(self, name: str) -> str:
        return f"{name}-{self.run}"

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        wanted = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.url + path, data, wanted, method=method)
        try:
            with urllib.request.urlopen(request, timeout=40) as response:
                return Answer(response.status, dict(response.headers), response.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read().decode())

    def submit(self, user: str) -> Answer:
        return self.request("POST", "/api/v1/task", {"user_id": user, "payload": {"from": "e2e"}})

    def submit_all(self, users: Sequence[str]) -> list[Answer]:
        """One submit for each entry, several at a time."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            return list(pool.map(self.submit, users))

    def completions(self, users: Sequence[str]) -> list[Completion]:
        lines = cloudwatch_lines(aws_client("logs"), self.log_group, self.begun_ms)
        entries = [entry for entry in read_completions(lines) if isinstance(entry, Completion)]
        return [entry for entry in entries if entry.user_id in users]

    def wait_for_completions(self, users: Sequence[str], count: int, timeout_seconds: float) -> list[Completion]:
        def enough() -> list[Completion] | None:
            found = self.completions(users)
            return found if len(found) >= count else None

        return wait_for(enough, timeout_seconds, f"{count} completions in {self.log_group}")


def audited(completions: Sequence[Completion]) -> Report:
    return audit(completions, default_limits(None))


def aws_client(service: str) -> Any:
    """LocalStack's where AWS_ENDPOINT_URL names it, else AWS's with the credentials at hand."""
    if os.environ.get("AWS_ENDPOINT_URL"):
        return localstack_client.session.Session().client(service)
    return boto3.client(service)  # type: ignore[call-overload]


def wait_for(condition: Callable[[], Any], timeout_seconds: float, what: str) -> Any:
    deadline = time.monotonic() + timeout_seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {what}"
        time.sleep(1)  # CloudWatch Logs has nothing to wait on
    return result
