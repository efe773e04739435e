"""The report of a run: a text for people, and the same as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from operations.first_hour.findings import Finding, Outcome, State

_WIDTH = 110
#: Marks at the beginning of a finding's line.
_MARKS = {
    State.EXPECTED: "ok",
    State.UNEXPECTED: "DIFFERS",
    State.MEASURED: "",
    State.NOT_MEASURED: "not measured",
    State.FAILED: "FAILED",
}


@dataclass(frozen=True)
class Report:
    #: where it ran: AWS account and region, or LocalStack
    target: str
    is_aws: bool
    size: str
    #: epoch seconds
    begun_at: float
    seconds: float
    outcomes: tuple[Outcome, ...]
    #: why the run ended before its last measurement; empty if it did not
    stopped: str = ""
    #: leftovers of an earlier run, which this one removed first
    earlier: tuple[str, ...] = ()
    #: things that could not be removed, each with the reason
    remaining: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """True if every finding is as expected or not measured, and everything is removed."""
        bad = {State.UNEXPECTED, State.FAILED}
        return not self.stopped and not self.remaining and not bad & {outcome.state for outcome in self.outcomes}


def as_text(report: Report) -> str:
    return "\n".join(_lines(report)) + "\n"


def as_json(report: Report) -> str:
    return json.dumps(_document(report), indent=2) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"First hour: {report.target}, sizes {report.size}, {report.seconds / 60:.1f} minutes"
    if not report.is_aws:
        yield from _wrapped(
            "This is not AWS. Values marked `not measured` are the emulator's and say nothing about AWS; the sizes are "
            "smaller, since LocalStack starts some six paced tasks a second in all.",
            "",
        )
    if report.earlier:
        yield from _wrapped(f"Removed first, left by an earlier run: {', '.join(report.earlier)}.", "")
    for outcome in report.outcomes:
        yield ""
        yield from _outcome_lines(outcome)
    yield ""
    if report.stopped:
        yield from _wrapped(f"Stopped early: {report.stopped}", "")
    yield from _removal_lines(report)
    yield "docs/production/first-hour.md has the remedy for each value that differs."


def _outcome_lines(outcome: Outcome) -> Iterator[str]:
    yield f"{outcome.name}: {outcome.state.value}"
    yield from _wrapped(outcome.question, "  ")
    if outcome.failure:
        yield from _wrapped(f"FAILED  {outcome.failure}", "  ")
    for finding in outcome.findings:
        mark = _MARKS[finding.state]
        yield from _wrapped(f"{mark:<12}  {_said(finding)}", "    ", " " * 18)
    for reason in sorted({finding.not_measured for finding in outcome.findings if finding.not_measured}):
        yield from _wrapped(f"not measured: {reason}.", "    ", " " * 18)


def _said(finding: Finding) -> str:
    value = "no value" if finding.value is None else finding.value
    return f"{finding.label}: {value}" + (f" (expected: {finding.expected})" if finding.expected else "")


def _removal_lines(report: Report) -> Iterator[str]:
    if not report.remaining:
        yield "Everything is removed again."
        return
    yield "NOT removed; start it again with --remove-only, or delete by hand:"
    for line in report.remaining:
        yield from _wrapped(line, "    ")


def _wrapped(text: str, indent: str, further: str | None = None) -> list[str]:
    further = indent if further is None else further
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )


def _document(report: Report) -> dict[str, Any]:
    return {
        "target": report.target,
        "is_aws": report.is_aws,
        "size": report.size,
        "begun_at": report.begun_at,
        "seconds": round(report.seconds, 1),
        "is_good": report.is_good,
        "stopped": report.stopped,
        "removed_first": list(report.earlier),
        "not_removed": list(report.remaining),
        "measurements": [
            {
                "name": outcome.name,
                "question": outcome.question,
                "state": outcome.state.value,
                "failure": outcome.failure,
                "findings": [_finding(finding) for finding in outcome.findings],
            }
            for outcome in report.outcomes
        ],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "label": finding.label,
        "value": finding.value,
        "expected": finding.expected,
        "state": finding.state.value,
        "why_not_measured": finding.not_measured,
    }
