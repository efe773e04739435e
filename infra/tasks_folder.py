"""The own tasks outside this project, as `make run` prepares them: their requirements, and whether they load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

from chalicelib.core.errors import OwnTasksError
from chalicelib.tasks.outside import requirements_of
from infra.requirements import digest, pinned, pip_reason

#: Files whose pins of Paceline's own packages also bind the tasks' packages.
_PINS = ("requirements.txt", "requirements-tracing.txt", "requirements-run.txt")


class TasksFolder:
    """A module, package or folder of own tasks, and the environment that runs them."""

    def __init__(self, path: Path, say: Callable[[str], None], python: str = sys.executable) -> None:
        """python: the interpreter of the environment that gets the requirements."""
        self.path = path
        self._say = say
        self._python = python
        self._requirements = requirements_of(path)
        #: the hash of the requirements that this environment has
        self._installed = Path(python).parents[1] / ".paceline-tasks"

    @property
    def watched(self) -> tuple[Path, ...]:
        """The paths whose changes lead to a reload."""
        return (self.path,) if self.path.is_dir() else (self.path, self._requirements)

    def install(self) -> None:
        """Installs the tasks' requirements if they changed. Raises OwnTasksError with pip's reason."""
        if not self._requirements.is_file():
            return
        wanted = digest(self._requirements)
        if self._installed.exists() and self._installed.read_text() == wanted:
            return
        self._say(f"Installing {self._requirements}")
        with NamedTemporaryFile("w", suffix=".txt") as constraints:
            constraints.write(pinned(*_PINS))
            constraints.flush()
            self._run_pip(constraints.name)
        self._installed.write_text(wanted)

    def _run_pip(self, constraints: str) -> None:
        options = ("--disable-pip-version-check", "--no-input")
        command = [self._python, "-m", "pip", "install", *options, "-r", str(self._requirements), "-c", constraints]
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise OwnTasksError(f"{self._requirements}: {pip_reason(ran.stdout + ran.stderr)}")
