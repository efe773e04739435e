import json
from typing import Any

import pytest

from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline
from tests.unit.workshop import Failing


def only(records: list[dict[str, Any]]) -> dict[str, Any]:
    [record] = records
    return record


def test_message_that_is_due_runs_and_is_reported_done(paceline: Paceline, user: str) -> None:
    task = paceline.submit(user, {"n": 1}).json_body
    assert paceline.work(only(paceline.receive(user))) == []
    [event] = paceline.events
    assert (event["event"], event["user_id"], event["task_id"]) == ("task_completed", user, task["task_id"])
    assert (event["planned_at"], event["started_at"], event["completed_at"], event["late_ms"]) == (NOW, NOW, NOW, 0)
    assert (event["seq"], event["attempt"], event["task"]) == (1, 1, "log")


def test_completion_metrics_name_every_figure_that_they_refer_to(paceline: Paceline, user: str) -> None:
    paceline.submit(user)
    paceline.work(only(paceline.receive(user)))
    [event] = paceline.events
    [directive] = event["_aws"]["CloudWatchMetrics"]
    names = {metric["Name"] for metric in directive["Metrics"]}
    assert names == {"task_completed", "run_ms", "late_ms"}
    assert names | {"stage"} <= set(event)
    assert user not in json.dumps(directive)


def test_message_that_is_early_is_reported_not_done_and_stays(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="1/10 seconds")
    for _ in range(2):
        paceline.submit(user)
    first, second = paceline.receive(user)
    assert paceline.work(first) == []
    assert paceline.work(second) == [second["messageId"]]
    assert len(paceline.events) == paceline.parts.lanes.get(user).started == 1
    paceline.clock.advance(10_000)
    assert paceline.work(second) == []
    assert [event["started_at"] - NOW for event in paceline.events] == [0, 10_000]


def test_waits_of_about_a_second_within_a_batch_are_slept(paceline: Paceline, user: str) -> None:
    for _ in range(5):
        paceline.submit(user)
    records = paceline.receive(user)
    assert paceline.work(*records) == []
    assert [event["started_at"] - NOW for event in paceline.events] == [0, 1_000, 2_000, 3_000, 4_000]


def test_batch_of_two_lanes_reports_the_deferred_one_and_what_is_behind_it_only(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="1/10 seconds")
    ann, bob = f"{user}-a", f"{user}-b"
    for _ in range(3):
        paceline.submit(ann)
    paceline.submit(bob)
    first, second, third, other = sorted(paceline.receive(ann, bob), key=lambda record: bob in record["body"])
    assert paceline.work(first, second, third, other) == [second["messageId"], third["messageId"]]
    assert [event["user_id"] for event in paceline.events] == [ann, bob]


def test_message_delivered_twice_runs_once(paceline: Paceline, user: str) -> None:
    paceline.submit(user)
    record = only(paceline.receive(user))
    assert paceline.work(record) == []
    assert paceline.work(record) == []
    assert len(paceline.events) == 1


def test_message_that_aws_fails_is_hidden_by_the_receives_that_its_event_counts(paceline: Paceline, user: str) -> None:
    paceline.submit(user)
    record = only(paceline.receive(user))
    record["attributes"]["ApproximateReceiveCount"] = "3"
    lanes = paceline.parts.lanes = Failing(paceline.parts.lanes)  # type: ignore[misc, assignment]
    lanes.fail("try_fast_claim")
    assert paceline.work(record) == [record["messageId"]]
    paceline.clock.advance(3_999)
    assert paceline.receive(user) == []
    paceline.clock.advance(1)
    assert paceline.work(only(paceline.receive(user))) == []
    assert len(paceline.events) == 1


def test_poison_message_is_buried_and_reported_done(paceline: Paceline, user: str) -> None:
    record = {
        "messageId": f"poison-{user}",
        "receiptHandle": "none",
        "body": "{not json",
        "attributes": {"MessageGroupId": user, "ApproximateReceiveCount": "1", "SentTimestamp": str(NOW)},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
    }
    assert paceline.work(record) == []
    paceline.submit(user)
    assert paceline.work(only(paceline.receive(user))) == []
    assert paceline.queues.dead_letters() == ["{not json"]


@pytest.mark.parametrize("payload", ["a\nb", '"}\n{"event":"task_completed"}', "\u2028\u2029\x85\r\x0b"])
def test_payload_and_result_can_not_write_lines_of_their_own(paceline: Paceline, user: str, payload: str) -> None:
    paceline.submit(user, payload)
    paceline.work(only(paceline.receive(user)))
    [file] = paceline.log_dir.rglob("*.log")
    assert len(file.read_text().splitlines()) == 1


def test_empty_batch_has_no_failures(paceline: Paceline) -> None:
    assert paceline.work() == []
