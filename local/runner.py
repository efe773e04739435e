"""`make run`: starts the emulator, the stack, the API and the workers, watches them, and stops them in order."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from chalicelib.core.errors import OwnTasksError, SettingError
from chalicelib.settings import Settings
from infra.environment import emulator_defaults, environment
from infra.stack import StackError, ensure_stack, prepare
from infra.tasks_folder import TasksFolder
from local.emulator_address import HOST, STATE_FILE, free_port
from local.health import is_healthy
from local.open_files import OpenFilesError, raise_limit
from local.pid_files import SUPERVISOR
from local.programs import app_programs, emulator_program
from local.reload import Reload, load_fault
from local.run_settings import LocalSettings
from local.running_calls import read_calls
from local.signals import StopSignals
from local.stack_watch import StackWatch
from local.startup import START_SECONDS, StartError, Startup
from local.state_watch import StateWatch
from local.stop_report import StopReport
from local.supervisor import Program, Supervisor, SupervisorError
from local.watch import Watch

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: Seconds beyond STOP_WAIT for the processes that run no task.
_SPARE_SECONDS = 15
#: Seconds that supervisord gets to end once its processes were killed.
_KILL_SECONDS = 10


class RunError(Exception):
    """The run cannot start or continue; the message is for the terminal."""


class StopRequestedError(Exception):
    """A signal arrived during the start."""


def main() -> int:
    """Returns 0 after a requested stop, 1 if the run cannot start or continue, 2 for an invalid setting."""
    signals = StopSignals()
    env = environment()
    try:
        settings = LocalSettings.from_env(env)
        Settings.from_env(env)
    except SettingError as error:
        _say(str(error), sys.stderr)
        return 2
    try:
        raise_limit()
        Run(settings, env, signals).run(open_to_all=(env.get("AUTH") or "none") == "none")
    except SettingError as error:
        _say(str(error), sys.stderr)
        return 2
    except (RunError, OpenFilesError, StartError, SupervisorError, StackError, OSError) as error:
        _say(str(error), sys.stderr)
        return 1
    return 0


def _say(line: str, stream: IO[str] | None = None) -> None:
    # The terminal may be closed, but the processes must still be stopped.
    with suppress(OSError):
        print(line, file=stream or sys.stdout, flush=True)


class Run:
    """One local run, from its checks to its stop."""

    def __init__(self, settings: LocalSettings, env: Mapping[str, str], signals: StopSignals) -> None:
        self._settings = settings
        self._env = {
            **env,
            "LOG_DIR": str(settings.log_dir),
            "RUN_DIR": str(settings.run_dir),
            "STATE_DIR": str(settings.state_dir),
            "STAGE": settings.stage,
            "PYTHONUNBUFFERED": "1",
            "TASKS_DIR": str(settings.tasks_dir or ""),
        }
        self._signals = signals
        self._supervisor = Supervisor(settings.run_dir, settings.process_log_dir)
        self._watch: Watch | None = None
        self._reload: Reload | None = None
        self._tasks = TasksFolder(settings.tasks_dir, _say) if settings.tasks_dir else None
        self._endpoint_url = settings.endpoint_url or f"http://{HOST}:{free_port()}"
        self._stack_watch = StackWatch(
            self._endpoint_url, settings.stage, settings.health_interval_seconds, self._note_and_say
        )

    def run(self, *, open_to_all: bool) -> None:
        """Returns after a requested stop. Raises RunError, SupervisorError or StackError."""
        with self._state_dir():
            try:
                self._start()
                self._announce(open_to_all)
                self._stay()
            except StopRequestedError:
                pass
            finally:
                self._stop()
        _say("Paceline stopped")

    def _start(self) -> None:
        self._end_leftover()
        _check_port(self._settings)
        self._env.update(emulator_defaults(self._env), AWS_ENDPOINT_URL=self._endpoint_url)
        os.environ.update(self._env)
        self._check_tasks()
        emulator = self._start_emulator()
        outputs = ensure_stack(self._endpoint_url, self._settings.stage, self._note)
        self._settings.endpoint_file.write_text(self._endpoint_url)
        programs = app_programs(self._settings, outputs)
        self._watch = self._make_watch()
        self._supervisor.add(emulator, programs)
        names = [name for program in programs for name in program.process_names]
        if self._settings.reload:
            paths = (self._settings.run_dir, names, Path.cwd())
            wait_seconds = self._settings.stop_wait_seconds
            self._reload = Reload(self._supervisor, *paths, _say, wait_seconds, self._tasks)
        self._wait_for(lambda: all(is_healthy(self._settings.run_dir, name) for name in names), names)

    def _end_leftover(self) -> None:
        if self._supervisor.pids():
            _say("Waiting for the processes of an earlier run to end")
        patience_seconds = self._settings.stop_wait_seconds + _SPARE_SECONDS
        if not self._supervisor.end_leftover(self._signals.wait, patience_seconds):
            raise StopRequestedError

    def _check_tasks(self) -> None:
        """Installs what the own tasks outside this project need, and loads them once: a mistake is said at once."""
        if not self._tasks:
            return
        try:
            self._tasks.install()
        except OwnTasksError:
            if self._signals.count:
                raise StopRequestedError from None
            raise
        if fault := load_fault(Path.cwd()):
            raise RunError(fault)

    def _start_emulator(self) -> list[Program]:
        """Starts the emulator and returns its program; returns none if AWS_ENDPOINT_URL names a running one."""
        if self._settings.endpoint_url:
            if not _listens(self._endpoint_url):
                raise RunError(f"AWS_ENDPOINT_URL {self._endpoint_url} does not answer: start the emulator there first")
            self._supervisor.start([], self._env)
            return []
        program = emulator_program(self._settings, urlsplit(self._endpoint_url).port or 0)
        self._supervisor.start([program], self._env)
        prepare(self._endpoint_url)
        self._wait_for(lambda: _listens(self._endpoint_url), program.process_names)
        return [program]

    def _announce(self, open_to_all: bool) -> None:
        kind = "AWS endpoint" if self._settings.endpoint_url else "embedded AWS emulator"
        _say(f"The {kind} is at {self._endpoint_url}")
        _say(f"Completion log: {self._settings.log_dir}; process logs: {self._settings.process_log_dir}")
        if open_to_all:
            _say("AUTH=none: anyone who can reach this port can submit tasks as any user")
        _say(f"Paceline is ready at {self._settings.url}")

    def _make_watch(self) -> Watch:
        interval_seconds = self._settings.health_interval_seconds
        return Watch(self._supervisor, self._settings.run_dir, interval_seconds, _say, self._restore_stack)

    def _stay(self) -> None:
        threads = [part.thread for part in (self._watch, self._stack_watch, self._reload) if part]
        for thread in threads:
            thread.start()
        state = self._state_watch()
        while not self._signals.wait(0.5):
            if path := state.deleted():
                raise RunError(f"{path} was deleted while Paceline ran: it stopped, since it could store nothing more")
            if not self._supervisor.alive:
                raise RunError("The process supervisor ended, and all processes with it")
            for thread in threads:
                thread.check()

    def _state_watch(self) -> StateWatch:
        emulator = [] if self._settings.endpoint_url else [self._settings.emulator_dir / STATE_FILE]
        return StateWatch([self._settings.state_dir / "lock", self._settings.run_dir, *emulator])

    def _restore_stack(self) -> None:
        """Recreates the stack if an emulator that crashed early came back without table and queues."""
        deadline = time.monotonic() + START_SECONDS
        while not _listens(self._endpoint_url) and time.monotonic() < deadline:
            time.sleep(0.1)
        try:
            ensure_stack(self._endpoint_url, self._settings.stage, self._note)
        except StackError as error:
            _say(str(error), sys.stderr)

    def _stop(self) -> None:
        if self._watch:
            self._watch.thread.stop()
        self._stack_watch.thread.stop()
        if self._reload:
            self._reload.stop()
        if not self._supervisor.alive:
            return
        if self._signals.count:
            _say("Stopping: running tasks finish, waiting tasks stay queued (send the signal again to hurry)")
        self._supervisor.stop()
        self._wait_for_tasks(self._signals.count)

    def _wait_for_tasks(self, asked: int) -> None:
        """Waits while tasks run, however long, if somebody asked for the stop and can ask again: then, or STOP_WAIT
        after the last of them ended, kills what is left. asked: the signals so far.
        """
        report = StopReport(_say, "Ctrl-C again ends running tasks at once.")
        wait_seconds = self._settings.stop_wait_seconds + _SPARE_SECONDS
        kill_at = time.monotonic() + wait_seconds
        while not self._supervisor.wait(0.1):
            calls = read_calls(self._settings.run_dir, self._supervisor.pids())
            report.waits_for(calls)
            if calls and self._signals.count and not self._signals.is_terminal_closed:
                kill_at = time.monotonic() + wait_seconds
            if self._signals.count > max(asked, 1) or time.monotonic() > kill_at:
                report.ends()
                self._hurry()
                return

    def _hurry(self) -> None:
        """Kills the API and the workers, and supervisord too if it does not end then."""
        deadline = time.monotonic() + _KILL_SECONDS
        while not self._supervisor.wait(0.1):
            _kill(pid for pid, name in self._supervisor.pids().items() if name not in (SUPERVISOR, "emulator"))
            if time.monotonic() > deadline:
                _say("The process supervisor does not end: killing it", sys.stderr)
                self._supervisor.kill()

    def _wait_for(self, is_ready: Callable[[], bool], names: list[str]) -> None:
        if not Startup(self._supervisor, names).wait(is_ready, self._signals.wait):
            raise StopRequestedError

    def _note(self, line: str) -> None:
        # On a full disk the line is lost, but the run goes on.
        with suppress(OSError), (self._settings.process_log_dir / "stack.log").open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def _note_and_say(self, line: str) -> None:
        self._note(line)
        _say(line)

    def _state_dir(self) -> IO[str]:
        """Creates the state directory and locks it for this process's lifetime."""
        # The state holds payloads of users.
        _make(self._settings.state_dir, 0o700)
        for directory in (self._settings.process_log_dir, self._settings.log_dir):
            _make(directory)
        lock = (self._settings.state_dir / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RunError(
                f"Paceline is already running with its state in {self._settings.state_dir}: "
                "stop it, or set STATE_DIR to another directory"
            ) from None
        self._settings.run_dir.mkdir(mode=0o700, exist_ok=True)
        logging.basicConfig(filename=self._settings.process_log_dir / "runner.log", format=_LOG_FORMAT)
        return lock


def _make(directory: Path, mode: int = 0o777) -> None:
    try:
        directory.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot create {directory}: {error.strerror}") from error


def _check_port(settings: LocalSettings) -> None:
    with socket.socket() as probe:
        # Same option as the API's socket, so that lingering connections of an earlier run don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            taken = "is taken" if error.errno == errno.EADDRINUSE else f"can't be used ({error.strerror})"
            raise RunError(
                f"Port {settings.port} on {settings.host} {taken}: choose another one, as in PORT=8001 make run"
            ) from error


def _listens(endpoint_url: str) -> bool:
    parts = urlsplit(endpoint_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=3).close()
    except OSError:
        return False
    return True


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
