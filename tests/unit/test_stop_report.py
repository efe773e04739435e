"""A stop says which running tasks it waits for; workers tell the runner in files."""

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from chalicelib.tasks.registry import Context, Registry
from chalicelib.tasks.runner import Call, InProcess, Returned
from local import running_calls
from local.running_calls import RunningCall, WatchedRunner, read_calls, reporting, write_calls
from local.stop_report import AGAIN_SECONDS, FIRST_SECONDS, StopReport
from tests.unit.test_background_threads import wait_until

MINUTE_MS = 60_000
NOW_MS = 1_800_000_000_000


class Terminal:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seconds = 0.0
        self.report = StopReport(
            self.lines.append, "Ctrl-C ends them.", lambda: self.seconds, lambda: NOW_MS / 1000 + self.seconds
        )

    def wait(self, seconds: float, *calls: RunningCall) -> None:
        self.seconds += seconds
        self.report.waits_for(calls)


def running_call(user: str = "ann", ran_minutes: float = 5, left_minutes: float = 55) -> RunningCall:
    begun, ends = NOW_MS - ran_minutes * MINUTE_MS, NOW_MS + left_minutes * MINUTE_MS
    return RunningCall("id", user, "report", int(begun), int(ends))


def test_stop_that_is_soon_over_says_nothing() -> None:
    terminal = Terminal()
    terminal.wait(FIRST_SECONDS - 0.1, running_call())
    terminal.wait(10)
    terminal.report.ends()
    assert terminal.lines == []


def test_running_tasks_are_named_once_a_minute_and_when_they_are_ended() -> None:
    terminal = Terminal()
    for _ in range(3):
        terminal.wait(FIRST_SECONDS, running_call(), running_call("bob", 0.5, 600))
    terminal.wait(AGAIN_SECONDS, running_call())
    terminal.report.ends()
    first, again, ended = terminal.lines
    named = (
        "report of ann (runs for 5 min, at most 55 min more), report of bob (runs for 32 s, at most 10 h 0 min more)"
    )
    assert first == f"Ctrl-C ends them. Waiting for 2 running tasks: {named}"
    assert again == "Still waiting for 1 running task: report of ann (runs for 6 min, at most 54 min more)"
    assert ended.startswith("Ended 1 running task, it takes another attempt if there is one left: report of ann")


def test_of_many_tasks_only_some_are_named() -> None:
    terminal = Terminal()
    terminal.wait(FIRST_SECONDS, *(running_call(f"user-{n}") for n in range(200)))
    [line] = terminal.lines
    assert "Waiting for 200 running tasks: report of user-0 " in line
    assert line.endswith("report of user-4 (runs for 5 min, at most 55 min more) and 195 more")


@pytest.mark.parametrize("fails", [False, True])
def test_worker_that_stops_lists_the_calls_that_are_under_way(tmp_path: Path, fails: bool) -> None:
    registry, seen = Registry(), list[list[RunningCall]]()

    def look(payload: Any) -> str:
        with reporting(runner, tmp_path, "worker-1"):
            seen.append(runner.calls)
        if fails:
            raise ValueError("no")
        return "done"

    registry.task("look")(look)
    runner = WatchedRunner(InProcess())
    context = Context("ann", "id-1", "look", 1, 1, 5_000, logging.getLogger("test"))
    with runner.room(registry["look"], 1_000) as room:
        assert room is not None
        assert not room.ends_overdue
        ended = room.run(Call(registry["look"], None, context, "token", 1_000))
    assert isinstance(ended, Returned) is not fails
    [[call]] = seen
    assert (call.task_id, call.user_id, call.name, call.deadline_at) == ("id-1", "ann", "look", 5_000)
    assert runner.calls == []
    assert list(tmp_path.iterdir()) == [], "the file ends with the stop"


def test_end_of_a_call_is_listed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second request to stop names the tasks that it ends."""
    monkeypatch.setattr(running_calls, "_REPORT_SECONDS", 3_600)
    registry, runner = Registry(), WatchedRunner(InProcess())
    registry.task("wait")(lambda payload: going.wait(30))
    going, processes = threading.Event(), {os.getpid(): "worker-1"}

    def run() -> None:
        context = Context("ann", "id-1", "wait", 1, 1, 5_000, logging.getLogger("test"))
        with runner.room(registry["wait"], 1_000) as room:
            assert room is not None
            room.run(Call(registry["wait"], None, context, "token", 1_000))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: len(runner.calls) == 1)
    with reporting(runner, tmp_path, "worker-1"):
        wait_until(lambda: len(read_calls(tmp_path, processes)) == 1)
        going.set()
        wait_until(lambda: (tmp_path / "worker-1.running").exists() and not read_calls(tmp_path, processes))
    thread.join()


def test_files_of_living_workers_are_read_and_those_of_dead_ones_are_not(tmp_path: Path) -> None:
    old, young = running_call("old", 9), running_call("young", 1)
    write_calls(tmp_path / "worker-1.running", [young, old])
    (tmp_path / "worker-2.running").write_text(json.dumps([os.getpid() + 1, []]))
    (tmp_path / "worker-3.running").write_text("[")
    names = {"worker-1", "worker-2", "worker-3", "api-1"}
    assert read_calls(tmp_path, {os.getpid(): "worker-1"}) == [old, young]
    for name in names - {"worker-1"}:
        assert read_calls(tmp_path, {os.getpid(): name}) == []
    assert read_calls(tmp_path, {os.getpid() + 1: "worker-1"}) == []
