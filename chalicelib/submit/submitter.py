"""The central use case: admit tasks to their user's lane, store and send them. Knows neither HTTP nor AWS."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from msgspec.structs import replace

from chalicelib.core.admission import Admission, admit, may_start_in_slot, reserved
from chalicelib.core.claim import without_cancelled
from chalicelib.core.contention import RetryWithJitter
from chalicelib.core.estimates import busy_ms
from chalicelib.core.lane import FOREVER_MS, Lane
from chalicelib.core.lane_changes import up_to_date
from chalicelib.core.limits import MAX_QUOTA, smallest_units_quota
from chalicelib.core.ports import DueTasks, LaneStore, ScheduledQueue, Stale, TaskQueue, TaskStore, Write, Written
from chalicelib.core.scheduled import DueTask, ScheduledTask, delay_seconds
from chalicelib.core.task import Task
from chalicelib.settings import OverLimit, Settings
from chalicelib.submit.daily_cap import DailyCap, days_of, room_at
from chalicelib.submit.shared_limits import SharedLimitReader, SharedLimitsOf, UnknownShared
from chalicelib.submit.submission import Refused, Submission, Submitted, SubmittedTask, reason_to_wait


class Submitter:
    """Reserves start times, queues the tasks, returns their position in line.

    The queue's message is the task; its record is a view. So one task alone is sent first and stored second, and a
    worker stores it if this process dies in between. Many tasks are stored first, since a batch write can't be
    conditional and must not overwrite a worker's outcome.

    Every method takes the tasks' ids. With is_repeat, an earlier try may have queued the tasks under the same ids;
    none of them runs a second time. UnavailableError: AWS failed, and nothing is promised. What the try has stored
    or sent by then may run once, or never; seqs that it reserved for nothing are skipped by the workers.
    """

    def __init__(
        self,
        lanes: LaneStore,
        tasks: TaskStore,
        queue: TaskQueue,
        retry: RetryWithJitter,
        settings: Settings,
        lock: Callable[[str], AbstractContextManager[None]] = lambda _user_id: nullcontext(),
        scheduled_queue: ScheduledQueue | None = None,
        daily_cap: DailyCap | None = None,
        due_tasks: DueTasks | None = None,
        shared_limits: SharedLimitReader | None = None,
    ) -> None:
        """lock: serialises this process's submits of one user, to save lost races; correctness does not rest on it.

        scheduled_queue, daily_cap, due_tasks: None where no task is scheduled. shared_limits: None without any.
        """
        self._lanes = lanes
        self._tasks = tasks
        self._queue = queue
        self._retry = retry
        self._settings = settings
        self._lock = lock
        self._scheduled_queue = scheduled_queue
        self._daily_cap = daily_cap
        self._due_tasks = due_tasks
        self._shared_limits = shared_limits
        #: the most units of a task that the deployment's limits allow
        self._default_units = smallest_units_quota(settings.limits) or MAX_QUOTA

    def submit(
        self,
        submission: Submission,
        ids: Sequence[str],
        is_repeat: bool = False,
        is_withdrawn: Callable[[Lane], bool] | None = None,
    ) -> Submitted | Refused:
        """Queues the submission's one task: admits, sends and stores it. A task with a time to come is scheduled.

        is_withdrawn: asked once the task is admitted, with the lane as that left it; true if its user was forgotten.
        """
        user_id, now_ms = submission.user_id, submission.now_ms
        shared = self._read_shared(submission, ids) if submission.has_shared else None
        if isinstance(shared, Refused):
            return shared
        if submission.tasks[0].due_at(now_ms) is not None:
            return self._schedule(submission, ids, is_repeat)
        with self._lock(user_id):
            is_strict = submission.over_limit is OverLimit.REJECT
            units = [submission.units_of(0)]
            if units[0] > self._default_units:  # only a lane with limits of its own may take it
                write: Write = Stale(self._lanes.get(user_id))
            else:
                write = self._lanes.try_fast_admit(user_id, self._settings.limits, now_ms, ids[0], is_strict, units[0])
            admission = self._admit(write, ids, units, now_ms, submission.over_limit, submission)
            if isinstance(admission, Refused):
                return admission
            if is_withdrawn and is_withdrawn(admission.lane):
                self.give_back_seq(admission, ids[0], units[0], now_ms)
                return self._refused(admission.lane, "Its user was forgotten.", now_ms, now_ms)
            [task] = _tasks(submission, ids, admission, is_repeat)
            if not is_repeat and may_start_in_slot(admission.lane, task, self._settings.limits, now_ms):
                self._queue.forward(task, now_ms)
            else:
                self._queue.send(task)
        self._tasks.create_if_absent(task)
        return self._submitted(admission.lane, [task], now_ms, shared)

    def submit_bulk(self, submission: Submission, ids: Sequence[str], is_repeat: bool = False) -> Submitted | Refused:
        """Queues or schedules all tasks in their order, or refuses all.

        After a UnavailableError or a crash, a repeat under the same ids completes the bulk.
        """
        now_ms = submission.now_ms
        shared = self._read_shared(submission, ids) if submission.has_shared else None
        if isinstance(shared, Refused):
            return shared
        due = [task.due_at(now_ms) for task in submission.tasks]
        ids_now = [task_id for task_id, at in zip(ids, due, strict=True) if at is None]
        units_now = [submission.units_of(index) for index, at in enumerate(due) if at is None]
        scheduled_at = [at for at in due if at is not None]
        with self._lock(submission.user_id):
            number = self._take_room(submission, scheduled_at, is_repeat)
            if isinstance(number, Refused):
                return number
            first_guess = Stale(Lane(submission.user_id))  # so a user's first submit costs no failed write
            admission = (
                self._admit(first_guess, ids_now, units_now, now_ms, submission.over_limit, submission)
                if ids_now
                else self._admit_nothing(submission)
            )
            if isinstance(admission, Refused):
                self._give_back(submission, scheduled_at, is_repeat)
                return admission
            tasks = _tasks(submission, ids, admission, is_repeat)
            self._create(tasks, is_repeat)
            self._list_due(tasks, number)
            self._send(tasks)
        return self._submitted(admission.lane, tasks, now_ms, shared)

    def reserve(self, user_id: str, task_id: str, now_ms: int, units: int = 1) -> Admission | Refused:
        """Admits a scheduled task whose time has come.

        The caller stores and sends the task. It waits over the limit, whatever OVER_LIMIT is.
        """
        with self._lock(user_id):
            write = self._lanes.try_fast_admit(user_id, self._settings.limits, now_ms, task_id, False, units)
            return self._admit(write, [task_id], [units], now_ms, OverLimit.QUEUE)

    def give_back_seq(self, reserved: Admission, task_id: str, units: int, now_ms: int) -> None:
        """Lets no seq wait without a task in an idle lane. Workers pass over one that has tasks before it."""
        lane, seq = reserved.lane, reserved.first_seq
        while lane.started_seq == seq - 1 and not lane.retrying and not lane.in_use(now_ms):
            write = self._lanes.change(lane, without_cancelled(lane, task_id, seq, units))
            if isinstance(write, Written):
                return
            lane = write.lane

    def _schedule(self, submission: Submission, ids: Sequence[str], is_repeat: bool) -> Submitted | Refused:
        """As for a task that starts now, the message is sent first and the record stored second.

        It is listed last: whoever finds it in the list finds its record.
        """
        [task] = tasks = _tasks(submission, ids, Admission((), Lane(submission.user_id)), is_repeat)
        admission = self._admit_nothing(submission)
        if isinstance(admission, Refused):
            return admission
        number = self._take_room(submission, [task.planned_at], is_repeat)
        if isinstance(number, Refused):
            return number
        self._send(tasks)
        self._tasks.create_if_absent(task)
        self._list_due(tasks, number)
        return self._submitted(admission.lane, tasks, submission.now_ms)

    def _admit_nothing(self, submission: Submission) -> Admission | Refused:
        """The lane as it is, for a submission whose tasks are all scheduled."""
        lane = self._lanes.get(submission.user_id)
        return self._too_large(lane, submission) or Admission((), lane)

    def _admit(
        self,
        write: Write,
        ids: Sequence[str],
        units: Sequence[int],
        now_ms: int,
        over_limit: OverLimit,
        submission: Submission | None = None,
    ) -> Admission | Refused:
        """Reserves planned starts for these tasks, given the answer to the first write or a guess at the lane.

        submission: refused if a task of it, scheduled ones included, has more units than a limit ever allows. None for
        a task that was accepted before: it fails at its claim.
        """
        planned: tuple[int, ...] = (now_ms,)
        for tries in self._retry.tries():
            if isinstance(write, Written):
                return self._reserved(write.lane, planned)
            self._retry.pause(tries)
            limits = write.lane.limits_or(self._settings.limits)
            lane = up_to_date(write.lane, limits, now_ms)
            admission = admit(lane, limits, now_ms, ids[-1], len(ids), units)
            if submission and (refused := self._too_large(lane, submission)):
                return refused
            if refused := self._refusal(lane, admission, units, now_ms, over_limit):
                return refused
            planned, has_new_plans = admission.planned, lane is not write.lane
            write = self._lanes.admit(write.lane, admission)
            if has_new_plans and isinstance(write, Written) and write.lane.head_receipt:
                self._queue.defer(write.lane.head_receipt, 0)  # its wait was computed from the old limits
        if isinstance(write, Written):
            return self._reserved(write.lane, planned)
        return self._refused(write.lane, "Too many submits of this user at the same time.", now_ms + 1000, now_ms)

    def _reserved(self, lane: Lane, planned: Sequence[int]) -> Admission:
        return Admission(reserved(lane, lane.limits_or(self._settings.limits), planned), lane)

    def _create(self, tasks: Sequence[Task], is_repeat: bool) -> None:
        """Stores new tasks in batches; those of a repeat one by one, since some may have run."""
        if not is_repeat:
            self._tasks.create_many(tasks)
            return
        for task in tasks:
            self._tasks.create_if_absent(task)

    def _send(self, tasks: Sequence[Task]) -> None:
        """Sends admitted tasks to their lane and the others to the queue of scheduled tasks."""
        if admitted := [task for task in tasks if task.seq]:
            self._queue.send_many(admitted)
        scheduled = [task for task in tasks if not task.seq]
        if scheduled:
            assert self._scheduled_queue is not None, "this deployment has no queue of scheduled tasks"
            self._scheduled_queue.send(
                [(ScheduledTask(task), delay_seconds(task.planned_at, task.submitted_at)) for task in scheduled]
            )

    def _list_due(self, tasks: Sequence[Task], number: int) -> None:
        """Lists scheduled tasks in the order of their admission, before their submit is answered."""
        due = [
            DueTask(task.planned_at, number, index, task.task_id) for index, task in enumerate(tasks) if not task.seq
        ]
        if due:
            assert self._due_tasks is not None, "this deployment schedules no tasks"
            self._due_tasks.add(tasks[0].user_id, due)

    def _submitted(
        self, lane: Lane, tasks: Sequence[Task], now_ms: int, shared: SharedLimitsOf | None = None
    ) -> Submitted:
        limits = lane.limits_or(self._settings.limits)
        expected = shared.expected if shared else [None] * len(tasks)
        answers = (SubmittedTask.of(task, lane, limits, now_ms, one) for task, one in zip(tasks, expected, strict=True))
        return Submitted(tuple(answers), lane, limits, now_ms, shared.uses if shared else ())

    def _read_shared(self, submission: Submission, ids: Sequence[str]) -> SharedLimitsOf | Refused | None:
        """Reads the shared limits of the tasks; refuses all if one of them does not take a task."""
        if self._shared_limits is None:
            return None
        try:
            shared = self._shared_limits.read(submission, ids)
        except UnknownShared as error:
            empty, now_ms = Lane(submission.user_id), submission.now_ms
            reason = f"There is no shared limit {submission.shared_of(error.index)!r}"
            return replace(self._refused(empty, reason, now_ms, now_ms), unknown_shared=error.index)
        return self._refused_by_shared(submission, shared) or shared

    def _refused_by_shared(self, submission: Submission, shared: SharedLimitsOf) -> Refused | None:
        now_ms, longest_ms = submission.now_ms, self._settings.max_delay_ms
        if too_large := shared.too_large():
            index, why = too_large
            reason = f"The task {submission.tasks[index].task!r} counts for {why}."
            lane = self._lanes.get(submission.user_id)
            return replace(self._refused(lane, reason, now_ms, now_ms), too_large=index)
        waits = [one for one in shared.expected if one and not one.is_now(now_ms)]
        if not waits:
            return None
        last_at = max(now_ms + 1_000 if one.estimated_at is None else one.estimated_at for one in waits)
        if submission.over_limit is OverLimit.REJECT:
            names = " and ".join(dict.fromkeys(use.state.name for use in shared.uses))
            reason, retry_at = f"The shared limit {names} is reached, and waiting was not wanted.", last_at
        elif last_at - now_ms > longest_ms:
            reason = f"The task would wait {last_at - now_ms} ms, longer than the {longest_ms} ms allowed."
            retry_at = last_at - longest_ms
        else:
            return None
        lane = self._lanes.get(submission.user_id)
        return replace(self._refused(lane, reason, max(retry_at, now_ms + 1), now_ms), shared=shared.uses)

    def _take_room(self, submission: Submission, due_at: Sequence[int], is_repeat: bool) -> int | Refused:
        """Counts scheduled tasks, unless the first try has counted them; Refused when a day has no room for them.

        Returns the number of the submit, which orders tasks that are due at one time.
        """
        cap, user_id, now_ms = self._daily_cap, submission.user_id, submission.now_ms
        if cap is None or not due_at:
            return 0
        number = cap.take(user_id, [] if is_repeat else due_at, now_ms)
        if number is not None:
            return number
        reason = (
            f"No more than {cap.per_day} tasks may be scheduled in one day (UTC), those that were cancelled included; "
            f"there is not enough room on {' or '.join(days_of(due_at))}."
        )
        return self._refused(self._lanes.get(user_id), reason, room_at(due_at, now_ms), now_ms)

    def _give_back(self, submission: Submission, due_at: Sequence[int], is_repeat: bool) -> None:
        if self._daily_cap and not is_repeat:
            self._daily_cap.give_back(submission.user_id, due_at, submission.now_ms)

    def _refusal(
        self, lane: Lane, admission: Admission, units: Sequence[int], now_ms: int, over_limit: OverLimit
    ) -> Refused | None:
        """Decides by the last of the tasks to be admitted. units: of each of them."""
        longest_ms, planned_at = self._settings.max_delay_ms, admission.planned[-1]
        expected_at = max(planned_at, now_ms + busy_ms(lane, admission.limits, admission.lane.admitted, now_ms))
        if over_limit is OverLimit.REJECT and lane.paused_until == FOREVER_MS:
            reason = "The lane is paused, and waiting was not wanted."
            return replace(self._refused(lane, reason, now_ms + 1000, now_ms), is_planned_late=True)
        if over_limit is OverLimit.REJECT and expected_at > now_ms:
            reason = f"{reason_to_wait(lane, admission.limits, planned_at, now_ms)}, and waiting was not wanted."
            return self._refused(lane, reason, expected_at, now_ms, units)
        if planned_at - now_ms > longest_ms:
            reason = f"The task would wait {planned_at - now_ms} ms, longer than the {longest_ms} ms allowed."
            return self._refused(lane, reason, planned_at - longest_ms, now_ms, units)
        return None

    def _refused(self, lane: Lane, reason: str, retry_at: int, now_ms: int, units: Sequence[int] = ()) -> Refused:
        """units: of each task that the lane's limits kept from being admitted; empty if something else did."""
        limits = lane.limits_or(self._settings.limits)
        return Refused(lane.user_id, reason, retry_at, now_ms, limits, lane, len(units), sum(units), bool(units))

    def _too_large(self, lane: Lane, submission: Submission) -> Refused | None:
        """Refuses tasks that could never start: one has more units than a limit of the lane ever allows."""
        limits = lane.limits_or(self._settings.limits)
        quota = smallest_units_quota(limits)
        if quota is None or submission.most_units <= quota:
            return None
        index = next(n for n in range(len(submission.tasks)) if submission.units_of(n) > quota)
        limit = next(limit for limit in limits if limit.counts_units and limit.quota == quota)
        reason = (
            f"The task {submission.tasks[index].task!r} counts for {submission.units_of(index)} units, "
            f"more than the limit {limit} ever allows."
        )
        return replace(self._refused(lane, reason, submission.now_ms, submission.now_ms), too_large=index)


def _tasks(submission: Submission, ids: Sequence[str], admission: Admission, is_repeat: bool) -> list[Task]:
    """The submission's tasks: those with a time to come as scheduled, the others with the admission's starts."""
    starts = enumerate(admission.planned, admission.first_seq)
    tasks = []
    for index, (request, task_id) in enumerate(zip(submission.tasks, ids, strict=True)):
        due_at = request.due_at(submission.now_ms)
        seq, planned_at = next(starts) if due_at is None else (0, due_at)
        task = Task(
            submission.user_id,
            task_id,
            seq,
            request.task,
            request.payload,
            planned_at,
            submitted_at=submission.now_ms,
            is_repeat=is_repeat,
            run_at=due_at,
            callback_url=request.callback_url,
            units=submission.units_of(index),
            shared=submission.shared_of(index),
            traceparent=submission.traceparent,
            schedule=submission.schedule,
        )
        tasks.append(task)
    return tasks
