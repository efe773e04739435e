"""The client as somebody else installs it."""

import subprocess
import sys
from pathlib import Path

from tests.e2e.running import ROOT


def test_the_client_with_its_extra_gives_the_command_line(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    programs = tmp_path / "venv" / "bin"
    install = [programs / "pip", "install", "--quiet", "--disable-pip-version-check", f"{ROOT / 'client'}[cli]"]
    subprocess.run(install, check=True, cwd=tmp_path)
    shown = subprocess.run([programs / "paceline", "--help"], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert " submit " in shown.stdout
    assert " deploy " not in shown.stdout
    refused = subprocess.run(
        [programs / "paceline", "lane", "ann", "--url", "http://127.0.0.1:9"],
        check=False, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.startswith("Paceline does not answer at http://127.0.0.1:9")
    program = "import asyncio, paceline_client as p; asyncio.run(p.AsyncPaceline('http://127.0.0.1:9').submit('ann'))"
    failed = subprocess.run(
        [programs / "python", "-c", program], check=False, cwd=tmp_path, capture_output=True, text=True
    )
    assert "UnavailableError: ConnectError" in failed.stderr
