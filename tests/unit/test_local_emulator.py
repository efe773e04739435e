"""The emulator's saves, without the emulator but in one test."""

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.emulator import Saver


def ended_process(exit_code: int) -> int:
    """The id of a process that has ended so, or will in a moment, before its parent waited for it."""
    child = os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {exit_code}"], os.environ)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    return child


class Saves:
    """Begins saves with a chosen end: with an exit code, or by not beginning at all."""

    def __init__(self, *ends: int | OSError) -> None:
        self._ends = list(ends)
        self.begun = 0

    def __call__(self) -> int:
        self.begun += 1
        end = self._ends.pop(0)
        if isinstance(end, OSError):
            raise end
        return ended_process(end)


def changed(saves: Callable[[], int]) -> Saver:
    """A saver of an app in which something was changed."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    saver = Saver(app, saves)
    scope = {"type": "http", "headers": [(b"x-amz-target", b"DynamoDB_20120810.PutItem")]}
    asyncio.run(saver(scope, None, None))
    return saver


def test_change_is_saved_once() -> None:
    saves = Saves(0)
    saver = changed(saves)
    for _ in range(3):
        saver.look()
    assert saves.begun == 1


@pytest.mark.parametrize("end", [1, OSError(errno.EAGAIN, "no more processes")])
def test_save_that_failed_is_said_and_tried_again(end: int | OSError, caplog: pytest.LogCaptureFixture) -> None:
    saves = Saves(end, 0)
    saver = changed(saves)
    for _ in range(4):
        saver.look()
    assert saves.begun == 2
    (record,) = caplog.records
    assert "saving the state failed" in record.getMessage()


def test_save_is_not_begun_while_another_one_goes_on() -> None:
    child = os.posix_spawn("/bin/sleep", ["sleep", "60"], os.environ)
    begun: list[int] = []
    saver = changed(lambda: begun.append(child) or child)
    try:
        for _ in range(3):
            saver.look()
        assert begun == [child]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.parametrize(("state_dir", "exit_code"), [("state", 0), ("file/state", 1)])
def test_process_that_saves_says_by_its_exit_code_whether_it_did(
    tmp_path: Path, state_dir: str, exit_code: int
) -> None:
    (tmp_path / "file").touch()
    code = (
        "import os; from local.emulator import save_in_child; "
        "print(os.waitstatus_to_exitcode(os.waitpid(save_in_child(), 0)[1]))"
    )
    env = {**os.environ, "PERSIST_STATE": "1", "STATE_DIR": str(tmp_path / state_dir)}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == str(exit_code)
    assert (tmp_path / "state" / "dynamodb.json").exists() is (exit_code == 0)
