"""Finds the tasks that a lane starts next, however long its backlog is."""

from collections.abc import Sequence

from chalicelib.core.lane import Lane, Phase
from chalicelib.core.ports import TaskStore
from chalicelib.core.task import TaskRecord


def next_to_start(lane: Lane, tasks: TaskStore, most: int) -> list[TaskRecord]:
    """The lane's tasks between two attempts, and the next `most` waiting ones by seq; cancelled ones may be among them.

    Scheduled tasks have no seq yet, and are left out; so is one that was scheduled before hundreds of finished tasks.
    """
    leases = [*([lane.running] if lane.running else []), *(lane.slots or {}).values()]
    retried = [tasks.get(lane.user_id, lease.task_id) for lease in leases if lease.phase is Phase.RETRY]
    newest_started = max((lease.task_id for lease in leases), default="")
    return [*filter(None, retried), *_waiting(lane, tasks, most, newest_started)]


def _waiting(lane: Lane, tasks: TaskStore, most: int, newest_started: str) -> Sequence[TaskRecord]:
    """newest_started: the id from which on the waiting tasks are probably stored, empty if it is not known."""
    first = lane.started_seq + 1
    last = min(lane.admitted, lane.started_seq + most + len(lane.cancelled))
    if last < first:
        return []
    if newest_started:
        found = tasks.following(lane.user_id, newest_started, first, last)
        if len(found) == last + 1 - first:
            return found
    return tasks.between(lane.user_id, first, last, lane.admitted)
