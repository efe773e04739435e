"""Lateness of starts while another program takes a core: all users submit at once, by bulk.

`BENCH_AGAINST` names other versions to measure in turns with this one, as in `bench.whole`.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from bench.clients import send_all, submit
from bench.figures import Results, quantile
from bench.whole import AGAINST, Version, _others, _system

#: Tasks of a user: the first starts at once, and the others follow at 1 a second.
TASKS = 12
#: Users, and the goal for the p99 of lateness after a user's first start.
SIZES = ((100, 127), (200, 500), (300, 500))
RUNS = 5
TIMEOUT_SECONDS = 120


def measure(*, quick: bool) -> Results:
    versions = [Version("this tree"), *_others(os.environ.get(AGAINST, ""))]
    results = Results()
    for users, goal in ((3, 500),) if quick else SIZES:
        found = defaultdict[str, list[dict[str, float]]](list)
        for turn in range(1 if quick else RUNS):
            for version in reversed(versions) if turn % 2 else versions:
                found[version.name].append(_run(version, users, 3 if quick else TASKS))
        for name, runs in found.items():
            what = f"{name}: {users} users, another program on one core"
            for figure in runs[0]:
                at_most = goal if figure == "late after the first start, p99" else None
                unit = "tasks/s" if figure == "accepted" else "ms"
                results.add(f"{what}: {figure}", [run[figure] for run in runs], unit, at_most=at_most)
            results.add(f"{what}: load of the machine", [run["load"] for run in runs])
    return results


def _run(version: Version, users: int, tasks: int) -> dict[str, float]:
    with _system(version) as run, _busy_core():
        sent = send_all(run.port, [submit(f"user-{n}", tasks) for n in range(users)], 8)
        if not run.wait_for(users * tasks, TIMEOUT_SECONDS):
            raise RuntimeError(f"{run.completed()} of {users * tasks} tasks completed within {TIMEOUT_SECONDS} s")
        lines = list(run.completions())
    first, later = ([line["late_ms"] for line in lines if (line["seq"] == 1) is is_first] for is_first in (True, False))
    return {
        "accepted": users * tasks / sent.seconds,
        "late after the first start, p50": quantile(later, 0.5),
        "late after the first start, p99": quantile(later, 0.99),
        "first start late, p99": quantile(first, 0.99),
        "load": os.getloadavg()[0],
    }


@contextmanager
def _busy_core() -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()


def _spin() -> None:
    while True:
        pass
