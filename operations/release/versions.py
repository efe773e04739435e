"""The one version of API, packages and changelog: every file that has it, and how to set them all at once."""

from __future__ import annotations

import re
from pathlib import Path

_NUMBER = r"(\d+\.\d+\.\d+)"
#: Where the version is: the file, and the text around it.
PLACES = {
    "CHANGELOG.md": rf"^## \[{_NUMBER}\]",
    "chalicelib/api/openapi.py": rf'^VERSION = "{_NUMBER}"',
    "client/paceline_client/version.py": rf'^__version__ = "{_NUMBER}"',
    "sdk/pyproject.toml": rf'^version = "{_NUMBER}"',
    "clients/typescript/package.json": rf'^  "version": "{_NUMBER}"',
}
#: Parts that a checkout may lack.
_OPTIONAL = ("clients/typescript/package.json",)
_UNRELEASED = "unreleased"


class VersionError(Exception):
    """The version is missing, malformed, or not the same everywhere; the text names the files."""


def read_version(root: Path) -> str:
    """Returns the version that all files have. Raises VersionError if they differ."""
    found = {file: _match(root, file)[1] for file in _files(root)}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{version} in {file}" for file, version in found.items())
        raise VersionError(f"the versions differ: {listed}; `make version VERSION=…` sets them all")
    return found["CHANGELOG.md"]


def set_version(root: Path, version: str) -> list[str]:
    """Sets the version in every file, with a new heading in the changelog; returns the names of the changed files."""
    if not re.fullmatch(_NUMBER, version):
        raise VersionError(f"{version!r} is not a version; allowed: three numbers, such as 1.2.0")
    changed = [file for file in _files(root) if _match(root, file)[1] != version]
    for file in changed:
        found, text = _match(root, file), (root / file).read_text()
        if file == "CHANGELOG.md":
            new = f"## [{version}] - {_UNRELEASED}\n\n{text[found.start() :]}"
        else:
            new = text[found.start() : found.start(1)] + version + text[found.end(1) :]
        (root / file).write_text(text[: found.start()] + new)
    return changed


def is_dated(root: Path) -> bool:
    """Returns True if the newest heading of the changelog has a date."""
    found, text = _match(root, "CHANGELOG.md"), (root / "CHANGELOG.md").read_text()
    return _UNRELEASED not in text[found.end() :].partition("\n")[0]


def _files(root: Path) -> list[str]:
    return [file for file in PLACES if file not in _OPTIONAL or (root / file).exists()]


def _match(root: Path, file: str) -> re.Match[str]:
    found = re.search(PLACES[file], (root / file).read_text(), re.MULTILINE)
    if found is None:
        raise VersionError(f"{file} has no version")
    return found
