"""Empties a lane in one write, however many tasks wait, and forgets a user who has no work."""

from collections.abc import Callable, Mapping

from msgspec import Struct

from chalicelib.core.contention import RetryWithJitter
from chalicelib.core.errors import ConflictError, UnavailableError
from chalicelib.core.lane import FOREVER_MS, Lane, Phase
from chalicelib.core.lane_changes import emptied, forgotten
from chalicelib.core.ports import (
    Clock,
    DueTasks,
    LaneStore,
    ScheduledQueue,
    SharedLimitStore,
    TaskQueue,
    TaskStore,
    Write,
    Written,
)
from chalicelib.core.scheduled import EmptySchedule
from chalicelib.core.shared_groups import pass_over_lost
from chalicelib.core.task import TaskState
from chalicelib.settings import Settings

#: Milliseconds for which the clocks of two API processes may differ: a task that is scheduled after the answer is
#: submitted later than the emptying, by either clock.
CLOCKS_AGREE_MS = 50
#: Messages of emptied tasks that a repeated emptying sends again, in case the queue lost them.
MOST_SENT_AGAIN = 100
SENT_AGAIN_AFTER_MS = 60_000
#: Finished tasks that one request deletes, and pages of records that it looks through for unfinished ones.
DELETED_AT_ONCE = 1_000
PAGES_SEARCHED = 40
#: Scheduled tasks that an emptying counts for its answer.
SCHEDULED_COUNTED = 1_000
#: Scheduled tasks of a user with more records than those pages hold that are looked at, the soonest first.
SCHEDULED_SEARCHED = 100
#: Seconds for which a message lives at most.
MESSAGE_SECONDS = 14 * 86_400


class Emptied(Struct, frozen=True):
    #: tasks that waited
    waiting: int
    #: scheduled tasks, counted up to SCHEDULED_COUNTED; one that was cancelled by itself is among them until its time
    scheduled: int


class Forgotten(Struct, frozen=True):
    #: finished tasks that this call deleted
    deleted: int
    #: False if records are left for a repeat
    is_done: bool


class Clearance:
    def __init__(
        self,
        lanes: LaneStore,
        tasks: TaskStore,
        due_tasks: DueTasks,
        queue: TaskQueue,
        scheduled_queue: ScheduledQueue,
        clock: Clock,
        retry: RetryWithJitter,
        settings: Settings,
        delete_schedules: Callable[[str], object],
        shared_limits: SharedLimitStore | None = None,
    ) -> None:
        """delete_schedules: deletes those of a user. shared_limits: None in a deployment without any."""
        self._shared_limits = shared_limits
        self._lanes = lanes
        self._tasks = tasks
        self._due_tasks = due_tasks
        self._queue = queue
        self._scheduled_queue = scheduled_queue
        self._clock = clock
        self._retry = retry
        self._settings = settings
        self._delete_schedules = delete_schedules

    def empty(self, user_id: str) -> Emptied:
        """Cancels all waiting and scheduled tasks of the user; running ones go on.

        After it returns, none of them starts. Workers log each cancellation when they come to its message.
        """
        scheduled = len(self._due_tasks.due(user_id, FOREVER_MS, SCHEDULED_COUNTED))
        at = self._clock.now_ms()
        # Sent first, so that the outcomes are logged even if this process dies.
        self._scheduled_queue.send([(EmptySchedule(user_id, at), 0)])
        seen, waiting = Lane(user_id), 0

        def change(lane: Lane) -> Lane:
            nonlocal seen, waiting
            retrying = self._retrying(lane)
            seen, waiting = lane, lane.waiting + len(retrying)
            return emptied(lane, retrying, self._settings.limits, at, self._clock.now_ms())

        after = self._write(user_id, change, self._lanes.change)
        self._wake(after)
        if self._shared_limits is not None:
            pass_over_lost(self._shared_limits, self._lanes, self._queue, seen, after, self._clock.now_ms())
        if 0 < seen.emptied_at < at - SENT_AGAIN_AFTER_MS:
            self._send_again(seen)
        self._clock.sleep_until(at + CLOCKS_AGREE_MS)
        return Emptied(waiting, scheduled)

    def _retrying(self, lane: Lane) -> Mapping[str, int]:
        """Id and seq of each task between two attempts."""
        leases = [*([lane.running] if lane.running else []), *(lane.slots or {}).values()]
        between = [lease.task_id for lease in leases if lease.phase is Phase.RETRY]
        records = [self._tasks.get(lane.user_id, task_id) for task_id in between if task_id not in lane.cancelled]
        return {record.task.task_id: record.task.seq for record in records if record and record.outcome is None}

    def _wake(self, lane: Lane) -> None:
        """Shows the hidden messages of cancelled tasks to the workers, which log them."""
        waiting = [lease.receipt for lease in (lane.slots or {}).values() if lease.phase is Phase.RETRY]
        for receipt in filter(None, (lane.head_receipt, lane.next_receipt, *waiting)):
            self._queue.defer(receipt, 0)

    def _send_again(self, lane: Lane) -> None:
        """Sends the messages again of tasks that an earlier emptying cancelled, in case the queue lost them."""
        records, _ = self._tasks.newest(lane.user_id, TaskState.QUEUED, MOST_SENT_AGAIN, None)
        for task in [record.task for record in records]:
            if lane.is_emptied(task.task_id, task.seq):
                self._queue.send_again(task, self._clock.now_ms())

    def forget(self, user_id: str) -> Forgotten:
        """Deletes the user's finished tasks, payloads, schedules and own limits. ConflictError while it has work.

        Its seqs and starts stay for the longest window and as long as a message lives: or it would be a way around the
        limits, and a message that comes late would run again. Deletes a bounded number of tasks; a repeat goes on.
        """
        self._refuse_work(user_id)
        windows = [limit.window_seconds for limit in self._settings.limits]

        def change(lane: Lane) -> Lane:
            is_forgotten = lane.forgotten_at > 0 and lane.forgotten_seq == lane.admitted
            if lane.waiting or lane.cancelled or (not is_forgotten and self._runs(lane)):
                raise _has_work("tasks that wait or run")
            # Before the lane has its mark, and each time: a tick that is admitted later looks for its schedule.
            self._delete_schedules(user_id)
            return forgotten(lane, self._settings.limits, self._clock.now_ms())

        def write(seen: Lane, changed: Lane) -> Write:
            longest = max([*windows, *(limit.window_seconds for limit in seen.limits or ())], default=0)
            return self._lanes.forget(seen, changed, self._clock.now_ms() // 1000 + longest + MESSAGE_SECONDS)

        lane = self._write(user_id, change, write)
        deleted, has_more = self._tasks.delete_finished(user_id, lane.forgotten_seq, DELETED_AT_ONCE)
        return Forgotten(deleted, not has_more)

    def _runs(self, lane: Lane) -> bool:
        """True if a task runs; a lease outlives its task by some seconds."""
        records = [self._tasks.get(lane.user_id, lease.task_id) for lease in lane.in_use(self._clock.now_ms())]
        return any(record is None or record.outcome is None for record in records)

    def _refuse_work(self, user_id: str) -> None:
        """ConflictError if the user has an unfinished task: also one that is scheduled, or whose worker died."""
        before = None
        for _ in range(PAGES_SEARCHED):
            records, before = self._tasks.newest(user_id, TaskState.QUEUED, 1, before)
            if records:
                raise _has_work(f"the task {records[0].task.task_id}")
            if before is None:
                return
        # Their records may be older than all that were searched.
        scheduled = self._due_tasks.due(user_id, FOREVER_MS, SCHEDULED_SEARCHED)
        for task_id in [listed.task_id for listed in scheduled]:
            if (record := self._tasks.get(user_id, task_id)) and record.outcome is None:
                raise _has_work(f"the scheduled task {task_id}")

    def _write(self, user_id: str, change: Callable[[Lane], Lane], write: Callable[[Lane, Lane], Write]) -> Lane:
        lane = self._lanes.get(user_id)
        for tries in self._retry.tries():
            self._retry.pause(tries)
            changed = change(lane)
            if changed == lane:
                return lane
            written = write(lane, changed)
            lane = written.lane
            if isinstance(written, Written):
                return lane
        raise UnavailableError(f"the lane of {user_id} is changed too often to be changed once more")


def _has_work(work: str) -> ConflictError:
    return ConflictError("The user has work", f"It has {work}. Empty the lane first, and wait until nothing runs.")
