"""Node for tests: the packages that they need, from npm into build/ once, and the TypeScript client, built and packed.

Without Node 20 or the network a test is skipped with that reason.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from chalicelib.api.openapi import document

ROOT = Path(__file__).resolve().parents[1]
CLIENT = ROOT / "clients" / "typescript"
#: The packages of all tests that run Node.
PACKAGES = Path(__file__).parent / "integration" / "generated" / "package.json"
BUILD = ROOT / "build" / "generated-clients"
#: Seconds that an installation or a compiler may take on a busy machine.
PATIENCE = 240
NODE = 20


def run(folder: Path, *command: str, **environment: str) -> str:
    """The command's standard output; its errors fail the test."""
    env = {**os.environ, **environment}
    done = subprocess.run(command, check=False, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{' '.join(command[:4])}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def install(folder: Path, wanted: str, *command: str) -> None:
    """Runs the command in the folder unless it has done so for `wanted`; skips the test where it fails.

    One process of a test run at a time: the others wait for it, and find the packages installed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        mark = folder / "installed.txt"
        if not mark.exists() or mark.read_text() != wanted:
            _install(folder, wanted, *command)
            mark.write_text(wanted)


def _install(folder: Path, wanted: str, *command: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "package.json").write_text(wanted)
    try:
        done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[0]} took more than {PATIENCE} s to install the packages")
    if done.returncode:
        pytest.skip(f"{command[0]} could not install the packages: {done.stderr.strip()[-200:]}")


def packages(wanted: Path = PACKAGES, folder: Path = BUILD / "typescript") -> Path:
    """The folder `node_modules` with the packages that the file `wanted` names, installed into that folder."""
    if not shutil.which("npm"):
        pytest.skip("Node is not installed")
    version = run(ROOT, "node", "--version")
    if int(re.findall(r"\d+", version)[0]) < NODE:
        pytest.skip(f"Node {NODE} is needed, not {version.strip()}")
    install(folder, wanted.read_text(), "npm", "install", "--no-audit", "--no-fund", "--no-package-lock")
    return folder / "node_modules"


@cache
def _built(modules: Path) -> Path:
    folder = Path(mkdtemp(prefix="paceline-typescript-")) / "client"
    ignored = shutil.ignore_patterns("node_modules", "dist", "*.tgz", "openapi.json", "api.ts")
    shutil.copytree(CLIENT, folder, ignore=ignored)
    (folder / "node_modules").symlink_to(modules)
    (folder / "openapi.json").write_text(document())
    run(folder, "npm", "run", "build")
    return folder


def built_client() -> Path:
    """The client's folder, as built from this checkout's OpenAPI document; one for the test process."""
    return _built(packages())


@cache
def packed() -> tuple[Path, list[str]]:
    """The package as `npm pack` writes it, and the names of its files."""
    folder = built_client()
    [found] = json.loads(run(folder, "npm", "pack", "--json"))
    return folder / found["filename"], [file["path"] for file in found["files"]]


def project(folder: Path, kind: str = "module") -> Path:
    """A project of somebody else that has installed the packed client and the tests' packages."""
    archive, _ = packed()
    modules = folder / "node_modules"
    modules.mkdir(parents=True)
    for package in packages().iterdir():
        (modules / package.name).symlink_to(package)
    run(modules, "tar", "xzf", str(archive))
    (modules / "package").rename(modules / "paceline-client")
    (folder / "package.json").write_text(json.dumps({"private": True, "type": kind}))
    return folder


def compiled(folder: Path, *files: str, module: str = "nodenext") -> None:
    """Compiles the files with `tsc --strict`; its errors fail the test."""
    options = ("--strict", "--target", "es2022", "--module", module, "--types", "node", "--skipLibCheck")
    run(folder, "node", "node_modules/typescript/bin/tsc", *options, *files)
