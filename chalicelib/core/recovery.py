"""Finds the tasks whose messages bring a lane on if SQS lost its messages, by a purge or after 14 days."""

from collections.abc import Iterator

from chalicelib.core.claim import first_open_seq
from chalicelib.core.lane import Lane, Phase
from chalicelib.core.ports import TaskStore
from chalicelib.core.task import Task, TaskRecord


def tasks_to_send_again(lane: Lane, tasks: TaskStore, now_ms: int) -> list[Task]:
    """The lane's last waiting task, and before it the newest started one if it has no worker and no outcome.

    A cancelled task waits too until its outcome is logged. A worker that receives a later task runs all waiting tasks
    before it from their records. A message that was not lost comes a second time, and is dropped.
    """
    records = [*_without_worker(lane, tasks, now_ms), *_last_waiting(lane, tasks)]
    return [record.task for record in records]


def is_open(record: TaskRecord, lane: Lane) -> bool:
    """True until the task's outcome is logged: a cancelled one's is stored before.

    A task that was cancelled by an emptying of its lane delays no other, so it does not count as open.
    """
    task = record.task
    return task.task_id in lane.cancelled or (record.outcome is None and not lane.is_emptied(task.task_id, task.seq))


def _without_worker(lane: Lane, tasks: TaskStore, now_ms: int) -> Iterator[TaskRecord]:
    """The started tasks that no worker runs."""
    leases = [*([lane.running] if lane.running else []), *(lane.slots or {}).values()]
    for lease in leases:
        if lease.until > now_ms and lease.phase is not Phase.RETRY:
            continue
        record = tasks.get(lane.user_id, lease.task_id)
        if record and is_open(record, lane):
            yield record


def _last_waiting(lane: Lane, tasks: TaskStore) -> Iterator[TaskRecord]:
    if not lane.waiting and not lane.cancelled:
        return
    newest = tasks.get(lane.user_id, lane.newest)
    if newest and newest.task.seq == lane.admitted and is_open(newest, lane):
        yield newest
        return
    # It is finished, or its submit died: the one before it that still waits.
    found = tasks.between(lane.user_id, first_open_seq(lane), lane.admitted, None)
    yield from [record for record in found if is_open(record, lane)][-1:]
