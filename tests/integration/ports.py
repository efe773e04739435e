"""The adapters of each kind behind one face: the ports, and what a test needs to see behind them."""

import time
from typing import Any, Protocol

from chalicelib.container import Container
from chalicelib.core.ports import (
    CallbackSlots,
    DueTasks,
    FailedTasks,
    LaneDirectory,
    LaneStore,
    RequestStore,
    ScheduledCounts,
    ScheduleStore,
    SharedLimitStore,
    TaskQueue,
    TaskStore,
)
from tests.factories import VirtualClock, make_settings
from tests.integration.aws import Aws
from tests.memory.directory import MemoryLaneDirectory
from tests.memory.failed_tasks import MemoryFailedTasks
from tests.memory.requests import MemoryRequestStore
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


class Ports(Protocol):
    lanes: LaneStore
    tasks: TaskStore
    queue: TaskQueue
    scheduled_counts: ScheduledCounts
    callback_slots: CallbackSlots
    due_tasks: DueTasks
    schedules: ScheduleStore
    requests: RequestStore
    directory: LaneDirectory
    failed_tasks: FailedTasks
    shared_limits: SharedLimitStore
    #: moto takes a message again that it was sent before
    forgets_duplicates: bool

    def receive(self, user_id: str) -> list[tuple[str, str]]:
        """Body and receipt of each message of the user that can be had now."""
        ...

    def delete(self, receipt: str) -> None: ...

    def wait(self, seconds: int) -> None:
        """Lets so much time go by for the queue."""
        ...

    def dead_letters(self, user_id: str) -> list[tuple[str, str]]:
        """Body and reason of each dead letter of the user; they are gone then."""
        ...


class MemoryPorts:
    forgets_duplicates = False

    def __init__(self) -> None:
        self._clock = VirtualClock()
        self._memory_queue = MemoryTaskQueue(self._clock.now_ms)
        self.lanes: LaneStore = MemoryLaneStore()
        self.queue: TaskQueue = self._memory_queue
        memory_tasks = MemoryTaskStore()
        self.tasks: TaskStore = memory_tasks
        self.failed_tasks: FailedTasks = MemoryFailedTasks(memory_tasks)
        self.scheduled_counts: ScheduledCounts = MemoryScheduledCounts()
        self.callback_slots: CallbackSlots = MemoryCallbackSlots()
        self.due_tasks: DueTasks = MemoryDueTasks()
        self.schedules: ScheduleStore = MemoryScheduleStore()
        self.requests: RequestStore = MemoryRequestStore()
        self.shared_limits: SharedLimitStore = MemorySharedLimitStore()
        self.directory: LaneDirectory = MemoryLaneDirectory(self.lanes, self.tasks)

    def receive(self, user_id: str) -> list[tuple[str, str]]:
        received = self._memory_queue.receive(100)
        return [(message.body, message.receipt) for message in received if message.user_id == user_id]

    def delete(self, receipt: str) -> None:
        self._memory_queue.delete(receipt)

    def wait(self, seconds: int) -> None:
        self._clock.advance(seconds * 1_000)

    def dead_letters(self, user_id: str) -> list[tuple[str, str]]:
        return [(letter.body, letter.reason) for letter in self._memory_queue.dead_letters]


class AwsPorts:
    def __init__(self, aws: Aws, forgets_duplicates: bool) -> None:
        self._aws = aws
        self.forgets_duplicates = forgets_duplicates
        parts = Container(make_settings(**aws.environment))
        self.lanes: LaneStore = parts.lanes
        self.tasks: TaskStore = parts.tasks
        self.queue: TaskQueue = parts.queue
        self.scheduled_counts: ScheduledCounts = parts.scheduled_counts
        self.callback_slots: CallbackSlots = parts.callback_slots
        self.due_tasks: DueTasks = parts.due_tasks
        self.schedules: ScheduleStore = parts.schedules
        self.requests: RequestStore = parts.requests
        self.directory: LaneDirectory = parts.directory
        self.failed_tasks: FailedTasks = parts.failed_tasks
        self.shared_limits: SharedLimitStore = parts.shared_limits

    def receive(self, user_id: str) -> list[tuple[str, str]]:
        mine = []
        while found := self._receive(self._aws.queue_url):
            mine += [(m["Body"], m["ReceiptHandle"]) for m in found if m["Attributes"]["MessageGroupId"] == user_id]
        return mine

    def delete(self, receipt: str) -> None:
        self._aws.sqs.delete_message(QueueUrl=self._aws.queue_url, ReceiptHandle=receipt)

    def wait(self, seconds: int) -> None:
        time.sleep(seconds + 0.05)  # an emulator's clock is the real one

    def dead_letters(self, user_id: str) -> list[tuple[str, str]]:
        mine = []
        while found := self._receive(self._aws.dead_letter_url):
            for m in found:
                if m["Attributes"]["MessageGroupId"] == user_id:
                    mine.append((m["Body"], m["MessageAttributes"]["reason"]["StringValue"]))
                self._aws.sqs.delete_message(QueueUrl=self._aws.dead_letter_url, ReceiptHandle=m["ReceiptHandle"])
        return mine

    def _receive(self, queue_url: str) -> list[Any]:
        answer = self._aws.sqs.receive_message(
            QueueUrl=queue_url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=0,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return list(answer.get("Messages", ()))
