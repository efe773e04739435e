"""Broken parts of the model of schedules: each leaves out one guard, and some storm shows it."""

from itertools import count
from typing import Any

from msgspec.structs import replace

from chalicelib.core.schedule import Schedule
from chalicelib.lanes.clearance import Clearance
from chalicelib.schedules.control import ScheduleControl
from chalicelib.schedules.ringing import Ringer
from chalicelib.submit.submitter import Submitter
from tests.memory.schedules import MemoryScheduleStore
from tests.simulation.ticking import TickParts


class NoRevision(MemoryScheduleStore):
    """Writes whatever was written since the schedule was read."""

    def save(self, schedule: Schedule, seen_revision: int) -> bool:
        stored = self.get(schedule.user_id, schedule.name)
        return super().save(schedule, stored.revision if stored else 0)


class NoPending(MemoryScheduleStore):
    """Forgets that a tick was taken."""

    def save(self, schedule: Schedule, seen_revision: int) -> bool:
        is_take = schedule.pending is not None
        saved = super().save(schedule, seen_revision)
        if saved and is_take:
            self._schedules[schedule.user_id, schedule.name] = replace(schedule, pending=None)
        return saved


class NewIds(Submitter):
    """Submits each try under an id of its own."""

    numbers = count(1)

    def submit(self, submission: Any, ids: Any, is_repeat: bool = False, is_withdrawn: Any = None) -> Any:
        return super().submit(submission, [f"{ids[0][:24]}{next(self.numbers):012x}"], is_repeat, is_withdrawn)


class NoWithdrawal(Submitter):
    """Does not ask, after the admission, whether the tick's user was forgotten meanwhile."""

    def submit(self, submission: Any, ids: Any, is_repeat: bool = False, is_withdrawn: Any = None) -> Any:
        return super().submit(submission, ids, is_repeat)


class MarksFirst(Clearance):
    """Writes the lane's mark of a forgotten user, and deletes the schedules then."""

    def forget(self, user_id: str) -> Any:
        delete, self._delete_schedules = self._delete_schedules, lambda _user_id: None
        try:
            return super().forget(user_id)
        finally:
            self._delete_schedules = delete
            delete(user_id)


class RevisionsFromOne(ScheduleControl):
    """Numbers the writes of a schedule from 1 on, also of one that was deleted before."""

    def _wanted(self, seen: Schedule | None, *rest: Any) -> Schedule:
        wanted = super()._wanted(seen, *rest)
        return wanted if seen else replace(wanted, revision=1)


class NoSearch(Ringer):
    """Never looks for lost messages."""

    def search(self, is_start: bool = False) -> None:
        pass


class NoNewBell(Ringer):
    """Does not number messages, so none ends another."""

    def new_bell(self, schedule: Schedule) -> Schedule:
        return replace(super().new_bell(schedule), bell=1)


TICK_MUTANTS = {
    "condition on the revision": TickParts(schedules=NoRevision),
    "mark of a tick that was taken": TickParts(schedules=NoPending),
    "id of the tick": TickParts(submitter=NewIds),
    "forgotten user: asked for after the admission": TickParts(submitter=NoWithdrawal),
    "forgotten user: schedules deleted before the mark": TickParts(clearance=MarksFirst),
    "revision of a schedule that comes again": TickParts(control=RevisionsFromOne),
    "search for lost messages": TickParts(ringer=NoSearch),
    "number of the message": TickParts(ringer=NoNewBell),
}
