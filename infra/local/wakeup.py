"""A datagram that tells a worker to look at the queue now: the emulator's own long poll looks every 100 ms.

Best effort on both sides. What is missed is found by the poll.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

#: After these calls there may be a message to receive.
_SENDS = ("SendMessage", "SendMessageBatch", "ChangeMessageVisibility")
#: Batches of one lane that follow each other so soon belong to one submit.
_SAME_SECONDS = 0.05
#: Where a call's context keeps the lane.
_LANE = "paceline_lane"


def wake_socket(run_dir: Path, name: str) -> Path:
    return run_dir / f"{name}.wake"


class Waker:
    """Wakes one of the workers at a time; safe to use from many threads."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        #: the last batch that this thread sent: its lane, and when
        self._batch = threading.local()

    def wake_after_sends(self, sqs: Any) -> None:
        """sqs: the client that sends. Of many tasks the first starts while the others are still being sent."""
        for operation in _SENDS:
            sqs.meta.events.register(f"after-call.sqs.{operation}", self._sent)
        sqs.meta.events.register("provide-client-params.sqs.SendMessageBatch", _note_lane)

    def _sent(self, context: dict[str, Any], **_others: Any) -> None:
        """Wakes a worker, unless one was just woken for the batch before: it gets the rest when that is done."""
        lane, now = context.get(_LANE), time.monotonic()
        last, at = getattr(self._batch, "last", None), getattr(self._batch, "at", 0.0)
        self._batch.last, self._batch.at = lane, now
        if lane is None or lane != last or now - at > _SAME_SECONDS:
            self.wake()

    def wake(self) -> None:
        """Never blocks, never raises."""
        with suppress(OSError):
            workers = list(self._run_dir.glob("*.wake"))
            # By chance: in turn, a submit with two sends would always wake the same one with its first tasks.
            random.shuffle(workers)
            # The first one may have died, or have a full socket.
            any(self._send(worker) for worker in workers)

    def close(self) -> None:
        self._socket.close()

    def _send(self, path: Path) -> bool:
        try:
            self._socket.sendto(b"1", str(path))
        except OSError:
            return False
        return True


def _note_lane(params: dict[str, Any], context: dict[str, Any], **_others: Any) -> None:
    """A batch of the API is of one lane; the queue `later` has none."""
    context[_LANE] = params["Entries"][0].get("MessageGroupId")


class Alarm:
    """The worker's end."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def wait(self, timeout_seconds: float) -> bool:
        """Whether somebody woke us in this time; several calls at once count as one."""
        self._socket.settimeout(timeout_seconds)
        try:
            self._socket.recv(16)
        except TimeoutError:
            return False
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while self._socket.recv(16):
                pass
        return True

    def ring(self) -> None:
        """Wake the thread that waits, from another thread of the same process."""
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(b"1", str(self._path))

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._socket.close()
