"""A whole Paceline in memory under a virtual clock: submits, the queue, and workers that can be many."""

from collections.abc import Callable
from itertools import count
from typing import Any

from chalicelib.core.contention import RetryWithJitter
from chalicelib.core.errors import UnavailableError
from chalicelib.core.ports import Presence
from chalicelib.core.task import Json, Task, TaskRecord
from chalicelib.lanes.clearance import Clearance
from chalicelib.lanes.control import Control
from chalicelib.submit.daily_cap import DailyCap
from chalicelib.submit.submission import Refused, Submission, Submitted, TaskRequest
from chalicelib.submit.submitter import Submitter
from chalicelib.tasks.registry import Registry
from chalicelib.tasks.runner import Call, Ended, Failed, InProcess, TaskRunner
from chalicelib.worker.execution import TaskExecutor
from chalicelib.worker.finalizer import Finalizer
from chalicelib.worker.lease_renewal import LeaseRenewer
from chalicelib.worker.messages import Deferred, Delivery, Done, Handled
from chalicelib.worker.progress import ProgressWriter
from chalicelib.worker.shared_claims import SharedClaims
from chalicelib.worker.worker import Worker
from tests.factories import NOW, VirtualClock, make_settings, task_id_of
from tests.memory.scheduled_queue import MemoryScheduledQueue
from tests.memory.shared_limits import MemorySharedLimitStore
from tests.memory.stores import (
    MemoryCompletionLog,
    MemoryDueTasks,
    MemoryLaneStore,
    MemoryScheduledCounts,
    MemoryTaskStore,
)
from tests.memory.task_queue import MemoryTaskQueue, Message


class Failing:
    """Stands before a port: the calls named fail as often as said, before or after they are done."""

    def __init__(self, port: Any, error: Exception | None = None) -> None:
        self._port = port
        self._error = error or UnavailableError("AWS is away")
        self._failures: dict[str, int] = {}
        self._after = False

    def fail(self, *calls: str, times: int = 1, after: bool = False, skip: int = 0) -> None:
        """skip: so many calls succeed before."""
        self._failures = dict.fromkeys(calls, times)
        self._after = after
        self._skip = skip

    def __len__(self) -> int:
        return len(self._port)

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._port, name)

        def call(*arguments: Any) -> Any:
            if not self._failures.get(name):
                return real(*arguments)
            if self._skip:
                self._skip -= 1
                return real(*arguments)
            self._failures[name] -= 1
            if self._after:
                real(*arguments)
            raise self._error

        return call if callable(real) else real


class WorkerDiedError(BaseException):
    """A task's function raises it to end its worker, as a kill would."""


class MortalRunner(InProcess):
    """Runs functions in this process, and dies with those that raise WorkerDiedError."""

    def run(self, call: Call) -> Ended:
        ended = super().run(call)
        if isinstance(ended, Failed) and ended.error.startswith(WorkerDiedError.__name__):
            raise WorkerDiedError
        return ended


class Workshop:
    def __init__(self, presence: Presence | None = None, **env: str) -> None:
        self.presence = presence
        self.settings = make_settings(**env)
        self.clock = VirtualClock()
        self.lanes = Failing(MemoryLaneStore())
        self.tasks = Failing(MemoryTaskStore())
        self.shared_limits = Failing(MemorySharedLimitStore())
        self.scheduled_counts = Failing(MemoryScheduledCounts())
        self.due_tasks = Failing(MemoryDueTasks())
        self.queue = Failing(MemoryTaskQueue(self.clock.now_ms))
        self.scheduled_queue = Failing(MemoryScheduledQueue(self.clock.now_ms))
        self.log = Failing(MemoryCompletionLog(), OSError("no space left on device"))
        self.registry = Registry()
        self.register("log", lambda payload: None)
        #: what ran: the time in ms since the beginning, and the payload
        self.ran: list[tuple[int, Json]] = []
        self.handled: list[tuple[int, Handled]] = []
        self._numbers = count(1)
        self._tokens = count(1)
        self.processes_ended = 0
        self.task_runner: TaskRunner = MortalRunner()
        self._worker = self.new_worker()

    def register(self, name: str, function: Callable[[Json], Json]) -> None:
        def recorded(payload: Json) -> Json:
            self.ran.append((self.clock.now_ms() - NOW, payload))
            return function(payload)

        self.registry.task(name)(recorded)

    def new_worker(self) -> Worker:
        """A worker of a new process: it remembers no lane and no pending outcome."""
        clock, settings = self.clock, self.settings
        self.renewer = LeaseRenewer(self.lanes, clock, in_background=False)
        self.progress = ProgressWriter(self.tasks, clock, in_background=False)
        stores = (self.tasks, self.queue, self.log)
        self.finalizer = Finalizer(*stores, clock, self.renewer, settings.stage, self.scheduled_queue)
        stores = (self.shared_limits, self.lanes, self.queue)
        self.shared = SharedClaims(*stores, clock, settings, presence=self.presence)
        self.executor = TaskExecutor(
            self.lanes, self.tasks, self.registry, clock, settings, self.renewer, self.finalizer, self._end_process,
            self.task_runner, self.shared, progress=self.progress,
        )  # fmt: skip
        token = lambda: f"token-{next(self._tokens)}"  # noqa: E731
        runs = (self.executor, self.finalizer)
        stores = (self.lanes, self.tasks, self.queue)
        return Worker(*stores, *runs, clock, token, settings, self.presence, shared=self.shared)

    def _end_process(self) -> None:
        self.processes_ended += 1

    def replace_worker(self) -> None:
        """The process died; another takes its place."""
        self._worker = self.new_worker()

    def submit(self, user_id: str = "ann", payload: Json = None, name: str = "log", **counted: Any) -> Task:
        """counted: `shared` and `units` of the task."""
        outcome = self.try_submit_many(user_id, TaskRequest(name, payload), **counted)
        assert isinstance(outcome, Submitted)
        return self.stored(outcome)[0]

    def try_submit(self, user_id: str = "ann", payload: Json = None, name: str = "log") -> Submitted | Refused:
        return self.try_submit_many(user_id, TaskRequest(name, payload))

    def try_submit_many(self, user_id: str, *new: TaskRequest, shared: str = "", units: int = 1) -> Submitted | Refused:
        ids = [task_id_of(next(self._numbers)) for _ in new]
        serve = self.submitter.submit if len(new) == 1 else self.submitter.submit_bulk
        counted = {"shared": [shared] * len(new), "units": [units] * len(new) if units != 1 else []}
        return serve(Submission(user_id, new, self.clock.now_ms(), **counted), ids)

    def stored(self, submitted: Submitted) -> list[Task]:
        records = [self.tasks.get(task.user_id, task.task_id) for task in submitted.tasks]
        return [record.task for record in records]

    @property
    def submitter(self) -> Submitter:
        races = RetryWithJitter(self.clock, lambda: 0.5)
        daily_cap = DailyCap(self.scheduled_counts, self.settings.max_scheduled)
        stores = (self.lanes, self.tasks, self.queue)
        scheduling = {"scheduled_queue": self.scheduled_queue, "daily_cap": daily_cap, "due_tasks": self.due_tasks}
        return Submitter(*stores, races, self.settings, **scheduling)

    @property
    def control(self) -> Control:
        races = RetryWithJitter(self.clock, lambda: 0.5)
        return Control(
            self.lanes,
            self.tasks,
            self.queue,
            self.clock,
            races,
            self.settings,
            self.scheduled_queue,
            self.shared_limits,
        )

    @property
    def clearance(self) -> Clearance:
        races = RetryWithJitter(self.clock, lambda: 0.5)
        stores, queues = (self.lanes, self.tasks, self.due_tasks), (self.queue, self.scheduled_queue)
        return Clearance(*stores, *queues, self.clock, races, self.settings, lambda _: None, self.shared_limits)

    def deliver(self, message: Message, worker: Worker | None = None) -> Handled:
        """Hands one message over as the event source does: deleted when done, else left as the worker left it."""
        delivery = Delivery(
            message.body, message.receipt, message.user_id, message.message_id, message.sent_at, message.receives
        )
        outcome = (worker or self._worker).handle(delivery)
        self.handled.append((self.clock.now_ms() - NOW, outcome))
        if isinstance(outcome, Done):
            self.queue.delete(message.receipt)
        return outcome

    def receive(self) -> Message:
        [message] = self.queue.receive()
        return message

    def handle_next(self) -> Handled:
        return self.deliver(self.receive())

    def run(self, until_ms: int | None = None) -> None:
        """Handles what comes until the queue is empty, or until that time; an AWS failure leaves the message hidden."""
        while (next_at := self.queue.next_available_at()) is not None:
            if until_ms is not None and max(next_at, self.clock.now_ms()) >= NOW + until_ms:
                return
            self.clock.sleep_until(next_at)
            for message in self.queue.receive():
                try:
                    self.deliver(message)
                except UnavailableError:
                    continue

    @property
    def started_ms(self) -> list[int]:
        return [at for at, _ in self.ran]

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(self.log.events)

    def event_of(self, task: Task) -> dict[str, Any]:
        [event] = [event for event in self.log.events if event["task_id"] == task.task_id]
        return event

    def record(self, task: Task) -> TaskRecord:
        record = self.tasks.get(task.user_id, task.task_id)
        assert record is not None
        return record

    @property
    def deferrals(self) -> list[int]:
        """When each deferral was made, ms since the beginning."""
        return [at for at, outcome in self.handled if isinstance(outcome, Deferred)]
