"""Loads own tasks from outside this project (TASKS_DIR): one module, a package, or a folder of modules.

Only that module or folder is loaded, and only it is deployed: its neighbours can't be imported.
"""

import importlib
import importlib.util
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from chalicelib.core.errors import OwnTasksError
from chalicelib.tasks.registry import registry

#: The folder of app.py: on this machine the checkout, on Lambda the package. Relative paths begin here.
ROOT = Path(__file__).parents[2]
#: The folder that holds the public package `paceline`, which tasks import.
SDK = ROOT / "sdk"
#: Names of modules that are part of Paceline, or of its checkout.
_TAKEN = {
    *("app", "bench", "chalice", "chalicelib", "client", "completions", "demo", "infra", "local", "operations"),
    *("paceline", "sdk", "tests"),
}


def expose_sdk() -> None:
    """Lets tasks import this deployment's `paceline`, also where a package of that name is installed."""
    if str(SDK) not in sys.path:
        sys.path.insert(0, str(SDK))


def find(tasks_dir: str) -> Path:
    """Returns the absolute path that TASKS_DIR names. Raises OwnTasksError unless it is a module or has one."""
    path = Path(os.path.normpath(ROOT / tasks_dir))  # `resolve` would give a link's target and its name
    if not path.exists():
        hint = "" if Path(tasks_dir).is_absolute() else f"; a relative path begins at {ROOT}"
        raise OwnTasksError(f"{path} does not exist{hint}")
    if path.is_file() and path.suffix != ".py":
        raise OwnTasksError(f"{path} is not a Python file; allowed: a folder, or a file that ends in .py")
    if path.is_dir() and not any(_modules([str(path)])) and not _is_package(path):
        raise OwnTasksError(f"{path} has no Python file")
    return path


def requirements_of(path: Path) -> Path:
    """Returns the file that lists what the tasks at this path import; it may not exist."""
    return (path if path.is_dir() else path.parent) / "requirements.txt"


def load(tasks_dir: str) -> None:
    """Imports each module at TASKS_DIR, which registers its tasks.

    Files named `test_*.py`, `conftest.py`, and folders named `tests` are left out. Raises OwnTasksError with the file,
    the line and the reason, also if nothing there registers a task.
    """
    path, before = find(tasks_dir), set(registry.names)
    try:
        modules = _load_package(path) if path.is_file() or _is_package(path) else _load_folder(path)
    except BaseException as error:  # whatever the code raises at import, SystemExit included
        registry.forget(set(registry.names) - before)  # else a repeat would find their names taken
        raise error if isinstance(error, OwnTasksError) else OwnTasksError(_explained(path, error)) from error
    loaded_before = (registry[name].function for name in before)
    if before == set(registry.names) and not any(getattr(one, "__module__", "") in modules for one in loaded_before):
        raise OwnTasksError(f'{path} registers no task; decorate a function with @task("name")')


def _is_package(path: Path) -> bool:
    return (path / "__init__.py").is_file()


def _load_package(path: Path) -> set[str]:
    """Loads one module, or a package with all that is in it, by its own name and without its neighbours."""
    name = path.stem if path.is_file() else path.name
    _check_name(name, path)
    if name not in sys.modules:
        init = path if path.is_file() else path / "__init__.py"
        spec = importlib.util.spec_from_file_location(name, init)
        assert spec is not None, "it ends in .py"
        _run(spec)
    module = sys.modules[name]
    return {name, *(_load_within(module) if path.is_dir() else ())}


def _run(spec: ModuleSpec) -> None:
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        assert spec.loader is not None, "the module is a file"
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise


def _load_folder(path: Path) -> set[str]:
    """Loads each module and package in the folder, which can import one another by their names."""
    names = list(_modules([str(path)]))
    for name in names:
        _check_name(name, path / name)
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))
    loaded = set[str]()
    for name in names:
        loaded |= {name, *_load_within(importlib.import_module(name))}
    return loaded


def _load_within(package: ModuleType) -> Iterator[str]:
    """Loads a package's modules, and theirs; yields the names."""
    for name in _modules(getattr(package, "__path__", [])):
        full_name = f"{package.__name__}.{name}"
        module = importlib.import_module(full_name)
        yield full_name
        yield from _load_within(module)


def _modules(folders: list[str]) -> Iterator[str]:
    """Yields the names of the modules and packages in these folders, without tests."""
    for module in pkgutil.iter_modules(folders):
        if not module.name.startswith("test_") and module.name not in ("conftest", "tests", "setup"):
            yield module.name


def _check_name(name: str, path: Path) -> None:
    """Raises OwnTasksError for a name that can't be imported, or that is another module's."""
    if not name.isidentifier():
        raise OwnTasksError(f"{path}: {name!r} can't be imported; allowed: letters, digits and '_'")
    known = sys.modules.get(name)
    found = PathFinder.find_spec(name) if known is None else None
    files = (getattr(known, "__file__", None), found and found.origin)  # a folder without __init__.py has neither
    if name in _TAKEN or name in sys.stdlib_module_names or not all(_is_of(file, path) for file in files if file):
        raise OwnTasksError(f"{path}: the name {name!r} is that of another Python module; rename it")


def _is_of(file: str, path: Path) -> bool:
    """Returns True if the file is the module or package at this path."""
    places = (path, path / "__init__.py", path.with_suffix(".py"))
    return Path(file).resolve() in [place.resolve() for place in places]


def _explained(path: Path, error: BaseException) -> str:
    """Returns the place in the tasks' code, the error and the remedy, in one line."""
    place = _place(path, error)
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{place}: {text}{_remedy(path, error)}"


def _place(path: Path, error: BaseException) -> str:
    base = path.parent
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(error.filename, base)}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(path)]
    return f"{_relative(frames[-1].filename, base)}, line {frames[-1].lineno}" if frames else str(path)


def _relative(filename: str, base: Path) -> str:
    return str(Path(filename).relative_to(base)) if Path(filename).is_relative_to(base) else filename


def _remedy(path: Path, error: BaseException) -> str:
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    top = error.name.partition(".")[0]
    if (path.parent / top).exists() or (path.parent / f"{top}.py").exists():
        return f" - {top} is beside TASKS_DIR, where it is neither loaded nor deployed: move it into {path.name}"
    return f" - add it to {requirements_of(path)}"
