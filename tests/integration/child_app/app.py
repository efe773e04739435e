"""Tasks for the tests of child processes. The fork server loads this module as `app`, and only there they register."""

import asyncio
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chalicelib.tasks import Context, PermanentError, RetryAfter, task

#: the functions by the names of their tasks
registered: dict[str, Callable[..., Any]] = {}


def named(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        registered[name] = function
        return task(name)(function) if __name__ == "app" else function

    return register


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@named("echo")
def echo(payload: Any) -> Any:
    return payload


@named("greet")
def greet(name: str) -> str:
    return name


@named("who")
def who(context: Context) -> Any:
    fields = ("user_id", "task_id", "name", "seq", "attempt", "deadline_at")
    return [getattr(context, field) for field in fields]


@named("raise")
def raise_error(payload: str) -> Any:
    known = (ValueError, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit, SystemExit, PermanentError)
    kinds = {kind.__name__: kind for kind in (*known, UnreadableError)}
    raise kinds[payload]("on request")


@named("wait-for-all")
async def wait_for_all(payload: list[Any]) -> Any:
    async def late(value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    return await asyncio.gather(*map(late, payload))


@named("raise-later")
async def raise_later(payload: str) -> Any:
    await asyncio.sleep(0)
    raise_error(payload)


@named("slow-down")
def slow_down() -> Any:
    raise RetryAfter(2.5, "the bank")


@named("a-set")
def a_set() -> Any:
    return {1}


@named("long")
def long() -> Any:
    return "x" * 200_000


@named("spend")
def spend(units: int, error: bool = False, *, context: Context) -> str:
    context.used(units)
    if error:
        raise ValueError("after it")
    return "spent"


@named("exit")
def exit_process() -> Any:
    os._exit(3)


@named("kill")
def kill() -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@named("segfault")
def segfault() -> Any:
    ctypes.string_at(0)


@named("swallow")
def swallow() -> Any:
    taken = []
    while True:
        taken.append(bytearray(8 * 1024 * 1024))


@named("grow")
def grow() -> int:
    bytearray(270 * 1024 * 1024)
    return os.getpid()


@named("leave")
def leave(payload: str) -> int:
    """Leaves something behind that would end or disturb the next task in this process."""
    {"alarm": lambda: signal.alarm(1), "thread": lambda: threading.Timer(1, os._exit, (3,)).start()}[payload]()
    return os.getpid()


@named("close-all")
def close_all() -> Any:
    os.closerange(3, 1024)


@named("hang")
def hang(payload: str) -> Any:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(payload).write_text(f"{os.getpid()} {other.pid}")
    time.sleep(600)


@named("search")
def search(payload: str) -> Any:
    Path(payload).write_text(str(os.getpid()))
    return bool(re.match(r"(a+)+$", "a" * 60 + "b"))


@named("wait")
def wait(payload: str) -> Any:
    Path(payload, "begun").write_text(str(os.getpid()))
    while not Path(payload, "go").exists():
        time.sleep(0.01)


@named("until-cancelled")
def until_cancelled(payload: str, context: Context) -> str:
    Path(payload, "begun").write_text(str(os.getpid()))
    while not context.cancelled:
        time.sleep(0.01)
    return "stopped"


@named("async-until-cancelled")
async def async_until_cancelled(payload: str) -> str:
    Path(payload, "begun").write_text(str(os.getpid()))
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        await asyncio.sleep(0)  # it is cancelled once, so it may tidy up
        Path(payload, "tidy").touch()
        raise
    return "not stopped"


@named("report")
def report(context: Context) -> int:
    for page in range(3):
        context.progress(page / 3, f"page {page}")
    return os.getpid()


@named("report-async")
async def report_async(context: Context) -> int:
    for page in range(3):
        context.progress(page / 3, f"page {page}")
        await asyncio.sleep(0)
    return os.getpid()


@named("report-in-threads")
def report_in_threads(context: Context) -> int:
    def count(name: str) -> None:
        for step in range(200):
            context.progress(step / 200, f"{name} {step} " + "x" * 150)

    threads = [threading.Thread(target=count, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    context.progress(1, "all")
    return os.getpid()


@named("report-often")
def report_often(context: Context) -> int:
    """More than the socket to the worker holds."""
    for step in range(20_000):
        context.progress(0.5, f"step {step}")
    return os.getpid()


@named("report-late")
def report_late(context: Context) -> int:
    """Leaves a thread that reports after the function's end."""

    def go_on() -> None:
        while True:
            context.progress(0.5, str(time.monotonic()))

    threading.Thread(target=go_on, daemon=True).start()
    time.sleep(0.05)
    return os.getpid()


@named("report-and-fail")
def report_and_fail(payload: str, context: Context) -> int:
    context.progress(0.25, "before it")
    if payload == "die":
        os._exit(3)
    if payload == "hang":
        time.sleep(600)
    if payload == "fork":
        if os.fork() == 0:
            context.progress(0.75, "of another process")
            os._exit(0)
        os.wait()
        return 0
    context.progress(float(payload))
    return 0


@named("pid")
def pid() -> int:
    return os.getpid()


@named("parent")
def parent() -> int:
    return os.getppid()


@named("threads-of-parent")
def threads_of_parent() -> int:
    return len(list(Path(f"/proc/{os.getppid()}/task").iterdir()))


@named("fork")
def fork() -> str:
    os.fork()
    return "forked"


@named("print")
def print_and_log(context: Context) -> None:
    print("printed by the task")
    context.logger.warning("logged by the task")


if os.environ.get("CHILD_APP_THREAD"):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
