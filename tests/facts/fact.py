"""A fact: a scenario, its outcome as recorded on AWS, and the ports that can play it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

#: The ports. `own` is Paceline's: the memory queue, the simulator's event source, the gateway of `make run`.
PORTS = ("own", "moto", "ministack", "localstack")
EMULATORS = PORTS[1:]

Observe = TypeVar("Observe", bound=Callable[..., Any])


@dataclass(frozen=True)
class Fact:
    area: str
    #: the scenario in words
    name: str
    #: the outcome on AWS
    recorded: Any
    #: LocalStack's test that recorded it
    source: str
    #: plays the scenario over a port's adapter and returns the outcome there
    observe: Callable[[Any], Any]
    #: the ports that have the parts of the scenario
    ports: tuple[str, ...]


class UnknownOutcomeError(Exception):
    """A port did neither as AWS nor as `differences.py` says. No expected failure hides it."""


class Facts:
    """The facts of one area, in the order in which they are written."""

    def __init__(self, area: str, source: str, ports: tuple[str, ...]) -> None:
        self.area, self._source, self._ports = area, source, ports
        self.all: list[Fact] = []

    def __call__(self, recorded: Any, by: str, ports: tuple[str, ...] | None = None) -> Callable[[Observe], Observe]:
        """Registers a scenario named after its function. by: LocalStack's test, after its file if not the area's."""

        def register(observe: Observe) -> Observe:
            name = observe.__name__.replace("_", " ")
            source = by if ".py::" in by else f"{self._source}::{by}"
            self.all.append(Fact(self.area, name, recorded, source, observe, ports or self._ports))
            return observe

        return register


def cases(facts: Iterable[Fact], differences: dict[str, dict[str, Any]], ports: Iterable[str]) -> list[Any]:
    """Parameters `port` and `fact` of a test. Where a port differs from AWS, the test has to fail."""
    return [
        pytest.param(port, fact, id=f"{port}-{fact.name.replace(' ', '_')}", marks=_marks(fact, differences[port]))
        for port in ports
        for fact in facts
        if port in fact.ports
    ]


def _marks(fact: Fact, differences: dict[str, Any]) -> tuple[pytest.MarkDecorator, ...]:
    if fact.name not in differences:
        return ()
    reason = f"AWS: {as_text(fact.recorded)}. Here: {as_text(differences[fact.name])}"
    return (pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason),)


def check(fact: Fact, outcome: Any, differences: dict[str, Any]) -> None:
    """Fails as expected for the known difference only."""
    if outcome not in (fact.recorded, differences.get(fact.name, fact.recorded)):
        raise UnknownOutcomeError(f"{fact.name}: AWS: {fact.recorded!r}, here: {outcome!r}")
    assert outcome == fact.recorded


def as_text(outcome: Any) -> str:
    if isinstance(outcome, list | tuple):
        nested = any(isinstance(entry, list | tuple) for entry in outcome)
        return (", then " if nested else " ").join(map(as_text, outcome)) or "nothing"
    return str(outcome) or "no error"
