"""Interfaces that the core needs from stores, queues and clocks. One contract test runs over each implementation."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.admission import Admission
from chalicelib.core.claim import Start
from chalicelib.core.lane import Lane, Lease, Turn
from chalicelib.core.limits import Limits
from chalicelib.core.schedule import Schedule
from chalicelib.core.scheduled import DueTask, ScheduledMessage
from chalicelib.core.shared_limit import SharedLimit, Taken, Waiter
from chalicelib.core.task import FailedAttempt, Outcome, Progress, Task, TaskRecord, TaskState


class Written(Struct, frozen=True):
    """The write succeeded, possibly in an attempt whose answer was lost; `lane` is its new state."""

    lane: Lane


class Stale(Struct, frozen=True):
    """The write's condition failed, so nothing was written; `lane` is its current state."""

    lane: Lane


Write = Written | Stale

# boto3 repeats a call whose answer was lost. Then the repeat's condition fails because of the first call's own write.


def own_admission(write: Write, task_id: str) -> Write:
    """The write as Written if the lane's newest task shows that it succeeded in an earlier call."""
    return Written(write.lane) if write.lane.newest == task_id else write


def own_claim(write: Write, start: Start) -> Write:
    """The write as Written if the lane's lease shows that it succeeded in an earlier call."""
    mine, found = start.lease, replace(start, lane=write.lane).lease
    same = mine and found and (mine.token, mine.attempt, mine.task_id) == (found.token, found.attempt, found.task_id)
    return Written(write.lane) if same else write


def own_correction(write: Write, start: Start) -> Write:
    """The write as Written if the lane's lease shows that it succeeded in an earlier call."""
    found = _own_lease(write.lane, start)
    return Written(write.lane) if found and found.is_corrected else write


def corrected_at(write: Write, start: Start) -> int | None:
    """From when on the lane counts the start's units as corrected, epoch ms; None if it does not."""
    found = _own_lease(write.lane, start)
    return found.used[1] if found and found.used else None


def after_newest(write: Write, start: Start, now_ms: int) -> int | None:
    """The time just after the lane's newest start, epoch ms; None if that is before now_ms, or the write succeeded.

    Another worker may have claimed that start ahead, before it could know of units that this one reports.
    """
    newest = write.lane.starts[0] if write.lane.starts else 0
    is_open = isinstance(write, Stale) and start.slot and _own_lease(write.lane, start)
    return newest + 1 if is_open and newest >= now_ms else None


def _own_lease(lane: Lane, start: Start) -> Lease | None:
    mine, found = start.lease, replace(start, lane=lane).lease
    return found if mine and found and mine.token == found.token else None


class LaneStore(Protocol):
    """Stores lanes. Each write is one atomic conditional write. Methods raise UnavailableError if the store fails.

    Admission and claim have twins: a fast one, whose condition decides by itself on an ordinary lane, and an exact one,
    for any lane that was read (`seen`). A lane is ordinary for a fast write if it is neither paused nor throttled, has
    the limits that the write was computed from, has room in the large ones, and has a list of starts that is long
    enough to show that the small ones allow one more, and short enough not to be trimmed; for a claim, also if no
    cancelled task still waits in it. A fast write on another lane changes nothing and returns Stale with the lane, from
    which the exact twin goes on.
    """

    def get(self, user_id: str) -> Lane:
        """Returns the lane by a strongly consistent read; an empty lane if it does not exist."""
        ...

    def try_fast_admit(
        self, user_id: str, limits: Limits, now_ms: int, task_id: str, only_if_free: bool = False, units: int = 1
    ) -> Write:
        """Reserves now_ms as one task's planned start, on an ordinary lane without own limits that allows it.

        Stale also while a task waits between two attempts, and with only_if_free while the lane says that tasks keep it
        for a second or more (`busy_ms`).
        """
        ...

    def admit(self, seen: Lane, admission: Admission) -> Write:
        """Reserves the admission. Stale if the lane's planned starts, limits or pause changed since `seen`.

        Stale also if a task began to wait for its next attempt since then.
        """
        ...

    def try_fast_claim(self, start: Start, limits: Limits) -> Write:
        """Claims the first attempt of the lane's next task at start.at, on an ordinary lane that allows it.

        Stores the average run time of start.lane, if that is known.

        Stale also while the newest lease is of a task that ran out of order, or of one between two attempts: it must be
        finished first.
        """
        ...

    def claim(self, seen: Lane, start: Start) -> Write:
        """Claims the start. Stale if the lane state that it was computed from changed."""
        ...

    def change(self, seen: Lane, changed: Lane) -> Write:
        """Writes the whole lane. Stale if any task was admitted or started, or the lane changed.

        Leaves the lease as it is, except that of a task between two attempts, which no worker holds.
        """
        ...

    def forget(self, seen: Lane, changed: Lane, expires_at: int) -> Write:
        """As `change`; the lane expires at that time, epoch seconds, and is listed no more until its next submit."""
        ...

    def save_head_receipt(self, seen: Lane, receipt: str) -> Write:
        """Stores the hidden head message's receipt handle, by which a change wakes it. Stale if the lane changed.

        So also if a slot was freed since `seen`.
        """
        ...

    def save_turn(self, seen: Lane, turn: Turn) -> Write:
        """Stores the lane's turn for a shared limit. Stale if the lane changed.

        A claim of a task with a shared limit takes the turn out of the lane.
        """
        ...

    def save_next_receipt(self, seen: Lane, receipt: str) -> Write:
        """The same for the hidden message of the next task, which was forwarded. Stale also if a task started."""
        ...

    def save_slot_receipt(self, seen: Lane, lease: Lease, receipt: str, visible_at: int) -> Write:
        """The same for a started task that waits for its next attempt. Stale also if its slot changed.

        visible_at: when the message will be visible again by itself, epoch ms.
        """
        ...

    def release_slot(self, user_id: str, lease: Lease, took_ms: int) -> Write:
        """Frees the slot of a finished task, and stores the lane's average run time unless it is 0.

        Stale when it is free or another worker has it: a repeat changes nothing.
        """
        ...

    # The methods below find the lease in its slot if it is in one.

    def throttle(self, user_id: str, lease: Lease, until: int, reason: str) -> Lease | None:
        """Throttles the lane until `until`, epoch ms; releases the lease and does not count its attempt.

        Returns the lease as stored, None when another worker has the lane's lease.
        """
        ...

    def correct_units(self, start: Start, used_units: int, now_ms: int) -> int | None:
        """Counts the units that the started task really used: more from now_ms on, less are given back at its start.

        Returns from when on they count, epoch ms: after a start beside this one that was claimed without knowing of
        them. Once for each lease, whatever is repeated. None when another worker has the lane's lease.
        """
        ...

    def renew_lease(self, user_id: str, lease: Lease, until: int) -> Lease | None:
        """Marks the task as running, and moves the end of its lease to `until`, epoch ms.

        Returns the lease as stored, which says whether the task was cancelled meanwhile; None when it was released or
        another worker has it.
        """
        ...

    def release_lease(self, user_id: str, lease: Lease, retry_at: int) -> Lease | None:
        """Ends the attempt: its task may be claimed again from `retry_at` on, epoch ms.

        A renewal that arrives after it changes nothing. Returns the lease as stored; None when it was released or
        another worker has it.
        """
        ...

    def request_cancel(self, user_id: str, lease: Lease, now_ms: int) -> bool:
        """Marks the running task as cancelled at now_ms; its worker learns it by its next renewal.

        No further attempt of it can be claimed. The first request's time stays. False when the lease was released or
        another worker has it.
        """
        ...

    def end_lease(self, user_id: str, lease: Lease, now_ms: int, took_ms: int) -> bool:
        """Ends the lease of a finished task at now_ms, and stores the lane's average run time.

        A renewal that arrives after it changes nothing. False when it was released or another worker has it.
        """
        ...


class SharedWritten(Struct, frozen=True):
    """The write succeeded, possibly in an attempt whose answer was lost; `shared` is its new state."""

    shared: SharedLimit


class SharedStale(Struct, frozen=True):
    """The write's condition failed, so nothing was written; `shared` is its current state."""

    shared: SharedLimit


SharedWrite = SharedWritten | SharedStale


class SharedClaim(Struct, frozen=True):
    """A start under a shared limit, for the write that needs no knowledge of its starts."""

    name: str
    user_id: str
    task_id: str
    #: epoch ms
    at: int
    #: names this one claim, so that a claim whose answer was lost is recognised as done
    token: str
    #: in force
    limits: Limits
    #: set at run time, None for those of the deployment's setting
    own: Limits | None = None
    units: int = 1
    #: the lane's; 0 for none: then nobody else may wait
    turn: int = 0
    #: the turn is newer than all that were used when it was read
    is_newest_turn: bool = False
    #: it gives the next turn too: for another lane of the same group
    asks_again: bool = False
    #: over which the shared limit is spread, as it was read
    shards: int = 1


class Correction(Struct, frozen=True):
    """The units that a start under a shared limit really used."""

    name: str
    #: names this one start
    token: str
    #: when the task started, epoch ms
    started_at: int
    #: beyond those that it was claimed with; below 0 if it used less
    more: int


def is_corrected(shared: SharedLimit, correction: Correction) -> bool:
    return correction.token in shared.corrected


def own_shared_claim(write: SharedWrite, token: str) -> SharedWrite:
    """The write as SharedWritten if the newest claim shows that it succeeded in an earlier call."""
    return SharedWritten(write.shared) if write.shared.newest == token else write


class SharedLimitStore(Protocol):
    """Stores shared limits. Each write is one atomic write. Methods raise UnavailableError if the store fails.

    A claim has twins, as with lanes: a fast one, whose condition decides by itself on an ordinary shared limit, and an
    exact one, for any that was read (`seen`). A shared limit is ordinary if it is neither paused nor throttled, has the
    limits and shards that the claim was computed from, and shows by a list of starts, neither too short nor too long,
    and by the room in the large limits, that it allows the start.
    """

    def get(self, name: str) -> SharedLimit:
        """Returns the shared limit by a strongly consistent read; an empty one if nothing is stored."""
        ...

    def names(self) -> Sequence[str]:
        """Returns the names of those that were changed at run time, in order."""
        ...

    def try_claim(self, claim: SharedClaim) -> SharedWrite:
        """Takes the start at claim.at, on an ordinary shared limit that allows it; lists the task if it counts at once.

        Without a turn stale while others wait. With the newest turn, all up to it count as used. Claims with turns
        may be written in any order.
        """
        ...

    def claim(self, seen: SharedLimit, taken: Taken) -> SharedWrite:
        """Takes the start. Stale if the shared limit changed, or another start was taken."""
        ...

    def trim(self, seen: SharedLimit, kept: int) -> None:
        """Drops the starts seen behind the newest `kept` ones, and counts the turns seen as used into `served`.

        A start that was taken meanwhile makes that older ones stay. Only for a shared limit without large limits.
        """
        ...

    def change(self, seen: SharedLimit, changed: SharedLimit) -> SharedWrite:
        """Writes limits, pause, throttling, shards and starts; drops the list of those that run if `changed` has none.

        Stale if they changed, or if `changed` has other starts and one was taken meanwhile.
        """
        ...

    def ask(self, name: str) -> SharedLimit:
        """Gives the next turn: `asked` of the answer. A turn of a lost answer is passed over."""
        ...

    def save_group_turn(self, queue: SharedLimit, served: int, turn: int, turn_from: int) -> SharedWrite:
        """Stores a group's turn of a shared limit in the group's queue, and the newest number in it that was used.

        turn_from: from when on the group may use it, epoch ms. Stale if turn or number is not that of `queue`.
        """
        ...

    def correct_units(self, correction: Correction, now_ms: int) -> SharedWrite:
        """Counts the units that a start really used: more from now_ms on, less are given back at the start.

        Once for each token, whatever is repeated. Stale, if more were used, while a start lies at now_ms or later:
        another worker may have claimed it before it could know of them.
        """
        ...

    def throttle(self, name: str, until: int, reason: str) -> SharedLimit:
        """Lets nothing start until `until`, epoch ms, unless it is throttled for longer already, or changes."""
        ...

    def release(self, name: str, task_id: str, at: int) -> SharedLimit:
        """Takes a task off those that run at once, if it is listed with that start, epoch ms. A repeat changes nothing.

        Returns the shared limit, whose turns say whether somebody waits.
        """
        ...

    def add_waiter(self, name: str, waiter: Waiter, until: int) -> None:
        """Lists a lane that waits for its turn, about until that time, epoch ms."""
        ...

    def waiters(self, name: str, after_turn: int, most: int) -> list[Waiter]:
        """Returns the first `most` listed lanes with a turn greater than `after_turn`, in order of their turns."""
        ...


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


class ScheduledCounts(Protocol):
    """Counts each user's scheduled tasks by the day they are due. Methods raise UnavailableError if the store fails.

    Days are counted from the epoch, in UTC.
    """

    def add(self, user_id: str, today: int, days: Mapping[int, int], most: int) -> int | None:
        """Adds the given counts to each day, atomically. None, and no change, if a day would exceed `most`.

        Returns a number from 1 on, greater than that of each call of this user that was answered before. Drops the
        counts of days before today.
        """
        ...


class CallbackSlots(Protocol):
    """Bounds each user's callbacks that run at once. Methods raise UnavailableError if the store fails."""

    def take(self, user_id: str, now_ms: int, until_ms: int, most: int) -> int | None:
        """Takes one of the user's `most` slots, atomically, until it is given back or until_ms has passed.

        Returns its number; None if all are taken.
        """
        ...

    def give_back(self, user_id: str, slot: int, until_ms: int) -> None:
        """Frees the slot, unless it has passed and another callback has it. until_ms: as it was taken."""
        ...


class DueTasks(Protocol):
    """Lists each user's scheduled tasks in the order of their admission. UnavailableError if the store fails.

    One dispatcher at a time admits a user's tasks, so that no seq is reserved twice for one task. Order does not rest
    on that: a dispatcher whose time is up, and which goes on, breaks nothing.
    """

    def add(self, user_id: str, tasks: Sequence[DueTask]) -> None:
        """Lists these tasks; a repeat changes nothing."""
        ...

    def due(self, user_id: str, now_ms: int, most: int) -> list[DueTask]:
        """Returns the first `most` tasks with a time up to now_ms, in order, by a strongly consistent read."""
        ...

    def remove(self, user_id: str, tasks: Sequence[DueTask]) -> None:
        """Takes admitted or finished tasks off the list; missing ones change nothing."""
        ...

    def try_begin_admitting(self, user_id: str, token: str, now_ms: int, until: int) -> bool:
        """Marks the user's tasks as being admitted under this token until that time, epoch ms.

        False if they are being admitted under another token.
        """
        ...

    def end_admitting(self, user_id: str, token: str) -> None:
        """Ends the mark, unless it has another token."""
        ...


class ScheduleStore(Protocol):
    """Stores schedules, and for each user the list of their names. Reads are strongly consistent.

    Methods raise UnavailableError if the store fails.
    """

    def get(self, user_id: str, name: str) -> Schedule | None: ...

    def page(self, user_id: str, after: str, limit: int) -> tuple[list[Schedule], str | None]:
        """Returns up to `limit` of the user's schedules with names greater than `after`, by name.

        The second value is the name after which the next page begins; None at the end. A page has about 1 MB at most.
        """
        ...

    def save(self, schedule: Schedule, seen_revision: int) -> bool:
        """Writes the schedule if the stored one has that revision; 0: if none is stored. False if it was not written.

        True also if an earlier call of the same write succeeded and its answer was lost.
        """
        ...

    def delete(self, user_id: str, name: str) -> Schedule | None:
        """Deletes the schedule and returns it; None if there was none."""
        ...

    def add_name(self, user_id: str, name: str, most: int) -> bool:
        """Adds the name to the user's list, if it then has at most `most`, or has it already. Else returns False."""
        ...

    def remove_name(self, user_id: str, name: str) -> None:
        """Takes the name off the user's list, if it is there."""
        ...

    def users(self, after: str, limit: int) -> list[str]:
        """Returns the first `limit` ids greater than `after` of users with a schedule, in order.

        Eventually consistent.
        """
        ...

    def try_begin_search(self, now_ms: int, until: int) -> str | None:
        """Begins a search for lost messages, unless another one may run until after now_ms; no other begins until then.

        Returns the user id after which the last search ended, empty for the first; None if it may not begin.
        """
        ...

    def end_search(self, at: str) -> None:
        """Stores the user id after which the next search begins."""
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


class TaskQueue(Protocol):
    """Sends and hides messages of lanes; sends dead letters. Methods raise UnavailableError if the queue fails."""

    def send(self, task: Task) -> None:
        """Sends the task's message to its user's group. A repeat within 5 minutes has no effect."""
        ...

    def send_again(self, task: Task, now_ms: int) -> None:
        """Sends the message of a task whose first message may be lost. A repeat within a minute has no effect."""
        ...

    def forward(self, task: Task, now_ms: int) -> None:
        """Sends the task's message to a group of its own. A repeat within 5 minutes has no effect.

        One of a task that is sent again has no effect within a minute.
        """
        ...

    def send_many(self, tasks: Sequence[Task]) -> None:
        """Sends one user's tasks in order, retrying rejected ones. Raises UnavailableError if some stay rejected."""
        ...

    def defer(self, receipt: str, seconds: int) -> bool:
        """Hides the message, and so the messages behind it in its group, for 0 to 43,000 seconds.

        False if it cannot, since the message is deleted or is visible again.
        """
        ...

    def send_dead(self, user_id: str, task_id: str, body: str, reason: str) -> None:
        """Copies a failed task's message to the dead-letter queue. A repeat within 5 minutes has no effect."""
        ...


class ScheduledQueue(Protocol):
    """Delivers scheduled messages at least once, in any order. Methods raise UnavailableError if the queue fails."""

    def send(self, messages: Sequence[tuple[ScheduledMessage, int]]) -> None:
        """Sends each message with its delay in seconds, 0 to 900."""
        ...

    def defer(self, receipt: str, seconds: int) -> bool:
        """Hides the message for 0 to 43,000 seconds; False if it cannot, since the message is gone."""
        ...


class Backlog(Struct, frozen=True):
    """Sums over all lanes."""

    lanes: int
    waiting: int
    running: int
    paused: int
    throttled: int


class SharedBacklog(Struct, frozen=True):
    """How far a shared limit is used."""

    name: str
    #: lanes that wait for their turn, about
    waiting: int
    #: tasks that run; counted only with a number at once
    running: int
    #: starts, or units, that count now, and the quota, by the names of its limits
    used: Mapping[str, tuple[int, int]]


class Presence(Protocol):
    """Tracks the claims that live processes on this machine are serving; does not use AWS."""

    def serving(self, token: str, /) -> AbstractContextManager[None]:
        """Marks the claim as served while the body runs and this process lives."""
        ...

    def is_served(self, token: str, /) -> bool: ...


class CompletionLog(Protocol):
    def write(self, event: dict[str, Any]) -> None:
        """Appends one event as one whole line. Raises OSError if it cannot."""
        ...


class Clock(Protocol):
    def now_ms(self) -> int:
        """The current time in epoch milliseconds."""
        ...

    def sleep(self, milliseconds: int) -> bool:
        """Sleeps; True if it ended early because the process must stop."""
        ...

    def sleep_until(self, at: int) -> None:
        """Sleeps until that time, epoch ms, without interruption; returns at once if it is past."""
        ...
