"""Sends the messages that bring schedules their ticks, and finds the schedules whose message is lost.

A schedule has one message, which is hidden until the next tick, again and again. Each new one has a higher number, its
bell, than the ones before it, and so ends them.
"""

from collections.abc import Callable

from msgspec.structs import replace

from chalicelib.core.ports import Clock, ScheduledQueue, ScheduleStore
from chalicelib.core.schedule import Schedule, is_overdue
from chalicelib.core.scheduled import ScheduleBell, delay_seconds

#: Milliseconds between two searches for lost messages, over all processes, and users that one of them reads.
SEARCH_EVERY_MS = 600_000
SEARCHED_USERS = 100
#: Schedules that one read gives.
PAGE = 100


class Ringer:
    def __init__(
        self, schedules: ScheduleStore, queue: ScheduledQueue, clock: Clock, chance: Callable[[], float]
    ) -> None:
        """chance: random numbers from 0 to 1."""
        self._schedules = schedules
        self._queue = queue
        self._clock = clock
        self._chance = chance
        self._searched_at = 0

    def new_bell(self, schedule: Schedule) -> Schedule:
        """The schedule with the number of a message that is to replace its present one."""
        now_ms = self._clock.now_ms()
        # By time and chance, so that two processes that ring at once take two numbers.
        bell = max(schedule.bell + 1, now_ms * 1000 + int(self._chance() * 1000))
        return replace(schedule, bell=bell, rung_at=now_ms)

    def send(self, schedule: Schedule) -> None:
        """Sends the message that the schedule's bell names, for its next tick; none for a paused schedule.

        A dispatcher that submits a tick at this moment will soon be done, so the message is for the tick after it.
        """
        times = [at for at in (schedule.next_at, schedule.wakes_at) if at is not None]
        if times:
            message = ScheduleBell(schedule.user_id, schedule.name, schedule.bell)
            self._queue.send([(message, delay_seconds(min(times), self._clock.now_ms()))])

    def ring(self, schedule: Schedule) -> None:
        """Sends a new message for the schedule, and ends the present one.

        Sent first: if this process dies before the write, both messages live, and the newer one makes itself known.
        """
        ringing = self.new_bell(schedule)
        self.send(ringing)
        self._schedules.save(replace(ringing, revision=schedule.revision + 1), schedule.revision)

    def ring_overdue(self, user_id: str) -> None:
        """Rings the user's schedules whose message may be lost."""
        after: str | None = ""
        while after is not None:
            found, after = self._schedules.page(user_id, after, PAGE)
            self.ring_lost(found)

    def ring_lost(self, schedules: list[Schedule]) -> None:
        """Rings those of the schedules whose message may be lost."""
        for schedule in schedules:
            if is_overdue(schedule, self._clock.now_ms()):
                self.ring(schedule)

    def search(self, is_start: bool = False) -> None:
        """Rings overdue schedules of the next SEARCHED_USERS users, once in SEARCH_EVERY_MS over all processes.

        is_start: also if another process did so shortly before: it may have found the queue not there yet.
        """
        now_ms = self._clock.now_ms()
        if now_ms < self._searched_at + SEARCH_EVERY_MS and not is_start:
            return
        self._searched_at = now_ms
        horizon = now_ms + SEARCH_EVERY_MS if is_start else now_ms
        after = self._schedules.try_begin_search(horizon, now_ms + SEARCH_EVERY_MS)
        if after is not None:
            self._search(after)

    def _search(self, after: str) -> None:
        users = self._schedules.users(after, SEARCHED_USERS)
        for user_id in users:
            self.ring_overdue(user_id)
        # After the last user, the next search begins with the first.
        self._schedules.end_search(users[-1] if len(users) == SEARCHED_USERS else "")
