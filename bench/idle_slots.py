"""How long slots are idle while tasks wait, for brief tasks mixed with long ones, in the simulation's virtual time.

A call of AWS takes up to 12 ms there and a message's way to a worker up to 30 ms; nothing fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from bench.figures import quantile
from tests.simulation.schedule import Behaviour, Plan, Submit
from tests.simulation.world import World

#: Tasks that may run at once, and of these tasks how many are long.
SLOTS = 5
LONG, BRIEF = 20, 200
BRIEF_MS = 1_000
#: A task in a simulated function on Lambda ends at its deadline of 50 s.
LONG_MS = {"one machine": 60_000, "Lambda": 45_000}
WORKERS = {"one machine": 3, "Lambda": 10}


@dataclass(frozen=True)
class Idle:
    #: share of the slots' time from when all are in use first to the last start
    share: float
    #: milliseconds for which fewer tasks ran than may, each time
    times_ms: tuple[int, ...]

    @property
    def median_ms(self) -> float:
        return quantile(self.times_ms, 0.5)


def idle_slots(where: str, long: int = LONG, brief: int = BRIEF) -> Idle:
    """where: a key of LONG_MS."""
    behaviours = [Behaviour(LONG_MS[where])] * long + [Behaviour(BRIEF_MS)] * brief
    Random(1).shuffle(behaviours)
    bulks = [tuple(behaviours[first : first + 100]) for first in range(0, len(behaviours), 100)]
    submits = tuple(Submit(50 * n, "ann", f"bulk{n}", some) for n, some in enumerate(bulks))
    limits, workers = f"100/second; {SLOTS} at once", WORKERS[where]
    world = World(Plan(1, limits, where == "Lambda", workers, (0,) * (2 + workers), submits))
    result = world.run()
    assert not result.broken, result.broken
    return _idle(world.log.events)


def _idle(events: list[dict[str, Any]]) -> Idle:
    levels = list(_levels(events))
    first = next(at for at, running in levels if running == SLOTS)
    last = max(event["started_at"] for event in events)
    steps = [(at, until, running) for (at, running), (until, _) in pairwise(levels) if first <= at < last]
    idle_ms = sum((until - at) * (SLOTS - running) for at, until, running in steps)
    return Idle(idle_ms / (SLOTS * (last - first)), tuple(_times_below(steps)))


def _levels(events: list[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """How many tasks run from each time on, epoch ms."""
    changes = [(event["started_at"], 1) for event in events] + [(event["completed_at"], -1) for event in events]
    running = 0
    for at, change in sorted(changes):
        running += change
        yield at, running


def _times_below(steps: list[tuple[int, int, int]]) -> Iterator[int]:
    """Milliseconds of each time during which fewer tasks run than may."""
    below = 0
    for at, until, running in steps:
        if running < SLOTS:
            below += until - at
        elif below:
            yield below
            below = 0
    if below:
        yield below
