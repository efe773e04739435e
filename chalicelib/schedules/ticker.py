"""Submits a task at each tick of a schedule, once, whatever fails.

A tick is taken by a conditional write, submitted under an id of its own, and confirmed by a second write. A dispatcher
that dies in between leaves the tick pending: the next one submits it under the same id, as a repeat, unless its record
says that it is submitted. It does not wait for ticks, and knows neither Lambda nor AWS.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec.structs import replace

from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import Lane
from chalicelib.core.ports import Clock, ScheduleStore, TaskStore
from chalicelib.core.schedule import Schedule, refused, submitted, taken, taken_over, tick_task_id
from chalicelib.core.scheduled import ScheduleBell
from chalicelib.schedules.ringing import Ringer
from chalicelib.settings import OverLimit
from chalicelib.submit.submission import Refused, Submission, TaskRequest
from chalicelib.submit.submitter import Submitter
from chalicelib.worker.completion_event import METRICS_NAMESPACE

#: Writes of one schedule that may lose a race before its message is received again.
TRIES = 5


class Ticker:
    def __init__(
        self,
        schedules: ScheduleStore,
        tasks: TaskStore,
        submitter: Submitter,
        ringer: Ringer,
        clock: Clock,
        new_token: Callable[[], str],
        over_limit: OverLimit,
        stage: str,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        """over_limit, stage: as in the settings. report: called with a line for each tick whose task is refused."""
        self._schedules = schedules
        self._tasks = tasks
        self._submitter = submitter
        self._ringer = ringer
        self._clock = clock
        self._new_token = new_token
        self._over_limit = over_limit
        self._stage = stage
        self._report = report

    def find(self, message: ScheduleBell) -> Schedule | None:
        """The message's schedule; None if it is deleted."""
        return self._schedules.get(message.user_id, message.name)

    def run(self, schedule: Schedule, message: ScheduleBell) -> Schedule | None:
        """Submits the schedule's tick if one is due. Returns the schedule as stored then; None if the message ends.

        It ends if the schedule is paused or deleted, or if a newer message brings its ticks.
        """
        current: Schedule | None = schedule
        for _ in range(TRIES):
            if current is None or current.wakes_at is None:
                return None
            if current.wakes_at > self._clock.now_ms():
                break
            current = self._step(current)
        return self._followed(current, message) if current else None

    def renew(self, schedule: Schedule) -> None:
        """Sends a new message in place of the present one, which is old."""
        self._ringer.ring(schedule)

    def search(self) -> None:
        """Looks for schedules whose message is lost, now and then."""
        self._ringer.search()

    def _step(self, schedule: Schedule) -> Schedule | None:
        """Takes the schedule's tick and submits it; returns the schedule as stored, also after a lost race."""
        token, now_ms = self._new_token(), self._clock.now_ms()
        is_repeat = schedule.pending is not None
        mine = taken_over(schedule, token, now_ms) if is_repeat else taken(schedule, token, now_ms)
        mine = replace(mine, revision=schedule.revision + 1)
        if not self._schedules.save(mine, schedule.revision):
            return self._schedules.get(schedule.user_id, schedule.name)
        return self._confirm(mine, self._submit(mine, is_repeat))

    def _confirm(self, mine: Schedule, confirmed: Callable[[Schedule], Schedule]) -> Schedule | None:
        """Stores that the tick is done, unless a change dropped it; returns the schedule as stored."""
        current: Schedule | None = mine
        for _ in range(TRIES):
            if current is None or not _is_taken_by(current, mine):
                return current
            after = replace(confirmed(current), revision=current.revision + 1)
            if self._schedules.save(after, current.revision):
                return after
            current = self._schedules.get(mine.user_id, mine.name)
        return current

    def _submit(self, mine: Schedule, is_repeat: bool) -> Callable[[Schedule], Schedule]:
        """Submits the pending tick's task; returns the change of the schedule that confirms it."""
        assert mine.pending is not None
        task_id = tick_task_id(mine, mine.pending.at)
        try:
            if is_repeat and self._tasks.get(mine.user_id, task_id):
                return partial(submitted, task_id=task_id)
            is_withdrawn = partial(self._is_withdrawn, mine)
            outcome = self._submitter.submit(self._submission(mine), [task_id], is_repeat, is_withdrawn)
        except UnavailableError:
            self._give_back(mine)
            raise
        if not isinstance(outcome, Refused):
            return partial(submitted, task_id=task_id)
        self._report(self._refused_event(mine, mine.pending.at, outcome.reason))
        return partial(refused, reason=outcome.reason)

    def _is_withdrawn(self, mine: Schedule, admitted: Lane) -> bool:
        """True if the user was forgotten since the tick was taken. admitted: the lane that has the tick's task.

        Whoever forgets a user deletes the schedules first, then marks the lane, and can do so only while no task waits
        in it. So a tick that is admitted after that finds the mark and no schedule of its generation.
        """
        if not admitted.forgotten_at:
            return False
        current = self._schedules.get(mine.user_id, mine.name)
        return current is None or current.generation != mine.generation

    def _give_back(self, mine: Schedule) -> None:
        """Lets the message's next receive submit the tick, instead of one after TAKEN_MS."""
        assert mine.pending is not None
        pending = replace(mine.pending, until=self._clock.now_ms())
        with suppress(UnavailableError):
            self._schedules.save(replace(mine, pending=pending, revision=mine.revision + 1), mine.revision)

    def _submission(self, mine: Schedule) -> Submission:
        order = mine.order
        request = TaskRequest(order.task, order.payload, callback_url=order.callback_url, units=order.units)
        return Submission(
            mine.user_id,
            (request,),
            self._clock.now_ms(),
            self._over_limit,
            units=(order.counted_units,),
            shared=(order.counted_shared,),
            schedule=mine.name,
        )

    def _followed(self, schedule: Schedule, message: ScheduleBell) -> Schedule | None:
        """The schedule if this message brings its next tick; None if a newer one does.

        A message with a number higher than the schedule's was sent by a process that died before it stored the number.
        """
        if message.bell < schedule.bell:
            return None
        if message.bell > schedule.bell:
            known = replace(schedule, bell=message.bell, revision=schedule.revision + 1)
            self._schedules.save(known, schedule.revision)
        return schedule

    def _refused_event(self, schedule: Schedule, at: int, reason: str) -> dict[str, Any]:
        """One line, with a metric by stage in CloudWatch's embedded format."""
        metrics = [{"Name": "tick_refused", "Unit": "Count"}]
        directive = {"Namespace": METRICS_NAMESPACE, "Dimensions": [["stage"]], "Metrics": metrics}
        return {
            "event": "tick_refused",
            "user_id": schedule.user_id,
            "schedule": schedule.name,
            "task": schedule.order.task,
            "tick_at": at,
            "reason": reason,
            "stage": self._stage,
            "tick_refused": 1,
            "_aws": {"Timestamp": self._clock.now_ms(), "CloudWatchMetrics": [directive]},
        }


def _is_taken_by(schedule: Schedule, mine: Schedule) -> bool:
    """True if the schedule's pending tick is the one that `mine` took."""
    taken_by = schedule.pending and schedule.pending.token
    return taken_by is not None and mine.pending is not None and taken_by == mine.pending.token
