"""Fixtures' helper: an emulator on which all chosen facts are played side by side."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.facts.fact import Fact
from tests.facts.playing import Outcome, playing
from tests.facts.ports import Emulator


def chosen(items: Sequence[pytest.Item], port: str) -> list[Fact]:
    """The facts of the tests that run, each in a parameter of its own."""
    parameters = [item.callspec.params for item in items if hasattr(item, "callspec")]
    return [values["fact"] for values in parameters if "fact" in values and values.get("port") == port]


@contextmanager
def emulating(facts: Sequence[Fact], client: Callable[[str], Any]) -> Iterator[Outcome]:
    emulator = Emulator(client)
    try:
        with playing(facts, emulator.adapter) as outcome:
            yield outcome
    finally:
        emulator.remove()
