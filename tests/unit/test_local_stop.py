"""A stop waits for running tasks to their end if somebody asked for it and can ask again; otherwise for STOP_WAIT."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from local import runner, stop_report
from local.run_settings import LocalSettings
from local.runner import Run
from local.running_calls import RunningCall, write_calls
from local.signals import StopSignals

#: Looks of the runner after which the system has ended by itself.
LOOKS = 50


class Signals:
    """Those of a run, without a terminal."""

    def __init__(self, count: int, is_terminal_closed: bool) -> None:
        self.count = count
        self.is_terminal_closed = is_terminal_closed

    wait = StopSignals.wait


class EndingSupervisor:
    """Supervises one worker, and ends after LOOKS, or when its processes are killed. Time goes by at each look."""

    def __init__(self, look: Callable[[int], None]) -> None:
        self._look = look
        self.looks = 0

    def wait(self, timeout_seconds: float) -> bool:
        self._look(self.looks)
        self.looks += 1
        return self.looks > LOOKS

    def pids(self) -> dict[int, str]:
        return {os.getpid(): "worker-1"}


def looks_of_a_stop(
    directory: Path, patch: pytest.MonkeyPatch, signals: Signals, look: Callable[[int], None] = lambda _looks: None
) -> tuple[int, list[str]]:
    """How often the runner looked before all had ended or it killed them, and its lines. A look takes a second."""
    settings = LocalSettings.from_env({"STATE_DIR": str(directory), "STOP_WAIT": "10"})
    settings.run_dir.mkdir(parents=True)
    write_calls(settings.run_dir / "worker-1.running", [RunningCall("id", "ann", "report", 0, 0)])
    run, said, supervisor = Run(settings, {}, signals), list[str](), EndingSupervisor(look)  # type: ignore[arg-type]
    run._supervisor = supervisor  # type: ignore[assignment]
    killed = list[bool]()
    patch.setattr(run, "_hurry", lambda: killed.append(True))
    patch.setattr(runner, "_say", said.append)
    patch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: float(supervisor.looks)))
    patch.setattr(stop_report, "FIRST_SECONDS", 0)
    run._wait_for_tasks(signals.count)
    return (-1 if not killed else supervisor.looks), said


def test_requested_stop_waits_for_the_end_of_running_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, said = looks_of_a_stop(tmp_path, monkeypatch, Signals(1, is_terminal_closed=False))
    assert (looks, len(said)) == (-1, 1)
    assert said[0].startswith("Ctrl-C again ends running tasks at once. Waiting for 1 running task: report of ann")


def test_second_request_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signals = Signals(1, is_terminal_closed=False)

    def ask_again(looks: int) -> None:
        signals.count += looks == 5

    looks, said = looks_of_a_stop(tmp_path, monkeypatch, signals, ask_again)
    assert looks == 6
    assert len(said) == 2
    assert said[-1].startswith("Ended 1 running task")


@pytest.mark.parametrize(
    "signals", [Signals(1, is_terminal_closed=True), Signals(0, is_terminal_closed=False)], ids=["terminal", "error"]
)
def test_stop_that_nobody_can_repeat_ends_them_after_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: Signals
) -> None:
    looks, said = looks_of_a_stop(tmp_path, monkeypatch, signals)
    assert 10 < looks < LOOKS
    assert said[-1].startswith("Ended 1 running task")


def test_worker_that_reports_no_running_task_is_not_waited_for_any_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stop may have got lost in supervisord."""

    def end_task(looks: int) -> None:
        if looks == 2:
            (tmp_path / "run" / "worker-1.running").unlink()

    looks, _ = looks_of_a_stop(tmp_path, monkeypatch, Signals(1, is_terminal_closed=False), end_task)
    assert 10 < looks < LOOKS
