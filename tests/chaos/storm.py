"""Draws the faults from shuffled decks, so that each kind occurs about equally often."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from random import Random

from tests.chaos import proxy
from tests.chaos.system import System

KILLS = ("kill worker-1", "kill worker-2", "kill api-1", "kill api-2", "kill supervisord", "kill runner")
OUTAGES = ("emulator stopped", "emulator killed", "emulator frozen", "disk full")
#: Starting everything anew takes long and hides what else could break, so that comes half as often.
_OTHERS = (*KILLS, *OUTAGES, *KILLS[:4], *OUTAGES)
#: The faults that a short test covers.
QUICK = ("throttled", "answer lost", "kill worker-1", "kill api-1", "disk full")


class Storm:
    """Strikes until it is over; `struck` counts by kind."""

    def __init__(self, system: System, random: Random, kinds: Sequence[str] = ()) -> None:
        self._system = system
        self._random = random
        self.struck: Counter[str] = Counter()
        self._decks = [_deck(random, kinds)] if kinds else [_deck(random, list(proxy.KINDS)), _deck(random, _OTHERS)]

    def strike(self, seconds: float) -> None:
        """Injects one fault of each deck at once for `seconds`, then removes them."""
        until = time.monotonic() + seconds
        with ExitStack() as undo:
            for deck in self._decks:
                kind = next(deck)
                self.struck[kind] += 1
                self._begin(kind, undo)
                self._wait(min(until, time.monotonic() + self._random.uniform(0, seconds / 2)))
            self._wait(until)

    def calm(self, seconds: float) -> None:
        self._wait(time.monotonic() + seconds)

    def _wait(self, until: float) -> None:
        while time.monotonic() < until:
            self._system.keep_up()
            time.sleep(0.1)

    def _begin(self, kind: str, undo: ExitStack) -> None:
        system = self._system
        if kind in proxy.KINDS:
            system.proxy.set(proxy.rules(kind, self._random))
            undo.callback(system.proxy.set, [])
        elif kind == "emulator stopped":
            system.stop_emulator()
            undo.callback(system.start_emulator_again)
        elif kind == "emulator killed":
            system.kill_emulator()
        elif kind == "emulator frozen":
            undo.enter_context(system.emulator_frozen())
        elif kind == "disk full":
            undo.enter_context(system.disk_full(self._random))
        else:
            kill: Callable[[], None] = {
                "kill supervisord": system.kill_supervisor,
                "kill runner": system.kill_runner,
            }.get(kind, lambda: system.kill(kind.removeprefix("kill ")))
            kill()


def _deck(random: Random, kinds: Sequence[str]) -> Iterator[str]:
    while True:
        yield from random.sample(kinds, len(kinds))
