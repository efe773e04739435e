"""The recipe of docs/how-to/limits: an LLM API for each customer, which counts what arrives and answers 429 beyond."""

import random
from collections import defaultdict
from typing import Any

import pytest

from chalicelib.core.limits import parse_limits
from chalicelib.tasks import Context, RetryAfter
from completions.audit import audit
from completions.reader import LogLine, read_completions
from completions.report import Report
from tests.factories import VirtualClock
from tests.functional.conftest import Deploy, Paceline

WINDOW_MS = 60_000
#: What the API allows a customer in any minute.
REQUESTS, TOKENS = 100, 90_000
#: The largest estimate of one task; what it really uses is up to 3 times as much, or a third of it.
LARGEST, WRONG_BY = 2_000, 3.0
#: As the recipe says: room for the error of the one task that runs.
LIMITS = f"{REQUESTS}/minute; {TOKENS - round((WRONG_BY - 1) * LARGEST)} units/minute"


class LlmApi:
    """Counts each customer's requests and tokens in the minute that ends at each arrival; a request beyond is 429."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._arrived: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self.refused = 0

    def call(self, customer: str, tokens: int) -> int:
        """The status of a request that needs so many tokens."""
        now_ms = self._clock.now_ms()
        recent = [used for at, used in self._arrived[customer] if at > now_ms - WINDOW_MS]
        if len(recent) + 1 > REQUESTS or sum(recent) + tokens > TOKENS:
            self.refused += 1
            return 429
        self._arrived[customer].append((now_ms, tokens))
        return 200

    def busiest(self, customer: str) -> tuple[int, int]:
        """The most requests and the most tokens of any minute."""
        arrived = self._arrived[customer]
        windows = [[used for at, used in arrived if end - WINDOW_MS < at <= end] for end, _ in arrived]
        return max(map(len, windows)), max(map(sum, windows))

    def tokens(self, customer: str) -> int:
        return sum(used for _, used in self._arrived[customer])


class Shop:
    """A deployment with the task `chat`, and the API that it calls."""

    def __init__(self, paceline: Paceline, seed: int, does_report: bool = True) -> None:
        self.paceline, self.clock = paceline, paceline.clock
        self.api = LlmApi(paceline.clock)
        self._chance = random.Random(seed)
        self._does_report = does_report
        paceline.parts.registry.task("chat", units=lambda payload: payload["estimate"])(self._chat)

    def _chat(self, estimate: int, *, context: Context) -> None:
        tokens = max(1, round(estimate * WRONG_BY ** self._chance.uniform(-1, 1)))
        if self.api.call(context.user_id, tokens) == 429:
            context.used(0)
            raise RetryAfter(1, "429")
        self.clock.advance(self._chance.randrange(5, 300))
        if self._does_report:
            context.used(tokens)

    def submit(self, customer: str, count: int, smallest: int, largest: int) -> None:
        for _ in range(count // 100):
            tasks = [{"task": "chat", "payload": {"estimate": self._chance.randint(smallest, largest)}}] * 100
            tasks = [{**task, "payload": {"estimate": self._chance.randint(smallest, largest)}} for task in tasks]
            answer = self.paceline.request("POST", "/api/v1/tasks", {"user_id": customer, "tasks": tasks})
            assert answer.status_code in (202, 429), answer.body
            assert answer.json_body["tasks"], answer.json_body

    def run(self) -> int:
        """Handles all messages at their times; returns how long that took, virtual milliseconds."""
        queue: Any = self.paceline.queues.queue  # type: ignore[attr-defined]
        begun = self.clock.now_ms()
        while (at := queue.next_available_at()) is not None:
            self.clock.sleep_until(at)
            for record in self.paceline.queues.receive(1):
                if not self.paceline.work(record):
                    self.paceline.delete(record)
        return self.clock.now_ms() - begun

    def audited(self) -> Report:
        files = self.paceline.log_dir.rglob("*.log")
        lines = [LogLine(file.name, text) for file in files for text in file.read_text().splitlines()]
        return audit(read_completions(lines), parse_limits(LIMITS))


@pytest.fixture
def paceline(deploy: Deploy) -> Paceline:
    return deploy(LIMITS=LIMITS)


@pytest.mark.parametrize("seed", range(3))
def test_api_is_never_asked_for_more_than_it_allows_although_estimates_are_wrong_by_up_to_3(
    paceline: Paceline, seed: int
) -> None:
    shop = Shop(paceline, seed)
    shop.submit("long-prompts", 400, 100, LARGEST)
    took_ms = shop.run()

    assert shop.api.refused == 0
    requests, tokens = shop.api.busiest("long-prompts")
    assert (requests <= REQUESTS, tokens <= TOKENS) == (True, True)
    assert shop.api.tokens("long-prompts") / took_ms * WINDOW_MS > 0.8 * TOKENS
    report = shop.audited()
    assert (report.clean, report.events, report.starts) == (True, {"completed": 400}, 400)


def test_requests_are_counted_beside_the_tokens(paceline: Paceline) -> None:
    shop = Shop(paceline, seed=7)
    shop.submit("short-prompts", 300, 3, 60)
    took_ms = shop.run()

    assert shop.api.refused == 0
    assert shop.api.busiest("short-prompts")[0] == REQUESTS
    assert took_ms < 2.1 * WINDOW_MS + 300 * 300
    assert shop.audited().clean


def test_without_reports_the_api_refuses(paceline: Paceline) -> None:
    shop = Shop(paceline, seed=1, does_report=False)
    shop.submit("long-prompts", 400, 100, LARGEST)
    shop.run()

    assert shop.api.refused > 0
