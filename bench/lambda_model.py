"""Lambda, its event source and an SQS FIFO queue as a discrete-event model; admission and worker are the real code.

An invocation is computed to its end when it begins, with a clock of its own. That is exact: only a lane's worker writes
what a claim depends on, and a lane has one invocation at a time.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from chalicelib.core.admission import admit
from chalicelib.core.claim import Start
from chalicelib.core.task import Task
from chalicelib.settings import Settings
from chalicelib.tasks.runner import InProcess, Room
from chalicelib.worker.execution import Ran
from chalicelib.worker.messages import Delivery, Done
from chalicelib.worker.worker import Worker
from paceline.testing.memory.stores import MemoryLaneStore, MemoryTaskStore

#: Assumed milliseconds: a call of DynamoDB or SQS from Lambda; the function's own time; the task's time; and the time
#: from the moment when a message becomes visible to its invocation.
CALL_MS, HANDLER_MS, TASK_MS, RECEIVE_MS = 6, 6, 50, 30
#: Epoch ms at which simulated time begins.
EPOCH_MS = 1_795_300_000_000


@dataclass(frozen=True)
class Design:
    """A variant of the deployment."""

    name: str
    #: lanes in one invocation; its messages are deleted when all their tasks have finished
    lanes_per_invocation: int = 1
    #: largest number of concurrent invocations; None for any number
    concurrency: int | None = None
    #: LATE_UP_TO=1s: hide a message for whole seconds, rounded up, rather than sleep in the worker
    always_defers: bool = False


@dataclass
class Usage:
    """Resources of one run."""

    late_ms: list[int] = field(default_factory=list)
    #: the same by user
    late_of: dict[str, list[int]] = field(default_factory=dict)
    #: after each change: time, busy environments, messages in flight, messages in the queue
    levels: list[tuple[int, int, int, int]] = field(default_factory=list)
    invocations: int = 0
    deferrals: int = 0
    busy_ms: int = 0
    slept_ms: int = 0
    write_units: int = 0
    submits: int = 0
    #: writes by second
    writes_at: dict[int, int] = field(default_factory=dict)


class _Clock:
    def __init__(self, usage: Usage) -> None:
        self.now = 0
        self._usage = usage

    def now_ms(self) -> int:
        return self.now

    def sleep(self, milliseconds: int) -> bool:
        self.now += milliseconds
        self._usage.slept_ms += milliseconds
        return False

    def sleep_until(self, at: int) -> None:
        self.sleep(max(0, at - self.now))


class _Lanes(MemoryLaneStore):
    """Advances the clock with each call and counts writes."""

    def __init__(self, clock: _Clock, usage: Usage) -> None:
        super().__init__()
        self._clock = clock
        self._usage = usage

    def _write(self, *arguments: Any) -> Any:
        self._clock.now += CALL_MS
        count_write(self._usage, self._clock.now)
        return super()._write(*arguments)


class _Executor:
    """Stands for executor and finalizer: no function runs, but the task takes its time, and its outcome is stored."""

    def __init__(self, clock: _Clock, usage: Usage, task_ms: Callable[[str], int]) -> None:
        self._clock = clock
        self._usage = usage
        self._task_ms = task_ms

    def is_pending(self, _task: Task) -> bool:
        return False

    def max_attempts(self, _task: Task) -> int:
        return 3

    def knows(self, _task: Task) -> bool:
        return True

    def room(self, _task: Task) -> AbstractContextManager[Room]:
        return nullcontext(InProcess())

    def run(self, task: Task, start: Start, _room: Room, _receipt: str) -> Ran:
        late_ms, task_ms = start.at - start.planned_at, self._task_ms(task.user_id)
        self._usage.late_ms.append(late_ms)
        self._usage.late_of.setdefault(task.user_id, []).append(late_ms)
        self._clock.now += task_ms + CALL_MS
        count_write(self._usage, self._clock.now)
        return Ran(task_ms)


class _Queue:
    """Stores when the deferred message becomes visible."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self.visible_at = 0

    def defer(self, _receipt: str, seconds: int) -> bool:
        self._clock.now += CALL_MS
        self.visible_at = self._clock.now + seconds * 1000
        return True


class LambdaModel:
    """Models one deployment; `run` takes submits as (time in ms, user id, number of tasks), oldest first."""

    def __init__(
        self, settings: Settings, design: Design, task_ms: Callable[[str], int] = lambda _user_id: TASK_MS
    ) -> None:
        """task_ms: how long a user's tasks take. One task at a time: an invocation knows of no other of its lane."""
        self.usage = Usage()
        self._settings = replace(settings, late_up_to_ms=1_000 if design.always_defers else 0)
        self._design = design
        self._clock = _Clock(self.usage)
        self._lanes = _Lanes(self._clock, self.usage)
        self._queue = _Queue(self._clock)
        executor: Any = _Executor(self._clock, self.usage, task_ms)
        queue: Any = self._queue
        tokens = itertools.count()
        self._worker = Worker(
            self._lanes,
            MemoryTaskStore(),
            queue,
            executor,
            executor,
            self._clock,
            lambda: str(next(tokens)),
            self._settings,
        )
        self._events: list[tuple[int, int, Callable[[int], None]]] = []
        self._order = itertools.count()
        self._groups: dict[str, deque[Task]] = {}
        #: groups whose first message can be received, the longest ready first
        self._ready: deque[str] = deque()
        self._busy = self._in_flight = self._queued = 0

    def run(self, submits: Iterator[tuple[int, str, int]]) -> Usage:
        for at, user_id, tasks in submits:
            self._go_on(EPOCH_MS + at)
            self._submit(EPOCH_MS + at, user_id, tasks)
        self._go_on(None)
        return self.usage

    def _go_on(self, until: int | None) -> None:
        while self._events and (until is None or self._events[0][0] <= until):
            at, _, happens = heapq.heappop(self._events)
            happens(at)

    def _at(self, when: int, happens: Callable[[int], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happens))

    def _submit(self, now: int, user_id: str, count: int) -> None:
        self._clock.now = now
        lane = self._lanes.get(user_id)
        newest = f"{user_id}-{lane.admitted + count}"
        admission = admit(lane, self._settings.limits, now, newest, count)
        self._lanes.admit(lane, admission)
        group = self._groups.setdefault(user_id, deque())
        is_new = not group
        for n, planned_at in enumerate(admission.planned):
            seq = admission.first_seq + n
            group.append(Task(user_id, f"{user_id}-{seq}", seq, "log", None, planned_at, now))
            count_write(self.usage, now)
        self._queued += count
        self.usage.submits += 1
        if is_new:
            self._at(self._clock.now + CALL_MS + RECEIVE_MS, lambda at: self._make_ready(at, user_id))

    def _make_ready(self, now: int, user_id: str) -> None:
        self._ready.append(user_id)
        # After this moment's other events, so that one invocation can take their lanes too.
        self._at(now, self._dispatch)

    def _dispatch(self, now: int) -> None:
        while self._ready and (self._design.concurrency is None or self._busy < self._design.concurrency):
            most = min(self._design.lanes_per_invocation, len(self._ready))
            self._invoke(now, [self._ready.popleft() for _ in range(most)])

    def _invoke(self, now: int, users: list[str]) -> None:
        self._busy += 1
        self._in_flight += len(users)
        self.usage.invocations += 1
        ends = []
        for user_id in users:
            task = self._groups[user_id][0]
            self._clock.now = now + HANDLER_MS
            outcome = self._worker.handle(
                Delivery(task.to_message(), user_id, user_id, task.task_id, task.submitted_at)
            )
            ends.append((user_id, isinstance(outcome, Done), self._queue.visible_at, self._clock.now))
        end = max(clock for *_, clock in ends)
        self.usage.busy_ms += end - now
        self._record_levels(now)
        self._at(end, lambda at: self._ended(at, [one[:3] for one in ends]))

    def _ended(self, now: int, ends: list[tuple[str, bool, int]]) -> None:
        self._busy -= 1
        for user_id, is_done, visible_at in ends:
            group = self._groups[user_id]
            if is_done:
                group.popleft()
                self._in_flight -= 1
                self._queued -= 1
                if group:
                    self._at(now + RECEIVE_MS, lambda at, user_id=user_id: self._make_ready(at, user_id))  # type: ignore[misc]
                else:
                    del self._groups[user_id]
            else:
                self.usage.deferrals += 1
                self._at(max(now, visible_at), lambda at, user_id=user_id: self._visible(at, user_id))  # type: ignore[misc]
        self._record_levels(now)
        self._dispatch(now)

    def _visible(self, now: int, user_id: str) -> None:
        self._in_flight -= 1
        self._at(now + RECEIVE_MS, lambda at: self._make_ready(at, user_id))

    def _record_levels(self, now: int) -> None:
        self.usage.levels.append((now - EPOCH_MS, self._busy, self._in_flight, self._queued))


def count_write(usage: Usage, now: int) -> None:
    """Counts one write unit: items of this size take one."""
    usage.write_units += 1
    second = (now - EPOCH_MS) // 1000
    usage.writes_at[second] = usage.writes_at.get(second, 0) + 1
