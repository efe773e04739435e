"""DynamoDB's items and expressions: keys, values, and the parts of an update.

One table: partition key `user_id`, sort key `item`: `lane`, `parked` (counts of scheduled tasks; the key is older than
the word), `running-callbacks`, `scheduled` (the mark of who admits scheduled tasks), `scheduled#` and the order of a
scheduled task, `schedules` (the names of a user's schedules), `schedule#` and the name of one, a task's id, `payload#`
and the id of a task, or `request#` and the hash of a key.
"""

import zlib
from collections.abc import Sequence
from typing import Any

from chalicelib.core.lane import Lease
from chalicelib.core.limits import Limits, memory_needed, small_limits

LANE_ITEM = "lane"
#: Only lanes have this attribute: it puts their keys into the index of lanes. It has one of LISTED_KEYS and never
#: changes. One key alone would take 1,000 new lanes a second, and then throttle the writes of the table itself.
LISTED = "listed"
LISTED_SHARDS = 8
#: Lanes of earlier versions have the first.
LISTED_KEYS = ("lane", *(f"lane#{shard}" for shard in range(LISTED_SHARDS)))
#: Task ids are hexadecimal and sort before this; the items that are no tasks sort after it.
AFTER_TASK_IDS = "g"
#: Entries by which a list of starts may outgrow the need before it is trimmed: a trim costs a failed write, and with 14
#: entries in each list the lane of the default limits stays below 1 KB, so each of its writes takes one unit.
TRIM_SLACK = 14

Item = dict[str, Any]


class Expression:
    """Collects the parts of an update; `#name` for each attribute, since many words are reserved."""

    def __init__(self) -> None:
        self.sets: list[str] = []
        self.adds: list[str] = []
        self.removes: list[str] = []
        self.deletes: list[str] = []
        self.conditions: list[str] = []
        self._values: Item = {}
        self._names: dict[str, str] = {}

    def name(self, attribute: str) -> str:
        self._names[f"#{attribute}"] = attribute
        return f"#{attribute}"

    def slot(self, task_id: str) -> str:
        """The path of the task's lease in its slot."""
        alias = f"#slot{sum(name.startswith('#slot') for name in self._names)}"
        known = next((name for name, attribute in self._names.items() if attribute == task_id), alias)
        self._names[known] = task_id
        return f"{self.name('slots')}.{known}"

    def entry(self, attribute: str, entry: str) -> str:
        """The path of an entry of a map; its name may hold any character. For one entry in an expression."""
        self._names["#entry"] = entry
        return f"{self.name(attribute)}.#entry"

    def lease_path(self, lease: Lease) -> str:
        return self.slot(lease.task_id) if lease.in_slot else self.name("running")

    def value(self, value: Item) -> str:
        key = f":v{len(self._values)}"
        self._values[key] = value
        return key

    def set(self, attribute: str, value: Item) -> None:
        self.sets.append(f"{self.name(attribute)} = {self.value(value)}")

    def prepend(self, attribute: str, value: int) -> None:
        one, none = self.value({"L": [number(value)]}), self.value({"L": []})
        path = self.name(attribute)
        self.sets.append(f"{path} = list_append({one}, if_not_exists({path}, {none}))")

    def list_lane(self, user_id: str) -> None:
        """Puts a new lane into the index; leaves one that is in it under its key."""
        shard = zlib.crc32(user_id.encode()) % LISTED_SHARDS
        path = self.name(LISTED)
        self.sets.append(f"{path} = if_not_exists({path}, {self.value({'S': f'lane#{shard}'})})")

    def increment(self, attribute: str) -> None:
        self.adds.append(f"{self.name(attribute)} {self.value(number(1))}")

    def add_to_set(self, attribute: str, element: int) -> None:
        self.adds.append(f"{self.name(attribute)} {self.value(number_set([element]))}")

    def delete_from_set(self, attribute: str, elements: Sequence[int]) -> None:
        self.deletes.append(f"{self.name(attribute)} {self.value(number_set(elements))}")

    def remove(self, attribute: str) -> None:
        self.removes.append(self.name(attribute))

    def set_or_remove(self, attribute: str, value: Item | None) -> None:
        if value is None:
            self.remove(attribute)
        else:
            self.set(attribute, value)

    def absent(self, attribute: str) -> None:
        self.conditions.append(f"attribute_not_exists({self.name(attribute)})")

    def equals(self, attribute: str, value: int) -> None:
        """Requires that the attribute has this number; 0 also matches a missing attribute."""
        if value:
            self.conditions.append(f"{self.name(attribute)} = {self.value(number(value))}")
        else:
            path = self.name(attribute)
            self.conditions.append(f"(attribute_not_exists({path}) OR {path} = {self.value(number(0))})")

    def within(self, listed: str, counted: str, limits: Limits, at: int, slack: int = TRIM_SLACK) -> None:
        """One more start at `at` breaks no small limit, given the starts in `listed`; `counted` is the total.

        With fewer starts than a quota in all, that quota is not reached. Otherwise the list has to show that the
        quota-th newest has left the window; a list too short to show it fails, and the exact way decides.
        """
        path, total = self.name(listed), self.name(counted)
        self.conditions.append(f"(attribute_not_exists({total}) OR {path}[0] <= {self.value(number(at))})")
        for limit in small_limits(limits):
            oldest, quota = self.value(number(at - limit.window_ms)), self.value(number(limit.quota))
            shown = f"{path}[{limit.quota - 1}] <= {oldest}"
            self.conditions.append(f"(attribute_not_exists({total}) OR {total} < {quota} OR {shown})")
        self.conditions.append(f"attribute_not_exists({path}[{memory_needed(limits) + slack}])")

    def parameters(self) -> Item:
        clauses = [("SET", self.sets), ("ADD", self.adds), ("REMOVE", self.removes), ("DELETE", self.deletes)]
        parameters: Item = {
            "UpdateExpression": " ".join(f"{word} {', '.join(parts)}" for word, parts in clauses if parts),
            "ExpressionAttributeNames": self._names,
        }
        if self.conditions:
            parameters["ConditionExpression"] = " AND ".join(self.conditions)
        if self._values:
            parameters["ExpressionAttributeValues"] = self._values
        return parameters


def key(user_id: str, item: str) -> Item:
    return {"user_id": {"S": user_id}, "item": {"S": item}}


def number(value: int) -> Item:
    return {"N": str(value)}


def numbers(values: Sequence[int]) -> Item:
    return {"L": [number(value) for value in values]}


def number_set(values: Sequence[int]) -> Item:
    return {"NS": [str(value) for value in values]}


def integer(item: Item, attribute: str) -> int:
    return int(item[attribute]["N"]) if attribute in item else 0


def integers(item: Item, attribute: str) -> tuple[int, ...]:
    return tuple(int(element["N"]) for element in item.get(attribute, {}).get("L", ()))
