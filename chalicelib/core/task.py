"""A task, its states and its queue message. Pure."""

import hashlib
import json
import re
from enum import Enum
from typing import Any

import msgspec
from msgspec import Struct

from chalicelib.core.errors import MessageError, NewerMessageError
from chalicelib.core.lane import Lease

#: A payload or a result: any JSON value.
Json = Any

#: The task that a submit without a name runs.
DEFAULT_TASK = "log"
#: Failed attempts that a record keeps, the newest ones, and the characters of each one's error.
ATTEMPTS_KEPT = 10
ATTEMPT_ERROR = 300
#: Versions of the message's form: 1 has the payload, 2 leaves it in the store, 3 has `units` or `shared`. A message is
#: written in the lowest one that holds it. A new version must still read all older ones, since messages wait for up to
#: 14 days. A worker defers messages of a newer version and dead-letters malformed ones.
MESSAGE_VERSION = 1
MESSAGE_VERSION_WITHOUT_PAYLOAD = 2
MESSAGE_VERSION_WITH_UNITS = 3

_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def to_json(value: Json) -> str:
    """Encodes compact JSON, ten times as fast as `json.dumps`. Raises UnicodeEncodeError for a lone surrogate."""
    return msgspec.json.encode(value).decode()


def to_ascii_json(value: Json) -> str:
    """Encodes JSON in ASCII, since SQS rejects some characters. At most triples the size in bytes."""
    text = to_json(value)
    return text if text.isascii() else _NOT_ASCII.sub(lambda some: json.dumps(some[0])[1:-1], text)


def as_integer(value: Json) -> Json:
    """An integer for a number without a fraction: to JSON, 2.0 and 2 are the same number. Any other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def with_integers(value: Json) -> Json:
    """A copy in which each number without a fraction is an integer."""
    if isinstance(value, dict):
        return {name: with_integers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [with_integers(inner) for inner in value]
    return as_integer(value)


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
    """A task as admitted. Times are epoch milliseconds."""

    user_id: str
    task_id: str
    seq: int
    name: str
    payload: Json
    planned_at: int
    submitted_at: int
    #: the task may have been sent before, so it may be finished although its seq is new to the lane
    is_repeat: bool = False
    #: when a scheduled task is to be admitted, None for others; until then its seq is 0
    run_at: int | None = None
    #: URL to which the outcome is sent
    callback_url: str | None = None
    #: the number that it counts for in a limit of units
    units: int = 1
    #: the shared limit that it counts against; empty for none
    shared: str = ""
    #: False if the payload is stored apart from the record and was not read with it, or is not stored any more
    has_payload: bool = True
    #: by which the trace of its submit goes on (W3C Trace Context); empty for none
    traceparent: str = ""

    @property
    def own_group(self) -> str:
        """The group to which its message is forwarded: a hash, since a user id may take all of a group's name."""
        return f"run-{hashlib.sha256(f'{self.user_id} {self.seq}'.encode()).hexdigest()[:32]}"

    def to_message(self) -> str:
        """Returns the JSON body of its queue message."""
        return to_ascii_json(self.fields())

    def fields(self) -> dict[str, Any]:
        """Returns the fields that `from_fields` reads."""
        return {
            "v": self._version,
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
            **({"units": self.units} if self.units != 1 else {}),
            **({"shared": self.shared} if self.shared else {}),
            **({"traceparent": self.traceparent} if self.traceparent else {}),
            **({"has_payload": False} if self._version == MESSAGE_VERSION_WITH_UNITS and not self.has_payload else {}),
        }

    @property
    def _version(self) -> int:
        if self.units != 1 or self.shared:
            return MESSAGE_VERSION_WITH_UNITS
        return MESSAGE_VERSION if self.has_payload else MESSAGE_VERSION_WITHOUT_PAYLOAD

    @classmethod
    def from_message(cls, body: str) -> "Task":
        """Parses a message body that `to_message` wrote. Raises MessageError for any other text."""
        try:
            return cls.from_fields(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise MessageError(f"malformed task message: {type(error).__name__}: {error}") from error

    @classmethod
    def from_fields(cls, fields: Any) -> "Task":
        """Builds a task from the fields that `fields` returned. Raises MessageError for any other value."""
        try:
            to_json(fields)  # rejects lone surrogates, which the store cannot save
            version, newest = _integer(fields["v"]), MESSAGE_VERSION_WITH_UNITS
            if not MESSAGE_VERSION <= version <= newest:
                kind = NewerMessageError if version > newest else MessageError
                raise kind(f"unsupported message version {version}; this worker supports {MESSAGE_VERSION} to {newest}")
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
                units=_positive(fields.get("units", 1)),
                shared=_text(fields["shared"]) if "shared" in fields else "",
                has_payload=version != MESSAGE_VERSION_WITHOUT_PAYLOAD and fields.get("has_payload") is not False,
                traceparent=_text(fields["traceparent"]) if "traceparent" in fields else "",
            )
        except (TypeError, KeyError, UnicodeEncodeError) as error:
            raise MessageError(f"malformed task message: {type(error).__name__}: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is not a string")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not an integer")
    return value


def _positive(value: object) -> int:
    if (number := _integer(value)) < 1:
        raise TypeError(f"{value!r} is less than 1")
    return number


class Progress(Struct, frozen=True):
    """How far a running task is, as its function reported."""

    #: 0 to 1, in thousandths
    fraction: float
    text: str
    #: epoch ms of the report
    at: int


class Outcome(Struct, frozen=True):
    """A task's final state. Times are epoch milliseconds."""

    state: TaskState
    #: start of the last attempt; None if it never started
    started_at: int | None
    completed_at: int
    #: attempts started
    attempts: int
    result: Json = None
    error: str | None = None
    #: the units that the function reported in the last attempt; None if it reported none
    used_units: int | None = None
    #: the function's last report; None if it made none
    progress: Progress | None = None


def cancelled_outcome(lease: Lease | None, now_ms: int) -> Outcome:
    """lease: of the task's last attempt, None before the first."""
    return Outcome(TaskState.CANCELLED, lease.starts[-1] if lease else None, now_ms, lease.attempt if lease else 0)


#: The error of a task that was cancelled by an emptying of its lane.
EMPTIED = "its lane was emptied"


def emptied_outcome(at: int, attempts: int = 0) -> Outcome:
    """Of a task that waited, or was scheduled, when its lane was emptied at that time, epoch ms."""
    return Outcome(TaskState.CANCELLED, None, at, attempts, error=EMPTIED)


class FailedAttempt(Struct, frozen=True):
    """An attempt after which the task was to be run again. Times are epoch milliseconds."""

    #: 1 for the first
    number: int
    started_at: int
    ended_at: int
    #: at most ATTEMPT_ERROR characters
    error: str


class TaskRecord(Struct, frozen=True):
    """A task's item in the table: the view that the API returns."""

    task: Task
    state: TaskState = TaskState.QUEUED
    outcome: Outcome | None = None
    #: failed attempts, while the task is not final
    attempts: int = 0
    #: error of the last failed attempt
    error: str | None = None
    #: when a client cancelled the task while it ran, epoch ms; None if none did
    cancel_requested_at: int | None = None
    #: the function's last report, maybe of an earlier attempt; None if it made none
    progress: Progress | None = None
    #: the newest failed attempts before the last one, oldest first, at most ATTEMPTS_KEPT
    failed_attempts: tuple[FailedAttempt, ...] = ()
    #: id of the task as which this failed one is submitted again; None if it was not
    redriven_as: str | None = None


def failure_cursor(record: TaskRecord) -> str:
    """Orders failed tasks by the time of their failure, and names this one as the end of a page."""
    assert record.outcome is not None, "the task has failed"
    return failure_key(record.task.task_id, record.outcome.completed_at)


def failure_key(task_id: str, failed_at: int) -> str:
    return f"{failed_at:015d}-{task_id}"


def describe(error: BaseException) -> str:
    """Returns the error's type and text in one line of at most 1,000 characters.

    Replaces unprintable characters, some of which SQS and DynamoDB reject.
    """
    return printable(f"{type(error).__name__}: {error}"[:1000])


def printable(text: str) -> str:
    """Replaces unprintable characters by spaces."""
    return "".join(character if character.isprintable() else " " for character in text)
