"""The task `http` on the running system, against a receiver of ours that limits its callers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from standardwebhooks.webhooks import Webhook

from chalicelib.core.limits import parse_limits
from tests.e2e.demonstrate import SECRET, arrivals_of, demonstrate, order, settings
from tests.e2e.running import Paceline, running
from tests.receiver import Got, Receiver, Reply

LIMITS = "10/second; 20/3 seconds"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def paceline(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Paceline]:
    with running(tmp_path_factory.mktemp("http"), LIMITS=LIMITS, **settings(receiver)) as paceline:
        yield paceline


def test_calls_keep_pace_and_order_though_told_to_slow_down(paceline: Paceline, receiver: Receiver) -> None:
    users = [f"caller-{n}" for n in range(5)]
    demonstrate(paceline, receiver, users, 15, parse_limits(LIMITS), timeout_seconds=90).check()


def test_lane_says_why_it_is_throttled(paceline: Paceline, receiver: Receiver) -> None:
    receiver.answer = lambda got: Reply(503, {"Retry-After": "2"}) if len(of("throttled")) < 2 else Reply()
    of = lambda user: arrivals_of(receiver, user)  # noqa: E731
    paceline.request("POST", "/api/v1/tasks", {"user_id": "throttled", "tasks": [order(receiver, "throttled", 1)]})
    paceline.wait_for(lambda: of("throttled"), 20, "the first call")
    lane = lambda: paceline.request("GET", "/api/v1/users/throttled").body  # noqa: E731
    paceline.wait_for(lambda: lane()["throttled_until"], 10, "the lane is throttled")
    assert lane()["throttled_reason"] == "HTTP 503 with Retry-After 2"
    [entry] = paceline.wait_for_completions(1, "throttled")
    assert entry["attempt"] == 1
    assert of("throttled")[1] - of("throttled")[0] >= 1_900


def test_parked_task_runs_at_its_time_and_its_end_is_told_until_somebody_listens(
    paceline: Paceline, receiver: Receiver
) -> None:
    refused: list[Got] = []

    def deaf_at_first(got: Got) -> Reply:
        # Callbacks of earlier tests may still be sent.
        if got.path == "/scheduled-end" and not refused:
            refused.append(got)
            return Reply(500)
        return Reply()

    receiver.answer = deaf_at_first
    body = {"user_id": "scheduled", "delay_seconds": 2.5, "callback_url": receiver.url("/scheduled-end")}
    answer = paceline.request("POST", "/api/v1/task", body)
    assert (answer.status, answer.body["seq"], answer.body["queued"], answer.body["delay_ms"]) == (202, 0, True, 2500)
    [soon] = [paceline.submit("scheduled").body]
    entries = paceline.wait_for_completions(2, "scheduled")
    assert [entry["task_id"] for entry in entries] == [soon["task_id"], answer.body["task_id"]]
    assert entries[1]["started_at"] >= answer.body["planned_at"]
    sent = lambda: [got for got in receiver.got if got.path == "/scheduled-end"]  # noqa: E731
    paceline.wait_for(lambda: len(sent()) >= 2, 60, "the callback is sent again")
    assert sent()[0].headers["webhook-id"] == sent()[1].headers["webhook-id"]
    event = Webhook(SECRET).verify(sent()[1].body, dict(sent()[1].headers))
    assert (event["event"], event["task_id"]) == ("task_completed", answer.body["task_id"])


def test_address_that_is_not_allowed_is_refused_at_submit(paceline: Paceline) -> None:
    for body, field in (
        ({"task": "http", "payload": {"url": "http://169.254.169.254/latest/meta-data/"}}, "/payload/url"),
        ({"callback_url": "http://evil.example/"}, "/callback_url"),
    ):
        answer = paceline.request("POST", "/api/v1/task", {"user_id": "mallory", **body})
        assert (answer.status, answer.body["field"]) == (422, field)
