"""Admits scheduled tasks that are due, each user's in order. Does not wait for their time, and sends no callbacks.

Each task's own message leads here. Whichever comes first admits all that are listed as due, in their order, so the
order in which SQS delivers the messages changes nothing. A process may die at any point, SQS may deliver a message
twice, and two dispatchers may admit at once. It stays in order all the same: a dispatcher reserves a seq for a task
only once each task listed before it has its seq in its record, or is finished.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.ports import Clock, DueTasks, LaneStore, TaskQueue, TaskStore
from chalicelib.core.scheduled import DueTask
from chalicelib.core.task import Task, TaskRecord, TaskState
from chalicelib.scheduled.cancellations import ScheduledCancellations, is_emptied_schedule
from chalicelib.submit.submission import Refused
from chalicelib.submit.submitter import Submitter

#: Tasks read from the list at once.
PAGE = 100
#: Milliseconds after which another dispatcher may go on with a user's tasks: the first one may be dead.
ADMITTING_MS = 4_000
#: Milliseconds after which a dispatcher stops by itself, before another may begin.
STOP_AFTER_MS = 3_000
#: Milliseconds between two tries to begin, and their number; after them the message is hidden.
POLL_MS, POLLS = 100, 5
#: Milliseconds after its time from which on a task without a record has finished: records of finished tasks are kept
#: for a day at least. Earlier its submit may be about to store the record, or a restore has lost it.
RECORD_EXPIRED_AFTER_MS = 24 * 3_600_000


class AdmittedByAnother(Struct, frozen=True):
    """Another dispatcher admits the user's tasks, or there are more than one message may admit: come back soon."""


class Postponed(Struct, frozen=True):
    """The lane takes no task before `until`, epoch ms."""

    until: int


class DueAdmitter:
    def __init__(
        self,
        due_tasks: DueTasks,
        tasks: TaskStore,
        queue: TaskQueue,
        submitter: Submitter,
        clock: Clock,
        new_token: Callable[[], str],
        cancellations: ScheduledCancellations,
        lanes: LaneStore,
    ) -> None:
        self._due_tasks = due_tasks
        self._tasks = tasks
        self._queue = queue
        self._submitter = submitter
        self._clock = clock
        self._new_token = new_token
        self._cancellations = cancellations
        self._lanes = lanes

    def admit(self, task: Task) -> AdmittedByAnother | Postponed | None:
        """Admits the user's tasks that are due, this one too; None when this one is admitted or finished."""
        record = self._tasks.get(task.user_id, task.task_id)
        if record and record.task.seq:
            self._send_again(record)
            return None
        if record and not record.outcome and (record.task.run_at or 0) > self._clock.now_ms():
            # The message is of a first try that failed; its repeat with the same key was answered with a later time.
            return Postponed(record.task.run_at or 0)
        due = self._due_tasks.due(task.user_id, self._clock.now_ms(), PAGE)
        if all(listed.task_id == task.task_id for listed in due):
            return self._admit_alone(task, record, due)
        token = self._new_token()
        if not self._begin(task.user_id, token):
            return AdmittedByAnother()
        outcome = self._admit_all(task)
        self._due_tasks.end_admitting(task.user_id, token)  # after an error the mark runs out by itself
        return outcome

    def _admit_alone(self, task: Task, record: TaskRecord | None, listed: Sequence[DueTask]) -> Postponed | None:
        postponed = (
            self._admit_record(record, bool(listed)) if record else self._reserve_and_send(task, has_record=False)
        )
        if postponed is None:
            self._due_tasks.remove(task.user_id, listed)
        return postponed

    def _begin(self, user_id: str, token: str) -> bool:
        """Tries for half a second: to hide the message would make its task a second late."""
        for _ in range(POLLS):
            now_ms = self._clock.now_ms()
            if self._due_tasks.try_begin_admitting(user_id, token, now_ms, now_ms + ADMITTING_MS):
                return True
            if self._clock.sleep(POLL_MS):
                return False
        return False

    def _admit_all(self, task: Task) -> AdmittedByAnother | Postponed | None:
        """Admits all that is listed as due, then the task: an earlier version scheduled it without listing it."""
        stop_at = self._clock.now_ms() + STOP_AFTER_MS
        while due := self._due_tasks.due(task.user_id, self._clock.now_ms(), PAGE):
            passed = list[DueTask]()
            for listed in due:
                if self._clock.now_ms() >= stop_at:
                    self._due_tasks.remove(task.user_id, passed)
                    return AdmittedByAnother()
                if postponed := self._admit_listed(task.user_id, listed):
                    self._due_tasks.remove(task.user_id, passed)
                    return postponed
                passed.append(listed)
            self._due_tasks.remove(task.user_id, passed)
        record = self._tasks.get(task.user_id, task.task_id)
        return self._admit_record(record) if record else self._reserve_and_send(task, has_record=False)

    def _admit_listed(self, user_id: str, listed: DueTask) -> Postponed | None:
        """A record is stored before its task is listed; one that is missing was kept for longer than any message."""
        record = self._tasks.get(user_id, listed.task_id)
        return self._admit_record(record, is_listed=True) if record else None

    def _admit_record(self, record: TaskRecord, is_listed: bool = False) -> Postponed | None:
        if is_listed and is_emptied_schedule(record):
            # It stays listed until its cancellation is logged: whoever was to do that may have died.
            self._cancellations.cancel_emptied(record.task, self._clock.now_ms())
        if record.task.seq:
            self._send_again(record)
        if record.task.seq or record.outcome:
            return None
        return self._reserve_and_send(record.task, has_record=True)

    def _reserve_and_send(self, task: Task, has_record: bool) -> Postponed | None:
        """Reserves the task's start, stores it, sends it.

        The record is stored before the message is sent. So a cancellation before that finishes the task here, and one
        after that finishes it in its lane, never both.
        """
        now_ms = self._clock.now_ms()
        if not has_record and self._is_deleted(task, now_ms):
            return None
        reserved = self._submitter.reserve(task.user_id, task.task_id, now_ms, task.units)
        if isinstance(reserved, Refused):
            return Postponed(reserved.retry_at)
        if reserved.lane.is_emptied_schedule(task.submitted_at):
            self._cancellations.cancel_emptied(task, reserved.lane.emptied_at)  # before its message came
            self._submitter.give_back_seq(reserved, task.task_id, task.units, now_ms)
            return None
        if not has_record and task.submitted_at <= reserved.lane.forgotten_at:
            return None
        seq, planned_at = reserved.first_seq, reserved.planned[0]
        # From now on it counts as submitted: a task waits for those admitted before it as long as for other submits.
        admitted = replace(task, seq=seq, planned_at=planned_at, submitted_at=now_ms, is_repeat=True)
        if self._tasks.mark_admitted(admitted):
            self._queue.send(admitted)
        elif record := self._tasks.get(task.user_id, task.task_id):
            self._send_again(record)
        return None

    def _is_deleted(self, task: Task, now_ms: int) -> bool:
        """True if the task without a record is finished: its record has expired, or was deleted with its user."""
        is_expired = now_ms >= (task.run_at or task.submitted_at) + RECORD_EXPIRED_AFTER_MS
        return is_expired or self._lanes.get(task.user_id).forgotten_at >= task.submitted_at

    def _send_again(self, record: TaskRecord) -> None:
        """Sends an admitted task, in case its message is missing.

        A task that was cancelled after its admission is sent too: the worker that receives it logs the outcome.
        """
        if record.task.seq and record.state in (TaskState.QUEUED, TaskState.CANCELLED):
            self._queue.send(replace(record.task, is_repeat=True))
