"""Counts of a user's scheduled tasks by due day, in DynamoDB: one item a user, an attribute for each day to come."""

from collections.abc import Mapping
from typing import Any

from chalicelib.aws.client import conditional
from chalicelib.aws.dynamodb_expression import Expression, integer, key, number

SCHEDULED_COUNTS_ITEM = "parked"
#: Counts the writes, and so orders the user's submits of scheduled tasks.
NUMBER = "number"
DAY_SECONDS = 86_400
#: Days without a write after which the item expires: a task is scheduled at most 13 days ahead.
KEPT_DAYS = 15


class DynamoDBScheduledCounts:
    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = table_name

    def add(self, user_id: str, today: int, days: Mapping[int, int], most: int) -> int | None:
        if max(days.values(), default=0) > most:
            return None  # the condition is true for a missing count, whatever the number added
        update = Expression()
        for day, count in days.items():
            path = update.name(f"day{day}")
            update.adds.append(f"{path} {update.value(number(count))}")
            room = update.value(number(most - count))
            update.conditions.append(f"(attribute_not_exists({path}) OR {path} <= {room})")
        for past in range(today - KEPT_DAYS, today):
            update.remove(f"day{past}")
        update.increment(NUMBER)
        update.set("expires_at", number((today + KEPT_DAYS) * DAY_SECONDS))
        with conditional("counting scheduled tasks") as condition:
            answer = self._client.update_item(
                TableName=self._table,
                Key=key(user_id, SCHEDULED_COUNTS_ITEM),
                ReturnValues="UPDATED_NEW",
                **update.parameters(),
            )
        return integer(answer["Attributes"], NUMBER) if condition.holds else None
