"""One message's way: keep the lane's order, wait or defer, claim the start, run. Knows neither Lambda nor AWS.

Pace, order and attempts rest on the claim alone, one conditional write; all that comes before it only saves writes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from msgspec import Struct

from chalicelib.core import visibility
from chalicelib.core.errors import MessageError, NewerMessageError
from chalicelib.core.lane import Cancelled, Candidate, Decision, Gap, Lane, Start, Wait, claim, gap_before
from chalicelib.core.ports import Clock, LaneStore, Presence, TaskQueue, TaskStore, Write, Written
from chalicelib.core.task import Task
from chalicelib.core.visibility import NEWER_SECONDS, again_soon
from chalicelib.settings import Settings
from chalicelib.worker.execution import Attempts, Retry

#: A start is claimed so long before its time, so that the write's own duration makes no start late.
LEAD_MS = 150
#: How long a claim keeps other workers off; renewed while the task runs.
LEASE_MS = 10_000
#: A longer wait is deferred again: 24 receives a day stay below the 1,000 at which SQS gives a message up, and a pause
#: whose end was missed because a worker died at that very moment is noticed.
MAX_DEFERRAL_SECONDS = 3_600
#: A wait longer than this is noted in the lane, so that a resume or new limits end it.
SAVE_RECEIPT_AFTER_MS = 3_000
#: How long a task waits for a predecessor that is not to be found, counted from its own submit.
GAP_GRACE_MS = 2_000
GAP_POLL_MS = 50
#: How soon a task is looked at again whose lease ran out while the worker that has it lives.
SERVED_POLL_MS = 2_500
#: Lanes that a worker remembers, so that most claims succeed with their first write.
LANES_REMEMBERED = 10_000


class Delivery(Struct, frozen=True):
    """A message as the queue gave it."""

    body: str
    receipt: str
    user_id: str
    message_id: str


class Done(Struct, frozen=True):
    """The message has served and is to be deleted."""


class Deferred(Struct, frozen=True):
    """The message waits in the queue and must not be deleted. Hidden until then, epoch ms."""

    until: int
    #: what the wait rests on, None when no change of the lane ends it
    lane: Lane | None = None


Handled = Done | Deferred


class NoPresence:
    """For machines of one process that serves one message, which stays hidden for longer than it can live: Lambda."""

    def serving(self, _token: str) -> AbstractContextManager[None]:
        return nullcontext()

    def is_served(self, _token: str) -> bool:
        return False


class Worker:
    """Takes messages of many lanes, each lane's one after the other. Lanes may be handled by many threads."""

    def __init__(
        self,
        lanes: LaneStore,
        tasks: TaskStore,
        queue: TaskQueue,
        attempts: Attempts,
        clock: Clock,
        new_token: Callable[[], str],
        settings: Settings,
        presence: Presence | None = None,
    ) -> None:
        """presence: tells a worker that lives and can't renew its lease from one that died; None for Lambda."""
        self._presence = presence or NoPresence()
        self._lanes = lanes
        self._tasks = tasks
        self._queue = queue
        self._attempts = attempts
        self._clock = clock
        self._new_token = new_token
        self._settings = settings
        self._seen: dict[str, Lane] = {}

    def handle(self, delivery: Delivery) -> Handled:
        """Takes the message as far as it goes now. UnavailableError when AWS fails: the message comes back later."""
        try:
            task = _task_of(delivery)
        except NewerMessageError:
            self._queue.defer(delivery.receipt, NEWER_SECONDS)
            return Deferred(self._clock.now_ms() + NEWER_SECONDS * 1000)
        except MessageError as error:
            self._queue.send_dead(delivery.user_id, delivery.message_id, delivery.body, str(error))
            return Done()
        with again_soon(self._queue.defer, delivery.receipt):
            return self._handle(task, delivery)

    def _handle(self, task: Task, delivery: Delivery) -> Handled:
        while True:
            outcome = self._run_in_order(task)
            if isinstance(outcome, Done):
                return outcome
            self._queue.defer(delivery.receipt, self._hidden_seconds(outcome.until))
            if self._scheduled(delivery, outcome):
                return outcome

    def _scheduled(self, delivery: Delivery, deferred: Deferred) -> bool:
        """Leaves word in the lane of a long wait; False when what it rests on has changed meanwhile.

        Only after the message was hidden: whoever changes the lane later finds the word and wakes it.
        """
        if deferred.lane is None or deferred.until - self._clock.now_ms() < SAVE_RECEIPT_AFTER_MS:
            return True
        write = self._lanes.save_head_receipt(deferred.lane, delivery.receipt)
        self._remember(write.lane)
        return isinstance(write, Written)

    def _hidden_seconds(self, until: int) -> int:
        """Whole seconds that end before the lead to `until` begins; the rest of the wait is slept."""
        return max(0, min((until - LEAD_MS - self._clock.now_ms()) // 1000, MAX_DEFERRAL_SECONDS))

    def _run_in_order(self, task: Task, fills_gap: bool = False) -> Handled:
        while True:
            gap = self._gap_before(task)
            if gap is None:
                return self._run(task, fills_gap=fills_gap)
            outcome = self._fill(task, gap, fills_gap)
            if outcome is not None:
                return outcome

    # Two submits of one user at the same time can reach the queue in the other order; the lane's numbers show the gap.
    # A submit that was answered is in the table, so its task is run from there; its message then finds it ended.

    def _gap_before(self, task: Task) -> Gap | None:
        lane = self._seen.get(task.user_id)
        if lane is None and task.planned_at <= self._clock.now_ms():
            return None  # the claim's condition tells, and costs no read when there is none
        if lane is None or gap_before(lane, task.seq):
            lane = self._remember(self._lanes.get(task.user_id))
        return gap_before(lane, task.seq)

    def _fill(self, task: Task, gap: Gap, fills_gap: bool) -> Handled | None:
        """Runs what is missing before the task; None when that is settled and the lane is to be looked at again."""
        records = self._tasks.between(task.user_id, gap.first, gap.last)
        waiting = [record.task for record in records if not record.outcome]
        if not waiting and len(records) > gap.last - gap.first:
            return self._run(task, gap_is_settled=True, fills_gap=fills_gap)  # all are known to have ended
        if not waiting and self._clock.now_ms() >= task.submitted_at + GAP_GRACE_MS:
            # Those submits were never answered: nobody was promised anything.
            return self._run(task, gap_is_settled=True, fills_gap=fills_gap)
        if not waiting and self._clock.sleep(GAP_POLL_MS):
            return Deferred(self._clock.now_ms())
        for missing in waiting:
            outcome = self._run(missing, fills_gap=True)
            if isinstance(outcome, Deferred):
                return outcome
        return None

    def _run(self, task: Task, gap_is_settled: bool = False, fills_gap: bool = False) -> Handled:
        if self._attempts.is_pending(task):
            self._attempts.settle(task)
            return self._pass_over(task)
        token = self._new_token()
        with self._presence.serving(token):
            start = self._take_start(task, token, gap_is_settled, fills_gap)
            if not isinstance(start, Start):
                return start
            self._clock.sleep_until(start.at)
            retry = self._attempts.run(task, start)
        return Deferred(retry.at) if isinstance(retry, Retry) else Done()

    def _take_start(self, task: Task, token: str, gap_is_settled: bool, fills_gap: bool) -> Start | Handled:
        """Claims the task's start shortly before its time; an outcome when it does not start now."""
        lane, exact, failed = self._seen.get(task.user_id), False, 0
        if task.is_repeat:
            lane = self._remember(self._lanes.get(task.user_id))
        while True:
            if lane and (task.seq <= lane.started_seq or task.is_repeat) and task.task_id not in lane.cancelled:
                record = self._tasks.get(task.user_id, task.task_id)
                if record and record.outcome:
                    return Done()
                failed = record.attempts if record else 0
            if exact and lane and gap_before(lane, task.seq) and not gap_is_settled:
                return self._run_in_order(task, fills_gap)
            decision = self._decide(lane, task, failed, token, fills_gap)
            is_last = isinstance(decision, Start) and decision.attempt > self._attempts.most(task)
            if (is_last or isinstance(decision, Wait)) and not exact:
                lane, exact = self._remember(self._lanes.get(task.user_id)), True  # things may have changed
                continue
            wait_ms = _claimable_at(decision) - self._clock.now_ms()
            if wait_ms > 0 or isinstance(decision, Wait):
                if wait_ms > visibility.MAX_SLEEP_MS or self._clock.sleep(max(0, wait_ms)):
                    return Deferred(_legal_at(decision), lane)
                if isinstance(decision, Wait):
                    lane = self._remember(self._lanes.get(task.user_id))
                continue  # the clock has moved on, and with it the start that may be claimed
            if isinstance(decision, Start) and is_last:
                self._attempts.give_up(task, decision)
                return Done()
            if isinstance(decision, Cancelled):
                self._attempts.cancelled(task)
                return self._pass_over(task)
            write = self._write(lane, decision, is_next=not exact and decision.lane.started_seq == task.seq)
            lane, exact = self._remember(write.lane), True
            if isinstance(write, Written):
                return decision

    def _pass_over(self, task: Task) -> Done:
        """Takes a cancelled task out of the lane, once its end is logged: nobody looks at it again then."""
        lane = self._seen.get(task.user_id)
        while lane and isinstance(decision := self._decide(lane, task, 0, ""), Cancelled):
            write = self._lanes.change(lane, decision.lane)
            lane = self._remember(write.lane)
        return Done()

    def _decide(self, lane: Lane | None, task: Task, failed: int, token: str, fills_gap: bool = False) -> Decision:
        """What the lane allows; one that is not known is taken to be idle with this task next."""
        lane = lane or Lane(task.user_id, admitted=task.seq, started_seq=task.seq - 1)
        limits = lane.limits_or(self._settings.limits)
        candidate = Candidate(task.task_id, task.seq, task.planned_at, failed, fills_gap)
        now_ms = self._clock.now_ms()
        decision = claim(lane, candidate, limits, now_ms, LEASE_MS, token)
        if isinstance(decision, Start) and self._is_served(lane, task):
            return Wait(now_ms + SERVED_POLL_MS)
        return decision

    def _is_served(self, lane: Lane, task: Task) -> bool:
        """Its lease ran out while its worker could not reach AWS, and that one has it still."""
        lease = lane.running
        return lease is not None and lease.task_id == task.task_id and self._presence.is_served(lease.token)

    def _write(self, lane: Lane | None, start: Start, is_next: bool) -> Write:
        """Takes the start: as the lane's next on its own conditions, which hold whatever else was admitted."""
        if start.attempt == 1 and is_next:
            return self._lanes.try_fast_claim(start, start.lane.limits_or(self._settings.limits))
        assert lane is not None
        return self._lanes.claim(lane, start)

    def _remember(self, lane: Lane) -> Lane:
        self._seen.pop(lane.user_id, None)
        self._seen[lane.user_id] = lane
        if len(self._seen) > LANES_REMEMBERED:
            self._seen.pop(next(iter(self._seen)), None)
        return lane


def _task_of(delivery: Delivery) -> Task:
    task = Task.from_message(delivery.body)
    if task.user_id != delivery.user_id:
        raise MessageError(f"the message names user {task.user_id!r} in the lane of {delivery.user_id!r}")
    return task


def _legal_at(decision: Decision) -> int:
    """When what was decided may happen, epoch ms; 0 for a cancellation."""
    if isinstance(decision, Wait):
        return decision.until
    return decision.at if isinstance(decision, Start) else 0


def _claimable_at(decision: Decision) -> int:
    return _legal_at(decision) - (LEAD_MS if isinstance(decision, Start) else 0)
