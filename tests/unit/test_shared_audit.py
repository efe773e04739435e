"""The audit of shared limits: the starts of all users together, each by the limits that were in force for it."""

from pathlib import Path
from typing import Any

import pytest

from chalicelib.core.limits import parse_limits
from chalicelib.core.shared_names import parse_shared
from completions.audit import audit
from completions.audit_table import as_json, as_table
from completions.reader import Foreign, LogLine, completions_folder, parse_line, read_completions
from completions.report import Report
from tests.unit.command_line import call
from tests.unit.completion_lines import NOW, STREAM, completion_text, write_stream


def audited(*texts: str, shared: str = "stripe: 2/second", limits: str = "100/second") -> Report:
    lines = [LogLine(STREAM, text) for text in texts]
    return audit(read_completions(lines), parse_limits(limits), parse_shared(shared))


def started(user: str, at: int, shared: str | None = "stripe", **changed: Any) -> str:
    return completion_text(1, NOW + at, user_id=user, task_id=f"{user}-{at}", shared=shared, **changed)


def found(report: Report) -> list[tuple[str, str]]:
    return [(breach.kind, breach.shared) for breach in report.breaches]


def test_starts_of_all_users_count_against_a_shared_limit() -> None:
    assert found(audited(started("ann", 0), started("bob", 10))) == []
    assert found(audited(started("ann", 0), started("bob", 10), started("cat", 1_000))) == []
    assert found(audited(started("ann", 0), started("bob", 10), started("cat", 999))) == [("shared", "stripe")]


def test_other_shared_limits_and_tasks_without_one_do_not_count() -> None:
    lines = [started("ann", 0), started("bob", 1), started("cat", 2, "openai"), started("dan", 3, None)]
    assert found(audited(*lines, shared="stripe: 2/second | openai: 1/second")) == []


def test_a_limit_that_was_set_at_run_time_judges_the_starts_that_name_it() -> None:
    raised = [started(user, at, shared_limits="4/second") for at, user in enumerate("abcd")]
    assert found(audited(*raised)) == []
    assert found(audited(*raised, started("e", 10))) == [("shared", "stripe")]
    assert found(audited(*raised, started("e", 10, shared_limits="4/second"))) == [("shared", "stripe")]


def test_a_start_after_the_limit_was_deleted_is_not_judged() -> None:
    free = [started(user, at, shared_limits="") for at, user in enumerate("abcdef")]
    assert found(audited(*free)) == []


def test_earlier_attempts_count_under_their_own_limits() -> None:
    earlier = {"starts": [NOW], "starts_shared_limits": [None], "planned_at": NOW}
    retried = started("ann", 2_000, **earlier, shared_limits="9/second")
    assert found(audited(retried, started("bob", 1), started("cat", 2))) == [("shared", "stripe")]
    assert found(audited(retried, started("bob", 1))) == []


def test_units_of_all_users_count_against_a_shared_limit_of_units() -> None:
    lines = [started("ann", 0, units=60), started("bob", 1_000, units=40)]
    assert found(audited(*lines, shared="stripe: 100 units/minute")) == []
    assert found(audited(*lines, started("cat", 2_000), shared="stripe: 100 units/minute")) == [("shared", "stripe")]


def test_units_that_a_function_reports_count_in_a_shared_limit() -> None:
    more = started("ann", 0, units=60, used_units=90, completed_at=NOW + 1_500)
    shared = "stripe: 100 units/minute"
    assert found(audited(more, started("bob", 1_000, units=40), shared=shared)) == []  # it was claimed before
    assert found(audited(more, started("bob", 2_000, units=11), shared=shared)) == [("shared", "stripe")]
    less = started("ann", 0, units=60, used_units=10, completed_at=NOW + 1_500)
    assert found(audited(less, started("bob", 2_000, units=90), shared=shared)) == []
    assert found(audited(less, started("bob", 2_000, units=91), shared=shared)) == [("shared", "stripe")]


def test_a_task_that_was_logged_twice_started_once() -> None:
    assert found(audited(started("ann", 0), started("bob", 1), started("bob", 1))) == []


def test_no_more_tasks_run_at_once_than_a_shared_limit_says() -> None:
    def ran(user: str, begin: int, end: int) -> str:
        return started(user, begin, completed_at=NOW + end)

    shared = "stripe: 2 at once"
    assert found(audited(ran("ann", 0, 5_000), ran("bob", 1, 5_000), ran("cat", 5_000, 9_000), shared=shared)) == []
    over = audited(ran("ann", 0, 5_000), ran("bob", 1, 5_000), ran("cat", 4_000, 9_000), shared=shared)
    assert found(over) == [("shared", "stripe")]
    assert "3 tasks ran at one time" in over.breaches[0].what


def test_an_overlap_within_what_clocks_differ_is_none() -> None:
    lines = [started("ann", 0, completed_at=NOW + 5_000), started("bob", 4_600, completed_at=NOW + 9_000)]
    assert found(audited(*lines, shared="stripe: 1 at once")) == []


def test_a_task_that_was_given_up_after_its_worker_died_did_not_run_until_then() -> None:
    given_up = started("ann", 0, event="task_failed", completed_at=NOW + 60_000, error="its worker died")
    lines = [given_up, started("bob", 15_000, completed_at=NOW + 20_000)]
    assert found(audited(*lines, shared="stripe: 1 at once")) == []


def test_starts_under_a_limit_that_nobody_knows_are_counted_and_not_judged() -> None:
    report = audited(started("ann", 0), started("bob", 1), shared="")
    assert (found(report), report.unknown_shared) == ([], {"stripe": 2})
    assert "not judged: 2 starts under the shared limit stripe, which SHARED_LIMITS does not have" in as_table(
        report, ""
    )


def test_the_report_shows_each_shared_limit_with_its_fullest_window() -> None:
    report = audited(started("ann", 0), started("bob", 10), shared="stripe: 2/second; 3 at once | openai: 5/minute")
    rows = [(row["shared"], row["limit"], row["starts"], row["most"]) for row in as_json(report)["limits"]]
    assert rows[1:] == [("openai", "5/minute", 0, 0), ("stripe", "2/second", 2, 2), ("stripe", "3 at once", 2, 1)]
    assert "stripe: 2/second" in as_table(report, "the log")
    broken = audited(*(started(user, 0) for user in "abc"))
    assert "broken: shared: the shared limit stripe at" in as_table(broken, "the log")


@pytest.mark.parametrize(
    "wrong", [{"shared": 5}, {"shared_limits": "soon"}, {"starts": [NOW - 9], "starts_shared_limits": []}]
)
def test_a_line_with_a_bad_shared_field_is_foreign(wrong: dict[str, Any]) -> None:
    line = parse_line(LogLine(STREAM, completion_text(**wrong)))
    assert isinstance(line, Foreign)
    assert line.reason.startswith("a completion with a bad field: ")


def test_shared_limits_come_from_option_then_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIMITS", "100/second")
    write_stream(completions_folder(tmp_path / "logs", "dev"), *(started(user, 0) for user in "abc"))
    words = ["audit", "--log-dir", str(tmp_path / "logs"), "--stage", "dev"]
    monkeypatch.setenv("SHARED_LIMITS", "stripe: 2/second")
    assert call(*words) == 1
    assert call(*words, "--shared-limits", "stripe: 3/second") == 0
    assert call(*words, "--shared-limits", "stripe") == 2
    assert "allowed: parts such as" in capsys.readouterr().err
