"""What the use cases need of the world outside. Adapters implement it; one contract test runs over each of them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from msgspec import Struct

from chalicelib.core.admission import Admission
from chalicelib.core.lane import Lane, Lease, Start
from chalicelib.core.limits import Limits
from chalicelib.core.scheduled import ScheduledMessage
from chalicelib.core.task import Outcome, Task, TaskRecord, TaskState


class Written(Struct, frozen=True):
    """The write happened (or had happened: its answer was lost); the lane as it is now."""

    lane: Lane


class Stale(Struct, frozen=True):
    """Nothing was written: the lane is not as it was taken to be; this is how it is."""

    lane: Lane


Write = Written | Stale


class LaneStore(Protocol):
    """Lanes; each write is one atomic conditional write. UnavailableError when the store does not do it."""

    def get(self, user_id: str) -> Lane:
        """The lane as it is after every write that was answered; the empty one when there is none."""
        ...

    def try_fast_admit(self, user_id: str, limits: Limits, now_ms: int, task_id: str) -> Write:
        """Reserves now_ms as the planned start of one task, if the limits allow it and nothing is special.

        Special are limits of the user's own, a pause, and a list of planned starts that wants trimming.
        """
        ...

    def admit(self, seen: Lane, admission: Admission) -> Write:
        """Reserves the admission if no other came between and nothing special changed."""
        ...

    def try_fast_claim(self, start: Start, limits: Limits) -> Write:
        """Takes the start for the first attempt of the lane's next task, if the real starts allow it.

        Stale if the task is not next, or anything is special: paused, cancellations open, other limits of the
        user's own than the start was decided on, a list of starts that wants trimming, a lease that fills a gap.
        """
        ...

    def claim(self, seen: Lane, start: Start) -> Write:
        """Takes the start if nothing that it rests on changed."""
        ...

    def change(self, seen: Lane, changed: Lane) -> Write:
        """Writes all but the lease if nothing at all was admitted, started or changed since it was seen."""
        ...

    def save_head_receipt(self, seen: Lane, receipt: str) -> Write:
        """Notes the hidden head's handle if the lane was not changed since it was seen, so that a change wakes it."""
        ...

    def throttle(self, user_id: str, lease: Lease, until: int, reason: str) -> bool:
        """Keeps the whole lane from starting anything until then, epoch ms, and gives the attempt back.

        Nothing moves the lease after it, as after the last `extend`. False when the lease was lost.
        """
        ...

    def extend(self, user_id: str, lease: Lease, until: int, is_last: bool = False) -> bool:
        """Moves the end of the lease to `until`, epoch ms, later or earlier; False when the lease was lost.

        is_last: nothing moves it after that, for a renewal may still be under way when its task's attempt is over.
        """
        ...


class TaskStore(Protocol):
    """Tasks, as a view for those who ask. UnavailableError when the store does not do it."""

    def create_if_absent(self, task: Task) -> None:
        """Notes a queued task; does nothing when the task is known, for its worker may have been faster."""
        ...

    def create_many(self, tasks: Sequence[Task]) -> None:
        """Notes queued tasks that no worker can know yet, before they are sent."""
        ...

    def get(self, user_id: str, task_id: str) -> TaskRecord | None: ...

    def newest(
        self, user_id: str, state: TaskState | None, most: int, before: str | None
    ) -> tuple[list[TaskRecord], str | None]:
        """Tasks by id, newest first, those in that state only if one is given, and where to go on, None at the end.

        It looks at a bounded number of tasks a call, so it may find fewer than there are, and yet not be at the end.
        """
        ...

    def between(self, user_id: str, first_seq: int, last_seq: int) -> Sequence[TaskRecord]:
        """The newest tasks of the lane that have these seqs, by seq. It looks at the newest few hundred tasks only."""
        ...

    def finish(self, task: Task, outcome: Outcome) -> None:
        """Notes how the task ended, whether it was noted before or not; a task that has ended stays as it is."""
        ...

    def mark_admitted(self, task: Task) -> bool:
        """Notes the place that a scheduled task got; False when it has one already, or has ended."""
        ...

    def cancel_scheduled(self, task: Task, outcome: Outcome) -> bool:
        """Notes the end of a scheduled task; False when it has got its place, or has ended."""
        ...

    def begin_log(self, task: Task, now_ms: int, until: int) -> bool:
        """Whether the caller alone is to log the end of a withdrawn task; nobody else is until then, epoch ms.

        False when another is at it, or it is logged.
        """
        ...

    def logged(self, task: Task) -> None:
        """Notes that the end of a withdrawn task is logged."""
        ...

    def attempt_failed(self, task: Task, attempts: int, error: str) -> None:
        """Notes a failed attempt of a task that will be tried again."""
        ...


class ScheduledCounts(Protocol):
    """How many scheduled tasks of each user are due on each day. UnavailableError when nobody knows.

    Days are counted from the epoch, UTC.
    """

    def add(self, user_id: str, today: int, days: Mapping[int, int], most: int) -> bool:
        """Adds so many to each day, atomically; False, and nothing, when a day would have more than `most` then.

        What was counted for days before today is forgotten.
        """
        ...


class LaneDirectory(Protocol):
    """Which lanes there are, and many things in few calls. What it says may be some moments old.

    UnavailableError when it can't.
    """

    def user_ids(self, prefix: str, most: int) -> list[str]:
        """The users that have a lane and whose id begins so, by id, at most so many."""
        ...

    def lanes(self, user_ids: Sequence[str]) -> list[Lane]:
        """Those of these lanes that there are, in any order."""
        ...

    def tasks(self, keys: Sequence[tuple[str, str]]) -> list[TaskRecord]:
        """Those of these tasks, each a user id and a task id, that there are, in any order."""
        ...


class RequestRecord(Struct, frozen=True):
    """A request that came with a key."""

    user_id: str
    #: a hash of the key
    key: str
    #: a hash of what was asked for
    fingerprint: str
    #: the first task's id; those of further ones follow from it
    first_id: str
    #: epoch ms of when it was begun last
    begun_at: int
    #: names who serves it
    owner: str
    #: None while it is being served
    answer: dict[str, Any] | None = None
    #: it was begun before and never answered: its tasks may have been sent
    is_repeat: bool = False


class RequestStore(Protocol):
    def begin(self, record: RequestRecord, abandoned_before: int) -> RequestRecord:
        """Writes the record if there is none, or one begun before that time (epoch ms) and never answered.

        Gives what is there then: with the owner of this record when it was written, and with the first one's ids.
        """
        ...

    def finish(self, record: RequestRecord, answer: dict[str, Any]) -> None: ...

    def abandon(self, record: RequestRecord) -> None:
        """Lets a repeat serve the request at once."""
        ...

    def forget(self, record: RequestRecord) -> None:
        """Nothing came of the request: a repeat is as good as new."""
        ...


class TaskQueue(Protocol):
    """The message groups, and the dead-letter queue. UnavailableError when the queue does not do it."""

    def send(self, task: Task) -> None:
        """Puts the task at the end of its user's lane; a repeat within 5 minutes changes nothing."""
        ...

    def send_many(self, tasks: Sequence[Task]) -> None:
        """Sends tasks of one user in order, again those that were not taken. UnavailableError if some never were."""
        ...

    def defer(self, receipt: str, seconds: int) -> None:
        """Hides the message for so many seconds, 0 to 43,000, the rest of its lane behind it."""
        ...

    def send_dead(self, user_id: str, task_id: str, body: str, reason: str) -> None:
        """Copies a message that can't succeed to the dead-letter queue; a repeat changes nothing for 5 minutes."""
        ...


class ScheduledQueue(Protocol):
    """What is to be done later, in any order, each thing at least once. UnavailableError when the queue can't."""

    def send(self, messages: Sequence[tuple[ScheduledMessage, int]]) -> None:
        """Puts in each message, to be given out after so many seconds, 0 to 900."""
        ...

    def defer(self, receipt: str, seconds: int) -> None:
        """Hides the message for so many seconds, 0 to 43,000."""
        ...


class Presence(Protocol):
    """Which claims are being served on this machine, by processes that live; AWS has no part in it."""

    def serving(self, token: str, /) -> AbstractContextManager[None]:
        """Says so while the body runs and this process lives."""
        ...

    def is_served(self, token: str, /) -> bool: ...


class CompletionLog(Protocol):
    def write(self, event: dict[str, Any]) -> None:
        """Appends one event as one line, whole. OSError when it can't."""
        ...


class Clock(Protocol):
    def now_ms(self) -> int:
        """Epoch milliseconds."""
        ...

    def sleep(self, milliseconds: int) -> bool:
        """Waits; True when it was cut short because the process is to stop."""
        ...

    def sleep_until(self, at: int) -> None:
        """Waits until that time, epoch ms, whatever else; returns at once when it is past."""
        ...
