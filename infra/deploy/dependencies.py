"""The dependencies of the Lambda package, and the errors of what Lambda can't run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from chalicelib.tasks.outside import requirements_of
from infra.deploy.errors import DeployError
from infra.deploy.stages import ROOT
from infra.requirements import digest, pip_reason

#: What each package needs, and what one that sends traces needs too.
OWN, TRACING = "requirements.txt", "requirements-tracing.txt"
#: Excluded from the package: Chalice vendors its own runtime, the rest of it is a command-line tool.
_NOT_PACKAGED = re.compile(r"chalice\b", re.IGNORECASE)
#: Chalice prints these packages, leaves them out and succeeds.
_MISSING = re.compile(r"Could not install dependencies:\n(.*?)\nYou will", re.DOTALL)
_UNKNOWN = re.compile(r"NoSuchPackageError: Could not satisfy the requirement: (\S+)")


def write_requirements(folder: Path, tasks: Path | None, files: Sequence[str]) -> None:
    """Writes the list of what Chalice packages into `folder`. tasks: own tasks outside this project.

    files: Paceline's own lists. Chalice keeps packages by the hash of this text, so the text has a hash of what it
    includes.
    """
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines()]
    lines = [line for line in lines if not _NOT_PACKAGED.match(line.strip())]
    of_tasks = requirements_of(tasks) if tasks else None
    if of_tasks and of_tasks.is_file():
        lines += [f"# {digest(of_tasks)}", f"-r {of_tasks}"]
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in lines))


def check_packaged(ran: subprocess.CompletedProcess[str], architecture: str) -> None:
    """Raises DeployError if Chalice failed or left out a package; it names the package."""
    if missing := _MISSING.search(ran.stdout + ran.stderr):
        names, python = ", ".join(missing[1].split()), ".".join(map(str, sys.version_info[:2]))
        raise DeployError(
            f"no wheel for Lambda (Linux, {architecture}, Python {python}): {names}",
            "choose versions that have one, or do without these packages",
        )
    if not ran.returncode:
        return
    if unknown := _UNKNOWN.search(ran.stderr):
        raise DeployError(f"pip finds no package for the requirement {unknown[1]}", "correct requirements.txt")
    if "PackageDownloadError" in ran.stderr:
        raise DeployError(f"requirements.txt: {pip_reason(ran.stderr)}", "correct it")
    raise DeployError(f"chalice package: {ran.stderr or ran.stdout}")
