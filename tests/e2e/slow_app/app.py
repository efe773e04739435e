"""Paceline's own app with a task that takes the seconds that its payload says, and with such as go wrong."""

import asyncio
import ctypes
import os
import re
import signal
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from chalicelib.core.errors import RetryAfter
from chalicelib.tasks import Context, task


@task("sleep")
def sleep(payload: Any) -> Any:
    time.sleep(payload["seconds"])
    return payload


@task("report")
def report(seconds: int, *, context: Context) -> int:
    """Reports its progress ten times a second, and stops when it is asked to."""
    for step in range(10 * seconds):
        if context.cancelled:
            raise InterruptedError(f"stopped at step {step}")
        context.progress(step / (10 * seconds), f"step {step}")
        time.sleep(0.1)
    return context.attempt


@task("ignore", deadline_seconds=8)
def ignore() -> Any:
    """Does not look whether it was cancelled."""
    time.sleep(600)


@task("report-async")
async def report_async(seconds: int, *, context: Context) -> int:
    context.progress(0.5, "asleep")
    await asyncio.sleep(seconds)
    return context.attempt


@task("die", attempts=2, backoff_seconds=0)
def die(payload: Any) -> Any:
    """As the kernel ends one that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@task("slow-down")
def slow_down(seconds: int) -> Any:
    raise RetryAfter(seconds, "the bank asked for a pause")


@task("hang", deadline_seconds=2)
def hang(payload: Any) -> Any:
    while True:
        time.sleep(60)


@task("exit", attempts=2, backoff_seconds=0)
def exit_process(seconds: float = 0) -> Any:
    time.sleep(seconds)
    os._exit(3)


@task("segfault", attempts=2, backoff_seconds=0)
def segfault() -> Any:
    ctypes.string_at(0)


@task("swallow", attempts=2, backoff_seconds=0)
def swallow() -> Any:
    """Takes memory until it gets no more."""
    taken = []
    while True:
        taken.append(bytearray(8 * 1024 * 1024))


@task("leave", attempts=2, backoff_seconds=0)
def leave(by: str) -> Any:
    raise {"cancel": asyncio.CancelledError, "interrupt": KeyboardInterrupt, "close": GeneratorExit}[by]


@task("search", deadline_seconds=6)
def search() -> Any:
    """Holds the interpreter's lock for longer than any deadline."""
    return bool(re.match(r"(a+)+$", "a" * 60 + "b"))


@task("diary")
def diary(path: str, seconds: float, context: Context) -> Any:
    """Writes down when it began and ended, and in which process; only the first attempt takes its time."""
    with Path(path).open("a") as file:
        print("begin", os.getpid(), time.time(), file=file, flush=True)
        time.sleep(seconds if context.attempt == 1 else 0)
        print("end", os.getpid(), time.time(), file=file, flush=True)


@task("odd")
def odd(payload: Any) -> Any:
    return {"a set": {1}}


@task("chat", units=lambda payload: payload["estimate"])
def chat(url: str, estimate: int, tokens: int, *, context: Context) -> int:
    """Asks an API that counts tokens; the estimate is wrong, as estimates are."""
    with urlopen(Request(url, data=str(tokens).encode(), headers={"User-Id": context.user_id})) as answer:
        context.used(tokens)
        return int(answer.status)


@task("when-there", attempts=1)
def when_there(path: str) -> Any:
    return Path(path).read_text()


spec = spec_from_file_location("paceline_app", Path(__file__).parents[3] / "app.py")
assert spec
assert spec.loader
paceline_app = module_from_spec(spec)
spec.loader.exec_module(paceline_app)
app = paceline_app.app
worker = paceline_app.worker
scheduled = paceline_app.scheduled
