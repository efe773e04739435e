"""The worker's side of its child processes, and of the fork server that starts them."""

from __future__ import annotations

import logging
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from chalicelib.tasks.runner import Call, Ended, Failed, overdue
from local.fork_server import KILLED
from local.frames import CANCEL, FrameError, FrameReader, call_frame, read_ended, read_progress

#: Seconds for a new child to greet, the start of the fork server included.
_GREET_SECONDS = 60.0
#: Seconds for the fork server to say how a child ended.
_END_SECONDS = 5.0
#: How often the worker reads reports of progress from one child, at most, in this time.
_READS_IN_WINDOW = 5
_WINDOW_SECONDS = 0.1

log = logging.getLogger(__name__)


class Child:
    """The worker's side of one child process. Implements Room."""

    ends_overdue = True

    def __init__(
        self,
        job: socket.socket,
        line: socket.socket,
        on_stuck: Callable[[], None],
        end_seconds: float = _END_SECONDS,
    ) -> None:
        """on_stuck: ends a fork server that does not kill this child within `end_seconds`."""
        self._job = job
        self._line = line
        self._on_stuck = on_stuck
        self._end_seconds = end_seconds
        self._reader = FrameReader()
        #: words of the fork server about this child that were received and not read
        self._words = b""
        #: process id, 0 before it greets
        self.pid = 0
        #: it must not get another task
        self.is_spent = False

    def greets(self) -> bool:
        """Waits for the new process; False if it could not be started."""
        try:
            self.pid = int(str(self._receive(time.monotonic() + _GREET_SECONDS)[0]["pid"]))
        except (OSError, FrameError):
            self.end()
            return False
        return True

    def is_alive(self) -> bool:
        """Returns whether it waits for a task."""
        return not self.is_spent and not _readable(0, self._job, self._line)

    def run(self, call: Call) -> Ended:
        deadline = time.monotonic() + call.deadline_ms / 1000
        try:
            message = call_frame(call.payload, call.context, call.token)
        except (ValueError, TypeError, RecursionError) as error:
            return Failed(f"the payload is not JSON: {type(error).__name__}", is_permanent=True)
        try:
            self._send(message, deadline)
            with call.context.cancel_request.calling(self._ask_to_stop):
                ended, is_last = read_ended(self._receive_end(deadline, call.context.report_progress))
        except TimeoutError:
            self.end()
            return Failed(overdue(call.deadline_ms, call.context.cancelled), is_permanent=True)
        except (OSError, FrameError) as error:
            log.warning("the process of %s ended: %s", call.context.task_id, error)
            return Failed(_death(self.end(grace_seconds=1.0)))
        # What a failed run left behind must not meet the next one.
        self.is_spent = self.is_spent or is_last or isinstance(ended, Failed)
        return ended

    def _ask_to_stop(self) -> None:
        """Sends a byte that the child may never read, so it gets no further task."""
        self.is_spent = True
        with suppress(OSError):  # it has ended
            self._job.send(CANCEL, socket.MSG_DONTWAIT)

    def end(self, grace_seconds: float = 0.0) -> int | None:
        """Kills it, after `grace_seconds` in which it may end by itself; returns its exit code, None if unknown."""
        self.is_spent = True
        if self._line.fileno() < 0:
            return None  # it was ended before
        try:
            word = self._word(grace_seconds) or self._killed()
            return int(word) if word else None
        finally:
            self._job.close()
            self._line.close()

    def _killed(self) -> str:
        """Has it killed; returns its exit code, empty if unknown."""
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)
        word = self._word(self._end_seconds)
        if word is None:
            self._on_stuck()
        elif word == KILLED:
            word = self._word(self._end_seconds)
            if word is None:  # the kernel ends it when its input or output returns; until then it runs none of its code
                log.warning("process %d was killed and is still in a system call", self.pid)
        return word or ""

    def _word(self, seconds: float) -> str | None:
        """The next line of the fork server about this child; empty if that server ended, None if it sent nothing."""
        while b"\n" not in self._words:
            try:
                if not _readable(seconds, self._line):
                    return None
                part = self._line.recv(64)
            except OSError:
                part = b""
            if not part:
                return ""
            self._words += part
        word, _, self._words = self._words.partition(b"\n")
        return word.decode()

    def _send(self, message: bytes, deadline: float) -> None:
        self._job.settimeout(max(0.001, deadline - time.monotonic()))
        self._job.sendall(message)

    def _receive_end(self, deadline: float, report_progress: Callable[[float, str], object]) -> dict[str, object]:
        """Waits for the call's end and passes on the progress before it. Raises as `_receive` does."""
        pause = _Pause()
        while True:
            messages = self._receive(deadline)
            reports = [progress for message in messages if (progress := read_progress(message))]
            if reports:
                report_progress(*reports[-1])
            if len(messages) > len(reports):
                if len(messages) > len(reports) + 1 or "progress" in messages[-1]:
                    raise FrameError("it sent more after its answer")
                return messages[-1]
            pause.after_report()

    def _receive(self, deadline: float) -> list[dict[str, object]]:
        """Returns the next messages, at least one.

        Raises TimeoutError at the deadline, FrameError if the process ends before a message is complete.
        """
        while True:
            left = deadline - time.monotonic()
            ready = _readable(left, self._job, self._line) if left > 0 else []
            if not ready:
                raise TimeoutError
            # An answer that it sent before its end counts.
            if self._job not in ready or not (part := self._job.recv(65_536)):
                raise FrameError("it sent no answer")
            if messages := self._reader.feed(part):
                return messages


class _Pause:
    """Slows down a child that reports progress in each turn of a quick loop: it could take all of the worker's time.

    The socket between them fills up then, and the child waits until it is read again.
    """

    def __init__(self) -> None:
        self._reads = 0
        self._begun = 0.0

    def after_report(self) -> None:
        """Sleeps if READS_IN_WINDOW reads within _WINDOW_SECONDS brought reports, for the rest of that time."""
        now = time.monotonic()
        if now >= self._begun + _WINDOW_SECONDS:
            self._reads, self._begun = 0, now
        self._reads += 1
        if self._reads >= _READS_IN_WINDOW:
            time.sleep(self._begun + _WINDOW_SECONDS - now)


class ForkServerClient:
    """Starts the fork server and asks it for children; starts another one if it died. Thread-safe."""

    def __init__(self, directory: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        """directory: where `app.py` is, None for this process's; env: None for this process's."""
        self._directory = directory
        self._env = env
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Starts the server, unless it runs."""
        with self._lock:
            self._running()

    def fork(self) -> Child | None:
        """Returns a child that waits for a task; None if none can be started."""
        try:
            child = self._request()
        except OSError as error:
            log.warning("no process for a task: %s", error)
            return None
        if child.greets():
            return child
        log.warning("no process for a task: it ended at its start")
        return None

    def kill(self) -> None:
        """Kills the server, and with it all children: it does not answer."""
        log.error("the fork server does not answer: ending it")
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Ends the server, and with it all children."""
        with self._lock:
            if self._control is not None:
                self._control.close()
            if self._process is not None:
                try:
                    self._process.wait(_END_SECONDS)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()

    def _request(self) -> Child:
        job, job_of_child = socket.socketpair()
        line, line_of_server = socket.socketpair()
        with job_of_child, line_of_server, self._lock:
            try:
                socket.send_fds(self._running(), [b"f"], [job_of_child.fileno(), line_of_server.fileno()])
            except OSError:
                job.close()
                line.close()
                raise
        return Child(job, line, self.kill)

    def _running(self) -> socket.socket:
        """Returns the socket of the running server; starts one if there is none."""
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        if self._control is not None:
            log.warning("the fork server ended: starting another one")
            self._control.close()
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_GREET_SECONDS)
        with theirs:
            command = [sys.executable, "-m", "local.fork_server", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=self._directory,
                env=self._env,
                start_new_session=True,  # signals to the worker's group are not for it
            )
        return self._control


def _readable(seconds: float, *sockets: socket.socket) -> list[socket.socket]:
    """Waits until one of the sockets can be read. `select.select` refuses descriptors above 1,023."""
    poll = select.poll()
    by_descriptor = {one.fileno(): one for one in sockets}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    return [by_descriptor[descriptor] for descriptor, _ in poll.poll(max(0, seconds * 1000))]


def _death(code: int | None) -> str:
    """Returns the error of a task whose process ended under it."""
    if code is None:
        return "its process ended"
    if code >= 0:
        return f"its process ended with exit status {code}"
    try:
        return f"its process was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"its process was killed by signal {-code}"
