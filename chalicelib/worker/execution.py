"""Runs one attempt of a claimed task: calls its function, keeps its deadline, and decides between outcome and retry."""

import json
import logging
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from chalicelib.core.claim import Start
from chalicelib.core.errors import PayloadError, PermanentError, RetryAfter, UnavailableError
from chalicelib.core.lane import MARKED_AFTER_MS, Lease, with_run_time
from chalicelib.core.ports import Clock, LaneStore, TaskStore
from chalicelib.core.task import Json, Outcome, Task, TaskState, describe, printable
from chalicelib.settings import Settings
from chalicelib.tasks.registry import Context, Registry
from chalicelib.worker.finalizer import Finalizer
from chalicelib.worker.lease_renewal import LeaseRenewer

MAX_BACKOFF_MS = 3_600_000
#: Throttlings of one task. They use no attempt, but each costs at least one receive, of which SQS allows 1,000.
MAX_THROTTLES = 200
#: Bytes of a result as JSON; with the largest payload it stays below the 400 KB of a DynamoDB item.
MAX_RESULT_BYTES = 131_072


class Retry(Struct, frozen=True):
    """The attempt failed; the next one may start at `at`, epoch ms."""

    at: int


class Ran(Struct, frozen=True):
    """The task is finished; its function ran for `took_ms`."""

    took_ms: int


class _Result(Struct, frozen=True):
    value: Json


class _Failure(Struct, frozen=True):
    error: str
    #: a retry cannot succeed
    is_permanent: bool = False


class TaskExecutor:
    def __init__(
        self,
        lanes: LaneStore,
        tasks: TaskStore,
        registry: Registry,
        clock: Clock,
        settings: Settings,
        renewer: LeaseRenewer,
        finalizer: Finalizer,
        end_process: Callable[[], None],
    ) -> None:
        """end_process: called when a task passed its deadline, since nothing else stops a function."""
        self._lanes = lanes
        self._tasks = tasks
        self._registry = registry
        self._clock = clock
        self._settings = settings
        self._renewer = renewer
        self._finalizer = finalizer
        self._end_process = end_process

    def run(self, task: Task, start: Start) -> Retry | Ran:
        """Runs the task's function once; Ran when the task is finished, its outcome logged and stored.

        UnavailableError when it is finished and its outcome could not be logged or stored; the finalizer keeps it.
        """
        lease = start.lane.running
        assert lease is not None, "a start has a lease"
        deadline_at = start.at + self._deadline_ms(task)
        expire = lambda: self._expire(task, start)  # noqa: E731
        with self._renewer.renewing(task.user_id, lease, deadline_at, expire) as running:
            ended = self._call(task, start)
        if running.is_expired:
            # The renewer's thread finalizes it; until that is stored, the message has to stay.
            raise UnavailableError(f"{task.task_id} ran out of time")
        return self._finish_or_retry(task, start, lease, ended)

    def knows(self, task: Task) -> bool:
        return task.name in self._registry

    def max_attempts(self, task: Task) -> int:
        definition = self._registry.get(task.name)
        return (definition and definition.max_attempts) or self._settings.max_attempts

    def _finish_or_retry(
        self, task: Task, start: Start, lease: Lease, ended: _Result | _Failure | RetryAfter
    ) -> Retry | Ran:
        now_ms = max(self._clock.now_ms(), start.at)
        if isinstance(ended, RetryAfter):
            if len(lease.starts) - start.attempt < MAX_THROTTLES:
                return self._throttle(task, lease, ended, now_ms)
            ended = _Failure(f"throttled {MAX_THROTTLES} times, at last: {describe(ended)}", is_permanent=True)
        if isinstance(ended, _Result):
            outcome = Outcome(TaskState.SUCCEEDED, start.at, now_ms, start.attempt, result=ended.value)
            return self._finish(task, start, outcome)
        if ended.is_permanent or start.attempt >= self.max_attempts(task):
            outcome = Outcome(TaskState.FAILED, start.at, now_ms, start.attempt, error=ended.error)
            return self._finish(task, start, outcome)
        retry = Retry(now_ms + self._backoff_ms(task, start.attempt))
        self._lanes.release_lease(task.user_id, lease, retry.at)
        self._tasks.attempt_failed(task, start.attempt, ended.error)
        return retry

    def _finish(self, task: Task, start: Start, outcome: Outcome) -> Ran:
        """Finalizes the task, then ends its lease in the lane if that may say that the task runs."""
        self._finalizer.finish(task, start, outcome)
        lease, took_ms, now_ms = start.lane.running, outcome.completed_at - start.at, self._clock.now_ms()
        if lease is not None and now_ms - start.at >= MARKED_AFTER_MS:
            with suppress(UnavailableError):  # the lease ends by itself
                self._lanes.end_lease(task.user_id, lease, now_ms, with_run_time(start.lane, took_ms).took_ms)
        return Ran(took_ms)

    def _throttle(self, task: Task, lease: Lease, asked: RetryAfter, now_ms: int) -> Retry:
        """Throttles the whole lane: a server that answers one task with "slow down" means all of its user's tasks."""
        until = now_ms + min(round(asked.seconds * 1000), self._settings.max_throttle_ms)
        self._lanes.throttle(task.user_id, lease, until, printable(asked.reason[:200]))
        return Retry(until)

    def _call(self, task: Task, start: Start) -> _Result | _Failure | RetryAfter:
        if task.name not in self._registry:
            return _Failure(f"there is no task {task.name!r} in this deployment", is_permanent=True)
        try:
            result = self._registry[task.name].run(task.payload, self._context(task, start))
        except RetryAfter as asked:
            return asked
        except (PayloadError, PermanentError) as error:
            return _Failure(describe(error), is_permanent=True)
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
        """Fails a task that passed its deadline, without a retry: its function runs until the process has ended."""
        error = f"it did not end within {self._deadline_ms(task) / 1000:g} s"
        now_ms = self._clock.now_ms()
        try:
            self._finish(task, start, Outcome(TaskState.FAILED, start.at, now_ms, start.attempt, error=error))
        except UnavailableError:
            pass  # the next attempt decides
        finally:
            self._end_process()

    def _backoff_ms(self, task: Task, attempt: int) -> int:
        definition = self._registry[task.name]
        first_ms = self._settings.backoff_ms if definition.backoff_ms is None else definition.backoff_ms
        return int(min(first_ms * 2 ** (attempt - 1), MAX_BACKOFF_MS))


def _checked(result: Json) -> _Result | _Failure:
    """The result if it can be stored, else the failure that it is."""
    try:
        size = len(json.dumps(result, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, TypeError, RecursionError) as error:
        return _Failure(f"the result is not JSON: {describe(error)}", is_permanent=True)
    if size > MAX_RESULT_BYTES:
        return _Failure(f"the result has {size} bytes as JSON; allowed: at most {MAX_RESULT_BYTES}", is_permanent=True)
    return _Result(result)
