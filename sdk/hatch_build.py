"""Builds the package `paceline` with Paceline's own code in it, as `paceline._engine`.

The name `chalicelib` stays free for the applications of those who install the package.
"""

import re
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_ENGINE = "paceline._engine"
#: What tasks and their tests do without: HTTP, the dashboard, and the tasks that this checkout has of its own.
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "api", "web")


class EngineHook(BuildHookInterface):  # type: ignore[misc]  # hatchling is there at the build only
    """Includes the package as it is to be installed; an sdist holds it in that form already."""

    _folder: Path | None = None

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        engine, package = root.parent / "chalicelib", root / "paceline"
        if engine.is_dir():
            self._folder = Path(mkdtemp(prefix="paceline-sdk-"))
            package = assembled(package, engine, self._folder / "paceline")
        build_data["force_include"][str(package)] = "paceline"

    def finalize(self, _version: str, _build_data: dict[str, Any], _artifact_path: str) -> None:
        if self._folder:
            shutil.rmtree(self._folder)


def assembled(package: Path, engine: Path, target: Path) -> Path:
    """Copies both to `target`, with `chalicelib` renamed in them; returns it."""
    shutil.copytree(package, target, ignore=_LEFT_OUT)
    shutil.copytree(engine, target / "_engine", ignore=_LEFT_OUT)
    for own in (target / "_engine" / "own_tasks").iterdir():
        if own.name != "__init__.py":
            shutil.rmtree(own) if own.is_dir() else own.unlink()
    for module in target.rglob("*.py"):
        module.write_text(re.sub(r"\bchalicelib\b", _ENGINE, module.read_text()))
    return target
