"""A cold start over that of bare Chalice and boto3, the deployment package's size, and each process's memory."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from bench.clients import send_all, submit
from bench.figures import Results
from bench.local_run import local_run

GOAL = 1.15
RUNS = 15
ROOT = Path(__file__).parents[1]
#: Installers, which Chalice needs only to deploy.
NOT_AT_RUN_TIME = {"pip", "setuptools", "wheel"}


def measure(*, quick: bool) -> Results:
    results = Results()
    with tempfile.TemporaryDirectory() as cache:
        for which in ("paceline", "bare"):  # compiles the modules of both
            _start(which, cache)
        pairs = [(_start("paceline", cache), _start("bare", cache)) for _ in range(2 if quick else RUNS)]
    for what, goal in (("CPU", GOAL), ("wall", None)):
        ratios = [own[what] / bare[what] for own, bare in pairs]
        results.add(f"import and first submit over bare Chalice and boto3, {what}", ratios, at_most=goal)
        results.add(f"import and first submit, {what}", [own[what] for own, _ in pairs], "ms")
        results.add(f"bare Chalice and boto3, {what}", [bare[what] for _, bare in pairs], "ms")
    results.add("memory after a first submit (RSS)", [own["RSS"] for own, _ in pairs], "MB")
    results.add("memory of bare Chalice and boto3 (RSS)", [bare["RSS"] for _, bare in pairs], "MB")
    _add_package(results)
    _add_processes(results)
    return results


def _start(which: str, cache: str) -> dict[str, float]:
    """Figures of one new process. cache: directory for the app's compiled modules."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = cache
    command = [sys.executable, "-m", "bench.first_request", which]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


def _add_package(results: Results) -> None:
    """Sizes of the app's files and of all files that requirements.txt needs, as one zip: an upper bound."""
    own = [ROOT / "app.py", *(path for path in (ROOT / "chalicelib").rglob("*") if path.is_file())]
    names = [line for line in (ROOT / "requirements.txt").read_text().split("\n") if line and line[0] != "#"]
    others = [path for found in _needed(names) for path in _files(found)]
    for what, files in (("own files", own), ("own files and requirements", own + others)):
        zipped, size = io.BytesIO(), 0
        with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in {path for path in files if "__pycache__" not in path.parts}:
                archive.write(path)
                size += path.stat().st_size
        results.add(f"package, {what}, zipped", [len(zipped.getvalue()) / 1e6], "MB")
        results.add(f"package, {what}, unzipped", [size / 1e6], "MB")


def _needed(requirements: list[str]) -> list[Distribution]:
    """The installed ones of these packages and of their dependencies."""
    found: dict[str, Distribution] = {}
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.name in NOT_AT_RUN_TIME or (
            requirement.marker and not requirement.marker.evaluate({"extra": extra})
        ):
            continue
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        if requirement.name not in found:
            found[requirement.name] = package
            for wanted in ("", *requirement.extras):
                waiting += [(Requirement(text), wanted) for text in package.requires or ()]
    return list(found.values())


def _files(package: Distribution) -> list[Path]:
    return [path for file in package.files or () if (path := Path(str(package.locate_file(file)))).is_file()]


def _add_processes(results: Results) -> None:
    with local_run() as run:
        idle = run.memory_mb()
        send_all(run.port, [submit(f"user-{n}") for n in range(500)], 8)
        run.wait_for(500, 60)
        busy = run.memory_mb()
    for name, megabytes in idle.items():
        results.add(f"memory of {name} (RSS), ready", [megabytes], "MB")
        results.add(f"memory of {name} (RSS), after 500 tasks", [busy[name]], "MB")
