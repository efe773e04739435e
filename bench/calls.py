"""How many calls of AWS a task takes, by kind, counted where boto3 sends them; and what that costs."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping

from bench.emulator import emulator
from bench.events import Context, submit_event
from bench.figures import Results
from bench.in_process import load_app
from bench.lambda_source import LambdaSource
from bench.prices import OTHERS, STAGES, WRITE_UNIT, cost
from bench.receipts import shorten_in_calls
from bench.wire import Wire

RUNS, TASKS = 5, 20
BURST_USERS, BURST_TASKS = 10, 25
#: Bytes of a payload as JSON, of which DynamoDB bills the whole KB.
PAYLOADS = (300, 1_024, 4_096, 16_384, 65_536)


def measure(*, quick: bool) -> Results:
    with emulator() as aws:
        os.environ.update(aws.environment)
        return _Calls(quick=quick).measure()


class _Calls:
    def __init__(self, *, quick: bool) -> None:
        self._wire = Wire()
        shorten_in_calls()
        self._app = load_app()
        self._results = Results()
        self._runs, self._tasks = (2, 3) if quick else (RUNS, TASKS)
        self._burst = (2, 5) if quick else (BURST_USERS, BURST_TASKS)
        self._answers: Counter[int] = Counter()

    def measure(self) -> Results:
        self._submit("warm-up")
        within = self._count("submit within limits", 3, lambda run, n: self._submit(f"within-{run}-{n}"))
        for run in range(self._runs):
            self._submit(f"over-{run}")
        over = self._count("submit over limits", 4, lambda run, _: self._submit(f"over-{run}"))
        self._count("submit with a key", 5, lambda run, n: self._submit(f"key-{run}-{n}", key=f"key-{n}"))
        self._count("repeat of a submit with a key", 1, lambda run, n: self._submit(f"key-{run}-{n}", key=f"key-{n}"))
        bulk = self._count("bulk of 100", 16, lambda run, n: self._submit(f"bulk-{run}-{n}", tasks=100), most=3)
        self._drop_messages()
        at_once = self._count_runs()
        payloads = {size: self._count_payload(size) for size in PAYLOADS}
        burst, slept_seconds = self._count_burst()
        self._price(within, over, bulk, at_once, burst, slept_seconds)
        self._price_payloads(payloads)
        return self._results

    def _submit(self, user_id: str, tasks: int = 1, key: str | None = None, payload: str | None = None) -> None:
        event = submit_event(user_id, tasks, payload)
        if key:
            event["headers"]["Idempotency-Key"] = key
        answer = self._app.app(event, Context())
        assert answer["statusCode"] in (202, 429), answer

    def _count(
        self, name: str, goal: int, submit: Callable[[int, int], None], most: int | None = None
    ) -> dict[str, float]:
        """Calls per submit by kind, over all runs."""
        counts, tasks = [], min(self._tasks, most or self._tasks)
        for run in range(self._runs):
            with self._wire.counting() as counted:
                for n in range(tasks):
                    submit(run, n)
            counts.append(counted)
        self._results.add(name, [_calls(counted) / tasks for counted in counts], "calls", at_most=goal)
        per_task = _kinds(sum(counts, Counter()), tasks * len(counts))
        self._results.series[name] = per_task
        return per_task

    def _source(self) -> LambdaSource:
        return LambdaSource(self._app.worker, os.environ["QUEUE_URL"], os.environ["QUEUE_ARN"])

    def _drop_messages(self) -> None:
        import boto3  # noqa: PLC0415

        boto3.client("sqs").purge_queue(QueueUrl=os.environ["QUEUE_URL"])

    def _count_runs(self) -> dict[str, float]:
        """Tasks that may start at once: each of another user."""
        counts = []
        for run in range(self._runs):
            for n in range(self._tasks):
                self._submit(f"run-{run}-{n}")
            counts.append(self._drain(self._tasks)[0])
        runs = [_calls(counted) / self._tasks for counted in counts]
        self._results.add("run at once, with receive and delete", runs, "calls", at_most=4)
        per_task = _kinds(sum(counts, Counter()), self._tasks * len(counts))
        self._results.series["run at once"] = per_task
        return per_task

    def _count_payload(self, size: int) -> float:
        """Write units of a task with a payload of so many bytes, submitted and run at once."""
        with self._wire.counting() as submitted:
            for n in range(self._tasks):
                self._submit(f"payload-{size}-{n}", payload="x" * (size - 2))
        ran, _ = self._drain(self._tasks)
        return (submitted["write units"] + ran["write units"]) / self._tasks

    def _count_burst(self) -> tuple[dict[str, float], float]:
        """Users with 25 tasks each at once: the run of all of them takes over a minute. And the seconds slept."""
        from chalicelib.container import container  # noqa: PLC0415

        users, tasks = self._burst
        for user in range(users):
            self._submit(f"burst-{user}", tasks=tasks)
        slept: list[int] = []
        clock = container().clock
        sleep = clock.sleep

        def measured(milliseconds: int) -> bool:
            slept.append(milliseconds)
            return sleep(milliseconds)

        clock.sleep = measured  # type: ignore[method-assign]
        counted, deferred = self._drain(users * tasks)
        clock.sleep = sleep  # type: ignore[method-assign]
        calls = [_calls(counted) / users / tasks]
        self._results.add(f"run in a burst of {tasks}, with receive and delete", calls, "calls")
        self._results.add("deferrals per task in the burst", [deferred / users / tasks], at_most=0.1)
        slept_seconds = sum(slept) / 1000 / users / tasks
        self._results.add("slept by a worker per task in the burst", [slept_seconds], "s")
        per_task = _kinds(counted, users * tasks)
        self._results.series["run in a burst"] = per_task
        return per_task, slept_seconds

    def _drain(self, tasks: int) -> tuple[Counter[str], int]:
        source = self._source()
        with self._wire.counting() as counted:
            source.start()
            while source.done < tasks:
                time.sleep(0.05)
            source.stop()
        return counted, source.deferred

    def _price(
        self,
        within: dict[str, float],
        over: dict[str, float],
        bulk: dict[str, float],
        run: dict[str, float],
        burst: dict[str, float],
        slept_seconds: float,
    ) -> None:
        in_bulk = {kind: count / 100 for kind, count in bulk.items()}
        columns: dict[str, dict[str, float]] = {}
        for stage, sizes in STAGES.items():
            columns |= {
                f"within limits, {stage}": cost(within, run, sizes, requests=1, slept_seconds=0),
                f"over limits, in a burst, {stage}": cost(over, burst, sizes, requests=1, slept_seconds=slept_seconds),
                f"bulk of 100, in a burst, {stage}": cost(
                    in_bulk, burst, sizes, requests=0.01, slept_seconds=slept_seconds
                ),
            }
        for name, parts in columns.items():
            self._results.add(f"a million tasks {name}", [sum(parts.values())], "$")
        self._results.series["cost"] = columns
        self._results.series["others"] = [list(other) for other in OTHERS]

    def _price_payloads(self, units: Mapping[int, float]) -> None:
        """Dollars beyond those of the smallest payload."""
        smallest = min(units.values())
        for size, taken in units.items():
            self._results.add(f"write units of a task with a payload of {size:,} bytes", [taken])
            extra = (taken - smallest) * WRITE_UNIT
            self._results.add(f"a million payloads of {size:,} bytes", [extra], "$")


def _calls(counted: Counter[str]) -> float:
    """Requests sent, without what found nothing."""
    return sum(count for kind, count in _kinds(counted, 1).items() if kind[0].isupper())


def _kinds(counted: Counter[str], tasks: int) -> dict[str, float]:
    """By kind, per task. Empty receives belong to none of the tasks."""
    found = counted.copy()
    found["ReceiveMessage"] -= found.pop("empty ReceiveMessage", 0)
    return {kind: count / tasks for kind, count in found.items() if count}
