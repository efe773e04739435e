"""The index of lanes in DynamoDB: its shards, and lanes that an earlier version wrote before there were any."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any
from zlib import crc32

import pytest
from moto import mock_aws

from chalicelib.aws.dynamodb_directory import DynamoDBLaneDirectory
from chalicelib.aws.dynamodb_lanes import DynamoDBLaneStore
from chalicelib.core.admission import admit
from chalicelib.core.lane_changes import paused
from chalicelib.core.ports import Written
from tests.factories import NOW, make_settings
from tests.integration.aws import boto3_client, make_resources

LIMITS = make_settings().limits


@pytest.fixture
def over_dynamodb() -> Iterator[tuple[Any, str, DynamoDBLaneStore, DynamoDBLaneDirectory]]:
    """A DynamoDB client, the table's name, and the adapters over them."""
    with mock_aws():
        dynamodb = boto3_client("dynamodb")
        name = make_resources(dynamodb, boto3_client("sqs")).table
        yield dynamodb, name, DynamoDBLaneStore(dynamodb, name), DynamoDBLaneDirectory(dynamodb, name)


OverDynamoDB = tuple[Any, str, DynamoDBLaneStore, DynamoDBLaneDirectory]


def listed_key(dynamodb: Any, table: str, user_id: str) -> str:
    key = {"user_id": {"S": user_id}, "item": {"S": "lane"}}
    return str(dynamodb.get_item(TableName=table, Key=key)["Item"]["listed"]["S"])


def test_lanes_are_spread_over_the_shards_of_the_index(over_dynamodb: OverDynamoDB) -> None:
    """One partition of an index takes 1,000 writes a second, and each new lane is one."""
    dynamodb, table, lanes, _ = over_dynamodb
    users = [f"user-{number}" for number in range(200)]
    for user_id in users:
        lanes.try_fast_admit(user_id, LIMITS, NOW, "task-1")
    lanes_of = Counter(listed_key(dynamodb, table, user_id) for user_id in users)
    assert len(lanes_of) == 8
    assert max(lanes_of.values()) <= 200 // 8 * 2


@pytest.mark.parametrize("write", ["fast admission", "exact admission", "change"])
def test_no_write_moves_a_lane_in_the_index(over_dynamodb: OverDynamoDB, write: str) -> None:
    dynamodb, table, lanes, _ = over_dynamodb
    seen = lanes.try_fast_admit("ann", LIMITS, NOW, "task-1").lane
    put_old_lane(dynamodb, table, "bob")
    for lane, listed in ((seen, listed_key(dynamodb, table, "ann")), (lanes.get("bob"), "lane")):
        if write == "fast admission":
            written = lanes.try_fast_admit(lane.user_id, LIMITS, NOW + 90_000, "task-2")
        elif write == "exact admission":
            written = lanes.admit(lane, admit(lane, LIMITS, NOW + 90_000, "task-2"))
        else:
            written = lanes.change(lane, paused(lane, NOW + 90_000, LIMITS, NOW))
        assert isinstance(written, Written)
        assert listed_key(dynamodb, table, lane.user_id) == listed


def put_old_lane(dynamodb: Any, table: str, user_id: str) -> None:
    """As the version before the shards left it."""
    item = {"user_id": {"S": user_id}, "item": {"S": "lane"}, "listed": {"S": "lane"}}
    plans = {"admitted": {"N": "1"}, "planned": {"L": [{"N": str(NOW)}]}}
    dynamodb.put_item(TableName=table, Item=item | plans)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_lanes_of_an_earlier_version_are_listed_among_the_others(over_dynamodb: OverDynamoDB, size: int) -> None:
    dynamodb, table, lanes, directory = over_dynamodb
    users = [f"user-{number:02}" for number in range(60)]
    for number, user_id in enumerate(users):
        if number % 3:
            lanes.try_fast_admit(user_id, LIMITS, NOW, "task-1")
        else:
            put_old_lane(dynamodb, table, user_id)
    seen, after = list[str](), ""
    while page := directory.user_ids("user-", after, size):
        seen += page
        after = page[-1]
        for user_id in users[len(seen) % 5 :: 5]:
            lanes.try_fast_admit(user_id, LIMITS, NOW + 90_000, "task-2")
    assert seen == users


def test_all_lanes_of_one_shard_are_listed(over_dynamodb: OverDynamoDB) -> None:
    """More of them than a page of the shard holds."""
    dynamodb, table, lanes, directory = over_dynamodb
    names = (f"user-{number:04}" for number in range(10_000))
    users = list(islice((name for name in names if crc32(name.encode()) % 8 == 5), 100))
    for user_id in users:
        lanes.try_fast_admit(user_id, LIMITS, NOW, "task-1")
    assert {listed_key(dynamodb, table, user_id) for user_id in users} == {"lane#5"}
    assert directory.user_ids("", "", 70) == users[:70]
    assert directory.user_ids("", "", 200) == users
