"""What tasks outside the project import is installed by pip, once for each change, into the runner's environment."""

import subprocess
from pathlib import Path

import pytest

from chalicelib.core.errors import OwnTasksError
from infra.tasks_folder import TasksFolder
from tests.wheels import make_environment, make_wheel, requirements


class Shop:
    def __init__(self, folder: Path) -> None:
        self.wheels, self.tasks, self.said = folder / "wheels", folder / "tasks", list[str]()
        self.tasks.mkdir()
        self.python = make_environment(folder / "environment")
        self.folder = TasksFolder(self.tasks, self.said.append, str(self.python))

    def require(self, *lines: str) -> None:
        (self.tasks / "requirements.txt").write_text(requirements(self.wheels, *lines))

    def version(self) -> str:
        command = [self.python, "-c", "import colours; print(colours.VERSION)"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def error(self) -> str:
        with pytest.raises(OwnTasksError) as raised:
            self.folder.install()
        return str(raised.value)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    make_wheel(shop.wheels, "colours", "1.0")
    make_wheel(shop.wheels, "colours", "2.0")
    make_wheel(shop.wheels, "msgspec", "0.1")
    return shop


def test_requirements_are_installed_when_they_changed(shop: Shop) -> None:
    shop.folder.install()
    assert shop.said == []  # there is no such file
    shop.require("colours==1.0")
    shop.folder.install()
    shop.folder.install()
    assert (shop.said, shop.version()) == ([f"Installing {shop.tasks}/requirements.txt"], "1.0")
    shop.require("-r more.txt")
    (shop.tasks / "more.txt").write_text("colours==2.0\n")
    shop.folder.install()
    assert (len(shop.said), shop.version()) == (2, "2.0")
    (shop.tasks / "more.txt").write_text("colours==1.0\n")
    shop.folder.install()
    assert (len(shop.said), shop.version()) == (3, "1.0")


def test_a_package_that_does_not_exist_is_named_and_tried_again(shop: Shop) -> None:
    shop.require("nosuch-colours==1.0")
    error = shop.error()
    assert error.startswith(f"TASKS_DIR: {shop.tasks}/requirements.txt: ")
    assert "No matching distribution found for nosuch-colours==1.0" in error
    assert "\n" not in error
    assert shop.error() == error


def test_a_pin_of_paceline_s_own_packages_is_refused_with_the_version_it_needs(shop: Shop) -> None:
    shop.require("msgspec==0.1")
    assert "Paceline needs msgspec==0." in shop.error()


def test_a_line_that_is_no_requirement_is_named(shop: Shop) -> None:
    shop.require("colours = 1.0")
    assert "Invalid requirement: 'colours = 1.0'" in shop.error()


def test_a_single_module_has_its_requirements_beside_it(shop: Shop) -> None:
    module = shop.tasks / "shop_tasks.py"
    assert TasksFolder(module, print).watched == (module, shop.tasks / "requirements.txt")
