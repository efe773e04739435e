"""Follows the completion log and prints it, one line for each completion or in the forms of `aws logs tail`.

Reads files only as far as their lines are whole, and never writes to them.
"""

import json
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from completions.audit_table import utc
from completions.reader import Completion, LogLine, decode_line, parse_line, stream_name, stream_paths

#: How long to wait before looking for new lines again.
POLL_SECONDS = 0.2

_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


@dataclass(frozen=True, slots=True)
class Entry:
    """A completion together with the line that it was read from."""

    completion: Completion
    line: LogLine


@dataclass(frozen=True, slots=True)
class Choice:
    """Which completions to show."""

    #: None for every user.
    user_id: str | None = None
    #: The oldest timestamp to show, epoch ms.
    since_ms: int = 0

    def takes(self, completion: Completion) -> bool:
        """Whether to show this one."""
        return completion.timestamp >= self.since_ms and self.user_id in (None, completion.user_id)


@dataclass
class Tail:
    """Reads the new lines of a log group's folder. The folder may be created after the tail."""

    folder: Path
    #: Files without a write since this epoch ms are skipped.
    since_ms: int = 0
    #: How far each file was read, in bytes.
    _offsets: dict[Path, int] = field(default_factory=dict)

    def new_lines(self) -> Iterator[LogLine]:
        """The lines that ended since the last call, stream after stream, each line once."""
        paths = stream_paths(self.folder)
        # Forgets deleted files, so that a new file of the same name is read from its beginning.
        self._offsets = {path: self._offsets[path] for path in paths if path in self._offsets}
        for path in paths:
            # A file may go between the look into its folder and the look into it.
            with suppress(FileNotFoundError):
                yield from self._new_lines(path)

    def _new_lines(self, path: Path) -> Iterator[LogLine]:
        status = path.stat()
        if path not in self._offsets:
            idle = status.st_mtime * 1000 < self.since_ms
            self._offsets[path] = status.st_size if idle else 0
        elif status.st_size < self._offsets[path]:
            self._offsets[path] = 0
        if status.st_size > self._offsets[path]:
            yield from self._read(path)

    def _read(self, path: Path) -> Iterator[LogLine]:
        name = stream_name(self.folder, path)
        with path.open("rb") as file:
            file.seek(self._offsets[path])
            for raw in file:
                # Half a line is left for the next look, when its writer has written the rest.
                if not raw.endswith(b"\n"):
                    return
                self._offsets[path] += len(raw)
                yield decode_line(name, raw)


def follow(tail: Tail, choice: Choice, wait: Callable[[], bool]) -> Iterator[list[Entry]]:
    """Yields the log's entries, then the new ones after each wait, until a wait returns False.

    Each list is in the order of its timestamps; between lists the order is that of writing, so a stream that
    is written late comes late.
    """
    while True:
        entries = select_entries(tail.new_lines(), choice)
        if entries:
            yield entries
        if not wait():
            return


def select_entries(lines: Iterable[LogLine], choice: Choice) -> list[Entry]:
    """The chosen completions among the lines, oldest first; other lines are dropped."""
    entries = []
    for line in lines:
        completion = parse_line(line)
        if isinstance(completion, Completion) and choice.takes(completion):
            entries.append(Entry(completion, line))
    return sorted(entries, key=lambda entry: entry.completion.timestamp)


def _format_line(entry: Entry) -> str:
    end = entry.completion
    return f"{end.user_id}-task {end.word} at-{end.completed_at}"


def _format_detailed(entry: Entry) -> str:
    moment = utc(entry.completion.timestamp).isoformat(timespec="microseconds")
    return f"{moment} {entry.line.stream} {entry.line.text}"


def _format_short(entry: Entry) -> str:
    return f"{utc(entry.completion.timestamp):%Y-%m-%dT%H:%M:%S} {entry.line.text}"


def _format_json(entry: Entry) -> str:
    pretty = json.dumps(json.loads(entry.line.text), indent=4)
    # The space before the newline is AWS's own.
    return f"{utc(entry.completion.timestamp).isoformat()} {entry.line.stream} \n{pretty}"


def _format_none(entry: Entry) -> str:
    event = {
        "logStreamName": entry.line.stream,
        "timestamp": entry.completion.timestamp,
        "message": entry.line.text,
    }
    return json.dumps(event)


#: Each form of a completion: `line` is ours, the others are those of `aws logs tail`.
FORMATS: dict[str, Callable[[Entry], str]] = {
    "line": _format_line,
    "detailed": _format_detailed,
    "short": _format_short,
    "json": _format_json,
    "none": _format_none,
}


def parse_since(text: str, now_ms: int) -> int:
    """The epoch ms that `10m` ago was (s, m, h, d, w), or that an ISO 8601 time is, UTC unless it says otherwise.

    Raises ValueError for anything else.
    """
    relative = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if relative:
        return now_ms - int(relative[1]) * _UNIT_MS[relative[2]]
    moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    return int((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp() * 1000)


def show(batches: Iterable[list[Entry]], form: str, write: Callable[[str], object]) -> None:
    """Write each batch at once when it arrives, in the format that `form` names.

    Returns on Ctrl-C. Raises BrokenPipeError if the reader has closed the pipe.
    """
    try:
        for entries in batches:
            write("".join(f"{FORMATS[form](entry)}\n" for entry in entries))
    except KeyboardInterrupt:
        return


def print_log(folder: Path, user_id: str | None, since_ms: int, form: str, follows: bool) -> None:
    """Prints the log in the folder from a time on, epoch ms. follows: until Ctrl-C. form: a key of FORMATS."""
    if not folder.is_dir():
        print(f"no completion log yet in {folder}", file=sys.stderr)
    wait = _wait_for_more if follows else lambda: False
    _print(follow(Tail(folder, since_ms), Choice(user_id, since_ms), wait), form)


def _print(batches: Iterable[list[Entry]], form: str) -> None:
    try:
        show(batches, form, _write)
    except BrokenPipeError:
        # Python flushes standard output once more as it exits, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _wait_for_more() -> bool:
    """Sleep until the next look; False if standard output is a pipe whose reader is gone."""
    time.sleep(POLL_SECONDS)
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)
    return not any(state & select.POLLERR for _, state in reader.poll(0))
