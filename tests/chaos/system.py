"""The system under test: emulator, fault proxy and `make run` in their own processes, restarted as needed."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from local.emulator_address import HOST, free_port
from local.supervisor import SupervisorError
from tests.chaos.proxy import FaultProxy
from tests.chaos.runs import RunReports
from tests.e2e.running import ROOT, Paceline

APP = Path(__file__).with_name("chaos_app")
LIMITS = "3/second; 12/5 seconds"
SEVERAL_LIMITS = f"{LIMITS}; 3 at once"
#: The shared limit of all users, and what it allows: less than their own limits together.
SHARED = "bank"
SHARED_LIMITS = "8/second; 35/5 seconds; 3 at once"
MAX_DELAY_SECONDS = 15
SKEW_MS = 300


class System:
    def __init__(self, directory: Path, skew_ms: int, limits: str = LIMITS, shared: str = "") -> None:
        """shared: the limits of SHARED; empty for none."""
        self._directory = directory
        self.url = f"http://{HOST}:{free_port()}"
        self.reports = RunReports(directory / "reports")
        self._start_emulator()
        self.proxy = FaultProxy(self.url, free_port(), directory / "microburst.log")
        self.paceline = Paceline(
            directory,
            app=APP,
            LIMITS=limits,
            SHARED_LIMITS=f"{SHARED}: {shared}" if shared else "",
            MAX_DELAY=str(MAX_DELAY_SECONDS),
            BACKOFF="500ms",
            CHILD_MEMORY_MB="300",
            AWS_ENDPOINT_URL=self.proxy.url,
            CHAOS_REPORTS=str(directory / "reports"),
            CHAOS_SKEW_MS=str(skew_ms),
        )
        #: number of starts of the runner
        self.starts = 0
        self._next_start = 0.0

    def keep_up(self) -> None:
        """Starts the runner if it does not run: it ends if its supervisor is killed or if AWS is down at its start."""
        if self.paceline.is_down and time.monotonic() > self._next_start:
            self.starts += 1
            self._next_start = time.monotonic() + 1
            self.paceline.spawn()

    @property
    def is_ready(self) -> bool:
        return not self.paceline.is_down and "Paceline is ready" in self.paceline.output

    def stop(self) -> None:
        with suppress(OSError):
            self.proxy.set([])
        with suppress(subprocess.TimeoutExpired):
            if not self.paceline.is_down:
                self.paceline.stop(signal.SIGTERM)
        self.proxy.stop()
        self.stop_emulator()
        self.reports.close()

    # Faults.

    def kill(self, name: str) -> None:
        with suppress(SupervisorError, KeyError, ProcessLookupError):
            self.paceline.kill(name)

    def kill_supervisor(self) -> None:
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.kill(int((self._directory / "state" / "run" / "supervisord.pid").read_text()), signal.SIGKILL)

    def kill_runner(self) -> None:
        if not self.paceline.is_down:
            self.paceline.stop(signal.SIGKILL)

    def stop_emulator(self) -> None:
        self._emulator.terminate()
        self._emulator.wait(30)

    def kill_emulator(self) -> None:
        """kill -9, and a new one at once, as supervisord starts it."""
        self._emulator.kill()
        self._emulator.wait()
        self._start_emulator()

    def start_emulator_again(self) -> None:
        self._start_emulator()

    @contextmanager
    def emulator_frozen(self) -> Iterator[None]:
        self._emulator.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._emulator.send_signal(signal.SIGCONT)

    @contextmanager
    def disk_full(self, random: Random) -> Iterator[None]:
        """Limits every worker's files to a few more bytes, so that log lines are torn too."""
        limited = []
        for name in ("worker-1", "worker-2"):
            with suppress(SupervisorError, KeyError, ProcessLookupError, FileNotFoundError):
                pid = self.paceline.process(name).pid
                if pid:  # 0: not running, and a signal to 0 would hit ourselves
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (self._log_size(pid) + random.randrange(400), -1))
                    limited.append(pid)
        try:
            yield
        finally:
            for pid in limited:
                with suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (-1, -1))

    def _log_size(self, pid: int) -> int:
        opened = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
        return max((path.stat().st_size for path in opened if re.search(r"completions/.*\.log$", str(path))), default=0)

    def _start_emulator(self) -> None:
        port = self.url.rpartition(":")[2]
        command = [sys.executable, "-m", "local.emulator", port, str(self._directory / "ministack")]
        with (self._directory / "emulator.log").open("ab") as log:
            self._emulator = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not _listens(int(port)):
            assert time.monotonic() < deadline, "the emulator does not start"
            assert self._emulator.poll() is None, "the emulator ended"
            time.sleep(0.1)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=3).close()
    except OSError:
        return False
    return True
