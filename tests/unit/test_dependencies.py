from __future__ import annotations

import pytest

from operations.audit_deps import audit_requirements, report


def test_a_known_vulnerability_fails_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    vulnerability = {"id": "PYSEC-2026-1", "fix_versions": ["1.1"]}
    assert report("requirements.txt", [{"name": "sieve", "version": "1.0", "vulns": [vulnerability]}]) == 1
    assert capsys.readouterr().out == "sieve 1.0: PYSEC-2026-1, fixed in 1.1\n"


def test_a_package_that_could_not_be_looked_up_is_named_and_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert report("requirements.txt", [{"name": "sieve", "skip_reason": "not found"}]) == 0
    assert "NOT audited, the advisory database does not list: sieve" in capsys.readouterr().out


def test_a_missing_requirements_file_is_not_taken_for_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit_requirements("no-such-file") == 0
    assert "NOT audited" in capsys.readouterr().out
