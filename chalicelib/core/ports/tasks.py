"""The ports of the stores of tasks, failed tasks and requests, and of the lists of lanes."""

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from chalicelib.core.lane import Lane
from chalicelib.core.task import FailedAttempt, Outcome, Progress, Task, TaskRecord, TaskState


class TaskStore(Protocol):
    """Stores tasks for the API's view of them. Methods raise UnavailableError if the store fails.

    A list of records may leave out payloads (`has_payload`); `get` reads them.
    """

    def create_if_absent(self, task: Task) -> None:
        """Stores a queued task; does nothing if the task exists, since its worker may have been faster."""
        ...

    def create_many(self, tasks: Sequence[Task]) -> None:
        """Stores queued tasks before they are sent, so no worker can know them yet."""
        ...

    def get(self, user_id: str, task_id: str) -> TaskRecord | None: ...

    def newest(
        self, user_id: str, state: TaskState | None, most: int, before: str | None
    ) -> tuple[list[TaskRecord], str | None]:
        """Returns one page of tasks, newest first, filtered by state, and the next cursor; None at the end.

        Reads a bounded number of items per call, so a page may be empty although more pages follow.
        """
        ...

    def between(self, user_id: str, first_seq: int, last_seq: int, newest_seq: int | None) -> Sequence[TaskRecord]:
        """Returns the lane's tasks with these seqs, by seq.

        Searches the user's newest tasks: as many as `first_seq` to `newest_seq`, the lane's newest, and a few hundred
        more, since a scheduled task, or one whose request was repeated, has an older id than its seq tells. With
        newest_seq=None it searches all of them.
        """
        ...

    def following(self, user_id: str, task_id: str, first_seq: int, last_seq: int) -> Sequence[TaskRecord]:
        """Returns the lane's tasks with these seqs, by seq, if their ids follow that id: a few hundred are searched.

        It reads little, however long the backlog is, but finds no scheduled task and none whose request was repeated.
        """
        ...

    def finish(self, task: Task, outcome: Outcome) -> None:
        """Stores the task's outcome, creating the item if needed; a final task stays unchanged.

        An outcome without progress leaves the progress that is stored.
        """
        ...

    def report_progress(self, task: Task, progress: Progress) -> bool:
        """Stores how far a running task is; changes nothing if the task is final, or has a later report.

        False if the task is not stored yet: a worker may be faster than the submit.
        """
        ...

    def mark_admitted(self, task: Task) -> bool:
        """Stores the seq and planned start of a scheduled task; False if it has a seq already or is final."""
        ...

    def cancel_scheduled(self, task: Task, outcome: Outcome) -> bool:
        """Stores the outcome of a scheduled task; False if it is admitted or final."""
        ...

    def request_cancel(self, task: Task, now_ms: int) -> None:
        """Stores that the task was cancelled while it ran; the first time stays, and a final task stays unchanged."""
        ...

    def attempt_failed(self, task: Task, attempt: FailedAttempt) -> None:
        """Stores a failed attempt of a task that will be retried; a repeat changes nothing."""
        ...

    def delete_finished(self, user_id: str, up_to_seq: int, most: int) -> tuple[int, bool]:
        """Deletes finished tasks and their payloads: all with seqs up to that one, and scheduled ones without a seq.

        Returns the number of deleted tasks, at most `most`, and whether there may be more. A repeat goes on.
        """
        ...

    def keep_payloads(self, user_id: str, now_ms: int) -> None:
        """Keeps the payloads of the user's unfinished tasks, since the lane is stopped for weeks.

        Call it every hour: one call keeps a bounded number of payloads.
        """
        ...


class FailedTasks(Protocol):
    """Lists failed tasks, and reserves the ids under which they are submitted again.

    Lists over all users are eventually consistent. Methods raise UnavailableError if the store fails.
    """

    def newest(self, most: int, before: str | None) -> tuple[list[TaskRecord], str | None]:
        """Returns one page of all users' failed tasks, the newest failure first, and the next cursor; None at the end.

        A page may hold fewer than `most` tasks although more pages follow.
        """
        ...

    def oldest(self, since: int, most: int, after: str | None) -> tuple[list[TaskRecord], str | None]:
        """As `newest`, of the tasks that failed at `since`, epoch ms, or later, the oldest failure first."""
        ...

    def of_user(self, user_id: str, since: int, most: int, after: str | None) -> tuple[list[TaskRecord], str | None]:
        """Returns one page of the user's tasks that failed since then, by id, and the next cursor; None at the end.

        Reads a bounded number of items per call, so a page may be empty although more pages follow.
        """
        ...

    def reserve_redrive(self, task: Task, new_id: str) -> str | None:
        """Stores the id under which the failed task is submitted again, unless an earlier call stored one.

        Returns the stored id; None if the task is not stored as failed.
        """
        ...

    def release_redrive(self, task: Task, new_id: str) -> None:
        """Removes that id, since nothing was submitted under it; does nothing if another id is stored."""
        ...


class LaneDirectory(Protocol):
    """Lists lanes and reads items in batches. Reads are eventually consistent.

    Methods raise UnavailableError if the store fails.
    """

    def user_ids(self, prefix: str, after: str, limit: int) -> list[str]:
        """Returns the first `limit` user ids with a lane that start with `prefix` and are greater than `after`.

        They are in order; prefix and after may be empty.
        """
        ...

    def lanes(self, user_ids: Sequence[str]) -> list[Lane]:
        """Returns the existing lanes of these users, in any order."""
        ...

    def tasks(self, keys: Sequence[tuple[str, str]]) -> list[TaskRecord]:
        """Returns the existing tasks of these (user id, task id) pairs, in any order."""
        ...

    def newest_tasks(self, user_id: str, up_to: str | None, limit: int) -> list[TaskRecord]:
        """Returns the user's `limit` newest tasks, newest first: those with an id up to `up_to`, if it is given."""
        ...


class RequestRecord(Struct, frozen=True):
    """A request with an Idempotency-Key."""

    user_id: str
    #: hash of the key
    key: str
    #: hash of the request's content
    fingerprint: str
    #: id of the request's first task; the other ids are derived from it
    first_id: str
    #: epoch ms at which it was last begun
    begun_at: int
    #: identifies the process that serves it
    owner: str
    #: None until it is answered
    answer: dict[str, Any] | None = None
    #: it was begun before and not answered, so its tasks may have been sent
    is_repeat: bool = False


class RequestStore(Protocol):
    def begin(self, record: RequestRecord, abandoned_before: int) -> RequestRecord:
        """Writes the record, unless one exists that is answered or was begun since `abandoned_before`, epoch ms.

        Returns the stored record. It has this record's owner if written, and always the first record's ids.
        """
        ...

    def finish(self, record: RequestRecord, answer: dict[str, Any]) -> None: ...

    def abandon(self, record: RequestRecord) -> None:
        """Lets a repeat of the request run at once."""
        ...

    def forget(self, record: RequestRecord) -> None:
        """Deletes the record of a request without effects, so a repeat counts as new."""
        ...
