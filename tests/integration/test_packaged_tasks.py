"""Own tasks outside the project, and what they import, in the package for Lambda."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from infra.deploy.errors import DeployError
from infra.deploy.package import package
from infra.deploy.stages import read_stage
from infra.deploy.timeouts import own_tasks
from tests.wheels import make_wheel

STAGE = read_stage("dev")
PAINT = """
import colours
from paceline import task

@task("paint")
def paint(name: str) -> str:
    return f"{name}: {colours.VERSION}"
"""
#: What a function does when it starts, in the unpacked package.
LOAD = "from chalicelib.container import load_own_tasks, registered; load_own_tasks({!r}); print(registered.names)"
PYTHON = f"cp{sys.version_info[0]}{sys.version_info[1]}"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which pip looks for packages."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return tmp_path / "wheels"


def make_tasks(folder: Path, *requirements: str, module: str = "painting.py") -> Path:
    folder.mkdir(parents=True)
    (folder / module).write_text(PAINT)
    (folder / ".secret").write_text("not to be deployed")
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements))
    return folder


def packaged(tasks: Path, out: Path, *, is_local: bool = True) -> Path:
    return package(STAGE, {}, out, is_local=is_local, with_requirements=False, tasks=tasks)


@pytest.mark.parametrize("layout", ["folder", "package", "module"])
def test_the_package_holds_tasks_dependencies_and_the_public_package(wheels: Path, tmp_path: Path, layout: str) -> None:
    make_wheel(wheels, "colours")
    tasks = make_tasks(tmp_path / "shop" / "tasks", "colours==1.0")
    if layout == "package":
        (tasks / "__init__.py").write_text("")
    given = tasks / "painting.py" if layout == "module" else tasks
    template = json.loads(packaged(given, tmp_path / "out").read_text())
    with ZipFile(tmp_path / "out" / "deployment.zip") as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "unpacked")
    assert {"colours.py", "sdk/paceline/__init__.py", "app.py"} <= set(names)
    assert [name for name in names if ".secret" in name or "__pycache__" in name] == []
    assert [name for name in names if "testing" in name] == []

    functions = [template["Resources"][name]["Properties"] for name in ("APIHandler", "Worker", "Scheduled")]
    [tasks_dir] = {function["Environment"]["Variables"]["TASKS_DIR"] for function in functions}
    assert tasks_dir == f"own/{given.name}"
    command = [sys.executable, "-c", LOAD.format(tasks_dir)]
    ran = subprocess.run(command, cwd=tmp_path / "unpacked", check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "['log', 'paint']\n"), ran.stderr


def test_a_dependency_without_a_wheel_for_lambda_is_named(wheels: Path, tmp_path: Path) -> None:
    """Its only wheel is for this machine's processor, and the functions are for the other one."""
    machine = platform.machine()
    make_wheel(wheels, "colours")
    make_wheel(wheels, "rocks", "2.5", tag=f"{PYTHON}-{PYTHON}-linux_{machine}")
    tasks = make_tasks(tmp_path / "tasks", "colours", "rocks")
    with pytest.raises(DeployError) as raised:
        packaged(tasks, tmp_path / "out", is_local=machine != "x86_64")
    assert "no wheel for Lambda (Linux, " in str(raised.value)
    assert "rocks==2.5 - choose versions that have one" in str(raised.value)
    # Chalice keeps what it packaged: a second try must not find a package without them.
    with pytest.raises(DeployError, match=r"rocks==2\.5"):
        packaged(tasks, tmp_path / "again", is_local=machine != "x86_64")


def test_a_requirement_that_no_package_satisfies_is_named(wheels: Path, tmp_path: Path) -> None:
    wheels.mkdir()
    with pytest.raises(DeployError, match=r"no package for the requirement nosuch-colours==1\.0"):
        packaged(make_tasks(tmp_path / "tasks", "nosuch-colours==1.0"), tmp_path / "out")


def test_versions_that_contradict_each_other_are_named(wheels: Path, tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        make_wheel(wheels, "colours", version)
    with pytest.raises(DeployError, match=r"Cannot install colours==1\.0 and colours==2\.0"):
        packaged(make_tasks(tmp_path / "tasks", "colours==1.0", "colours==2.0"), tmp_path / "out")


def test_tasks_that_do_not_load_stop_the_deployment_with_the_line(tmp_path: Path) -> None:
    tasks = make_tasks(tmp_path / "shop-tasks", module="shop_painting.py")
    with pytest.raises(
        DeployError, match=r"TASKS_DIR: shop-tasks/shop_painting\.py, line 2: .*No module named 'colours'"
    ):
        own_tasks(str(tasks))
