"""Calls, write units and dollars per task for lanes with several tasks at once; and how long a free slot stays idle."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench.emulator import emulator
from bench.events import Context, submit_event
from bench.figures import Results
from bench.idle_slots import BRIEF_MS, LONG_MS, idle_slots
from bench.in_process import load_app
from bench.lambda_source import LambdaSource
from bench.prices import STAGES, cost
from bench.receipts import shorten_in_calls
from bench.wire import Wire

NUMBERS = (1, 5, 50)
#: Users of the first measurement, who have one task at a time.
USERS = 20
#: Tasks for each slot in the second one, the fewest tasks, and seconds that each takes.
ROUNDS, FEWEST, SECONDS = 3, 15, 2.0
#: Fills 50 slots with such tasks.
PACE = "30/second"


def measure(*, quick: bool) -> Results:
    with emulator() as aws:
        os.environ.update(aws.environment)
        return _AtOnce(quick=quick).measure()


class _AtOnce:
    def __init__(self, *, quick: bool) -> None:
        self._wire = Wire()
        shorten_in_calls()
        self._results = Results()
        self._users = 3 if quick else USERS
        self._seconds = 0.2 if quick else SECONDS
        self._is_quick = quick
        #: tasks that have ended
        self._ended = 0
        self._lock = threading.Lock()

    def measure(self) -> Results:
        for number in NUMBERS:
            self._load(number)
            alone = self._count_alone(number)
            full = self._count_full(number)
            for name, counted in (("alone", alone), ("all slots in use", full)):
                self._price(f"{number} at once, {name}", counted)
        self._mix()
        return self._results

    def _load(self, number: int) -> None:
        os.environ["DEADLINE"] = "5m"
        os.environ["LIMITS"] = PACE if number == 1 else f"{PACE}; {number} at once"
        self._app = load_app()
        from chalicelib.container import container  # noqa: PLC0415

        container().registry.task("wait")(self._wait)

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)
        with self._lock:
            self._ended += 1

    def _submit(self, user: str, seconds: Sequence[float]) -> None:
        """One task by the usual route, more of them in bulks."""
        tasks = [{"task": "wait", "payload": {"seconds": one}} for one in seconds]
        for first in range(0, len(tasks), 100):
            some = tasks[first : first + 100]
            event, content = submit_event(user, len(some)), some[0] if len(some) == 1 else {"tasks": some}
            event["body"] = json.dumps({"user_id": user, **content})
            answer: dict[str, Any] = self._app.app(event, Context())
            assert answer["statusCode"] in (202, 429), answer

    def _drain(self, tasks: int) -> Counter[str]:
        """The calls until that many tasks have ended and the queue is empty."""
        source = LambdaSource(self._app.worker, os.environ["QUEUE_URL"], os.environ["QUEUE_ARN"])
        until = self._ended + tasks
        with self._wire.counting() as counted:
            source.start()
            while self._ended < until:
                time.sleep(0.02)
            time.sleep(1)  # their messages are deleted
            source.stop()
        return counted

    def _count_alone(self, number: int) -> dict[str, float]:
        """Each user's second task, while none of the user's tasks runs."""
        users = [f"alone-{number}-{n}" for n in range(self._users)]
        for user in users:
            self._submit(user, [0.0])
        self._drain(len(users))
        for user in users:
            self._submit(user, [0.0])
        return _per_task(self._drain(len(users)), len(users))

    def _count_full(self, number: int) -> dict[str, float]:
        """One user with some tasks for each slot."""
        count = max(FEWEST, ROUNDS * number)
        self._submit(f"full-{number}", [self._seconds] * count)
        return _per_task(self._drain(count), count)

    def _price(self, name: str, run: dict[str, float]) -> None:
        calls = sum(count for kind, count in run.items() if kind[0].isupper())
        self._results.add(f"{name}: run, with receive and delete", [calls], "calls")
        self._results.add(f"{name}: write units of a run", [run["write units"]])
        parts = cost({"write units": 0.0}, run, STAGES["dev"], requests=0, slept_seconds=0)
        self._results.add(f"{name}: runs of a million tasks", [sum(parts.values())], "$")
        self._results.series[name] = run

    def _mix(self) -> None:
        """Tasks of 1 s and of a minute in one lane: how long slots are idle although tasks wait."""
        for where, long_ms in LONG_MS.items():
            idle = idle_slots(where, *((2, 20) if self._is_quick else ()))
            what = f"{where}, tasks of {BRIEF_MS // 1000} and {long_ms // 1000} s mixed"
            self._results.add(f"share of the slots' time in which they are idle, {what}", [idle.share])
            self._results.add(f"time until a free slot is taken, {what}", sorted(idle.times_ms), "ms")
            self._results.add(f"longest of these, {what}", [max(idle.times_ms)], "ms", at_most=1_000)


def _per_task(counted: Counter[str], tasks: int) -> dict[str, float]:
    """By kind, per task. Empty receives belong to none of the tasks."""
    found = counted.copy()
    found["ReceiveMessage"] -= found.pop("empty ReceiveMessage", 0)
    return {kind: count / tasks for kind, count in found.items() if count}
