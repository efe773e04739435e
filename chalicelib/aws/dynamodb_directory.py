"""Lists lanes by their index, and reads many items in few calls."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from chalicelib.aws.client import unavailable
from chalicelib.aws.dynamodb_expression import AFTER_TASK_IDS, LANE_ITEM, LISTED, LISTED_KEYS, LISTED_SHARDS, Item, key
from chalicelib.aws.dynamodb_lane_items import lane_of
from chalicelib.aws.dynamodb_pages import items_of
from chalicelib.aws.dynamodb_tasks import record_of
from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import Lane
from chalicelib.core.task import TaskRecord

#: A sparse index that projects only keys: a lane is written to it once, when it is created. Its lanes are in shards.
LANE_INDEX = "lanes"
#: Keys that a page of a shard has beyond an equal share: most lists then need one page of each shard.
SPARE_KEYS = 16
#: Items that DynamoDB reads in one BatchGetItem at most.
BATCH_GET = 100
#: Calls for one batch; each repeats the keys that DynamoDB left unprocessed.
BATCH_TRIES = 4


class DynamoDBLaneDirectory:
    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = table_name

    def user_ids(self, prefix: str, after: str, limit: int) -> list[str]:
        # User ids are visible ASCII: "!" is their smallest character, and DEL is greater than all of them.
        first, last = max(prefix, f"{after}!"), f"{prefix}\x7f"
        if first > last:
            return []
        old, *shards = LISTED_KEYS
        share = min(limit, limit // LISTED_SHARDS + SPARE_KEYS)
        pages = {old: limit, **dict.fromkeys(shards, share)}
        merged = heapq.merge(*(self._listed(listed, first, last, page) for listed, page in pages.items()))
        return list(islice(dict.fromkeys(merged), limit))

    def _listed(self, listed: str, first: str, last: str, page: int) -> Iterator[str]:
        """The user ids of the lanes under one key of the index, in order; reads a page at a time."""
        query: Item = {
            "TableName": self._table,
            "IndexName": LANE_INDEX,
            "KeyConditionExpression": f"{LISTED} = :listed AND user_id BETWEEN :first AND :last",
            "ExpressionAttributeValues": {":listed": {"S": listed}, ":first": {"S": first}, ":last": {"S": last}},
            "Limit": page,
        }
        for item in items_of(self._client, query, "listing lanes"):
            yield item["user_id"]["S"]

    def lanes(self, user_ids: Sequence[str]) -> list[Lane]:
        items = self._items([key(user_id, LANE_ITEM) for user_id in user_ids])
        return [lane_of(item["user_id"]["S"], item) for item in items]

    def tasks(self, keys: Sequence[tuple[str, str]]) -> list[TaskRecord]:
        return [record_of(item) for item in self._items([key(*one) for one in keys])]

    def newest_tasks(self, user_id: str, up_to: str | None, limit: int) -> list[TaskRecord]:
        query: Item = {
            "TableName": self._table,
            "KeyConditionExpression": "user_id = :user AND #item <= :last",
            "ExpressionAttributeNames": {"#item": "item"},
            "ExpressionAttributeValues": {":user": {"S": user_id}, ":last": {"S": up_to or AFTER_TASK_IDS}},
            "ScanIndexForward": False,
            "Limit": limit,
        }
        with unavailable("listing tasks"):
            answer = self._client.query(**query)
        return [record_of(item) for item in answer["Items"]]

    def _items(self, keys: Sequence[Item]) -> list[Item]:
        batches = [keys[start : start + BATCH_GET] for start in range(0, len(keys), BATCH_GET)]
        return [item for batch in batches for item in self._batch(batch)]

    def _batch(self, keys: Sequence[Item]) -> list[Item]:
        found: list[Item] = []
        for _ in range(BATCH_TRIES):
            with unavailable("reading lanes"):
                answer = self._client.batch_get_item(RequestItems={self._table: {"Keys": keys}})
            found += answer["Responses"].get(self._table, [])
            keys = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            if not keys:
                return found
        raise UnavailableError(f"reading lanes: {len(keys)} items were left unprocessed")
