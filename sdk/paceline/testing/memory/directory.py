"""The directory of lanes in memory: it reads the stores that it is given, and is never behind them."""

from collections.abc import Sequence

from chalicelib.core.lane import Lane
from chalicelib.core.task import TaskRecord
from paceline.testing.memory.stores import MemoryLaneStore, MemoryTaskStore


class MemoryLaneDirectory:
    def __init__(self, lanes: MemoryLaneStore, tasks: MemoryTaskStore) -> None:
        self._lanes = lanes
        self._tasks = tasks

    def user_ids(self, prefix: str, after: str, limit: int) -> list[str]:
        found = [user_id for user_id in self._lanes.user_ids if user_id.startswith(prefix) and user_id > after]
        return sorted(found)[:limit]

    def lanes(self, user_ids: Sequence[str]) -> list[Lane]:
        return [self._lanes.get(user_id) for user_id in user_ids if user_id in self._lanes.user_ids]

    def tasks(self, keys: Sequence[tuple[str, str]]) -> list[TaskRecord]:
        return [record for key in keys if (record := self._tasks.get(*key))]

    def newest_tasks(self, user_id: str, up_to: str | None, limit: int) -> list[TaskRecord]:
        records, _ = self._tasks.newest(user_id, None, limit, up_to and f"{up_to}~")
        return records
