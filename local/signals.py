"""Turns SIGINT and SIGTERM into an event to wait for, so that a signal interrupts no step of the runner."""

from __future__ import annotations

import select
import signal
import socket


class StopSignals:
    """Counts requests to stop. Create it in the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._read, write = socket.socketpair()
        write.setblocking(False)
        # A signal between reading `count` and waiting would be missed; the byte in the socket is not.
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        self._write = write
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def wait(self, timeout_seconds: float) -> bool:
        """Sleeps until a signal or the timeout; returns True if a stop was ever requested."""
        if select.select([self._read], [], [], timeout_seconds)[0]:
            self._read.recv(64)
        return self.count > 0

    def _note(self, _number: int, _frame: object) -> None:
        self.count += 1
