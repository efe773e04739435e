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


@dataclass(frozen=True)
class SubmittedTask:
    """A submitted task, with its position in its lane at that time."""

    task_id: str
    user_id: str
    #: its number among all tasks of the user, from 1; 0 as long as it is scheduled
    seq: int
    #: its number in line, 1 for the first task that may not start now; 0 when it may start now or is scheduled
    position: int
    #: the earliest start that the limits allow, or its `run_at`
    planned_at: int
    #: milliseconds from the submit to `planned_at`
    delay_ms: int
    #: it waits for its turn, over the limit, or for its time
    queued: bool
    state: State

    @property
    def is_scheduled(self) -> bool:
        """It waits for its time outside of its lane."""
        return self.seq == 0


@dataclass(frozen=True)
class Task:
    """A task as it stands."""

    task_id: str
    user_id: str
    #: its number among all tasks of the user, from 1; 0 as long as it is scheduled
    seq: int
    #: the name of what is run
    task: str
    state: State
    #: its number in line, 1 for the first task that may not start now; 0 when it may, is scheduled, or has started
    position: int
    #: the earliest start that the limits allowed at its submit
    planned_at: int
    #: when it will start, as far as is known now; None once it started, and in a lane that is paused without an end
    estimated_at: int | None
    submitted_at: int
    #: None until it starts
    started_at: int | None
    #: None until it ends
    completed_at: int | None
    #: how often it was started
    attempts: int
    #: returned by its function; None until it succeeded
    result: Any
    #: why the last attempt failed; None when none did
    error: str | None
    #: when it was to join its lane; None when at once
    run_at: int | None
    #: URL of the callback; None without one
    callback_url: str | None

    @property
    def has_ended(self) -> bool:
        return self.state in FINAL_STATES or self.completed_at is not None

    @property
    def is_scheduled(self) -> bool:
        """It waits for its time outside of its lane."""
        return self.seq == 0 and not self.has_ended


@dataclass(frozen=True)
class Limit:
    """A quota per window, and what is left of it."""

    name: str
    #: starts in a window
    quota: int
    window_seconds: int
    #: starts that a submit could still use now
    remaining: int
    #: seconds until there is more
    reset_seconds: int


@dataclass(frozen=True)
class Lane:
    """A user's line."""

    user_id: str
    #: as they are written, `1/second; 20/minute`
    limits: str
    #: the user has limits of its own
    own_limits: bool
    policies: tuple[Limit, ...]
    #: tasks waiting
    backlog: int
    #: the id of the task that runs now; None when none does
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
    #: all starts ever taken, retries included
    started: int
    #: all tasks ever admitted
    admitted: int
    #: the server's time
    now: int


@dataclass(frozen=True)
class Health:
    """How Paceline's services are: each is `ok`, or what is wrong with it."""

    status: str
    dynamodb: str
    sqs: str

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"
