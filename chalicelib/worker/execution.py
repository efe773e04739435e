"""Runs one attempt of a claimed task: calls its function, keeps its deadline, and decides between outcome and retry."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.claim import Start
from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import FOREVER_MS, MARKED_AFTER_MS, Lane, Lease
from chalicelib.core.lane_changes import with_run_time
from chalicelib.core.ports import Clock, LaneStore, TaskStore
from chalicelib.core.task import FailedAttempt, Outcome, Progress, Task, TaskState, cancelled_outcome
from chalicelib.settings import Settings
from chalicelib.tasks.cancel_request import LocalCancelRequest
from chalicelib.tasks.registry import Context, Registry
from chalicelib.tasks.runner import Call, Ended, Failed, InProcess, Returned, Room, TaskRunner, Throttled, overdue
from chalicelib.worker.finalizer import Finalizer
from chalicelib.worker.lease_renewal import LeaseRenewer
from chalicelib.worker.observer import Observer, Observers
from chalicelib.worker.progress import ProgressWriter, Reports
from chalicelib.worker.shared_claims import SharedClaims

MAX_BACKOFF_MS = 3_600_000
#: Most throttlings of one task: each uses no attempt, but at least one of the 1,000 receives that SQS allows.
MAX_THROTTLES = 200


class Retry(Struct, frozen=True):
    """The attempt failed; the next one may start at `at`, epoch ms."""

    at: int


class Ran(Struct, frozen=True):
    """The task is finished; its function ran for `took_ms`."""

    took_ms: int
    #: as the release of the task's slot left it; None if it had none
    lane: Lane | None = None


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
        runner: TaskRunner | None = None,
        shared: SharedClaims | None = None,
        observer: Observer | None = None,
        progress: ProgressWriter | None = None,
    ) -> None:
        """end_process: called when a task in this process passed its deadline, since nothing else stops a function, or
        when another worker may soon run it beside this one.

        runner: that of `make run`; None calls the functions in this process. shared: throttles shared limits.
        progress: None for one with a thread.
        """
        self._lanes = lanes
        self._tasks = tasks
        self._registry = registry
        self._clock = clock
        self._settings = settings
        self._renewer = renewer
        self._finalizer = finalizer
        self._end_process = end_process
        self._here = InProcess()
        self._shared = shared
        self._runner = runner or self._here
        self._observer = observer or Observers()
        self._progress = progress or ProgressWriter(tasks, clock)

    def room(self, task: Task) -> AbstractContextManager[Room | None]:
        """Reserves the room that `run` needs, before the task's start is claimed; None if there is none now."""
        definition = self._registry.get(task.name)
        return nullcontext(self._here) if definition is None else self._runner.room(definition, self._deadline_ms(task))

    def run(self, task: Task, start: Start, room: Room, receipt: str = "") -> Retry | Ran:
        """Runs the task's function once; Ran when the task is finished, its outcome logged and stored.

        receipt: of its message, which stays hidden while it runs.

        UnavailableError when it is finished and its outcome could not be logged or stored; the finalizer keeps it.
        """
        lease = start.lease
        assert lease is not None, "a start has a lease"
        deadline_at = FOREVER_MS if room.ends_overdue else start.at + self._deadline_ms(task)
        request = LocalCancelRequest()
        with self._progress.reporting(task, start.at) as reports:
            expire = lambda: self._expire(task, start, request, reports)  # noqa: E731
            actions = (expire, receipt, self._end_process, request.make)
            with self._renewer.renewing(task.user_id, lease, deadline_at, *actions) as running:
                attempt = self._observer.started(task, start)
                context = self._context(task, start, request, reports, attempt.traceparent)
                ended = self._call(task, context, lease, room)
                attempt.ended(ended, self._clock.now_ms())
        if running.is_expired:
            # The renewer's thread finalizes it; until that is stored, the message has to stay.
            raise UnavailableError(f"{task.task_id} ran out of time")
        return self._finish_or_retry(task, start, lease, ended, receipt, request.is_made, reports.last)

    def knows(self, task: Task) -> bool:
        return task.name in self._registry

    def max_attempts(self, task: Task) -> int:
        definition = self._registry.get(task.name)
        return (definition and definition.max_attempts) or self._settings.max_attempts

    def _finish_or_retry(
        self,
        task: Task,
        start: Start,
        lease: Lease,
        ended: Ended,
        receipt: str,
        is_cancelled: bool,
        progress: Progress | None,
    ) -> Retry | Ran:
        now_ms = max(self._clock.now_ms(), start.at)
        correct = self._correction(start, ended.used_units, now_ms)
        if is_cancelled and _may_be_retried(ended):
            outcome = replace(cancelled_outcome(lease, now_ms), used_units=ended.used_units, progress=progress)
            return self._finish(task, start, outcome, receipt, correct)
        if isinstance(ended, Throttled):
            if len(lease.starts) - start.attempt < MAX_THROTTLES:
                return self._throttle(task, lease, ended, now_ms, correct)
            reason = f"throttled {MAX_THROTTLES} times, at last: {ended.error}"
            ended = Failed(reason, is_permanent=True, used_units=ended.used_units)
        if isinstance(ended, Returned):
            outcome = Outcome(TaskState.SUCCEEDED, start.at, now_ms, start.attempt, result=ended.value)
            outcome = replace(outcome, used_units=ended.used_units, progress=progress)
            return self._finish(task, start, outcome, receipt, correct)
        if ended.is_permanent or start.attempt >= self.max_attempts(task):
            outcome = Outcome(TaskState.FAILED, start.at, now_ms, start.attempt, error=ended.error)
            outcome = replace(outcome, used_units=ended.used_units, progress=progress)
            return self._finish(task, start, outcome, receipt, correct)
        if correct:
            correct()
        retry_at = now_ms + self._backoff_ms(task, start.attempt)
        released = self._lanes.release_lease(task.user_id, lease, retry_at)
        self._tasks.attempt_failed(task, FailedAttempt(start.attempt, start.at, now_ms, ended.error))
        return _retry(released, retry_at, now_ms)

    def _correction(self, start: Start, used_units: int | None, now_ms: int) -> Callable[[], int | None] | None:
        """Counts the units that the function reported; None if it reported none, or what the task counted for."""
        if used_units is None or used_units == start.units:
            return None
        return lambda: self._correct(start, used_units, now_ms)

    def _correct(self, start: Start, used_units: int, now_ms: int) -> int | None:
        """Counts the units in the shared limit too: more before its lane does, from the same time on; less after it.

        Less is given back once at most: not again if it failed, nor by a worker that lost its lease.
        """
        more, shared, lease = used_units - start.units, start.shared, start.lease
        if self._shared is None or shared is None or lease is None:
            return self._lanes.correct_units(start, used_units, now_ms)
        if more > 0:
            now_ms = self._shared.correct_units(shared, lease.token, more, now_ms)
        counts_from = self._lanes.correct_units(start, used_units, now_ms)
        if more < 0 and counts_from is not None:
            with suppress(UnavailableError):  # it counts as it was claimed
                self._shared.correct_units(shared, lease.token, more, now_ms)
        return counts_from

    def _finish(
        self,
        task: Task,
        start: Start,
        outcome: Outcome,
        receipt: str = "",
        correct: Callable[[], int | None] | None = None,
    ) -> Ran:
        """Finalizes the task, then ends its lease in the lane if that may say that the task runs."""
        self._finalizer.finish(task, start, outcome, receipt, correct)
        if start.slot:
            return self._release_slot(task, start, outcome)
        lease, took_ms, now_ms = start.lease, outcome.completed_at - start.at, self._clock.now_ms()
        if lease is not None and now_ms - start.at >= MARKED_AFTER_MS:
            with suppress(UnavailableError):  # the lease ends by itself
                self._lanes.end_lease(task.user_id, lease, now_ms, with_run_time(start.lane, took_ms).took_ms)
        return Ran(took_ms)

    def _release_slot(self, task: Task, start: Start, outcome: Outcome) -> Ran:
        """Frees the task's slot. UnavailableError if that fails: the task's message then comes back to free it."""
        took_ms = outcome.completed_at - start.at
        assert start.lease is not None, "a start has a lease"
        write = self._lanes.release_slot(task.user_id, start.lease, with_run_time(start.lane, took_ms).took_ms)
        return Ran(took_ms, write.lane)

    def _throttle(
        self, task: Task, lease: Lease, asked: Throttled, now_ms: int, correct: Callable[[], int | None] | None
    ) -> Retry:
        """Throttles the whole lane: a server that answers one task with "slow down" means all of its user's tasks.

        Or all tasks of all users that count against the same shared limit.
        """
        if correct:
            correct()
        until = now_ms + min(round(asked.seconds * 1000), self._settings.max_throttle_ms)
        if self._shared and asked.is_shared and self._shared.is_limited(task.shared):
            self._shared.throttle(task.shared, until, asked.reason)
            until = now_ms  # its lane is open, for tasks that do not count against the shared limit too
        return _retry(self._lanes.throttle(task.user_id, lease, until, asked.reason), until, now_ms)

    def _call(self, task: Task, context: Context, lease: Lease, room: Room) -> Ended:
        definition = self._registry.get(task.name)
        if definition is None:
            return Failed(f"there is no task {task.name!r} in this deployment", is_permanent=True)
        if not task.has_payload:
            return Failed("the payload is no longer stored", is_permanent=True)
        deadline_ms = self._deadline_ms(task)
        return room.run(Call(definition, task.payload, context, lease.token, deadline_ms))

    def _context(
        self, task: Task, start: Start, request: LocalCancelRequest, reports: Reports, traceparent: str
    ) -> Context:
        deadline_at, logger = start.at + self._deadline_ms(task), logging.getLogger(f"paceline.{task.name}")
        return Context(
            task.user_id,
            task.task_id,
            task.name,
            task.seq,
            start.attempt,
            deadline_at,
            logger,
            cancel_request=request,
            report_progress=lambda fraction, text: self._progress.report(reports, fraction, text),
            traceparent=traceparent,
        )

    def _deadline_ms(self, task: Task) -> int:
        definition = self._registry.get(task.name)
        return (definition and definition.deadline_ms) or self._settings.deadline_ms

    def _expire(self, task: Task, start: Start, request: LocalCancelRequest, reports: Reports) -> None:
        """Fails a task that passed its deadline, without a retry: its function runs until the process has ended."""
        error = overdue(self._deadline_ms(task), request.is_made)
        now_ms = self._clock.now_ms()
        outcome = Outcome(TaskState.FAILED, start.at, now_ms, start.attempt, error=error, progress=reports.last)
        try:
            self._finish(task, start, outcome)
        except UnavailableError:
            pass  # the next attempt decides
        finally:
            self._end_process()

    def _backoff_ms(self, task: Task, attempt: int) -> int:
        definition = self._registry[task.name]
        first_ms = self._settings.backoff_ms if definition.backoff_ms is None else definition.backoff_ms
        return int(min(first_ms * 2 ** (attempt - 1), MAX_BACKOFF_MS))


def _retry(released: Lease | None, at: int, now_ms: int) -> Retry:
    """Now if the task was cancelled since the last renewal: it takes no further attempt, so nothing is waited for."""
    return Retry(now_ms if released and released.cancel_requested_at else at)


def _may_be_retried(ended: Ended) -> bool:
    """True for an attempt that failed without failing its task for good: a cancelled task stops by it."""
    return isinstance(ended, Throttled) or (isinstance(ended, Failed) and not ended.is_permanent)
