"""CPU of Lambda's functions by version, and by model how long that takes and costs at several memory sizes.

Assumed: a function has its memory over 1,769 MB of a core as fast as this machine's, its calls of AWS take 6 ms each
besides, and its cold start is its imports and first submit. `BENCH_AGAINST` names the checkouts of other versions,
separated by `;`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from bench.figures import Results
from bench.prices import CALL_SECONDS, COLD_SHARE, LAMBDA_GB_SECOND
from bench.whole import AGAINST

ROOT = Path(__file__).parents[1]
#: Memory at which a function has one core.
CORE_MB = 1_769
MEMORY_MB = (256, 512, 1_024)
RUNS = 10
#: Calls of AWS by a submit, and by a run of a task.
CALLS = {"submit": 3, "run": 2}
#: Runs in any version's checkout; prints the CPU of a submit and of a run in milliseconds.
_WARM = """
import itertools, json, os, time
from bench.events import Context, run_event, submit_event
from bench.stub import Stub
Stub().install()
import app
printed = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
users = (f"user-{n}" for n in itertools.count())
cases = {
    "submit": lambda: app.app(submit_event(next(users)), Context()),
    "run": lambda: app.worker(run_event(next(users)), Context()),
}
taken = {}
for name, call in cases.items():
    for _ in range(30):
        call()
    begun = time.process_time()
    for _ in range(200):
        call()
    taken[name] = (time.process_time() - begun) * 5
os.write(printed, json.dumps(taken).encode())
"""


def measure(*, quick: bool) -> Results:
    versions = {"this tree": ROOT}
    versions |= {path: Path(path).resolve() for path in map(str.strip, os.environ.get(AGAINST, "").split(";")) if path}
    found: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for _ in range(1 if quick else RUNS):
        for name, tree in versions.items():
            found[name].append(_cpu_ms(tree))
    results = Results()
    for name, runs in found.items():
        for what in ("submit", "run", "cold start"):
            results.add(f"{name}: CPU of a {what}", [run[what] for run in runs], "ms")
        for memory in MEMORY_MB:
            _add_model(results, f"{name}, {memory:,} MB", runs, memory)
    return results


def _cpu_ms(tree: Path) -> dict[str, float]:
    """CPU of a submit, a run and a cold start, in milliseconds."""
    env = os.environ | {"PYTHONPATH": str(tree)}
    commands = ([sys.executable, "-c", _WARM], [sys.executable, "-m", "bench.first_request", "paceline"])
    warm, cold = (
        json.loads(subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=True).stdout)
        for command in commands
    )
    return {**warm, "cold start": cold["CPU"]}


def _add_model(results: Results, name: str, runs: list[Mapping[str, float]], memory: int) -> None:
    slower = CORE_MB / memory
    seconds = {
        what: [run[what] * slower / 1000 + calls * CALL_SECONDS for run in runs] for what, calls in CALLS.items()
    }
    cold = [run["cold start"] * slower / 1000 for run in runs]
    for what, taken in seconds.items():
        results.add(f"{name}: a {what} takes", [one * 1000 for one in taken], "ms")
    results.add(f"{name}: a cold start takes", [one * 1000 for one in cold], "ms")
    price = memory / 1024 * LAMBDA_GB_SECOND * 1e6
    sums = zip(seconds["submit"], seconds["run"], cold, strict=True)
    dollars = [(submit + run + 2 * COLD_SHARE * start) * price for submit, run, start in sums]
    results.add(f"{name}: duration of a million tasks", dollars, "$")
