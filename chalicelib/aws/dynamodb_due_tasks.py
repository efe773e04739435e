"""The order of a user's scheduled tasks, in DynamoDB: an item for each, and one that says who admits them."""

from collections.abc import Sequence
from typing import Any

from chalicelib.aws.client import NotRepeatedError, conditional, unavailable
from chalicelib.aws.dynamodb_batch import BATCH_WRITE, put_batch
from chalicelib.aws.dynamodb_expression import Expression, Item, key, number
from chalicelib.core.scheduled import DueTask

#: Sort key of the item that says who admits the user's scheduled tasks, and prefix of those that list them.
ADMITTING_ITEM = "scheduled"
LISTED_PREFIX = "scheduled#"
#: Seconds after its time for which an item is kept: longer than its task's message lives.
KEPT_SECONDS = 15 * 86_400


class DynamoDBDueTasks:
    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = table_name

    def add(self, user_id: str, tasks: Sequence[DueTask]) -> None:
        for start in range(0, len(tasks), BATCH_WRITE):
            items = [_item(user_id, task) for task in tasks[start : start + BATCH_WRITE]]
            try:
                self._put(items)
            except NotRepeatedError:
                for item in items:
                    self._put([item])

    def _put(self, items: Sequence[Item]) -> None:
        if len(items) > 1:
            put_batch(self._client, self._table, items, "listing scheduled tasks")
            return
        with unavailable("listing a scheduled task"):
            self._client.put_item(TableName=self._table, Item=items[0])

    def due(self, user_id: str, now_ms: int, most: int) -> list[DueTask]:
        with unavailable("reading the scheduled tasks that are due"):
            answer = self._client.query(
                TableName=self._table,
                KeyConditionExpression="user_id = :user AND #item BETWEEN :first AND :last",
                ExpressionAttributeNames={"#item": "item"},
                ExpressionAttributeValues={
                    ":user": {"S": user_id},
                    ":first": {"S": LISTED_PREFIX},
                    ":last": {"S": f"{LISTED_PREFIX}{now_ms + 1:015d}"},
                },
                ConsistentRead=True,
                Limit=most,
            )
        return [_task_of(item["item"]["S"]) for item in answer["Items"]]

    def remove(self, user_id: str, tasks: Sequence[DueTask]) -> None:
        for task in tasks:
            with unavailable("taking a scheduled task off the list"):
                self._client.delete_item(TableName=self._table, Key=key(user_id, _sort_key(task)))

    def try_begin_admitting(self, user_id: str, token: str, now_ms: int, until: int) -> bool:
        update = Expression()
        update.set("token", {"S": token})
        update.set("until", number(until))
        update.set("expires_at", number(until // 1000 + KEPT_SECONDS))
        free = f"{update.name('until')} <= {update.value(number(now_ms))}"
        mine = f"{update.name('token')} = {update.value({'S': token})}"  # an earlier call whose answer was lost
        update.conditions.append(f"(attribute_not_exists({update.name('until')}) OR {free} OR {mine})")
        with conditional("beginning to admit scheduled tasks") as condition:
            self._client.update_item(TableName=self._table, Key=key(user_id, ADMITTING_ITEM), **update.parameters())
        return condition.holds

    def end_admitting(self, user_id: str, token: str) -> None:
        update = Expression()
        update.set("until", number(0))
        update.conditions.append(f"{update.name('token')} = {update.value({'S': token})}")
        with conditional("ending to admit scheduled tasks"):
            self._client.update_item(TableName=self._table, Key=key(user_id, ADMITTING_ITEM), **update.parameters())


def _item(user_id: str, task: DueTask) -> Item:
    return {**key(user_id, _sort_key(task)), "expires_at": number(task.run_at // 1000 + KEPT_SECONDS)}


def _sort_key(task: DueTask) -> str:
    return f"{LISTED_PREFIX}{task.run_at:015d}#{task.number:015d}#{task.index:03d}#{task.task_id}"


def _task_of(sort_key: str) -> DueTask:
    run_at, order, index, task_id = sort_key.removeprefix(LISTED_PREFIX).split("#", 3)
    return DueTask(int(run_at), int(order), int(index), task_id)
