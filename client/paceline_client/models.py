"""The fields of answers, as the OpenAPI document has them. `make client-models` writes this file.

Times are epoch milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

#: A task's state; a newer server may know more.
State = Literal["cancelled", "failed", "queued", "running", "succeeded"]


@dataclass(frozen=True)
class SubmittedTask:
    """A task that is queued or scheduled. Times are epoch milliseconds."""

    task_id: str
    user_id: str
    #: Its number in its lane; 0 while it is scheduled.
    seq: int
    #: 0: the limits allow the task's start now, or it has started, or it is scheduled. Otherwise 1 + the tasks ahead of
    #: it, a running one and one between two attempts included. For a task with a shared limit a lower bound.
    position: int
    #: The earliest start; while scheduled, the time to join the lane.
    planned_at: int
    #: Milliseconds until the expected start: the planned start, or the end of the tasks ahead.
    delay_ms: int
    #: It waits, for its limits or for its time.
    queued: bool
    state: State
    #: The shared limit that it counts against.
    shared: str | None = None
    #: `position` and `delay_ms` are lower bounds, since tasks of other users take turns with it at its shared limit.
    #: Absent without one, and while the task is scheduled.
    lower_bound: bool | None = None
    #: With `lower_bound`: about when it starts, if those that wait at the shared limit now go first; null while that is
    #: paused without an end.
    estimated_at: int | None = None


@dataclass(frozen=True)
class ProgressAnswer:
    fraction: float
    text: str
    #: When the function reported it, epoch milliseconds.
    at: int


@dataclass(frozen=True)
class AttemptAnswer:
    """An attempt of a task."""

    #: 1 for the first.
    attempt: int
    started_at: int
    #: null while it runs.
    ended_at: int | None
    #: Why it failed; at most 300 characters of earlier attempts.
    error: str | None


@dataclass(frozen=True)
class TaskAnswer:
    task_id: str
    user_id: str
    #: Its number among all tasks of the user, from 1; 0 while it is scheduled.
    seq: int
    #: Name of its function.
    task: str
    state: State
    #: 0: the limits allow the task's start now, or it has started, or it is scheduled. Otherwise 1 + the tasks ahead of
    #: it, a running one and one between two attempts included. For a task with a shared limit a lower bound.
    position: int
    #: The earliest start that the limits allowed when it was submitted.
    planned_at: int
    #: Estimated start; null once it started, and in a lane that is paused without an end.
    estimated_at: int | None
    submitted_at: int
    #: Newest start; null before the first.
    started_at: int | None
    #: Null until it finishes.
    completed_at: int | None
    #: Attempts so far.
    attempts: int
    #: Its function's result; null until it succeeded.
    result: Any
    #: The last attempt's error; null without one.
    error: str | None
    #: When the task is scheduled to be admitted; null if at once.
    run_at: int | None
    #: Gets a POST of its outcome; null without one.
    callback_url: str | None
    #: What each of its starts counts for in limits of units.
    units: int
    #: The units that its last attempt used, as its function reported; null if not.
    used_units: int | None
    #: When a client cancelled the task while it ran, so that it should stop; else null.
    cancel_requested_at: int | None
    #: Name of the schedule that submitted it; null for none.
    schedule: str | None
    #: The shared limit that the task counts against; null for none.
    shared: str | None
    #: The last report of the running attempt, or of the last one; null if it reported nothing.
    progress: ProgressAnswer | None
    #: As it was submitted; null if it is larger than 16 KB, in a list larger than 1 KB.
    payload: Any
    #: The payload is not shown: it is too large, or expired.
    payload_omitted: bool
    #: Its newest attempts, oldest first, at most 11; without those whose worker died.
    attempt_history: tuple[AttemptAnswer, ...]
    #: Id of the task as which this failed one was submitted again.
    redriven_as: str | None


@dataclass(frozen=True)
class ScheduleAnswer:
    user_id: str
    name: str
    task: str
    payload: Any
    #: As requested; null for what the task's definition says.
    units: int | None
    #: As requested; null for what the task's definition says.
    shared: str | None
    callback_url: str | None
    cron: str | None
    #: The time zone of `cron`; null with `every_seconds`.
    timezone: str | None
    every_seconds: int | None
    paused: bool
    #: The next tick; null while it is paused.
    next_at: int | None
    #: The last tick that submitted a task or was refused.
    last_at: int | None
    #: The task that it submitted last.
    last_task_id: str | None
    #: Number of ticks whose task was refused, such as by MAX_DELAY.
    refused: int
    #: The last tick that was refused.
    refused_at: int | None
    refused_reason: str | None
    created_at: int


@dataclass(frozen=True)
class LimitAnswer:
    name: str
    #: Starts or units in a window.
    quota: int
    counts: Literal["starts", "units"]
    window_seconds: int
    #: Starts, or units of starts, that count now; over the quota if more was used than estimated.
    used: int
    #: Starts or units left for a task submitted now.
    remaining: int
    #: Seconds until `remaining` grows.
    reset_seconds: int


@dataclass(frozen=True)
class WaitsForAnswer:
    """The shared limit whose turn a lane waits for."""

    name: str
    #: Turns before the lane's, about: some of them may be lost.
    before: int
    #: About when its turn comes; null in a pause without an end, or if that depends on a task.
    start_at: int | None


@dataclass(frozen=True)
class LaneAnswer:
    user_id: str
    #: As text, such as `1/second; 20/minute`.
    limits: str
    #: True if the user has its own limits.
    own_limits: bool
    policies: tuple[LimitAnswer, ...]
    #: Number of waiting tasks.
    backlog: int
    #: Id of a running task; null if none runs.
    running: str | None
    #: How many of the user's tasks may run at once.
    at_once: int
    #: How many of them run, by their leases.
    slots_in_use: int
    #: Estimated start of the lane's next attempt; null if no task waits.
    next_start_at: int | None
    #: Estimated starts of waiting tasks, soonest first: at most 60, within the next 75 seconds.
    next_starts: tuple[int, ...]
    #: Planned start of a task submitted now.
    open_at: int | None
    paused: bool
    #: End of the pause; null if not paused, or until a resume.
    paused_until: int | None
    #: End of the throttling: an API answered a task with 429 or 503.
    throttled_until: int | None
    #: Why it is throttled; null when it is not.
    throttled_reason: str | None
    #: Times of the newest starts, newest first.
    starts: tuple[int, ...]
    #: A start in the future, recorded by a worker whose clock was ahead: no task of the lane starts before it. A resume
    #: corrects it. null without one.
    start_ahead_at: int | None
    #: Number of tasks ever admitted.
    admitted: int
    #: Number of starts ever claimed, retries included.
    started: int
    #: The server's time.
    now: int
    #: The shared limit that the lane's next task waits for; null for none.
    waits_for: WaitsForAnswer | None
    #: The user's group, which takes turns at shared limits as one; null for no group.
    group: str | None


@dataclass(frozen=True)
class WaiterAnswer:
    """A lane that waits for a shared limit, as far as it said so: those that wait for seconds do."""

    user_id: str
    task_id: str
    #: Lower turns start first.
    turn: int


@dataclass(frozen=True)
class SharedLimitAnswer:
    name: str
    #: In force; empty if the shared limit was deleted.
    limits: str
    #: As SHARED_LIMITS has it; null if it does not.
    setting: str | None
    policies: tuple[LimitAnswer, ...]
    #: How many tasks may run at once; null for any number.
    at_once: int | None
    #: Tasks that run; counted only with a number at once.
    running: int
    #: Lanes that wait for their turn, about.
    waiting: int
    #: Up to 20 of them, in order of turns.
    waiters: tuple[WaiterAnswer, ...]
    #: When it allows the next start; null if it is paused without an end, or full at once.
    next_start_at: int | None
    paused: bool
    #: End of the pause; null if not paused, or until a resume.
    paused_until: int | None
    #: End of the throttling: an API answered a task with 429 or 503.
    throttled_until: int | None
    throttled_reason: str | None
    #: Times of the newest starts, newest first.
    starts: tuple[int, ...]
    #: Number of starts ever taken.
    started: int
    now: int


@dataclass(frozen=True)
class HealthAnswer:
    status: Literal["ok", "unavailable"]
    #: `ok`, or the error.
    dynamodb: str
    #: `ok`, or the error.
    sqs: str
