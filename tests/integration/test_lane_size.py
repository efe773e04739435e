"""The size of lane items: DynamoDB bills each write of a lane by its whole KB, and a lane is written twice a task."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from moto import mock_aws

from chalicelib.aws.dynamodb_lanes import DynamoDBLaneStore
from chalicelib.aws.dynamodb_size import write_units
from chalicelib.core.admission import admit
from chalicelib.core.claim import Candidate, Start, claim
from chalicelib.core.lane import Lane
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import Stale, Write, Written
from chalicelib.submit.idempotency import ids_from
from tests.factories import NOW
from tests.integration.aws import boto3_client, make_resources

LIMITS = parse_limits("1/second; 20/minute")
FIRST_ID = "01a201c6-2ed8-78ae-98d6-419040bdc8e3"
USER = "customer-4711@example.com"
#: Real handles have 324 to 432 characters; SQS allows 1,024.
RECEIPT = "AQEB" + "x" * 428
TASKS = 60


@pytest.fixture
def read() -> Iterator[tuple[DynamoDBLaneStore, Callable[[], dict[str, Any]]]]:
    """A store, and a function that reads the lane's item."""
    with mock_aws():
        dynamodb = boto3_client("dynamodb")
        table = make_resources(dynamodb, boto3_client("sqs")).table
        key = {"user_id": {"S": USER}, "item": {"S": "lane"}}
        yield DynamoDBLaneStore(dynamodb, table), lambda: dynamodb.get_item(TableName=table, Key=key)["Item"]


def written(write: Write) -> Lane:
    assert isinstance(write, Written)
    return write.lane


def submit(lanes: DynamoDBLaneStore, task_id: str, now_ms: int) -> Lane:
    write = lanes.try_fast_admit(USER, LIMITS, now_ms, task_id)
    return written(
        lanes.admit(write.lane, admit(write.lane, LIMITS, now_ms, task_id)) if isinstance(write, Stale) else write
    )


def start(lanes: DynamoDBLaneStore, lane: Lane, task_id: str, seq: int, is_exact: bool) -> Lane:
    token = f"{task_id}-token"
    decision = claim(lane, Candidate(task_id, seq, NOW), LIMITS, NOW + seq * 3_000, 10_000, token)
    assert isinstance(decision, Start)
    write = lanes.claim(lane, decision) if is_exact else lanes.try_fast_claim(decision, LIMITS)
    return written(lanes.claim(write.lane, decision) if isinstance(write, Stale) else write)


Stored = tuple[DynamoDBLaneStore, Callable[[], dict[str, Any]]]


@pytest.mark.parametrize("is_exact", [False, True], ids=["quick claims", "exact claims"])
def test_writes_of_a_lane_that_waited_take_one_unit(read: Stored, is_exact: bool) -> None:
    lanes, item = read
    ids = ids_from(FIRST_ID, TASKS)
    for task_id in ids:
        submit(lanes, task_id, NOW)
    units = []
    for seq, task_id in enumerate(ids, 1):
        lane = written(lanes.save_head_receipt(lanes.get(USER), RECEIPT))
        start(lanes, lane, task_id, seq, is_exact)
        units.append(write_units(item()))
    assert units == [1] * TASKS


def test_writes_of_a_lane_with_full_lists_take_one_unit(read: Stored) -> None:
    """Within the limits each list grows until it is trimmed."""
    lanes, item = read
    units = []
    for seq, task_id in enumerate(ids_from(FIRST_ID, TASKS), 1):
        submit(lanes, task_id, NOW + seq * 3_000)
        units.append(write_units(item()))
        start(lanes, lanes.get(USER), task_id, seq, is_exact=False)
        units.append(write_units(item()))
    assert units == [1] * 2 * TASKS
