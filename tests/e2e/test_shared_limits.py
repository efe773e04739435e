"""Five users whose tasks call one API of ours, which refuses what is above the rate that they share.

The windows are short; `REAL_NUMBERS=1` runs 40 tasks of each under `1/second; 20/minute` and a shared `3/second;
50/minute`, which takes more than four minutes.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from chalicelib.core.limits import Limits, parse_limits
from chalicelib.core.shared_names import parse_shared
from completions.audit import audit
from completions.reader import completions_folder, folder_lines, read_completions
from completions.report import Report
from tests.e2e.running import Paceline, running
from tests.receiver import Got, Receiver, Reply

USERS = tuple(f"sharer-{n}" for n in range(5))
REAL = bool(os.environ.get("REAL_NUMBERS"))
LIMITS = "1/second; 20/minute" if REAL else "2/second; 8/6 seconds"
SHARED = "3/second; 50/minute" if REAL else "3/second; 14/6 seconds"
EACH = 40 if REAL else 8
#: Milliseconds that a call may take from its task's start to the API. Calls of legal starts can't break a window that
#: is shorter by so much.
ON_ITS_WAY_MS = 500
#: Seconds for which the API asks all its callers to wait, and until calls have arrived that had started before.
WAIT_SECONDS, STARTED_BEFORE_SECONDS = 4, 1.0


class Api(Receiver):
    """Answers 429 to a call that would be more in a window than the shared limits allow; and once by order."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(self._reply)
        self._limits = limits
        self.refused: list[Got] = []
        #: when it was ordered to refuse, epoch seconds
        self.is_ordered = False
        self.stopped_at = 0.0

    def _reply(self, got: Got) -> Reply:
        if self.is_ordered:
            self.is_ordered, self.stopped_at = False, got.at
            return Reply(429, {"Retry-After": str(WAIT_SECONDS)})
        for limit in self._limits:
            begin = got.at - (limit.window_ms - ON_ITS_WAY_MS) / 1000
            if sum(begin < other.at <= got.at for other in self.got) > limit.quota:
                self.refused.append(got)
                return Reply(429)
        return Reply()


@dataclass(frozen=True)
class Asked:
    """A submit: when it was sent, epoch ms, and the answer's body."""

    sent_at: int
    body: dict[str, Any]


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with Api(parse_limits(SHARED)) as api:
        yield api


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def paceline(directory: Path, api: Api) -> Iterator[Paceline]:
    settings = {"HTTP_ALLOWED_HOSTS": api.authority, "HTTP_ALLOW_PRIVATE": "true"}
    shared = {"SHARED_LIMITS": f"api: {SHARED}", "HTTP_SHARED": f"{api.authority}=api"}
    with running(directory, LIMITS=LIMITS, **settings, **shared) as paceline:
        yield paceline


def submit(paceline: Paceline, user: str, api: Api) -> Asked:
    sent_at = time.time_ns() // 1_000_000
    order = {"user_id": user, "task": "http", "payload": {"url": api.url(f"/{user}")}}
    answer = paceline.request("POST", "/api/v1/task", order)
    assert answer.status in (202, 429), answer
    return Asked(sent_at, answer.body)


def audited(directory: Path) -> Report:
    lines = folder_lines(completions_folder(directory / "logs", "dev"))
    return audit(read_completions(lines), parse_limits(LIMITS), parse_shared(f"api: {SHARED}"))


@pytest.fixture(scope="module")
def asked(paceline: Paceline, api: Api) -> list[Asked]:
    return [submit(paceline, user, api) for _ in range(EACH) for user in USERS]


@pytest.fixture(scope="module")
def ended(paceline: Paceline, asked: list[Asked]) -> list[dict[str, Any]]:
    return paceline.wait_for_completions(len(asked), *USERS, timeout_seconds=400 if REAL else 120)


def test_no_limit_is_exceeded_and_the_api_refuses_nothing(
    ended: list[dict[str, Any]], api: Api, directory: Path
) -> None:
    report = audited(directory)
    assert (report.breaches, report.starts) == ([], len(USERS) * EACH)
    assert {entry["event"] for entry in ended} == {"task_completed"}
    assert {entry["shared"] for entry in ended} == {"api"}
    assert api.refused == []
    # The shared limits were full, and each user's own were kept.
    most = {row.limit: row.most for row in report.limits if row.shared}
    assert most == {limit: limit.quota for limit in parse_limits(SHARED)}


def test_users_take_turns(ended: list[dict[str, Any]]) -> None:
    """While all of them have tasks that wait, no user is far ahead of another; one that is late is passed over."""
    started = Counter(dict.fromkeys(USERS, 0))
    together = list(islice(ended, len(USERS) * (EACH - 2)))
    differences = []
    for entry in together[len(USERS) :]:
        started[entry["user_id"]] += 1
        differences.append(max(started.values()) - min(started.values()))
    assert max(differences) <= 3


def test_no_task_starts_before_its_answer_said(ended: list[dict[str, Any]], asked: list[Asked]) -> None:
    started = {entry["task_id"]: entry["started_at"] for entry in ended}
    starts = [at for entry in ended for at in (*entry.get("starts", ()), entry["started_at"])]
    for one in asked:
        at, body = started[one.body["task_id"]], one.body
        assert (body["shared"], body["lower_bound"]) == ("api", True)
        assert at >= max(body["planned_at"], one.sent_at + body["delay_ms"])
        # A lane before it may be late and be passed over.
        assert sum(one.sent_at <= other <= at for other in starts) >= body["position"] - 1


def test_nobody_calls_until_the_time_that_the_api_asked_one_caller_to_wait(
    paceline: Paceline, api: Api, ended: list[dict[str, Any]], directory: Path
) -> None:
    before = len(api.got)
    api.is_ordered = True
    for _ in range(2):
        for user in USERS:
            submit(paceline, user, api)
    paceline.wait_for(lambda: api.stopped_at, 20, "a caller is asked to wait")
    paceline.wait_for(lambda: throttled(paceline)["throttled_until"], 10, "the shared limit is throttled")
    assert throttled(paceline)["throttled_reason"] == f"HTTP 429 with Retry-After {WAIT_SECONDS}"
    assert all(lane(paceline, user)["throttled_until"] is None for user in USERS)
    paceline.wait_for_completions(len(ended) + 2 * len(USERS), *USERS, timeout_seconds=60)
    later = [got.at - api.stopped_at for got in api.got[before:]]
    assert [after for after in later if STARTED_BEFORE_SECONDS < after < WAIT_SECONDS - 0.01] == []
    assert len([after for after in later if after >= WAIT_SECONDS - 0.01]) >= len(USERS)
    assert api.refused == []
    retried = [entry for entry in paceline.completions(*USERS) if entry["attempt"] > 1]
    assert retried == []  # the attempt of the one that was asked to wait was given back
    assert audited(directory).breaches == []


def throttled(paceline: Paceline) -> dict[str, Any]:
    body: dict[str, Any] = paceline.request("GET", "/api/v1/limits/api").body
    return body


def lane(paceline: Paceline, user: str) -> dict[str, Any]:
    body: dict[str, Any] = paceline.request("GET", f"/api/v1/users/{user}").body
    return body
