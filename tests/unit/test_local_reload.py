"""Reload restarts processes in an order in which every accepted task finds a worker that knows it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from local import pid_files, stop_report
from local.health import heartbeat_files
from local.reload import Reload
from local.running_calls import RunningCall, write_calls
from local.supervisor import SupervisorError

NAMES = ["api-0", "api-1", "worker-0", "worker-1"]


class RecordingSupervisor:
    """Starts workers that are healthy at once, and no API."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.calls: list[str] = []
        #: looks until a process ends, and whether it is killed then
        self.looks, self.kills = 0, False

    def end_process(self, name: str, wait_seconds: float, is_stopped: Callable[[float], bool]) -> bool:
        self.calls.append(f"end {name}")
        self.wait_seconds = wait_seconds
        for _ in range(self.looks):
            if is_stopped(0):
                return False
        return not self.kills

    def start_process(self, name: str) -> None:
        self.calls.append(f"start {name}")
        if name.startswith("api"):
            raise SupervisorError("the port is taken")
        for heartbeat in heartbeat_files(self._run_dir, name):
            heartbeat.touch()


def make_project(root: Path) -> Path:
    (root / "chalicelib").mkdir()
    (root / "app.py").touch()
    (root / "chalicelib" / "core").mkdir()
    (root / "chalicelib" / "container.py").write_text("def load_own_tasks(tasks_dir): pass\n")
    (root / "chalicelib" / "core" / "errors.py").write_text("class OwnTasksError(Exception): pass\n")
    return root


def test_workers_are_restarted_before_the_api_and_the_output_says_when_it_begins(tmp_path: Path) -> None:
    supervisor, said = RecordingSupervisor(tmp_path), list[str]()
    reload = Reload(supervisor, tmp_path, NAMES, make_project(tmp_path), said.append, 65)  # type: ignore[arg-type]
    reload._reload(["chalicelib/own_tasks/greetings.py"])
    workers = ["end worker-0", "start worker-0", "end worker-1", "start worker-1"]
    assert supervisor.calls == [*workers, "end api-0", "start api-0"]
    assert said == [
        "chalicelib/own_tasks/greetings.py changed: reloading, the workers first",
        "chalicelib/own_tasks/greetings.py changed, not all reloaded: the port is taken",
    ]


def test_worker_that_is_killed_with_its_task_is_named_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_report, "FIRST_SECONDS", 0)
    pid_files.register(tmp_path, "worker-0")
    write_calls(tmp_path / "worker-0.running", [RunningCall("id", "ann", "report", 0, 0)])
    supervisor, said = RecordingSupervisor(tmp_path), list[str]()
    supervisor.looks, supervisor.kills = 2, True
    names = ["worker-0"]
    reload = Reload(supervisor, tmp_path, names, make_project(tmp_path), said.append, 65)  # type: ignore[arg-type]
    reload._reload(["app.py"])
    assert [line.partition(":")[0] for line in said] == [
        "app.py changed",
        "worker-0 restarts once its tasks have ended, in 65 s at the latest. Waiting for 1 running task",
        "Ended 1 running task, it takes another attempt if there is one left",
        "app.py changed",
    ]
    assert "report of ann (runs for" in said[1]
    assert (supervisor.calls, supervisor.wait_seconds) == (["end worker-0", "start worker-0"], 65)


def test_stop_of_the_run_ends_the_wait_of_a_reload(tmp_path: Path) -> None:
    supervisor, said = RecordingSupervisor(tmp_path), list[str]()
    reload = Reload(supervisor, tmp_path, NAMES, make_project(tmp_path), said.append, 65)  # type: ignore[arg-type]
    supervisor.looks = 1_000_000
    reload.thread.stop()
    reload._restart("worker-0")
    assert supervisor.calls == ["end worker-0"]
