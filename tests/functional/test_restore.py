"""A table that is restored to an earlier time, by the steps of docs/production/restore.md."""

from typing import Any, cast

from chalicelib.core.limits import parse_limits
from tests.functional.conftest import Deploy, Paceline
from tests.memory.container import VISIBILITY_MS, Memory
from tests.memory.task_queue import MemoryTaskQueue
from tests.windows import assert_pace_kept, most_in_any_window

LIMITS = "1/second; 3/minute"
MINUTE = 60_000


def submit(paceline: Paceline, user: str, count: int) -> list[str]:
    return [paceline.submit(user).json_body["task_id"] for _ in range(count)]


def run_one(paceline: Paceline) -> None:
    """A worker receives one message, if one is visible; otherwise a second passes."""
    for record in paceline.queues.receive(1):
        if not paceline.work(record):
            paceline.delete(record)
        return
    paceline.clock.advance(1_000)


def run(paceline: Paceline, milliseconds: int) -> None:
    end = paceline.clock.now_ms() + milliseconds
    while paceline.clock.now_ms() < end:
        run_one(paceline)


def started(paceline: Paceline) -> dict[str, list[int]]:
    """Each task's starts."""
    starts: dict[str, list[int]] = {}
    for event in paceline.events:
        if event["event"] == "task_completed":
            starts.setdefault(event["task_id"], []).append(event["started_at"])
    return starts


def all_starts(paceline: Paceline) -> list[int]:
    return sorted(at for starts in started(paceline).values() for at in starts)


class Table:
    """The stores in memory, whose state can be saved and restored."""

    def __init__(self, paceline: Paceline) -> None:
        self._memory, self._now_ms = cast(Memory, paceline.queues), paceline.clock.now_ms

    def save(self) -> None:
        self._saved = [dict(items) for items in self._items()]

    def restore(self) -> None:
        for items, saved in zip(self._items(), self._saved, strict=True):
            items.clear()
            items.update(saved)

    def purge(self) -> None:
        """Empties the queue of lanes."""
        vars(self._memory.queue).update(vars(MemoryTaskQueue(self._now_ms, VISIBILITY_MS)))

    def _items(self) -> list[dict[Any, Any]]:
        return [vars(self._memory.lanes)["_lanes"], vars(self._memory.tasks)["_records"]]


def at_restored_time(deploy: Deploy, user: str) -> tuple[Paceline, Table, list[str]]:
    """A user's eight tasks: one had run when the table was saved, two more by the time it is restored."""
    paceline = deploy(LIMITS=LIMITS)
    ids = submit(paceline, user, 7)
    run_one(paceline)
    table = Table(paceline)
    table.save()
    ids += submit(paceline, user, 1)
    run(paceline, 3_000)
    assert list(started(paceline)) == ids[:3]
    table.restore()
    return paceline, table, ids


def resume(paceline: Paceline, user: str) -> None:
    assert paceline.request("POST", f"/api/v1/users/{user}/resume").status_code == 200


def cancel_finished(paceline: Paceline, user: str) -> None:
    """Cancels each task that the log says has finished and the restored table says has not."""
    for task_id in started(paceline):
        if paceline.get(f"/api/v1/users/{user}/tasks/{task_id}").json_body["state"] == "queued":
            assert paceline.request("DELETE", f"/api/v1/users/{user}/tasks/{task_id}").status_code == 200


def test_steps_of_the_page_keep_the_pace_and_run_each_restored_task_once(deploy: Deploy, user: str) -> None:
    paceline, table, ids = at_restored_time(deploy, user)
    table.purge()
    cancel_finished(paceline, user)
    paceline.clock.advance(MINUTE)  # the longest window
    resume(paceline, user)
    run(paceline, 5 * MINUTE)
    assert {task_id: len(starts) for task_id, starts in started(paceline).items()} == dict.fromkeys(ids[:7], 1)
    assert_pace_kept(all_starts(paceline), parse_limits(LIMITS))
    assert paceline.get(f"/api/v1/users/{user}/tasks/{ids[7]}").status_code == 404


def test_lane_goes_on_after_the_restore(deploy: Deploy, user: str) -> None:
    paceline, table, _ = at_restored_time(deploy, user)
    table.purge()
    cancel_finished(paceline, user)
    paceline.clock.advance(MINUTE)
    resume(paceline, user)
    later = submit(paceline, user, 3)
    run(paceline, 5 * MINUTE)
    assert [len(started(paceline)[task_id]) for task_id in later] == [1, 1, 1]
    assert_pace_kept(all_starts(paceline), parse_limits(LIMITS))


def test_without_the_wait_the_restored_lane_has_forgotten_starts(deploy: Deploy, user: str) -> None:
    paceline, table, _ = at_restored_time(deploy, user)
    table.purge()
    cancel_finished(paceline, user)
    resume(paceline, user)
    run(paceline, MINUTE)
    assert most_in_any_window(all_starts(paceline), MINUTE) > 3


def test_task_that_finished_after_the_restored_time_runs_again_unless_it_is_cancelled(
    deploy: Deploy, user: str
) -> None:
    paceline, table, ids = at_restored_time(deploy, user)
    table.purge()
    paceline.clock.advance(MINUTE)
    resume(paceline, user)
    run(paceline, 5 * MINUTE)
    assert [len(started(paceline)[task_id]) for task_id in ids[:7]] == [1, 2, 2, 1, 1, 1, 1]
