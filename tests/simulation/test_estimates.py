"""How far estimated starts are off where a user's tasks take different times: the figures of the benchmarks page."""

import random
import statistics
from collections.abc import Callable

import pytest

from chalicelib.core.task import Json
from tests.factories import NOW
from tests.unit.workshop import Workshop

#: Milliseconds that each of the two tasks takes.
TOOK_MS = {"short": 1_000, "long": 10_000}
#: Schedules of one kind, and bursts of each: 1 to 20 tasks, 20 to 120 s apart.
SEEDS, BURSTS = range(10), 12

#: The names of a burst of so many tasks.
Mix = Callable[[random.Random, int], list[str]]


def only(name: str) -> Mix:
    return lambda _chance, count: [name] * count


def alternating(_chance: random.Random, count: int) -> list[str]:
    return ["short", "long"] * (count // 2)


def by_chance(chance: random.Random, count: int) -> list[str]:
    return [chance.choice(("short", "long")) for _ in range(count)]


def short_ones_first(_chance: random.Random, count: int) -> list[str]:
    return ["short"] * (count // 2) + ["long"] * (count // 2)


class Load:
    """One user's bursts of tasks; `estimates` has the time of each submit and the estimate right after it."""

    def __init__(self, seed: int, mix: Mix) -> None:
        chance, at = random.Random(seed), NOW
        self._bursts_at = list[int]()
        self.shop = Workshop(LIMITS="1/second; 20/minute")
        self.estimates: dict[str, tuple[int, int | None]] = {}
        for name, took_ms in TOOK_MS.items():
            self.shop.register(name, lambda payload, took_ms=took_ms: self._take(took_ms))
        for _ in range(BURSTS):
            for name in mix(chance, chance.randint(2, 20)):
                self.shop.clock.at(at, lambda name=name: self._submit(name))
            self._bursts_at.append(at)
            at += chance.randint(20_000, 120_000)

    def _take(self, took_ms: int) -> Json:
        """Renews the lease each second, as a worker's thread does."""
        for _ in range(took_ms // 1_000):
            self.shop.clock.advance(1_000)
            self.shop.renewer.renew_due()

    def _submit(self, name: str) -> None:
        task, now_ms = self.shop.submit(name=name), self.shop.clock.now_ms()
        self.estimates[task.task_id] = (now_ms, self.shop.control.task("ann", task.task_id).estimated_at)

    def errors(self) -> list[float]:
        """How far each estimate of a wait of a second or more was off, as a part of the wait."""
        for at in self._bursts_at:
            self.shop.clock.sleep_until(at)
            self.shop.run()
        waits = {event["task_id"]: event["started_at"] for event in self.shop.events}
        assert waits.keys() == self.estimates.keys()
        found = [(waits[task_id], at, estimate) for task_id, (at, estimate) in self.estimates.items()]
        return [abs((estimate or 0) - start) / (start - at) for start, at, estimate in found if start - at >= 1_000]


@pytest.mark.parametrize(
    ("mix", "most"),
    [(only("short"), 0.01), (only("long"), 0.01), (alternating, 0.25), (by_chance, 0.4), (short_ones_first, 0.75)],
    ids=["short", "long", "alternating", "by chance", "short ones first"],
)
def test_median_error_of_estimates(mix: Mix, most: float) -> None:
    """The lane knows how long the latest tasks took on average, and how many wait, but not which ones."""
    errors = [error for seed in SEEDS for error in Load(seed, mix).errors()]
    assert len(errors) > 500
    assert statistics.median(errors) <= most
