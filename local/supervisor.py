"""Configures, starts and controls supervisord.

supervisord restarts programs that end, rotates their logs, shares one listening socket between the API processes and
stops everything in order: workers, API, emulator.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, cast

from supervisor.xmlrpc import SupervisorTransport

from local import pid_files
from local.parent import as_parent

#: Seconds to wait for a program's stop.
STOP_SECONDS = 65
#: The same for a worker: longer than any task may run. Whoever stops it ends the wait earlier, as the task and the user
#: want it.
WORKER_STOP_SECONDS = 12 * 3_600

#: Seconds to wait for an answer: a frozen supervisord never answers.
_CALL_SECONDS = 15.0

#: supervisord's states of a process that does not run.
_ENDED_STATES = {"STOPPED", "EXITED", "FATAL"}

_CALL_ERRORS = (OSError, HTTPException, xmlrpc.client.Error)


class SupervisorError(Exception):
    """supervisord did not start, or did not answer."""


@dataclass(frozen=True)
class Program:
    """Processes of one kind, named `name`, or `name-1`, `name-2`... if there are several."""

    name: str
    command: Sequence[str]
    #: programs of a higher priority stop first
    priority: int
    processes: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    #: seconds in which a process of it may end cleanly
    stop_seconds: int = STOP_SECONDS
    #: `host:port` of a listening socket that all processes share as file descriptor 0
    listen: str | None = None

    @property
    def process_names(self) -> list[str]:
        if self.processes == 1:
            return [self.name]
        return [f"{self.name}-{number}" for number in range(1, self.processes + 1)]


@dataclass(frozen=True)
class ProcessInfo:
    name: str
    #: process id, 0 if it does not run
    pid: int
    #: supervisord's state: STARTING, RUNNING, BACKOFF, STOPPING, EXITED...
    state: str
    #: epoch seconds
    started_at: int
    log: Path


class Supervisor:
    """Controls one supervisord."""

    def __init__(self, run_dir: Path, log_dir: Path) -> None:
        self._run_dir = run_dir
        self._log_dir = log_dir
        self._config = run_dir / "supervisord.conf"
        self._socket = run_dir / "supervisor.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self._log_dir / "supervisord.log"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, programs: Sequence[Program], env: Mapping[str, str]) -> None:
        """Starts supervisord with these programs; returns once it answers. Raises SupervisorError."""
        self._write(programs)
        # In its own session: Ctrl-C in the terminal is for the runner, which stops the rest in order.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local.supervise", "-n", "-c", str(self._config)],
            env={**env, **as_parent(), "PROCESS_NAME": pid_files.SUPERVISOR},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._log_dir / "supervisord.err").open("ab"),
            start_new_session=True,
        )
        deadline = time.monotonic() + 20
        while not self._answers():
            if not self.alive or time.monotonic() > deadline:
                raise SupervisorError(f"the process supervisor did not start: see {self._log_dir}/supervisord.err")
            time.sleep(0.05)

    def add(self, running: Sequence[Program], new: Sequence[Program]) -> None:
        """Starts further programs beside the running ones."""
        self._write([*running, *new])
        self._call("reloadConfig")
        for program in new:
            self._call("addProcessGroup", program.name)

    def processes(self) -> dict[str, ProcessInfo]:
        """Returns all processes by name. Raises SupervisorError if supervisord does not answer."""
        infos = cast("list[dict[str, Any]]", self._call("getAllProcessInfo"))
        return {
            info["name"]: ProcessInfo(
                info["name"], info["pid"], info["statename"], info["start"], Path(info["stdout_logfile"])
            )
            for info in infos
        }

    def end_process(self, name: str, wait_seconds: float, is_stopped: Callable[[float], bool]) -> bool:
        """Ends the process cleanly, waits for its end, and kills it after that time. Raises SupervisorError.

        is_stopped: sleeps for the given seconds, or returns True so that the wait ends. Returns False if it was killed
        or the wait ended.
        """
        self._call("stopProcess", _full_name(name), False)
        kill_at, was_killed = time.monotonic() + wait_seconds, False
        while (process := self.processes()[name]).state not in _ENDED_STATES:
            if time.monotonic() > kill_at and process.pid:
                was_killed = True
                _send([process.pid], signal.SIGKILL)
            if is_stopped(0.1):
                return False
        return not was_killed

    def start_process(self, name: str) -> None:
        """Starts the process again; returns after it has run for a second. Raises SupervisorError."""
        self._call("startProcess", _full_name(name))

    def stop(self) -> None:
        """Begins to stop everything, in order; `wait` waits for the end."""
        if self._process is not None and self.alive:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)  # a frozen one would keep the SIGTERM for later

    def kill(self) -> None:
        """Ends supervisord at once; its processes end with it, each cleanly."""
        if self._process is not None and self.alive:
            self._process.kill()

    def pids(self) -> dict[int, str]:
        """Returns process ids and names of all living processes, also if supervisord is dead or does not answer."""
        return pid_files.running(self._run_dir)

    def wait(self, timeout_seconds: float) -> bool:
        """Returns True if supervisord ended within this time."""
        if self._process is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_seconds)
        return not self.alive

    def end_leftover(self, is_stopped: Callable[[float], bool], patience_seconds: float = STOP_SECONDS + 15) -> bool:
        """Waits until no process of an earlier run lives; asks them to end, and kills them after the patience.

        is_stopped: sleeps for the given seconds or until a stop is requested, and returns whether it was.
        Returns False if a stop was requested.
        """
        left = self.pids()
        # supervisord stops its processes in order. Without it each of them ends by itself.
        heads = [pid for pid, name in left.items() if name == pid_files.SUPERVISOR] or list(left)
        _send(heads, signal.SIGTERM)
        _send(left, signal.SIGCONT)
        kill_at = time.monotonic() + patience_seconds
        while left := self.pids():
            if time.monotonic() > kill_at:
                _send(left, signal.SIGKILL)
            if is_stopped(0.1):
                return False
        self._socket.unlink(missing_ok=True)
        return True

    def _answers(self) -> bool:
        with suppress(SupervisorError):
            return self._call("getPID") == (self._process.pid if self._process else None)
        return False

    def _call(self, method: str, *arguments: str | bool) -> object:
        transport = _Transport(self._socket, _CALL_SECONDS)
        try:
            proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
            return getattr(proxy.supervisor, method)(*arguments)
        except _CALL_ERRORS as error:
            raise SupervisorError(f"the process supervisor does not answer {method}: {error}") from error
        finally:
            transport.close()

    def _write(self, programs: Sequence[Program]) -> None:
        sections = [self._head(), *(self._section(program) for program in programs)]
        self._config.write_text("\n".join(sections))

    def _head(self) -> str:
        return (
            _ini(
                "supervisord",
                logfile=_escape(self.log),
                logfile_maxbytes="5MB",
                logfile_backups="2",
                pidfile=_escape(self._run_dir / "supervisord.pid"),
                childlogdir=_escape(self._log_dir),
                # Setting the user prevents supervisord's warning about running as root.
                **({"user": "root"} if os.getuid() == 0 else {}),
            )
            + _ini("unix_http_server", file=_escape(self._socket), chmod="0700")
            + _ini(
                "rpcinterface:supervisor",
                **{"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
            )
        )

    def _section(self, program: Program) -> str:
        name = program.name if program.processes == 1 else f"{program.name}-%(process_num)d"
        pairs = [f'{key}="{_escape(value)}"' for key, value in program.environment.items()]
        return _ini(
            f"fcgi-program:{program.name}" if program.listen else f"program:{program.name}",
            **({"socket": f"tcp://{program.listen}", "socket_backlog": "1024"} if program.listen else {}),
            command=_escape(shlex.join(program.command)),
            process_name=name,
            numprocs=str(program.processes),
            numprocs_start="1",
            environment=",".join([*pairs, f'PROCESS_NAME="{name}"']),
            priority=str(program.priority),
            autorestart="true",
            # Retry forever: the cause (disk, emulator) may pass.
            startretries="1000000",
            startsecs="1",
            stopsignal="TERM",
            stopwaitsecs=str(program.stop_seconds),
            redirect_stderr="true",
            stdout_logfile=_escape(self._log_dir) + f"/{name}.log",
            stdout_logfile_maxbytes="5MB",
            stdout_logfile_backups="2",
        )


class _Transport(SupervisorTransport):  # type: ignore[misc]
    """supervisord's own transport, with a time-out."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__(serverurl=f"unix://{path}")
        make: Callable[[], HTTPConnection] = self._get_connection

        def with_timeout() -> HTTPConnection:
            connection = make()
            connection.connect()
            connection.sock.settimeout(timeout_seconds)
            return connection

        self._get_connection: Callable[[], HTTPConnection] = with_timeout


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _full_name(process: str) -> str:
    """Returns supervisord's `group:process` name; the group is the program."""
    return f"{process.rpartition('-')[0] or process}:{process}"


def _ini(section: str, **options: str) -> str:
    lines = [f"{key} = {value}" for key, value in options.items()]
    return "\n".join([f"[{section}]", *lines, "", ""])


def _escape(value: object) -> str:
    """Escapes %, which supervisord expands in values."""
    return str(value).replace("%", "%%")
