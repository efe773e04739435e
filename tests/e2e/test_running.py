"""The tests' own system: how it waits while a machine is busy."""

from __future__ import annotations

from http.client import RemoteDisconnected
from pathlib import Path

import pytest

from tests.e2e import running
from tests.e2e.running import Answer, Paceline


class Busy(Paceline):
    """Answers a submit with the next of the statuses; 0: the server does not answer."""

    def __init__(self, directory: Path, *statuses: int) -> None:
        super().__init__(directory)
        self._statuses = list(statuses)
        self.keys: list[str | None] = []

    def submit(self, user: str, payload: object = None, task: str = "log", key: str | None = None) -> Answer:
        self.keys.append(key)
        status = self._statuses.pop(0)
        if not status:
            raise RemoteDisconnected
        return Answer(status, {}, "{}")


def test_submit_that_is_not_answered_is_repeated_under_its_key(tmp_path: Path) -> None:
    busy = Busy(tmp_path, 503, 0, 409, 202)
    assert busy.submit_all(["ann"])[0].status == 202
    assert len(busy.keys) == 4
    assert len(set(busy.keys)) == 1
    assert busy.keys[0]


def test_patience_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PATIENCE_SECONDS", -1)
    assert Busy(tmp_path, 503, 202).submit_all(["ann"])[0].status == 503
    with pytest.raises(RemoteDisconnected):
        Busy(tmp_path, 0, 202).submit_all(["ann"])
