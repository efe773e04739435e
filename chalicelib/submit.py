"""The use cases of the API: submit a task, look at one. Knows neither HTTP nor AWS."""

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.errors import NotFoundError
from chalicelib.lane import Admission, Lane, admit, estimated_starts
from chalicelib.limits import Limits, earliest_start
from chalicelib.ports import Clock, LaneStore, Stale, TaskQueue, TaskStore, Write, Written
from chalicelib.settings import OverLimit, Settings
from chalicelib.tasks import Json, Task, TaskRecord, TaskState

#: How often a reservation is tried while other submits of the same user come between.
RESERVE_TRIES = 30
#: The first wait between two tries; it grows up to ten times this, and each is drawn at random below it.
RESERVE_JITTER_MS = 10


@dataclass(frozen=True)
class NewTask:
    user_id: str
    name: str
    payload: Json


@dataclass(frozen=True)
class Submitted:
    """A task that got its place. Times are epoch milliseconds."""

    task: Task
    #: tasks ahead; 0 when it may start now
    position: int
    #: over the limit: it waits in its lane
    queued: bool
    limits: Limits
    #: planned starts, newest first, this one among them
    planned: tuple[int, ...]

    @property
    def delay_ms(self) -> int:
        return self.task.planned_at - self.task.submitted_at


@dataclass(frozen=True)
class Refused:
    """Nothing was queued."""

    user_id: str
    reason: str
    #: when a submit would be accepted, epoch ms
    retry_at: int
    now_ms: int
    limits: Limits
    planned: tuple[int, ...]


@dataclass(frozen=True)
class TaskView:
    """A task as its user sees it."""

    record: TaskRecord
    state: TaskState
    position: int
    #: epoch ms; None once it has started or ended
    estimated_at: int | None
    #: epoch ms; None before it starts
    started_at: int | None
    attempts: int


class Submitter:
    """Admits tasks: reserve the planned start, send to the lane, note the task, in this order.

    The message is the truth. A crash after the reservation wastes a planned start; a crash after the send loses
    nothing, for the worker notes the task if it is not there.
    """

    def __init__(
        self,
        lanes: LaneStore,
        tasks: TaskStore,
        queue: TaskQueue,
        clock: Clock,
        new_id: Callable[[], str],
        random: Callable[[], float],
        settings: Settings,
    ) -> None:
        self._lanes = lanes
        self._tasks = tasks
        self._queue = queue
        self._clock = clock
        self._new_id = new_id
        self._random = random
        self._settings = settings

    def submit(self, new: NewTask, over_limit: OverLimit) -> Submitted | Refused:
        """Admits one task, or refuses it with nothing queued. UnavailableError when AWS fails: nothing was promised."""
        now_ms, task_id = self._clock.now_ms(), self._new_id()
        reserved = self._reserve(new.user_id, task_id, now_ms, over_limit)
        if isinstance(reserved, Refused):
            return reserved
        planned_at = reserved.planned[0]
        task = Task(new.user_id, task_id, reserved.admitted, new.name, new.payload, planned_at, now_ms)
        self._queue.send(task)
        self._tasks.put(task)
        queued = planned_at > now_ms
        position = max(1, reserved.waiting - 1) if queued else 0
        return Submitted(task, position, queued, reserved.limits_or(self._settings.limits), reserved.planned)

    def _reserve(self, user_id: str, task_id: str, now_ms: int, over_limit: OverLimit) -> Lane | Refused:
        """The lane right after this task's planned start was reserved in it."""
        write: Write = self._lanes.admit_within(user_id, self._settings.limits, now_ms, task_id)
        for tries in range(RESERVE_TRIES):
            if isinstance(write, Written):
                return write.lane
            if tries:
                self._clock.sleep(round(self._random() * RESERVE_JITTER_MS * min(tries, 10)))
            limits = write.lane.limits_or(self._settings.limits)
            admission = admit(write.lane, limits, now_ms, task_id)
            if refused := self._refusal(write, admission, now_ms, over_limit):
                return refused
            write = self._lanes.admit(write.lane, admission)
        if isinstance(write, Written):
            return write.lane
        return self._refused(write, "Too many submits of this user at the same time.", now_ms + 1000, now_ms)

    def _refusal(self, stale: Stale, admission: Admission, now_ms: int, over_limit: OverLimit) -> Refused | None:
        planned_at, longest_ms = admission.planned[-1], self._settings.max_delay_ms
        if over_limit is OverLimit.REJECT and planned_at > now_ms:
            return self._refused(stale, "The limit is reached, and waiting was not wanted.", planned_at, now_ms)
        if planned_at - now_ms > longest_ms:
            reason = f"The task would wait {planned_at - now_ms} ms, longer than the {longest_ms} ms allowed."
            return self._refused(stale, reason, planned_at - longest_ms, now_ms)
        return None

    def _refused(self, stale: Stale, reason: str, retry_at: int, now_ms: int) -> Refused:
        lane = stale.lane
        return Refused(lane.user_id, reason, retry_at, now_ms, lane.limits_or(self._settings.limits), lane.planned)

    def view(self, user_id: str, task_id: str) -> TaskView:
        """The task and where it stands. NotFoundError when this user has no such task."""
        record = self._tasks.get(user_id, task_id)
        if record is None:
            raise NotFoundError("No such task", f"User {user_id!r} has no task {task_id!r}.", "task_id")
        if record.ended:
            ended = record.ended
            return TaskView(record, record.state, 0, None, ended.started_at, ended.attempts)
        return self._live_view(record, self._lanes.get(user_id))

    def _live_view(self, record: TaskRecord, lane: Lane) -> TaskView:
        task, now_ms = record.task, self._clock.now_ms()
        lease = lane.running if lane.running and lane.running.task_id == task.task_id else None
        if lease and lease.until > now_ms and record.attempts < lease.attempt:
            return TaskView(record, TaskState.RUNNING, 0, None, lease.starts[-1], lease.attempt)
        if task.task_id in lane.cancelled:
            return TaskView(record, TaskState.CANCELLED, 0, None, None, record.attempts)
        ahead = max(0, task.seq - 1 - lane.started_seq)
        estimated = _estimate(lane, lane.limits_or(self._settings.limits), now_ms, task, ahead)
        return TaskView(record, TaskState.QUEUED, ahead, estimated, None, record.attempts)


def _estimate(lane: Lane, limits: Limits, now_ms: int, task: Task, ahead: int) -> int:
    """When the task will start if nothing else is late, given the real starts and the tasks ahead."""
    known = lane.planned[: lane.waiting][::-1]
    missing = max(0, ahead + 1 - len(known))
    planned = [now_ms] * missing + list(known)
    return max(task.planned_at, estimated_starts(lane, limits, now_ms, planned[: ahead + 1])[-1])


def next_within_limits(limits: Limits, planned: tuple[int, ...], now_ms: int) -> int:
    """When a further submit would be within the limits, epoch ms."""
    return earliest_start(planned, limits, now_ms)
