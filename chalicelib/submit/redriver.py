"""Submits failed tasks again, each once, however often that is repeated or interrupted, and in their users' order.

A redrive is a submit: limits, MAX_DELAY and OVER_LIMIT apply. It is a request with an idempotency key of its own, so
one process at a time serves it, and the failed task's record keeps the new task's id for as long as it is stored.
"""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from chalicelib.core.ports import Clock, FailedTasks, LaneStore, TaskStore
from chalicelib.core.task import Task, TaskRecord, TaskState, failure_cursor
from chalicelib.core.views import view_of_task
from chalicelib.settings import Settings
from chalicelib.submit.idempotency import Idempotency
from chalicelib.submit.submission import Refused, Submission, Submitted, SubmittedTask, TaskRequest
from chalicelib.submit.submitter import Submitter

#: Failed tasks that one request looks at.
MOST_AT_ONCE = 50
#: Milliseconds after which a request submits no further task; the next one goes on.
STOP_AFTER_MS = 8_000


class Redriven(Struct, frozen=True):
    """The failed task is submitted again."""

    failed: Task
    submission: Submission
    submitted: Submitted
    #: by an earlier call
    is_repeat: bool

    @property
    def task(self) -> SubmittedTask:
        return self.submitted.tasks[0]


class Stays(Struct, frozen=True):
    """The failed task is not submitted again, for this reason."""

    failed: Task
    reason: str
    #: the answer to its submit; None if it can't be submitted at all
    refused: Refused | None = None
    submission: Submission | None = None
    #: it may be submitted later, so the later failed tasks of its user stay too
    is_for_now: bool = False


class RedrivePage(Struct, frozen=True):
    outcomes: Sequence[Redriven | Stays]
    #: None if no more failed tasks follow
    next_cursor: str | None


class Redriver:
    def __init__(
        self,
        failed_tasks: FailedTasks,
        tasks: TaskStore,
        lanes: LaneStore,
        submitter: Submitter,
        idempotency: Idempotency,
        knows: Callable[[str], bool],
        clock: Clock,
        settings: Settings,
    ) -> None:
        """knows: whether this deployment has a task with that name."""
        self._failed_tasks = failed_tasks
        self._tasks = tasks
        self._lanes = lanes
        self._submitter = submitter
        self._idempotency = idempotency
        self._knows = knows
        self._clock = clock
        self._settings = settings

    def redrive(self, user_id: str, task_id: str, wish: Submission) -> Redriven | Stays:
        """Submits the failed task again, or returns how an earlier call did. wish: its preferences, without tasks.

        NotFoundError if the user has no such task, ConflictError if it has not failed or can't be submitted again.
        """
        record = self._tasks.get(user_id, task_id)
        if record is None:
            raise NotFoundError("No such task", f"This user has no task {task_id[:128]!r}.", "task_id")
        if record.state is not TaskState.FAILED:
            raise ConflictError("The task has not failed", "Only a failed task can be submitted again.")
        outcome = self.redrive_record(record, wish)
        if isinstance(outcome, Stays) and outcome.refused is None:
            raise ConflictError("The task can't be submitted again", f"{outcome.reason}.")
        return outcome

    def redrive_of_user(self, user_id: str, since: int, after: str | None, wish: Submission) -> RedrivePage:
        """Submits the user's tasks again that failed since then, epoch ms, in the order of their ids: one page.

        After a UnavailableError on the way the page ends early; it is raised if nothing was done.
        """
        records, next_cursor = self._failed_tasks.of_user(user_id, since, MOST_AT_ONCE, after)
        return self._page(records, next_cursor, lambda record: record.task.task_id, wish)

    def redrive_all(self, since: int, after: str | None, wish: Submission) -> RedrivePage:
        """As `redrive_of_user`, of all users, in the order of their failures."""
        records, next_cursor = self._failed_tasks.oldest(since, MOST_AT_ONCE, after)
        return self._page(records, next_cursor, failure_cursor, wish)

    def _page(
        self,
        records: Sequence[TaskRecord],
        next_cursor: str | None,
        cursor_of: Callable[[TaskRecord], str],
        wish: Submission,
    ) -> RedrivePage:
        outcomes, stop_at = list[Redriven | Stays](), self._clock.now_ms() + STOP_AFTER_MS
        for record in records:
            if outcomes and self._clock.now_ms() >= stop_at:
                break
            try:
                outcomes.append(self._in_turn(record, outcomes, wish))
            except UnavailableError:
                if not outcomes:
                    raise
                break
        is_cut = len(outcomes) < len(records)
        return RedrivePage(outcomes, cursor_of(records[len(outcomes) - 1]) if is_cut else next_cursor)

    def _in_turn(self, listed: TaskRecord, earlier: Sequence[Redriven | Stays], wish: Submission) -> Redriven | Stays:
        """Keeps the user's order: a task stays if an earlier one stays for now. No error of one task stops others."""
        user_id = listed.task.user_id
        if any(isinstance(one, Stays) and one.is_for_now and one.failed.user_id == user_id for one in earlier):
            return Stays(listed.task, "an earlier failed task of this user stays")
        record = self._tasks.get(user_id, listed.task.task_id)  # with its payload, and as it is now
        if record is None or record.state is not TaskState.FAILED:
            return Stays(listed.task, "its record is no longer stored")
        try:
            return self.redrive_record(record, wish)
        except ConflictError as error:
            return Stays(listed.task, error.title, is_for_now=True)
        except InvalidError as error:  # its user took the key of its redrive
            return Stays(listed.task, error.title)

    def redrive_record(self, record: TaskRecord, wish: Submission) -> Redriven | Stays:
        """As `redrive`, of a failed task whose record is known, with its payload."""
        submission = self._submission(record.task, wish)
        if (before := self._submitted_before(record.task.user_id, record.redriven_as, submission.now_ms)) is not None:
            return Redriven(record.task, submission, before, is_repeat=True)
        if not record.task.has_payload:
            return Stays(record.task, "its payload is no longer stored")
        if not self._knows(record.task.name):
            return Stays(record.task, f"there is no task {record.task.name!r} in this deployment")
        return self._submit(record, submission)

    def _submission(self, failed: Task, wish: Submission) -> Submission:
        units = failed.units if failed.units > 1 else None
        url, shared = failed.callback_url, failed.shared or None
        request = TaskRequest(failed.name, failed.payload, callback_url=url, units=units, shared=shared)
        key, now_ms = f"redrive:{failed.task_id}", self._clock.now_ms()
        return replace(wish, user_id=failed.user_id, tasks=[request], key=key, now_ms=now_ms)

    def _submit(self, record: TaskRecord, submission: Submission) -> Redriven | Stays:
        failed, outcomes = record.task, list[Submitted | Refused]()

        def serve(submission: Submission, ids: Sequence[str], is_repeat: bool) -> Submitted | Refused:
            outcomes.append(self._serve(failed, submission, ids[0], is_repeat))
            return outcomes[-1]

        answer = self._idempotency.run(submission, serve, _answer)
        outcome = (
            outcomes[-1]
            if outcomes
            else self._submitted_before(failed.user_id, answer.body["task_id"], submission.now_ms)
        )
        if outcome is None:
            raise ConflictError("Submitted again before", f"It is the task {answer.body['task_id']}.")
        if isinstance(outcome, Refused):
            return Stays(failed, outcome.reason, outcome, submission, is_for_now=outcome.too_large is None)
        return Redriven(failed, submission, outcome, answer.is_replay)

    def _serve(self, failed: Task, submission: Submission, new_id: str, is_repeat: bool) -> Submitted | Refused:
        """Submits it under the id in its record: an earlier call, whose key is forgotten, may have left one there."""
        reserved = self._failed_tasks.reserve_redrive(failed, new_id)
        if reserved is None:
            raise UnavailableError(f"the record of the failed task {failed.task_id} is gone")
        if (before := self._submitted_before(failed.user_id, reserved, submission.now_ms)) is not None:
            return before
        is_repeat = is_repeat or reserved != new_id
        outcome = self._submitter.submit(submission, [reserved], is_repeat)
        if isinstance(outcome, Refused) and not is_repeat:
            self._failed_tasks.release_redrive(failed, reserved)
        return outcome

    def _submitted_before(self, user_id: str, task_id: str | None, now_ms: int) -> Submitted | None:
        """The new task as it is now; None if none is stored under that id."""
        record = self._tasks.get(user_id, task_id) if task_id else None
        if record is None:
            return None
        lane = self._lanes.get(user_id)
        limits = lane.limits_or(self._settings.limits)
        view = view_of_task(record, lane, self._settings.limits, now_ms)
        is_waiting = view.state is TaskState.QUEUED
        task = SubmittedTask(
            task_id=record.task.task_id,
            user_id=user_id,
            seq=record.task.seq,
            position=view.position,
            planned_at=record.task.planned_at,
            delay_ms=max(0, (view.estimated_at or now_ms) - now_ms) if is_waiting else 0,
            queued=is_waiting and view.position > 0,
            state=view.state.value,
        )
        return Submitted((task,), lane, limits, now_ms)


def _answer(_submission: Submission, outcome: Submitted | Refused) -> dict[str, Any]:
    if isinstance(outcome, Refused):
        return {"refused": outcome.reason}
    return {"task_id": outcome.tasks[0].task_id}
