"""Failed tasks in DynamoDB: over all users by a sparse index in shards, one user's by its partition."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from chalicelib.aws.client import conditional, unavailable
from chalicelib.aws.dynamodb_directory import SPARE_KEYS, DynamoDBLaneDirectory
from chalicelib.aws.dynamodb_expression import AFTER_TASK_IDS, Expression, Item, key, number
from chalicelib.aws.dynamodb_failed_index import FAILED, FAILED_AT, FAILED_INDEX, FAILED_KEYS
from chalicelib.aws.dynamodb_pages import items_of
from chalicelib.aws.dynamodb_tasks import record_of
from chalicelib.core.task import Task, TaskRecord, TaskState, failure_cursor

#: Items of a user that one call reads to find its failed tasks.
READ_AT_ONCE = 500
#: The greatest cursor.
END = "~"


class DynamoDBFailedTasks:
    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = table_name
        self._directory = DynamoDBLaneDirectory(client, table_name)

    def newest(self, most: int, before: str | None) -> tuple[list[TaskRecord], str | None]:
        return self._page("", before or END, most, is_newest_first=True)

    def oldest(self, since: int, most: int, after: str | None) -> tuple[list[TaskRecord], str | None]:
        return self._page(max(f"{since:015d}", after or ""), END, most, is_newest_first=False)

    def of_user(self, user_id: str, since: int, most: int, after: str | None) -> tuple[list[TaskRecord], str | None]:
        with unavailable("listing failed tasks"):
            answer = self._client.query(
                TableName=self._table,
                KeyConditionExpression="user_id = :user AND #item BETWEEN :after AND :last",
                FilterExpression="#state = :failed AND completed_at >= :since",
                ExpressionAttributeNames={"#item": "item", "#state": "state"},
                ExpressionAttributeValues={
                    ":user": {"S": user_id},
                    ":after": {"S": f"{after} " if after else "!"},  # a blank sorts before all characters of an id
                    ":last": {"S": AFTER_TASK_IDS},
                    ":failed": {"S": TaskState.FAILED.value},
                    ":since": number(since),
                },
                ConsistentRead=True,
                Limit=READ_AT_ONCE,
            )
        records = [record_of(item) for item in answer["Items"]]
        if len(records) > most:
            return records[:most], records[most - 1].task.task_id
        last = answer.get("LastEvaluatedKey")
        return records, last["item"]["S"] if last else None

    def _page(self, after: str, before: str, most: int, is_newest_first: bool) -> tuple[list[TaskRecord], str | None]:
        """The tasks between the two cursors, neither of them included."""
        share = min(most + 1, most // len(FAILED_KEYS) + SPARE_KEYS)
        shards = [self._listed(shard, after, before, share, is_newest_first) for shard in FAILED_KEYS]
        keys = list(islice(heapq.merge(*shards, reverse=is_newest_first), most + 1))
        found = self._records(keys[:most])
        found.sort(key=failure_cursor, reverse=is_newest_first)
        return found, keys[most - 1][0] if len(keys) > most else None

    def _records(self, keys: Sequence[tuple[str, str, str]]) -> list[TaskRecord]:
        records = self._directory.tasks([(user_id, task_id) for _, user_id, task_id in keys])
        return [record for record in records if record.state is TaskState.FAILED]

    def _listed(
        self, shard: str, after: str, before: str, page: int, is_newest_first: bool
    ) -> Iterator[tuple[str, str, str]]:
        """Cursor, user id and task id of a shard's tasks, in order; reads a page at a time."""
        query: Item = {
            "TableName": self._table,
            "IndexName": FAILED_INDEX,
            "KeyConditionExpression": f"{FAILED} = :shard AND {FAILED_AT} BETWEEN :after AND :before",
            "ExpressionAttributeValues": {
                ":shard": {"S": shard},
                ":after": {"S": after or "!"},
                ":before": {"S": before},
            },
            "ScanIndexForward": not is_newest_first,
            "Limit": page,
        }
        for item in items_of(self._client, query, "listing failed tasks"):
            if (at := item[FAILED_AT]["S"]) not in (after, before):
                yield at, item["user_id"]["S"], item["item"]["S"]

    def reserve_redrive(self, task: Task, new_id: str) -> str | None:
        update = Expression()
        path = update.name("redriven_as")
        update.sets.append(f"{path} = if_not_exists({path}, {update.value({'S': new_id})})")
        update.conditions.append(f"{update.name('state')} = {update.value({'S': TaskState.FAILED.value})}")
        with conditional("reserving the id of a redrive") as condition:
            condition.item = self._client.update_item(
                TableName=self._table,
                Key=key(task.user_id, task.task_id),
                ReturnValues="ALL_NEW",
                **update.parameters(),
            )["Attributes"]
        return str(condition.item["redriven_as"]["S"]) if condition.holds else None

    def release_redrive(self, task: Task, new_id: str) -> None:
        update = Expression()
        update.remove("redriven_as")
        update.conditions.append(f"{update.name('redriven_as')} = {update.value({'S': new_id})}")
        with conditional("releasing the id of a redrive"):
            self._client.update_item(TableName=self._table, Key=key(task.user_id, task.task_id), **update.parameters())
