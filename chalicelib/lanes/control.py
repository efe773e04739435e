"""Views and controls of one lane: its tasks, cancellation, limits, pause, resume."""

from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from msgspec.structs import replace

from chalicelib.core.contention import RetryWithJitter
from chalicelib.core.errors import ConflictError, NotFoundError, UnavailableError
from chalicelib.core.lane import CLOCKS_DIFFER_MS, FOREVER_MS, Lane, Lease, Phase
from chalicelib.core.lane_changes import (
    paused,
    resumed,
    up_to_date,
    with_group,
    with_limits,
    without,
    without_retrying,
)
from chalicelib.core.limits import Limits, at_once
from chalicelib.core.ports import (
    Clock,
    LaneStore,
    ScheduledQueue,
    SharedLimitStore,
    TaskQueue,
    TaskStore,
    Written,
)
from chalicelib.core.recovery import tasks_to_send_again
from chalicelib.core.scheduled import CancelScheduled
from chalicelib.core.shared_groups import pass_over_lost
from chalicelib.core.task import Outcome, Task, TaskRecord, TaskState, cancelled_outcome
from chalicelib.core.views import LaneView, TaskView, view_of_lane, view_of_task
from chalicelib.lanes.next_tasks import next_to_start
from chalicelib.lanes.shared import SharedStates
from chalicelib.settings import Settings

#: Cancelled tasks that workers still have to skip; their ids make each write of the lane's item dearer.
MAX_CANCELLED = 100
#: Longest time ahead for which new limits may plan a waiting task, in milliseconds: SQS keeps messages for 14 days.
MAX_PLANNED_AHEAD_MS = 12 * 86_400_000


class Control:
    def __init__(
        self,
        lanes: LaneStore,
        tasks: TaskStore,
        queue: TaskQueue,
        clock: Clock,
        retry: RetryWithJitter,
        settings: Settings,
        scheduled_queue: ScheduledQueue | None = None,
        shared_limits: SharedLimitStore | None = None,
    ) -> None:
        """scheduled_queue: where tasks are scheduled for their time; None in a deployment that schedules none.

        shared_limits: None in a deployment without any.
        """
        self._scheduled_queue = scheduled_queue
        self._shared_limits = shared_limits
        self._lanes = lanes
        self._tasks = tasks
        self._queue = queue
        self._clock = clock
        self._retry = retry
        self._settings = settings

    def task(self, user_id: str, task_id: str) -> TaskView:
        """The task, with its position and estimates. NotFoundError if the user has no such task."""
        record = self._record(user_id, task_id)
        return self._view(record, None if record.outcome else self._lanes.get(user_id))

    def tasks(
        self, user_id: str, state: TaskState | None, limit: int, before: str | None
    ) -> tuple[list[TaskView], str | None]:
        """The user's tasks, newest first, and the cursor of the next page, None on the last.

        before: the cursor. A page may hold fewer than `limit` tasks and still not be the last.
        """
        stored, lane = {TaskState.RUNNING: TaskState.QUEUED}.get(state, state) if state else None, None
        if state is TaskState.CANCELLED and (lane := self._lanes.get(user_id)).emptied_at:
            stored = None  # those that an emptying cancelled are stored as queued until that is logged
        records, next_cursor = self._tasks.newest(user_id, stored, limit, before)
        if lane is None and any(not record.outcome for record in records):
            lane = self._lanes.get(user_id)
        views = self._views(records, lane)
        return [view for view in views if state in (None, view.state)], next_cursor

    def next_tasks(self, user_id: str, most: int) -> list[TaskView]:
        """The user's waiting tasks that start next, the first one first, those between two attempts included."""
        lane = self._lanes.get(user_id)
        views = self._views(next_to_start(lane, self._tasks, most), lane)
        waiting = [view for view in views if view.state is TaskState.QUEUED]
        return sorted(waiting, key=lambda view: (view.estimated_at or 0, view.record.task.seq))[:most]

    def _views(self, records: Sequence[TaskRecord], lane: Lane | None) -> list[TaskView]:
        """lane: None if all are finished."""
        if lane:  # once for all of them, since new plans are computed from the whole backlog
            lane = up_to_date(lane, lane.limits_or(self._settings.limits), self._clock.now_ms())
        shared = self._shared()
        return [self._view(record, lane, shared) for record in records]

    def lane(self, user_id: str) -> LaneView:
        return self._lane_view(self._lanes.get(user_id))

    def cancel(self, user_id: str, task_id: str) -> TaskView:
        """Cancels a task that waits or is between two attempts; it takes no more start. Repeating it changes nothing.

        A running task is asked to stop, and takes no further attempt; the view then says running, or how it stopped.
        NotFoundError if the user has no such task, ConflictError if it is finished.
        """
        record = self._record(user_id, task_id)
        if not record.task.seq and self._lanes.get(user_id).is_emptied_schedule(record.task.submitted_at):
            return self._view(record, self._lanes.get(user_id))
        record = self._cancel_scheduled(record)
        task = record.task
        if record.outcome and not task.seq:
            return self._view(record, None)
        lane = self._lanes.get(user_id)
        for tries in self._retry.tries():
            self._retry.pause(tries)
            record = self._record(user_id, task_id)
            if record.outcome is None and lane.is_emptied(task_id, task.seq):
                return self._view(record, lane)  # a worker will log and store it
            if lease := _running_lease(lane, record):
                if lease.cancel_requested_at or self._lanes.request_cancel(user_id, lease, self._clock.now_ms()):
                    return self._requested_cancel(task)
                lane = self._lanes.get(user_id)
                continue
            changed = self._cancelled(record, lane)
            if changed == lane:
                return self._store_cancelled(task, lane)
            before, write = lane, self._lanes.change(lane, changed)
            lane = write.lane
            if isinstance(write, Written):
                self._pass_over(before, lane)
                return self._store_cancelled(task, lane)
        raise UnavailableError(f"the lane of {user_id} is changed too often to be changed once more")

    def _cancelled(self, record: TaskRecord, lane: Lane) -> Lane:
        """The lane with its waiting task cancelled. ConflictError if it does not wait."""
        view, task = self._view(record, lane), record.task
        if view.state is TaskState.CANCELLED:
            return lane
        between = lane.retry_of(task.task_id)
        if view.state is not TaskState.QUEUED or not (between or task.seq > lane.started_seq):
            raise ConflictError("The task has started", _not_cancelled(view.state))
        if len(lane.cancelled) >= MAX_CANCELLED:
            raise ConflictError("Too many cancelled tasks", f"{MAX_CANCELLED} wait to be passed over; try later.")
        if between:
            return without_retrying(lane, between, task.seq, self._settings.limits, self._clock.now_ms())
        return without(lane, {task.task_id: task.seq})

    def _requested_cancel(self, task: Task) -> TaskView:
        """Stores the request with the task's record. ConflictError if the task has ended otherwise meanwhile."""
        self._tasks.request_cancel(task, self._clock.now_ms())
        view = self.task(task.user_id, task.task_id)
        if view.state in (TaskState.SUCCEEDED, TaskState.FAILED):
            raise ConflictError("The task has ended", _not_cancelled(view.state))
        return view

    def _store_cancelled(self, task: Task, lane: Lane) -> TaskView:
        user_id, task_id = task.user_id, task.task_id
        lease = lane.lease_of(task_id)
        if lease and lease.receipt:
            self._queue.defer(lease.receipt, 0)  # its worker logs its outcome
        elif (first := lane.next_receipt or lane.head_receipt) and task.seq <= lane.started_seq + 1:
            self._queue.defer(first, 0)  # nothing has to wait behind it
        self._tasks.finish(task, cancelled_outcome(lane.lease_of(task_id), self._clock.now_ms()))
        return self.task(user_id, task_id)

    def _cancel_scheduled(self, record: TaskRecord) -> TaskRecord:
        """Cancels a scheduled task, unless it is being admitted at this moment; returns its record after that."""
        task = record.task
        if task.seq or record.outcome or self._scheduled_queue is None:
            return record
        # Sent first, so that the outcome is logged even if this process dies.
        self._scheduled_queue.send([(CancelScheduled(task), 0)])
        self._tasks.cancel_scheduled(task, Outcome(TaskState.CANCELLED, None, self._clock.now_ms(), 0))
        return self._record(task.user_id, task.task_id)

    def set_limits(self, user_id: str, own: Limits | None) -> LaneView:
        """Sets the user's own limits, None for the deployment's, in force from the next start on.

        ConflictError if a waiting task would then be planned further ahead than its message surely lives.
        """

        def limited(lane: Lane) -> Lane:
            now_ms = self._clock.now_ms()
            if at_once(own or self._settings.limits) > 1:
                lane = self._without_finished(lane, now_ms)
            changed = with_limits(lane, own, self._settings.limits, now_ms)
            if changed.waiting and changed.planned[0] > now_ms + MAX_PLANNED_AHEAD_MS:
                raise ConflictError("Limits too low for the backlog", _too_low(changed))
            return changed

        return self._apply(user_id, limited)

    def _without_finished(self, lane: Lane, now_ms: int) -> Lane:
        """The lane with its newest lease over if that task is finished: a brief task leaves one, which uses a slot."""
        lease = lane.running
        if lease is None or lease.until <= now_ms or lease.phase is Phase.RETRY:
            return lane
        record = self._tasks.get(lane.user_id, lease.task_id)
        is_finished = record is not None and record.outcome is not None
        return replace(lane, running=replace(lease, until=now_ms)) if is_finished else lane

    def set_group(self, user_id: str, group: str) -> LaneView:
        """Puts the user into the group, "" for none, whose users take turns as one. The lane asks for a new turn."""
        return self._apply(user_id, lambda lane: with_group(lane, group))

    def pause(self, user_id: str, until: int | None) -> LaneView:
        """Pauses the lane until that time, epoch ms, None for no end. After it returns, nothing starts."""
        end = FOREVER_MS if until is None else until
        return self._apply(user_id, lambda lane: paused(lane, end, self._settings.limits, self._clock.now_ms()))

    def resume(self, user_id: str) -> LaneView:
        """Ends the lane's pause and throttling, and plans its waiting tasks anew."""
        return self._apply(user_id, lambda lane: resumed(lane, self._settings.limits, self._clock.now_ms()))

    def _apply(self, user_id: str, how: Callable[[Lane], Lane]) -> LaneView:
        lane = self._change(user_id, how)
        if lane.paused_until != FOREVER_MS:
            self._wake(lane)
        if lane.starts and (now_ms := self._clock.now_ms()) < lane.starts[0] < now_ms + CLOCKS_DIFFER_MS:
            self._clock.sleep_until(lane.starts[0])  # claimed before the change, shortly ahead of its time
        return self._lane_view(lane)

    def _wake(self, lane: Lane) -> None:
        """Shows the lane's hidden head to the workers, and sends messages again that may be lost."""
        waiting = [lease.receipt for lease in (lane.slots or {}).values()]
        for receipt in filter(None, (lane.head_receipt, lane.next_receipt, *waiting)):
            self._queue.defer(receipt, 0)  # its wait was computed from the old limits
        now_ms = self._clock.now_ms()
        for task in tasks_to_send_again(lane, self._tasks, now_ms):
            self._queue.send_again(task, now_ms)

    def _change(self, user_id: str, how: Callable[[Lane], Lane]) -> Lane:
        lane = self._lanes.get(user_id)
        for tries in self._retry.tries():
            self._retry.pause(tries)
            changed = how(lane)
            if changed == lane:
                return lane
            write = self._lanes.change(lane, changed)
            if isinstance(write, Written):
                self._pass_over(lane, write.lane)
                return write.lane
            lane = write.lane
        raise UnavailableError(f"the lane of {user_id} is changed too often to be changed once more")

    def _pass_over(self, before: Lane, after: Lane) -> None:
        if self._shared_limits is not None:
            pass_over_lost(self._shared_limits, self._lanes, self._queue, before, after, self._clock.now_ms())

    def _record(self, user_id: str, task_id: str) -> TaskRecord:
        record = self._tasks.get(user_id, task_id)
        if record is None:
            raise NotFoundError("No such task", f"This user has no task {task_id[:128]!r}.", "task_id")
        return record

    def _view(self, record: TaskRecord, lane: Lane | None, shared: SharedStates | None = None) -> TaskView:
        now_ms, shared = self._clock.now_ms(), shared or self._shared()
        view = view_of_task(record, lane, self._settings.limits, now_ms)
        return shared.view(view, lane, now_ms) if shared else view

    def _shared(self) -> SharedStates | None:
        return (
            SharedStates(self._shared_limits, self._settings.shared_limits) if self._shared_limits is not None else None
        )

    def _lane_view(self, lane: Lane) -> LaneView:
        now_ms = self._clock.now_ms()
        newest = (
            self._tasks.get(lane.user_id, lane.running.task_id) if lane.is_leased(now_ms) and lane.running else None
        )
        shared = self._shared()
        view = view_of_lane(lane, self._settings.limits, now_ms, newest)
        return replace(view, waits_for=shared.waits_for(lane, now_ms)) if shared and lane.turn else view


def _running_lease(lane: Lane, record: TaskRecord) -> Lease | None:
    """The lease of a task that runs, or whose worker died and left it unfinished; None for one that waits or ended."""
    task_id = record.task.task_id
    is_waiting = lane.retry_of(task_id) is not None or task_id in lane.cancelled
    return None if record.outcome or is_waiting else lane.lease_of(task_id)


def _not_cancelled(state: TaskState) -> str:
    return f"It is {state.value}. Only a task that has not ended can be cancelled."


def _too_low(changed: Lane) -> str:
    last = datetime.fromtimestamp(changed.planned[0] // 1000, timezone.utc).isoformat()
    return (
        f"The last of {changed.waiting} waiting tasks would start at {last}; allowed: limits with which all of them "
        "start within 12 days. Cancel tasks first, or set higher limits."
    )
