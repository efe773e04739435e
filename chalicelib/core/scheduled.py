"""The messages of the scheduled queue (a scheduled task, its cancellation, a callback), and the order of the tasks.

Pure. Owns the form of each message; `chalicelib.scheduled.dispatcher` acts on them.
"""

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from chalicelib.core.errors import MessageError, NewerMessageError
from chalicelib.core.task import Task, to_ascii_json

#: Version of the form that `to_message` writes. Each change of the form and each new kind of message increases it; the
#: versions before it are still read.
SCHEDULED_VERSION = 2
#: That of `EmptySchedule`, which functions of earlier versions leave in the queue.
NEWEST_VERSION = 3
#: Version 1 named the kind in the field `errand`. A queue keeps a message for 14 days: version 1 can go 14 days after
#: the deployment that brought version 2.
VERSION_1_KINDS = {"admit": "scheduled_task", "withdraw": "cancel_scheduled", "callback": "callback"}
#: The longest that SQS delays a message, seconds; a message that is due later is received early and hidden again.
MAX_SQS_DELAY_SECONDS = 900
#: How far ahead a task may be scheduled, milliseconds: SQS keeps a message for 14 days; one day is left for outages.
MAX_AHEAD_MS = 13 * 86_400_000


class ScheduledTask(Struct, frozen=True):
    """A task that enters its lane once its time has come."""

    task: Task

    @property
    def due_at(self) -> int:
        return self.task.run_at or 0


class CancelScheduled(Struct, frozen=True):
    """A task that was cancelled before it entered its lane: its outcome is still to be logged."""

    task: Task
    due_at: int = 0


class EmptySchedule(Struct, frozen=True):
    """A user's scheduled tasks that were submitted up to a time are cancelled: they are still to be logged."""

    user_id: str
    #: epoch ms
    emptied_at: int
    due_at: int = 0


class Callback(Struct, frozen=True):
    """The outcome of a task, to be sent to the URL that its submit named."""

    user_id: str
    task_id: str
    url: str
    #: the line of the completion log, without the fields for CloudWatch
    event: Mapping[str, Any]
    #: epoch ms; the callback is retried for a day from then on
    begun_at: int
    due_at: int = 0


class DueTask(Struct, frozen=True, order=True):
    """A scheduled task in the order in which its user's are admitted: by time, then as their submits were counted."""

    run_at: int
    #: number of its submit among those of its user that scheduled tasks
    number: int
    #: index in its submit
    index: int
    task_id: str


ScheduledMessage = ScheduledTask | CancelScheduled | EmptySchedule | Callback


def delay_seconds(due_at: int, now_ms: int) -> int:
    """How long SQS is to delay the message: whole seconds that end no later than `due_at`."""
    return max(0, min((due_at - now_ms) // 1000, MAX_SQS_DELAY_SECONDS))


def to_message(message: ScheduledMessage) -> str:
    """The body of its queue message, ASCII JSON."""
    if isinstance(message, Callback):
        fields = {
            "v": SCHEDULED_VERSION,
            "kind": "callback",
            "user_id": message.user_id,
            "task_id": message.task_id,
            "url": message.url,
            "event": message.event,
            "begun_at": message.begun_at,
        }
        # A task's result may hold what only `json.dumps` takes, such as None as a key.
        return json.dumps(fields, separators=(",", ":"))
    if isinstance(message, EmptySchedule):
        emptied = {"user_id": message.user_id, "emptied_at": message.emptied_at}
        return to_ascii_json({"v": NEWEST_VERSION, "kind": "empty_schedule", **emptied})
    kind = "scheduled_task" if isinstance(message, ScheduledTask) else "cancel_scheduled"
    return to_ascii_json({"v": SCHEDULED_VERSION, "kind": kind, "task": message.task.fields()})


def from_message(body: str) -> ScheduledMessage:
    """Reads a body of this version or an earlier one.

    NewerMessageError for a later version, MessageError for any other text.
    """
    try:
        fields = json.loads(body)
        return _read(_kind(fields), fields)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MessageError(f"not a scheduled message: {type(error).__name__}: {error}") from error


def _kind(fields: Mapping[str, Any]) -> str:
    version = fields["v"]
    if version == 1:
        return VERSION_1_KINDS[fields["errand"]]
    if version in (SCHEDULED_VERSION, NEWEST_VERSION):
        return str(fields["kind"])
    error = NewerMessageError if isinstance(version, int) and version > NEWEST_VERSION else MessageError
    raise error(f"message version {version!r}, this function reads 1 to {NEWEST_VERSION}")


def _read(kind: str, fields: Mapping[str, Any]) -> ScheduledMessage:
    if kind == "scheduled_task":
        return ScheduledTask(Task.from_fields(fields["task"]))
    if kind == "cancel_scheduled":
        return CancelScheduled(Task.from_fields(fields["task"]))
    if kind == "callback":
        return _callback(fields)
    if kind == "empty_schedule" and isinstance(fields["user_id"], str):
        return EmptySchedule(fields["user_id"], int(fields["emptied_at"]))
    raise MessageError(f"unknown kind of message {kind!r}")


def _callback(fields: Mapping[str, Any]) -> Callback:
    texts = [fields["user_id"], fields["task_id"], fields["url"]]
    if not all(isinstance(text, str) and text for text in texts) or not isinstance(fields["event"], dict):
        raise TypeError("a callback needs a user id, a task id, a URL and an event")
    user_id, task_id, url = texts
    return Callback(user_id, task_id, url, fields["event"], int(fields["begun_at"]))
