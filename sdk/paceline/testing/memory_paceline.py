"""A whole Paceline in memory: submits, lanes, queue and workers, which are the real ones, under a virtual clock."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from chalicelib.container import new_id
from chalicelib.core.errors import UnavailableError
from chalicelib.core.limits import parse_limits
from chalicelib.core.views import TaskView
from chalicelib.scheduled.dispatcher import ScheduledDelivery
from chalicelib.settings import OverLimit, Settings
from chalicelib.submit.submission import Refused, Submission, TaskRequest
from chalicelib.tasks.runner import Call
from chalicelib.worker.messages import Deferred, Delivery
from paceline.testing.parts import MemoryContainer, VirtualRunner
from paceline.testing.timeline import Timeline
from paceline.testing.values import Start, SubmittedTask, Task

#: 2026-01-05 12:00 UTC, a Monday: when each MemoryPaceline begins, epoch ms.
BEGINNING = 1_767_614_400_000


class RefusedError(Exception):
    """The submit queued nothing. retry_at: seconds since the beginning at which it would be accepted."""

    def __init__(self, reason: str, retry_at: float) -> None:
        super().__init__(reason)
        self.retry_at = retry_at


class MemoryPaceline:
    """Runs the tasks that are registered with `@task`; nothing leaves the process, and time passes by `advance`."""

    def __init__(self, *, takes: Mapping[str, float] | None = None, **settings: str | int) -> None:
        """takes: virtual seconds that each run of a task takes, by its name; a task that is not listed takes none.

        settings: Paceline's settings by their names: `LIMITS="1/second"`, `MAX_ATTEMPTS=5`; `TASKS_DIR="tasks"` loads
        this folder as a running Paceline does. Raises SettingError for a value that Paceline would refuse, ValueError
        for the name of no setting or task.
        """
        self._timeline = Timeline(BEGINNING)
        self._starts: list[Start] = []
        runner = VirtualRunner(self._timeline, takes or {}, self._record_start)
        self._parts = MemoryContainer(_read(settings), self._timeline, runner)
        self._queue, self._scheduled_queue = self._parts.memory_queue, self._parts.memory_scheduled_queue
        registry = self._parts.registry
        if unknown := [name for name in takes or {} if name not in registry]:
            raise ValueError(f"takes: there is no task {unknown[0]!r}; there are: {self._names}")

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._seconds(self._timeline.now)

    @property
    def starts(self) -> list[Start]:
        """All starts so far, oldest first; an attempt that follows a failed one is a start too."""
        return list(self._starts)

    def starts_of(self, user_id: str) -> list[float]:
        """When this user's tasks started."""
        return [start.at for start in self._starts if start.user_id == user_id]

    def submit(
        self,
        user_id: str,
        payload: Any = None,
        task: str = "log",
        *,
        delay_seconds: float | None = None,
        units: int | None = None,
        strict: bool = False,
    ) -> SubmittedTask:
        """Submits one task; over the limit it is `queued` and waits.

        delay_seconds: when it joins its lane. units: what it counts for in limits of units; None for what its
        definition says. strict: raise RefusedError over the limit. Raises PayloadError if the payload does not match
        the task's function, and ValueError for a task that was not registered.
        """
        request = TaskRequest(task, payload, delay_seconds=delay_seconds, units=units)
        over_limit = OverLimit.REJECT if strict else self._parts.settings.over_limit
        units_of_it, shared = self._counted(request)
        submission = Submission(
            user_id, [request], self._timeline.now, over_limit, units=[units_of_it], shared=[shared]
        )
        outcome = self._parts.submitter.submit(submission, [new_id()])
        if isinstance(outcome, Refused):
            raise RefusedError(outcome.reason, self._seconds(outcome.retry_at))
        [task_] = outcome.tasks
        at = self._seconds(task_.planned_at)
        return SubmittedTask(task_.task_id, user_id, task_.seq, task_.position, at, task_.queued)

    def advance(self, seconds: float) -> None:
        """Lets this much time pass: tasks start, retry and end meanwhile, those included that are due at its end."""
        end = self._timeline.now + round(seconds * 1000)
        while (next_at := self._next_at()) is not None and next_at <= end:
            self._step(next_at)
        self._timeline.now = max(self._timeline.now, end)

    def run(self, at_most_seconds: float = 86_400) -> None:
        """Lets time pass until no task waits or runs. Raises TimeoutError if some still do after `at_most_seconds`."""
        end = self._timeline.now + round(at_most_seconds * 1000)
        while (next_at := self._next_at()) is not None:
            if next_at > end:
                raise TimeoutError(f"after {at_most_seconds:g} s tasks still wait: a lane may be paused")
            self._step(next_at)

    def task(self, task: SubmittedTask) -> Task:
        """Returns the task's state now."""
        return self._task(self._parts.control.task(task.user_id, task.task_id))

    def cancel(self, task: SubmittedTask) -> Task:
        """Cancels a task that waits, and asks a running one to stop."""
        return self._task(self._parts.control.cancel(task.user_id, task.task_id))

    def set_limits(self, user_id: str, limits: str | None) -> None:
        """Sets the user's own limits, such as `5/second; 100/minute`; None for those of LIMITS."""
        self._parts.control.set_limits(user_id, None if limits is None else parse_limits(limits))

    def pause(self, user_id: str, seconds: float | None = None) -> None:
        """Pauses the user's lane, without an end if seconds is None."""
        self._parts.control.pause(user_id, None if seconds is None else self._timeline.now + round(seconds * 1000))

    def resume(self, user_id: str) -> None:
        """Ends the pause of the user's lane, and its throttling."""
        self._parts.control.resume(user_id)

    def sleep(self, seconds: float) -> None:
        """For code that a task runs: virtual time passes in it, while other tasks go on."""
        self._timeline.sleep(round(seconds * 1000))

    # The queue's side.

    def _next_at(self) -> int | None:
        """When something may happen next, epoch ms; None when nothing will."""
        queues = (self._queue.next_available_at(), self._scheduled_queue.next_available_at())
        times = [at for at in (self._timeline.next_at, *queues) if at is not None]
        return max(min(times), self._timeline.now) if times else None

    def _step(self, at: int) -> None:
        self._timeline.now = at
        is_new, next_at = self._receive(), self._timeline.next_at
        self._timeline.run_due()
        if not is_new and (next_at is None or next_at > at):
            self._timeline.now += 1  # what is visible can't be received yet

    def _receive(self) -> bool:
        """Starts a process for each message that is visible."""
        found = False
        while messages := self._queue.receive():
            for message in messages:
                found = True
                self._timeline.spawn(partial(self._work, message))
        while scheduled := self._scheduled_queue.receive():
            found = True
            self._timeline.spawn(partial(self._dispatch, scheduled))
        return found

    def _work(self, message: Any) -> None:
        fields = (message.body, message.receipt, message.user_id, message.message_id, message.sent_at, message.receives)
        try:
            if not isinstance(self._parts.worker.handle(Delivery(*fields)), Deferred):
                self._queue.delete(message.receipt)
        except UnavailableError:
            pass  # the message comes back

    def _dispatch(self, delivery: ScheduledDelivery) -> None:
        if self._parts.dispatcher.handle(delivery):
            self._scheduled_queue.delete(delivery.receipt)

    # Values.

    def _counted(self, request: TaskRequest) -> tuple[int, str]:
        """The task's units and its shared limit, empty for none."""
        definition = self._parts.registry.get(request.task)
        if definition is None:
            raise ValueError(f"there is no task {request.task!r}; there are: {self._names}")
        arguments = definition.arguments(request.payload)
        return request.units or definition.units_of(arguments), definition.shared_of(arguments)

    @property
    def _names(self) -> str:
        return ", ".join(self._parts.registry.names)

    def _record_start(self, call: Call) -> None:
        context = call.context
        fields = (context.user_id, context.task_id, context.name, call.payload, context.attempt)
        self._starts.append(Start(self.now, *fields))

    def _task(self, view: TaskView) -> Task:
        record, outcome = view.record, view.record.outcome
        return Task(
            record.task.task_id,
            record.task.user_id,
            record.task.seq,
            record.task.name,
            view.state.value,
            view.position,
            None if view.started_at is None else self._seconds(view.started_at),
            self._seconds(outcome.completed_at) if outcome else None,
            view.attempts,
            outcome.result if outcome else None,
            outcome.error if outcome else record.error,
            (view.progress.fraction, view.progress.text) if view.progress else None,
        )

    def _seconds(self, at: int) -> float:
        """Returns an epoch time as seconds since the beginning."""
        return (at - BEGINNING) / 1000


class _Environment(dict[str, str]):
    """Remembers the names that were asked for: those of all settings."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.asked = set[str]()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


def _read(settings: Mapping[str, str | int]) -> Settings:
    environment = _Environment({name: str(value) for name, value in settings.items()})
    read = Settings.from_env(environment)
    if unknown := sorted(set(settings) - environment.asked):
        raise ValueError(f"{unknown[0]} is not a setting; there are: {', '.join(sorted(environment.asked))}")
    return read
