"""CPU of the whole functions over that of their boto3 calls alone, with a stubbed transport."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from bench.events import Context, run_event, submit_event
from bench.figures import Results
from bench.in_process import load_app
from bench.recording import recorded
from bench.stub import Stub

GOAL = 1.25
#: Many short rounds, so that a round and its floor run at the same speed of the machine.
ROUNDS, CALLS_PER_ROUND = 60, 25


def measure(*, quick: bool) -> Results:
    stub, results = Stub(), Results()
    stub.install()
    app = load_app()
    event, users = submit_event("ann"), itertools.count()
    cases: dict[str, tuple[bool, Callable[[], object]]] = {
        "accepted submit": (False, lambda: app.app(dict(event), Context())),
        "over-limit submit": (True, lambda: app.app(dict(event), Context())),
        "run": (False, lambda: app.worker(run_event(f"user-{next(users)}"), Context())),
    }
    for name, (is_over_limit, function) in cases.items():
        stub.is_over_limit = is_over_limit
        _compare(results, name, function, *((3, 10) if quick else (ROUNDS, CALLS_PER_ROUND)))
    return results


def _compare(results: Results, name: str, function: Callable[[], object], rounds: int, calls: int) -> None:
    function()
    with recorded() as floor:
        function()
    bare = floor.by_default_clients()
    rounds_taken = []
    for n in range(rounds + 1):
        taken = [_cpu_ms(one, calls) for one in (function, bare.replay, floor.replay)]
        rounds_taken += [taken] if n else []  # the first one warms up
    wholes, bares, floors = zip(*rounds_taken, strict=True)
    what = f"its {len(floor.calls)} calls"
    results.add(f"{name}, over {what} by bare boto3", [a / b for a, b in zip(wholes, bares, strict=True)], at_most=GOAL)
    results.add(f"{name}, over {what} by its own clients", [a / b for a, b in zip(wholes, floors, strict=True)])
    results.add(f"{name}, CPU", wholes, "ms")
    results.add(f"{name}, CPU of {what} by bare boto3", bares, "ms")
    results.add(f"{name}, CPU of {what} by its own clients", floors, "ms")


def _cpu_ms(function: Callable[[], object], calls: int) -> float:
    begun = time.process_time()
    for _ in range(calls):
        function()
    return (time.process_time() - begun) / calls * 1000
