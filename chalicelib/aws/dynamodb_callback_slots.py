"""A user's running callbacks in DynamoDB: one item a user, a numbered attribute for each that may run at once."""

from collections.abc import Sequence
from typing import Any

from chalicelib.aws.client import conditional
from chalicelib.aws.dynamodb_expression import Expression, Item, integer, key, number

CALLBACK_SLOTS_ITEM = "running-callbacks"
#: Seconds after the last slot's end at which the item expires.
KEPT_SECONDS = 86_400


class DynamoDBCallbackSlots:
    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = table_name

    def take(self, user_id: str, now_ms: int, until_ms: int, most: int) -> int | None:
        # Processes begin with different slots, so that most need one write.
        free: Sequence[int] = [until_ms % most]
        for _ in range(most):
            if not free:
                return None
            slot = free[0]
            item = self._try(user_id, slot, now_ms, until_ms)
            if item is None:
                return slot
            free = [one for one in range(most) if integer(item, f"slot{one}") <= now_ms]
        return None

    def _try(self, user_id: str, slot: int, now_ms: int, until_ms: int) -> Item | None:
        """Takes one slot; the item as it is if the slot is not free."""
        update = Expression()
        path = update.name(f"slot{slot}")
        update.conditions.append(f"(attribute_not_exists({path}) OR {path} <= {update.value(number(now_ms))})")
        update.set(f"slot{slot}", number(until_ms))
        update.set("expires_at", number(until_ms // 1000 + KEPT_SECONDS))
        with conditional("taking a slot for a callback") as condition:
            self._client.update_item(
                TableName=self._table,
                Key=key(user_id, CALLBACK_SLOTS_ITEM),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **update.parameters(),
            )
        return None if condition.holds else condition.item or {}

    def give_back(self, user_id: str, slot: int, until_ms: int) -> None:
        update = Expression()
        update.equals(f"slot{slot}", until_ms)
        update.remove(f"slot{slot}")
        with conditional("giving back a slot of a callback"):
            self._client.update_item(
                TableName=self._table, Key=key(user_id, CALLBACK_SLOTS_ITEM), **update.parameters()
            )
