"""Broken parts of the model of schedules: each leaves out one guard, and some storm shows it."""

from itertools import count
from typing import Any

from msgspec.structs import replace

from chalicelib.core.schedule import Schedule
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

    def submit(self, submission: Any, ids: Any, is_repeat: bool = False) -> Any:
        return super().submit(submission, [f"{ids[0][:24]}{next(self.numbers):012x}"], is_repeat)


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
    "search for lost messages": TickParts(ringer=NoSearch),
    "number of the message": TickParts(ringer=NoNewBell),
}
