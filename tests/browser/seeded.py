"""Fills a system with every kind of lane: busy, paused, failed, waiting for a shared limit, idle."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

#: Seconds within which the failed task fails on a busy machine.
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Api:
    url: str

    def request(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
        with urlopen(Request(self.url + path, data, headers, method=method)) as answer:
            return json.loads(answer.read())

    def submit(self, user: str, count: int = 1, **task: Any) -> None:
        self.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": [task] * count})


def fill(api: Api) -> None:
    """northwind: succeeded, failed and waiting tasks, and a schedule; the others: a lane of each kind."""
    api.request("PUT", "/api/v1/limits/stripe", {"limits": "1/10 seconds; 500/hour; 5 at once"})
    api.request("PUT", "/api/v1/users/northwind/schedules/report", {"every_seconds": 3600})
    api.submit("northwind", task="http", payload={"url": "http://127.0.0.1:1/"})
    api.submit("northwind", 40, payload={"order": 4711})
    for user in ("initech", "globex", "acme"):
        api.submit(user, 2, shared="stripe")
    api.submit("hooli", 3)
    api.request("POST", "/api/v1/users/hooli/pause", {})
    for number in range(30):
        api.submit(f"tenant-{number:02}")
    wait_for_failure(api)


def wait_for_failure(api: Api) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not api.request("GET", "/api/v1/tasks?state=failed")["tasks"]:
        assert time.monotonic() < deadline, "the task of northwind fails"
        time.sleep(0.2)
