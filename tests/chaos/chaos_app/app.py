"""Paceline's app with a skewed clock and a task that reports its runs to the harness."""

import ctypes
import os
import random
import re
import signal
import socket
import time
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from chalicelib import container as wiring
from chalicelib.tasks import Context, task

#: Seconds after which a clock's error is drawn anew, so clocks also step.
STEP_SECONDS = 15
SKEW_MS = int(os.environ.get("CHAOS_SKEW_MS") or 0)

reports = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


class SkewedClock(wiring.SystemClock):
    """A clock off by up to SKEW_MS, differently in each process."""

    def now_ms(self) -> int:
        return super().now_ms() + self._error_ms()

    def sleep_until(self, at: int) -> None:
        while (left_ms := at - self.now_ms()) > 0:
            time.sleep(left_ms / 1000)

    def _error_ms(self) -> int:
        return random.Random(f"{os.getpid()} {time.monotonic() // STEP_SECONDS}").randint(-SKEW_MS, SKEW_MS)


if SKEW_MS:
    wiring.SystemClock = SkewedClock  # type: ignore[misc]


@task("chaos", attempts=20)
def chaos(milliseconds: int, failures: int, context: Context) -> Any:
    """Takes the given time; fails the given number of times before it succeeds.

    It has more attempts than workers are killed under it, so it fails for good only by somebody else's doing.
    """
    report("begin", context)
    time.sleep(milliseconds / 1000)
    if context.attempt <= failures:
        report("failed", context)
        raise RuntimeError("failed on request")
    report("end", context)
    return {"attempt": context.attempt}


@task("crash", attempts=2, backoff_seconds=0, deadline_seconds=2)
def crash(how: str, context: Context) -> Any:
    """Never succeeds: ends its process, overruns its deadline, or takes memory."""
    report("begin", context)
    time.sleep(0.2)
    CRASHES[how]()


def swallow() -> None:
    taken = []
    while True:
        taken.append(bytearray(8 * 1024 * 1024))


CRASHES: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "swallow": swallow,
    "hang": lambda: time.sleep(600),
    "search": lambda: re.match(r"(a+)+$", "a" * 60 + "b"),
}


def report(what: str, context: Context) -> None:
    # The parent is the fork server, which ends with its worker.
    who = f"{context.task_id} {os.getpid()} {os.getppid()} {context.attempt}"
    reports.sendto(f"{what} {who} {time.time_ns() // 1_000_000}".encode(), os.environ["CHAOS_REPORTS"])


spec = spec_from_file_location("paceline_app", Path(__file__).parents[3] / "app.py")
assert spec
assert spec.loader
paceline_app = module_from_spec(spec)
spec.loader.exec_module(paceline_app)
app = paceline_app.app
worker = paceline_app.worker
scheduled = paceline_app.scheduled
