"""Cost of a submit behind a backlog and beside other users: own CPU, calls, and the time the emulator takes.

All backlogs are in one emulator, and each round submits once behind each of them, so all see the same other messages.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.httpsession import URLLib3Session

from bench.emulator import emulator
from bench.events import Context, submit_event
from bench.figures import Results
from bench.in_process import load_app
from bench.recording import recorded

GOAL = 1.1
BACKLOGS, USERS = (1, 100, 1000), (10, 1000, 10_000)
ROUNDS, QUICK_ROUNDS = 200, 5
#: Blocks of rounds; a figure has the median of each block.
BLOCKS = 10


@dataclass
class Taken:
    """Cost of one submit; times in milliseconds."""

    own_cpu: float
    #: CPU of the same calls alone, right after it: shows the machine's speed at that time
    bare_cpu: float
    wall: float
    #: time until the emulator answered
    waited: float
    calls: int


def measure(*, quick: bool) -> Results:
    results, rounds = Results(), QUICK_ROUNDS if quick else ROUNDS
    backlogs, users = (BACKLOGS[:2], USERS[:1]) if quick else (BACKLOGS, USERS)
    with emulator() as aws:
        os.environ.update(aws.environment)
        # Admits the backlog of 1,000 tasks and the submits behind it.
        os.environ["MAX_DELAY"] = "12h"
        app = load_app()

        def submit(user_id: str, tasks: int = 1) -> None:
            answer = app.app(submit_event(user_id, tasks), Context())
            assert answer["statusCode"] in (202, 429), answer

        _behind_backlogs(results, submit, backlogs, rounds)
        _beside_users(results, submit, users, rounds)
    return results


def _behind_backlogs(results: Results, submit: Any, backlogs: tuple[int, ...], rounds: int) -> None:
    for backlog in backlogs:
        for n in range(0, backlog, 100):
            submit(f"behind-{backlog}", min(100, backlog - n))
    taken: dict[int, list[Taken]] = defaultdict(list)
    for n in range(rounds):
        for backlog in backlogs:
            # A backlog of one task needs a new user in each round.
            user_id = f"behind-{backlog}" if backlog > 1 else f"behind-1-{n}"
            if backlog == 1:
                submit(user_id)
            taken[backlog].append(_take(submit, user_id))
    _report(results, "behind {} tasks of that user", taken)


def _beside_users(results: Results, submit: Any, users: tuple[int, ...], rounds: int) -> None:
    """Adds users, and measures whenever their number reaches one of the sizes."""
    taken: dict[int, list[Taken]] = {}
    there = 0
    for size in users:
        while there < size:
            _add_users(there, min(size, there + 1000))
            there = min(size, there + 1000)
        taken[size] = [_take(submit, f"beside-{size}-{n}") for n in range(rounds)]
    _report(results, "beside {} users", taken)


def _add_users(first: int, end: int) -> None:
    """Stores users with one waiting task each. By the API it would take a minute."""
    from chalicelib.aws.dynamodb_expression import LANE_ITEM, key, number, numbers  # noqa: PLC0415
    from chalicelib.container import container, new_id  # noqa: PLC0415
    from chalicelib.core.task import Task  # noqa: PLC0415

    parts, now_ms = container(), container().clock.now_ms()
    tasks = [Task(f"other-{n}", new_id(), 1, "log", None, now_ms, now_ms) for n in range(first, end)]
    lane = {"admitted": number(1), "planned": numbers([now_ms])}
    items = [key(task.user_id, LANE_ITEM) | lane for task in tasks]
    for start in range(0, len(items), 25):
        requests = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
        parts.dynamodb.batch_write_item(RequestItems={parts.settings.table_name: requests})  # type: ignore[attr-defined]
    parts.queue.send_many(tasks)


def _take(submit: Any, user_id: str) -> Taken:
    with _waiting() as waits, recorded() as bare:
        cpu, wall = time.thread_time(), time.perf_counter()
        submit(user_id)
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    begun = time.thread_time()
    bare.replay()
    return Taken(cpu * 1000, (time.thread_time() - begun) * 1000, wall * 1000, sum(waits) * 1000, len(waits))


@contextmanager
def _waiting() -> Iterator[list[float]]:
    """Collects the seconds until the answer of each request."""
    waits: list[float] = []
    send = URLLib3Session.send

    def timed(session: Any, request: Any) -> Any:
        begun = time.perf_counter()
        answer = send(session, request)
        waits.append(time.perf_counter() - begun)
        return answer

    URLLib3Session.send = timed  # type: ignore
    try:
        yield waits
    finally:
        URLLib3Session.send = send  # type: ignore


def _report(results: Results, name: str, taken: dict[int, list[Taken]]) -> None:
    sizes = list(taken)
    own = {size: _blocks([one.own_cpu for one in taken[size]]) for size in sizes}
    over_bare = {size: _blocks([one.own_cpu / one.bare_cpu for one in taken[size]]) for size in sizes}
    for size in sizes:
        what = name.format(f"{size:,}")
        results.add(f"submit {what}: own CPU", own[size], "ms")
        results.add(f"submit {what}: calls", [one.calls for one in taken[size]])
        results.add(f"submit {what}: latency", _blocks([one.wall for one in taken[size]]), "ms")
        results.add(
            f"submit {what}: of it waiting for the emulator", _blocks([one.waited for one in taken[size]]), "ms"
        )
    for size in sizes[1:]:
        ratios = [more / less for more, less in zip(over_bare[size], over_bare[sizes[0]], strict=True)]
        what = name.format(f"{size:,}").removesuffix("s" * name.endswith("users")) + f" over {sizes[0]:,}"
        results.add(f"own CPU, as a multiple of its bare calls', {what}", ratios, at_most=GOAL)


def _blocks(values: list[float]) -> list[float]:
    """The medians of consecutive blocks."""
    size = max(1, len(values) // BLOCKS)
    return [sorted(values[n : n + size])[size // 2] for n in range(0, size * (len(values) // size), size)]
