"""Stores, reads, lists and deletes schedules for the API. Knows neither HTTP nor AWS."""

from collections.abc import Callable

from msgspec.structs import replace

from chalicelib.core.contention import RetryWithJitter
from chalicelib.core.errors import ConflictError, NotFoundError, UnavailableError
from chalicelib.core.ports import Clock, ScheduleStore
from chalicelib.core.schedule import Order, Schedule, changed, planned
from chalicelib.core.ticks import Timing
from chalicelib.schedules.ringing import PAGE, Ringer


class ScheduleControl:
    def __init__(
        self,
        schedules: ScheduleStore,
        ringer: Ringer,
        clock: Clock,
        retry: RetryWithJitter,
        new_token: Callable[[], str],
        most: int,
    ) -> None:
        """most: schedules of one user."""
        self._schedules = schedules
        self._ringer = ringer
        self._clock = clock
        self._retry = retry
        self._new_token = new_token
        self._most = most

    def put(self, user_id: str, name: str, order: Order, timing: Timing, paused: bool) -> tuple[Schedule, bool]:
        """Stores the schedule in place of the one with this name; true if it is new.

        Once it returns, no tick of the earlier one is taken. A repeat leaves the next tick as it is. ConflictError if
        the user has as many schedules as allowed.
        """
        for tries in self._retry.tries():
            self._retry.pause(tries)
            seen = self._schedules.get(user_id, name)
            wanted = self._wanted(seen, user_id, name, order, timing, paused)
            if self._write(wanted, seen):
                return wanted, seen is None
        raise UnavailableError(f"the schedule {name} of {user_id} is changed too often to be changed once more")

    def _wanted(
        self, seen: Schedule | None, user_id: str, name: str, order: Order, timing: Timing, paused: bool
    ) -> Schedule:
        now_ms = self._clock.now_ms()
        if seen:
            wanted = changed(seen, order, timing, paused, self._new_token(), now_ms)
        else:
            new = Schedule(user_id, name, order, timing, paused, now_ms, self._new_token(), None)
            wanted = planned(new, now_ms)
        # Not from 1 on: whoever read a schedule that was deleted since must not overwrite one that came after it.
        return replace(self._ringer.new_bell(wanted), revision=(seen.revision if seen else now_ms) + 1)

    def _write(self, wanted: Schedule, seen: Schedule | None) -> bool:
        """Stores the schedule and sends its message, which replaces the present one.

        A new schedule is stored first, since a message without a schedule ends. That of a known one is sent first: if
        this process dies in between, the schedule still has a message.
        """
        if seen:
            self._ringer.send(wanted)
            return self._schedules.save(wanted, seen.revision)
        if not self._schedules.add_name(wanted.user_id, wanted.name, self._most):
            raise ConflictError("Too many schedules", f"A user may have {self._most} schedules; delete one first.")
        if not self._schedules.save(wanted, 0):
            return False
        self._ringer.send(wanted)
        return True

    def get(self, user_id: str, name: str) -> Schedule:
        """NotFoundError if the user has no schedule with this name."""
        schedule = self._schedules.get(user_id, name)
        if schedule is None:
            raise _missing(name)
        self._ringer.ring_lost([schedule])
        return schedule

    def page(self, user_id: str, after: str, limit: int) -> tuple[list[Schedule], str | None]:
        """Returns one page of the user's schedules, by name, and the name after which the next page begins."""
        found, following = self._schedules.page(user_id, after, limit)
        self._ringer.ring_lost(found)
        return found, following

    def delete(self, user_id: str, name: str) -> Schedule:
        """Deletes the schedule and returns it; its ticks end. NotFoundError if there is none."""
        schedule = self._delete(user_id, name)
        if schedule is None:
            raise _missing(name)
        return schedule

    def _delete(self, user_id: str, name: str) -> Schedule | None:
        schedule = self._schedules.delete(user_id, name)
        self._schedules.remove_name(user_id, name)  # also if there is none: an earlier call may have died before this
        return schedule

    def delete_all(self, user_id: str) -> int:
        """Deletes the user's schedules, as one who forgets the user does; returns their number."""
        count, after = 0, ""
        while True:
            found, following = self._schedules.page(user_id, after, PAGE)
            for schedule in found:
                self._delete(user_id, schedule.name)
            count += len(found)
            if following is None:
                return count
            after = following


def _missing(name: str) -> NotFoundError:
    return NotFoundError("No such schedule", f"This user has no schedule {name[:64]!r}.", "name")
