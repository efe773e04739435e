"""A user's view of a task and of a lane, as pure functions of the lane and the task records. Times are epoch ms."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.estimates import estimated_start, estimated_starts, position_of, retry_at
from chalicelib.core.lane import FOREVER_MS, Lane, Phase
from chalicelib.core.lane_changes import up_to_date
from chalicelib.core.limits import Limits
from chalicelib.core.task import Progress, Task, TaskRecord, TaskState, emptied_outcome

#: Starts of waiting tasks in a lane's view, and how far ahead they may lie, in milliseconds.
MAX_NEXT_STARTS = 60
NEXT_STARTS_MS = 75_000


class TaskView(Struct, frozen=True):
    record: TaskRecord
    state: TaskState
    #: as `position_of` has it; 0 when it may start now, is scheduled, or has started
    position: int = 0
    #: None once it has started or finished, and while its lane is paused without an end
    estimated_at: int | None = None
    #: None before it starts
    started_at: int | None = None
    attempts: int = 0

    @property
    def progress(self) -> Progress | None:
        """The last report of the attempt that runs or that was the last; None if it made none."""
        progress = self.record.progress
        return progress if progress and self.started_at is not None and progress.at >= self.started_at else None


class WaitsFor(Struct, frozen=True):
    """The shared limit whose turn a lane waits for."""

    name: str
    #: turns before the lane's, about: some of them may be lost
    before: int
    #: about when its turn comes; None if a pause has no end, or as many tasks run as may run at once
    start_at: int | None


class LaneView(Struct, frozen=True):
    lane: Lane
    limits: Limits
    now_ms: int
    #: when the lane's next attempt will start; None when no task waits or the lane is paused without an end
    next_start_at: int | None
    #: id of a running task
    running: str | None
    #: how many tasks run, by their leases
    slots_in_use: int
    #: when the waiting tasks will start, soonest first, one between two attempts included: within NEXT_STARTS_MS
    next_starts: Sequence[int] = ()
    #: the shared limit whose turn the lane waits for; None for none
    waits_for: WaitsFor | None = None


def view_of_task(record: TaskRecord, lane: Lane | None, default: Limits, now_ms: int) -> TaskView:
    """lane: None if the task is finished, since its record then holds the whole view."""
    task = record.task
    if record.outcome or lane is None:
        return _finished(record)
    if lane.is_emptied(task.task_id, task.seq) or (not task.seq and lane.is_emptied_schedule(task.submitted_at)):
        return _emptied(record, lane)
    lane = up_to_date(lane, lane.limits_or(default), now_ms)
    if not task.seq:
        return TaskView(record, TaskState.QUEUED, estimated_at=task.run_at)
    lease = lane.lease_of(task.task_id)
    if lease and is_running(lane, record, now_ms):
        return TaskView(record, TaskState.RUNNING, started_at=lease.starts[-1], attempts=lease.attempt)
    if task.task_id in lane.cancelled:
        return TaskView(record, TaskState.CANCELLED, attempts=record.attempts)
    return _waiting(record, lane, lane.limits_or(default), now_ms)


def _finished(record: TaskRecord) -> TaskView:
    if record.outcome is None:
        return TaskView(record, record.state)
    return TaskView(record, record.state, started_at=record.outcome.started_at, attempts=record.outcome.attempts)


def _emptied(record: TaskRecord, lane: Lane) -> TaskView:
    """As the record will be once a worker has logged the cancellation."""
    outcome = emptied_outcome(lane.emptied_at, record.attempts)
    return _finished(replace(record, state=TaskState.CANCELLED, outcome=outcome))


def _waiting(record: TaskRecord, lane: Lane, limits: Limits, now_ms: int) -> TaskView:
    estimated_at = _estimate(lane, limits, record.task, now_ms, with_run_times=True)
    # By an estimate, since a retry, a throttling or other limits may have moved the planned start.
    allowed_at = _estimate(lane, limits, record.task, now_ms)
    position = _position(lane, limits, record.task, allowed_at, now_ms)
    known_at = None if lane.paused_until == FOREVER_MS else estimated_at
    return TaskView(record, TaskState.QUEUED, position, known_at, attempts=record.attempts)


def _position(lane: Lane, limits: Limits, task: Task, allowed_at: int, now_ms: int) -> int:
    """A task between two attempts is the lane's first."""
    if lane.retry_of(task.task_id):
        return int(allowed_at > now_ms or lane.is_paused(now_ms))
    return position_of(lane, limits, task.seq, allowed_at, now_ms)


def _estimate(lane: Lane, limits: Limits, task: Task, now_ms: int, with_run_times: bool = False) -> int:
    """The task's start, computed from the real starts and the tasks ahead."""
    if lease := lane.retry_of(task.task_id):
        return retry_at(lane, limits, now_ms, lease)
    estimated_at = estimated_start(lane, limits, now_ms, lane.waiting_before(task.seq), with_run_times)
    return estimated_at if task.seq <= lane.replanned_seq else max(task.planned_at, estimated_at)


def is_running(lane: Lane, record: TaskRecord, now_ms: int) -> bool:
    """True while the lane's lease runs this task. The record decides too: a lease outlives its task by some seconds."""
    lease = lane.lease_of(record.task.task_id)
    is_open = lease is not None and record.outcome is None and record.attempts < lease.attempt
    return is_open and lease is not None and lease.phase is not Phase.RETRY and lease.until > now_ms


def view_of_lane(lane: Lane, default: Limits, now_ms: int, newest: TaskRecord | None) -> LaneView:
    """newest: the record of the lane's newest start, None if it is not known."""
    limits, starts = lane.limits_or(default), list[int]()
    lane = up_to_date(lane, limits, now_ms)
    if lane.paused_until != FOREVER_MS:
        plans = _known_plans(lane, now_ms, min(lane.waiting, MAX_NEXT_STARTS))
        retries = [retry_at(lane, limits, now_ms)] if lane.retrying else []
        starts = [*retries, *estimated_starts(lane, limits, now_ms, plans, with_run_times=True)]
    near = [at for at in starts[:MAX_NEXT_STARTS] if at < now_ms + NEXT_STARTS_MS]
    running = newest.task.task_id if newest and is_running(lane, newest, now_ms) else None
    if lane.slots and not running:  # a slot is freed at the end of its task
        running = next((lease.task_id for lease in lane.in_use(now_ms) if lease.in_slot), None)
    in_use = slots_in_use(lane, newest, now_ms)
    return LaneView(lane, limits, now_ms, starts[0] if starts else None, running, in_use, near)


def slots_in_use(lane: Lane, newest: TaskRecord | None, now_ms: int) -> int:
    """How many tasks of the lane run: its newest alone, and those in slots, each freed at the end of its task."""
    in_slots = sum(lease.in_slot for lease in lane.in_use(now_ms))
    return in_slots + (newest is not None and is_running(lane, newest, now_ms))


def _known_plans(lane: Lane, now_ms: int, count: int) -> Sequence[int]:
    """The planned starts of the lane's next tasks, as far as the lane remembers; now for the others."""
    seqs = range(lane.started_seq + 1, lane.started_seq + 1 + count)
    return [_known_plan(lane, seq) or now_ms for seq in seqs]


def _known_plan(lane: Lane, seq: int) -> int | None:
    index = lane.admitted - seq
    return lane.planned[index] if lane.replanned_seq < seq and index < len(lane.planned) else None
