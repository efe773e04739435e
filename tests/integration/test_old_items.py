"""Items of earlier forms: lanes with other names of their attributes, records that hold a large payload."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from chalicelib.aws.dynamodb_lanes import DynamoDBLaneStore
from chalicelib.aws.dynamodb_tasks import DynamoDBTaskStore
from chalicelib.core.claim import Candidate, Start, claim
from chalicelib.core.lane import Lane
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import Stale, Written
from chalicelib.core.task import FailedAttempt, Outcome, TaskRecord, TaskState
from tests.factories import NOW, make_task
from tests.integration.aws import boto3_client, make_resources

LIMITS = parse_limits("1/second; 20/minute")
OLD_ITEM: dict[str, Any] = {
    "user_id": {"S": "ann"},
    "item": {"S": "lane"},
    "admitted": {"N": "1"},
    "planned": {"L": [{"N": str(NOW)}]},
    "held_until": {"N": str(NOW + 60_000)},
    "held_reason": {"S": "HTTP 429"},
    "parked": {"S": "receipt-1"},
}


@pytest.fixture
def table() -> Iterator[tuple[Any, str]]:
    """A DynamoDB client, and the name of the table that holds the old item."""
    with mock_aws():
        dynamodb = boto3_client("dynamodb")
        name = make_resources(dynamodb, boto3_client("sqs")).table
        dynamodb.put_item(TableName=name, Item=OLD_ITEM)
        yield dynamodb, name


@pytest.fixture
def lanes(table: tuple[Any, str]) -> DynamoDBLaneStore:
    return DynamoDBLaneStore(*table)


def start_of(lane: Lane, now_ms: int) -> Start:
    decision = claim(lane, Candidate("t1", 1, NOW), LIMITS, now_ms, 10_000, "token")
    assert isinstance(decision, Start)
    return decision


def test_an_old_item_is_read(lanes: DynamoDBLaneStore) -> None:
    lane = lanes.get("ann")
    assert (lane.throttled_until, lane.throttled_reason) == (NOW + 60_000, "HTTP 429")
    assert lane.head_receipt == "receipt-1"


def test_no_fast_write_overlooks_that_an_old_item_is_throttled(lanes: DynamoDBLaneStore) -> None:
    idle = Lane("ann", admitted=1)
    assert isinstance(lanes.try_fast_claim(start_of(idle, NOW), LIMITS), Stale)
    assert isinstance(lanes.try_fast_admit("ann", LIMITS, NOW + 5_000, "t2"), Stale)


def test_an_exact_claim_and_a_new_receipt_leave_no_old_name(table: tuple[Any, str], lanes: DynamoDBLaneStore) -> None:
    lane = lanes.get("ann")
    assert isinstance(lanes.claim(lane, start_of(lane, NOW + 60_000)), Written)
    assert isinstance(lanes.save_head_receipt(lanes.get("ann"), "receipt-2"), Written)
    dynamodb, name = table
    item = dynamodb.get_item(TableName=name, Key={"user_id": {"S": "ann"}, "item": {"S": "lane"}})["Item"]
    assert not {"held_until", "held_reason", "parked"} & set(item)
    assert lanes.get("ann").head_receipt == "receipt-2"


def test_a_record_that_holds_a_large_payload_is_read_and_finished(table: tuple[Any, str]) -> None:
    """As all records did before payloads got items of their own."""
    dynamodb, name = table
    task, tasks = make_task(1, payload="x" * 5_000), DynamoDBTaskStore(*table)
    record = {
        "user_id": {"S": "ann"},
        "item": {"S": task.task_id},
        "seq": {"N": "1"},
        "task": {"S": "log"},
        "payload": {"S": json.dumps(task.payload)},
        "planned_at": {"N": str(NOW)},
        "submitted_at": {"N": str(NOW)},
        "state": {"S": "queued"},
        "expires_at": {"N": str(NOW // 1000)},
    }
    dynamodb.put_item(TableName=name, Item=record)
    assert tasks.get("ann", task.task_id) == TaskRecord(task)
    assert tasks.between("ann", 1, 1, 1) == [TaskRecord(task)]
    failed = FailedAttempt(1, NOW, NOW, "no")
    tasks.attempt_failed(task, failed)
    outcome = Outcome(TaskState.SUCCEEDED, NOW, NOW + 9, 2)
    tasks.finish(task, outcome)
    stored = TaskRecord(task, TaskState.SUCCEEDED, outcome, 2, failed_attempts=(failed,))
    assert tasks.get("ann", task.task_id) == stored
