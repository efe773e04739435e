"""The local system with 20,000 waiting tasks, and with 200,000 finished ones kept, over an empty system.

The systems run beside each other, and each round loads them in turns, so the machine's speed is the same for all.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.clients import pause, send_all, submit
from bench.figures import Results, quantile
from bench.finished_records import multiply
from bench.local_run import LocalRun

#: Milliseconds for which the lanes of a backlog are paused.
PAUSE_MS = 40 * 60_000
CLIENTS = 8
TIMEOUT_SECONDS = 120
#: The goals: figures over those of the empty system, KB for each kept task, seconds.
GROWTH, MEMORY_KB, DISK_KB, READY_SECONDS = 1.25, 3, 2, 5


@dataclass(frozen=True)
class Size:
    """How much is done."""

    users: int = 200
    waiting: int = 20_000
    kept: int = 200_000
    #: single submits of a round, and users who submit `TASKS` each by bulk
    submits: int = 300
    lanes: int = 60
    rounds: int = 7
    restarts: int = 3


QUICK = Size(users=4, waiting=40, kept=400, submits=16, lanes=3, rounds=1, restarts=1)
#: Tasks of a bulk: the first starts at once, the others follow at 1 a second.
TASKS = 4

Figures = dict[str, tuple[str, float]]


def measure(*, quick: bool) -> Results:
    size, results = QUICK if quick else Size(), Results()
    with _systems("empty", "waiting", "kept") as runs:
        _add_paused_lanes(runs["waiting"], size)
        _run_one_of_each(runs["kept"], size)
        for name, run in runs.items():
            run.stop()
            if name == "kept":
                multiply(run.state_file, "kept-", size.kept // size.users)
            run.start()
            _load(run, "again", size.submits, size.lanes)
        memory = {name: run.total_memory_mb() for name, run in runs.items()}
        found = _in_turns(runs, size)
        _add_ratios(results, found, {"waiting": f"{size.waiting:,} waiting", "kept": f"{size.kept:,} kept"})
        _add_memory(results, memory, size)
        _add_restarts(results, runs, size)
    return results


@contextmanager
def _systems(*names: str) -> Iterator[Mapping[str, LocalRun]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runs = {}
        for name in names:
            (directory := Path(folder) / name).mkdir()
            runs[name] = LocalRun(directory)
            runs[name].start()
            stack.callback(runs[name].stop)
            _load(runs[name], "warm-up", 40, 2)
        yield runs


def _add_paused_lanes(run: LocalRun, size: Size) -> None:
    send_all(run.port, [pause(f"waiting-{n}", PAUSE_MS) for n in range(size.users)], CLIENTS)
    _add_bulks(run, size, size.waiting // size.users)
    if (waiting := run.waiting()) < size.waiting:
        raise RuntimeError(f"{waiting} of {size.waiting} tasks wait")


def _add_bulks(run: LocalRun, size: Size, tasks: int) -> None:
    send_all(run.port, [submit(f"waiting-{n}", tasks) for n in range(size.users)], CLIENTS)


def _run_one_of_each(run: LocalRun, size: Size) -> None:
    """Runs a task of each user, whose record is then copied."""
    send_all(run.port, [submit(f"kept-{n}") for n in range(size.users)], CLIENTS)
    _wait_for(run, "kept-", size.users)


def _in_turns(runs: Mapping[str, LocalRun], size: Size) -> Mapping[str, list[Figures]]:
    found: dict[str, list[Figures]] = defaultdict(list)
    for turn in range(size.rounds):
        for name in reversed(list(runs)) if turn % 2 else runs:
            print(f"  round {turn + 1}: {name}", flush=True)
            found[name].append(_load(runs[name], f"round-{turn}", size.submits, size.lanes))
    return found


def _load(run: LocalRun, name: str, submits: int, lanes: int) -> Figures:
    """The figures of single submits by distinct users, then those of bulks."""
    before = run.cpu_seconds()
    sent = send_all(run.port, [submit(f"{name}-first-{n}") for n in range(submits)], CLIENTS)
    _wait_for(run, f"{name}-first-", submits)
    cpu: dict[str, float] = defaultdict(float)
    for process, taken in run.cpu_seconds().items():
        cpu[process.partition("-")[0]] += (taken - before[process]) * 1000 / submits
    send_all(run.port, [submit(f"{name}-later-{n}", TASKS) for n in range(lanes)], CLIENTS)
    _wait_for(run, f"{name}-later-", lanes * TASKS)
    lines = [line for line in run.completions() if line["user_id"].startswith(name)]
    first = [line["late_ms"] for line in lines if line["user_id"].startswith(f"{name}-first-")]
    later = [line["late_ms"] for line in lines if line["seq"] > 1]
    return {
        "accepted": ("tasks/s", len(sent.latencies) / sent.seconds),
        "answer, p50": ("ms", quantile(sent.latencies, 0.5) * 1000),
        **_quantiles("first starts late", first),
        **_quantiles("later starts late", later),
        "CPU per task": ("ms", sum(cpu.values())),
        **{f"CPU of {kind} per task": ("ms", taken) for kind, taken in cpu.items()},
    }


def _quantiles(name: str, late: Sequence[float]) -> Figures:
    return {f"{name}, p{share}": ("ms", quantile(late, share / 100)) for share in (50, 99)}


def _wait_for(run: LocalRun, users: str, tasks: int) -> None:
    if not run.wait_for(tasks, TIMEOUT_SECONDS, users):
        raise RuntimeError(f"{run.completed(users)} of {tasks} tasks completed within {TIMEOUT_SECONDS} s")


def _add_ratios(results: Results, found: Mapping[str, Sequence[Figures]], names: Mapping[str, str]) -> None:
    """The figures of each system, and those of the grown ones over the empty one's, round by round."""
    for system, rounds in found.items():
        for figure, (unit, _) in rounds[0].items():
            results.add(f"{system}: {figure}", [one[figure][1] for one in rounds], unit)
    for system, name in names.items():
        for figure in found["empty"][0]:
            pairs = [
                (mine[figure][1], other[figure][1]) for mine, other in zip(found["empty"], found[system], strict=True)
            ]
            if all(mine > 0 for mine, _ in pairs):
                ratios = [other / mine for mine, other in pairs]
                most, least = (None, 1 / GROWTH) if figure == "accepted" else (GROWTH, None)
                results.add(f"{name} over empty: {figure}", ratios, at_most=most, at_least=least)


def _add_memory(results: Results, memory: Mapping[str, float], size: Size) -> None:
    for name, megabytes in memory.items():
        results.add(f"{name}: memory of all processes", [megabytes], "MB")
    for name, tasks in (("waiting", size.waiting), ("kept", size.kept)):
        kilobytes = (memory[name] - memory["empty"]) * 1024 / tasks
        results.add(f"memory for each {name} task", [kilobytes], "KB", at_most=MEMORY_KB)


def _add_restarts(results: Results, runs: Mapping[str, LocalRun], size: Size) -> None:
    """Seconds until each system is ready again after a stop and after a kill, and the size of its state."""
    seconds = defaultdict[str, list[float]](list)
    disk = dict[str, int]()
    for _ in range(size.restarts):
        for end, end_run in (("a stop", LocalRun.stop), ("kill -9", LocalRun.kill)):
            for name, run in runs.items():
                end_run(run)
                if end_run is LocalRun.stop:
                    disk.setdefault(name, run.state_bytes())
                begun = time.monotonic()
                run.start()
                seconds[f"{name}: ready after {end}"].append(time.monotonic() - begun)
    for figure, taken in seconds.items():
        results.add(figure, taken, "s", at_most=READY_SECONDS)
    log_bytes = _bytes_of_a_line(runs["empty"])
    results.add("disk for each line of the completion log", [log_bytes / 1024], "KB")
    for name, tasks in (("waiting", size.waiting), ("kept", size.kept)):
        state_bytes = (disk[name] - disk["empty"]) / tasks
        of_log = log_bytes if name == "kept" else 0
        results.add(f"disk for each {name} task", [(state_bytes + of_log) / 1024], "KB", at_most=DISK_KB)


def _bytes_of_a_line(run: LocalRun) -> float:
    files = [path.read_bytes() for path in run.log_files()]
    return sum(map(len, files)) / sum(file.count(b"\n") for file in files)
