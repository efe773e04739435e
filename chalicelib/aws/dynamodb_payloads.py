"""Payloads in items of their own, so that they are written once.

DynamoDB bills a write by the item's whole KB, and a task's record is written again at its end. So a payload that would
make both writes dearer gets its own item, written before the record. Its expiry is set with it: to set it at the task's
end would cost as much as to write the payload again. `keep` moves the expiry where a lane is stopped for weeks.
"""

import json
from collections.abc import Iterator
from typing import Any

from chalicelib.aws.client import conditional, unavailable
from chalicelib.aws.dynamodb_expression import AFTER_TASK_IDS, Expression, Item, key, number
from chalicelib.aws.dynamodb_pages import items_of
from chalicelib.aws.dynamodb_size import units_of_bytes
from chalicelib.core.task import Json, Task, to_json

#: Sort key of a payload's item, before the task's id.
PAYLOAD_PREFIX = "payload#"
#: Seconds after its task's planned start for which a payload is kept: longer than the record of a finished task.
PAYLOAD_KEPT_SECONDS = 35 * 24 * 3600
#: Seconds after which `keep` moves the expiry of an unfinished task's payload again.
KEPT_AGAIN_AFTER_SECONDS = 10 * 24 * 3600
#: Payloads whose expiry one call of `keep` moves at most: a few seconds of writes.
KEPT_AT_ONCE = 1_000
#: Bytes of a record besides its texts, at the submit and with an outcome; and of a payload's item.
SUBMITTED_BYTES, FINISHED_BYTES, PAYLOAD_ITEM_BYTES = 92, 153, 42


class DynamoDBPayloads:
    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = table_name

    def read(self, user_id: str, task_id: str) -> tuple[Json] | None:
        """Returns the payload in a tuple of one, since it may be None; None if it is not stored."""
        with unavailable("reading the payload"):
            answer = self._client.get_item(
                TableName=self._table, Key=payload_key(user_id, task_id), ConsistentRead=True
            )
        return (json.loads(answer["Item"]["payload"]["S"]),) if "Item" in answer else None

    def put_if_missing(self, task: Task) -> None:
        """Stores the payload if its record may have been created without it: its submit died, and a worker did."""
        with unavailable("looking for the payload"):
            answer = self._client.get_item(
                TableName=self._table, Key=payload_key(task.user_id, task.task_id), ProjectionExpression="user_id"
            )
        if "Item" not in answer:
            update = Expression()
            for attribute, value in payload_item(task).items():
                if attribute not in ("user_id", "item"):
                    update.set(attribute, value)
            update.absent("user_id")
            with conditional("storing the payload"):
                self._client.update_item(
                    TableName=self._table, Key=payload_key(task.user_id, task.task_id), **update.parameters()
                )

    def keep(self, user_id: str, now_ms: int) -> None:
        """Keeps the payloads of the user's unfinished tasks for PAYLOAD_KEPT_SECONDS from now on."""
        until = now_ms // 1000 + PAYLOAD_KEPT_SECONDS
        expiring = set(self._expiring(user_id, until - KEPT_AGAIN_AFTER_SECONDS))
        unfinished = self._unfinished(user_id) if expiring else iter(())
        kept = [task_id for task_id in unfinished if task_id in expiring]
        for task_id in kept[:KEPT_AT_ONCE]:
            update = Expression()
            update.set("expires_at", number(until))
            update.conditions.append("attribute_exists(user_id)")  # or it would come back without its payload
            with conditional("keeping a payload"):
                self._client.update_item(
                    TableName=self._table, Key=payload_key(user_id, task_id), **update.parameters()
                )

    def _expiring(self, user_id: str, before: int) -> Iterator[str]:
        """The ids of the tasks whose payloads expire before that time, epoch seconds."""
        for item in self._query(
            {
                "KeyConditionExpression": "user_id = :user AND begins_with(#item, :prefix)",
                "FilterExpression": "expires_at < :before",
                "ExpressionAttributeValues": {
                    ":user": {"S": user_id},
                    ":prefix": {"S": PAYLOAD_PREFIX},
                    ":before": number(before),
                },
            }
        ):
            yield item["item"]["S"].removeprefix(PAYLOAD_PREFIX)

    def _unfinished(self, user_id: str) -> Iterator[str]:
        """The ids of the user's unfinished tasks whose payloads have items of their own, oldest first."""
        for item in self._query(
            {
                "KeyConditionExpression": "user_id = :user AND #item < :last",
                "FilterExpression": "#state = :queued AND attribute_not_exists(payload)",
                "ExpressionAttributeNames": {"#state": "state"},
                "ExpressionAttributeValues": {
                    ":user": {"S": user_id},
                    ":last": {"S": AFTER_TASK_IDS},
                    ":queued": {"S": "queued"},
                },
            }
        ):
            yield item["item"]["S"]

    def _query(self, query: Item) -> Iterator[Item]:
        """The sort keys of the found items, over all pages."""
        names = {"#item": "item", **query.pop("ExpressionAttributeNames", {})}
        query |= {"TableName": self._table, "ProjectionExpression": "#item", "ExpressionAttributeNames": names}
        return items_of(self._client, query, "looking for payloads")


def is_apart(task: Task, payload: str) -> bool:
    """True if two writes of the record and one of the payload take fewer units than two of a record that holds it.

    payload: as JSON. Decided by what never changes in a task; stores read records of both kinds.
    """
    texts = (task.user_id, task.task_id, task.name, task.callback_url or "")
    others, payload_bytes = sum(len(text.encode()) for text in texts), len(payload.encode())
    record = [units_of_bytes(size + others) for size in (SUBMITTED_BYTES, FINISHED_BYTES)]
    together = [units_of_bytes(size + others + payload_bytes) for size in (SUBMITTED_BYTES, FINISHED_BYTES)]
    item = PAYLOAD_ITEM_BYTES + len(task.user_id) + len(task.task_id) + payload_bytes
    return sum(record) + units_of_bytes(item) < sum(together)


def payload_item(task: Task) -> Item:
    return {
        **payload_key(task.user_id, task.task_id),
        "payload": {"S": to_json(task.payload)},
        "expires_at": number(task.planned_at // 1000 + PAYLOAD_KEPT_SECONDS),
    }


def payload_key(user_id: str, task_id: str) -> Item:
    return key(user_id, f"{PAYLOAD_PREFIX}{task_id}")
