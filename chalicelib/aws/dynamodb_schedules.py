"""Schedules in DynamoDB: an item for each, and one for each user with the names, which the index of lanes lists.

So a deployment without schedules stores nothing and reads nothing for them.
"""

import json
from typing import Any

import msgspec

from chalicelib.aws.client import conditional, unavailable
from chalicelib.aws.dynamodb_directory import LANE_INDEX
from chalicelib.aws.dynamodb_expression import LISTED, Expression, Item, key, number
from chalicelib.core.schedule import Schedule

#: Sort key of the item with a user's names, and prefix of its schedules.
NAMES_ITEM = "schedules"
SCHEDULE_PREFIX = "schedule#"
#: Key in the index of lanes; those of lanes differ. One key takes 1,000 users' first schedules a second.
LISTED_SCHEDULES = "schedules"
#: Key of the item about the search for lost messages. A user id has no space.
SEARCH_KEY = key(" schedules", "search")


class DynamoDBScheduleStore:
    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = table_name

    def get(self, user_id: str, name: str) -> Schedule | None:
        with unavailable("reading the schedule"):
            answer = self._client.get_item(TableName=self._table, Key=_key(user_id, name), ConsistentRead=True)
        return _schedule_of(answer["Item"]) if "Item" in answer else None

    def page(self, user_id: str, after: str, limit: int) -> tuple[list[Schedule], str | None]:
        # Names are ASCII: a space sorts before each of their characters, and DEL after.
        first, last = f"{SCHEDULE_PREFIX}{after} ", f"{SCHEDULE_PREFIX}\x7f"
        with unavailable("listing schedules"):
            answer = self._client.query(
                TableName=self._table,
                KeyConditionExpression="user_id = :user AND #item BETWEEN :first AND :last",
                ExpressionAttributeNames={"#item": "item"},
                ExpressionAttributeValues={":user": {"S": user_id}, ":first": {"S": first}, ":last": {"S": last}},
                ConsistentRead=True,
                Limit=limit,
            )
        found = [_schedule_of(item) for item in answer["Items"]]
        return found, found[-1].name if found and "LastEvaluatedKey" in answer else None

    def save(self, schedule: Schedule, seen_revision: int) -> bool:
        condition: Item = {"ConditionExpression": "attribute_not_exists(user_id)"}
        if seen_revision:
            values = {":seen": number(seen_revision)}
            condition = {"ConditionExpression": "revision = :seen", "ExpressionAttributeValues": values}
        with conditional("storing the schedule") as written:
            self._client.put_item(
                TableName=self._table,
                Item=_item(schedule),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **condition,
            )
        return written.holds or bool(written.item and _schedule_of(written.item) == schedule)

    def delete(self, user_id: str, name: str) -> Schedule | None:
        with unavailable("deleting the schedule"):
            answer = self._client.delete_item(TableName=self._table, Key=_key(user_id, name), ReturnValues="ALL_OLD")
        return _schedule_of(answer["Attributes"]) if answer.get("Attributes") else None

    def add_name(self, user_id: str, name: str, most: int) -> bool:
        update = Expression()
        names = update.name("names")
        update.adds.append(f"{names} {update.value({'SS': [name]})}")
        update.set(LISTED, {"S": LISTED_SCHEDULES})
        room = f"size({names}) < {update.value(number(most))}"
        has_it = f"contains({names}, {update.value({'S': name})})"
        update.conditions.append(f"(attribute_not_exists({names}) OR {room} OR {has_it})")
        with conditional("listing the schedule") as condition:
            self._client.update_item(TableName=self._table, Key=key(user_id, NAMES_ITEM), **update.parameters())
        return condition.holds

    def remove_name(self, user_id: str, name: str) -> None:
        names: Item = {"ExpressionAttributeNames": {"#names": "names"}}
        with conditional("taking the schedule off the list") as condition:
            answer = self._client.update_item(
                TableName=self._table,
                Key=key(user_id, NAMES_ITEM),
                UpdateExpression="DELETE #names :one",
                ConditionExpression="contains(#names, :name)",
                ExpressionAttributeValues={":one": {"SS": [name]}, ":name": {"S": name}},
                ReturnValues="ALL_NEW",
                **names,
            )
        if condition.holds and "names" not in answer["Attributes"]:
            with conditional("taking the user off the list"):
                self._client.delete_item(
                    TableName=self._table,
                    Key=key(user_id, NAMES_ITEM),
                    ConditionExpression="attribute_not_exists(#names)",
                    **names,
                )

    def users(self, after: str, limit: int) -> list[str]:
        with unavailable("listing users with schedules"):
            answer = self._client.query(
                TableName=self._table,
                IndexName=LANE_INDEX,
                KeyConditionExpression=f"{LISTED} = :listed AND user_id > :after",
                ExpressionAttributeValues={":listed": {"S": LISTED_SCHEDULES}, ":after": {"S": after or " "}},
                Limit=limit,
            )
        return [item["user_id"]["S"] for item in answer["Items"]]

    def try_begin_search(self, now_ms: int, until: int) -> str | None:
        update = Expression()
        update.set("until", number(until))
        path = update.name("until")
        update.conditions.append(f"(attribute_not_exists({path}) OR {path} <= {update.value(number(now_ms))})")
        with conditional("beginning to search for lost messages") as condition:
            answer = self._client.update_item(
                TableName=self._table, Key=SEARCH_KEY, ReturnValues="ALL_NEW", **update.parameters()
            )
        return answer["Attributes"].get("at", {"S": ""})["S"] if condition.holds else None

    def end_search(self, at: str) -> None:
        update = Expression()
        update.set("at", {"S": at})
        with unavailable("ending the search for lost messages"):
            self._client.update_item(TableName=self._table, Key=SEARCH_KEY, **update.parameters())


def _key(user_id: str, name: str) -> Item:
    return key(user_id, f"{SCHEDULE_PREFIX}{name}")


def _item(schedule: Schedule) -> Item:
    text = msgspec.json.encode(schedule).decode()
    return {
        **_key(schedule.user_id, schedule.name),
        "revision": number(schedule.revision),
        "schedule": {"S": text},
    }


def _schedule_of(item: Item) -> Schedule:
    # Not by msgspec's own reader, which turns a payload's integers of more than 64 bits into floats.
    return msgspec.convert(json.loads(item["schedule"]["S"]), Schedule)
