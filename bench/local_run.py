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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local.emulator import free_port
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
        self._supervisor = Supervisor(settings.run_dir, settings.process_log_dir)

    def start(self) -> None:
        with self._output.open("wb") as output:
            command = [sys.executable, "-m", "local"]
            self._process = subprocess.Popen(command, cwd=self._tree, env=self._env, stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS
        while "Paceline is ready" not in self._output.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Paceline did not start:\n{self._output.read_text()}")
            time.sleep(0.1)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(120)

    def completions(self) -> Iterator[dict[str, Any]]:
        """Every whole line of the completion log so far: a worker may be writing the last one."""
        for path in self._logs.rglob("*.log"):
            yield from (json.loads(line) for line in path.read_bytes().splitlines(True) if line.endswith(b"\n"))

    def completed(self) -> int:
        """The number of lines in the completion log so far."""
        return sum(path.read_bytes().count(b"\n") for path in self._logs.rglob("*.log"))

    def wait_for(self, tasks: int, timeout_seconds: float) -> bool:
        """Waits until the log has that many lines; False after the timeout."""
        deadline = time.monotonic() + timeout_seconds
        while self.completed() < tasks:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
        return True

    def cpu_seconds(self) -> dict[str, float]:
        """User and system CPU time of each process so far, by name."""
        return {name: _cpu_seconds(pid) for name, pid in self._pids().items()}

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of each process, by name."""
        return {name: _resident_mb(pid) for name, pid in self._pids().items()}

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
