"""The findings of a measurement: values, each beside the expected one, or the reason why it was not measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import ceil

Value = str | int | float | None


class State(str, Enum):
    EXPECTED = "as expected"
    UNEXPECTED = "otherwise than expected"
    MEASURED = "measured"
    NOT_MEASURED = "not measured"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    label: str
    #: seconds where the label says nothing else
    value: Value
    #: in words; empty where nothing is expected
    expected: str = ""
    #: None where nothing is expected
    is_expected: bool | None = None
    #: why the value says nothing about AWS; empty if it does
    not_measured: str = ""

    @property
    def state(self) -> State:
        if self.not_measured:
            return State.NOT_MEASURED
        if self.is_expected is None:
            return State.MEASURED
        return State.EXPECTED if self.is_expected else State.UNEXPECTED

    def elsewhere(self, reason: str) -> Finding:
        """Returns the finding as one of an emulator, which shows nothing about AWS for this reason."""
        return replace(self, not_measured=self.not_measured or reason)


@dataclass(frozen=True)
class Outcome:
    """One measurement's findings."""

    name: str
    question: str
    findings: tuple[Finding, ...]
    #: why it failed; empty if it did not
    failure: str = ""

    @property
    def state(self) -> State:
        """The worst of the findings' states; `not measured` only if no finding says anything about AWS."""
        if self.failure:
            return State.FAILED
        states = {finding.state for finding in self.findings}
        for state in (State.UNEXPECTED, State.EXPECTED, State.MEASURED):
            if state in states:
                return state
        return State.NOT_MEASURED


def percentile(values: Sequence[float], percent: int) -> float:
    """Returns the smallest value that at least so many percent of the values do not exceed. ValueError without any."""
    if not values:
        raise ValueError("nothing was measured")
    return sorted(values)[max(0, ceil(len(values) * percent / 100) - 1)]


def spread(label: str, values: Sequence[float]) -> tuple[Finding, ...]:
    """Returns median, 99th percentile and greatest of the values, in seconds with milliseconds."""
    named = (("median", percentile(values, 50)), ("p99", percentile(values, 99)), ("most", max(values)))
    return tuple(Finding(f"{label}, {name}", round(value, 3)) for name, value in named)
