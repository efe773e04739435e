"""Handles a lane's messages. `next_step` decides, `Worker` executes: reads, waits, defers, claims, runs.

A message's whole way: the event source (Lambda's, or the local worker process) receives the head of a lane and calls
`Worker.handle`. `handle` reads the task in the message and asks `next_step` what to do, again and again, until the
message is done (`Done`: the event source deletes it) or has to wait for more than a second (`Deferred`: it stays in
the queue, hidden until then, the rest of its lane behind it). On the usual path that is one step: `Claim`, a single
conditional write on the lane. Then `TaskExecutor` runs the task's function, and `Finalizer` logs and stores its
outcome. If earlier tasks of the lane have not arrived, they are run from their records first, on this message.

Pace, order and attempts rest on the claim's conditional write alone; everything before it only saves writes.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.claim import Gap, SharedStart, Start, passed_over, without_cancelled
from chalicelib.core.errors import MessageError, NewerMessageError, UnavailableError
from chalicelib.core.lane import CLOCKS_DIFFER_MS, Lane
from chalicelib.core.lane_changes import with_run_time, without_cancelled_run
from chalicelib.core.limits import at_once
from chalicelib.core.ports import Clock, LaneStore, Presence, TaskQueue, TaskStore, Write, Written
from chalicelib.core.task import Task, emptied_outcome
from chalicelib.core.visibility import MAX_SLEEP_MS, NEWER_SECONDS, SHORT_SLEEP_MS, again_soon
from chalicelib.settings import Settings
from chalicelib.tasks.runner import Room
from chalicelib.worker.execution import Ran, Retry, TaskExecutor
from chalicelib.worker.finalizer import Finalizer
from chalicelib.worker.hiding import Hider
from chalicelib.worker.known_lanes import KnownLanes, NoPresence
from chalicelib.worker.messages import Deferred, Delivery, Done, Handled, task_of
from chalicelib.worker.next_step import next_step
from chalicelib.worker.shared_claims import SharedClaims
from chalicelib.worker.steps import (
    Claim,
    DropCancelled,
    DropEmptied,
    Facts,
    FailTooLarge,
    Forward,
    ForwardNext,
    GiveUp,
    ReadLane,
    ReadNewest,
    ReadPredecessors,
    ReadRecord,
    ReadShared,
    Rules,
    RunFirst,
    SendBack,
    Skip,
    Step,
    WaitUntil,
)

#: Milliseconds, from its submit and its planned start, for which a task with an unknown name is deferred: its API may
#: have been updated before this worker.
UNKNOWN_FOR_MS = 300_000
#: Milliseconds between two looks whether a worker knows it.
UNKNOWN_AGAIN_MS = 5_000
#: Milliseconds after which a worker looks again for room to run a task. 1,000 receives, after which SQS dead-letters
#: the message, allow eight hours.
NO_ROOM_MS = 30_000


class Decide(Protocol):
    """The signature of `next_step`; tests replace it by broken ones."""

    def __call__(
        self, facts: Facts, task: Task, now_ms: int, rules: Rules, token: str, out_of_order: bool, /
    ) -> Step: ...


class _Job(Struct):
    """A task that the message in hand leads to: its own, or a predecessor's."""

    task: Task
    token: str
    facts: Facts
    #: of the message in hand
    receipt: str
    out_of_order: bool = False
    is_payload_read: bool = False
    #: the message is of a task that was cancelled by an emptying, which does not wait for this one
    goes_ahead: bool = False


class Worker:
    """Handles messages of many lanes, each lane's one after the other. Thread-safe for different lanes."""

    def __init__(
        self,
        lanes: LaneStore,
        tasks: TaskStore,
        queue: TaskQueue,
        executor: TaskExecutor,
        finalizer: Finalizer,
        clock: Clock,
        new_token: Callable[[], str],
        settings: Settings,
        presence: Presence | None = None,
        decide: Decide = next_step,
        shared: SharedClaims | None = None,
    ) -> None:
        """presence: tells a live worker that cannot renew its lease from a dead one; None on Lambda.

        shared: takes starts of shared limits; None where tasks have none.
        """
        self._lanes = lanes
        self._tasks = tasks
        self._queue = queue
        self._executor = executor
        self._finalizer = finalizer
        self._clock = clock
        self._new_token = new_token
        self._settings = settings
        self._presence = presence or NoPresence()
        self._decide = decide
        self._shared = shared
        self._known = KnownLanes(self._presence, clock)
        self._hider = Hider(lanes, tasks, queue, clock, settings, self._known, shared)

    def handle(self, delivery: Delivery) -> Handled:
        """Takes the message as far as it goes now. UnavailableError if AWS fails: the message then reappears."""
        try:
            task = task_of(delivery)
        except NewerMessageError:
            self._queue.defer(delivery.receipt, NEWER_SECONDS)
            return Deferred(self._clock.now_ms() + NEWER_SECONDS * 1000)
        except MessageError as error:
            self._queue.send_dead(delivery.user_id, delivery.message_id, delivery.body, str(error))
            return Done()
        with again_soon(self._queue.defer, delivery.receipt, delivery.receives):
            return self._handle(task, delivery)

    def _handle(self, task: Task, delivery: Delivery) -> Handled:
        """The loop: one step after the other with the topmost job, until none is left or the message has to wait."""
        jobs = [self._job(task, delivery.receipt)]
        is_forwarded, received_at = delivery.user_id != task.user_id, self._clock.now_ms()
        times = {"receives": delivery.receives, "received_at": received_at, "sent_at": delivery.sent_at}
        jobs[0].facts = replace(jobs[0].facts, is_forwarded=is_forwarded, **times)
        while jobs:
            job = jobs[-1]
            outcome = self._take_step(job, jobs)
            if isinstance(outcome, Deferred) and job.goes_ahead:
                outcome = Done()
            if isinstance(outcome, Deferred):
                changed = self._hider.hide(delivery, outcome, job.task)
                if changed is None:
                    return outcome
                self._learn(job, changed)
            if isinstance(outcome, Done):
                jobs.pop()
                if jobs:  # the job that was just done changed the lane
                    jobs[-1].facts = replace(self._known.facts(jobs[-1].task), gave_way=job.goes_ahead)
        return Done()

    def _job(self, task: Task, receipt: str, out_of_order: bool = False) -> _Job:
        return _Job(task, self._new_token(), self._known.facts(task), receipt, out_of_order)

    def _take_step(self, job: _Job, jobs: list[_Job]) -> Handled | None:
        """One step with the job; Done if its task needs nothing more, Deferred if the message has to wait."""
        task = job.task
        if self._finalizer.is_pending(task):
            self._finalizer.finalize_pending(task)
            self._drop_from_lane(job)
            self._pass_over(job)
            return self._free_slot(job)
        return self._execute(self._next_step(job), job, jobs)

    def _execute(self, step: Step, job: _Job, jobs: list[_Job]) -> Handled | None:
        task = job.task
        match step:
            case ReadLane():
                self._read_lane(job)
            case ReadRecord():
                job.facts = replace(job.facts, record=self._tasks.get(task.user_id, task.task_id), is_record_read=True)
            case ReadPredecessors(gap, is_whole):
                newest = None if is_whole else max(gap.last, job.facts.lane.admitted if job.facts.lane else 0)
                found = self._tasks.between(task.user_id, gap.first, gap.last, newest)
                job.facts = replace(job.facts, predecessors=tuple(found), is_search_whole=is_whole)
            case ReadNewest(gap):
                self._read_newest(gap, job)
            case ReadShared(name):
                is_near = not (self._shared and job.facts.lane) or self._shared.is_near(name, job.facts.lane, job.task)
                job.facts = replace(job.facts, is_shared_near=is_near)
            case RunFirst(predecessors):
                first = [self._job(predecessor, job.receipt, out_of_order=True) for predecessor in predecessors]
                for one in first:
                    one.goes_ahead = _is_emptied(job.facts.lane, task)
                jobs += reversed(first)
            case WaitUntil():
                return self._wait(step, job)
            case Claim() if self._may_be_known_soon(task):
                return Deferred(self._clock.now_ms() + UNKNOWN_AGAIN_MS)
            case Claim() if not (task.has_payload or job.is_payload_read):
                self._read_payload(job)
            case Claim():
                outcome = self._run_in_room(step, job)
                return self._execute(outcome, job, jobs) if isinstance(outcome, Step) else outcome
            case _:
                return self._end_message(step, job)
        return None

    def _end_message(self, step: Step, job: _Job) -> Handled | None:
        match step:
            case Forward(tasks, then_wait_until):
                for task in tasks:
                    self._queue.forward(task, self._clock.now_ms())
                lane = job.facts.lane if job.facts.lane and job.facts.lane.awaited_shared else None
                # With a lane, the next task's start wakes the message.
                return Deferred(then_wait_until, lane) if then_wait_until else Done()
            case SendBack():
                self._queue.send_again(job.task, self._clock.now_ms())
                return Done()
            case Skip():
                return self._end_retry(job)
            case ForwardNext(following):
                self._queue.forward(following, self._clock.now_ms())
                job.facts = replace(job.facts, gave_way=True)
                return None
            case DropEmptied(at):
                self._finalizer.cancel(job.task, emptied_outcome(at))
                return self._free_slot(job)
            case DropCancelled() | FailTooLarge():
                return self._end_without_start(step, job)
            case GiveUp(start):
                self._finalizer.give_up(job.task, start, self._last_error(job))
                return self._end_retry(job)
        return None

    def _end_without_start(self, step: DropCancelled | FailTooLarge, job: _Job) -> Done | None:
        """None if the lane changed: the step is to be decided again."""
        task = job.task
        if isinstance(step, DropCancelled):
            if not self._end_cancelled_run(job):
                return None
            self._finalizer.cancel(task, last=step.last)
            self._drop_from_lane(job)
            return self._free_slot(job)
        if not step.is_finished:
            self._finalizer.fail(task, f"its {task.units} units are more than {step.limit} allows", step.last)
        self._pass_over(job)
        return self._free_slot(job)

    def _end_cancelled_run(self, job: _Job) -> bool:
        """Ends the lease of a task that was cancelled while it ran; False if its worker has renewed it meanwhile."""
        lane, now_ms = job.facts.lane, self._clock.now_ms()
        if lane is None or job.task.task_id in lane.cancelled or not lane.is_cancelled_run(job.task.task_id, now_ms):
            return True
        lease = lane.lease_of(job.task.task_id)
        assert lease is not None, "a task that ran has a lease"
        write = self._lanes.change(lane, without_cancelled_run(lane, lease, self._settings.limits, now_ms))
        self._learn(job, write.lane)
        return isinstance(write, Written)

    def _may_be_known_soon(self, task: Task) -> bool:
        """True if the task's name is unknown here, and the task so new that a newer worker may know it."""
        wanted_at = max(task.submitted_at, task.planned_at)
        return not self._executor.knows(task) and self._clock.now_ms() < wanted_at + UNKNOWN_FOR_MS

    def _next_step(self, job: _Job) -> Step:
        now_ms, rules = self._clock.now_ms(), Rules(self._settings.limits, self._executor.max_attempts(job.task))
        step = self._decide(job.facts, job.task, now_ms, rules, job.token, job.out_of_order)
        taken = job.facts.shared_start
        if taken is None or not _loses_shared_start(step, taken, job.facts.lane, now_ms):
            return step
        if self._shared:
            self._shared.release(job.task, taken)
        job.facts = replace(job.facts, shared_start=None)
        return self._decide(job.facts, job.task, now_ms, rules, job.token, job.out_of_order)

    def _wait(self, step: WaitUntil, job: _Job) -> Deferred | None:
        """Sleeps if the wait is short and no stop interrupts it; otherwise the message is to be deferred."""
        wait_ms = max(0, step.wake_at - self._clock.now_ms())
        longest_ms = SHORT_SLEEP_MS if self._settings.late_up_to_ms else MAX_SLEEP_MS
        if wait_ms > longest_ms or self._clock.sleep(wait_ms):
            return Deferred(step.until, job.facts.lane, step.is_for_slot, step.is_for_shared)
        is_beside = job.facts.is_forwarded and job.task.shared != ""  # other tasks of the lane use its turn too
        if step.wake_at >= step.until or is_beside:  # unless the wait was for the pace, the lane may have changed
            self._read_lane(job)
        return None

    def _run_in_room(self, claim: Claim, job: _Job) -> Handled | Step | None:
        """Reserves the room that the run needs, then claims the start; without room the start is not claimed."""
        decided_ms = self._clock.now_ms()
        with self._executor.room(job.task) as room:
            if room is None:
                return Deferred(self._clock.now_ms() + NO_ROOM_MS)
            # A start can't be dated back, so a decision that had to wait for room is made again.
            step = claim if self._clock.now_ms() == decided_ms else self._next_step(job)
            if isinstance(step, Claim) and self._shared and job.task.shared and not job.facts.shared_start:
                taken, job.facts = self._shared.take(job.task, step.start, job.facts, job.token)
                if not isinstance(taken, SharedStart):
                    return taken
                job.facts = replace(job.facts, shared_start=taken)
                step = self._next_step(job)
                if not job.facts.shared_start:
                    return None  # it came too late
            return self._claim_and_run(step, job, room) if isinstance(step, Claim) else None

    def _claim_and_run(self, step: Claim, job: _Job, room: Room) -> Handled | None:
        """None if the claim was refused: the job then has the lane as it is."""
        task, start = job.task, step.start
        with self._presence.serving(job.token):
            before, write = job.facts.lane, self._claim(step, job)
            self._learn(job, write.lane)
            if not isinstance(write, Written):
                return None
            job.facts = replace(job.facts, shared_start=None)  # it is used: a retry takes one of its own
            self._wake_head(job, has_waited=before is not None and before.awaited_shared != "")
            self._clock.sleep_until(start.at)
            ended = self._executor.run(task, replace(start, lane=write.lane), room, job.receipt)
        handled = self._after_run(job, start, write.lane, ended)
        if self._shared:
            self._shared.release(task, start.shared)
        return handled

    def _after_run(self, job: _Job, start: Start, claimed: Lane, ended: Ran | Retry) -> Handled:
        """claimed: the lane as the claim left it."""
        task = job.task
        if start.slot:
            after = ended.lane if isinstance(ended, Ran) else None
            lane = self._known.remember(after or self._lanes.get(task.user_id))
            self._wake_for_slot(lane)
            self._learn(job, lane)
            return Deferred(ended.at, lane) if isinstance(ended, Retry) else Done()
        if isinstance(ended, Retry):
            return Deferred(ended.at, job.facts.lane)
        self._known.put(with_run_time(claimed, ended.took_ms))
        return Done()

    def _wake_for_slot(self, lane: Lane) -> None:
        """Shows the messages that wait for the slots that are free: those of started tasks, the next one, the head.

        The head too where the next one waits: that one may be cancelled, or two slots are free for the two of them.
        """
        now_ms = self._clock.now_ms()
        free = at_once(lane.limits_or(self._settings.limits)) - len(lane.in_use(now_ms))
        door = [lease.receipt for lease in lane.at_the_door(now_ms)][: max(0, free)]
        first = [lane.next_receipt, lane.head_receipt] if lane.waiting and len(door) < free else []
        for receipt in filter(None, (*door, *first)):
            with suppress(UnavailableError):  # it looks again by itself
                self._queue.defer(receipt, 0)

    def _wake_head(self, job: _Job, has_waited: bool = False) -> None:
        """Shows the lane's head, which waits until the next task, in its own group, has got its shared limit.

        has_waited: the next task waited for it until this start.
        """
        lane = job.facts.lane
        if lane and job.facts.is_forwarded and lane.head_receipt and (has_waited or lane.awaited_shared):
            with suppress(UnavailableError):  # it looks again by itself
                self._queue.defer(lane.head_receipt, 0)

    def _claim(self, step: Claim, job: _Job) -> Write:
        if step.is_fast:
            return self._lanes.try_fast_claim(step.start, step.start.lane.limits_or(self._settings.limits))
        assert job.facts.lane is not None, "an exact claim is decided on a lane that was read"
        return self._lanes.claim(job.facts.lane, step.start)

    def _last_error(self, job: _Job) -> str | None:
        """The error of the task's last attempt if that one failed by itself; None if it lost its worker."""
        lane, task = job.facts.lane, job.task
        if lane is None or not lane.retry_of(task.task_id):
            return None
        record = self._tasks.get(task.user_id, task.task_id)
        return record.error if record else None

    def _end_retry(self, job: _Job) -> Done:
        """Ends the lease of a finished task that the lane takes for one between two attempts."""
        lane, now_ms = job.facts.lane, self._clock.now_ms()
        lease = lane.retry_of(job.task.task_id) if lane else None
        if lane and lease and not lease.in_slot:
            with suppress(UnavailableError):  # the next claim replaces it
                self._lanes.end_lease(job.task.user_id, lease, now_ms, lane.took_ms)
            self._known.forget(job.task.user_id)
        return self._free_slot(job)

    def _free_slot(self, job: _Job) -> Done:
        """Frees the slot of a finished task, if it has one: that of its last attempt, which a known lane may lack.

        Takes the task off those that run under its shared limit too, if its worker could not do so.
        """
        lane, task = job.facts.lane, job.task
        if self._shared and task.shared:
            self._shared.release_finished(task)
        while lane and (lease := (lane.slots or {}).get(task.task_id)):
            write = self._lanes.release_slot(task.user_id, lease, 0)
            lane = self._known.remember(write.lane)
            if isinstance(write, Written):
                self._wake_for_slot(lane)
        return Done()

    def _drop_from_lane(self, job: _Job) -> None:
        """Takes a cancelled task out of the lane once its outcome is logged; does nothing with any other task."""
        lane, task = job.facts.lane, job.task
        while lane and task.task_id in lane.cancelled:
            write = self._lanes.change(lane, without_cancelled(lane, task.task_id, task.seq, task.units))
            self._learn(job, write.lane)
            lane = write.lane
            self._wake_head(job)

    def _pass_over(self, job: _Job) -> None:
        """Counts a failed task that takes no start, or no further one, as started; does nothing with any other task."""
        lane, task = job.facts.lane, job.task
        while lane and (lane.started_seq < task.seq or lane.retry_of(task.task_id)):
            after = passed_over(lane, task.task_id, task.seq, task.units, self._clock.now_ms())
            self._learn(job, self._lanes.change(lane, after).lane)
            lane = job.facts.lane
            self._wake_head(job)

    def _learn(self, job: _Job, lane: Lane) -> None:
        """Gives the job's facts this lane, just read."""
        job.facts = self._known.facts_with(lane, job.task, job.facts)

    def _read_lane(self, job: _Job) -> None:
        self._learn(job, self._lanes.get(job.task.user_id))

    def _read_newest(self, gap: Gap, job: _Job) -> None:
        newest_id = job.facts.lane.newest if job.facts.lane else ""
        record = self._tasks.get(job.task.user_id, newest_id) if newest_id else None
        # A scheduled task that is being admitted is in the lane before its record has its seq.
        is_it = record is not None and record.task.seq == gap.last
        job.facts = replace(job.facts, predecessors=(record,) if record and is_it else ())

    def _read_payload(self, job: _Job) -> None:
        """Reads the payload of a task that was found in a list of records; the task fails if it is gone."""
        record = self._tasks.get(job.task.user_id, job.task.task_id)
        if record:
            job.task = replace(job.task, payload=record.task.payload, has_payload=record.task.has_payload)
        job.is_payload_read = True


def _is_emptied(lane: Lane | None, task: Task) -> bool:
    return lane is not None and lane.is_emptied(task.task_id, task.seq)


def _loses_shared_start(step: Step, taken: SharedStart, lane: Lane | None, now_ms: int) -> bool:
    """True if the task can't start in its lane at the time of the start that it took, or not soon enough.

    A start that was delayed for longer may come after the answer to a pause or lower limits. One whose turn another
    task of the lane has used would be the lane's second one of that turn.
    """
    if taken.turn and lane and (lane.turn is None or lane.turn.number != taken.turn):
        return True
    if isinstance(step, ReadLane | ReadRecord | ReadNewest | ReadPredecessors | ReadShared):
        return False
    return not isinstance(step, Claim) or step.start.at != taken.at or now_ms > taken.at + CLOCKS_DIFFER_MS
