"""Turns SIGINT, SIGTERM and a closed terminal into an event, so that they interrupt no step of the runner."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import suppress


class StopSignals:
    """Counts requests to stop. Create it in the main thread."""

    def __init__(self) -> None:
        self.count = 0
        #: nobody can send a signal from the terminal any more
        self.is_terminal_closed = False
        self._read, write = socket.socketpair()
        write.setblocking(False)
        # A signal between reading `count` and waiting would be missed; the byte in the socket is not.
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        self._write = write
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)
        self._terminal = self._watch_terminal()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def wait(self, timeout_seconds: float) -> bool:
        """Sleeps until a signal or the timeout; returns True if a stop was ever requested."""
        for file, events in self._poll.poll(timeout_seconds * 1000):
            if file == self._terminal and events & (select.POLLHUP | select.POLLERR):
                self._leave_terminal()
            elif file == self._terminal:  # a device that can't be watched; don't poll it without a pause
                self._poll.unregister(file)
                self._terminal = None
                time.sleep(timeout_seconds)
            elif file == self._read.fileno():
                self._read.recv(64)
        return self.count > 0

    def _watch_terminal(self) -> int | None:
        """Watches for the terminal's end, unless `nohup` asks to survive it; returns its file descriptor.

        If `make` leads the session, only `make` gets the SIGHUP, and it waits for its child without passing it on.
        """
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            return None
        signal.signal(signal.SIGHUP, self._note)
        terminal = next((file for file in (0, 1, 2) if _is_terminal(file)), None)
        if terminal is not None:
            self._poll.register(terminal, 0)  # POLLHUP is always reported
        return terminal

    def _leave_terminal(self) -> None:
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            with suppress(KeyError):  # a SIGHUP may come at this moment and do the same
                self._poll.unregister(terminal)
        self.is_terminal_closed = True
        self.count = self.count or 1  # the same end may also have sent a SIGHUP

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self._leave_terminal()
        else:
            self.count += 1


def _is_terminal(file: int) -> bool:
    try:
        return os.isatty(file)
    except OSError:
        return False
