"""One run of chaos: start, load, storm, calm, and the verdict."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from random import Random

from chalicelib.core.limits import parse_limits
from tests.chaos.judge import Verdict, ends_in, judge
from tests.chaos.load import Client, Ledger
from tests.chaos.storm import Storm
from tests.chaos.system import LIMITS, System

#: Seconds without a new outcome after which open tasks count as lost: longer than leases, deferrals and restarts.
QUIET_SECONDS = 75
#: Further users, all of whose tasks end their process.
CRASHING_USERS = 2


@dataclass(frozen=True)
class Handled:
    verdict: Verdict
    struck: Counter[str]
    #: calls hit by an AWS fault, by call and effect
    calls: Counter[tuple[str, str]]
    statuses: Counter[str]
    runner_starts: int


def run_chaos(
    directory: Path,
    seconds: float,
    seed: int,
    *,
    kinds: Sequence[str] = (),
    users: int = 8,
    pause_seconds: float = 0.8,
    strike_seconds: tuple[float, float] = (2.0, 7.0),
    skew_ms: int = 0,
    limits: str = LIMITS,
    on_progress: Callable[[float, Storm, Ledger], None] = lambda *_: None,
) -> Handled:
    """Runs storms for `seconds`, then waits until every acknowledged task is final or none finishes any more."""
    random, ledger = Random(seed), Ledger()
    system = System(directory, skew_ms, limits)
    try:
        system.keep_up()
        _wait(lambda: system.is_ready, 130, system.keep_up)
        clients = [
            Client(system.paceline.port, f"user-{n}", ledger, f"{seed} {n}", pause_seconds) for n in range(users)
        ]
        clients += [
            Client(system.paceline.port, f"crash-{n}", ledger, f"{seed} crash {n}", 4 * pause_seconds, crashes=True)
            for n in range(CRASHING_USERS)
        ]
        for client in clients:
            client.start()
        storm, begun = Storm(system, random, kinds), time.monotonic()
        while (gone := time.monotonic() - begun) < seconds:
            on_progress(gone, storm, ledger)
            storm.strike(random.uniform(*strike_seconds))
            storm.calm(random.uniform(0.3, 2.0))
        for client in clients:
            client.stop()
        _wait(lambda: system.is_ready, 60, system.keep_up)
        for client in clients:
            client.join(40)
        log_dir = Path(system.paceline.env["LOG_DIR"])
        _settle(lambda: {end.task_id for end in ends_in(log_dir)}, ledger.tasks.keys(), system.keep_up)
        verdict = judge(ledger, ends_in(log_dir), system.reports.runs, skew_ms, parse_limits(limits))
        return Handled(verdict, storm.struck, system.proxy.fired(), ledger.statuses, system.starts)
    finally:
        system.stop()


def _settle(outcome: Callable[[], set[str]], expected: Set[str], meanwhile: Callable[[], None]) -> None:
    """Waits until all tasks are final, or no further one finishes."""
    known, since = -1, time.monotonic()
    while not expected <= (now := outcome()) and time.monotonic() - since < QUIET_SECONDS:
        if len(now) > known:
            known, since = len(now), time.monotonic()
        meanwhile()
        time.sleep(0.5)


def _wait(condition: Callable[[], bool], seconds: float, meanwhile: Callable[[], None]) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        meanwhile()
        time.sleep(0.3)
