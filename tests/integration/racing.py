"""Real processes that race for starts of one shared limit, each for a lane of its own; the times that they took."""

import multiprocessing
import time
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from chalicelib.aws.client import client
from chalicelib.aws.dynamodb_lanes import DynamoDBLaneStore
from chalicelib.aws.dynamodb_shared_limits import DynamoDBSharedLimitStore
from chalicelib.aws.server_time import ServerTime
from chalicelib.container import SystemClock
from chalicelib.core.claim import SharedStart, Start
from chalicelib.core.errors import UnavailableError
from chalicelib.core.task import Task
from chalicelib.settings import Settings
from chalicelib.worker.shared_claims import SharedClaims
from chalicelib.worker.steps import Facts, WaitUntil


class NoQueue:
    def defer(self, _receipt: str, _seconds: int) -> bool:
        return False


def race(url: str, table: str, name: str, limits: str, processes: int, seconds: float) -> Sequence[int]:
    """The starts that all of them took, in order, epoch ms."""
    fork = multiprocessing.get_context("fork")
    results, begin = fork.Queue(), fork.Event()
    racers = [
        fork.Process(target=_race, args=(url, table, name, limits, f"{name}-{number}", seconds, begin, results))
        for number in range(processes)
    ]
    for racer in racers:
        racer.start()
    begin.set()
    taken = [at for _ in racers for at in results.get(timeout=seconds + 120)]
    for racer in racers:
        racer.join()
    return sorted(taken)


def _race(url: str, table: str, name: str, limits: str, user: str, seconds: float, begin: Any, results: Any) -> None:
    dynamodb = client("dynamodb", url)
    lanes, clock = DynamoDBLaneStore(dynamodb, table), SystemClock()
    queue: Any = NoQueue()
    settings = Settings.from_env({"SHARED_LIMITS": f"{name}: {limits}"})
    claims = SharedClaims(
        DynamoDBSharedLimitStore(dynamodb, table, ServerTime(clock.now_ms)), lanes, queue, clock, settings
    )
    begin.wait()
    taken, end, number = list[int](), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        number += 1
        try:
            task = Task(user, f"{user}-{number}", number, "log", None, 0, 0, shared=name)
            if start := _one(claims, lanes, clock, task, end):
                taken.append(start.at)
        except UnavailableError:
            continue  # the emulator is busy
    results.put(taken)


def _one(
    claims: SharedClaims, lanes: DynamoDBLaneStore, clock: SystemClock, task: Task, end: float
) -> SharedStart | None:
    while time.monotonic() < end:
        lane, now_ms = lanes.get(task.user_id), clock.now_ms()
        facts = Facts(lane, is_lane_fresh=True)
        taken, _ = claims.take(task, Start(now_ms, 1, now_ms, lane), facts, f"{task.task_id}-{now_ms}")
        if isinstance(taken, SharedStart):
            lane = lanes.get(task.user_id)
            lanes.change(lane, replace(lane, turn=None, revision=lane.revision + 1))
            clock.sleep_until(taken.at)
            return taken
        if isinstance(taken, WaitUntil):
            clock.sleep(max(0, min(taken.wake_at - clock.now_ms(), 1_000)))
    return None
