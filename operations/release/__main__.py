"""`python -m operations.release`: builds and checks the packages; `… version 1.2.0` sets the version."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from operations.release.steps import (
    TYPESCRIPT,
    ReleaseError,
    build_python,
    build_typescript,
    tools,
    try_python,
    try_typescript,
    why_no_typescript,
)
from operations.release.versions import VersionError, is_dated, read_version, set_version

ROOT = Path(__file__).parents[2]


def release(root: Path, out: Path) -> None:
    """Builds every package into `out`, checks it, and prints what to upload. Raises ReleaseError or VersionError."""
    version = read_version(root)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    print(f"Building version {version}", flush=True)
    made = build_python(root, out, tools(root))
    with TemporaryDirectory(prefix="paceline-release-") as folder:
        try_python(made, Path(folder))
    print("The Python packages install and run in a fresh environment", flush=True)
    archive = _typescript(root, out)
    _print_uploads(root, version, made, archive)


def _typescript(root: Path, out: Path) -> Path | None:
    if reason := why_no_typescript(root):
        print(f"The npm package is NOT built: {reason}", flush=True)
        return None
    archive = build_typescript(root, out)
    name = json.loads((root / TYPESCRIPT / "package.json").read_text())["name"]
    with TemporaryDirectory(prefix="paceline-release-") as folder:
        try_typescript(archive, name, Path(folder))
    print("The npm package installs and loads in a fresh folder", flush=True)
    return archive


def _print_uploads(root: Path, version: str, made: list[Path], archive: Path | None) -> None:
    print("\nNothing is uploaded. When you want to:")
    print(f"  twine upload {' '.join(map(_shown, made))}")
    if archive:
        print(f"  npm publish {_shown(archive)}")
    print(f"  git tag v{version} && git push origin v{version}")
    if not is_dated(root):
        print(f"First write the date of {version} into CHANGELOG.md, which says unreleased")


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def main(arguments: list[str]) -> int:
    try:
        if arguments[:1] == ["version"] and len(arguments) == 2:
            changed = set_version(ROOT, arguments[1])
            print("".join(f"{file}: {arguments[1]}\n" for file in changed) or "Nothing to change\n", end="")
        elif arguments:
            print("usage: python -m operations.release [version NUMBER]", file=sys.stderr)
            return 2
        else:
            release(ROOT, ROOT / "dist")
    except (ReleaseError, VersionError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
