"""The thread that watches the processes survives whatever they do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from local.supervisor import ProcessInfo, Supervisor, SupervisorError
from local.watch import Watch

WAIT_SECONDS = 5


class FakeSupervisor:
    def __init__(self, log: Path) -> None:
        self.log = log
        self.fault: Exception | None = None
        self.looks = 0

    def processes(self) -> dict[str, ProcessInfo]:
        self.looks += 1
        if self.fault:
            raise self.fault
        return {}


@pytest.fixture
def supervisor(tmp_path: Path) -> FakeSupervisor:
    log = tmp_path / "supervisord.log"
    log.touch()
    return FakeSupervisor(log)


def watching(supervisor: FakeSupervisor, tmp_path: Path, said: list[str]) -> Watch:
    watch = Watch(cast("Supervisor", supervisor), tmp_path, 0.01, said.append, lambda: None)
    watch.thread.start()
    return watch


@pytest.mark.parametrize(
    ("ended", "how"),
    [
        ("terminated by SIGKILL; not expected", "signal 9"),
        ("terminated by signal 64; not expected", "signal signal"),
        ("exit status 3; not expected", "status 3"),
    ],
)
def test_each_kind_of_end_is_reported(supervisor: FakeSupervisor, tmp_path: Path, ended: str, how: str) -> None:
    said: list[str] = []
    watch = watching(supervisor, tmp_path, said)
    with supervisor.log.open("ab") as log:
        log.write(b"\xff\xfe not UTF-8\n")
        log.write(f"WARN exited: worker-1 ({ended})\nINFO spawned: 'worker-1' with pid 7\n".encode())
    wait_until(lambda: said != [])
    watch.thread.stop()
    assert said == [f"worker-1 ended ({how}): restarted"]


def test_an_unexpected_error_does_not_end_the_watch(supervisor: FakeSupervisor, tmp_path: Path) -> None:
    said: list[str] = []
    supervisor.fault = KeyError("an answer of another form")
    watch = watching(supervisor, tmp_path, said)
    wait_until(lambda: said != [])
    supervisor.fault, looks = None, supervisor.looks
    wait_until(lambda: supervisor.looks > looks)
    watch.thread.stop()
    assert "watching the processes failed, trying again: KeyError" in said[0]


def test_a_supervisor_that_does_not_answer_is_named_once(supervisor: FakeSupervisor, tmp_path: Path) -> None:
    said: list[str] = []
    supervisor.fault = SupervisorError("timed out")
    watch = watching(supervisor, tmp_path, said)
    wait_until(lambda: supervisor.looks > 1)
    supervisor.fault = None
    wait_until(lambda: len(said) > 1)
    watch.thread.stop()
    assert said == [
        "processes are neither checked nor restarted: timed out",
        "the process supervisor answers again",
    ]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
