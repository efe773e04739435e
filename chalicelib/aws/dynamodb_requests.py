"""Requests that came with an Idempotency-Key, in DynamoDB."""

import json
from typing import Any

from chalicelib.aws.client import conditional
from chalicelib.aws.dynamodb_expression import Expression, Item, integer, key, number
from chalicelib.core.ports import RequestRecord

#: Seconds for which a key is remembered.
REQUEST_KEPT_SECONDS = 7 * 24 * 3600


class DynamoDBRequestStore:
    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = table_name

    def begin(self, record: RequestRecord, abandoned_before: int) -> RequestRecord:
        with conditional("storing the request") as condition:
            condition.item = self._client.update_item(
                TableName=self._table,
                Key=_key(record),
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **begin_expression(record, abandoned_before).parameters(),
            )["Attributes"]
        return _record_of(record, condition.item)

    def finish(self, record: RequestRecord, answer: dict[str, Any]) -> None:
        update = Expression()
        update.set("answer", {"S": json.dumps(answer)})
        self._update(record, update)

    def abandon(self, record: RequestRecord) -> None:
        update = Expression()
        update.set("begun_at", number(0))
        self._update(record, update)

    def forget(self, record: RequestRecord) -> None:
        with conditional("forgetting the request"):
            self._client.delete_item(
                TableName=self._table,
                Key=_key(record),
                ConditionExpression="#owner = :owner",
                ExpressionAttributeNames={"#owner": "owner"},
                ExpressionAttributeValues={":owner": {"S": record.owner}},
            )

    def _update(self, record: RequestRecord, update: Expression) -> None:
        """Writes if this process owns the record; if another serves the request, nothing changes."""
        update.conditions.append(f"{update.name('owner')} = {update.value({'S': record.owner})}")
        with conditional("storing the request"):
            self._client.update_item(TableName=self._table, Key=_key(record), **update.parameters())


def begin_expression(record: RequestRecord, abandoned_before: int) -> Expression:
    update = Expression()
    for attribute, value in (("fingerprint", record.fingerprint), ("first_id", record.first_id)):
        path = update.name(attribute)
        update.sets.append(f"{path} = if_not_exists({path}, {update.value({'S': value})})")
    update.set("begun_at", number(record.begun_at))
    update.set("owner", {"S": record.owner})
    update.set("expires_at", number(record.begun_at // 1000 + REQUEST_KEPT_SECONDS))
    update.increment("served")
    begun, before = update.name("begun_at"), update.value(number(abandoned_before))
    same = f"{update.name('fingerprint')} = {update.value({'S': record.fingerprint})}"
    answer = f"attribute_not_exists({update.name('answer')})"
    update.conditions.append(f"(attribute_not_exists({begun}) OR ({begun} < {before} AND {answer} AND {same}))")
    return update


def _key(record: RequestRecord) -> Item:
    return key(record.user_id, f"request#{record.key}")


def _record_of(asked: RequestRecord, item: Item) -> RequestRecord:
    return RequestRecord(
        asked.user_id,
        asked.key,
        fingerprint=item["fingerprint"]["S"],
        first_id=item["first_id"]["S"],
        begun_at=integer(item, "begun_at"),
        owner=item["owner"]["S"],
        answer=json.loads(item["answer"]["S"]) if "answer" in item else None,
        is_repeat=integer(item, "served") > 1,
    )
