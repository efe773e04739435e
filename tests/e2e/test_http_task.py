"""The task `http` on the running system, against a receiver of ours that limits its callers."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.e2e.running import Paceline, most_in_any_window, running
from tests.receiver import Got, Receiver, Reply

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
#: Every so many calls of a user it is told to slow down, and for how long.
CALLS_BETWEEN, RETRY_AFTER_SECONDS = 7, 1


class Limiting:
    """Verifies each call's signature with a library that is not ours, and now and then tells a user to slow down."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.turned_away: list[str] = []
        self.accepted: list[tuple[str, int]] = []
        self.forged = 0
        self._lock = threading.Lock()

    def __call__(self, got: Got) -> Reply:
        try:
            body = Webhook(SECRET).verify(got.body, dict(got.headers))
        except WebhookVerificationError:
            self.forged += 1
            return Reply(401)
        if "event" in body:
            return Reply(204)
        with self._lock:
            self.calls[body["user"]] += 1
            if self.calls[body["user"]] % CALLS_BETWEEN == 0:
                self.turned_away.append(body["user"])
                return Reply(429, {"Retry-After": str(RETRY_AFTER_SECONDS)})
            self.accepted.append((body["user"], body["number"]))
        return Reply(200, {"Content-Type": "application/json"}, b'{"thanks": true}')


@dataclass(frozen=True)
class Shown:
    """What came of a demonstration."""

    answer: Limiting
    #: per user and limit, the most starts in any window, by the log
    most_starts: dict[tuple[str, int], int]
    #: the same by the receiver's clock, in windows shorter by the longest time that a call took to arrive
    most_arrivals: dict[tuple[str, int], int]
    longest_way_ms: int


def demonstrate(
    paceline: Paceline,
    receiver: Receiver,
    users: Sequence[str],
    count: int,
    limits: Sequence[tuple[int, int]],
    timeout_seconds: float,
) -> Shown:
    answer = Limiting()
    receiver.answer = answer
    for user in users:
        for first in range(0, count, 100):
            numbers = range(first, min(count, first + 100))
            body = {"user_id": user, "tasks": [order(receiver, user, number) for number in numbers]}
            submitted = paceline.request("POST", "/api/v1/tasks", body)
            assert submitted.status in (202, 429), submitted.text
    entries = paceline.wait_for_completions(count * len(users), *users, timeout_seconds=timeout_seconds)
    assert {entry["event"] for entry in entries} == {"task_completed"}
    assert {entry["attempt"] for entry in entries} == {1}, "being told to slow down uses up no attempt"
    starts = {user: sorted(s for e in entries if e["user_id"] == user for s in all_starts(e)) for user in users}
    arrivals = {user: sorted(arrivals_of(receiver, user)) for user in users}
    ways = [a - s for user in users for a, s in zip(arrivals[user], starts[user], strict=True)]
    longest = max(ways)
    return Shown(
        answer,
        {(user, window): most_in_any_window(starts[user], window) for user in users for _, window in limits},
        {(user, w): most_in_any_window(arrivals[user], w - longest) for user in users for _, w in limits},
        longest,
    )


def order(receiver: Receiver, user: str, number: int) -> dict[str, object]:
    url = receiver.url(f"/{user}")
    payload = {"url": url, "body": {"user": user, "number": number}}
    return {"task": "http", "payload": payload, "callback_url": receiver.url("/ends")}


def all_starts(entry: dict[str, object]) -> list[int]:
    return [*entry.get("starts", []), entry["started_at"]]  # type: ignore[misc,list-item]


def arrivals_of(receiver: Receiver, user: str) -> list[int]:
    return [round(got.at * 1000) for got in receiver.got if got.path == f"/{user}"]


def assert_shown(shown: Shown, users: Sequence[str], count: int, limits: Sequence[tuple[int, int]]) -> None:
    assert shown.answer.forged == 0
    for user in users:
        assert [number for name, number in shown.answer.accepted if name == user] == list(range(count))
        assert shown.answer.turned_away.count(user) == (count - 1) // (CALLS_BETWEEN - 1)
        for quota, window in limits:
            assert shown.most_starts[user, window] <= quota
            assert shown.most_arrivals[user, window] <= quota


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def paceline(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Paceline]:
    with running(tmp_path_factory.mktemp("http"), LIMITS="10/second; 20/3 seconds", **settings(receiver)) as paceline:
        yield paceline


def settings(receiver: Receiver) -> dict[str, str]:
    return {
        "HTTP_ALLOWED_HOSTS": receiver.authority,
        "HTTP_ALLOW_PRIVATE": "true",
        "WEBHOOK_SECRET": SECRET,
        "RELOAD": "false",
    }


def test_calls_keep_pace_and_order_though_told_to_slow_down(paceline: Paceline, receiver: Receiver) -> None:
    users, limits = [f"caller-{n}" for n in range(5)], [(10, 1_000), (20, 3_000)]
    shown = demonstrate(paceline, receiver, users, 15, limits, timeout_seconds=90)
    assert_shown(shown, users, 15, limits)
    ends = lambda: {json.loads(got.body)["task_id"] for got in receiver.got if got.path == "/ends"}  # noqa: E731
    paceline.wait_for(lambda: len(ends()) == 75, 30, "each end is told")


def test_lane_says_why_it_is_held(paceline: Paceline, receiver: Receiver) -> None:
    receiver.answer = lambda got: Reply(503, {"Retry-After": "2"}) if len(of("held")) < 2 else Reply()
    of = lambda user: arrivals_of(receiver, user)  # noqa: E731
    paceline.request("POST", "/api/v1/tasks", {"user_id": "held", "tasks": [order(receiver, "held", 1)]})
    paceline.wait_for(lambda: of("held"), 20, "the first call")
    lane = lambda: paceline.request("GET", "/api/v1/users/held").body  # noqa: E731
    paceline.wait_for(lambda: lane()["held_until"], 10, "the lane is held")
    assert lane()["held_reason"] == "HTTP 503 with Retry-After 2"
    [entry] = paceline.wait_for_completions(1, "held")
    assert entry["attempt"] == 1
    assert of("held")[1] - of("held")[0] >= 1_900


def test_parked_task_runs_at_its_time_and_its_end_is_told_until_somebody_listens(
    paceline: Paceline, receiver: Receiver
) -> None:
    refused: list[Got] = []

    def deaf_at_first(got: Got) -> Reply:
        # Ends of the tests before this one may still be told.
        if got.path == "/parked-end" and not refused:
            refused.append(got)
            return Reply(500)
        return Reply()

    receiver.answer = deaf_at_first
    body = {"user_id": "parked", "delay_seconds": 2.5, "callback_url": receiver.url("/parked-end")}
    answer = paceline.request("POST", "/api/v1/task", body)
    assert (answer.status, answer.body["seq"], answer.body["queued"], answer.body["delay_ms"]) == (202, 0, True, 2500)
    [soon] = [paceline.submit("parked").body]
    entries = paceline.wait_for_completions(2, "parked")
    assert [entry["task_id"] for entry in entries] == [soon["task_id"], answer.body["task_id"]]
    assert entries[1]["started_at"] >= answer.body["planned_at"]
    told = lambda: [got for got in receiver.got if got.path == "/parked-end"]  # noqa: E731
    paceline.wait_for(lambda: len(told()) >= 2, 60, "it is told again")
    assert told()[0].headers["webhook-id"] == told()[1].headers["webhook-id"]
    event = Webhook(SECRET).verify(told()[1].body, dict(told()[1].headers))
    assert (event["event"], event["task_id"]) == ("task_completed", answer.body["task_id"])


def test_address_that_is_not_allowed_is_refused_at_submit(paceline: Paceline) -> None:
    for body, field in (
        ({"task": "http", "payload": {"url": "http://169.254.169.254/latest/meta-data/"}}, "/payload/url"),
        ({"callback_url": "http://evil.example/"}, "/callback_url"),
    ):
        answer = paceline.request("POST", "/api/v1/task", {"user_id": "mallory", **body})
        assert (answer.status, answer.body["field"]) == (422, field)
