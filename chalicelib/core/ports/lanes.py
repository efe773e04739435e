"""The port of the store of lanes, and how a repeated write finds that its first call succeeded."""

from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.admission import Admission
from chalicelib.core.claim import Start
from chalicelib.core.lane import Lane, Lease, Turn
from chalicelib.core.limits import Limits


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
        """Stores the lane's turn for a shared limit. Stale if the lane changed, or got another turn or start meanwhile.

        Another task of the lane may have asked for one. A claim of a task with a shared limit takes the turn out of
        the lane.
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
