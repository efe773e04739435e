"""The test of the test: the same deployment with one guard off. Each has to break a promise before long."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from chalicelib.core.claim import SharedStart, Start
from chalicelib.core.history import NO_HISTORY
from chalicelib.core.lane import Lane, Lease, Phase, Turn
from chalicelib.core.limits import Limits, LimitsAtOnce
from chalicelib.core.ports import (
    Correction,
    RequestRecord,
    SharedClaim,
    SharedWrite,
    SharedWritten,
    Stale,
    Write,
    Written,
    own_admission,
)
from chalicelib.core.scheduled import MAX_SQS_DELAY_SECONDS, DueTask
from chalicelib.core.shared_layout import SharedLayout
from chalicelib.core.shared_limit import SharedLimit, Taken, Waiter
from chalicelib.core.shared_shards import index_of
from chalicelib.core.task import Outcome, Task, TaskRecord, TaskState
from chalicelib.submit.submission import Submission
from chalicelib.submit.submitter import Submitter
from chalicelib.worker.finalizer import Finalizer
from chalicelib.worker.known_lanes import NoPresence
from chalicelib.worker.lease_renewal import LeaseRenewer, RunningTask
from chalicelib.worker.next_step import next_step
from chalicelib.worker.shared_claims import SharedClaims
from chalicelib.worker.steps import Facts, Rules, Step, WaitUntil
from tests.memory.requests import MemoryRequestStore
from tests.memory.scheduled_queue import MemoryScheduledQueue
from tests.memory.shared_limits import MemorySharedLimitStore
from tests.memory.stores import MemoryDueTasks, MemoryLaneStore, MemoryTaskStore
from tests.memory.task_queue import MemoryTaskQueue
from tests.simulation.outages import CLOSED_LANE, long_outage, throttled
from tests.simulation.schedule import (
    Behaviour,
    Fault,
    ForgetUser,
    Kill,
    Plan,
    Submit,
    Wrong,
    draw_cancels,
    draw_due,
    draw_emptyings,
    draw_forgettings,
    draw_groups,
    draw_several,
    draw_shards,
    draw_shared,
    draw_shared_units,
    draw_units,
)
from tests.simulation.several import draw_beside
from tests.simulation.world import Parts


def no_lease_check(facts: Facts, task: Task, *rest: Any) -> Step:
    if facts.lane and facts.lane.running:
        facts = replace(facts, lane=replace(facts.lane, running=replace(facts.lane.running, until=0)))
    return next_step(facts, task, *rest)


class NoClaimCondition(MemoryLaneStore):
    """The quick claim looks at who is next, but not at the starts."""

    def try_fast_claim(self, start: Start, limits: Limits) -> Write:
        lane, after = self.get(start.lane.user_id), start.lane
        if lane.started_seq != after.started_seq - 1 or lane.paused_until is not None or lane.cancelled:
            return super().try_fast_claim(start, limits)
        starts = (start.at, *lane.starts)
        seq, running = after.started_seq, after.running
        taken = lambda lane: replace(  # noqa: E731
            lane, starts=starts, started=lane.started + 1, started_seq=seq, running=running
        )
        return Written(self.prepare(lane.user_id, taken))


class NoClaimUnmoved(MemoryLaneStore):
    """The exact claim takes the lane for what it was when it was read."""

    def claim(self, seen: Lane, start: Start) -> Write:
        return super().claim(self.get(seen.user_id), start)


class NoChangeUnmoved(MemoryLaneStore):
    """A change of the lane is written whatever came between."""

    def change(self, seen: Lane, changed: Lane) -> Write:
        lane = self.get(seen.user_id)
        kept = replace(changed, started=lane.started, started_seq=max(lane.started_seq, changed.started_seq))
        return super().change(lane, replace(kept, admitted=lane.admitted))


class NoPauseCheck(MemoryLaneStore):
    def try_fast_claim(self, start: Start, limits: Limits) -> Write:
        paused_until = self.get(start.lane.user_id).paused_until
        if paused_until is None:
            return super().try_fast_claim(start, limits)
        self.prepare(start.lane.user_id, lambda lane: replace(lane, paused_until=None))
        write = super().try_fast_claim(start, limits)
        lane = self.prepare(start.lane.user_id, lambda lane: replace(lane, paused_until=paused_until))
        return Written(lane) if isinstance(write, Written) else Stale(lane)


def no_gap_handling(facts: Facts, task: Task, *rest: Any) -> Step:
    """The lane looks as if everything before the task had started."""
    if lane := facts.lane:
        running = lane.running and replace(lane.running, filled_seq=0)
        lane = replace(lane, running=running, started_seq=max(lane.started_seq, task.seq - 1))
    return next_step(replace(facts, lane=lane), task, *rest)


class NoHold(MemoryLaneStore):
    """Neither lane nor lease keep the task back: each covers the other, for a message that waits is its lane's head."""

    def throttle(self, user_id: str, lease: Lease, _until: int, reason: str) -> Lease | None:
        return super().throttle(user_id, lease, 0, reason)


class NoAttemptBack(MemoryLaneStore):
    """Throttling costs an attempt."""

    def throttle(self, user_id: str, lease: Lease, until: int, reason: str) -> Lease | None:
        return super().throttle(user_id, replace(lease, attempt=lease.attempt + 1), until, reason)


class OlderBucket(MemoryLaneStore):
    """A tally counts starts in the bucket before theirs."""

    def claim(self, seen: Lane, start: Start) -> Write:
        return super().claim(seen, _moved(start, -1))


class RoundedTwice(MemoryLaneStore):
    """Each exact write rounds the times of the buckets up once more."""

    def claim(self, seen: Lane, start: Start) -> Write:
        return super().claim(seen, _moved(start, 1))


def _moved(start: Start, buckets: int) -> Start:
    real = start.lane.real
    tallies = {key: replace(tally, newest=tally.newest + buckets) for key, tally in real.tallies.items()}
    return replace(start, lane=replace(start.lane, real=replace(real, tallies=tallies)))


class RoomNotLowered(MemoryLaneStore):
    """A quick claim leaves the room as it is."""

    def try_fast_claim(self, start: Start, limits: Limits) -> Write:
        before = self.get(start.lane.user_id).real
        write = super().try_fast_claim(start, limits)
        if isinstance(write, Stale) or before.unit_room is None:
            return write
        kept = lambda lane: replace(lane, real=replace(lane.real, unit_room=before.unit_room))  # noqa: E731
        return Written(self.prepare(start.lane.user_id, kept))


class CorrectedTwice(MemoryLaneStore):
    """The lease does not show that its units were corrected."""

    def correct_units(self, start: Start, used_units: int, now_ms: int) -> int | None:
        corrected_at = super().correct_units(start, used_units, now_ms)
        unmarked = lambda lane: replace(lane, running=lane.running and replace(lane.running, used=()))  # noqa: E731
        self.prepare(start.lane.user_id, unmarked)
        return corrected_at


class NoCorrection(MemoryLaneStore):
    """Units beyond those claimed are not counted."""

    def correct_units(self, start: Start, used_units: int, now_ms: int) -> int | None:
        corrected_at = super().correct_units(start, used_units, now_ms)
        if used_units > start.units:
            counted = lambda lane: replace(lane, real=replace(lane.real, unit_room=9, extras=lane.real.extras[2:]))  # noqa: E731
            self.prepare(start.lane.user_id, counted)
        return corrected_at


class NoCancelMark(MemoryLaneStore):
    """A running task's cancel is answered, and its lease does not say so."""

    def request_cancel(self, user_id: str, lease: Lease, now_ms: int) -> bool:
        is_requested = super().request_cancel(user_id, lease, now_ms)
        self.prepare(user_id, _uncancelled)
        return is_requested


def no_cancel_check(facts: Facts, *rest: Any) -> Step:
    """A task whose worker died, or whose attempt failed, is run again although it was cancelled."""
    return next_step(replace(facts, lane=facts.lane and _uncancelled(facts.lane)), *rest)


def _uncancelled(lane: Lane) -> Lane:
    return replace(lane, running=lane.running and replace(lane.running, cancel_requested_at=0))


class NoRunningMark(MemoryLaneStore):
    """A lease is renewed, and the lane does not say that its task runs."""

    def renew_lease(self, user_id: str, lease: Lease, until: int) -> Lease | None:
        is_renewed = super().renew_lease(user_id, lease, until)
        if is_renewed:
            self.prepare(user_id, lambda lane: replace(lane, running=replace(lane.running, phase=Phase.STARTED)))
        return is_renewed


class NoEndOfLease(MemoryLaneStore):
    """The lane says that a task runs which has ended."""

    def end_lease(self, user_id: str, lease: Lease, now_ms: int, took_ms: int) -> bool:
        return False


class NoBackoffCheck(MemoryLaneStore):
    """The quick admission does not see that a task waits for its next attempt."""

    def try_fast_admit(self, user_id: str, *arguments: Any) -> Write:
        kept = self.get(user_id).running
        if kept is None or kept.phase is not Phase.RETRY:
            return super().try_fast_admit(user_id, *arguments)
        self.prepare(user_id, lambda lane: replace(lane, running=None))
        super().try_fast_admit(user_id, *arguments)
        lane = self.prepare(user_id, lambda lane: replace(lane, running=kept))
        return own_admission(Stale(lane), arguments[2])


class NoRetriesCounted(MemoryLaneStore):
    """The starts of later attempts do not count for new planned starts."""

    def claim(self, seen: Lane, start: Start) -> Write:
        write = super().claim(seen, start)
        lane = self.prepare(seen.user_id, lambda lane: replace(lane, retries=()))
        return Written(lane) if isinstance(write, Written) else Stale(lane)


class NoParkCheck(MemoryLaneStore):
    """Word of a long wait is left even where what it rests on has changed."""

    def save_head_receipt(self, seen: Lane, receipt: str) -> Write:
        return super().save_head_receipt(self.get(seen.user_id), receipt)


class NoParking(MemoryLaneStore):
    """No word is left of a long wait."""

    def save_head_receipt(self, seen: Lane, receipt: str) -> Write:
        return Written(seen)


def no_attempt_count(facts: Facts, task: Task, *rest: Any) -> Step:
    if facts.lane and facts.lane.lease_of(task.task_id):
        facts = replace(facts, lane=replace(facts.lane, running=replace(facts.lane.running, attempt=0)))
    if facts.record:
        facts = replace(facts, record=replace(facts.record, attempts=0))
    return next_step(facts, task, *rest)


def no_mark_of_out_of_order(facts: Facts, task: Task, now_ms: int, rules: Rules, token: str, _: bool) -> Step:
    """The lease of a task that ran on a later task's message looks like any other."""
    return next_step(facts, task, now_ms, rules, token, False)


class NoTakeOverGuard(MemoryRequestStore):
    def _may_take_over(self, known: RequestRecord, record: RequestRecord, abandoned_before: int) -> bool:
        return known.fingerprint == record.fingerprint


class NewIdsOnTakeOver(MemoryRequestStore):
    def begin(self, record: RequestRecord, abandoned_before: int) -> RequestRecord:
        found = super().begin(record, abandoned_before)
        if found.owner == record.owner and found.is_repeat:
            found = self._records[record.user_id, record.key] = replace(found, first_id=record.first_id)
        return found


class NoRepeatMark(Submitter):
    def submit(self, submission: Submission, ids: Sequence[str], is_repeat: bool = False) -> Any:
        return super().submit(submission, ids)

    def submit_bulk(self, submission: Submission, ids: Sequence[str], is_repeat: bool = False) -> Any:
        return super().submit_bulk(submission, ids)


class UnconditionalPut(MemoryTaskStore):
    def create_if_absent(self, task: Task) -> None:
        self._records[task.user_id, task.task_id] = TaskRecord(task)


class UnconditionalEnd(MemoryTaskStore):
    def finish(self, task: Task, outcome: Outcome) -> None:
        self._records.pop((task.user_id, task.task_id), None)
        super().finish(task, outcome)


class UnconditionalPlace(MemoryTaskStore):
    """A scheduled task gets a seq even if it was cancelled meanwhile."""

    def mark_admitted(self, task: Task) -> bool:
        self._records.pop((task.user_id, task.task_id), None)
        return super().mark_admitted(task)


class StoresBeforeCallback(Finalizer):
    """The callback is sent after the outcome is stored."""

    def __init__(self, tasks: Any, queue: Any, log: Any, clock: Any, renewer: Any, stage: str, scheduled: Any) -> None:
        self._outcomes: dict[str, tuple[Task, Outcome]] = {}

        class StoresFirst:
            def send(_self, messages: Any) -> None:  # noqa: N805
                for callback, _ in messages:
                    tasks.finish(*self._outcomes[callback.task_id])
                scheduled.send(messages)

        super().__init__(tasks, queue, log, clock, renewer, stage, StoresFirst())  # type: ignore[arg-type]

    def finish(self, task: Task, start: Start, outcome: Outcome, receipt: str = "", correct: Any = None) -> None:
        self._outcomes[task.task_id] = task, outcome
        super().finish(task, start, outcome, receipt, correct)

    def cancel(self, task: Task, outcome: Outcome | None = None) -> None:
        self._outcomes[task.task_id] = task, outcome or Outcome(TaskState.CANCELLED, None, 0, 0)
        super().cancel(task, outcome)


class StoresBeforeLog(Finalizer):
    """The outcome is stored, then logged."""

    def __init__(self, tasks: Any, *others: Any) -> None:
        super().__init__(tasks, *others)
        self._first = tasks

    def finish(self, task: Task, start: Start, outcome: Outcome, receipt: str = "", correct: Any = None) -> None:
        self._first.finish(task, outcome)
        super().finish(task, start, outcome, receipt, correct)


class NoPendingMemory(Finalizer):
    def is_pending(self, task: Task) -> bool:
        return False


class NoEndedCheck(MemoryTaskStore):
    """A worker does not see that a task has ended."""

    def get(self, user_id: str, task_id: str) -> TaskRecord | None:
        record = super().get(user_id, task_id)
        return record and replace(record, outcome=None)


class NoDeduplication(MemoryTaskQueue):
    def _is_new(self, sent: dict[tuple[str, str], int], key: tuple[str, str]) -> bool:
        super()._is_new(sent, key)
        return True


class NoReceiveCount(MemoryTaskQueue):
    """Each receive looks like the third, so AWS's failures are followed by 4 s, however long they last."""

    def _take(self, message: Any, now_ms: int, hidden_until: int) -> Any:
        return replace(super()._take(message, now_ms, hidden_until), receives=3)


class NoScheduledReceiveCount(MemoryScheduledQueue):
    """The same for scheduled messages."""

    def _take(self, message: Any, now_ms: int) -> Any:
        return replace(super()._take(message, now_ms), receives=3)


class NewMessageForEachWait(MemoryScheduledQueue):
    """A message that has to wait is sent anew, and deleted."""

    def defer(self, receipt: str, seconds: int) -> bool:
        found = [message.body for message in self._messages if message.receipt == receipt]
        self.delete(receipt)
        for body in found:
            self.send_body(body, min(seconds, MAX_SQS_DELAY_SECONDS))
        return bool(found)


class NoGroups(MemoryTaskQueue):
    """Messages behind a hidden one are given out."""

    def receive(self, most: int = 1) -> Any:
        now_ms = self._now_ms()
        for group in self._groups.values():
            for message in group.messages:
                if message.visible_at <= now_ms:
                    return [self._take(message, now_ms, now_ms + self._visibility_ms)]
        return []


class NoRenewal(LeaseRenewer):
    @contextmanager
    def renewing(self, user_id: str, lease: Lease, deadline_at: int, on_expired: Any, *_: Any) -> Iterator[RunningTask]:
        yield RunningTask(user_id, lease, 0, deadline_at, on_expired)


class NoRecognition(MemoryLaneStore):
    """A claim whose answer was lost is not recognised when it is repeated."""

    def try_fast_claim(self, start: Start, limits: Limits) -> Write:
        before = self.get(start.lane.user_id)
        write = super().try_fast_claim(start, limits)
        same = before.running and start.lane.running and before.running.token == start.lane.running.token
        return Stale(write.lane) if same else write


class WrongMessages(MemoryTaskQueue):
    """Sends are answered and lost."""

    def send(self, task: Task) -> None:
        if json.loads(task.to_message())["seq"] % 3:
            super().send(task)


class OwnTaskOnly(MemoryDueTasks):
    """Nothing is listed as due: each message admits its own task alone."""

    def due(self, user_id: str, now_ms: int, most: int) -> list[DueTask]:
        return []


class NoNumber(MemoryDueTasks):
    """Tasks due at one time are listed by their ids."""

    def add(self, user_id: str, tasks: Sequence[DueTask]) -> None:
        super().add(user_id, [replace(task, number=0, index=0) for task in tasks])


#: The missing guard, and the deployment without it.
class NoSlotReleased(MemoryLaneStore):
    """The slot of a finished task stays taken until its lease ends."""

    def release_slot(self, user_id: str, lease: Lease, took_ms: int) -> Write:
        return Written(self.get(user_id))


class AnySlotReleased(MemoryLaneStore):
    """A release that was done before frees another task's slot."""

    def release_slot(self, user_id: str, lease: Lease, took_ms: int) -> Write:
        write = super().release_slot(user_id, lease, took_ms)
        if isinstance(write, Stale) and write.lane.slots:
            return super().release_slot(user_id, next(iter(write.lane.slots.values())), took_ms)
        return write


class NoSlotCount(MemoryLaneStore):
    """The quick claim does not count the slots."""

    def try_fast_claim(self, start: Start, limits: Limits) -> Write:
        return super().try_fast_claim(start, LimitsAtOnce(tuple(limits), 100) if start.slot else limits)


class NoReportCount(MemoryLaneStore):
    """An exact claim does not notice units that were reported since it was decided."""

    def claim(self, seen: Lane, start: Start) -> Write:
        return super().claim(replace(seen, reports=self.get(seen.user_id).reports), start)


class NoSlotCheck(MemoryLaneStore):
    """An exact claim takes a lease for over although it was renewed since."""

    def claim(self, seen: Lane, start: Start) -> Write:
        now = self.get(seen.user_id).slots or {}
        slots = {task_id: now.get(task_id, lease) for task_id, lease in (seen.slots or {}).items()}
        return super().claim(replace(seen, slots=slots if seen.slots is not None else None), start)


def no_order_beside(facts: Facts, task: Task, *rest: Any) -> Step:
    """A forwarded task does not wait for the one before it."""
    if facts.is_forwarded and facts.lane and facts.lane.started_seq < task.seq - 1:
        facts = replace(facts, lane=replace(facts.lane, started_seq=task.seq - 1))
    return next_step(facts, task, *rest)


def no_mark_of_emptying(facts: Facts, *rest: Any) -> Step:
    """A worker ignores that the lane was emptied."""
    return next_step(replace(facts, lane=facts.lane and replace(facts.lane, emptied_seq=0)), *rest)


class EmptiesTooMuch(MemoryLaneStore):
    """The next task, which is submitted after the emptying, is cancelled too."""

    def change(self, seen: Lane, changed: Lane) -> Write:
        more = changed.emptied_seq + (changed.emptied_at != seen.emptied_at)
        return super().change(seen, replace(changed, emptied_seq=more))


def no_mark_of_forgetting(facts: Facts, *rest: Any) -> Step:
    """A worker ignores that the user was forgotten."""
    return next_step(replace(facts, lane=facts.lane and replace(facts.lane, forgotten_seq=0)), *rest)


class ForgetsStarts(MemoryLaneStore):
    """A forgotten user's starts are forgotten too."""

    def forget(self, seen: Lane, changed: Lane, expires_at: int) -> Write:
        empty = replace(changed, starts=(), real=NO_HISTORY, planned=(), plans=NO_HISTORY, started=0)
        return super().forget(seen, empty, expires_at)


class ForgetsThrottling(MemoryLaneStore):
    """A forgotten user's API is called again, although it asked for a pause."""

    def forget(self, seen: Lane, changed: Lane, expires_at: int) -> Write:
        return super().forget(seen, replace(changed, throttled_until=0), expires_at)


class LogsEmptiedTwice(Finalizer):
    def cancel(self, task: Task, outcome: Outcome | None = None, last: Start | None = None) -> None:
        super().cancel(task, outcome, last)
        super().cancel(task, outcome, last)


class ForwardedTwice(MemoryTaskQueue):
    def forward(self, task: Task, now_ms: int) -> None:
        for again in range(2):
            self.send_body(task.own_group, f"{task.task_id}-{now_ms}-{again}", task.to_message())


class UnclaimedStarts(SharedClaims):
    """Full or not, the task takes its start."""

    def take(self, task: Task, start: Start, facts: Facts, token: str) -> tuple[SharedStart | Step, Facts]:
        taken, after = super().take(task, start, facts, token)
        return (SharedStart(task.shared, start.at) if isinstance(taken, WaitUntil) else taken), after


class NoRoomForLateTurns(SharedClaims):
    """A lane whose turn was passed over takes its start whether there is room or not."""

    def take(self, task: Task, start: Start, facts: Facts, token: str) -> tuple[SharedStart | Step, Facts]:
        taken, after = super().take(task, start, facts, token)
        turn, known = facts.lane.turn_for(task.shared) if facts.lane else 0, self._known.get(task.shared)
        is_late = known is not None and 0 < turn <= known.served
        return (SharedStart(task.shared, start.at) if is_late and isinstance(taken, WaitUntil) else taken), after


class ForgottenTurns(SharedClaims):
    """Asks for a turn each time that it looks."""

    def take(self, task: Task, start: Start, facts: Facts, token: str) -> tuple[SharedStart | Step, Facts]:
        lane = facts.lane and replace(facts.lane, turn=None)
        return super().take(task, start, replace(facts, lane=lane), token)


class AnyTurn(MemoryLaneStore):
    """Stores a turn whether the lane has got another one since it was read or not."""

    def save_turn(self, seen: Lane, turn: Turn) -> Write:
        lane = self.get(seen.user_id)
        return super().save_turn(replace(seen, turn=lane.turn, started=lane.started), turn)


class StartsOfAnyTurn(SharedClaims):
    """Forgets with which turn a start was taken: another task of the lane may use it too."""

    def take(self, task: Task, start: Start, facts: Facts, token: str) -> tuple[SharedStart | Step, Facts]:
        taken, after = super().take(task, start, facts, token)
        return (replace(taken, turn=0) if isinstance(taken, SharedStart) else taken), after


class TurnsOfRememberedLanes(SharedClaims):
    """Uses the turn of a lane that was remembered, which may be used since."""

    def take(self, task: Task, start: Start, facts: Facts, token: str) -> tuple[SharedStart | Step, Facts]:
        taken, after = super().take(task, start, replace(facts, is_lane_fresh=facts.lane is not None), token)
        return taken, replace(after, is_lane_fresh=facts.is_lane_fresh)


class TurnForEachOfAGroup(SharedClaims):
    """Each user of a group takes turns by itself."""

    def take(self, task: Task, start: Start, facts: Facts, token: str) -> tuple[SharedStart | Step, Facts]:
        lane = facts.lane and replace(facts.lane, group="")
        return super().take(task, start, replace(facts, lane=lane), token)


class FinishedHolders(SharedClaims):
    def release_finished(self, task: Task) -> None:
        """Leaves it to those who find the shared limit full."""


class OwnStartsReleased(SharedClaims):
    """Forgets the start of an earlier attempt, with which a task is listed among those that run."""

    def take(self, task: Task, start: Start, facts: Facts, token: str) -> tuple[SharedStart | Step, Facts]:
        taken, after = super().take(task, start, facts, token)
        if isinstance(taken, SharedStart) and taken.listed_at != taken.at:
            taken = replace(taken, listed_at=0)
        return taken, after


class ForgottenWaiters(MemorySharedLimitStore):
    def waiters(self, name: str, after_turn: int, most: int) -> list[Waiter]:
        return []


class UsedTurnsForgotten(MemorySharedLimitStore):
    """Knows the newest turn that was used, and not which ones."""

    def try_claim(self, claim: SharedClaim) -> SharedWrite:
        write = super().try_claim(claim)
        if isinstance(write, SharedWritten):
            self._stored[claim.name] = replace(write.shared, used=())
            return SharedWritten(self._stored[claim.name])
        return write


class AnyRelease(MemorySharedLimitStore):
    """Takes the task off those that run, whichever of its starts is over."""

    def release(self, name: str, task_id: str, at: int) -> SharedLimit:
        holder = (self.get(name).holders or {}).get(task_id)
        return super().release(name, task_id, holder.at if holder else at)


class PauseOfTheFirstShard(MemorySharedLimitStore):
    """A pause stops the shard that has the shared limit's name, and none of the others."""

    def change(self, seen: SharedLimit, changed: SharedLimit) -> SharedWrite:
        return super().change(seen, replace(changed, paused_until=None) if index_of(seen.name) else changed)


class ThrottlingOfTheFirstShard(MemorySharedLimitStore):
    """An API's 429 stops the shard that has the shared limit's name, and none of the others."""

    def change(self, seen: SharedLimit, changed: SharedLimit) -> SharedWrite:
        return super().change(seen, replace(changed, throttled_until=0) if index_of(seen.name) else changed)


class EmptyNewShards(MemorySharedLimitStore):
    """New shards do not count the starts in those of before."""

    def change(self, seen: SharedLimit, changed: SharedLimit) -> SharedWrite:
        if seen.is_changing and not changed.is_changing:
            changed = replace(changed, starts=seen.starts, started=seen.started, real=seen.real)
        return super().change(seen, changed)


class PartsRoundedUp(SharedLayout):
    def share(self, shared: SharedLimit) -> Limits | None:
        limits = self.limits(shared)
        parts = (replace(one, quota=-(-one.quota // shared.shards)) for one in limits or ())
        return tuple(parts) if shared.shards > 1 else limits


class NoSharedCorrection(MemorySharedLimitStore):
    """A shared limit does not count units beyond those claimed."""

    def correct_units(self, correction: Correction, now_ms: int) -> SharedWrite:
        before, write = self.get(correction.name), super().correct_units(correction, now_ms)
        if isinstance(write, SharedWritten) and correction.more > 0:
            self._stored[correction.name] = replace(write.shared, real=before.real)
        return write


class ForgottenCorrections(MemorySharedLimitStore):
    """A shared limit does not know which units it has corrected."""

    def correct_units(self, correction: Correction, now_ms: int) -> SharedWrite:
        write = super().correct_units(correction, now_ms)
        self._stored[correction.name] = replace(write.shared, corrected=())
        return write


class NoSharedPauseCheck(MemorySharedLimitStore):
    def try_claim(self, claim: SharedClaim) -> SharedWrite:
        seen = self.get(claim.name)
        if seen.paused_until is not None:
            self._stored[claim.name] = replace(seen, paused_until=None)
        return super().try_claim(claim)


class SharedClaimsWhateverCameBetween(MemorySharedLimitStore):
    def claim(self, seen: SharedLimit, taken: Taken) -> SharedWrite:
        return super().claim(self.get(seen.name), taken)


MUTANTS: dict[str, Parts] = {
    "claim condition: starts in the window": Parts(lanes=NoClaimCondition),
    "claim condition: lane unmoved since read": Parts(lanes=NoClaimUnmoved),
    "claim condition: not paused": Parts(lanes=NoPauseCheck),
    "change condition: lane unmoved since read": Parts(lanes=NoChangeUnmoved),
    "lease check": Parts(decide=no_lease_check),
    "presence: tasks that run on this machine": Parts(presence=lambda served: NoPresence()),
    "lease renewal": Parts(renewer=NoRenewal),
    "gap handling": Parts(decide=no_gap_handling),
    "deferral report": Parts(is_kept=lambda outcome: False),
    "attempt count": Parts(decide=no_attempt_count),
    "lease of a task that ran out of order": Parts(decide=no_mark_of_out_of_order),
    "throttle: lane and lease": Parts(lanes=NoHold),
    "throttle: the attempt given back": Parts(lanes=NoAttemptBack),
    "units: a bucket counts as at its end": Parts(lanes=OlderBucket),
    "units: rounded once": Parts(lanes=RoundedTwice),
    "units: room lowered": Parts(lanes=RoomNotLowered),
    "units: given back once": Parts(lanes=CorrectedTwice),
    "units: more are counted": Parts(lanes=NoCorrection),
    "cancel: the lease says so": Parts(lanes=NoCancelMark),
    "cancel: no further attempt": Parts(decide=no_cancel_check),
    "emptying: workers honour the mark": Parts(decide=no_mark_of_emptying),
    "emptying: later tasks are not cancelled": Parts(lanes=EmptiesTooMuch),
    "emptying: logged once": Parts(finalizer=LogsEmptiedTwice),
    "forgetting: starts kept": Parts(lanes=ForgetsStarts),
    "forgetting: throttling kept": Parts(lanes=ForgetsThrottling),
    "forgetting: workers honour the mark": Parts(decide=no_mark_of_forgetting),
    "shared: no start without a claim": Parts(shared_claims=UnclaimedStarts),
    "shared: room for a late turn": Parts(shared_claims=NoRoomForLateTurns),
    "shared: one turn to a lane": Parts(shared_claims=ForgottenTurns, lanes=AnyTurn),
    "shared beside: one turn to a lane": Parts(lanes=AnyTurn),
    "shared beside: one start to a turn": Parts(shared_claims=StartsOfAnyTurn),
    "shared beside: turn of the lane as it is": Parts(shared_claims=TurnsOfRememberedLanes),
    "groups beside: used turns known": Parts(shared_limits=UsedTurnsForgotten),
    "shared: one turn to a group": Parts(shared_claims=TurnForEachOfAGroup),
    "shared: waiters woken": Parts(shared_limits=ForgottenWaiters),
    "shared: released once": Parts(shared_limits=AnyRelease),
    "shared: released once finished": Parts(shared_claims=FinishedHolders),
    "shared: start of an earlier attempt released": Parts(shared_claims=OwnStartsReleased),
    "shared: not paused": Parts(shared_limits=NoSharedPauseCheck),
    "shared: more units are counted": Parts(shared_limits=NoSharedCorrection),
    "shared: units corrected once": Parts(shared_limits=ForgottenCorrections),
    "shared: unmoved since read": Parts(shared_limits=SharedClaimsWhateverCameBetween),
    "shards: all paused": Parts(shared_limits=PauseOfTheFirstShard),
    "shards: all throttled": Parts(shared_limits=ThrottlingOfTheFirstShard),
    "shards: starts of those before count": Parts(shared_limits=EmptyNewShards),
    "shards: parts are the quota together": Parts(shared_layout=PartsRoundedUp),
    "slots: released": Parts(lanes=NoSlotReleased),
    "slots: released once": Parts(lanes=AnySlotReleased),
    "slots: counted by the quick claim": Parts(lanes=NoSlotCount),
    "slots: no start before the one before it": Parts(decide=no_order_beside),
    "slots: forwarded once": Parts(queue=ForwardedTwice),
    "slots: an expired lease was not renewed": Parts(lanes=NoSlotCheck),
    "slots: each report of units known to a claim": Parts(lanes=NoReportCount),
    "answers: running task marked": Parts(lanes=NoRunningMark),
    "answers: mark cleared": Parts(lanes=NoEndOfLease),
    "answers: backoff ends before a planned start": Parts(lanes=NoBackoffCheck),
    "answers: later attempts counted": Parts(lanes=NoRetriesCounted),
    "idempotency: take-over only when abandoned": Parts(requests=NoTakeOverGuard),
    "idempotency: ids kept on take-over": Parts(requests=NewIdsOnTakeOver),
    "idempotency: repeat marked": Parts(submitter=NoRepeatMark),
    "head receipt: revision check": Parts(lanes=NoParkCheck),
    "head receipt: stored": Parts(lanes=NoParking),
    "task record: created only if absent": Parts(tasks=UnconditionalPut),
    "task record: an outcome is final": Parts(tasks=UnconditionalEnd),
    "task record: a finished task does not run": Parts(tasks=NoEndedCheck),
    "scheduled task: admitted once, unless finished": Parts(tasks=UnconditionalPlace),
    "scheduled tasks: all that is due, in order": Parts(due_tasks=OwnTaskOnly),
    "scheduled tasks: the submit's number": Parts(due_tasks=NoNumber),
    "callback before record": Parts(finalizer=StoresBeforeCallback),
    "log before record": Parts(finalizer=StoresBeforeLog),
    "memory of pending outcomes": Parts(finalizer=NoPendingMemory),
    "queue: deduplication": Parts(queue=NoDeduplication),
    "queue: one message of a group at a time": Parts(queue=NoGroups),
    "queue: keeps what it was sent": Parts(queue=WrongMessages),
    "lost claim recognised": Parts(lanes=NoRecognition),
    "message hidden while its task runs": Parts(is_extended=False),
    "outage: messages back ever later": Parts(queue=NoReceiveCount),
    "outage: scheduled messages back ever later": Parts(scheduled_queue=NoScheduledReceiveCount),
    "scheduled task: one message while it waits": Parts(scheduled_queue=NewMessageForEachWait),
}

#: A request that was served and not answered, repeated when the queue has forgotten the first message: drawn so rarely
#: that it is written down. Without the mark of a repeat the task runs twice.
LATE_REPEAT = Plan(
    seed=0,
    limits="5/second",
    is_lambda=True,
    workers=2,
    offsets=(0,) * 4,
    actions=tuple(Submit(at, "ann", "first", (Behaviour(),), "key-1") for at in (0, 330_000)),
    faults=(Fault("requests.finish", 1, Wrong.DIED_BEFORE),),
    outages=(),
    max_attempts=3,
)


def _message_of_a_forgotten_user() -> Plan:
    """The message of a finished task is not deleted, and comes again after its user was forgotten."""
    actions = (Submit(0, "ann", "first", (Behaviour(),)), ForgetUser(3_000, "ann"))
    faults = (Fault("source.delete", 1, Wrong.REFUSED),)
    return Plan(0, "1/second", False, 1, (0,) * 3, actions, faults)


def _waiter() -> Plan:
    """One task runs for seconds, and another one waits for its end."""
    actions = (_of_shared(0, "ann", 8_000), _of_shared(100, "bob", 5))
    return Plan(0, "20/second", True, 3, (0,) * 5, actions, shared="s: 1 at once")


def _late_release() -> Plan:
    """A waiter finds the lease of a lost worker over just before the task's next attempt, and releases it after."""
    actions = (_of_shared(0, "ann", 8_000), Kill(1_000, 0), _of_shared(10_004, "bob", 8_000))
    faults = (Fault("shared_limits.release", 1, Wrong.SLOW_BEFORE, 5_000),)
    return Plan(0, "20/second", False, 2, (0,) * 4, actions, faults, shared="s: 1 at once")


def _late_turn() -> Plan:
    """The worker that sleeps for the next turn is killed."""
    many = tuple(_of_shared(20 * user, f"u{user}", *[5] * 8) for user in range(6))
    return Plan(0, "20/second", False, 2, (0,) * 4, (*many, Kill(3_200, 1)), shared="s: 1/2 seconds")


def _of_shared(at: int, user: str, *runs_ms: int) -> Submit:
    return Submit(at, user, f"of-{user}", tuple(Behaviour(runs, shared="s") for runs in runs_ms))


def _after_a_failure(at: int, limits: str) -> Plan:
    """A submit that long after the first attempt of a task, which fails and is tried again after a second."""
    actions = (Submit(0, "ann", "first", (Behaviour(fails=1),)), Submit(at, "ann", "later", (Behaviour(),)))
    return Plan(seed=0, limits=limits, is_lambda=True, workers=2, offsets=(0,) * 4, actions=actions)


#: A seed that found each: what `make test` tries.
FOUND_BY: dict[str, int | Plan] = {
    "claim condition: starts in the window": 17,
    "claim condition: lane unmoved since read": 68,
    "claim condition: not paused": 2,
    "change condition: lane unmoved since read": 98,
    "lease check": 21,
    "presence: tasks that run on this machine": 109,
    "lease renewal": 6,
    "gap handling": 27,
    "deferral report": 0,
    "attempt count": 0,
    "lease of a task that ran out of order": 40,
    "throttle: lane and lease": 1,
    "throttle: the attempt given back": 1,
    "units: a bucket counts as at its end": draw_units(0),
    "units: rounded once": draw_units(19),
    "units: room lowered": draw_units(5),
    "units: given back once": draw_units(0),
    "units: more are counted": draw_units(0),
    "cancel: the lease says so": draw_cancels(0),
    "cancel: no further attempt": draw_cancels(7),
    "emptying: workers honour the mark": draw_emptyings(0),
    "emptying: later tasks are not cancelled": draw_emptyings(0),
    "emptying: logged once": draw_emptyings(1),
    "forgetting: starts kept": draw_forgettings(138),
    "forgetting: throttling kept": draw_forgettings(393),
    "forgetting: workers honour the mark": _message_of_a_forgotten_user(),
    "shared: no start without a claim": draw_shared(1),
    "shared: room for a late turn": _late_turn(),
    "shared: one turn to a lane": draw_shared(1),
    "shared beside: one turn to a lane": draw_beside("shared", 3),
    "shared beside: one start to a turn": draw_beside("shared", 55),
    "shared beside: turn of the lane as it is": draw_beside("shared", 25),
    "groups beside: used turns known": draw_beside("groups", 96),
    "shared: one turn to a group": draw_groups(1),
    "shared: waiters woken": _waiter(),
    "shared: released once": _late_release(),
    "shared: released once finished": draw_shared(15),
    "shared: start of an earlier attempt released": draw_shared(5285),
    "shared: not paused": draw_shared(12),
    "shared: more units are counted": draw_shared_units(0),
    "shared: units corrected once": draw_shared_units(13),
    "shared: unmoved since read": draw_shared(37),
    "shards: all paused": draw_shards(10),
    "shards: all throttled": draw_shards(1),
    "shards: starts of those before count": draw_shards(43),
    "shards: parts are the quota together": draw_shards(8),
    "slots: released": draw_several(96),
    "slots: released once": draw_several(12),
    "slots: counted by the quick claim": draw_several(32),
    "slots: no start before the one before it": draw_several(0),
    "slots: forwarded once": draw_several(0),
    "slots: an expired lease was not renewed": draw_several(469),
    "slots: each report of units known to a claim": draw_beside("units", 3),
    "answers: running task marked": 35,
    "answers: mark cleared": 1356,
    "answers: backoff ends before a planned start": _after_a_failure(600, "5/second"),
    "answers: later attempts counted": _after_a_failure(1_500, "1/second; 20/minute"),
    "idempotency: take-over only when abandoned": 14,
    "idempotency: ids kept on take-over": 90,
    "idempotency: repeat marked": LATE_REPEAT,
    "head receipt: revision check": 115,
    "head receipt: stored": 2,
    "task record: created only if absent": 44,
    "task record: an outcome is final": 2,
    "task record: a finished task does not run": 3,
    "scheduled task: admitted once, unless finished": draw_due(35),
    "scheduled tasks: all that is due, in order": draw_due(0),
    "scheduled tasks: the submit's number": draw_due(7),
    "callback before record": 442,
    "log before record": 0,
    "memory of pending outcomes": 313,
    "queue: deduplication": 44,
    "queue: one message of a group at a time": 0,
    "queue: keeps what it was sent": 22,
    "lost claim recognised": 7,
    "message hidden while its task runs": throttled("lanes."),
    "outage: messages back ever later": long_outage(0),
    "outage: scheduled messages back ever later": long_outage(0),
    "scheduled task: one message while it waits": CLOSED_LANE,
}
