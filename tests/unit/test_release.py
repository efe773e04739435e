"""One version everywhere, and which packages a release can build here."""

import shutil
from pathlib import Path

import pytest

from operations.release.steps import PYTHON_PACKAGES, why_no_typescript
from operations.release.versions import PLACES, VersionError, is_dated, read_version, set_version

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for file in PLACES:
        if (ROOT / file).exists():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def test_the_checkout_has_one_version() -> None:
    assert read_version(ROOT) == read_version(ROOT)
    for package in PYTHON_PACKAGES:
        assert any(file.startswith(f"{package}/") for file in PLACES)


def test_a_new_version_is_set_everywhere_and_gets_a_heading(copied: Path) -> None:
    before = (copied / "CHANGELOG.md").read_text()
    changed = set_version(copied, "12.3.45")
    assert read_version(copied) == "12.3.45"
    assert set(changed) == {file for file in PLACES if (copied / file).exists()}
    after = (copied / "CHANGELOG.md").read_text()
    assert after.replace("## [12.3.45] - unreleased\n\n", "") == before
    assert set_version(copied, "12.3.45") == []


def test_only_the_version_changes_in_a_file(copied: Path) -> None:
    for file in ("sdk/pyproject.toml", "client/paceline_client/version.py", "chalicelib/api/openapi.py"):
        before, version = (copied / file).read_text(), read_version(copied)
        set_version(copied, "12.3.45")
        assert (copied / file).read_text() == before.replace(f'"{version}"', '"12.3.45"', 1)
        set_version(copied, version)


def test_versions_that_differ_are_named(copied: Path) -> None:
    (copied / "client/paceline_client/version.py").write_text('__version__ = "9.9.9"\n')
    with pytest.raises(VersionError, match=r"9\.9\.9 in client/paceline_client/version\.py.*make version"):
        read_version(copied)


@pytest.mark.parametrize("version", ["", "1.2", "v1.2.3", "1.2.3-rc1", "1.2.3\n"])
def test_what_is_no_version_is_refused(copied: Path, version: str) -> None:
    with pytest.raises(VersionError, match="three numbers"):
        set_version(copied, version)


def test_a_file_without_a_version_is_named(copied: Path) -> None:
    (copied / "sdk/pyproject.toml").write_text("[project]\n")
    with pytest.raises(VersionError, match=r"sdk/pyproject\.toml has no version"):
        read_version(copied)


def test_a_heading_without_a_date_is_noticed(copied: Path) -> None:
    set_version(copied, "12.3.45")
    assert not is_dated(copied)
    changelog = copied / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("[12.3.45] - unreleased", "[12.3.45] - 2026-12-01"))
    assert is_dated(copied)


def test_a_checkout_without_the_typescript_client_says_so(tmp_path: Path) -> None:
    assert why_no_typescript(tmp_path) == "there is no clients/typescript"
