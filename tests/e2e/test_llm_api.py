"""The recipe of docs/how-to/limits on the running system: an API of ours that counts requests and tokens of customers.

An exact version of it, by the worker's own clock, is tests/functional/test_llm_api.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.core.limits import parse_limits
from completions.audit import audit
from completions.reader import completions_folder, folder_lines, read_completions
from tests.e2e.running import Paceline, running
from tests.receiver import Got, Receiver, Reply

WINDOW_MS = 5_000
LARGEST, WRONG_BY = 100, 3
LIMITS = "30/5 seconds; 1000 units/5 seconds"
#: What the API allows: the error of the one task that runs, and one call that the network delayed into the window.
REQUESTS, TOKENS = 31, 1_000 + (WRONG_BY - 1) * LARGEST + WRONG_BY * LARGEST


class LlmApi(Receiver):
    """Answers 429 to a request that would be more in the window before it than the API allows."""

    def __init__(self) -> None:
        super().__init__(self._reply)
        self.taken: dict[str, list[tuple[float, int]]] = {}
        self.refused = 0

    def _reply(self, got: Got) -> Reply:
        taken = self.taken.setdefault(got.headers["user-id"], [])
        tokens, begin = int(got.body), got.at - WINDOW_MS / 1000
        recent = [used for at, used in taken if begin < at <= got.at]
        if len(recent) + 1 > REQUESTS or sum(recent) + tokens > TOKENS:
            self.refused += 1
            return Reply(429)
        taken.append((got.at, tokens))
        return Reply()


@pytest.fixture(scope="module")
def api() -> Iterator[LlmApi]:
    with LlmApi() as api:
        yield api


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llm")


@pytest.fixture(scope="module")
def paceline(logs: Path, api: LlmApi) -> Iterator[Paceline]:
    with running(logs, LIMITS=LIMITS) as paceline:
        yield paceline


def test_no_customer_exceeds_the_api_although_estimates_are_wrong(paceline: Paceline, api: LlmApi, logs: Path) -> None:
    chance, customers = random.Random(5), ["customer-a", "customer-b"]
    for customer in customers:
        estimates = [chance.randint(10, LARGEST) for _ in range(60)]
        payloads = [
            {"url": api.url(), "estimate": one, "tokens": max(1, round(one * WRONG_BY ** chance.uniform(-1, 1)))}
            for one in estimates
        ]
        tasks = [{"task": "chat", "payload": payload} for payload in payloads]
        answer = paceline.request("POST", "/api/v1/tasks", {"user_id": customer, "tasks": tasks})
        assert answer.body["queued"], answer.body
    entries = [
        entry for customer in customers for entry in paceline.wait_for_completions(60, customer, timeout_seconds=120)
    ]

    assert api.refused == 0
    assert {entry["event"] for entry in entries} == {"task_completed"}
    assert sum(entry["used_units"] for entry in entries) == sum(
        used for taken in api.taken.values() for _, used in taken
    )
    report = audit(read_completions(folder_lines(completions_folder(logs / "logs", "dev"))), parse_limits(LIMITS))
    assert (report.clean, report.starts) == (True, 120), report.breaches
    [units] = [row for row in report.limits if row.limit.counts_units]
    assert 800 < units.most <= 1_000
