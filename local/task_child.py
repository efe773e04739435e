"""A child process's side: runs one task after the other that its worker sends over a socket, in its main thread."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from chalicelib.core.ports import Presence
from chalicelib.tasks.cancel_request import CancelRequest
from chalicelib.tasks.registry import Context, Registry
from chalicelib.tasks.runner import Ended, Failed, run_function
from local.frames import CANCEL, FrameError, ended_frame, frame, progress_frame, receive

#: Bytes of memory that a child may have taken since its start; with more it is replaced after its task.
KEPT_BYTES = 256 * 1024 * 1024


def serve(job: socket.socket, registry: Registry, presence: Presence) -> None:
    """Greets the worker and runs its tasks; returns when the worker is gone or this process can't be used again."""
    pid, is_last, limit = os.getpid(), False, _memory_bytes() + KEPT_BYTES
    before = _surroundings()
    job.sendall(frame({"pid": pid}))
    while not is_last:
        try:
            call = receive(job)
        except (OSError, FrameError):
            return
        # The worker locks the claim too. Of both, the process that dies last says when it is free.
        with presence.serving(call["token"]):
            if _is_left(job):
                return
            progress = SocketProgress(job)
            ended = _run(call, registry, SocketCancelRequest(job), progress.report)
            progress.close()
            if os.getpid() != pid:
                os._exit(0)  # a process that the function forked and let return
            is_last = _memory_bytes() > limit or _has_leftovers(*before)
            job.sendall(_answer(ended, is_last))


class SocketCancelRequest:
    """The request as the worker sends it: a byte that stays in the socket. Implements CancelRequest."""

    def __init__(self, job: socket.socket) -> None:
        self._job = job
        self._is_made = False

    @property
    def is_made(self) -> bool:
        if not self._is_made:
            with suppress(OSError):  # nothing was sent, or the worker is gone
                self._is_made = self._job.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == CANCEL
        return self._is_made

    @contextmanager
    def calling(self, action: Callable[[], object]) -> Iterator[None]:
        import asyncio  # noqa: PLC0415 - only asynchronous functions call this, and have loaded it

        loop = asyncio.get_running_loop()

        def look() -> None:
            loop.remove_reader(self._job)  # the byte stays, and the end of the worker is no request
            if self.is_made:
                action()

        loop.add_reader(self._job, look)
        try:
            yield
        finally:
            loop.remove_reader(self._job)


class SocketProgress:
    """Sends a function's reports to the worker, from any of its threads."""

    def __init__(self, job: socket.socket) -> None:
        self._job = job
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._last: tuple[float, str] | None = None
        self._is_closed = False

    def report(self, fraction: float, text: str) -> None:
        """Sends a report that says something new; ignores one of another process, or after the function's end."""
        if os.getpid() != self._pid:
            return  # a process that the function forked: its writes could get into those of this one
        with self._lock, suppress(OSError):  # the worker is gone
            if not self._is_closed and self._last != (fraction, text):
                self._last = (fraction, text)
                self._job.sendall(progress_frame(fraction, text))

    def close(self) -> None:
        """Returns once no report is being sent, and none will be."""
        with self._lock:
            self._is_closed = True


def _run(
    call: Mapping[str, Any],
    registry: Registry,
    cancel_request: CancelRequest,
    report_progress: Callable[[float, str], object],
) -> Ended:
    logger = logging.getLogger(f"paceline.{call['context']['name']}")
    context = Context(**call["context"], logger=logger, cancel_request=cancel_request, report_progress=report_progress)
    definition = registry.get(context.name)
    if definition is None:
        return Failed(f"there is no task {context.name!r} in this deployment", is_permanent=True)
    ended = run_function(definition, call["payload"], context)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    return ended


def _answer(ended: Ended, is_last: bool) -> bytes:
    try:
        return ended_frame(ended, is_last)
    except (ValueError, TypeError, RecursionError) as error:
        return ended_frame(Failed(f"the result is not JSON: {type(error).__name__}", is_permanent=True), is_last)


def _is_left(job: socket.socket) -> bool:
    """Returns True if the worker died before this process had locked the claim, so that others may run the task."""
    try:
        return job.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _surroundings() -> tuple[int, str]:
    """Returns the number of this process's threads, and its current folder."""
    try:
        return len(list(Path("/proc/self/task").iterdir())), str(Path.cwd())
    except OSError:
        return threading.active_count(), ""


def _has_leftovers(threads_before: int, folder_before: str) -> bool:
    """Returns True if a task left a thread, an alarm or another current folder, which could disturb the next task."""
    had_alarm = signal.setitimer(signal.ITIMER_REAL, 0)[0] > 0
    threads, folder = _surroundings()
    return had_alarm or threads > threads_before or folder != folder_before


def _memory_bytes() -> int:
    """Returns the most memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
