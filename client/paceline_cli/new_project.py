"""Writes a small example project with tasks and their tests."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from paceline_client import __version__

EXAMPLE = Path(__file__).with_name("example")
#: The checkout that this command runs from, if it does.
_CHECKOUT = Path(__file__).parents[2]
_SDK = "paceline[testing]"


def init(folder: Annotated[Path, typer.Argument(help="The new project's folder.")]) -> None:
    """Write a small project with a task, and a test that runs it without AWS.

    Refuses a folder that has files.
    """
    # `./paceline` has left the caller's folder for the checkout's.
    target = Path(os.environ.get("PACELINE_FROM", ".")) / folder
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise typer.BadParameter(f"{folder} exists and is not an empty folder", param_hint="FOLDER")
    checkout = _CHECKOUT if (_CHECKOUT / "sdk").is_dir() else None
    write_project(target, checkout)
    print(f"Wrote {folder}: a task in tasks/orders.py, its tests in tests/test_orders.py")
    print(f"Next: cd {shlex.quote(str(folder))}, and read README.md")


def write_project(target: Path, checkout: Path | None) -> None:
    """checkout: where Paceline's code is; None where only the client is installed."""
    shutil.copytree(EXAMPLE, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    readme = target / "README.md"
    readme.write_text(readme.read_text().replace("{checkout}", shlex.quote(str(checkout or "../paceline"))))
    sdk = f"{_SDK} @ {(checkout / 'sdk').as_uri()}" if checkout else f"{_SDK}=={__version__}"
    (target / "requirements-dev.txt").write_text(f"-r tasks/requirements.txt\n{sdk}\npytest\n")
