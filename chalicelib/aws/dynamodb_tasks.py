"""Task records in DynamoDB."""

import json
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from chalicelib.aws.client import NotRepeatedError, conditional, unavailable
from chalicelib.aws.dynamodb_batch import BATCH_WRITE, delete_batch, put_batch
from chalicelib.aws.dynamodb_expression import AFTER_TASK_IDS, Expression, Item, integer, key, number
from chalicelib.aws.dynamodb_failed_index import failed_keys
from chalicelib.aws.dynamodb_payloads import DynamoDBPayloads, is_apart, payload_item, payload_key
from chalicelib.core.task import (
    ATTEMPT_ERROR,
    ATTEMPTS_KEPT,
    FailedAttempt,
    Outcome,
    Progress,
    Task,
    TaskRecord,
    TaskState,
    to_json,
)

#: Seconds after its outcome for which a record is kept by default: longer than any message lives.
TASK_KEPT_SECONDS = 30 * 24 * 3600
#: Seconds after its planned start for which the record of an unfinished task is kept. A lane that is paused for longer
#: than messages live goes on from these records.
UNFINISHED_KEPT_SECONDS = 366 * 24 * 3600
#: Tasks older than the lane's backlog among which a missing predecessor is searched.
OLDER_SEARCHED = 300
#: Tasks that one page reads to find those in a state.
LISTED_AT_ONCE = 500


class DynamoDBTaskStore:
    def __init__(self, client: Any, table_name: str, kept_seconds: int = TASK_KEPT_SECONDS) -> None:
        """kept_seconds: how long the record of a finished task is kept."""
        self._client = client
        self._table = table_name
        self._kept_seconds = kept_seconds
        self._payloads = DynamoDBPayloads(client, table_name)

    def create_if_absent(self, task: Task) -> None:
        for item in queued_items(task):
            self._put_if_absent(item)

    def _put_if_absent(self, item: Item) -> None:
        with conditional("storing the task"):
            self._client.put_item(TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(user_id)")

    def create_many(self, tasks: Sequence[Task]) -> None:
        items = [item for task in tasks for item in queued_items(task)]
        for start in range(0, len(items), BATCH_WRITE):
            batch = items[start : start + BATCH_WRITE]
            try:
                put_batch(self._client, self._table, batch, "storing the tasks")
            except NotRepeatedError:
                # The batch may be written, and a worker may have finished one of its tasks since.
                for item in batch:
                    self._put_if_absent(item)

    def newest(
        self, user_id: str, state: TaskState | None, most: int, before: str | None
    ) -> tuple[list[TaskRecord], str | None]:
        query: Item = {
            "TableName": self._table,
            "KeyConditionExpression": "user_id = :user AND #item < :before",
            "ExpressionAttributeNames": {"#item": "item"},
            "ExpressionAttributeValues": {":user": {"S": user_id}, ":before": {"S": before or AFTER_TASK_IDS}},
            "ScanIndexForward": False,
            "Limit": most if state is None else LISTED_AT_ONCE,
        }
        if state:
            query["FilterExpression"] = "#state = :state"
            query["ExpressionAttributeNames"]["#state"] = "state"
            query["ExpressionAttributeValues"][":state"] = {"S": state.value}
        with unavailable("listing tasks"):
            answer = self._client.query(**query)
        records = [record_of(item) for item in answer["Items"]]
        if len(records) > most:
            return records[:most], records[most - 1].task.task_id
        last = answer.get("LastEvaluatedKey")
        return records, last["item"]["S"] if last else None

    def get(self, user_id: str, task_id: str) -> TaskRecord | None:
        if task_id >= AFTER_TASK_IDS:
            return None
        with unavailable("reading the task"):
            answer = self._client.get_item(TableName=self._table, Key=key(user_id, task_id), ConsistentRead=True)
        return self._with_payload(record_of(answer["Item"])) if "Item" in answer else None

    def _with_payload(self, record: TaskRecord) -> TaskRecord:
        task = record.task
        if task.has_payload or not (found := self._payloads.read(task.user_id, task.task_id)):
            return record
        return replace(record, task=replace(task, payload=found[0], has_payload=True))

    def keep_payloads(self, user_id: str, now_ms: int) -> None:
        self._payloads.keep(user_id, now_ms)

    def between(self, user_id: str, first_seq: int, last_seq: int, newest_seq: int | None) -> Sequence[TaskRecord]:
        left = None if newest_seq is None else OLDER_SEARCHED + newest_seq - first_seq
        query = self._by_seq(user_id, first_seq, last_seq)
        query["KeyConditionExpression"] = "user_id = :user AND #item < :lane"
        return self._searched(query | {"ScanIndexForward": False}, last_seq + 1 - first_seq, left)

    def following(self, user_id: str, task_id: str, first_seq: int, last_seq: int) -> Sequence[TaskRecord]:
        query, most = self._by_seq(user_id, first_seq, last_seq), last_seq + 1 - first_seq
        query["KeyConditionExpression"] = "user_id = :user AND #item BETWEEN :id AND :lane"
        query["ExpressionAttributeValues"][":id"] = {"S": task_id}
        return self._searched(query, most, OLDER_SEARCHED + most)

    def _by_seq(self, user_id: str, first_seq: int, last_seq: int) -> Item:
        """The part of a query that lets only these seqs through."""
        return {
            "TableName": self._table,
            "FilterExpression": "seq BETWEEN :first AND :last",
            "ExpressionAttributeNames": {"#item": "item"},
            "ExpressionAttributeValues": {
                ":user": {"S": user_id},
                ":lane": {"S": AFTER_TASK_IDS},
                ":first": number(first_seq),
                ":last": number(last_seq),
            },
            "ConsistentRead": True,
        }

    def _searched(self, query: Item, most: int, left: int | None) -> Sequence[TaskRecord]:
        """The first records that the query finds, by seq. left: how many tasks it reads at most, None for all."""
        found = list[TaskRecord]()
        # A page ends at 1 MB, which may hold only 15 tasks with large payloads. A seq below the first ends nothing:
        # who was scheduled, or came again with its key, has an old id and a new seq.
        while (left is None or left > 0) and len(found) < most:
            with unavailable("looking for earlier tasks"):
                answer = self._client.query(**query, **({} if left is None else {"Limit": left}))
            found += map(record_of, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                break
            query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
            left = left and left - answer["ScannedCount"]
        return sorted(found, key=lambda record: record.task.seq)

    def delete_finished(self, user_id: str, up_to_seq: int, most: int) -> tuple[int, bool]:
        query: Item = {
            "TableName": self._table,
            "KeyConditionExpression": "user_id = :user AND #item < :last",
            "FilterExpression": "seq BETWEEN :first AND :seq OR (seq < :first AND #state <> :queued)",
            "ExpressionAttributeNames": {"#item": "item", "#state": "state"},
            "ExpressionAttributeValues": {
                ":user": {"S": user_id},
                ":last": {"S": AFTER_TASK_IDS},
                ":queued": {"S": TaskState.QUEUED.value},
                ":first": number(1),
                ":seq": number(up_to_seq),
            },
            "ConsistentRead": True,
        }
        deleted = 0
        while deleted < most:
            with unavailable("looking for finished tasks"):
                answer = self._client.query(**query, Limit=LISTED_AT_ONCE)
            found = answer["Items"][: most - deleted]
            self._delete([key for item in found for key in _keys_of(item)])
            deleted += len(found)
            if len(found) == len(answer["Items"]) and "LastEvaluatedKey" not in answer:
                return deleted, False
            query["ExclusiveStartKey"] = answer.get("LastEvaluatedKey", {})
        return deleted, True

    def _delete(self, keys: Sequence[Item]) -> None:
        for start in range(0, len(keys), BATCH_WRITE):
            delete_batch(self._client, self._table, keys[start : start + BATCH_WRITE], "deleting finished tasks")

    def finish(self, task: Task, outcome: Outcome) -> None:
        update = self._noted(task)
        update.set("state", {"S": outcome.state.value})
        update.set("completed_at", number(outcome.completed_at))
        update.set("attempts", number(outcome.attempts))
        update.set("expires_at", number(outcome.completed_at // 1000 + self._kept_seconds))
        if outcome.started_at is not None:
            update.set("started_at", number(outcome.started_at))
        if outcome.state is TaskState.SUCCEEDED:
            update.set("result", {"S": json.dumps(outcome.result, ensure_ascii=False)})
        if outcome.used_units is not None:
            update.set("used_units", number(outcome.used_units))
        if outcome.progress is not None:
            update.set("progress", _progress_item(outcome.progress))
        if outcome.state is TaskState.FAILED:
            for attribute, text in failed_keys(task.task_id, outcome.completed_at).items():
                update.set(attribute, {"S": text})
        # An earlier attempt may have left its error, which is not the end's.
        update.set_or_remove("error", {"S": outcome.error} if outcome.error is not None else None)
        self._update(task, update)

    def report_progress(self, task: Task, progress: Progress) -> bool:
        update = Expression()
        state, path, at = update.name("state"), update.name("progress"), update.name("at")
        update.conditions.append(f"{state} = {update.value({'S': TaskState.QUEUED.value})}")
        is_newer = f"{path}.{at} <= {update.value(number(progress.at))}"
        update.conditions.append(f"(attribute_not_exists({path}) OR {is_newer})")
        update.set("progress", _progress_item(progress))
        with conditional("storing the progress") as condition:
            self._client.update_item(
                TableName=self._table,
                Key=key(task.user_id, task.task_id),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **update.parameters(),
            )
        return condition.holds or bool(condition.item)

    def mark_admitted(self, task: Task) -> bool:
        self._store_payload(task)
        update = self._scheduled(task)
        update.set("state", {"S": TaskState.QUEUED.value})
        update.set("expires_at", number(task.planned_at // 1000 + UNFINISHED_KEPT_SECONDS))
        return self._update(task, update)

    def cancel_scheduled(self, task: Task, outcome: Outcome) -> bool:
        update = self._scheduled(task)
        update.set("state", {"S": outcome.state.value})
        update.set("completed_at", number(outcome.completed_at))
        update.set("attempts", number(outcome.attempts))
        update.set("expires_at", number(outcome.completed_at // 1000 + self._kept_seconds))
        if outcome.error is not None:
            update.set("error", {"S": outcome.error})
        return self._update(task, update)

    def _scheduled(self, task: Task) -> Expression:
        """Sets the task as it is now, if it has no seq yet and is not finished."""
        update = self._noted(task)
        seq = update.name("seq")
        update.conditions.append(f"(attribute_not_exists({seq}) OR {seq} = {update.value(number(0))})")
        return update

    def request_cancel(self, task: Task, now_ms: int) -> None:
        update = self._noted(task)
        mark = update.name("cancel_requested_at")
        update.sets.append(f"{mark} = if_not_exists({mark}, {update.value(number(now_ms))})")
        self._update(task, update)

    def attempt_failed(self, task: Task, attempt: FailedAttempt) -> None:
        self._store_payload(task)
        update = self._noted(task)
        update.sets.append(
            f"{update.name('state')} = if_not_exists({update.name('state')}, {update.value({'S': 'queued'})})"
        )
        update.set("attempts", number(attempt.number))
        update.set("error", {"S": attempt.error})
        update.set(_attempt_attribute(attempt.number), _attempt_value(attempt))
        self._update(task, update)

    def _store_payload(self, task: Task) -> None:
        """Stores the payload of a task that will still run, in case its submit died before it did."""
        if task.has_payload and is_apart(task, to_json(task.payload)):
            self._payloads.put_if_missing(task)

    def _noted(self, task: Task) -> Expression:
        """Sets the attributes that the API stores, in case it has not done so yet; fails if the task is finished."""
        update = Expression()
        for attribute, value in task_item(task).items():
            if attribute not in ("user_id", "item"):
                update.set(attribute, value)
        state = update.name("state")
        update.conditions.append(f"(attribute_not_exists({state}) OR {state} = {update.value({'S': 'queued'})})")
        return update

    def _update(self, task: Task, update: Expression) -> bool:
        """False when its condition does not hold."""
        with conditional("storing the outcome") as condition:
            self._client.update_item(TableName=self._table, Key=key(task.user_id, task.task_id), **update.parameters())
        return condition.holds


def task_item(task: Task) -> Item:
    """The record's attributes that the submit stores; without a payload that has an item of its own."""
    payload = to_json(task.payload)
    is_in_record = task.has_payload and not is_apart(task, payload)
    return {
        **key(task.user_id, task.task_id),
        "seq": number(task.seq),
        "task": {"S": task.name},
        **({"payload": {"S": payload}} if is_in_record else {}),
        "planned_at": number(task.planned_at),
        "submitted_at": number(task.submitted_at),
        **({"run_at": number(task.run_at)} if task.run_at is not None else {}),
        **({"callback_url": {"S": task.callback_url}} if task.callback_url is not None else {}),
        **({"units": number(task.units)} if task.units != 1 else {}),
        **({"traceparent": {"S": task.traceparent}} if task.traceparent else {}),
        **({"shared": {"S": task.shared}} if task.shared else {}),
        **({"schedule": {"S": task.schedule}} if task.schedule else {}),
    }


def _keys_of(item: Item) -> list[Item]:
    """The keys of a record's items, its payload's first, so that none is left behind."""
    user_id, task_id = item["user_id"]["S"], item["item"]["S"]
    return [*([] if "payload" in item else [payload_key(user_id, task_id)]), key(user_id, task_id)]


def queued_items(task: Task) -> list[Item]:
    """The items of a new task: the payload first if it has one of its own, so that a record never lacks it."""
    record = task_item(task) | {
        "state": {"S": TaskState.QUEUED.value},
        "expires_at": number(task.planned_at // 1000 + UNFINISHED_KEPT_SECONDS),
    }
    is_apart = task.has_payload and "payload" not in record
    return [payload_item(task), record] if is_apart else [record]


def record_of(item: Item) -> TaskRecord:
    state = TaskState(item["state"]["S"])
    task = Task(
        user_id=item["user_id"]["S"],
        task_id=item["item"]["S"],
        seq=integer(item, "seq"),
        name=item["task"]["S"],
        payload=json.loads(item["payload"]["S"]) if "payload" in item else None,
        planned_at=integer(item, "planned_at"),
        submitted_at=integer(item, "submitted_at"),
        run_at=integer(item, "run_at") if "run_at" in item else None,
        callback_url=item["callback_url"]["S"] if "callback_url" in item else None,
        units=integer(item, "units") if "units" in item else 1,
        traceparent=item["traceparent"]["S"] if "traceparent" in item else "",
        shared=item["shared"]["S"] if "shared" in item else "",
        schedule=item["schedule"]["S"] if "schedule" in item else "",
        has_payload="payload" in item,
    )
    error = item["error"]["S"] if "error" in item else None
    outcome = _ended_of(item, state) if state.is_final else None
    return TaskRecord(
        task,
        state,
        outcome,
        integer(item, "attempts"),
        error,
        cancel_requested_at=integer(item, "cancel_requested_at") or None,
        progress=_progress_of(item),
        failed_attempts=_failed_attempts(item),
        redriven_as=item["redriven_as"]["S"] if "redriven_as" in item else None,
    )


def _attempt_attribute(number: int) -> str:
    """One of ATTEMPTS_KEPT attributes: a later attempt overwrites the oldest, and a repeat its own."""
    return f"attempt_{number % ATTEMPTS_KEPT}"


def _attempt_value(attempt: FailedAttempt) -> Item:
    times = [number(attempt.number), number(attempt.started_at), number(attempt.ended_at)]
    return {"L": [*times, {"S": attempt.error[:ATTEMPT_ERROR]}]}


def _failed_attempts(item: Item) -> tuple[FailedAttempt, ...]:
    found = []
    for slot in range(ATTEMPTS_KEPT):
        if (name := _attempt_attribute(slot)) in item:
            attempt, started_at, ended_at, error = item[name]["L"]
            times = int(started_at["N"]), int(ended_at["N"])
            found.append(FailedAttempt(int(attempt["N"]), *times, error["S"]))
    return tuple(sorted(found, key=lambda attempt: attempt.number))


def _ended_of(item: Item, state: TaskState) -> Outcome:
    return Outcome(
        state,
        started_at=integer(item, "started_at") if "started_at" in item else None,
        completed_at=integer(item, "completed_at"),
        attempts=integer(item, "attempts"),
        result=json.loads(item["result"]["S"]) if "result" in item else None,
        error=item["error"]["S"] if "error" in item else None,
        used_units=integer(item, "used_units") if "used_units" in item else None,
        progress=_progress_of(item),
    )


def _progress_item(progress: Progress) -> Item:
    fraction = {"N": f"{progress.fraction:g}"}
    return {"M": {"fraction": fraction, "text": {"S": progress.text}, "at": number(progress.at)}}


def _progress_of(item: Item) -> Progress | None:
    if "progress" not in item:
        return None
    fields = item["progress"]["M"]
    return Progress(float(fields["fraction"]["N"]), fields["text"]["S"], integer(fields, "at"))
