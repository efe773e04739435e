"""Clients that submit, repeat, bulk-submit and cancel, and record the answers."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from random import Random
from typing import Any
from urllib.parse import quote

#: Longest answer in seconds: API Gateway's timeout.
MAX_ANSWER_SECONDS = 29.0
#: How a task of `crash` goes wrong.
CRASHES = ("exit", "kill", "segfault", "swallow", "hang", "search")
ALLOWED = {200, 202, 409, 429, 503}


@dataclass
class Acknowledged:
    """A task whose id a client received."""

    user_id: str
    task_id: str
    seq: int
    #: epoch ms at which the client had the answer
    answered_at: float
    #: it was submitted to fail
    crashes: bool = False
    #: epoch ms at which the client had the answer that it is cancelled
    cancelled_at: float | None = None


@dataclass
class Ledger:
    """All clients' answers; threads write to it under the lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    submitted: int = 0
    tasks: dict[str, Acknowledged] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    slowest_seconds: float = 0.0
    #: unexpected answers
    wrong: list[str] = field(default_factory=list)


class Client(threading.Thread):
    """One user that sends one request after another."""

    def __init__(
        self,
        port: int,
        user_id: str,
        ledger: Ledger,
        seed: str,
        pause_seconds: float,
        *,
        crashes: bool = False,
        shared: str = "",
    ) -> None:
        """crashes: it submits only tasks that end their process. shared: the shared limit of its tasks, if any."""
        super().__init__(daemon=True)
        self._crashes = crashes
        self._shared = {"shared": shared} if shared else {}
        self._port = port
        self._user = user_id
        self._ledger = ledger
        self._random = Random(seed)
        self._pause = pause_seconds
        self._stopping = threading.Event()
        self._mine: list[str] = []

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.wait(self._random.uniform(0.2, 1.8) * self._pause):
            if self._crashes:
                self._crash()
            else:
                self._random.choices((self._one, self._one_with_key, self._many, self._cancel), (5, 3, 1, 1))[0]()

    def _one(self) -> None:
        with self._ledger.lock:
            self._ledger.submitted += 1
        self._submit("/api/v1/task", {"user_id": self._user, **self._task()}, {})

    def _one_with_key(self) -> None:
        """Repeats until answered; then exactly one such task exists."""
        with self._ledger.lock:
            self._ledger.submitted += 1
        body = {"user_id": self._user, **self._task()}
        key = {"Idempotency-Key": f"{self._random.getrandbits(64):x}"}
        while not self._submit("/api/v1/task", body, key) and not self._stopping.wait(0.5):
            pass

    def _many(self) -> None:
        count = self._random.randrange(2, 14)
        with self._ledger.lock:
            self._ledger.submitted += count
        self._submit("/api/v1/tasks", {"user_id": self._user, "tasks": [self._task() for _ in range(count)]}, {})

    def _cancel(self) -> None:
        if self._mine:
            task_id = self._mine[-1]
            status, answer = self._request("DELETE", f"/api/v1/users/{quote(self._user)}/tasks/{task_id}", None, {})
            if status == 200 and answer["state"] == "cancelled":
                with self._ledger.lock:
                    self._ledger.tasks[task_id].cancelled_at = time.time() * 1000

    def _crash(self) -> None:
        """A task that ends its process, beside which all others have to go on."""
        with self._ledger.lock:
            self._ledger.submitted += 1
        how = self._random.choice(CRASHES)
        self._submit(
            "/api/v1/task", {"user_id": self._user, "task": "crash", "payload": {"how": how}, **self._shared}, {}
        )

    def _task(self) -> dict[str, Any]:
        milliseconds = self._random.choices((0, 300, 4000), (16, 6, 1))[0]
        return {
            "task": "chaos",
            "payload": {"milliseconds": milliseconds, "failures": int(self._random.random() < 0.1)},
            **self._shared,
        }

    def _submit(self, path: str, body: Any, headers: Mapping[str, str]) -> bool:
        """Returns True if the request got a final answer."""
        status, answer = self._request("POST", path, body, headers)
        now_ms = time.time() * 1000
        submitted = answer.get("tasks", [answer]) if status in (202, 429) else []
        with self._ledger.lock:
            for task in submitted:
                if task.get("task_id"):
                    self._mine.append(task["task_id"])
                    self._ledger.tasks[task["task_id"]] = Acknowledged(
                        self._user, task["task_id"], task["seq"], now_ms, self._crashes
                    )
        return status in (202, 429)

    def _request(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> tuple[int, Any]:
        """Returns the answer; 0 if the API process was killed before it answered."""
        begun = time.monotonic()
        connection = HTTPConnection("127.0.0.1", self._port, timeout=MAX_ANSWER_SECONDS + 6)
        status, text, kept = 0, "", {}
        word = "no answer"
        with suppress(OSError, HTTPException):
            try:
                data = None if body is None else json.dumps(body)
                connection.request(method, path, data, {"Content-Type": "application/json", **headers})
                response = connection.getresponse()
                text, kept = response.read().decode(), dict(response.headers)
                status = response.status
                word = str(status)
            except TimeoutError:
                word = "hangs"
            finally:
                connection.close()
        self._judge(f"{method} {path}", word, text, kept, time.monotonic() - begun)
        return status, json.loads(text) if status else {}

    def _judge(self, what: str, word: str, text: str, headers: Mapping[str, str], seconds: float) -> None:
        with self._ledger.lock:
            self._ledger.statuses[word] += 1
            self._ledger.slowest_seconds = max(self._ledger.slowest_seconds, seconds)
            if word == "hangs" or seconds > MAX_ANSWER_SECONDS:
                self._ledger.wrong.append(f"{what}: {word} after {seconds:.1f} s")
            elif word != "no answer" and (int(word) not in ALLOWED or "Traceback" in text):
                self._ledger.wrong.append(f"{what}: {word} {text[:300]}")
            elif word == "503" and "Retry-After" not in headers:
                self._ledger.wrong.append(f"{what}: 503 without Retry-After")
