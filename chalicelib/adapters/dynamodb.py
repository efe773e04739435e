"""Lanes and tasks in one DynamoDB table: partition key `user_id`, sort key `item`, `lane` or a task's id.

Each expression is built by a named function, so that what is conditional on what can be read in one place.
"""

import json
from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.adapters.aws import error_code, unavailable
from chalicelib.lane import Admission, Cancelled, Lane, Lease, Start
from chalicelib.limits import Limits, format_limits, memory_needed, parse_limits
from chalicelib.ports import Stale, Write, Written
from chalicelib.tasks import Ended, Task, TaskRecord, TaskState

LANE_ITEM = "lane"
#: Lists of starts grow by one with each quick write and are cut back once they are so much longer than needed.
TRIM_SLACK = 20
#: Seconds after its last admission at which a lane may go: longer than any message lives and any window lasts.
LANE_KEPT_SECONDS = 30 * 24 * 3600
#: Seconds after its planned start or end at which a task's view may go: longer than any message lives.
TASK_KEPT_SECONDS = 30 * 24 * 3600
#: How many of the newest tasks are looked through for a missing predecessor.
PREDECESSORS_SEARCHED = 300

Item = dict[str, Any]


class Expression:
    """Collects the parts of an update; `#name` for each attribute, since many words are reserved."""

    def __init__(self) -> None:
        self.sets: list[str] = []
        self.adds: list[str] = []
        self.removes: list[str] = []
        self.conditions: list[str] = []
        self._values: Item = {}
        self._names: dict[str, str] = {}

    def name(self, attribute: str) -> str:
        self._names[f"#{attribute}"] = attribute
        return f"#{attribute}"

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

    def increment(self, attribute: str) -> None:
        self.adds.append(f"{self.name(attribute)} {self.value(number(1))}")

    def remove(self, attribute: str) -> None:
        self.removes.append(self.name(attribute))

    def absent(self, attribute: str) -> None:
        self.conditions.append(f"attribute_not_exists({self.name(attribute)})")

    def equals(self, attribute: str, value: int) -> None:
        """The number is that; 0 stands for an attribute that was never written."""
        if value:
            self.conditions.append(f"{self.name(attribute)} = {self.value(number(value))}")
        else:
            path = self.name(attribute)
            self.conditions.append(f"(attribute_not_exists({path}) OR {path} = {self.value(number(0))})")

    def within(self, listed: str, counted: str, limits: Limits, at: int) -> None:
        """One more start at `at` breaks no limit, given the starts in `listed`, of which `counted` says the total.

        With fewer starts than a quota in all, that quota is not reached. Otherwise the list has to show that the
        quota-th newest has left the window; a list too short to show it fails, and the exact way decides.
        """
        path, total = self.name(listed), self.name(counted)
        self.conditions.append(f"(attribute_not_exists({total}) OR {path}[0] <= {self.value(number(at))})")
        for limit in limits:
            oldest, quota = self.value(number(at - limit.window_ms)), self.value(number(limit.quota))
            shown = f"{path}[{limit.quota - 1}] <= {oldest}"
            self.conditions.append(f"(attribute_not_exists({total}) OR {total} < {quota} OR {shown})")
        self.conditions.append(f"attribute_not_exists({path}[{memory_needed(limits) + TRIM_SLACK}])")

    def parameters(self) -> Item:
        clauses = [("SET", self.sets), ("ADD", self.adds), ("REMOVE", self.removes)]
        parameters: Item = {
            "UpdateExpression": " ".join(f"{word} {', '.join(parts)}" for word, parts in clauses if parts),
            "ExpressionAttributeNames": self._names,
        }
        if self.conditions:
            parameters["ConditionExpression"] = " AND ".join(self.conditions)
        if self._values:
            parameters["ExpressionAttributeValues"] = self._values
        return parameters


class DynamoDBLaneStore:
    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = table_name

    def get(self, user_id: str) -> Lane:
        with unavailable("reading the lane"):
            answer = self._client.get_item(TableName=self._table, Key=key(user_id, LANE_ITEM), ConsistentRead=True)
        return lane_of(user_id, answer.get("Item"))

    def check(self) -> None:
        """UnavailableError when the table can't be read."""
        with unavailable("DynamoDB"):
            self._client.get_item(TableName=self._table, Key=key("health", LANE_ITEM))

    def admit_within(self, user_id: str, limits: Limits, now_ms: int, task_id: str) -> Write:
        write = self._update(user_id, admit_within_expression(limits, now_ms, task_id))
        return _recognise_admission(write, task_id)

    def admit(self, seen: Lane, admission: Admission) -> Write:
        write = self._update(seen.user_id, admit_expression(seen, admission))
        return _recognise_admission(write, admission.lane.newest)

    def claim_next(self, start: Start, limits: Limits) -> Write:
        return _recognise_claim(self._update(start.lane.user_id, claim_next_expression(start, limits)), start)

    def claim(self, seen: Lane, decision: Start | Cancelled) -> Write:
        if isinstance(decision, Cancelled):
            return self._update(seen.user_id, pass_over_expression(seen, decision.lane))
        return _recognise_claim(self._update(seen.user_id, claim_expression(seen, decision)), decision)

    def extend(self, user_id: str, lease: Lease, until: int) -> bool:
        return isinstance(self._update(user_id, extend_expression(lease, until)), Written)

    def _update(self, user_id: str, expression: Expression) -> Write:
        try:
            with unavailable("writing the lane"):
                answer = self._client.update_item(
                    TableName=self._table,
                    Key=key(user_id, LANE_ITEM),
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **expression.parameters(),
                )
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise
            return Stale(lane_of(user_id, error.response.get("Item")))  # type: ignore[arg-type]
        return Written(lane_of(user_id, answer["Attributes"]))


# boto3 repeats a call whose answer was lost, and the repeat finds its own write in the way.


def _recognise_admission(write: Write, task_id: str) -> Write:
    return Written(write.lane) if write.lane.newest == task_id else write


def _recognise_claim(write: Write, start: Start) -> Write:
    mine, found = start.lane.running, write.lane.running
    same = mine and found and (mine.token, mine.attempt, mine.task_id) == (found.token, found.attempt, found.task_id)
    return Written(write.lane) if same else write


def admit_within_expression(limits: Limits, now_ms: int, task_id: str) -> Expression:
    update = Expression()
    update.prepend("planned", now_ms)
    update.set("newest", {"S": task_id})
    update.set("expires_at", number(now_ms // 1000 + LANE_KEPT_SECONDS))
    update.increment("admitted")
    update.absent("limits")
    update.absent("paused_until")
    update.within("planned", "admitted", limits, now_ms)
    return update


def admit_expression(seen: Lane, admission: Admission) -> Expression:
    update, lane = Expression(), admission.lane
    update.set("planned", numbers(lane.planned))
    update.set("newest", {"S": lane.newest})
    update.set("admitted", number(lane.admitted))
    if not lane.limits and lane.paused_until is None:
        update.set("expires_at", number(lane.planned[0] // 1000 + LANE_KEPT_SECONDS))
    update.equals("admitted", seen.admitted)
    update.equals("revision", seen.revision)
    return update


def claim_next_expression(start: Start, limits: Limits) -> Expression:
    update, lane = Expression(), start.lane
    update.prepend("starts", start.at)
    update.set("started_seq", number(lane.started_seq))
    update.set("running", lease_value(lane.running))
    update.increment("started")
    update.equals("started_seq", lane.started_seq - 1)
    update.absent("paused_until")
    update.absent("cancelled")
    if lane.limits:
        update.conditions.append(f"{update.name('limits')} = {update.value({'S': format_limits(lane.limits)})}")
    else:
        update.absent("limits")
    update.within("starts", "started", limits, start.at)
    return update


def claim_expression(seen: Lane, start: Start) -> Expression:
    update, lane = Expression(), start.lane
    update.set("starts", numbers(lane.starts))
    update.set("started", number(lane.started))
    update.set("started_seq", number(lane.started_seq))
    update.set("running", lease_value(lane.running))
    if lane.admitted != seen.admitted:
        update.set("admitted", number(lane.admitted))
        update.equals("admitted", seen.admitted)
    if seen.paused_until is not None:
        update.remove("paused_until")  # it is over, or nothing would start
    update.equals("started", seen.started)
    update.equals("revision", seen.revision)
    _same_lease(update, seen)
    return update


def pass_over_expression(seen: Lane, lane: Lane) -> Expression:
    update = Expression()
    update.set("started_seq", number(lane.started_seq))
    update.set("revision", number(lane.revision))
    if lane.cancelled:
        update.set("cancelled", {"SS": sorted(lane.cancelled)})
    else:
        update.remove("cancelled")
    update.equals("started_seq", seen.started_seq)
    update.equals("revision", seen.revision)
    return update


def extend_expression(lease: Lease, until: int) -> Expression:
    update = Expression()
    running, field = update.name("running"), update.name("until")
    update.sets.append(f"{running}.{field} = {update.value(number(until))}")
    update.conditions.append(f"{running}.{update.name('token')} = {update.value({'S': lease.token})}")
    return update


def _same_lease(update: Expression, seen: Lane) -> None:
    running = update.name("running")
    if seen.running is None:
        update.absent("running")
    else:
        until = update.value(number(seen.running.until))
        update.conditions.append(f"{running}.{update.name('until')} = {until}")


class DynamoDBTaskStore:
    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = table_name

    def put(self, task: Task) -> None:
        item = task_item(task) | {"state": {"S": TaskState.QUEUED.value}}
        item["expires_at"] = number(task.planned_at // 1000 + TASK_KEPT_SECONDS)
        try:
            with unavailable("noting the task"):
                self._client.put_item(
                    TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(user_id)"
                )
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise

    def get(self, user_id: str, task_id: str) -> TaskRecord | None:
        if task_id == LANE_ITEM:
            return None
        with unavailable("reading the task"):
            answer = self._client.get_item(TableName=self._table, Key=key(user_id, task_id), ConsistentRead=True)
        return record_of(answer["Item"]) if "Item" in answer else None

    def between(self, user_id: str, first_seq: int, last_seq: int) -> Sequence[TaskRecord]:
        with unavailable("looking for earlier tasks"):
            answer = self._client.query(
                TableName=self._table,
                KeyConditionExpression="user_id = :user",
                FilterExpression="seq BETWEEN :first AND :last",
                ExpressionAttributeValues={
                    ":user": {"S": user_id},
                    ":first": number(first_seq),
                    ":last": number(last_seq),
                },
                ScanIndexForward=False,
                Limit=PREDECESSORS_SEARCHED,
                ConsistentRead=True,
            )
        return sorted(map(record_of, answer["Items"]), key=lambda record: record.task.seq)

    def end(self, task: Task, ended: Ended) -> None:
        update = self._noted(task)
        update.set("state", {"S": ended.state.value})
        update.set("completed_at", number(ended.completed_at))
        update.set("attempts", number(ended.attempts))
        update.set("expires_at", number(ended.completed_at // 1000 + TASK_KEPT_SECONDS))
        if ended.started_at is not None:
            update.set("started_at", number(ended.started_at))
        if ended.state is TaskState.SUCCEEDED:
            update.set("result", {"S": json.dumps(ended.result, ensure_ascii=False)})
        if ended.error is not None:
            update.set("error", {"S": ended.error})
        self._update(task, update)

    def attempt_failed(self, task: Task, attempts: int, error: str) -> None:
        update = self._noted(task)
        update.sets.append(
            f"{update.name('state')} = if_not_exists({update.name('state')}, {update.value({'S': 'queued'})})"
        )
        update.set("attempts", number(attempts))
        update.set("error", {"S": error})
        self._update(task, update)

    def _noted(self, task: Task) -> Expression:
        """Sets what the API would have noted, for it may not have come to it; nothing once the task has ended."""
        update = Expression()
        for attribute, value in task_item(task).items():
            if attribute not in ("user_id", "item"):
                update.set(attribute, value)
        state = update.name("state")
        update.conditions.append(f"(attribute_not_exists({state}) OR {state} = {update.value({'S': 'queued'})})")
        return update

    def _update(self, task: Task, update: Expression) -> None:
        try:
            with unavailable("noting the end"):
                self._client.update_item(
                    TableName=self._table, Key=key(task.user_id, task.task_id), **update.parameters()
                )
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise


def key(user_id: str, item: str) -> Item:
    return {"user_id": {"S": user_id}, "item": {"S": item}}


def number(value: int) -> Item:
    return {"N": str(value)}


def numbers(values: Sequence[int]) -> Item:
    return {"L": [number(value) for value in values]}


def lease_value(lease: Lease | None) -> Item:
    assert lease is not None
    return {
        "M": {
            "task_id": {"S": lease.task_id},
            "attempt": number(lease.attempt),
            "until": number(lease.until),
            "token": {"S": lease.token},
            "starts": numbers(lease.starts),
        }
    }


def lane_of(user_id: str, item: Item | None) -> Lane:
    if not item:
        return Lane(user_id)
    return Lane(
        user_id,
        admitted=_integer(item, "admitted"),
        planned=_integers(item, "planned"),
        newest=item.get("newest", {}).get("S", ""),
        started_seq=_integer(item, "started_seq"),
        started=_integer(item, "started"),
        starts=_integers(item, "starts"),
        running=_lease_of(item["running"]["M"]) if "running" in item else None,
        limits=parse_limits(item["limits"]["S"]) if "limits" in item else None,
        paused_until=_integer(item, "paused_until") if "paused_until" in item else None,
        cancelled=frozenset(item.get("cancelled", {}).get("SS", ())),
        revision=_integer(item, "revision"),
    )


def _lease_of(fields: Item) -> Lease:
    return Lease(
        fields["task_id"]["S"],
        _integer(fields, "attempt"),
        _integer(fields, "until"),
        fields["token"]["S"],
        _integers(fields, "starts"),
    )


def task_item(task: Task) -> Item:
    return {
        **key(task.user_id, task.task_id),
        "seq": number(task.seq),
        "task": {"S": task.name},
        "payload": {"S": json.dumps(task.payload, ensure_ascii=False)},
        "planned_at": number(task.planned_at),
        "submitted_at": number(task.submitted_at),
    }


def record_of(item: Item) -> TaskRecord:
    state = TaskState(item["state"]["S"])
    task = Task(
        user_id=item["user_id"]["S"],
        task_id=item["item"]["S"],
        seq=_integer(item, "seq"),
        name=item["task"]["S"],
        payload=json.loads(item["payload"]["S"]),
        planned_at=_integer(item, "planned_at"),
        submitted_at=_integer(item, "submitted_at"),
    )
    error = item["error"]["S"] if "error" in item else None
    return TaskRecord(task, state, _ended_of(item, state) if state.ended else None, _integer(item, "attempts"), error)


def _ended_of(item: Item, state: TaskState) -> Ended:
    return Ended(
        state,
        started_at=_integer(item, "started_at") if "started_at" in item else None,
        completed_at=_integer(item, "completed_at"),
        attempts=_integer(item, "attempts"),
        result=json.loads(item["result"]["S"]) if "result" in item else None,
        error=item["error"]["S"] if "error" in item else None,
    )


def _integer(item: Item, attribute: str) -> int:
    return int(item[attribute]["N"]) if attribute in item else 0


def _integers(item: Item, attribute: str) -> tuple[int, ...]:
    return tuple(int(element["N"]) for element in item.get(attribute, {}).get("L", ()))
