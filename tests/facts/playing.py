"""Plays facts side by side, each over resources of its own, since most of them wait for a visibility timeout."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.facts.fact import Fact

#: Gives a fact's outcome, which may still be awaited.
Outcome = Callable[[Fact], Any]


@contextmanager
def playing(facts: Iterable[Fact], adapter: Callable[[Fact], Any], at_once: int = 12) -> Iterator[Outcome]:
    """adapter: gives what the fact's scenario takes."""
    with ThreadPoolExecutor(at_once) as pool:
        outcomes: dict[str, Future[Any]] = {}
        for fact in facts:
            outcomes[fact.name] = pool.submit(lambda fact=fact: fact.observe(adapter(fact)))
        yield lambda fact: outcomes[fact.name].result()
        for outcome in outcomes.values():
            outcome.cancel()
