"""How many submits the two API processes accept, over how many times as many processes make just the same calls."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.clients import send_all, submit
from bench.emulator import emulator
from bench.figures import Results, quantile
from local.health import is_healthy
from local.programs import API_PROCESSES

GOAL = 0.8
CLIENTS = (1, 8, 32)
#: Fresh emulators, and in each so many turns of either side: the machine's own speed changes more than the ratio does.
RUNS, TURNS = 4, 4
#: Submits of one turn, by how many tasks each has.
SUBMITS = {1: 160, 100: 32}


def measure(*, quick: bool) -> Results:
    results = Results()
    for tasks, submits in SUBMITS.items():
        for clients in CLIENTS[:2] if quick else CLIENTS:
            _compare(results, tasks, 16 if quick else submits, clients, 1 if quick else RUNS)
    return results


def _compare(results: Results, tasks: int, submits: int, clients: int, runs: int) -> None:
    """Each side has an emulator of its own, since an emulator gets slower with what it holds."""
    ours, https, own_calls, bare_calls, each = [], [], [], [], []
    for _ in range(runs):
        with (
            emulator() as first,
            _serving(first.environment, "local.api_process") as port,
            emulator() as second,
            _serving(second.environment, "bench.bare_http", str(tasks)) as bare_port,
            emulator() as third,
            _calls(tasks, submits, clients, third.environment, by_default_clients=False) as make_own_calls,
            emulator() as fourth,
            _calls(tasks, submits, clients, fourth.environment, by_default_clients=True) as make_bare_calls,
        ):
            for some in (port, bare_port):
                send_all(some, [submit(f"warm-up-{n}") for n in range(40)], 8)
            for turn in range(TURNS):
                requests = [submit(f"user-{turn}-{n}", tasks) for n in range(submits)]
                seconds, latencies = send_all(port, requests, clients)
                ours.append(submits * tasks / seconds)
                each += latencies
                https.append(submits * tasks / send_all(bare_port, requests, clients)[0])
                own_calls.append(submits * tasks / make_own_calls())
                bare_calls.append(submits * tasks / make_bare_calls())
    what = f"{'single' if tasks == 1 else f'bulk of {tasks}'}, {clients} client{'s' * (clients > 1)}"
    results.add(f"{what}: over the calls by bare boto3", _ratios(ours, bare_calls), at_least=GOAL)
    results.add(f"{what}: over the calls by its own clients", _ratios(ours, own_calls))
    results.add(f"{what}: over the calls by its own clients behind the same HTTP server", _ratios(ours, https))
    results.add(f"{what}: accepted", ours, "tasks/s")
    results.add(f"{what}: the calls by bare boto3", bare_calls, "tasks/s")
    results.add(f"{what}: answer p50", [quantile(each, 0.5) * 1000], "ms")
    results.add(f"{what}: answer p99", [quantile(each, 0.99) * 1000], "ms")


def _ratios(some: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(some, others, strict=True)]


@contextmanager
def _serving(environment: Mapping[str, str], module: str, *arguments: str) -> Iterator[int]:
    """As many processes as supervisord starts, without workers: they would take their share of the emulator."""
    with TemporaryDirectory() as run_dir, socket.socket() as listener, ExitStack() as processes:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        names = [f"api-{n}" for n in range(API_PROCESSES)]
        for name in names:
            env = {**os.environ, **environment, "RUN_DIR": run_dir, "PROCESS_NAME": name}
            command = [sys.executable, "-m", module, *arguments]
            process = processes.enter_context(subprocess.Popen(command, env=env, stdin=listener.fileno()))
            processes.callback(process.terminate)
        while not all(is_healthy(Path(run_dir), name) for name in names):
            time.sleep(0.05)
        yield listener.getsockname()[1]


@contextmanager
def _calls(
    tasks: int, submits: int, clients: int, environment: Mapping[str, str], *, by_default_clients: bool
) -> Iterator[Callable[[], float]]:
    """As many processes that make just the same calls, together: the seconds they take for so many submits."""
    processes = min(API_PROCESSES, clients)
    share = {
        "tasks": tasks,
        "by_default_clients": by_default_clients,
        "turns": TURNS,
        "submits": submits // processes,
        "threads": clients // processes,
    }
    env = {**os.environ, **environment}
    with ExitStack() as stack:
        callers = [stack.enter_context(_caller(n, json.dumps(share), env)) for n in range(processes)]
        for caller in callers:
            _wait_for_line(caller)

        def make_calls() -> float:
            begun = time.perf_counter()
            for caller in callers:
                assert caller.stdin
                caller.stdin.write("go\n")
                caller.stdin.flush()
            for caller in callers:
                _wait_for_line(caller)
            return time.perf_counter() - begun

        yield make_calls


def _caller(number: int, share: str, env: Mapping[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.bare", str(number), share]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _wait_for_line(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    if not process.stdout.readline():
        raise RuntimeError("bench.bare ended early")
