"""Finalizes tasks: corrects units, dead-letters failures, logs, sends the callback, stores the outcome, in that order.

A crash between two of these repeats the task or the earlier steps; it never leaves an outcome unlogged.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.claim import Start
from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import FOREVER_MS
from chalicelib.core.ports import Clock, CompletionLog, ScheduledQueue, TaskQueue, TaskStore
from chalicelib.core.scheduled import Callback
from chalicelib.core.task import Outcome, Task, TaskState, cancelled_outcome
from chalicelib.worker.completion_event import completion_event, with_metrics
from chalicelib.worker.lease_renewal import LeaseRenewer
from chalicelib.worker.observer import Observer, Observers

#: Tries, a second apart, to log and store an outcome before the message goes back to the queue.
FINALIZE_TRIES = 10


class _Finalization(Struct):
    """An outcome, and which steps with it are done."""

    task: Task
    outcome: Outcome
    event: dict[str, Any]
    #: counts the units that the task used, from the time on that it returns, epoch ms, or None if they don't count;
    #: None if nothing is to be corrected any more
    correct: Callable[[], int | None] | None = None
    is_dead_lettered: bool = False
    is_logged: bool = False
    is_callback_sent: bool = False


class Finalizer:
    """Keeps each outcome that it could not log or store, so that the task need not run again. Thread-safe."""

    def __init__(
        self,
        tasks: TaskStore,
        queue: TaskQueue,
        log: CompletionLog,
        clock: Clock,
        renewer: LeaseRenewer,
        stage: str,
        scheduled_queue: ScheduledQueue | None = None,
        observer: Observer | None = None,
    ) -> None:
        """stage: the dimension of the metrics. scheduled_queue: carries callbacks; None sends none."""
        self._tasks = tasks
        self._queue = queue
        self._log = log
        self._clock = clock
        self._renewer = renewer
        self._stage = stage
        self._scheduled_queue = scheduled_queue
        self._observer = observer or Observers()
        self._pending: dict[str, _Finalization] = {}
        #: ids of the tasks that a thread is finalizing
        self._under_way: set[str] = set()
        self._lock = threading.Lock()

    def finish(
        self,
        task: Task,
        start: Start,
        outcome: Outcome,
        receipt: str = "",
        correct: Callable[[], int | None] | None = None,
    ) -> None:
        """Finalizes a task that was started, and renews its lease meanwhile, so that no other worker runs it again.

        receipt: of its message, which stays hidden too.
        correct: counts the units that the task used, and returns from when on, epoch ms; called before the outcome is
        logged, until it succeeds once. None if they don't count, because another worker took the task over.
        UnavailableError if the outcome could not be logged or stored; `finalize_pending` tries again.
        """
        lease = start.lease
        assert lease is not None, "a start has a lease"
        with self._renewer.renewing(task.user_id, lease, FOREVER_MS, lambda: None, receipt):
            self._finalize(_Finalization(task, outcome, completion_event(task, outcome, start), correct))

    def cancel(self, task: Task, outcome: Outcome | None = None, last: Start | None = None) -> None:
        """Finalizes a cancelled task. outcome: as stored, None if it is not stored yet. last: its last attempt."""
        outcome = outcome or cancelled_outcome(last.lease if last else None, self._clock.now_ms())
        self._finalize(_Finalization(task, outcome, completion_event(task, outcome, last)))

    def fail(self, task: Task, error: str, last: Start | None) -> None:
        """Fails a task that takes no start, or no further one. last: its last attempt."""
        cancelled = cancelled_outcome(last.lease if last else None, self._clock.now_ms())
        outcome = replace(cancelled, state=TaskState.FAILED, error=error)
        self._finalize(_Finalization(task, outcome, completion_event(task, outcome, last)))

    def give_up(self, task: Task, start: Start, last_error: str | None = None) -> None:
        """Fails a task that has used up its attempts. start: the attempt that would be one too many."""
        error = last_error or f"its worker died or ran out of time in each of {start.attempt - 1} attempts"
        starts = start.lease.starts if start.lease else ()
        last = starts[-2] if len(starts) > 1 else start.at
        now_ms = self._clock.now_ms()
        self.finish(task, start, Outcome(TaskState.FAILED, last, now_ms, start.attempt - 1, error=error))

    def is_pending(self, task: Task) -> bool:
        """The task finished in this process, and its outcome is not logged and stored yet."""
        return task.task_id in self._pending

    def finalize_pending(self, task: Task) -> None:
        """Tries again to log and store the outcome of a pending task."""
        self._finalize(self._pending[task.task_id])

    def _finalize(self, finalization: _Finalization) -> None:
        """UnavailableError also while another thread finalizes the same task, on an earlier receive of its message."""
        task = finalization.task
        with self._alone(task):
            self._pending[task.task_id] = finalization
            for tries_left in reversed(range(FINALIZE_TRIES)):
                try:
                    self._take_steps(finalization)
                    break
                except (OSError, UnavailableError) as error:
                    if not tries_left:
                        raise UnavailableError(f"the outcome of {task.task_id} is not stored: {error}") from error
                    self._clock.sleep(1000)
            del self._pending[task.task_id]

    @contextmanager
    def _alone(self, task: Task) -> Iterator[None]:
        with self._lock:
            if task.task_id in self._under_way:
                raise UnavailableError(f"the outcome of {task.task_id} is being logged and stored")
            self._under_way.add(task.task_id)
        try:
            yield
        finally:
            self._under_way.discard(task.task_id)

    def _take_steps(self, finalization: _Finalization) -> None:
        task, outcome = finalization.task, finalization.outcome
        if finalization.correct:
            self._correct(finalization, finalization.correct)
            finalization.correct = None
        if outcome.state is TaskState.FAILED and not finalization.is_dead_lettered:
            self._queue.send_dead(task.user_id, task.task_id, task.to_message(), outcome.error or "")
            finalization.is_dead_lettered = True
        if not finalization.is_logged:
            line = with_metrics(finalization.event, self._stage)
            self._log.write(line)
            finalization.is_logged = True
            self._observer.finished(line)
        if task.callback_url and not finalization.is_callback_sent:
            self._send_callback(task, task.callback_url, finalization.event)
            finalization.is_callback_sent = True
        self._tasks.finish(task, outcome)

    def _correct(self, finalization: _Finalization, correct: Callable[[], int | None]) -> None:
        """Counts the units; the log tells which count, and from when on."""
        counts_from = correct()
        if counts_from is None:
            finalization.event["used_units"] = None
        elif counts_from != finalization.outcome.completed_at:
            finalization.event["used_at"] = counts_from

    def _send_callback(self, task: Task, url: str, event: dict[str, Any]) -> None:
        if self._scheduled_queue is not None:
            callback = Callback(task.user_id, task.task_id, url, event, self._clock.now_ms())
            self._scheduled_queue.send([(callback, 0)])
