"""The test of the test: the same deployment with one guard off. Each has to break a promise before long."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from chalicelib.core.lane import Gap, Lane, Lease, Start
from chalicelib.core.limits import Limits
from chalicelib.core.ports import RequestRecord, Stale, Write, Written
from chalicelib.core.task import Outcome, Task, TaskRecord
from chalicelib.submit.submission import Submission
from chalicelib.submit.submitter import Submitter
from chalicelib.worker.execution import Attempts
from chalicelib.worker.lease_renewal import Kept, LeaseKeeper
from chalicelib.worker.worker import NoPresence, Worker
from tests.memory.stores import MemoryLaneStore, MemoryTaskStore
from tests.memory.task_queue import MemoryTaskQueue
from tests.simulation.requests import MemoryRequestStore
from tests.simulation.world import Parts


class NoLeaseCheck(Worker):
    def _decide(self, lane: Lane | None, task: Task, failed: int, token: str, fills_gap: bool = False) -> Any:
        if lane and lane.running:
            lane = replace(lane, running=replace(lane.running, until=0))
        return super()._decide(lane, task, failed, token, fills_gap)


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


class NoGapHandling(Worker):
    def _gap_before(self, task: Task) -> Gap | None:
        return None

    def _run(self, task: Task, gap_is_settled: bool = False, fills_gap: bool = False) -> Any:
        return super()._run(task, gap_is_settled=True, fills_gap=fills_gap)


class NoHold(MemoryLaneStore):
    """Neither lane nor lease keep the task back: each covers the other, for a message that waits is its lane's head."""

    def throttle(self, user_id: str, lease: Lease, _until: int, reason: str) -> bool:
        return super().throttle(user_id, lease, 0, reason)


class NoAttemptBack(MemoryLaneStore):
    """Being told to slow down costs an attempt."""

    def throttle(self, user_id: str, lease: Lease, until: int, reason: str) -> bool:
        return super().throttle(user_id, replace(lease, attempt=lease.attempt + 1), until, reason)


class NoParkCheck(MemoryLaneStore):
    """Word of a long wait is left even where what it rests on has changed."""

    def save_head_receipt(self, seen: Lane, receipt: str) -> Write:
        return super().save_head_receipt(self.get(seen.user_id), receipt)


class NoParking(MemoryLaneStore):
    """No word is left of a long wait."""

    def save_head_receipt(self, seen: Lane, receipt: str) -> Write:
        return Written(seen)


class NoAttemptCount(Worker):
    def _decide(self, lane: Lane | None, task: Task, failed: int, token: str, fills_gap: bool = False) -> Any:
        if lane and lane.running and lane.running.task_id == task.task_id:
            lane = replace(lane, running=replace(lane.running, attempt=0))
        return super()._decide(lane, task, 0, token, fills_gap)


class NoFillMark(Worker):
    """The lease of a task that ran in place of a later one is one like others."""

    def _decide(self, lane: Lane | None, task: Task, failed: int, token: str, fills_gap: bool = False) -> Any:
        return super()._decide(lane, task, failed, token, fills_gap=False)


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
    """A scheduled task gets a place whatever became of it meanwhile."""

    def mark_admitted(self, task: Task) -> bool:
        self._records.pop((task.user_id, task.task_id), None)
        return super().mark_admitted(task)


class NotedBeforeTold(Attempts):
    """Who is told of an end is told once it is noted, if the worker lives on."""

    def _call_back(self, ending: Any) -> None:
        self._tasks.finish(ending.task, ending.outcome)
        super()._call_back(ending)


class NotedBeforeLogged(Attempts):
    def _settle(self, ending: Any) -> None:
        self._tasks.finish(ending.task, ending.outcome)
        super()._settle(ending)


class NoUnsettledMemory(Attempts):
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


class NoGroups(MemoryTaskQueue):
    """Messages behind a hidden one are given out."""

    def receive(self, most: int = 1) -> Any:
        now_ms = self._now_ms()
        for group in self._groups.values():
            for message in group.messages:
                if message.visible_at <= now_ms:
                    return [self._take(message, now_ms)]
        return []


class NoKeeper(LeaseKeeper):
    @contextmanager
    def keeping(self, user_id: str, lease: Lease, deadline_at: int, on_expired: Callable[[], None]) -> Iterator[Kept]:
        yield Kept(user_id, lease, 0, deadline_at, on_expired)


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


#: What is off, and the deployment without it.
MUTANTS: dict[str, Parts] = {
    "claim condition: starts in the window": Parts(lanes=NoClaimCondition),
    "claim condition: lane unmoved since read": Parts(lanes=NoClaimUnmoved),
    "claim condition: not paused": Parts(lanes=NoPauseCheck),
    "change condition: lane unmoved since read": Parts(lanes=NoChangeUnmoved),
    "lease check": Parts(worker=NoLeaseCheck),
    "word of whom this machine serves": Parts(presence=lambda served: NoPresence()),
    "lease keeper": Parts(keeper=NoKeeper),
    "gap handling": Parts(worker=NoGapHandling),
    "deferral report": Parts(is_kept=lambda outcome: False),
    "attempt count": Parts(worker=NoAttemptCount),
    "lease of what ran in place of a later task": Parts(worker=NoFillMark),
    "hold: lane and lease": Parts(lanes=NoHold),
    "hold: the attempt given back": Parts(lanes=NoAttemptBack),
    "idempotency: take-over only when abandoned": Parts(requests=NoTakeOverGuard),
    "idempotency: ids kept on take-over": Parts(requests=NewIdsOnTakeOver),
    "idempotency: repeat marked": Parts(submitter=NoRepeatMark),
    "schedule: revision check": Parts(lanes=NoParkCheck),
    "schedule: word of a long wait": Parts(lanes=NoParking),
    "task record: put only if absent": Parts(tasks=UnconditionalPut),
    "task record: ended stays ended": Parts(tasks=UnconditionalEnd),
    "task record: ended ones do not run": Parts(tasks=NoEndedCheck),
    "scheduled task: one place, unless it has ended": Parts(tasks=UnconditionalPlace),
    "callback before note": Parts(attempts=NotedBeforeTold),
    "log before note": Parts(attempts=NotedBeforeLogged),
    "memory of is_pending ends": Parts(attempts=NoUnsettledMemory),
    "queue: deduplication": Parts(queue=NoDeduplication),
    "queue: one message of a group at a time": Parts(queue=NoGroups),
    "queue: keeps what it was sent": Parts(queue=WrongMessages),
    "lost claim recognised": Parts(lanes=NoRecognition),
}

#: A seed that found each: what `make test` tries.
FOUND_BY = {
    "claim condition: starts in the window": 12,
    "claim condition: lane unmoved since read": 1,
    "claim condition: not paused": 2,
    "change condition: lane unmoved since read": 98,
    "lease check": 21,
    "word of whom this machine serves": 109,
    "lease keeper": 6,
    "gap handling": 27,
    "deferral report": 0,
    "attempt count": 0,
    "lease of what ran in place of a later task": 40,
    "hold: lane and lease": 1,
    "hold: the attempt given back": 1,
    "idempotency: take-over only when abandoned": 14,
    "idempotency: ids kept on take-over": 90,
    "idempotency: repeat marked": 216,
    "schedule: revision check": 37,
    "schedule: word of a long wait": 2,
    "task record: put only if absent": 44,
    "task record: ended stays ended": 2,
    "task record: ended ones do not run": 3,
    "scheduled task: one place, unless it has ended": 1115,
    "callback before note": 442,
    "log before note": 0,
    "memory of is_pending ends": 332,
    "queue: deduplication": 44,
    "queue: one message of a group at a time": 0,
    "queue: keeps what it was sent": 3,
    "lost claim recognised": 7,
}
