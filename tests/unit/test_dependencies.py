from __future__ import annotations

import pytest

from operations.audit_deps import main, say


def test_a_known_weakness_fails_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    vulnerability = {"id": "PYSEC-2026-1", "fix_versions": ["1.1"]}
    assert say("requirements.txt", [{"name": "sieve", "version": "1.0", "vulns": [vulnerability]}]) == 1
    assert capsys.readouterr().out == "sieve 1.0: PYSEC-2026-1, mended in 1.1\n"


def test_what_could_not_be_looked_up_is_said_and_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert say("requirements.txt", [{"name": "sieve", "skip_reason": "not found"}]) == 0
    assert "NOT audited, the advisory database does not tell: sieve" in capsys.readouterr().out


def test_a_requirements_file_that_is_not_there_is_not_taken_for_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-file"]) == 0
    assert "NOT audited" in capsys.readouterr().out
