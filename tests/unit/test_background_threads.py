"""No thread that works in the background ends silently."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import cast

import pytest

from chalicelib.container import SystemClock
from chalicelib.core.lane import Lease
from chalicelib.core.ports import LaneStore
from chalicelib.worker.lease_renewal import LeaseRenewer
from local.background import Background

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 20


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def targets() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Each function that a `threading.Thread` runs, with its file."""
    for path in sorted(chain((ROOT / "local").glob("*.py"), (ROOT / "chalicelib").rglob("*.py"))):
        tree = ast.parse(path.read_text())
        functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Thread":
                target = next(keyword.value for keyword in node.keywords if keyword.arg == "target")
                name = ast.unparse(target).removeprefix("self.")
                yield f"{path.relative_to(ROOT)}:{name}", functions[name]


def survives(function: ast.FunctionDef) -> bool:
    """True if the function logs whatever its loop raises and goes on, or ends its process by a signal."""
    loops = [node for node in ast.walk(function) if isinstance(node, ast.While)]
    tries = [node for loop in loops for node in loop.body if isinstance(node, ast.Try)]
    handlers = [handler for node in tries for handler in node.handlers if handler.type]
    logged = [h for h in handlers if h.type and ast.unparse(h.type) == "BaseException" and "log.exception" in text(h)]
    ending = [node for node in function.body if isinstance(node, ast.Try) and "os.kill(os.getpid()" in text(node)]
    return bool(logged or ending)


def text(node: ast.ExceptHandler | ast.Try) -> str:
    body = node.finalbody if isinstance(node, ast.Try) else node.body
    return "\n".join(map(ast.unparse, body))


@pytest.mark.parametrize(("name", "function"), [pytest.param(*found, id=found[0]) for found in targets()])
def test_each_thread_logs_any_error_and_goes_on_or_ends_its_process(name: str, function: ast.FunctionDef) -> None:
    assert survives(function), f"an unexpected error ends {name} silently"


def test_the_rule_finds_the_threads() -> None:
    assert {name for name, _ in targets()} >= {
        "chalicelib/worker/lease_renewal.py:_run",
        "local/background.py:_run",
        "local/deletions.py:_run",
        "local/parent.py:_watch",
        "local/worker_process.py:_extend",
        "local/worker_process.py:_poll",
    }


@pytest.mark.parametrize("error", [KeyError("form"), SystemExit(3)])
def test_step_that_raises_is_logged_and_repeated(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    steps: list[int] = []

    def step() -> None:
        steps.append(1)
        if len(steps) == 1:
            raise error

    background = Background("looking", step, 0, said.append, error_pause_seconds=0)
    background.start()
    wait_until(lambda: len(steps) > 1)
    background.stop()
    background.join(WAIT_SECONDS)
    assert said == [f"looking failed, trying again: {type(error).__name__}: {error}"]
    assert caplog.records[0].exc_info


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_thread_that_ended_all_the_same_is_started_again() -> None:
    steps: list[int] = []

    def step() -> None:
        steps.append(1)
        raise KeyError

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 1:
            raise OSError("the terminal is gone")

    said: list[str] = []
    background = Background("looking", step, 0, say, error_pause_seconds=0)
    background.start()
    background.join(WAIT_SECONDS)
    background.check()
    wait_until(lambda: len(steps) > 1)
    background.stop()
    background.join(WAIT_SECONDS)
    assert said[1] == "looking ended: starting it again"


def test_step_that_takes_too_long_is_reported_once() -> None:
    said: list[str] = []
    began, go = threading.Event(), threading.Event()

    def step() -> None:
        began.set()
        go.wait(WAIT_SECONDS)

    background = Background("looking", step, 0, said.append, longest_seconds=1e-9)
    background.start()
    assert began.wait(WAIT_SECONDS)
    background.check()
    background.check()
    background.stop()
    go.set()
    background.join(WAIT_SECONDS)
    assert said == ["looking takes longer than 0 s"]


class BrokenClock(SystemClock):
    """Raises in the renewer's thread until it is mended."""

    is_broken = True

    def now_ms(self) -> int:
        if self.is_broken and threading.current_thread().name == "lease-renewer":
            self.is_broken = False
            raise SystemExit("an error of another form")
        return super().now_ms()


class Lanes:
    def __init__(self) -> None:
        self.renewed: list[str] = []

    def renew_lease(self, user_id: str, lease: Lease, until: int) -> Lease:
        self.renewed.append(user_id)
        return lease


def test_renewer_survives_an_unexpected_error(caplog: pytest.LogCaptureFixture) -> None:
    lanes = Lanes()
    renewer = LeaseRenewer(cast("LaneStore", lanes), BrokenClock())
    lease = Lease("task", 1, 2**52, "token")
    with renewer.renewing("ann", lease, 2**52, lambda: None):
        wait_until(lambda: lanes.renewed == ["ann"])
    assert "renewing leases failed" in caplog.text


ORPHAN = """
import os, time
from local import parent
parent.os.getppid = lambda: 1 / 0
parent.end_with_parent()
time.sleep(60)
"""


def test_a_process_whose_watch_of_its_parent_fails_ends() -> None:
    env = {**os.environ, "PACELINE_PARENT": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", ORPHAN], capture_output=True, check=False, timeout=WAIT_SECONDS, env=env
    )
    assert ran.returncode == -15
