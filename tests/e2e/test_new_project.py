"""`paceline init`: the project that it writes, as somebody else uses it, with the packages of this checkout."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running import ROOT, running


def init(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Runs the checkout's command from the folder."""
    environment = {**os.environ, "PACELINE_FROM": str(folder)}
    command = [sys.executable, "-m", "operations", "init", name]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    made = init(folder, "shop")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.startswith("Wrote shop: a task in tasks/orders.py")
    return folder / "shop"


def test_its_tests_pass_where_only_its_requirements_are_installed(shop: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=shop, check=True)
    install = [".venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements-dev.txt"]
    installed = subprocess.run(install, cwd=shop, check=False, capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    tested = subprocess.run(
        [".venv/bin/python", "-m", "pytest", "-q"], cwd=shop, env=clean, check=False, capture_output=True, text=True
    )
    assert tested.returncode == 0, tested.stdout
    assert "4 passed" in tested.stdout
    names = [path.name for path in (shop / ".venv").glob("lib/python*/site-packages/*")]
    assert {"paceline"} == {name for name in names if name in ("paceline", "chalicelib", "chalice")}


def test_its_task_runs_as_its_readme_says(shop: Path, tmp_path: Path) -> None:
    readme = (shop / "README.md").read_text()
    assert f'make -C {ROOT} run TASKS_DIR="$PWD/tasks"' in readme
    [payload] = re.findall(r'"payload": (\{.*?\})\}', readme)
    assert payload == '{"order": "A-1", "cents": 250}'
    with running(tmp_path, app=ROOT, TASKS_DIR=str(shop / "tasks")) as paceline:
        assert paceline.submit("ann", {"order": "A-1", "cents": 250}, "charge").status == 202
        assert paceline.wait_for_completions(1, "ann")[0]["result"].startswith("A-1: 250 cents, booked as ")


def test_a_folder_with_files_is_refused(shop: Path) -> None:
    refused = init(shop.parent, "shop")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "shop exists and is not an empty folder" in refused.stderr


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert init(tmp_path, "shop").returncode == 0
    shutil.rmtree(tmp_path / "shop")
