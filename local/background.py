"""Threads of the runner that must survive whatever they watch, and are watched themselves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_ERROR_PAUSE_SECONDS = 1.0

log = logging.getLogger("runner")


class Background:
    """Repeats a step in a thread from `start` to `stop`; after an unexpected error it pauses and goes on."""

    def __init__(
        self,
        doing: str,
        step: Callable[[], None],
        interval_seconds: float,
        say: Callable[[str], None],
        *,
        longest_seconds: float | None = None,
        error_pause_seconds: float = _ERROR_PAUSE_SECONDS,
    ) -> None:
        """doing: what the step does, for messages. longest_seconds: how long a step may take; None without a limit."""
        self.stopping = threading.Event()
        self._doing = doing
        self._step = step
        self._interval_seconds = interval_seconds
        self._say = say
        self._longest_seconds = longest_seconds
        self._error_pause_seconds = error_pause_seconds
        self._thread: threading.Thread | None = None
        self._began_at: float | None = None
        self._error = ""

    def start(self) -> None:
        self._began_at = None
        self._thread = threading.Thread(target=self._run, name=self._doing, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()

    def join(self, timeout_seconds: float) -> None:
        if self._thread:
            self._thread.join(timeout_seconds)

    def check(self) -> None:
        """Starts the thread again if it ended, and says once if its step takes too long."""
        if self._thread and not self._thread.is_alive() and not self.stopping.is_set():
            self._say(f"{self._doing} ended: starting it again")
            self.start()
        began_at = self._began_at
        if self._longest_seconds and began_at and time.monotonic() - began_at > self._longest_seconds:
            self._began_at = None
            self._say(f"{self._doing} takes longer than {self._longest_seconds:.0f} s")

    def _run(self) -> None:
        while not self.stopping.wait(self._interval_seconds):
            try:
                self._began_at = time.monotonic()
                self._step()
                self._error = ""
            except BaseException as error:  # a SystemExit would end the thread without a word
                if self._error != repr(error):  # else the same lines would come each second
                    self._error = repr(error)
                    log.exception("%s failed", self._doing)
                    self._say(f"{self._doing} failed, trying again: {type(error).__name__}: {error}")
                self.stopping.wait(self._error_pause_seconds)
            finally:
                self._began_at = None
