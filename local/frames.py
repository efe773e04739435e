"""The messages between a worker and its child processes: JSON, with the length in front."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from chalicelib.tasks.registry import Context, checked_progress
from chalicelib.tasks.runner import Ended, Failed, Returned, Throttled

_LENGTH = struct.Struct("!I")
#: Byte by which a worker asks the running task of a child to stop. The child reads no call after it.
CANCEL = b"c"
#: Bytes of a message at most: some times the largest payload or result, each of whose bytes may take six as JSON.
_MAX_BYTES = 4 * 1024 * 1024
_KINDS: dict[str, type[Returned] | type[Failed] | type[Throttled]] = {
    kind.__name__: kind for kind in (Returned, Failed, Throttled)
}
#: Fields of a context that each process makes for itself.
_HERE_ONLY = ("logger", "report", "cancel_request", "report_progress")


class FrameError(Exception):
    """The other side ended, or sent something else than a message."""


def frame(message: dict[str, Any]) -> bytes:
    """Returns the message's bytes. Raises ValueError, TypeError or RecursionError if it is not JSON."""
    body = json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


def call_frame(payload: Any, context: Context, token: str) -> bytes:
    """Returns the message by which a worker sends a task."""
    fields = {name: getattr(context, name) for name in context.__struct_fields__ if name not in _HERE_ONLY}
    return frame({"payload": payload, "context": fields, "token": token})


def ended_frame(ended: Ended, is_last: bool) -> bytes:
    """Returns the message in which a child reports how its call ended. is_last: the child ends after it."""
    fields = {name: getattr(ended, name) for name in ended.__struct_fields__}
    return frame({"kind": type(ended).__name__, "is_last": is_last, "fields": fields})


def progress_frame(fraction: float, text: str) -> bytes:
    """Returns the message in which a child reports how far its call is."""
    return frame({"progress": [fraction, text]})


def read_progress(message: dict[str, Any]) -> tuple[float, str] | None:
    """Returns the two that `progress_frame` made the message from; None for another message. Raises FrameError."""
    if "progress" not in message:
        return None
    try:
        fraction, text = message["progress"]
        return checked_progress(fraction, text)
    except (ValueError, TypeError) as error:
        raise FrameError(f"not a progress: {error}") from error


def read_ended(message: dict[str, Any]) -> tuple[Ended, bool]:
    """Returns the two that `ended_frame` made the message from. Raises FrameError."""
    try:
        return _KINDS[message["kind"]](**message["fields"]), bool(message["is_last"])
    except (KeyError, TypeError) as error:
        raise FrameError(f"not an outcome: {error}") from error


class FrameReader:
    """Makes messages of the parts that a socket delivers."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    @property
    def missing(self) -> int:
        """Bytes that the next message lacks, as far as they are known."""
        if len(self._bytes) < _LENGTH.size:
            return _LENGTH.size - len(self._bytes)
        return _LENGTH.size + int(_LENGTH.unpack_from(self._bytes)[0]) - len(self._bytes)

    def feed(self, part: bytes) -> list[dict[str, Any]]:
        """Returns the messages that the part completes, in order. Raises FrameError."""
        self._bytes += part
        messages = []
        while len(self._bytes) >= _LENGTH.size:
            end = _LENGTH.size + int(_LENGTH.unpack_from(self._bytes)[0])
            if end > _LENGTH.size + _MAX_BYTES:
                raise FrameError("a message that is too long")
            if len(self._bytes) < end:
                break
            messages.append(_parsed(bytes(self._bytes[_LENGTH.size : end])))
            del self._bytes[:end]
        return messages


def receive(source: socket.socket) -> dict[str, Any]:
    """Waits for a message and leaves whatever follows it. Raises FrameError when the other side ended."""
    reader = FrameReader()
    while part := source.recv(min(reader.missing, 65_536)):
        if messages := reader.feed(part):
            return messages[0]
    raise FrameError("the other side ended")


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise FrameError("not an object")
    return message
