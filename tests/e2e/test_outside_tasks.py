"""`make run` with tasks outside the project: their requirements, their reload, and mistakes at the first start."""

from pathlib import Path

import pytest

from tests.e2e.running import ROOT, Paceline, running
from tests.wheels import make_environment, make_wheel, requirements

PAINT = """
import colours

from paceline import task

@task("paint")
def paint(name: str) -> str:
    return f"{name}: {colours.VERSION}"
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    tasks = tmp_path / "shop" / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "__init__.py").write_text("")
    (tasks / "painting.py").write_text(PAINT)
    for version in ("1.0", "2.0"):
        make_wheel(tmp_path / "wheels", "colours", version)
    return tasks


def test_tasks_outside_run_with_their_requirements_and_follow_their_changes(shop: Path, tmp_path: Path) -> None:
    listed = shop / "requirements.txt"
    listed.write_text(requirements(tmp_path / "wheels", "colours==1.0"))
    python = str(make_environment(tmp_path / "environment"))
    with running(tmp_path, app=ROOT, python=python, TASKS_DIR=str(shop), RELOAD="true") as paceline:
        assert f"Installing {listed}" in paceline.output
        assert paceline.submit("ann", {"name": 1}, "paint").status == 422
        assert paceline.submit("ann", {"name": "sea"}, "paint").status == 202
        assert paceline.wait_for_completions(1, "ann")[0]["result"] == "sea: 1.0"

        listed.write_text(requirements(tmp_path / "wheels", "colours==2.0"))
        changed = "tasks/requirements.txt changed: reloaded"
        paceline.wait_for(lambda: changed in paceline.output, 90, "it installs and reloads")
        paceline.submit("bob", {"name": "sea"}, "paint")
        assert paceline.wait_for_completions(1, "bob")[0]["result"] == "sea: 2.0"

        (shop / "painting.py").write_text(PAINT.replace("import colours", "import nosuch"))
        fault = "tasks/painting.py changed, not reloaded: TASKS_DIR: tasks/painting.py, line 2: ModuleNotFoundError"
        paceline.wait_for(lambda: fault in paceline.output, 60, "the fault is printed")
        paceline.submit("cid", {"name": "sea"}, "paint")
        assert paceline.wait_for_completions(1, "cid")[0]["result"] == "sea: 2.0"


def test_a_mistake_ends_the_start_with_one_line(shop: Path, tmp_path: Path) -> None:
    paceline = Paceline(tmp_path, app=ROOT, TASKS_DIR=str(shop))
    assert paceline.run() == 1
    [line] = paceline.output.splitlines()[:1]
    assert line.startswith(
        "TASKS_DIR: tasks/painting.py, line 2: ModuleNotFoundError: No module named 'colours' - add it"
    )
    assert "Traceback" not in paceline.output


def test_a_missing_folder_ends_the_start_with_one_line(tmp_path: Path) -> None:
    paceline = Paceline(tmp_path, app=ROOT, TASKS_DIR="")
    paceline.env["TASKS_DIR"] = str(tmp_path / "nowhere")
    assert paceline.run() == 2
    assert paceline.output == f"TASKS_DIR: {tmp_path}/nowhere does not exist\n"
