"""Reload restarts processes in an order in which every accepted task finds a worker that knows it."""

from pathlib import Path

from local.health import heartbeat_files
from local.reload import Reload
from local.supervisor import SupervisorError

NAMES = ["api-0", "api-1", "worker-0", "worker-1"]


class RecordingSupervisor:
    """Starts workers that are healthy at once, and no API."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.calls: list[str] = []

    def end_process(self, name: str) -> None:
        self.calls.append(f"end {name}")

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
    reload = Reload(supervisor, tmp_path, NAMES, make_project(tmp_path), said.append)  # type: ignore[arg-type]
    reload._reload(["chalicelib/own_tasks/greetings.py"])
    workers = ["end worker-0", "start worker-0", "end worker-1", "start worker-1"]
    assert supervisor.calls == [*workers, "end api-0", "start api-0"]
    assert said == [
        "chalicelib/own_tasks/greetings.py changed: reloading, the workers first",
        "chalicelib/own_tasks/greetings.py changed, not all reloaded: the port is taken",
    ]
