"""A claimed task's attempt: run its function, keep its lease, log and note how it ended."""

import json
import logging
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from chalicelib.core.errors import PayloadError, PermanentError, RetryAfter, UnavailableError
from chalicelib.core.lane import FOREVER_MS, Lease, Start
from chalicelib.core.limits import format_limits
from chalicelib.core.ports import Clock, CompletionLog, LaneStore, ScheduledQueue, TaskQueue, TaskStore
from chalicelib.core.scheduled import Callback
from chalicelib.core.task import Json, Outcome, Task, TaskState, describe, printable
from chalicelib.settings import Settings
from chalicelib.tasks.registry import Context, Registry
from chalicelib.worker.lease_renewal import LeaseKeeper

#: A failed log or note is tried so often, a second apart: running the task again would be worse.
FINALIZE_TRIES = 10
MAX_BACKOFF_MS = 3_600_000
#: A task is held so often, though each costs no attempt: each is a receive or more, and SQS takes 1,000 of those.
MAX_THROTTLES = 200
#: Bytes of a result as JSON; with the largest payload it stays below the 400 KB of a DynamoDB item.
MAX_RESULT = 131_072
METRICS_NAMESPACE = "Paceline"


class Retry(Struct, frozen=True):
    """The attempt failed; the next one may start at `at`, epoch ms."""

    at: int


class _Result(Struct, frozen=True):
    value: Json


class _Failure(Struct, frozen=True):
    error: str
    #: trying again is of no use
    is_final: bool = False


class _Ending(Struct):
    """An end that is still to be logged and noted."""

    task: Task
    outcome: Outcome
    event: dict[str, Any]
    dead_lettered: bool = False
    logged: bool = False
    #: its callback is on its way
    told: bool = False


class Attempts:
    """Runs attempts. What ended and could not be logged or noted is kept, so that it need not run again."""

    def __init__(
        self,
        lanes: LaneStore,
        tasks: TaskStore,
        queue: TaskQueue,
        log: CompletionLog,
        registry: Registry,
        clock: Clock,
        settings: Settings,
        keeper: LeaseKeeper,
        end_process: Callable[[], None],
        scheduled_queue: ScheduledQueue | None = None,
    ) -> None:
        """scheduled_queue: tells of ends; None in a deployment where nobody is told.

        end_process: called when a task did not end by its deadline, since nothing else stops a function."""
        self._lanes = lanes
        self._tasks = tasks
        self._queue = queue
        self._log = log
        self._registry = registry
        self._clock = clock
        self._settings = settings
        self._pending: dict[str, _Ending] = {}
        self._keeper = keeper
        self._end_process = end_process
        self._scheduled_queue = scheduled_queue

    def run(self, task: Task, start: Start) -> Retry | None:
        """Runs the task's function once; None when the task has ended, logged and noted.

        UnavailableError when it ended but that could not be logged or noted; `settle` finishes it later.
        """
        lease = start.lane.running
        assert lease is not None
        deadline_at = start.at + self._deadline_ms(task)
        with self._keeper.keeping(task.user_id, lease, deadline_at, lambda: self._expire(task, start)) as kept:
            outcome = self._call(task, start)
        if kept.is_expired:
            # The keeper's thread ends it; until that is noted, the message has to stay.
            raise UnavailableError(f"{task.task_id} ran out of time")
        now_ms = max(self._clock.now_ms(), start.at)
        if isinstance(outcome, _Result):
            self._end(task, start, Outcome(TaskState.SUCCEEDED, start.at, now_ms, start.attempt, result=outcome.value))
            return None
        if isinstance(outcome, RetryAfter) and len(lease.starts) - start.attempt < MAX_THROTTLES:
            return self._hold(task, lease, outcome, now_ms)
        if isinstance(outcome, RetryAfter):
            outcome = _Failure(f"told to slow down {MAX_THROTTLES} times, at last: {describe(outcome)}", is_final=True)
        if outcome.is_final or start.attempt >= self.most(task):
            self._end(task, start, Outcome(TaskState.FAILED, start.at, now_ms, start.attempt, error=outcome.error))
            return None
        retry = Retry(now_ms + self._backoff_ms(task, start.attempt))
        self._lanes.release_lease(task.user_id, lease, retry.at)
        self._tasks.attempt_failed(task, start.attempt, outcome.error)
        return retry

    def most(self, task: Task) -> int:
        """How many attempts the task has."""
        definition = self._registry.get(task.name)
        return (definition and definition.max_attempts) or self._settings.max_attempts

    def _hold(self, task: Task, lease: Lease, told: RetryAfter, now_ms: int) -> Retry:
        """Keeps the whole lane back, for whoever told this task to slow down means all of its user's."""
        until = now_ms + round(told.seconds * 1000)
        self._lanes.throttle(task.user_id, lease, until, printable(told.reason[:200]))
        return Retry(until)

    def give_up(self, task: Task, start: Start) -> None:
        """Ends a task whose attempts are used up although none reported its end: its workers died."""
        error = f"its worker died or ran out of time in each of {start.attempt - 1} attempts"
        last = start.lane.running.starts[-2] if start.lane.running else start.at
        self._end(task, start, Outcome(TaskState.FAILED, last, self._clock.now_ms(), start.attempt - 1, error=error))

    def cancelled(self, task: Task, outcome: Outcome | None = None) -> None:
        """Ends a task that was cancelled before it started; `ended` where that is noted already."""
        outcome = outcome or Outcome(TaskState.CANCELLED, None, self._clock.now_ms(), 0)
        self._settle(_Ending(task, outcome, self._event(task, outcome, None)))

    def is_pending(self, task: Task) -> bool:
        """The task has ended in this process, and that is not yet logged and noted."""
        return task.task_id in self._pending

    def settle(self, task: Task) -> None:
        """Logs and notes what could not be before."""
        self._settle(self._pending[task.task_id])

    def _call(self, task: Task, start: Start) -> _Result | _Failure | RetryAfter:
        if task.name not in self._registry:
            return _Failure(f"there is no task {task.name!r} in this deployment", is_final=True)
        try:
            result = self._registry[task.name].run(task.payload, self._context(task, start))
        except RetryAfter as told:
            return told
        except (PayloadError, PermanentError) as error:
            return _Failure(describe(error), is_final=True)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a task raises is a failed attempt
            return _Failure(describe(error))
        return _checked(result)

    def _context(self, task: Task, start: Start) -> Context:
        deadline_at, logger = start.at + self._deadline_ms(task), logging.getLogger(f"paceline.{task.name}")
        return Context(task.user_id, task.task_id, task.name, task.seq, start.attempt, deadline_at, logger)

    def _deadline_ms(self, task: Task) -> int:
        definition = self._registry.get(task.name)
        return (definition and definition.deadline_ms) or self._settings.deadline_ms

    def _expire(self, task: Task, start: Start) -> None:
        """Fails a task that did not end, for good: its function may still be running until the process is gone."""
        error = f"it did not end within {self._deadline_ms(task) / 1000:g} s"
        try:
            self._end(
                task, start, Outcome(TaskState.FAILED, start.at, self._clock.now_ms(), start.attempt, error=error)
            )
        except UnavailableError:
            pass  # the next attempt will tell
        finally:
            self._end_process()

    def _backoff_ms(self, task: Task, attempt: int) -> int:
        definition = self._registry[task.name]
        first_ms = self._settings.backoff_ms if definition.backoff_ms is None else definition.backoff_ms
        return int(min(first_ms * 2 ** (attempt - 1), MAX_BACKOFF_MS))

    def _end(self, task: Task, start: Start, outcome: Outcome) -> None:
        """Its lease is kept until its end is noted, or another worker could run it again meanwhile."""
        ending, lease = _Ending(task, outcome, self._event(task, outcome, start)), start.lane.running
        assert lease is not None
        with self._keeper.keeping(task.user_id, lease, FOREVER_MS, lambda: None):
            self._settle(ending)

    def _settle(self, ending: _Ending) -> None:
        """Logs, then notes: a crash between the two runs the task again rather than leaving its end unlogged.

        A failed task is copied to the dead-letter queue first, for the same reason.
        """
        self._pending[ending.task.task_id] = ending
        for last in [False] * (FINALIZE_TRIES - 1) + [True]:
            try:
                if ending.outcome.state is TaskState.FAILED and not ending.dead_lettered:
                    self._dead_letter(ending)
                if not ending.logged:
                    self._log.write(ending.event | self._metrics(ending.event))
                    ending.logged = True
                if ending.task.callback_url and not ending.told:
                    self._call_back(ending)
                self._tasks.finish(ending.task, ending.outcome)
                break
            except (OSError, UnavailableError) as error:
                if last:
                    raise UnavailableError(f"the end of {ending.task.task_id} is not noted: {error}") from error
                self._clock.sleep(1000)
        self._pending.pop(ending.task.task_id, None)  # an message that came twice at once settles an end twice

    def _call_back(self, ending: _Ending) -> None:
        task = ending.task
        if self._scheduled_queue is not None and task.callback_url:
            begun_at = self._clock.now_ms()
            callback = Callback(task.user_id, task.task_id, task.callback_url, ending.event, begun_at)
            self._scheduled_queue.send([(callback, 0)])
        ending.told = True

    def _dead_letter(self, ending: _Ending) -> None:
        task = ending.task
        self._queue.send_dead(task.user_id, task.task_id, task.to_message(), ending.outcome.error or "")
        ending.dead_lettered = True

    def _event(self, task: Task, outcome: Outcome, start: Start | None) -> dict[str, Any]:
        word = {TaskState.SUCCEEDED: "completed"}.get(outcome.state, outcome.state.value)
        planned_at = start.planned_at if start else task.planned_at
        first = start.lane.running.starts[0] if start and start.lane.running else outcome.started_at
        late_ms = None if first is None or outcome.started_at is None else first - planned_at
        event: dict[str, Any] = {
            "timestamp": outcome.completed_at,
            "event": f"task_{word}",
            "user_id": task.user_id,
            "task_id": task.task_id,
            "seq": task.seq,
            "task": task.name,
            "planned_at": planned_at,
            "started_at": outcome.started_at,
            "completed_at": outcome.completed_at,
            "late_ms": late_ms,
            "attempt": outcome.attempts,
        }
        if outcome.state is TaskState.SUCCEEDED:
            event["result"] = outcome.result
        elif outcome.error:
            event["error"] = outcome.error
        if start:
            event |= _other_starts(start, outcome) | _own_limits(start)
        return event

    def _metrics(self, event: dict[str, Any]) -> dict[str, Any]:
        """CloudWatch's embedded metric format: the metrics of this line, by stage. Never by user: each would cost."""
        values = {event["event"]: 1}
        if event["started_at"] is not None:
            values |= {"run_ms": event["completed_at"] - event["started_at"]}
        units = {"run_ms": "Milliseconds", "late_ms": "Milliseconds", event["event"]: "Count"}
        names = [*values, "late_ms"] if event["late_ms"] is not None else list(values)
        directive = {
            "Namespace": METRICS_NAMESPACE,
            "Dimensions": [["stage"]],
            "Metrics": [{"Name": name, "Unit": units[name]} for name in names],
        }
        aws = {"Timestamp": event["timestamp"], "CloudWatchMetrics": [directive]}
        return {"stage": self._settings.stage, **values, "_aws": aws}


def _checked(result: Json) -> _Result | _Failure:
    """The result if it can be kept."""
    try:
        size = len(json.dumps(result, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, TypeError, RecursionError) as error:
        return _Failure(f"the result is not JSON: {describe(error)}", is_final=True)
    if size > MAX_RESULT:
        return _Failure(f"the result has {size} bytes as JSON; at most {MAX_RESULT} are kept", is_final=True)
    return _Result(result)


def _other_starts(start: Start, outcome: Outcome) -> dict[str, Any]:
    """The starts of earlier attempts: they count against the pace too."""
    lease = start.lane.running
    earlier = [at for at in (lease.starts if lease else ()) if outcome.started_at is None or at < outcome.started_at]
    return {"starts": earlier} if earlier else {}


def _own_limits(start: Start) -> dict[str, Any]:
    return {"limits": format_limits(start.lane.limits)} if start.lane.limits else {}
