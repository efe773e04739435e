"""Event source mappings: the simulator's, and those of an emulator that runs functions."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from chalicelib.core.errors import UnavailableError
from chalicelib.scheduled.dispatcher import ScheduledDelivery
from chalicelib.worker.messages import Delivery, Done
from tests.facts.functions import Functions
from tests.facts.queues import SQSQueue, SQSQueues
from tests.memory.scheduled_queue import MemoryScheduledQueue
from tests.memory.task_queue import MemoryTaskQueue
from tests.simulation.schedule import Plan
from tests.simulation.world import ScheduledSource, Source, World

#: A record of the event that a function gets.
Record = dict[str, Any]
#: A function's answer to records. ValueError: the function fails.
Answer = Callable[[list[Record], "Mapping"], Any]

#: Seconds.
PATIENCE = 25


class Mapping(ABC):
    """One new queue, and the mapping that hands its messages to one function."""

    @abstractmethod
    def send(self, *bodies: str) -> None: ...

    @abstractmethod
    def start(self, batch_size: int) -> None: ...

    @abstractmethod
    def now(self) -> float:
        """Epoch seconds."""

    @abstractmethod
    def run_for(self, seconds: float) -> None:
        """Lets the running function take that long."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Lets the scenario wait."""

    @abstractmethod
    def _dead_letters(self) -> list[str]: ...

    def wait_until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        give_up_at = self.now() + seconds
        while not condition() and self.now() < give_up_at:
            self.sleep(0.2)
        return condition()

    def wait_for_dead_letters(self, count: int, seconds: float = PATIENCE) -> list[str]:
        found: list[str] = []

        def enough() -> bool:
            found.extend(self._dead_letters())
            return len(found) >= count

        self.wait_until(enough, seconds)
        return found


class EventSources(Protocol):
    def mapping(
        self, answer: Answer, visibility: int = 30, max_receives: int = 1_000, is_fifo: bool = True
    ) -> Mapping: ...


class LambdaMapping(Mapping):
    def __init__(self, functions: Functions, queues: SQSQueues, queue: SQSQueue, answer: Answer) -> None:
        self._functions = functions
        self._queue = queue
        self._arn = queues.arn(queue.url)
        self._name, _ = functions.deploy(lambda event: answer(event["Records"], self))

    def send(self, *bodies: str) -> None:
        self._queue.send_all(*bodies)

    def start(self, batch_size: int) -> None:
        client = self._functions.client("lambda")
        mapping = client.create_event_source_mapping(
            EventSourceArn=self._arn,
            FunctionName=self._name,
            BatchSize=batch_size,
            FunctionResponseTypes=["ReportBatchItemFailures"],
        )
        self._functions.remove_later(lambda: client.delete_event_source_mapping(UUID=mapping["UUID"]))

    def now(self) -> float:
        return time.time()

    def run_for(self, seconds: float) -> None:
        time.sleep(seconds)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # an emulator's clock is the real one

    def _dead_letters(self) -> list[str]:
        return self._queue.dead_letters()


class LambdaSources:
    def __init__(self, functions: Functions) -> None:
        self._functions = functions
        self.queues = SQSQueues(functions.client("sqs"))

    def mapping(
        self, answer: Answer, visibility: int = 30, max_receives: int = 1_000, is_fifo: bool = True
    ) -> LambdaMapping:
        make = self.queues.fifo if is_fifo else self.queues.standard
        return LambdaMapping(self._functions, self.queues, make(visibility, max_receives), answer)


class _Function:
    """Stands in for the code of a simulated worker machine."""

    def __init__(self, mapping: "SimulatedMapping", answer: Answer) -> None:
        self._mapping = mapping
        self._answer = answer
        self._first_received_at: dict[str, str] = {}

    def handle(self, delivery: Delivery | ScheduledDelivery) -> Any:
        now = str(round(self._mapping.now() * 1_000))
        attributes = {
            "ApproximateReceiveCount": delivery.receipt.rpartition("#")[2],
            "ApproximateFirstReceiveTimestamp": self._first_received_at.setdefault(delivery.message_id, now),
        }
        record = {"messageId": delivery.message_id, "body": json.loads(delivery.body)["body"], "attributes": attributes}
        try:
            self._answer([record], self._mapping)
        except ValueError as error:
            raise UnavailableError("the function failed") from error
        return Done()


class SimulatedMapping(Mapping):
    """The simulator's own queue, event source and worker machines, without faults, by its virtual time."""

    def __init__(self, answer: Answer, visibility: int, is_fifo: bool) -> None:
        self._world = world = World(Plan(0, "1/second", is_lambda=True, workers=3, offsets=(0,) * 5, actions=()))
        self._is_fifo = is_fifo
        world.queue = MemoryTaskQueue(lambda: world.timeline.now, visibility * 1_000)
        world.scheduled_queue = MemoryScheduledQueue(lambda: world.timeline.now, visibility * 1_000)
        world.source, world.scheduled_source = Source(world), ScheduledSource(world)
        function: Any = _Function(self, answer)
        for worker in world.workers:
            worker._worker = worker._scheduled_messages = function
            worker._done._port = world.scheduled_queue

    def send(self, *bodies: str) -> None:
        for body in bodies:
            if self._is_fifo:
                self._world.queue.send_body(body[0], body, json.dumps({"body": body}))
            else:
                self._world.scheduled_queue.send_body(json.dumps({"body": body}))

    def start(self, batch_size: int) -> None:
        assert batch_size == 1
        self._world.source.look()
        self._world.scheduled_source.look()

    def now(self) -> float:
        return self._world.timeline.now / 1_000

    def run_for(self, seconds: float) -> None:
        process = self._world.timeline.current
        assert process is not None
        process.wait(round(seconds * 1_000))

    def sleep(self, seconds: float) -> None:
        timeline = self._world.timeline
        until = timeline.now + round(seconds * 1_000)
        while timeline.run_next(until):
            pass
        timeline.now = until

    def _dead_letters(self) -> list[str]:
        return [letter.body for letter in self._world.queue.dead_letters]


class SimulatedSources:
    def mapping(
        self, answer: Answer, visibility: int = 30, max_receives: int = 1_000, is_fifo: bool = True
    ) -> SimulatedMapping:
        return SimulatedMapping(answer, visibility, is_fifo)
