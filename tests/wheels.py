"""Wheels made by tests, and environments into which they are installed: nothing comes from a network."""

import site
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile


def make_wheel(folder: Path, name: str, version: str = "1.0", tag: str = "py3-none-any", code: str = "") -> Path:
    """Writes a wheel with the module `name`; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel, info = folder / f"{name}-{version}-{tag}.whl", f"{name}-{version}.dist-info"
    with ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}.py", code or f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def make_environment(folder: Path) -> Path:
    """Makes an environment that has all packages of this one; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    [packages] = (folder / "lib").glob("python*/site-packages")
    (packages / "beneath.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
    return folder / "bin" / "python"


def requirements(wheels: Path, *lines: str) -> str:
    """Returns a list of requirements that pip looks for in this folder alone."""
    return "".join(f"{line}\n" for line in ("--no-index", f"--find-links {wheels}", *lines))
