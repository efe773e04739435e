"""Reads the completion log: from a folder or from CloudWatch Logs, line by line, as `Completion`s.

It judges nothing but the form of a line. A line of another form is returned as `Foreign`, never raised:
a worker that was killed leaves a torn line, and Lambda writes lines of its own between ours.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from chalicelib.core.limits import Limits, parse_limits, parse_shared_limits
from completions.windows import Used

#: The events of the log, each with the word that `make logs` says for it.
WORDS = {"task_completed": "completed", "task_failed": "failed", "task_cancelled": "cancelled"}

#: Epoch ms of the year 10000, the first moment that `datetime` cannot hold.
END_OF_TIME_MS = 253_402_300_800_000


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of one log stream, as it was read."""

    #: The stream's name as CloudWatch spells it: `2026/11/22/[worker-1]0f3c…`, no suffix.
    stream: str
    #: The line without its newline.
    text: str
    #: Whether the line had its end; a line without one may still be growing.
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of one task, without its result. Times are epoch ms."""

    stream: str
    timestamp: int
    event: str
    user_id: str
    task_id: str
    seq: int
    completed_at: int
    #: The name of the task's function.
    task: str
    #: None where the line does not say.
    planned_at: int | None
    #: The start of the last attempt; None for a task that was cancelled before it started.
    started_at: int | None
    #: The starts of the attempts before the last, as far as the worker knew them.
    earlier_starts: tuple[int, ...]
    #: How much later than planned the last start was.
    late_ms: int | None
    #: Number of the last attempt, from 1; 0 for a task that never started.
    attempt: int
    #: The user's own limits, in force at the last start; None where the default limits were.
    limits: Limits | None
    #: The same for each of `earlier_starts`.
    earlier_limits: tuple[Limits | None, ...]
    #: What each of its starts counted for in limits of units.
    units: int = 1
    #: The report of its last attempt; None if it reported nothing.
    last_used: Used | None = None
    #: The reports of `earlier_starts`.
    earlier_used: tuple[Used | None, ...] = ()
    #: The shared limit that it counted against; empty for none.
    shared: str = ""
    #: The shared limit's limits at the last start: None where those of the setting were in force, empty for none.
    shared_limits: Limits | None = None
    #: The same for each of `earlier_starts`.
    earlier_shared_limits: tuple[Limits | None, ...] = ()

    @property
    def word(self) -> str:
        """`completed`, `failed` or `cancelled`."""
        return WORDS[self.event]

    @property
    def starts(self) -> tuple[int, ...]:
        """Every known start, in the order of the attempts."""
        return self.earlier_starts if self.started_at is None else (*self.earlier_starts, self.started_at)

    @property
    def all_limits(self) -> tuple[Limits | None, ...]:
        """The user's own limits at each of `starts`."""
        return (*self.earlier_limits, self.limits)

    @property
    def all_shared_limits(self) -> tuple[Limits | None, ...]:
        """The shared limit's limits at each of `starts`."""
        return (*self.earlier_shared_limits, self.shared_limits)

    @property
    def used(self) -> tuple[Used | None, ...]:
        """The report of each of `starts`."""
        return (*self.earlier_used, self.last_used)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A line of another form than a completion."""

    stream: str
    #: Its fault, in words.
    reason: str
    #: The end of the line is missing: its writer died, or is still writing.
    torn: bool = False


class LogsClient(Protocol):
    """The one call of a boto3 `logs` client that the reader makes."""

    def filter_log_events(self, **request: Any) -> Any:
        """Answer one page of log events, as the API does."""


def completions_folder(log_dir: Path, stage: str) -> Path:
    """The folder that stands for the stage's log group."""
    return log_dir / "paceline" / stage / "completions"


def stream_paths(folder: Path) -> list[Path]:
    """The files of the log group's streams, by day and name; none while the folder is not there."""
    return sorted(folder.glob("*/*/*/*.log"))


def stream_name(folder: Path, path: Path) -> str:
    """The name CloudWatch would give the stream that this file stands for."""
    return path.relative_to(folder).with_suffix("").as_posix()


def decode_line(stream: str, raw: bytes) -> LogLine:
    """One line as read from a file, with or without its newline."""
    return LogLine(stream, raw.decode("utf-8", "replace").rstrip("\r\n"), raw.endswith(b"\n"))


def folder_lines(folder: Path) -> Iterator[LogLine]:
    """Every line of every stream, stream after stream, one line in memory at a time."""
    for path in stream_paths(folder):
        name = stream_name(folder, path)
        with path.open("rb") as file:
            for raw in file:
                yield decode_line(name, raw)


def cloudwatch_lines(client: LogsClient, log_group: str, since_ms: int = 0) -> Iterator[LogLine]:
    """Every event of a CloudWatch log group from `since_ms` on, page after page.

    A page may be empty and still name a next one, so only a missing token ends the reading.
    """
    request: dict[str, Any] = {"logGroupName": log_group, "startTime": since_ms}
    while True:
        page = client.filter_log_events(**request)
        for event in page.get("events", ()):
            yield LogLine(event["logStreamName"], event["message"].rstrip("\r\n"))
        if not page.get("nextToken"):
            return
        request["nextToken"] = page["nextToken"]


def read_completions(lines: Iterable[LogLine]) -> Iterator[Completion | Foreign]:
    """Parses each line; skips blank ones."""
    return (parse_line(line) for line in lines if line.text.strip())


def parse_line(line: LogLine) -> Completion | Foreign:
    """The completion that a line holds, or why it holds none.

    A last line without a newline counts if it is whole: then only its newline is missing.
    """
    try:
        fields = json.loads(line.text)
    except (ValueError, RecursionError):
        return Foreign(line.stream, "not JSON", torn=not line.ended)
    if not isinstance(fields, dict) or fields.get("event") not in tuple(WORDS):
        return Foreign(line.stream, "not a completion")
    try:
        return _completion(line.stream, fields)
    except (KeyError, TypeError, ValueError) as error:
        return Foreign(line.stream, f"a completion with a bad field: {error}")


def _completion(stream: str, fields: dict[str, Any]) -> Completion:
    return Completion(
        stream=sys.intern(stream),
        timestamp=_time(fields, "timestamp"),
        event=sys.intern(fields["event"]),
        user_id=sys.intern(_text(fields, "user_id")),
        task_id=_text(fields, "task_id"),
        seq=_whole(fields, "seq"),
        completed_at=_time(fields, "completed_at"),
        task=sys.intern(_text(fields, "task")) if "task" in fields else "",
        planned_at=_time(fields, "planned_at") if fields.get("planned_at") is not None else None,
        started_at=_time(fields, "started_at") if fields.get("started_at") is not None else None,
        earlier_starts=tuple(_time({"starts": start}, "starts") for start in fields.get("starts") or ()),
        late_ms=_whole(fields, "late_ms") if fields.get("late_ms") is not None else None,
        attempt=_whole(fields, "attempt") if fields.get("attempt") is not None else 0,
        limits=_limits(fields, "limits"),
        earlier_limits=_earlier_limits(fields),
        units=_at_least(fields, "units", 1) if "units" in fields else 1,
        last_used=_last_used(fields),
        earlier_used=_earlier_used(fields),
        shared=sys.intern(_text(fields, "shared")) if fields.get("shared") is not None else "",
        shared_limits=_shared_limits(fields.get("shared_limits"), "shared_limits"),
        earlier_shared_limits=_earlier_shared_limits(fields),
    )


def _limits(fields: dict[str, Any], name: str) -> Limits | None:
    return parse_limits(_text(fields, name)) if fields.get(name) is not None else None


def _earlier_limits(fields: dict[str, Any]) -> tuple[Limits | None, ...]:
    """Those of the last start, unless the line names others."""
    count = len(fields.get("starts") or ())
    named = fields.get("starts_limits")
    if named is None:
        return (_limits(fields, "limits"),) * count
    if not isinstance(named, list) or len(named) != count:
        raise ValueError(f"starts_limits is {named!r:.40}, not one text or null for each of {count} starts")
    return tuple(_limits({"starts_limits": one}, "starts_limits") for one in named)


def _shared_limits(value: Any, name: str) -> Limits | None:
    """Empty for a shared limit that had been deleted."""
    if value is None or value == "":
        return None if value is None else ()
    return parse_shared_limits(_text({name: value}, name))


def _earlier_shared_limits(fields: dict[str, Any]) -> tuple[Limits | None, ...]:
    """Those of the last start, unless the line names others."""
    count = len(fields.get("starts") or ())
    named = fields.get("starts_shared_limits")
    if named is None:
        return (_shared_limits(fields.get("shared_limits"), "shared_limits"),) * count
    if not isinstance(named, list) or len(named) != count:
        raise ValueError(f"starts_shared_limits is {named!r:.40}, not one text or null for each of {count} starts")
    return tuple(_shared_limits(one, "starts_shared_limits") for one in named)


def _last_used(fields: dict[str, Any]) -> Used | None:
    """Known from the end of the task on, unless the line says otherwise."""
    if fields.get("used_units") is None:
        return None
    return Used(_at_least(fields, "used_units", 0), _time(fields, "used_at" if "used_at" in fields else "completed_at"))


def _earlier_used(fields: dict[str, Any]) -> tuple[Used | None, ...]:
    count = len(fields.get("starts") or ())
    named = fields.get("starts_used")
    if named is None:
        return (None,) * count
    if not isinstance(named, list) or len(named) != count:
        raise ValueError(f"starts_used is {named!r:.40}, not one object or null for each of {count} starts")
    return tuple(None if one is None else Used(_at_least(one, "units", 0), _time(one, "at")) for one in named)


def _at_least(fields: dict[str, Any], name: str, least: int) -> int:
    value = _whole(fields, name)
    if value < least:
        raise ValueError(f"{name} is {value}, less than {least}")
    return value


def _whole(fields: dict[str, Any], name: str) -> int:
    value = fields[name]
    # Python's bool is an int, but `true` is not a number here.
    if type(value) is not int:
        raise TypeError(f"{name} is {value!r:.40}, not a whole number")
    return value


def _time(fields: dict[str, Any], name: str) -> int:
    value = _whole(fields, name)
    if not 0 <= value < END_OF_TIME_MS:
        raise ValueError(f"{name} is {value}, not a time in epoch ms")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r:.40}, not text")
    return value
