"""A Paceline in memory whose lanes are also changed while it runs; and a script of what happens when."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count as count_from
from typing import Any

from chalicelib.core.contention import RetryWithJitter
from chalicelib.core.errors import RequestError
from chalicelib.core.limits import Limits, format_limits, parse_limits
from chalicelib.core.task import Task, TaskState
from chalicelib.submit.submission import Submission, Submitted, TaskRequest
from chalicelib.submit.submitter import Submitter
from tests.factories import NOW, task_id_of
from tests.unit.workshop import Workshop

USER = "ann"


@dataclass(frozen=True)
class Change:
    """Limits or a pause, and when they were asked for and when that was answered, epoch ms."""

    begun_at: int
    answered_at: int
    limits: Limits
    #: None when it is not paused
    paused_until: int | None


@dataclass
class ControlRoom(Workshop):
    limits: str = "1/second; 20/minute"
    submitted: list[Task] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(LIMITS=self.limits, MAX_DELAY="1d")
        self._retry = RetryWithJitter(self.clock, lambda: 0.0)
        self.changes.append(Change(0, 0, self.settings.limits, None))
        self._times: list[int] = []
        self._ids = count_from(1)

    def at(self, milliseconds: int, happens: Callable[[], object]) -> None:
        """Has something happen so long after the beginning, whatever the worker is about."""
        when = NOW + milliseconds

        def happening() -> None:
            self._times.remove(when)
            happens()

        self._times.append(when)
        self.clock.at(when, happening)

    def submit_many(self, count: int) -> None:
        submitter = Submitter(self.lanes, self.tasks, self.queue, self._retry, self.settings)
        ids = [task_id_of(next(self._ids)) for _ in range(count)]
        submission = Submission(USER, [TaskRequest("log")] * count, self.clock.now_ms())
        outcome = submitter.submit_bulk(submission, ids)
        assert isinstance(outcome, Submitted)
        self.submitted += self.stored(outcome)

    def cancel(self, number: int) -> None:
        """Cancels one of those submitted, if it can be."""
        if not self.submitted:
            return
        task = self.submitted[number % len(self.submitted)]
        try:
            view = self.control.cancel(USER, task.task_id)
        except RequestError:
            return
        if view.state is TaskState.CANCELLED:  # else it runs, and is asked to stop, which a log task does not
            self.cancelled.add(task.task_id)

    def set_limits(self, text: str | None) -> None:
        limits = parse_limits(text) if text else None
        self._change(lambda: self.control.set_limits(USER, limits))

    def pause(self, milliseconds: int | None = None) -> None:
        until = None if milliseconds is None else self.clock.now_ms() + milliseconds
        self._change(lambda: self.control.pause(USER, until))

    def resume(self) -> None:
        self._change(lambda: self.control.resume(USER))

    def _change(self, how: Callable[[], object]) -> None:
        begun_at = self.clock.now_ms()
        how()
        lane = self.lanes.get(USER)
        limits = lane.limits_or(self.settings.limits)
        self.changes.append(Change(begun_at, self.clock.now_ms(), limits, lane.paused_until))

    def before(self, call: str, happens: Callable[[], object]) -> list[str]:
        """Has something happen right before the worker's next such call; lists the call once it has."""
        port, done = (self.queue if call == "defer" else self.lanes), list[str]()
        real = getattr(port, call)

        def interrupted(*arguments: Any) -> Any:
            setattr(port, call, real)
            done.append(call)
            happens()
            return real(*arguments)

        setattr(port, call, interrupted)
        return done

    def play(self, until_ms: int | None = None) -> None:
        """Lets all that was planned happen, and workers handle what comes, until that time or until all is done."""
        while (next_at := self._next_at()) is not None:
            if until_ms is not None and next_at > NOW + until_ms:
                self.clock.sleep_until(NOW + until_ms)
                return
            self.clock.sleep_until(next_at)
            for message in self.queue.receive():
                self.deliver(message)

    def _next_at(self) -> int | None:
        queued = self.queue.next_available_at()
        return min([*self._times, *([queued] if queued is not None else [])], default=None)

    @property
    def starts(self) -> list[int]:
        return [event["started_at"] for event in self.events if event["started_at"] is not None]

    def in_force(self, at: int, limits: str | None) -> bool:
        """Whether a start at that time may have been made under these limits, None for the deployment's."""
        answered = [change for change in self.changes if change.answered_at < at][-1]
        under_way = [change for change in self.changes if change.begun_at <= at <= change.answered_at]
        mine = limits or format_limits(self.settings.limits)
        return mine in {format_limits(change.limits) for change in (answered, *under_way)}
