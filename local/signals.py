"""SIGINT and SIGTERM as something to wait for, so that no step of the runner is torn apart by one."""

from __future__ import annotations

import select
import signal
import socket


class StopSignals:
    """Counts the requests to stop. Made in the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._read, write = socket.socketpair()
        write.setblocking(False)
        # A signal between a look at `count` and the wait would be missed; the byte in the socket is not.
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        self._write = write
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until a signal comes or the time is over; whether a stop has been asked for, now or before."""
        if select.select([self._read], [], [], timeout_seconds)[0]:
            self._read.recv(64)
        return self.count > 0

    def _note(self, _number: int, _frame: object) -> None:
        self.count += 1
