"""The use case that the rest is for: submit tasks and get their places. Knows neither HTTP nor AWS."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

from msgspec import Struct

from chalicelib.core.contention import RetryWithJitter
from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import FOREVER_MS, Admission, Lane, admit, position_of, reserved, without
from chalicelib.core.limits import Limits, earliest_start
from chalicelib.core.ports import Clock, LaneStore, ScheduledQueue, Stale, TaskQueue, TaskStore, Write, Written
from chalicelib.core.scheduled import ScheduledTask, delay_seconds
from chalicelib.core.task import Json, Outcome, Task, TaskState
from chalicelib.settings import OverLimit, Settings
from chalicelib.submit.daily_cap import DailyCap, days_of, room_at

#: Tasks of one bulk submit.
MAX_TASKS = 100
#: Of so many the first may be sent ahead of the others. Fewer are one batch, which is sent as a whole or not at all;
#: with more, a submit would take more than the 16 calls that it may.
WITH_ONE_AHEAD = range(11, 82)


class NewTask(Struct, frozen=True):
    name: str
    payload: Json
    #: when it is to get its place in its lane, epoch ms, or so many milliseconds from now; at once with neither
    run_at: int | None = None
    delay_ms: int | None = None
    callback_url: str | None = None

    def due_at(self, now_ms: int) -> int | None:
        """When it is to get its place, epoch ms; None when that is now."""
        at = now_ms + self.delay_ms if self.delay_ms is not None else self.run_at
        return at if at is not None and at > now_ms else None


class Place(Struct, frozen=True):
    """A task that got its place in its lane. Times are epoch milliseconds."""

    task: Task
    #: 0 when it may start now or is scheduled, else as `position_of` has it
    position: int

    @property
    def delay_ms(self) -> int:
        return max(0, self.task.planned_at - self.task.submitted_at)

    @property
    def queued(self) -> bool:
        """It waits: over the limit in its lane, or for its time."""
        return self.position > 0 or self.is_scheduled

    @property
    def is_scheduled(self) -> bool:
        """It has no place yet: it gets one when its time has come."""
        return not self.task.seq


class Submitted(Struct, frozen=True):
    """Tasks that got their places, in order."""

    places: tuple[Place, ...]
    limits: Limits
    #: planned starts, newest first, these among them
    planned: tuple[int, ...]
    is_paused: bool = False
    now_ms: int = 0
    is_pause_endless: bool = False

    @property
    def queued(self) -> bool:
        return any(place.queued for place in self.places)

    @property
    def is_over_limit(self) -> bool:
        return any(place.position for place in self.places)

    @property
    def last(self) -> Place | None:
        """The last that got a place; None when all are scheduled."""
        return next((place for place in reversed(self.places) if not place.is_scheduled), None)


class Refused(Struct, frozen=True):
    """Nothing was queued."""

    user_id: str
    reason: str
    #: when a submit would be accepted, epoch ms
    retry_at: int
    now_ms: int
    limits: Limits
    planned: tuple[int, ...]


class Submitter:
    """Admits tasks: reserve the planned starts, send to the lane, note for those who ask.

    The message is the truth. A crash after the reservation wastes planned starts; a crash after the send of a single
    task loses nothing, for the worker notes the task if it is not there.
    """

    with_one_ahead: ClassVar[Sequence[int]] = WITH_ONE_AHEAD

    def __init__(
        self,
        lanes: LaneStore,
        tasks: TaskStore,
        queue: TaskQueue,
        clock: Clock,
        races: RetryWithJitter,
        settings: Settings,
        turn: Callable[[str], AbstractContextManager[None]] = lambda _user_id: nullcontext(),
        scheduled_queue: ScheduledQueue | None = None,
        daily_cap: DailyCap | None = None,
    ) -> None:
        """turn: what submits of one user go through one by one, to save races; nothing rests on it.

        scheduled_queue, daily_cap: for tasks with a time of their own; None where there are none.
        """
        self._scheduled_queue = scheduled_queue
        self._daily_cap = daily_cap
        self._lanes = lanes
        self._tasks = tasks
        self._queue = queue
        self._clock = clock
        self._retry = races
        self._settings = settings
        self._turn = turn

    def submit(
        self,
        user_id: str,
        new: Sequence[NewTask],
        ids: Sequence[str],
        over_limit: OverLimit,
        is_repeat: bool = False,
        on_withdrawal: Callable[[], None] = lambda: None,
    ) -> Submitted | Refused:
        """Admits all the tasks in this order, or none. UnavailableError when AWS fails: nothing was promised.

        ids: one for each task. is_repeat: they may have been sent before; then none of them runs a second time.
        on_withdrawal: called when many were cancelled since AWS failed halfway; their ids must not be used again.
        """
        with self._turn(user_id):
            now_ms = self._clock.now_ms()
            due = [one.due_at(now_ms) for one in new]
            soon = [task_id for task_id, at in zip(ids, due, strict=True) if at is None]
            # A repeat was counted the first time, and its tasks may be scheduled.
            scheduled_at = [] if is_repeat else [at for at in due if at is not None]
            if self._daily_cap and not self._daily_cap.take(user_id, scheduled_at, now_ms):
                return self._too_many_scheduled(user_id, self._daily_cap.most, scheduled_at, now_ms)
            reserved = self._reserve(user_id, soon, now_ms, over_limit) if soon else (self._lanes.get(user_id), ())
            if isinstance(reserved, Refused):
                if self._daily_cap:
                    self._daily_cap.give_back(user_id, scheduled_at, now_ms)
                return reserved
            lane, planned = reserved
            starts = iter(zip(range(lane.admitted - len(soon) + 1, lane.admitted + 1), planned, strict=True))
            tasks = []
            for one, task_id, at in zip(new, ids, due, strict=True):
                seq, planned_at = next(starts) if at is None else (0, at)
                timed = (planned_at, now_ms, is_repeat, at, one.callback_url)
                tasks.append(Task(user_id, task_id, seq, one.name, one.payload, *timed))
            self._send(lane, tasks, on_withdrawal)
        if len(tasks) == 1:
            self._tasks.create_if_absent(tasks[0])
        limits, is_paused = lane.limits_or(self._settings.limits), lane.is_paused(now_ms)
        places = tuple(_place(lane, limits, task, now_ms) for task in tasks)
        return Submitted(places, limits, lane.planned, is_paused, now_ms, lane.paused_until == FOREVER_MS)

    def reserve(self, user_id: str, task_id: str, now_ms: int) -> tuple[int, int] | Refused:
        """A place in the lane for a task that was scheduled: its seq and its planned start, epoch ms.

        The task is still to be noted and sent. It waits if need be, whatever the deployment does with other submits.
        """
        with self._turn(user_id):
            reserved = self._reserve(user_id, [task_id], now_ms, OverLimit.QUEUE)
        if isinstance(reserved, Refused):
            return reserved
        lane, planned = reserved
        return lane.admitted, planned[0]

    def _send(self, lane: Lane, tasks: Sequence[Task], on_withdrawal: Callable[[], None]) -> None:
        """Parks those whose time is to come, then sends the others; if these are withdrawn, those are too."""
        scheduled, placed = [task for task in tasks if not task.seq], [task for task in tasks if task.seq]

        def withdrawn() -> None:
            for task in scheduled if not tasks[0].is_repeat else ():
                self._tasks.finish(task, Outcome(TaskState.CANCELLED, None, task.submitted_at, 0))
            on_withdrawal()

        if scheduled:
            self._schedule(scheduled, is_only=len(tasks) == 1)
        if len(tasks) == 1 and placed:
            self._queue.send(placed[0])
        elif placed:
            self._send_all(lane, placed, withdrawn)

    def _schedule(self, tasks: Sequence[Task], is_only: bool) -> None:
        """Leaves the note of an only one to the caller, for whom the message comes first."""
        assert self._scheduled_queue is not None, "this deployment has no queue for later"
        if not is_only:
            self._note_all(tasks)
        self._scheduled_queue.send(
            [(ScheduledTask(task), delay_seconds(task.planned_at, task.submitted_at)) for task in tasks]
        )

    def _note_all(self, tasks: Sequence[Task]) -> None:
        """Many at once, but for a repeat, of which some may have run."""
        if not tasks[0].is_repeat:
            self._tasks.create_many(tasks)
            return
        for task in tasks:
            self._tasks.create_if_absent(task)

    def _send_all(self, lane: Lane, tasks: Sequence[Task], on_withdrawal: Callable[[], None]) -> None:
        """Notes and sends all or, when AWS fails in between, cancels them all.

        Noted first, since notes of many at once can't be conditional and must not come after their workers'. The note
        of one that goes ahead is conditional, but comes before the others': who misses a predecessor takes the first
        that is noted. What began can't be taken back: then the rest stays, and a repeat sends it. Of a repeat some may
        have run: it notes them one by one and cancels none.
        """
        if tasks[0].is_repeat:
            if self._was_withdrawn(lane, tasks):
                on_withdrawal()
                raise UnavailableError("AWS failed the first try, which was cancelled; a repeat makes new tasks")
            self._note_all(tasks)
            self._queue.send_many(tasks)
            return
        try:
            ahead, others = self._one_ahead(tasks)
            if ahead:
                self._queue.send(ahead)
                self._tasks.create_if_absent(ahead)
            self._tasks.create_many(others)
            self._queue.send_many(others)
        except UnavailableError:
            if self._withdrawn(lane, tasks):
                on_withdrawal()
            raise

    def _one_ahead(self, tasks: Sequence[Task]) -> tuple[Task | None, Sequence[Task]]:
        """The one that is to be sent before all else, if it pays, and the others."""
        may_start_now = tasks[0].planned_at <= tasks[0].submitted_at
        return (tasks[0], tasks[1:]) if may_start_now and len(tasks) in self.with_one_ahead else (None, tasks)

    def _withdrawn(self, lane: Lane, tasks: Sequence[Task]) -> bool:
        """Cancels all the tasks with one write; False, and nothing, when one of them has started."""
        for tries in self._retry.tries():
            self._retry.pause(tries)
            if lane.started_seq >= tasks[0].seq:
                return False
            write = self._lanes.change(lane, without(lane, {task.task_id: task.seq for task in tasks}))
            if isinstance(write, Written):
                return True
            lane = write.lane
        return False

    def _was_withdrawn(self, lane: Lane, tasks: Sequence[Task]) -> bool:
        """A first try cancelled them, and could not say so."""
        for task in (tasks[0], tasks[-1]):
            record = self._tasks.get(task.user_id, task.task_id)
            if task.task_id not in lane.cancelled and not (record and record.state is TaskState.CANCELLED):
                return False
        return True

    def _reserve(
        self, user_id: str, ids: Sequence[str], now_ms: int, over_limit: OverLimit
    ) -> tuple[Lane, tuple[int, ...]] | Refused:
        """The lane right after these planned starts were reserved in it."""
        write: Write = Stale(Lane(user_id))  # the first guess: a user's first submit costs no failed write
        planned: tuple[int, ...] = (now_ms,)
        if len(ids) == 1:
            write = self._lanes.try_fast_admit(user_id, self._settings.limits, now_ms, ids[0])
        for tries in self._retry.tries():
            if isinstance(write, Written):
                return write.lane, self._reserved(write.lane, planned)
            self._retry.pause(tries)
            admission = admit(write.lane, write.lane.limits_or(self._settings.limits), now_ms, ids[-1], len(ids))
            if refused := self._refusal(write, admission, now_ms, over_limit):
                return refused
            planned = admission.planned
            write = self._lanes.admit(write.lane, admission)
        if isinstance(write, Written):
            return write.lane, self._reserved(write.lane, planned)
        return self._refused(write, "Too many submits of this user at the same time.", now_ms + 1000, now_ms)

    def _reserved(self, lane: Lane, expected: Sequence[int]) -> tuple[int, ...]:
        return reserved(lane, lane.limits_or(self._settings.limits), expected)

    def _refusal(self, stale: Stale, admission: Admission, now_ms: int, over_limit: OverLimit) -> Refused | None:
        planned_at, longest_ms = admission.planned[-1], self._settings.max_delay_ms
        if over_limit is OverLimit.REJECT and stale.lane.paused_until == FOREVER_MS:
            return self._refused(stale, "The lane is paused, and waiting was not wanted.", now_ms + 1000, now_ms)
        if over_limit is OverLimit.REJECT and planned_at > now_ms:
            return self._refused(stale, "The limit is reached, and waiting was not wanted.", planned_at, now_ms)
        if planned_at - now_ms > longest_ms:
            reason = f"The task would wait {planned_at - now_ms} ms, longer than the {longest_ms} ms allowed."
            return self._refused(stale, reason, planned_at - longest_ms, now_ms)
        return None

    def _too_many_scheduled(self, user_id: str, most: int, due_at: Sequence[int], now_ms: int) -> Refused:
        reason = (
            f"No more than {most} tasks may be scheduled in one day (UTC), those that were cancelled included; "
            f"there is not enough room on {' or '.join(days_of(due_at))}."
        )
        return self._refused(Stale(self._lanes.get(user_id)), reason, room_at(due_at, now_ms), now_ms)

    def _refused(self, stale: Stale, reason: str, retry_at: int, now_ms: int) -> Refused:
        lane = stale.lane
        return Refused(lane.user_id, reason, retry_at, now_ms, lane.limits_or(self._settings.limits), lane.planned)


def _place(lane: Lane, limits: Limits, task: Task, now_ms: int) -> Place:
    return Place(task, position_of(lane, limits, task.seq, task.planned_at, now_ms) if task.seq else 0)


def next_within_limits(limits: Limits, planned: Sequence[int], now_ms: int) -> int:
    """When a further submit would be within the limits, epoch ms."""
    return earliest_start(planned, limits, now_ms)
