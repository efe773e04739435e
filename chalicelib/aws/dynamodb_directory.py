"""Which lanes there are: the index that names them, and many items in few calls."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from chalicelib.aws.client import unavailable
from chalicelib.aws.dynamodb_expression import LANE_ITEM, LISTED, LISTED_LANE, Item, key
from chalicelib.aws.dynamodb_lanes import lane_of
from chalicelib.aws.dynamodb_tasks import record_of
from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import Lane
from chalicelib.core.task import TaskRecord

#: A sparse index with nothing but keys: a lane is written to it once, when it is made.
LANE_INDEX = "lanes"
#: Items that one BatchGetItem gives, and the calls that are under way at once.
BATCH_GET = 100
CALLS_AT_ONCE = 8
#: How often what a batch left out is asked for again.
BATCH_TRIES = 4


class DynamoDBLaneDirectory:
    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = table_name

    def user_ids(self, prefix: str, most: int) -> list[str]:
        query: Item = {
            "TableName": self._table,
            "IndexName": LANE_INDEX,
            "KeyConditionExpression": f"{LISTED} = :lane",
            "ExpressionAttributeValues": {":lane": LISTED_LANE},
            "Limit": most,
        }
        if prefix:
            query["KeyConditionExpression"] += " AND begins_with(user_id, :prefix)"
            query["ExpressionAttributeValues"][":prefix"] = {"S": prefix}
        found: list[str] = []
        while len(found) < most:
            with unavailable("listing lanes"):
                answer = self._client.query(**query)
            found += [item["user_id"]["S"] for item in answer["Items"]]
            if "LastEvaluatedKey" not in answer:
                break
            query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        return found[:most]

    def lanes(self, user_ids: Sequence[str]) -> list[Lane]:
        items = self._items([key(user_id, LANE_ITEM) for user_id in user_ids])
        return [lane_of(item["user_id"]["S"], item) for item in items]

    def tasks(self, keys: Sequence[tuple[str, str]]) -> list[TaskRecord]:
        return [record_of(item) for item in self._items([key(*one) for one in keys])]

    def _items(self, keys: Sequence[Item]) -> list[Item]:
        batches = [keys[start : start + BATCH_GET] for start in range(0, len(keys), BATCH_GET)]
        return [item for items in _all_at_once(self._batch, batches) for item in items]

    def _batch(self, keys: Sequence[Item]) -> list[Item]:
        found: list[Item] = []
        for _ in range(BATCH_TRIES):
            with unavailable("reading lanes"):
                answer = self._client.batch_get_item(RequestItems={self._table: {"Keys": keys}})
            found += answer["Responses"].get(self._table, [])
            keys = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            if not keys:
                return found
        raise UnavailableError(f"reading lanes: {len(keys)} were not given")


def _all_at_once(call: Callable[[Sequence[Item]], list[Item]], batches: Sequence[Sequence[Item]]) -> list[list[Item]]:
    if len(batches) < 2:
        return [call(batch) for batch in batches]
    with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        return list(pool.map(call, batches))
