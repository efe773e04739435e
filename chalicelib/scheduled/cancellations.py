"""Stores and logs the cancellation of scheduled tasks that are not admitted yet: of one, or of all of a user.

SQS may deliver a message twice, and a process may die at any point, so each step can be repeated.
"""

from chalicelib.core.lane import FOREVER_MS
from chalicelib.core.ports import Clock, DueTasks, TaskStore
from chalicelib.core.scheduled import DueTask
from chalicelib.core.task import Outcome, Task, TaskRecord, TaskState, emptied_outcome
from chalicelib.worker.finalizer import Finalizer

#: Scheduled tasks that are read from the list at once.
PAGE = 100
#: Milliseconds after which one call cancels no further task; its repeat goes on.
STOP_AFTER_MS = 20_000


class ScheduledCancellations:
    def __init__(self, due_tasks: DueTasks, tasks: TaskStore, finalizer: Finalizer, clock: Clock) -> None:
        self._due_tasks = due_tasks
        self._tasks = tasks
        self._finalizer = finalizer
        self._clock = clock

    def cancel(self, task: Task, at: int) -> None:
        """Finishes and logs a task that was cancelled at that time, epoch ms, unless it was admitted before.

        A repeat logs the same line.
        """
        self._cancel(task, Outcome(TaskState.CANCELLED, None, at, 0))

    def cancel_emptied(self, task: Task, at: int) -> None:
        """As `cancel`, of a task whose lane was emptied at that time."""
        self._cancel(task, emptied_outcome(at))

    def _cancel(self, task: Task, outcome: Outcome) -> None:
        self._tasks.cancel_scheduled(task, outcome)
        record = self._tasks.get(task.user_id, task.task_id)
        if record and record.outcome and not record.task.seq:
            self._finalizer.cancel(task, record.outcome)

    def cancel_all(self, user_id: str, at: int) -> bool:
        """As `cancel`, with each scheduled task that the user submitted at that time, epoch ms, or before.

        False if some are left for a repeat.
        """
        kept, stop_at = 0, self._clock.now_ms() + STOP_AFTER_MS
        while True:
            wanted = kept + PAGE
            listed = self._due_tasks.due(user_id, FOREVER_MS, wanted)
            for one in listed[kept:]:
                if self._clock.now_ms() >= stop_at:
                    return False
                kept += not self._cancel_listed(user_id, one, at)
            if len(listed) < wanted:
                return True

    def _cancel_listed(self, user_id: str, listed: DueTask, at: int) -> bool:
        """Cancels the task, and takes it off the list once that is logged; False for a task that stays there."""
        record = self._tasks.get(user_id, listed.task_id)
        is_mine = record is not None and not record.task.seq and record.task.submitted_at <= at
        # One that was cancelled by itself is logged by itself.
        if record is None or not is_mine or not (record.outcome is None or is_emptied_schedule(record)):
            return False
        self.cancel_emptied(record.task, at)
        self._due_tasks.remove(user_id, [listed])
        return True


def is_emptied_schedule(record: TaskRecord) -> bool:
    """True for a scheduled task that an emptying of its lane cancelled before it was admitted."""
    outcome = record.outcome
    return outcome is not None and not record.task.seq and outcome == emptied_outcome(outcome.completed_at)
