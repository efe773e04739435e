"""Own tasks outside the project: which layouts are loaded, and what each mistake is answered with."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.container import load_own_tasks
from chalicelib.core.errors import OwnTasksError
from chalicelib.tasks.registry import registry

GREET = """
from paceline import Context, PermanentError, RetryAfter, task

@task("greet-{0}")
def greet(name: str, *, context: Context) -> str:
    return name
"""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Forgets what a test loaded."""
    modules, path, definitions = dict(sys.modules), list(sys.path), dict(registry._definitions)
    yield
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.path[:] = path
    registry._definitions.clear()
    registry._definitions.update(definitions)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def own(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("greet-")]


def error_of(path: Path) -> str:
    with pytest.raises(OwnTasksError) as raised:
        load_own_tasks(str(path))
    [line] = str(raised.value).splitlines()
    return line


def test_a_single_module_is_loaded(tmp_path: Path) -> None:
    load_own_tasks(str(write(tmp_path / "shop_tasks.py", GREET.format("one"))))
    assert own(registry.names) == ["greet-one"]


def test_a_package_is_loaded_with_all_its_modules(tmp_path: Path) -> None:
    package = tmp_path / "shop_tasks"
    write(package / "__init__.py", "")
    write(package / "orders.py", "from shop_tasks.words import WORD\nfrom . import words\n" + GREET.format("orders"))
    write(package / "words.py", "WORD = 'hello'\n")
    write(package / "deep" / "__init__.py", "")
    write(package / "deep" / "mails.py", "from ..words import WORD\n" + GREET.format("mails"))
    load_own_tasks(str(package))
    assert own(registry.names) == ["greet-mails", "greet-orders"]


def test_a_folder_of_modules_is_loaded_and_they_import_one_another(tmp_path: Path) -> None:
    folder = tmp_path / "my-tasks"
    write(folder / "shop_orders.py", "import shop_words\n" + GREET.format("orders"))
    write(folder / "shop_words.py", GREET.format("words"))
    write(folder / "shop_mails" / "__init__.py", "from shop_words import greet\n" + GREET.format("mails"))
    load_own_tasks(str(folder))
    assert own(registry.names) == ["greet-mails", "greet-orders", "greet-words"]


def test_tests_in_the_folder_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "shop_orders.py", GREET.format("orders"))
    for name in ("test_orders.py", "conftest.py", "tests/__init__.py"):
        write(tmp_path / name, "raise AssertionError('a test was loaded')\n")
    load_own_tasks(str(tmp_path))
    assert own(registry.names) == ["greet-orders"]


@pytest.mark.parametrize("layout", ["module", "package", "folder"])
def test_loading_twice_changes_nothing(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "shop_tasks"
    if layout == "module":
        path = write(tmp_path / "shop_tasks.py", GREET.format("one"))
    else:
        write(path / ("__init__.py" if layout == "package" else "shop_orders.py"), GREET.format("one"))
    load_own_tasks(str(path))
    load_own_tasks(str(path))
    assert own(registry.names) == ["greet-one"]


def test_a_missing_folder_and_one_without_python_are_named(tmp_path: Path) -> None:
    assert error_of(tmp_path / "nowhere") == f"TASKS_DIR: {tmp_path}/nowhere does not exist"
    assert error_of(tmp_path) == f"TASKS_DIR: {tmp_path} has no Python file"
    text = write(tmp_path / "tasks.txt", "")
    assert error_of(text) == f"TASKS_DIR: {text} is not a Python file; allowed: a folder, or a file that ends in .py"


def test_a_folder_without_a_task_is_an_error(tmp_path: Path) -> None:
    module = write(tmp_path / "shop_tasks.py", "def greet() -> None: ...\n")
    assert error_of(module) == f'TASKS_DIR: {module} registers no task; decorate a function with @task("name")'


def test_an_import_that_fails_names_its_line_and_the_requirements_file(tmp_path: Path) -> None:
    write(tmp_path / "shop" / "shop_orders.py", "\nimport nosuch.thing\n")
    assert error_of(tmp_path / "shop") == (
        "TASKS_DIR: shop/shop_orders.py, line 2: ModuleNotFoundError: No module named 'nosuch'"
        f" - add it to {tmp_path}/shop/requirements.txt"
    )


def test_an_import_of_a_neighbour_is_explained(tmp_path: Path) -> None:
    write(tmp_path / "shop_prices.py", "")
    write(tmp_path / "shop_tasks" / "__init__.py", "import shop_prices\n")
    line = error_of(tmp_path / "shop_tasks")
    assert line.startswith("TASKS_DIR: shop_tasks/__init__.py, line 1: ModuleNotFoundError")
    assert line.endswith(
        "shop_prices is beside TASKS_DIR, where it is neither loaded nor deployed: move it into shop_tasks"
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def greet(:\n", "line 1: SyntaxError: invalid syntax"),
        ("from paceline import tusk\n", "line 1: ImportError: cannot import name 'tusk' from 'paceline'"),
        (
            "from paceline import task\n\n@task('a', atempts=3)\ndef a() -> None: ...\n",
            "line 3: TypeError: Registry.task() got an unexpected keyword argument 'atempts'",
        ),
        (
            "from paceline import task\n\n@task('log')\ndef a() -> None: ...\n",
            "ValueError: the task name 'log' is taken by chalicelib.tasks.registry.log_completion",
        ),
        ("import sys\nsys.exit('bye')\n", "line 2: SystemExit: bye"),
        ("x = 1 / 0\n", "line 1: ZeroDivisionError: division by zero"),
    ],
)
def test_a_mistake_in_the_code_names_file_line_and_error(tmp_path: Path, code: str, expected: str) -> None:
    write(tmp_path / "shop_orders.py", code)
    line = error_of(tmp_path)
    assert line.startswith(f"TASKS_DIR: {tmp_path.name}/shop_orders.py, line ")
    assert expected in line


@pytest.mark.parametrize("name", ["json", "boto3", "infra", "paceline", "sdk"])
@pytest.mark.parametrize("layout", ["module", "package", "folder"])
def test_a_module_with_the_name_of_another_is_refused(tmp_path: Path, name: str, layout: str) -> None:
    path = tmp_path / name if layout == "package" else tmp_path
    file = write(path / ("__init__.py" if layout == "package" else f"{name}.py"), GREET.format("one"))
    line = error_of({"module": file, "package": path, "folder": tmp_path}[layout])
    assert line.endswith(f"the name {name!r} is that of another Python module; rename it")


def test_a_package_whose_name_is_no_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "my-tasks" / "__init__.py", GREET.format("one"))
    assert error_of(tmp_path / "my-tasks").endswith("'my-tasks' can't be imported; allowed: letters, digits and '_'")


def test_tasks_import_the_paceline_of_this_deployment(tmp_path: Path) -> None:
    write(tmp_path / "shop_tasks.py", "import paceline\n" + GREET.format("one"))
    load_own_tasks(str(tmp_path / "shop_tasks.py"))
    root = Path(__file__).parents[2]
    assert Path(sys.modules["shop_tasks"].paceline.__file__) == root / "sdk" / "paceline" / "__init__.py"


def test_a_repeat_after_a_failure_gives_the_same_error(tmp_path: Path) -> None:
    write(tmp_path / "shop_orders.py", GREET.format("one") + "\nimport nosuch\n")
    write(tmp_path / "shop_mails.py", GREET.format("two"))
    first = error_of(tmp_path)
    assert "No module named 'nosuch'" in first
    assert error_of(tmp_path) == first
    assert own(registry.names) == []


def test_a_link_to_a_folder_has_the_link_s_name(tmp_path: Path) -> None:
    write(tmp_path / "release-12" / "__init__.py", "from shop_now.words import WORD\n" + GREET.format("one"))
    write(tmp_path / "release-12" / "words.py", "WORD = 'hello'\n")
    (tmp_path / "shop_now").symlink_to(tmp_path / "release-12")
    for _ in range(2):
        load_own_tasks(str(tmp_path / "shop_now"))
    assert own(registry.names) == ["greet-one"]
