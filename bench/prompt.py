"""Lateness of starts on the local runner, against the schedule planned when their tasks were submitted."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from bench.clients import send_all, submit
from bench.figures import Results, quantile
from bench.first_start import bare_milliseconds
from bench.local_run import local_run

TASKS = 25
#: Users, clients that submit for them at a time, and runs. A run takes over a minute: 25 tasks at 20 a minute.
SIZES = ((1, 1, 2), (10, 1, 2), (100, 1, 3), (100, 8, 1), (200, 1, 1), (300, 1, 1), (1000, 1, 1))
GOAL_USERS, GOAL_P50_MS, GOAL_P99_MS = 100, 15, 150
TIMEOUT_SECONDS = 300
FLOOR_RUNS = 60
QUANTILES: Mapping[str, float] = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def measure(*, quick: bool) -> Results:
    results = Results()
    for users, clients, runs in ((2, 1, 1), (5, 5, 1)) if quick else SIZES:
        found = [_run(users, 5 if quick else TASKS, clients) for _ in range(runs)]
        what = f"{users:,} users" + (f", {clients} clients at a time" if clients > 1 else "")
        late = [[float(line["late_ms"]) for line in run["lines"]] for run in found]
        for name, share in QUANTILES.items():
            goal = {"p50": GOAL_P50_MS, "p99": GOAL_P99_MS}.get(name) if (users, clients) == (GOAL_USERS, 1) else None
            values = [quantile(one, share) for one in late]
            results.add(f"{what}: late, {name}", values, "ms", at_most=goal)
        own = [quantile(_own_lateness(run["lines"]), 0.99) for run in found]
        results.add(f"{what}: behind the earliest legal time, p99", own, "ms")
        results.add(f"{what}: early starts", [sum(ms < 0 for ms in one) for one in late], at_most=0)
        results.series[f"late {what}"] = sorted(late[0])
        results.series[f"cpu {what}"] = found[0]["cpu"]
    floor = quantile(bare_milliseconds(TASKS, 5 if quick else FLOOR_RUNS), 0.5)
    results.add("bare calls before a first start, p50", [floor], "ms")
    for figure in [figure for figure in results.figures if figure.name.endswith("late, p50")]:
        results.add(f"{figure.name}, over bare calls", [ms / floor for ms in figure.runs])
    if not quick:
        alone = [users for users, clients, _ in SIZES if clients == 1]
        within = [n for n in alone if quantile(results.series[f"late {n:,} users"], 0.99) <= 1000]
        results.add("users on one machine with p99 below 1 s, of the sizes tried", [max(within, default=0)])
    return results


def _run(users: int, tasks: int, clients: int) -> dict[str, Any]:
    """Completions of one fresh system, and the share of a core that each process used."""
    with local_run() as run:
        before = run.cpu_seconds()
        send_all(run.port, [submit(f"user-{n}", tasks) for n in range(users)], clients)
        is_complete = run.wait_for(users * tasks, TIMEOUT_SECONDS)
        lines = list(run.completions())
        after = run.cpu_seconds()
    if not is_complete:
        print(f"{users} users: {len(lines)} of {users * tasks} tasks completed within {TIMEOUT_SECONDS} s")
    seconds = max(line["completed_at"] for line in lines) - min(line["started_at"] for line in lines)
    cpu = {name: round((after[name] - before[name]) / max(seconds / 1000, 1), 3) for name in after}
    return {"lines": lines, "cpu": cpu}


def _own_lateness(lines: list[dict[str, Any]]) -> list[float]:
    """Milliseconds of each start after the earliest start that the earlier ones allow (1/second; 20/minute)."""
    late: list[float] = []
    ordered = sorted(lines, key=lambda line: (line["user_id"], line["seq"]))
    for _, group in groupby(ordered, key=lambda line: line["user_id"]):
        starts: list[int] = []
        for line in group:
            legal = max([line["planned_at"], *(starts[-1:] and [starts[-1] + 1000]), *_minute(starts)])
            late.append(line["started_at"] - legal)
            starts.append(line["started_at"])
    return late


def _minute(starts: list[int]) -> list[int]:
    return [starts[-20] + 60_000] if len(starts) >= 20 else []
