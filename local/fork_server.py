"""Forks the child processes in which own tasks run, and ends each one that its worker let go of.

A program of its own with one thread, which has loaded the tasks: forking a process with threads could copy a lock that
nobody releases. Its worker sends it pairs of sockets: one by which the child gets its tasks, and a line to this server.
The worker's end of the line ends a child when it is closed, which a dying worker does too; this end says how the child
ended.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import resource
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Argument that defers loading the tasks to the children: some module starts a thread when it is loaded.
BARE = "--bare"
#: The server's word to the worker that it has killed a child; the child's exit code follows.
KILLED = "killed"
#: Part of the machine's memory that one child may use; beyond, it gets a MemoryError.
_MEMORY_SHARE = 0.5
#: Raises a child's score for Linux' out-of-memory killer, which then spares the worker and the emulator.
_OOM_SCORE = 500
#: Lowers a child's priority: however much a task computes, the worker gets the processor when it needs it.
_NICE = 5
_PR_SET_PDEATHSIG = 1

log = logging.getLogger("fork_server")

#: Runs in a child with the socket of its tasks.
Serve = Callable[[socket.socket], None]


class ForkServer:
    """control: the socket by which the worker asks for children; at its end all children end."""

    def __init__(self, control: socket.socket, serve: Serve) -> None:
        self._control = control
        self._serve = serve
        #: lines to the worker, by process id
        self._lines: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()

    def run(self) -> None:
        """Returns when the worker is gone and all children are killed."""
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        while self._step():
            self._reap()
        for pid in self._lines:
            _kill(pid)

    def _step(self) -> bool:
        """Handles what has arrived; False when the worker is gone."""
        for key, _ in self._selector.select():
            if key.fileobj is self._control:
                if not self._fork():
                    return False
            elif key.fileobj is self._woken:
                with suppress(BlockingIOError):
                    self._woken.recv(1024)
            else:
                self._selector.unregister(key.fileobj)  # or it would be reported until the child has ended
                _kill(key.data)
                _say(self._lines.get(key.data), KILLED)
        return True

    def _fork(self) -> bool:
        try:
            request, descriptors, _, _ = socket.recv_fds(self._control, 1, 2)
        except OSError:
            return False
        if not request:
            return False
        if len(descriptors) == 2:
            job, line = (socket.socket(fileno=descriptor) for descriptor in descriptors)
            self._fork_child(job, line)
            job.close()
        else:  # too many open files: the worker sees both of its sockets end
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork_child(self, job: socket.socket, line: socket.socket) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            log.exception("no further process can be started")
            pid = -1
        if pid == 0:
            self._become_child(server, job, line)
        if pid < 0:
            line.close()
        else:
            self._lines[pid] = line
            self._selector.register(line, selectors.EVENT_READ, pid)

    def _become_child(self, server: int, job: socket.socket, line: socket.socket) -> None:
        """Never returns."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            with suppress(OSError):
                self._selector.close()
            for other in (self._control, self._woken, self._wake, line, *self._lines.values()):
                other.close()
            job.set_inheritable(False)
            prepare_child(server)
            self._serve(job)
            status = 0
        except BaseException:
            log.exception("a child process failed")
        finally:
            os._exit(status)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                _kill_group(pid)
                line = self._lines.pop(pid, None)
                if line is None:
                    continue  # a process that one of the tasks' modules started
                with suppress(KeyError):
                    self._selector.unregister(line)
                _say(line, str(os.waitstatus_to_exitcode(status)))
                line.close()


def _say(line: socket.socket | None, word: str) -> None:
    if line is not None:
        with suppress(OSError):  # its worker is gone
            line.sendall(f"{word}\n".encode())


def prepare_child(server: int) -> None:
    """Gives this process a group of its own, ends it with the fork server, and limits its memory."""
    os.setsid()
    os.nice(_NICE)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(OSError, AttributeError):  # macOS has neither; there only the server's own death leaves children
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    if os.getppid() != server:  # it died before the call above
        os._exit(1)
    with suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (_memory_bytes(), hard))


def _memory_bytes() -> int:
    """Returns the most bytes that a child may use."""
    if megabytes := os.environ.get("CHILD_MEMORY_MB"):
        return int(megabytes) * 1024 * 1024
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _MEMORY_SHARE)


def _kill(pid: int) -> None:
    """Kills the child and the processes that it started."""
    _kill_group(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    # A child that was just forked may have no group yet, and a zombie's group refuses on macOS.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _load() -> Serve:
    """Loads the app and its tasks. Returns the function that a child calls."""
    import app  # noqa: F401, PLC0415
    from chalicelib.container import container  # noqa: PLC0415
    from local.presence import MachinePresence  # noqa: PLC0415
    from local.task_child import serve  # noqa: PLC0415

    registry, serving = container().registry, Path(os.environ["RUN_DIR"]) / "serving"
    return lambda job: serve(job, registry, MachinePresence(serving))


def _load_and_serve(job: socket.socket) -> None:
    _load()(job)


def _has_threads() -> bool:
    tasks = Path("/proc/self/task")
    return threading.active_count() > 1 or (tasks.exists() and len(list(tasks.iterdir())) > 1)


def _without_loading(control: socket.socket) -> None:
    """Starts this program anew, without the modules that started threads."""
    log.warning("a module of your tasks starts a thread when it is loaded, so each task's process starts slowly")
    control.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, "-m", "local.fork_server", str(control.fileno()), BARE])  # noqa: S606


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its worker
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    if BARE in sys.argv:
        ForkServer(control, _load_and_serve).run()
        return
    serve = _load()
    if _has_threads():
        _without_loading(control)
    gc.collect()
    gc.freeze()  # so that a collection in a child does not copy the memory that it shares
    ForkServer(control, serve).run()


if __name__ == "__main__":
    main()
