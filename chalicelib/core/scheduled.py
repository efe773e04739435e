"""What is to be done at a time of its own and in no lane: admit a task that was scheduled, note that one was cancelled
meanwhile, tell somebody of a task's end. Each is one message of the queue `later`. Pure.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from chalicelib.core.errors import MessageError, NewerMessageError
from chalicelib.core.task import Task, to_ascii_json

#: The form of the message, as `tasks.MESSAGE_VERSION` is that of a task's: who raises it, also for a new kind of
#: message, must go on reading all that came before.
SCHEDULED_VERSION = 1
#: The longest that SQS delays a message; one that is due later comes early and is hidden for the rest.
MAX_SQS_DELAY_SECONDS = 900
#: How far ahead a task may be scheduled: its message lives for 14 days, and one day is left for what may go wrong.
MAX_AHEAD_MS = 13 * 86_400_000


class ScheduledTask(Struct, frozen=True):
    """A task that gets its place in its lane once its time has come."""

    task: Task

    @property
    def due_at(self) -> int:
        return self.task.run_at or 0


class CancelScheduled(Struct, frozen=True):
    """A task that was cancelled before it got a place: its end is to be logged."""

    task: Task
    due_at: int = 0


class Callback(Struct, frozen=True):
    """The end of a task, to be told to whoever its submit named."""

    user_id: str
    task_id: str
    url: str
    #: the completion log's line without what is CloudWatch's
    event: Mapping[str, Any]
    #: epoch ms; it is tried for about a day from then on
    begun_at: int
    due_at: int = 0


ScheduledMessage = ScheduledTask | CancelScheduled | Callback


def delay_seconds(due_at: int, now_ms: int) -> int:
    """How long SQS is to delay the message: whole seconds that end no later than its time."""
    return max(0, min((due_at - now_ms) // 1000, MAX_SQS_DELAY_SECONDS))


def to_message(message: ScheduledMessage) -> str:
    """The body of its queue message, JSON."""
    if isinstance(message, Callback):
        fields = {
            "v": SCHEDULED_VERSION,
            "errand": "callback",
            "user_id": message.user_id,
            "task_id": message.task_id,
            "url": message.url,
            "event": message.event,
            "begun_at": message.begun_at,
        }
        # A function may give what only `json.dumps` takes, such as None for a name.
        return json.dumps(fields, separators=(",", ":"))
    kind = "admit" if isinstance(message, ScheduledTask) else "withdraw"
    return to_ascii_json({"v": SCHEDULED_VERSION, "errand": kind, "task": message.task.fields()})


def from_message(body: str) -> ScheduledMessage:
    """Reads what `to_message` wrote; NewerMessageError when it is a newer form, MessageError when anything else."""
    try:
        fields = json.loads(body)
        if (version := fields["v"]) != SCHEDULED_VERSION:
            kind = NewerMessageError if isinstance(version, int) and version > SCHEDULED_VERSION else MessageError
            raise kind(f"message version {version!r}, this function knows {SCHEDULED_VERSION}")
        return _KINDS[fields["errand"]](fields)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MessageError(f"the message is no message: {type(error).__name__}: {error}") from error


def _callback(fields: Mapping[str, Any]) -> Callback:
    texts = [fields["user_id"], fields["task_id"], fields["url"]]
    if not all(isinstance(text, str) and text for text in texts) or not isinstance(fields["event"], dict):
        raise TypeError("a callback names a user, a task, an address and an event")
    user_id, task_id, url = texts
    return Callback(user_id, task_id, url, fields["event"], int(fields["begun_at"]))


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], ScheduledMessage]] = {
    "admit": lambda fields: ScheduledTask(Task.from_fields(fields["task"])),
    "withdraw": lambda fields: CancelScheduled(Task.from_fields(fields["task"])),
    "callback": _callback,
}
