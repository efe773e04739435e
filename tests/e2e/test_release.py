"""`make release` builds packages that others can install."""

from pathlib import Path

import pytest

from operations.release.__main__ import release
from operations.release.versions import read_version
from tests.e2e.running import ROOT


def test_a_release_builds_checks_and_says_what_to_upload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, version = tmp_path / "dist", read_version(ROOT)
    release(ROOT, out)
    printed = capsys.readouterr().out
    assert {path.name for path in out.glob("paceline*") if path.suffix != ".tgz"} == {
        f"paceline_client-{version}-py3-none-any.whl",
        f"paceline_client-{version}.tar.gz",
        f"paceline-{version}-py3-none-any.whl",
        f"paceline-{version}.tar.gz",
    }
    assert "The Python packages install and run in a fresh environment" in printed
    assert "Nothing is uploaded" in printed
    for archive in out.iterdir():
        assert f"{archive}" in printed
    assert ("npm publish" in printed) == ("The npm package is NOT built" not in printed)
