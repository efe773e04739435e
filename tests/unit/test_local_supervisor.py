"""A supervisord that does not answer blocks nobody for long."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from local import supervisor as module
from local.supervisor import Supervisor, SupervisorError

_FROZEN = """
import socket, sys, time
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    print("listening", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.2)


def test_call_to_a_frozen_supervisor_ends_with_an_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "supervisor.sock"))
        listener.listen()
        supervisor = Supervisor(tmp_path, tmp_path)
        assert supervisor.is_frozen
        with pytest.raises(SupervisorError, match="does not answer"):
            supervisor.processes()


def test_next_start_kills_a_frozen_supervisor(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FROZEN, str(tmp_path / "supervisor.sock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as frozen:
        assert frozen.stdout
        frozen.stdout.readline()
        (tmp_path / "supervisord.pid").write_text(f"{frozen.pid}\n")
        assert Supervisor(tmp_path, tmp_path).end_leftover(20)
        assert frozen.wait(20) == -9


def test_supervisor_that_is_gone_is_not_frozen(tmp_path: Path) -> None:
    assert not Supervisor(tmp_path, tmp_path).is_frozen
