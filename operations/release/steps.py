"""The steps of a release: build, look at the archives, and install each package into a fresh environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from chalicelib.api.openapi import document

#: The folders of the Python packages.
PYTHON_PACKAGES = ("client", "sdk")
TYPESCRIPT = "clients/typescript"
#: Commands that a fresh environment runs with both packages, before the tests of the project that the last one wrote.
_TRIES = (
    ("paceline", "--help"),
    ("paceline", "init", "shop"),
)
#: Programs of either kind of module that load the package.
_NODE_TRIES = (
    ("--input-type=commonjs", "if (!require('{0}')) process.exit(1)"),
    ("--input-type=module", "import * as client from '{0}'; if (!Object.keys(client).length) process.exit(1)"),
)


class ReleaseError(Exception):
    """A step failed; the text names it and ends with what it printed."""


def tools(root: Path) -> str:
    """Returns the interpreter of an environment with what builds and checks packages; makes it when it is missing."""
    wanted = root / "requirements-release.txt"
    environment = root / "build" / "release-tools"
    installed = environment / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted.read_text():
        _run("making an environment", [sys.executable, "-m", "venv", str(environment)], root)
        _run("installing the tools", [*_pip(environment), "-r", str(wanted)], root)
        installed.write_text(wanted.read_text())
    return str(environment / "bin" / "python")


def build_python(root: Path, out: Path, python: str) -> list[Path]:
    """Builds an sdist of each Python package, and from it a wheel; twine checks them. python: of `tools`."""
    for package in PYTHON_PACKAGES:
        _run(f"building {package}", [python, "-m", "build", "--outdir", str(out), str(root / package)], root)
    made = sorted([*out.glob("*.whl"), *out.glob("*.tar.gz")])
    _run("twine check", [python, "-m", "twine", "check", "--strict", *map(str, made)], root)
    return made


def _pip(environment: Path) -> list[str]:
    return [str(environment / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]


def try_python(made: Sequence[Path], folder: Path) -> None:
    """Installs the wheels into an environment that has nothing else, and uses them there."""
    environment = folder / "environment"
    _run("making an environment", [sys.executable, "-m", "venv", str(environment)], folder)
    client, sdk = (
        next(file for file in made if file.match(name)) for name in ("paceline_client*.whl", "paceline-*.whl")
    )
    wanted = [f"{client}[cli]", f"{sdk}[testing]", "pytest"]
    _run("installing the wheels", [*_pip(environment), *wanted], folder)
    for program, *arguments in _TRIES:
        _run(f"{program} {' '.join(arguments)}", [str(environment / "bin" / program), *arguments], folder)
    _run("the example's tests", [str(environment / "bin" / "python"), "-m", "pytest", "-q"], folder / "shop")


def why_no_typescript(root: Path) -> str | None:
    """Returns why the npm package can't be built here; None if it can."""
    if not (root / TYPESCRIPT / "package.json").exists():
        return f"there is no {TYPESCRIPT}"
    return None if shutil.which("npm") else "npm is not installed"


def build_typescript(root: Path, out: Path) -> Path:
    """Builds and packs the npm package, and loads it from a fresh folder."""
    source = root / TYPESCRIPT
    npm = ("npm", "--no-fund", "--no-audit")
    (source / "openapi.json").write_text(document())  # the types are made from it
    _run("npm install", [*npm, "install"], source)
    _run("npm run build", [*npm, "run", "build"], source)
    name = _run("npm pack", [*npm, "pack", "--pack-destination", str(out)], source).split()[-1]
    return out / name


def try_typescript(archive: Path, name: str, folder: Path) -> None:
    """Installs the archive into a fresh folder, and loads it there as either kind of module."""
    _run("npm init", ["npm", "init", "--yes"], folder)
    _run("installing the archive", ["npm", "--no-fund", "--no-audit", "install", str(archive)], folder)
    for option, program in _NODE_TRIES:
        _run(f"node {option}", ["node", option, "--eval", program.format(name)], folder)


def _run(step: str, command: Sequence[str], folder: Path) -> str:
    """Runs the command and returns its output. Raises ReleaseError if it fails."""
    ran = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise ReleaseError(f"{step} failed:\n{(ran.stdout + ran.stderr).strip()[-2_000:]}")
    return ran.stdout
