"""The app's parts over ports in memory: no call leaves the process."""

from collections.abc import Callable, Iterable
from typing import Any

from chalicelib.container import Container
from chalicelib.settings import Settings
from tests.in_process import Record, make_record
from tests.memory.directory import MemoryLaneDirectory
from tests.memory.failed_tasks import MemoryFailedTasks
from tests.memory.requests import MemoryRequestStore
from tests.memory.scheduled_queue import MemoryScheduledQueue
from tests.memory.schedules import MemoryScheduleStore
from tests.memory.shared_limits import MemorySharedLimitStore
from tests.memory.stores import (
    MemoryCallbackSlots,
    MemoryDueTasks,
    MemoryLaneStore,
    MemoryScheduledCounts,
    MemoryTaskStore,
)
from tests.memory.task_queue import MemoryTaskQueue

#: Milliseconds for which a received message is hidden: longer than any test's virtual time, so each comes once.
VISIBILITY_MS = 40_000_000


class Memory:
    """The stores and queues, which outlive a deployment. Implements `Queues` of tests/in_process.py."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.queue = MemoryTaskQueue(now_ms, VISIBILITY_MS)
        self.scheduled_queue = MemoryScheduledQueue(now_ms, VISIBILITY_MS)
        self.lanes, self.tasks = MemoryLaneStore(), MemoryTaskStore()
        self.scheduled_counts, self.requests = MemoryScheduledCounts(), MemoryRequestStore()
        self.callback_slots = MemoryCallbackSlots()
        self.shared_limits = MemorySharedLimitStore()
        self.due_tasks, self.schedules = MemoryDueTasks(), MemoryScheduleStore()
        self.directory = MemoryLaneDirectory(self.lanes, self.tasks)
        self.failed_tasks = MemoryFailedTasks(self.tasks)

    def receive(self, most: int = 10) -> list[Record]:
        return [
            make_record(message.body, message.receipt, message.message_id, _attributes(message))
            for message in self.queue.receive(most)
        ]

    def receive_scheduled(self) -> list[Record]:
        records = []
        while message := self.scheduled_queue.receive():
            attributes = {"ApproximateReceiveCount": str(message.receives), "SentTimestamp": str(message.sent_at)}
            records.append(make_record(message.body, message.receipt, message.message_id, attributes))
        return records

    def delete(self, record: Record) -> None:
        self.queue.delete(record["receiptHandle"])
        self.scheduled_queue.delete(record["receiptHandle"])

    def dead_letters(self) -> list[str]:
        return [letter.body for letter in self.queue.dead_letters]


PORTS = (
    *("lanes", "tasks", "queue", "scheduled_queue", "scheduled_counts", "due_tasks", "callback_slots", "requests"),
    *("directory", "failed_tasks", "schedules", "shared_limits"),
)


class MemoryContainer(Container):
    def __init__(self, settings: Settings, memory: Memory) -> None:
        super().__init__(settings)
        for port in PORTS:
            setattr(self, port, getattr(memory, port))

    def check_health(self) -> Iterable[tuple[str, str | None]]:
        return [("dynamodb", None), ("sqs", None)]


def _attributes(message: Any) -> dict[str, str]:
    return {
        "MessageGroupId": message.user_id,
        "ApproximateReceiveCount": str(message.receives),
        "SentTimestamp": str(message.sent_at),
    }
