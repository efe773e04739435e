"""The schedules in memory: each write is as atomic as DynamoDB's."""

import threading

from chalicelib.core.schedule import Schedule


class MemoryScheduleStore:
    def __init__(self) -> None:
        self._schedules: dict[tuple[str, str], Schedule] = {}
        self._names: dict[str, set[str]] = {}
        self._search: tuple[int, str] = (0, "")
        self._lock = threading.Lock()

    def get(self, user_id: str, name: str) -> Schedule | None:
        return self._schedules.get((user_id, name))

    def page(self, user_id: str, after: str, limit: int) -> tuple[list[Schedule], str | None]:
        with self._lock:
            mine = sorted((key, one) for key, one in self._schedules.items() if key[0] == user_id and key[1] > after)
        found = [one for _, one in mine[:limit]]
        return found, found[-1].name if len(mine) > limit else None

    def save(self, schedule: Schedule, seen_revision: int) -> bool:
        key = (schedule.user_id, schedule.name)
        with self._lock:
            stored = self._schedules.get(key)
            if (stored.revision if stored else 0) != seen_revision:
                return stored == schedule
            self._schedules[key] = schedule
            return True

    def delete(self, user_id: str, name: str) -> Schedule | None:
        with self._lock:
            return self._schedules.pop((user_id, name), None)

    def add_name(self, user_id: str, name: str, most: int) -> bool:
        with self._lock:
            names = self._names.get(user_id, set())
            if name not in names and len(names) >= most:
                return False
            self._names[user_id] = names | {name}
            return True

    def remove_name(self, user_id: str, name: str) -> None:
        with self._lock:
            left = self._names.get(user_id, set()) - {name}
            if left:
                self._names[user_id] = left
            else:
                self._names.pop(user_id, None)

    def users(self, after: str, limit: int) -> list[str]:
        with self._lock:
            return sorted(user_id for user_id in self._names if user_id > after)[:limit]

    def try_begin_search(self, now_ms: int, until: int) -> str | None:
        with self._lock:
            if self._search[0] > now_ms:
                return None
            self._search = (until, self._search[1])
            return self._search[1]

    def end_search(self, at: str) -> None:
        with self._lock:
            self._search = (self._search[0], at)
