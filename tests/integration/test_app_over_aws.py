"""The app over AWS's own errors: what it answers while a table or a queue is missing, or its time is spent."""

import json
from typing import Any

import pytest

from chalicelib.aws.client import BUDGET_SECONDS
from tests.in_process import Deploy, Paceline

NO_QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/none.fifo"


def test_nothing_is_promised_while_aws_is_away(deploy: Deploy, user: str) -> None:
    for missing in ({"TABLE_NAME": "none"}, {"QUEUE_URL": NO_QUEUE}):
        response = deploy(**missing).submit(user)
        assert (response.status_code, response.headers["Content-Type"]) == (503, "application/problem+json")
        assert response.json_body["title"] == "Service unavailable"
        assert response.json_body["detail"]
        assert int(response.headers["Retry-After"]) >= 1


def test_health_names_each_service(paceline: Paceline) -> None:
    response = paceline.get("/health")
    assert response.status_code == 200
    assert response.json_body == {"status": "ok", "dynamodb": "ok", "sqs": "ok"}


@pytest.mark.parametrize(
    ("env", "sick", "well"),
    [
        ({"TABLE_NAME": "none"}, "dynamodb", "sqs"),
        ({"QUEUE_URL": NO_QUEUE}, "sqs", "dynamodb"),
        ({"QUEUE_URL": ""}, "sqs", "dynamodb"),
    ],
)
def test_health_says_what_is_wrong(deploy: Deploy, env: dict[str, str], sick: str, well: str) -> None:
    response = deploy(**env).get("/health")
    assert response.status_code == 503
    body = response.json_body
    assert (body["status"], body[well]) == ("unavailable", "ok")
    assert body[sick] not in ("ok", "")
    assert deploy(**env).get("/health-check").status_code == 200


def test_message_that_aws_keeps_from_running_is_reported_not_done(
    deploy: Deploy, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy().submit(user)
    paceline = deploy(TABLE_NAME="none")
    [record] = paceline.receive(user)
    assert paceline.work(record) == [record["messageId"]]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "task_unavailable"


def test_request_whose_time_is_spent_by_the_apps_clock_begins_no_further_call(paceline: Paceline, user: str) -> None:
    calls: list[str] = []

    def last_for_long(event_name: str, **_: Any) -> None:
        calls.append(event_name.rpartition(".")[2])
        paceline.clock.advance(1_000 * BUDGET_SECONDS + 1)

    for client in (paceline.parts.dynamodb, paceline.parts.sqs):
        client.meta.events.register("before-call", last_for_long)  # type: ignore[attr-defined]
    response = paceline.submit(user)
    assert (response.status_code, response.json_body["title"]) == (503, "Service unavailable")
    assert len(calls) == 1
