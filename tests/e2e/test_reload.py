"""A project's own task is there when its file is saved, and a fault in it stops nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.e2e.running import ROOT, running

REPORT = """
import time
from chalicelib.tasks import Context, task

@task("report")
def report(*, context: Context) -> str:
    context.progress(0.5, "{word}")
    time.sleep(3600 if context.attempt == 1 else 0)
    return "{word}"
"""
GREET = """
from chalicelib.tasks import task

@task("greet")
def greet(name: str) -> str:
    return f"{word}, {{name}}"
"""


def copy_project(source: Path, target: Path) -> Path:
    """Copies the app without the tasks that the project has of its own."""
    shutil.copytree(source / "chalicelib", target / "chalicelib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(source / "app.py", target)
    for own in (target / "chalicelib" / "own_tasks").iterdir():
        if own.name != "__init__.py":
            shutil.rmtree(own) if own.is_dir() else own.unlink()
    return target


def test_copy_holds_no_task_of_the_project(tmp_path: Path) -> None:
    with_own = copy_project(ROOT, tmp_path / "with-own")
    folder = with_own / "chalicelib" / "own_tasks"
    (folder / "greetings.py").write_text(GREET.format(word="Hello"))
    (folder / "more").mkdir()
    copied = copy_project(with_own, tmp_path / "copy") / "chalicelib" / "own_tasks"
    assert [path.name for path in copied.iterdir()] == ["__init__.py"]


def test_own_task_is_reloaded_and_a_fault_leaves_what_runs(tmp_path: Path) -> None:
    project = copy_project(ROOT, tmp_path / "project")
    module = project / "chalicelib" / "own_tasks" / "greetings.py"
    with running(tmp_path, app=project, RELOAD="true") as paceline:
        assert paceline.submit("ann", {"name": "Ann"}, "greet").status == 422

        module.write_text(GREET.format(word="Hello"))
        paceline.wait_for(lambda: "greetings.py changed: reloaded" in paceline.output, 60, "it is reloaded")
        assert paceline.submit("ann", {"name": "Ann"}, "greet").status == 202
        assert paceline.wait_for_completions(1, "ann")[0]["result"] == "Hello, Ann"

        (module.parent / "farewells.py").write_text(GREET.format(word="Goodbye").replace("greet", "farewell"))
        accepted = list[str]()

        def submits_while_it_reloads() -> bool:
            user = f"early-{len(accepted)}"
            if paceline.submit(user, {"name": "Ann"}, "farewell").status == 202:
                accepted.append(user)
            return paceline.output.count("changed: reloaded") == 2

        paceline.wait_for(submits_while_it_reloads, 60, "it is reloaded again")
        assert accepted
        assert "farewells.py changed: reloading" in paceline.output
        for user in accepted:
            assert paceline.wait_for_completions(1, user)[0]["result"] == "Goodbye, Ann"

        module.write_text("def greet(:\n")
        paceline.wait_for(lambda: "not reloaded: SyntaxError" in paceline.output, 60, "the fault is printed")
        [line] = [line for line in paceline.output.splitlines() if "not reloaded" in line]
        assert "own_tasks/greetings.py, line 1" in line
        assert paceline.submit("ann", {"name": "Ann"}, "greet").status in (202, 429)
        assert paceline.wait_for_completions(2, "ann")[1]["result"] == "Hello, Ann"

        module.write_text(GREET.format(word="Good evening"))
        paceline.wait_for(lambda: paceline.output.count("changed: reloaded") == 3, 60, "it is mended")
        paceline.submit("ann", {"name": "Ann"}, "greet")
        assert paceline.wait_for_completions(3, "ann")[2]["result"] == "Good evening, Ann"
        assert "restarted" not in paceline.output


def test_a_reload_ends_a_task_that_runs_on_and_the_new_code_runs_it_again(tmp_path: Path) -> None:
    project = copy_project(ROOT, tmp_path / "project")
    module = project / "chalicelib" / "own_tasks" / "reports.py"
    module.write_text(REPORT.format(word="old"))
    with running(tmp_path, app=project, RELOAD="true", STOP_WAIT="4") as paceline:
        path = paceline.submit("ann", {}, "report").headers["Location"]
        paceline.wait_for(lambda: paceline.request("GET", path).body["progress"], 20, "it runs")
        module.write_text(REPORT.format(word="new"))
        paceline.wait_for(lambda: "reports.py changed: reloaded" in paceline.output, 90, "it is reloaded")
        [ended] = paceline.wait_for_completions(1, "ann")
        assert (ended["attempt"], ended["result"]) == (2, "new")
        assert "restarts once its tasks have ended, in 4 s at the latest. Waiting for 1 running task" in paceline.output
        assert "Ended 1 running task, it takes another attempt if there is one left: report of ann" in paceline.output
