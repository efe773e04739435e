"""The ports for scheduled tasks, schedules and callbacks."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from chalicelib.core.schedule import Schedule
from chalicelib.core.scheduled import DueTask


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
