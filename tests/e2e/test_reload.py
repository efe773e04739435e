"""A project's own task is there when its file is saved, and a fault in it stops nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.e2e.running import ROOT, running

GREET = """
from chalicelib.tasks import task

@task("greet")
def greet(name: str) -> str:
    return f"{word}, {{name}}"
"""


def test_own_task_is_reloaded_and_a_fault_leaves_what_runs(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "chalicelib", project / "chalicelib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "app.py", project)
    module = project / "chalicelib" / "own_tasks" / "greetings.py"
    with running(tmp_path, app=project, RELOAD="true") as paceline:
        assert paceline.submit("ann", {"name": "Ann"}, "greet").status == 422

        module.write_text(GREET.format(word="Hello"))
        paceline.wait_for(lambda: "greetings.py changed: reloaded" in paceline.output, 60, "it is reloaded")
        assert paceline.submit("ann", {"name": "Ann"}, "greet").status == 202
        assert paceline.wait_for_completions(1, "ann")[0]["result"] == "Hello, Ann"

        module.write_text("def greet(:\n")
        paceline.wait_for(lambda: "not reloaded: SyntaxError" in paceline.output, 60, "the fault is told")
        [line] = [line for line in paceline.output.splitlines() if "not reloaded" in line]
        assert "own_tasks/greetings.py, line 1" in line
        assert paceline.submit("ann", {"name": "Ann"}, "greet").status in (202, 429)
        assert paceline.wait_for_completions(2, "ann")[1]["result"] == "Hello, Ann"

        module.write_text(GREET.format(word="Good evening"))
        paceline.wait_for(lambda: paceline.output.count("changed: reloaded") == 2, 60, "it is mended")
        paceline.submit("ann", {"name": "Ann"}, "greet")
        assert paceline.wait_for_completions(3, "ann")[2]["result"] == "Good evening, Ann"
        assert "restarted" not in paceline.output
