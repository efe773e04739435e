"""Which processes of an earlier run live, and how the next run ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.pid_files import running
from local.supervisor import Supervisor

PROGRAM = """
import signal, sys, time
from pathlib import Path
from local.pid_files import register
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
register(Path(sys.argv[1]), "worker-1")
print("registered", flush=True)
time.sleep(60)
"""

Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process that is registered; it ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(kind: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), kind]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == b"registered\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def not_stopped(seconds: float) -> bool:
    return False


def test_a_process_is_known_until_it_dies(tmp_path: Path, start: Start) -> None:
    process = start("usual")
    assert running(tmp_path) == {process.pid: "worker-1"}
    process.kill()
    process.wait()
    assert running(tmp_path) == {}
    assert not list((tmp_path / "pids").iterdir())


@pytest.mark.parametrize("frozen", [False, True])
def test_the_next_run_ends_a_process_left_behind(tmp_path: Path, start: Start, frozen: bool) -> None:
    process = start("usual")
    if frozen:
        process.send_signal(signal.SIGSTOP)
    assert Supervisor(tmp_path, tmp_path).end_leftover(not_stopped)
    assert process.wait(20) == -signal.SIGTERM


def test_a_process_that_does_not_end_is_killed(tmp_path: Path, start: Start) -> None:
    process = start("stubborn")
    assert Supervisor(tmp_path, tmp_path).end_leftover(not_stopped, patience_seconds=0.2)
    assert process.wait(20) == -signal.SIGKILL


def test_a_stop_ends_the_wait(tmp_path: Path, start: Start) -> None:
    process = start("stubborn")
    assert not Supervisor(tmp_path, tmp_path).end_leftover(lambda _seconds: True)
    os.kill(process.pid, 0)
