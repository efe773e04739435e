"""Runs a local system as `make run` starts it, in its own directory, and reads its completions and processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from local.emulator_address import STATE_FILE, free_port
from local.run_settings import LocalSettings
from local.supervisor import Supervisor

START_SECONDS = 120
#: Set to the empty string, so that neither the environment nor `.env` sets them.
_UNSET = ("LIMITS", "MAX_DELAY", "AUTH", "STAGE", "TABLE_NAME", "QUEUE_URL", "DEAD_LETTER_URL", "AWS_ENDPOINT_URL")
_TICKS = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).parents[1]


class LocalRun:
    """Runs from `start` to `stop`."""

    def __init__(self, directory: Path, tree: Path = ROOT, environment: Mapping[str, str] | None = None) -> None:
        """tree: the checkout that runs. environment: variables for its processes beside the usual ones."""
        self._tree = tree
        self.port = free_port()
        self._output = directory / "output"
        self._env = os.environ | dict.fromkeys(_UNSET, "") | {"PORT": str(self.port), "PYTHONPATH": str(tree)}
        self._env |= {"STATE_DIR": str(directory / "state"), "LOG_DIR": str(directory / "logs")}
        self._env |= environment or {}
        settings = LocalSettings.from_env(self._env)
        self._logs = settings.log_dir
        self.state_file = settings.emulator_dir / STATE_FILE
        self._supervisor = Supervisor(settings.run_dir, settings.process_log_dir)

    def start(self) -> None:
        """Returns once the system says that it is ready."""
        with self._output.open("wb") as output:
            command = [sys.executable, "-m", "local"]
            self._process = subprocess.Popen(command, cwd=self._tree, env=self._env, stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS
        while "Paceline is ready" not in self._output.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Paceline did not start:\n{self._output.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(120)

    def kill(self) -> None:
        """Kills all processes at once."""
        for pid in _with_children(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def completions(self) -> Iterator[dict[str, Any]]:
        """Every whole line of the completion log so far: a worker may be writing the last one."""
        for path in self.log_files():
            yield from (json.loads(line) for line in path.read_bytes().splitlines(True) if line.endswith(b"\n"))

    def log_files(self) -> Iterator[Path]:
        """The files of the completion log."""
        return self._logs.rglob("*.log")

    def completed(self, users: str = "") -> int:
        """The number of lines in the completion log so far, of users whose id begins so."""
        begins = f'"user_id":"{users}'.encode()
        return sum(path.read_bytes().count(begins) for path in self.log_files())

    def wait_for(self, tasks: int, timeout_seconds: float, users: str = "") -> bool:
        """Waits until the log has that many lines; False after the timeout. users: as in `completed`."""
        deadline = time.monotonic() + timeout_seconds
        while self.completed(users) < tasks:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
        return True

    def waiting(self) -> int:
        """How many tasks wait."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            text: str = answer.read().decode()
        return sum(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith("paceline_waiting{"))

    def cpu_seconds(self) -> dict[str, float]:
        """User and system CPU time of each process so far, by name."""
        return {name: _cpu_seconds(pid) for name, pid in self._pids().items()}

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of each process, by name."""
        return {name: _resident_mb(pid) for name, pid in self._pids().items()}

    def total_memory_mb(self) -> float:
        """Memory of all processes and their children; pages that several of them share count once."""
        return sum(map(_own_share_mb, _with_children(self._process.pid)))

    def state_bytes(self) -> int:
        """Size of the emulator's state on disk; complete once the system has stopped."""
        return sum(path.stat().st_size for path in self.state_file.parent.iterdir())

    def _pids(self) -> dict[str, int]:
        return {name: info.pid for name, info in self._supervisor.processes().items()}


@contextmanager
def local_run() -> Iterator[LocalRun]:
    with tempfile.TemporaryDirectory() as directory:
        run = LocalRun(Path(directory))
        run.start()
        try:
            yield run
        finally:
            run.stop()


def _cpu_seconds(pid: int) -> float:
    # After the name in parentheses, user and system time are fields 12 and 13.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def _own_share_mb(pid: int) -> float:
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
    return 0.0


def _with_children(pid: int) -> list[int]:
    """The process, its children, and theirs."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found
