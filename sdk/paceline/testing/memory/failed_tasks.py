"""The lists of failed tasks in memory: they read the store that they are given, and are never behind it."""

from msgspec.structs import replace

from chalicelib.core.task import Task, TaskRecord, TaskState, failure_cursor
from paceline.testing.memory.stores import MemoryTaskStore


class MemoryFailedTasks:
    def __init__(self, tasks: MemoryTaskStore) -> None:
        self._tasks = tasks

    def newest(self, most: int, before: str | None) -> tuple[list[TaskRecord], str | None]:
        found = [record for record in self._failed() if before is None or failure_cursor(record) < before]
        return _page(found[::-1], most)

    def oldest(self, since: int, most: int, after: str | None) -> tuple[list[TaskRecord], str | None]:
        found = [
            record
            for record in self._failed()
            if failure_cursor(record) > (after or "") and _failed_at(record) >= since
        ]
        return _page(found, most)

    def of_user(self, user_id: str, since: int, most: int, after: str | None) -> tuple[list[TaskRecord], str | None]:
        mine = [
            record
            for record in self._failed()
            if record.task.user_id == user_id and _failed_at(record) >= since and record.task.task_id > (after or "")
        ]
        mine.sort(key=lambda record: record.task.task_id)
        return mine[:most], mine[most - 1].task.task_id if len(mine) > most else None

    def reserve_redrive(self, task: Task, new_id: str) -> str | None:
        def reserved(record: TaskRecord) -> TaskRecord:
            is_failed = record.state is TaskState.FAILED
            return replace(record, redriven_as=record.redriven_as or new_id) if is_failed else record

        record = self._tasks.change_record(task, reserved)
        return record.redriven_as if record else None

    def release_redrive(self, task: Task, new_id: str) -> None:
        self._tasks.change_record(
            task, lambda record: replace(record, redriven_as=None) if record.redriven_as == new_id else record
        )

    def _failed(self) -> list[TaskRecord]:
        return sorted(
            (record for record in self._tasks.records() if record.state is TaskState.FAILED), key=failure_cursor
        )


def _page(found: list[TaskRecord], most: int) -> tuple[list[TaskRecord], str | None]:
    return found[:most], failure_cursor(found[most - 1]) if len(found) > most else None


def _failed_at(record: TaskRecord) -> int:
    assert record.outcome is not None
    return record.outcome.completed_at
