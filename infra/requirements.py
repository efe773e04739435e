"""Reads lists of requirements: Paceline's pins, and those of own tasks; and puts pip's errors into one line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from chalicelib.tasks.outside import ROOT

_INCLUDED = re.compile(r"(?:-r|--requirement)[ =]*(\S+)")
_EXTRAS = re.compile(r"\[.*?\]")
_CONSTRAINT = re.compile(r"The user requested \(constraint\) (\S+)")


def digest(requirements: Path) -> str:
    """Returns a hash of the file and of all that it includes by `-r`."""
    contents = hashlib.sha256()
    for file in _files(requirements, set()):
        contents.update(file.read_bytes())
    return contents.hexdigest()


def _files(file: Path, seen: set[Path]) -> Iterator[Path]:
    if file in seen or not file.is_file():
        return  # pip names the one that is missing
    seen.add(file)
    yield file
    for line in file.read_text().splitlines():
        if included := _INCLUDED.match(line.strip()):
            yield from _files((file.parent / included[1]).resolve(), seen)


def pinned(*files: str) -> str:
    """Returns the pins in these files of Paceline, as constraints for pip."""
    lines = [line.strip() for file in files for line in (ROOT / file).read_text().splitlines()]
    return "".join(f"{_EXTRAS.sub('', line)}\n" for line in lines if "==" in line)


def pip_reason(output: str) -> str:
    """Returns the reason for which pip failed, in one line, with the pin of Paceline that is in the way."""
    errors = [line.strip() for line in output.splitlines() if line.lstrip().lower().startswith("error: ")]
    reasons = [re.sub("(?i)^error: ", "", line) for line in errors if "ResolutionImpossible" not in line]
    pins = [f"Paceline needs {pin}" for pin in dict.fromkeys(_CONSTRAINT.findall(output))]
    return "; ".join([*dict.fromkeys(reasons), *pins]) or output.strip()[-300:] or "pip gave no reason"
