"""The whole local system under load, as its users feel it: accepted submits, lateness of first starts, CPU per task.

`BENCH_AGAINST` names other versions to measure in turns with this one, separated by `;`: the directory of another
checkout, or environment variables as in `NAME=value OTHER=value`.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.clients import Request, Sent, pause, send_all, submit
from bench.figures import Results, quantile
from bench.local_run import ROOT, LocalRun

AGAINST = "BENCH_AGAINST"
TIMEOUT_SECONDS = 60
WARM_UP_SUBMITS = 40
#: Fresh systems of each version.
TURNS = 2
#: Tasks that wait in paused lanes behind which the last loads are submitted, and tasks of one such lane.
BACKLOG_TASKS, BACKLOG_LANE_TASKS = 5_000, 100
PAUSE_MS = 30 * 60_000


@dataclass(frozen=True)
class Load:
    """Submits by distinct users, whose first tasks may start at once."""

    clients: int
    tasks_per_submit: int
    submits: int
    behind_backlog: bool = False

    @property
    def name(self) -> str:
        kind = "single" if self.tasks_per_submit == 1 else f"bulk of {self.tasks_per_submit}"
        clients = "1 client" if self.clients == 1 else f"{self.clients} clients"
        return f"{kind}, {clients}" + (f", behind {BACKLOG_TASKS:,} tasks" if self.behind_backlog else "")


LOADS = (
    *(Load(clients, 1, 400) for clients in (1, 8, 32)),
    *(Load(clients, 5, 64) for clients in (1, 8, 32)),
    Load(8, 1, 400, behind_backlog=True),
    Load(8, 5, 64, behind_backlog=True),
)
QUICK_LOADS = (Load(1, 1, 8), Load(2, 3, 4))


@dataclass(frozen=True)
class Version:
    """A checkout, and environment variables for its processes."""

    name: str
    tree: Path = ROOT
    environment: Mapping[str, str] = field(default_factory=dict)


#: Figures of one load in one turn: unit and value by name.
Figures = Mapping[str, tuple[str, float]]


def measure(*, quick: bool) -> Results:
    versions = [Version("this tree"), *_others(os.environ.get(AGAINST, ""))]
    loads = QUICK_LOADS if quick else LOADS
    found: dict[str, list[dict[Load, Figures]]] = defaultdict(list)
    for turn in range(1 if quick else TURNS):
        # In every other turn the other way round: the machine's speed depends on what ran before.
        for version in reversed(versions) if turn % 2 else versions:
            found[version.name].append(_measure_version(version, loads))
    results = Results()
    _add_figures(results, "", found[versions[0].name])
    for version in versions[1:]:
        _add_figures(results, f"{version.name}: ", found[version.name])
        _add_ratios(results, version.name, found[version.name], found[versions[0].name])
    return results


def _others(text: str) -> Iterator[Version]:
    for part in filter(None, map(str.strip, text.split(";"))):
        if "=" in part:
            yield Version(part, environment=dict(pair.split("=", 1) for pair in part.split()))
        else:
            yield Version(part, tree=Path(part).resolve())


def _measure_version(version: Version, loads: Sequence[Load]) -> dict[Load, Figures]:
    """Each load's figures, in one fresh system."""
    found, has_backlog = {}, False
    with _system(version) as run:
        _complete(run, [submit(f"warm-up-{n}") for n in range(WARM_UP_SUBMITS)], 8, 1)
        for load in loads:
            if load.behind_backlog and not has_backlog:
                _add_backlog(run)
                has_backlog = True
            print(f"  {version.name}: {load.name}", flush=True)
            found[load] = _measure_load(run, load)
    return found


@contextmanager
def _system(version: Version) -> Iterator[LocalRun]:
    with tempfile.TemporaryDirectory() as directory:
        run = LocalRun(Path(directory), version.tree, version.environment)
        run.start()
        try:
            yield run
        finally:
            run.stop()


def _add_backlog(run: LocalRun) -> None:
    users = [f"backlog-{n}" for n in range(BACKLOG_TASKS // BACKLOG_LANE_TASKS)]
    send_all(run.port, [pause(user, PAUSE_MS) for user in users], 8)
    send_all(run.port, [submit(user, BACKLOG_LANE_TASKS) for user in users], 8)


def _measure_load(run: LocalRun, load: Load) -> Figures:
    prefix = load.name.replace(" ", "-").replace(",", "")
    requests = [submit(f"{prefix}-{n}", load.tasks_per_submit) for n in range(load.submits)]
    before = run.cpu_seconds()
    sent = _complete(run, requests, load.clients, load.tasks_per_submit)
    cpu: dict[str, float] = defaultdict(float)
    for process, taken in run.cpu_seconds().items():
        cpu[process.partition("-")[0]] += taken - before[process]
    lines = [line for line in run.completions() if line["user_id"].startswith(f"{prefix}-")]
    first = [float(line["late_ms"]) for line in lines if line["seq"] == 1]
    tasks = len(sent.latencies) * load.tasks_per_submit
    return {
        "accepted": ("tasks/s", tasks / sent.seconds),
        "answer, p50": ("ms", quantile(sent.latencies, 0.5) * 1000),
        "answered 503": ("", sent.refused),
        "first start late, p50": ("ms", quantile(first, 0.5)),
        "first start late, p99": ("ms", quantile(first, 0.99)),
        "early starts": ("", sum(line["late_ms"] < 0 for line in lines)),
        **{f"CPU of {kind} per task": ("ms", taken * 1000 / tasks) for kind, taken in cpu.items()},
    }


def _complete(run: LocalRun, requests: Sequence[Request], clients: int, tasks_per_submit: int) -> Sent:
    """Sends the requests and waits until the tasks of the accepted ones have completed."""
    before = run.completed()
    sent = send_all(run.port, requests, clients)
    tasks = len(sent.latencies) * tasks_per_submit
    if not run.wait_for(before + tasks, TIMEOUT_SECONDS):
        missing = before + tasks - run.completed()
        raise RuntimeError(f"{missing} of {tasks} tasks did not complete within {TIMEOUT_SECONDS} s")
    return sent


def _add_figures(results: Results, prefix: str, turns: Sequence[Mapping[Load, Figures]]) -> None:
    for load, figures in turns[0].items():
        for name, (unit, _) in figures.items():
            goal = 0 if name == "early starts" else None
            values = [turn[load][name][1] for turn in turns]
            results.add(f"{prefix}{load.name}: {name}", values, unit, at_most=goal)


def _add_ratios(
    results: Results, name: str, turns: Sequence[Mapping[Load, Figures]], own: Sequence[Mapping[Load, Figures]]
) -> None:
    """Each figure of the other version over this tree's, turn by turn."""
    for load, figures in own[0].items():
        for figure in figures:
            pairs = [(turn[load][figure][1], mine[load][figure][1]) for turn, mine in zip(turns, own, strict=True)]
            if all(mine > 0 for _, mine in pairs):
                results.add(f"{name} over this tree: {load.name}: {figure}", [other / mine for other, mine in pairs])
