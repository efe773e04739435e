"""A Paceline as `make run` starts it, in processes of its own, for tests to use and to break."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from uuid import uuid4

from local.emulator_address import free_port
from local.run_settings import LocalSettings
from local.supervisor import ProcessInfo, Supervisor
from tests.answer import Answer

ROOT = Path(__file__).parents[2]
APP = Path(__file__).with_name("slow_app")

#: Seconds within which a system on a busy machine must answer.
PATIENCE_SECONDS = 60

#: Set to nothing, so that neither the machine's environment nor its `.env` has a say.
SETTINGS = (
    *("LIMITS", "OVER_LIMIT", "MAX_DELAY", "MAX_ATTEMPTS", "BACKOFF", "MAX_PAYLOAD", "ALLOW_KILL", "AUTH", "STAGE"),
    *("TABLE_NAME", "QUEUE_URL", "DEAD_LETTER_URL", "AWS_ENDPOINT_URL", "HOST", "HEALTH_INTERVAL", "TASKS_DIR"),
    "STOP_WAIT",
)


class Paceline:
    """Starts with `start`; `settings` are environment variables."""

    def __init__(self, directory: Path, app: Path = APP, python: str = sys.executable, **settings: str) -> None:
        self._app = app
        self._python = python
        self.port = int(settings.pop("PORT", "") or free_port())
        self._output = directory / "output"
        self.env = {
            **os.environ,
            **dict.fromkeys(SETTINGS, ""),
            "RELOAD": "false",
            "HEALTH_INTERVAL": "2",
            "PORT": str(self.port),
            "STATE_DIR": str(directory / "state"),
            "LOG_DIR": str(directory / "logs"),
            "PYTHONPATH": str(ROOT),
            **settings,
        }
        #: When which task of which user was answered: user and seq to epoch ms.
        self.answered: dict[tuple[str, int], float] = {}
        self._process: subprocess.Popen[bytes] | None = None
        local = LocalSettings.from_env(self.env)
        self._supervisor = Supervisor(local.run_dir, local.process_log_dir)

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def is_down(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def start(self) -> None:
        self.spawn()
        self.wait_for(lambda: "Paceline is ready" in self.output, 130, "it is ready")
        self.wait_for(self._is_healthy, PATIENCE_SECONDS, "it reaches its table and its queue")

    def _is_healthy(self) -> bool:
        """Whether /health answers 200; where it wants a token (AUTH=jwt), an answer is all that is asked for."""
        try:
            return self.request("GET", "/health").status in (200, 401)
        except (HTTPException, OSError):
            return False

    def spawn(self) -> None:
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [self._python, "-m", "local"],
                cwd=self._app,
                env=self.env,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def run(self) -> int:
        """Start what will end by itself; returns its exit code."""
        self.spawn()
        return self._ended(30)

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Asks the runner to stop, a second time if a task runs on for a minute; returns its exit code."""
        self.signal(how)
        with suppress(subprocess.TimeoutExpired):
            return self._ended(60)
        self.signal(how)
        return self._ended(60)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _ended(self, timeout_seconds: float) -> int:
        assert self._process
        return self._process.wait(timeout_seconds)

    def wait_until_ended(self, message: str) -> None:
        """Waits until the runner ended by itself with this message."""
        assert self._process
        self._process.wait(90)
        assert message in self.output

    def pids(self) -> dict[int, str]:
        return self._supervisor.pids()

    def wait_for(self, condition: Callable[[], object], timeout_seconds: float, what: str) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {what}\n{self.output}"
            assert self._process is None or self._process.poll() is None, self.output
            time.sleep(0.05)

    # Calls of a client.

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read().decode())
        finally:
            connection.close()

    def submit(self, user: str, payload: Any = None, task: str = "log", key: str | None = None) -> Answer:
        body = {"user_id": user, "task": task, "payload": payload or {}}
        answer = self.request("POST", "/api/v1/task", body, {"Idempotency-Key": key} if key else None)
        if answer.body.get("seq"):
            self.answered[user, answer.body["seq"]] = time.time() * 1000
        return answer

    def submit_until_answered(self, user: str) -> Answer:
        """As clients do: repeats the request under one key while it is answered 503 or 409, or not at all.

        Gives up after PATIENCE_SECONDS: returns the last answer, or raises why there was none.
        """
        key, deadline = uuid4().hex, time.monotonic() + PATIENCE_SECONDS
        while True:
            is_last = time.monotonic() > deadline
            try:
                answer = self.submit(user, key=key)
                if answer.status not in (409, 503) or is_last:
                    return answer
            except (HTTPException, OSError):
                if is_last:
                    raise
            time.sleep(0.5)

    def submit_all(self, users: Sequence[str]) -> list[Answer]:
        """One submit for each entry, all at once, each until it is answered: a busy machine takes its time."""
        with ThreadPoolExecutor(len(users)) as pool:
            return list(pool.map(self.submit_until_answered, users))

    # Results.

    def completions(self, *users: str) -> list[dict[str, Any]]:
        """The log's lines about these users, by start."""
        texts = [path.read_bytes() for path in Path(self.env["LOG_DIR"]).rglob("*.log")]
        # A worker may be writing the last line at this moment.
        lines = [line for text in texts for line in text.splitlines(keepends=True) if line.endswith(b"\n")]
        entries = map(json.loads, lines)
        found = [entry for entry in entries if entry["user_id"] in users]
        return sorted(found, key=lambda entry: (entry["started_at"], entry["seq"]))

    def wait_for_completions(self, count: int, *users: str, timeout_seconds: float = 40) -> list[dict[str, Any]]:
        self.wait_for(lambda: len(self.completions(*users)) >= count, timeout_seconds, f"{count} completions")
        return self.completions(*users)

    # Faults.

    def process(self, name: str) -> ProcessInfo:
        return self._supervisor.processes()[name]

    def kill(self, name: str) -> int:
        """kill -9; returns the id of the killed process."""
        pid = self.process(name).pid
        if not pid:  # it is just being started again; 0 would be all of this process group
            raise ProcessLookupError(f"{name} does not run")
        os.kill(pid, signal.SIGKILL)
        return pid

    def is_replaced(self, name: str, pid: int) -> bool:
        info = self.process(name)
        return info.pid not in (0, pid) and info.state in ("STARTING", "RUNNING")


@contextmanager
def running(directory: Path, **settings: str) -> Iterator[Paceline]:
    """A started Paceline that is stopped at the end."""
    paceline = Paceline(directory, **settings)
    try:
        paceline.start()
        yield paceline
    finally:
        paceline.stop()


def assert_in_order(entries: Sequence[Mapping[str, Any]], answered: Mapping[tuple[str, int], float]) -> None:
    """Each task ran once, and none before one with a lower seq that was answered by then, and answered first.

    Of submits that are under way together, one may be overtaken before its client has its answer.
    """
    assert sorted(entry["seq"] for entry in entries) == list(range(1, len(entries) + 1))
    for place, entry in enumerate(entries):
        overtaken = [later for later in entries[place + 1 :] if later["seq"] < entry["seq"]]
        by = min(entry["started_at"], answered[entry["user_id"], entry["seq"]])
        assert all(answered[later["user_id"], later["seq"]] > by for later in overtaken)


def most_in_any_window(starts: Sequence[int], window_ms: int) -> int:
    """The most starts in any half-open window: the fullest one begins at a start, so those are all to be looked at."""
    return max((sum(begin <= start < begin + window_ms for start in starts) for begin in starts), default=0)
