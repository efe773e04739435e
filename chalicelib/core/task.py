"""A task, its states, and the message that carries it. Pure."""

import json
import re
from enum import Enum
from typing import Any

import msgspec
from msgspec import Struct

from chalicelib.core.errors import MessageError, NewerMessageError

#: What a task carries and what it gives: any JSON value.
Json = Any

#: The task that runs when a submit names none.
DEFAULT_TASK = "log"
#: The form of the message. Who raises it must go on reading all that came before, since messages wait for up to 14
#: days; a worker gives newer ones back for a newer worker, and buries what is nothing that ever was.
MESSAGE_VERSION = 1

_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def to_json(value: Json) -> str:
    """As compact JSON, in a tenth of the time of `json.dumps`; UnicodeEncodeError for half of a surrogate pair."""
    return msgspec.json.encode(value).decode()


def to_ascii_json(value: Json) -> str:
    """The same for a queue: SQS does not take every character. A byte of it becomes three at most."""
    text = to_json(value)
    return text if text.isascii() else _NOT_ASCII.sub(lambda some: json.dumps(some[0])[1:-1], text)


class TaskState(str, Enum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)


class Task(Struct, frozen=True):
    """A task as it was admitted. Times are epoch milliseconds."""

    user_id: str
    task_id: str
    seq: int
    name: str
    payload: Json
    planned_at: int
    submitted_at: int
    #: the same task may have been sent before, so it may have ended although it is new to its lane
    is_repeat: bool = False
    #: when it was to get its place in its lane; None when at once. Until it has one, its seq is 0
    run_at: int | None = None
    #: who is to be told of its end
    callback_url: str | None = None

    def to_message(self) -> str:
        """The body of its queue message, JSON."""
        return to_ascii_json(self.fields())

    def fields(self) -> dict[str, Any]:
        """What `from_fields` reads."""
        return {
            "v": MESSAGE_VERSION,
            "user_id": self.user_id,
            "task_id": self.task_id,
            "seq": self.seq,
            "task": self.name,
            "planned_at": self.planned_at,
            "submitted_at": self.submitted_at,
            "payload": self.payload,
            **({"repeat": True} if self.is_repeat else {}),
            **({"run_at": self.run_at} if self.run_at is not None else {}),
            **({"callback_url": self.callback_url} if self.callback_url is not None else {}),
        }

    @classmethod
    def from_message(cls, body: str) -> "Task":
        """Reads what `to_message` wrote; MessageError when it is anything else."""
        try:
            return cls.from_fields(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise MessageError(f"the message is no task: {type(error).__name__}: {error}") from error

    @classmethod
    def from_fields(cls, fields: Any) -> "Task":
        """Reads what `fields` gave; MessageError when it is anything else."""
        try:
            to_json(fields)  # half of a surrogate pair could not be noted
            if (version := _integer(fields["v"])) != MESSAGE_VERSION:
                kind = NewerMessageError if version > MESSAGE_VERSION else MessageError
                raise kind(f"message version {version}, this worker knows {MESSAGE_VERSION}")
            return cls(
                user_id=_text(fields["user_id"]),
                task_id=_text(fields["task_id"]),
                seq=_integer(fields["seq"]),
                name=_text(fields["task"]),
                payload=fields["payload"],
                planned_at=_integer(fields["planned_at"]),
                submitted_at=_integer(fields["submitted_at"]),
                is_repeat=fields.get("repeat") is True,
                run_at=_integer(fields["run_at"]) if "run_at" in fields else None,
                callback_url=_text(fields["callback_url"]) if "callback_url" in fields else None,
            )
        except (TypeError, KeyError, UnicodeEncodeError) as error:
            raise MessageError(f"the message is no task: {type(error).__name__}: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is no text")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no integer")
    return value


class Outcome(Struct, frozen=True):
    """How a task ended. Times are epoch milliseconds."""

    state: TaskState
    #: the last attempt's start; None when it never started
    started_at: int | None
    completed_at: int
    #: starts taken
    attempts: int
    result: Json = None
    error: str | None = None


class TaskRecord(Struct, frozen=True):
    """A task as the table has it: a view of the message, kept for those who ask."""

    task: Task
    state: TaskState = TaskState.QUEUED
    outcome: Outcome | None = None
    #: attempts that failed so far, while it is not ended
    attempts: int = 0
    #: what the last failed attempt said
    error: str | None = None


def describe(error: BaseException) -> str:
    """A failure in one line for people: its type and text, at most 1,000 characters.

    SQS and DynamoDB refuse some of the characters that an error's text may hold, so only printable ones stay.
    """
    return printable(f"{type(error).__name__}: {error}"[:1000])


def printable(text: str) -> str:
    """The text with a space for each character that some store might refuse."""
    return "".join(character if character.isprintable() else " " for character in text)
