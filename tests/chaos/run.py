"""One run of chaos: start, load, storm, calm, and the verdict."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from random import Random

from chalicelib.core.limits import parse_limits, parse_shared_limits
from tests.chaos.judge import Verdict, ends_in, judge
from tests.chaos.load import Client, Ledger
from tests.chaos.shared_judge import QUIET_MS, SharedVerdict, judge_shared
from tests.chaos.storm import Storm
from tests.chaos.system import LIMITS, SHARED, System

#: Seconds without a new outcome after which open tasks count as lost: longer than leases, deferrals and restarts.
QUIET_SECONDS = 75
#: Further users, all of whose tasks end their process.
CRASHING_USERS = 2
#: Seconds of load without faults after the last one, in which turns at a shared limit are judged.
CALM_SECONDS = 18.0


@dataclass(frozen=True)
class Handled:
    verdict: Verdict
    struck: Counter[str]
    #: calls hit by an AWS fault, by call and effect
    calls: Counter[tuple[str, str]]
    statuses: Counter[str]
    runner_starts: int
    #: None for a run without a shared limit
    shared: SharedVerdict | None

    @property
    def breaches(self) -> dict[str, list[str]]:
        return {**self.verdict.breaches, **(self.shared.breaches if self.shared else {})}


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
    shared: str = "",
    on_progress: Callable[[float, Storm, Ledger], None] = lambda *_: None,
) -> Handled:
    """Runs storms for `seconds`, then waits until every acknowledged task is final or none finishes any more.

    shared: the limits that all tasks share; empty for none.
    """
    random, ledger = Random(seed), Ledger()
    system = System(directory, skew_ms, limits, shared)
    try:
        system.keep_up()
        _wait(lambda: system.is_ready, 130, system.keep_up)
        clients = _clients(system.paceline.port, ledger, seed, users, pause_seconds, SHARED if shared else "")
        for client in clients:
            client.start()
        storm, begun = Storm(system, random, kinds), time.monotonic()
        while (gone := time.monotonic() - begun) < seconds:
            on_progress(gone, storm, ledger)
            storm.strike(random.uniform(*strike_seconds))
            storm.calm(random.uniform(0.3, 2.0))
        last_fault_at = time.time() * 1000
        storm.calm(CALM_SECONDS if shared else 0)
        for client in clients:
            client.stop()
        _wait(lambda: system.is_ready, 60, system.keep_up)
        for client in clients:
            client.join(40)
        log_dir = Path(system.paceline.env["LOG_DIR"])
        _settle(lambda: {end.task_id for end in ends_in(log_dir)}, ledger.tasks.keys(), system.keep_up)
        ends, runs, own = ends_in(log_dir), system.reports.runs, parse_limits(limits)
        of_shared = None
        if shared:
            parsed, quiet_at, left = parse_shared_limits(shared), last_fault_at + QUIET_MS, _left(system)
            of_shared = judge_shared(SHARED, parsed, own, ledger, ends, runs, skew_ms, quiet_at, left)
        verdict = judge(ledger, ends, runs, skew_ms, own)
        return Handled(verdict, storm.struck, system.proxy.fired(), ledger.statuses, system.starts, of_shared)
    finally:
        system.stop()


def _clients(port: int, ledger: Ledger, seed: int, users: int, pause_seconds: float, shared: str) -> list[Client]:
    """The users' clients, and those whose tasks crash."""
    names = [*(f"user-{n}" for n in range(users)), *(f"crash-{n}" for n in range(CRASHING_USERS))]
    return [
        Client(
            port,
            name,
            ledger,
            f"{seed} {name}",
            4 * pause_seconds if name.startswith("crash") else pause_seconds,
            crashes=name.startswith("crash"),
            shared=shared,
        )
        for name in names
    ]


def _left(system: System) -> int:
    """The tasks that the shared limit takes for running once all are final, and leases of dead workers have ended."""
    running = lambda: system.paceline.request("GET", f"/api/v1/limits/{SHARED}").body["running"]  # noqa: E731
    _wait(lambda: running() == 0, 30, system.keep_up)
    return int(running())


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
