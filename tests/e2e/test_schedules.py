"""A running system submits each tick of a schedule once, whatever is killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.running import Paceline, running

EVERY_SECONDS = 2
#: Seconds for which a kill may stop the ticks: a killed worker's message reappears after 10 s, and another worker takes
#: over its tick after 30 s.
STOPPED_SECONDS = 45


def ticks(paceline: Paceline, user: str) -> list[int]:
    """The times of the ticks whose tasks have ended, epoch ms: the first part of each task's id."""
    entries = [entry for entry in paceline.completions(user) if entry.get("schedule") == "poll"]
    return sorted(int(entry["task_id"].replace("-", "")[:12], 16) for entry in entries)


@pytest.fixture
def paceline(tmp_path: Path) -> Iterator[Paceline]:
    with running(tmp_path, LIMITS="20/second") as paceline:
        yield paceline


def test_each_tick_runs_once_whatever_is_killed(paceline: Paceline) -> None:
    user, path = "ticking", "/api/v1/users/ticking/schedules/poll"
    put = paceline.request("PUT", path, {"every_seconds": EVERY_SECONDS, "payload": {"n": 1}})
    assert put.status == 201
    first = put.body["next_at"]
    for name in ("worker-1", "worker-2", "emulator", "worker-1"):
        count = len(ticks(paceline, user))
        paceline.wait_for(lambda count=count: len(ticks(paceline, user)) >= count + 2, 60, "it ticks")  # type: ignore[misc]
        paceline.kill(name)
    killed_at = time.time() * 1000
    paceline.wait_for(lambda: ticks(paceline, user)[-1] > killed_at + 6_000, 60, "it ticks after the last kill")
    paused = paceline.request("PUT", path, {"every_seconds": EVERY_SECONDS, "payload": {"n": 1}, "paused": True})
    assert (paused.body["paused"], paused.body["next_at"], paused.body["refused"]) == (True, None, 0)
    paceline.wait_for(lambda: ticks(paceline, user)[-1] == paused.body["last_at"], 60, "the last one ran")
    found = ticks(paceline, user)
    assert len(set(found)) == len(found)
    assert {(at - first) % (EVERY_SECONDS * 1000) for at in found} == {0}
    assert max(later - earlier for earlier, later in pairwise(found)) <= STOPPED_SECONDS * 1000
    # The second worker has the ticks that the first one does not, so few are missed.
    assert len(found) >= (found[-1] - first) / (EVERY_SECONDS * 1000) / 3
    time.sleep(2 * EVERY_SECONDS)
    assert ticks(paceline, user) == found
    assert paceline.request("DELETE", path).status == 200
