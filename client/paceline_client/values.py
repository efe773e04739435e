"""Values of requests and answers. Times are epoch milliseconds, as in the API.

Fields that a newer server adds are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

#: One of queued, running, succeeded, failed, cancelled; a newer server may know more.
State = str

#: The states that a task never leaves.
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class TaskOrder:
    """One task to be run."""

    #: any JSON value; the task's function gets it
    payload: Any = None
    #: one of the deployment's tasks
    task: str = "log"
    #: when it is to join its lane, epoch milliseconds or a datetime with a time zone; at once with neither this
    run_at: int | datetime | None = None
    #: nor this, seconds from now
    delay_seconds: float | None = None
    #: gets a signed POST when it has ended
    callback_url: str | None = None
    #: what it counts for in limits of units; None for what its definition says, else 1
    units: int | None = None
    #: the shared limit that it counts against; None for what its definition says. Another one needs an admin
    shared: str | None = None


@dataclass(frozen=True)
class SubmittedTask:
    """A submitted task, with its position in its lane at that time."""

    task_id: str
    user_id: str
    #: its number among all tasks of the user, from 1; 0 as long as it is scheduled
    seq: int
    #: 0 if it may start now or is scheduled; otherwise 1 + the tasks ahead of it
    position: int
    #: the earliest start that the limits allow, or its `run_at`
    planned_at: int
    #: milliseconds from the submit to `planned_at`
    delay_ms: int
    #: it is over the limit or scheduled
    queued: bool
    state: State
    #: the shared limit that it counts against; None for none
    shared: str | None = None
    #: `position` and `delay_ms` are lower bounds, since tasks of other users take turns at the shared limit
    lower_bound: bool = False
    #: with a lower bound: about when it starts; None if that is not known
    estimated_at: int | None = None

    @property
    def is_scheduled(self) -> bool:
        """True before its `run_at`: it has not joined its lane."""
        return self.seq == 0


@dataclass(frozen=True)
class Task:
    """A task's state at the time of the answer."""

    task_id: str
    user_id: str
    #: its number among all tasks of the user, from 1; 0 as long as it is scheduled
    seq: int
    #: the name of its function
    task: str
    state: State
    #: 0 if it may start now, is scheduled or has started; otherwise 1 + the tasks ahead of it
    position: int
    #: the earliest start that the limits allowed at its submit
    planned_at: int
    #: its estimated start; None once it started, and in a lane that is paused without an end
    estimated_at: int | None
    submitted_at: int
    #: None until it starts
    started_at: int | None
    #: None until it ends
    completed_at: int | None
    #: attempts so far
    attempts: int
    #: its function's result; None until it succeeded
    result: Any
    #: the last attempt's error; None without one
    error: str | None
    #: when a scheduled task joins its lane; None for other tasks
    run_at: int | None
    #: URL of the callback; None without one
    callback_url: str | None
    #: what it counts for in limits of units
    units: int = 1
    #: the units that its function reported as used; None without a report
    used_units: int | None = None
    #: when it was cancelled while it ran, so that it should stop; None if it was not
    cancel_requested_at: int | None = None
    #: the shared limit that it counts against; None for none
    shared: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in FINAL_STATES or self.completed_at is not None

    @property
    def is_scheduled(self) -> bool:
        """True before its `run_at`: it has not joined its lane."""
        return self.seq == 0 and not self.has_ended


@dataclass(frozen=True)
class Limit:
    """A limit, and the starts or units that it still allows."""

    name: str
    #: starts or units in a window
    quota: int
    window_seconds: int
    #: starts or units that a submit could still use now
    remaining: int
    #: seconds until more are allowed
    reset_seconds: int
    #: `starts` or `units`
    counts: str = "starts"
    #: starts, or units of starts, that count now
    used: int = 0


@dataclass(frozen=True)
class WaitsFor:
    """The shared limit that a lane waits for."""

    name: str
    #: lanes whose turn is before it, about
    before: int
    #: its start, if nothing else happens; None if that is not known
    start_at: int | None


@dataclass(frozen=True)
class Lane:
    """A user's lane."""

    user_id: str
    #: as text: `1/second; 20/minute`
    limits: str
    #: the user has limits of its own
    own_limits: bool
    policies: tuple[Limit, ...]
    #: tasks waiting
    backlog: int
    #: a running task's id; None if no task runs
    running: str | None
    #: None when no task waits, or the lane is paused without an end
    next_start_at: int | None
    #: when waiting tasks will start, soonest first: those of about the next minute
    next_starts: tuple[int, ...]
    #: when a further submit would start at once; None when the lane is paused without an end
    open_at: int | None
    paused: bool
    #: None when not paused, or paused without an end
    paused_until: int | None
    #: end of the lane's throttling; None if it is not throttled
    throttled_until: int | None
    #: why; None when it is not throttled
    throttled_reason: str | None
    #: the newest starts, newest first
    starts: tuple[int, ...]
    #: a start in the future, recorded by a worker with a wrong clock, which a resume corrects; None without one
    start_ahead_at: int | None
    #: all starts ever taken, retries included
    started: int
    #: all tasks ever admitted
    admitted: int
    #: the server's time
    now: int
    #: how many of the user's tasks may run at once
    at_once: int = 1
    #: how many of them run
    slots_in_use: int = 0
    #: the shared limit that the lane's next task waits for; None for none
    waits_for: WaitsFor | None = None


@dataclass(frozen=True)
class Health:
    """The state of Paceline's services: `ok`, or the error."""

    status: str
    dynamodb: str
    sqs: str

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"
