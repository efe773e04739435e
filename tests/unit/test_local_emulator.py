"""The emulator's state file, and its answers while the file can't be written; without MiniStack."""

import asyncio
import json
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from local.emulator import WriteThrough
from local.state_file import StateFile, StateFileError

SET = "INSERT OR REPLACE INTO services VALUES (?, ?)"


def stored(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as database:
        return dict(database.execute("SELECT name, state FROM services"))


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow; writes fail, as on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_changes_that_wait_are_stored_together(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state")
    file.add(SET, "a", "1")
    file.add(SET, "a", "2")
    file.add(SET, "b", "3")
    assert list(file.rows("SELECT * FROM services")) == []
    file.store()
    assert not file.has_changes
    file.close()
    assert stored(tmp_path / "state") == {"a": "2", "b": "3"}


def test_changes_wait_while_the_disk_is_full(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state")
    file.add(SET, "a", "1")
    with full_disk():
        for _ in range(3):
            with pytest.raises(StateFileError):
                file.store()
        assert file.has_changes
    file.add(SET, "b", "2")
    file.store()
    file.close()
    assert stored(tmp_path / "state") == {"a": "1", "b": "2"}


def test_stored_changes_survive_the_process(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from local.state_file import StateFile\n"
        f"file = StateFile(Path(sys.argv[1])); file.add({SET!r}, 'a', '1'); file.store()\n"
        f"file.add({SET!r}, 'b', '2'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "state")], check=False)
    assert stored(tmp_path / "state") == {"a": "1"}


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    first = StateFile(tmp_path / "state")
    with pytest.raises(StateFileError):
        StateFile(tmp_path / "state", wait_seconds=0)
    first.close()


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "state")) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(StateFileError, match="newer version"):
        StateFile(tmp_path / "state")


class State:
    """Counts the calls that were stored; `fails_after` of them can be stored."""

    def __init__(self, fails_after: int) -> None:
        self.left = fails_after
        self.targets: list[str] = []

    def is_stored(self) -> bool:
        return self.left > 0

    def is_call_stored(self, target: str) -> bool:
        self.targets.append(target)
        self.left -= 1
        return self.left >= 0


class Emulated:
    """An app behind WriteThrough that counts its calls."""

    def __init__(self, fails_after: int) -> None:
        self.state = State(fails_after)
        self.calls = 0
        self._served = WriteThrough(self._app, self.state)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def call(self, target: str = "DynamoDB_20120810.PutItem") -> tuple[int, dict[bytes, bytes], bytes]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"x-amz-target", target.encode())] if target else []
        asyncio.run(self._served({"type": "http", "headers": headers}, None, send))
        start, *bodies = sent
        return start["status"], dict(start["headers"]), b"".join(body["body"] for body in bodies)


def test_an_answer_begins_once_its_call_is_stored() -> None:
    emulated = Emulated(fails_after=1)
    assert emulated.call()[::2] == (200, b"done")
    assert emulated.state.targets == ["DynamoDB_20120810.PutItem"]


def test_a_call_that_can_not_be_stored_is_answered_503() -> None:
    emulated = Emulated(fails_after=1)
    emulated.call()
    emulated.state.left = 1
    emulated.state.is_call_stored = lambda _target: False  # type: ignore[method-assign]
    status, headers, body = emulated.call()
    assert (status, json.loads(body)["__type"]) == (503, "ServiceUnavailable")
    assert headers[b"content-length"] == str(len(body)).encode()
    assert emulated.calls == 2


@pytest.mark.parametrize("target", ["AmazonSQS.ReceiveMessage", ""])
def test_no_call_is_done_while_earlier_changes_wait(target: str) -> None:
    emulated = Emulated(fails_after=0)
    status, _, body = emulated.call(target)
    assert status == 503
    assert b"ServiceUnavailable" in body
    assert emulated.calls == 0
