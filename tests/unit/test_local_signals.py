"""A closed terminal stops the run, also if another process leads the session."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAM = """
import sys
from local.signals import StopSignals
signals = StopSignals()
print("ready", flush=True)
while not signals.wait(0.5):
    pass
open(sys.argv[1], "w").write(f"{signals.count} {signals.is_terminal_closed}")
"""

#: Leads a session on the terminal, and waits for its child without passing a SIGHUP on, as `make` does.
LEADER = """
import fcntl, os, signal, subprocess, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, lambda *_: None)
sys.exit(subprocess.call([sys.executable, "-c", sys.argv[1], sys.argv[2]], restore_signals=True))
"""


def test_closed_terminal_stops_a_run_whose_session_another_process_leads(tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    command = [sys.executable, "-c", LEADER, PROGRAM, str(tmp_path / "count")]
    leader = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    try:
        # The kernel may pass on the text before its newline, which the program then fails to write.
        read = b""
        while b"\n" not in read:
            read += os.read(screen, 100)
        os.close(screen)
        assert leader.wait(30) == 0
        assert (tmp_path / "count").read_text() == "1 True"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(leader.pid, signal.SIGKILL)  # its child too
        leader.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_stops_a_run(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "count")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(30) == 0
    assert (tmp_path / "count").read_text() == f"1 {number == signal.SIGHUP}"


def test_nohup_keeps_a_run_from_the_end_of_its_terminal(tmp_path: Path) -> None:
    program = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{PROGRAM}"
    command = [sys.executable, "-c", program, str(tmp_path / "count")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
