"""A datagram that tells a worker to look at the queue now: the emulator's own long poll looks every 100 ms.

Best effort on both sides. What is missed is found by the poll.
"""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

#: After these calls there may be a message to receive.
_SENDS = ("SendMessage", "SendMessageBatch", "ChangeMessageVisibility")


def wake_socket(run_dir: Path, name: str) -> Path:
    return run_dir / f"{name}.wake"


class Waker:
    """Wakes one of the workers at a time; safe to use from many threads."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def wake_after_sends(self, sqs: Any) -> None:
        """sqs: the client that sends. Of many tasks the first starts while the others are still being sent."""
        for operation in _SENDS:
            sqs.meta.events.register(f"after-call.sqs.{operation}", lambda **_: self.wake())

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
