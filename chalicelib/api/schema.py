"""Types of requests and answers: they validate requests and generate the OpenAPI document.

Times are epoch milliseconds; an optional time is null while unknown.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from chalicelib.core.task import DEFAULT_TASK
from chalicelib.core.ticks import MAX_CRON_LENGTH, MAX_EVERY_SECONDS, MIN_EVERY_SECONDS
from chalicelib.core.users import USER_PATTERN
from chalicelib.submit.submission import (
    MAX_TASKS,
    CallbackUrl,
    Payload,
    Position,
    SharedName,
    State,
    SubmittedTask,
    TaskName,
    TaskRequest,
    Units,
)

UserId = Annotated[str, Meta(pattern=USER_PATTERN, examples=["user123"], description="The user whose limits hold.")]
#: One limit as `parse_limits` reads it, which also checks quota, unit and window.
_PACE = r"[0-9]{1,9}(?:\s*[Uu][Nn][Ii][Tt][Ss]?)?(?:\s*/\s*|\s+[Pp][Ee][Rr]\s+)(?:[0-9]{1,9}\s*)?[A-Za-z]+"
_LIMIT = rf"(?:{_PACE}|[0-9]{{1,9}}\s*[Aa][Tt]\s+[Oo][Nn][Cc][Ee])"
#: More limits than may be, at most one number of tasks at once not counted.
_SIX = r"(?:(?:[^/Pp]|[Pp](?![Ee][Rr]))*(?:/|[Pp][Ee][Rr])){6}"
LimitsText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=500,
        description=(
            "Up to 5 limits, such as `1/second; 20 per 5 minutes; 90000 units/minute`, and how many of the user's "
            "tasks may run at once, 1 to 100, such as `5 at once`; 1 unless it is said."
        ),
        examples=["5/second; 100/minute", "1/second; 20/minute; 5 at once"],
        # Described, and left to `parse_limits` to check: its errors say what is wrong.
        extra_json_schema={"pattern": rf"^(?!{_SIX})[\s;,]*{_LIMIT}(?:\s*[;,\n][\s;,]*{_LIMIT}){{0,5}}[\s;,]*$"},
    ),
]


class SubmitRequest(TaskRequest, frozen=True, forbid_unknown_fields=True):
    """One task for one user."""

    user_id: UserId | UnsetType = UNSET


class BulkRequest(Struct, forbid_unknown_fields=True):
    """Several tasks of one user, in order: all are queued, or none."""

    tasks: Annotated[list[TaskRequest], Meta(min_length=1, max_length=MAX_TASKS)]
    user_id: UserId | UnsetType = UNSET


class LimitsRequest(Struct, forbid_unknown_fields=True):
    """A user's own limits."""

    limits: LimitsText


class GroupRequest(Struct, forbid_unknown_fields=True):
    """The user's group, such as all users of one tenant: it takes turns at shared limits as one. null for no group."""

    group: Annotated[str, Meta(pattern=USER_PATTERN)] | None = None


class PauseRequest(Struct, forbid_unknown_fields=True):
    """End of the pause, epoch milliseconds; null pauses until a resume."""

    until: Annotated[int, Meta(ge=0, le=253_370_764_800_000)] | None = None


class ScheduleRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A schedule: the task that it submits, and `cron` or `every_seconds`."""

    task: TaskName = DEFAULT_TASK
    payload: Payload = None
    callback_url: CallbackUrl | None = None
    units: Units | None = None
    shared: SharedName | None = None
    cron: (
        Annotated[
            str,
            Meta(
                max_length=MAX_CRON_LENGTH,
                description="Five fields: minute, hour, day of the month, month, weekday.",
                examples=["30 7 * * MON-FRI"],
                # Only described: the error for fewer fields names the five.
                extra_json_schema={"minLength": 9},
            ),
        ]
        | None
    ) = None
    timezone: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=64,
                description="An IANA name; UTC by default. Only with `cron`.",
                examples=["Europe/Zurich"],
            ),
        ]
        | None
    ) = None
    every_seconds: (
        Annotated[
            int,
            Meta(
                ge=MIN_EVERY_SECONDS,
                le=MAX_EVERY_SECONDS,
                description="Seconds from one tick to the next; the first comes as long after the request.",
            ),
        ]
        | None
    ) = None
    paused: bool = False


class RedriveRequest(Struct, forbid_unknown_fields=True):
    """Which failed tasks are submitted again."""

    since: Annotated[
        int,
        # A time in seconds would lie in 1970, and mean all of them.
        Meta(ge=1_000_000_000_000, le=253_370_764_800_000, description="Those that failed at this time or later."),
    ]
    before: (
        Annotated[str, Meta(pattern="^[0-9a-f-]{1,64}$", description="The cursor from `next` of the previous answer.")]
        | None
    ) = None


class UserRedriveRequest(Struct, forbid_unknown_fields=True):
    """Which of the user's failed tasks are submitted again: all without `since`."""

    since: (
        Annotated[
            int,
            Meta(ge=1_000_000_000_000, le=253_370_764_800_000, description="Those that failed at this time or later."),
        ]
        | None
    ) = None
    before: (
        Annotated[str, Meta(pattern="^[0-9a-f-]{1,64}$", description="The cursor from `next` of the previous answer.")]
        | None
    ) = None


class BulkAnswer(Struct):
    user_id: str
    queued: Annotated[bool, Meta(description="At least one task waits.")]
    tasks: Sequence[SubmittedTask]


class ProgressAnswer(Struct):
    fraction: Annotated[float, Meta(ge=0, le=1)]
    text: str
    at: Annotated[int, Meta(description="When the function reported it, epoch milliseconds.")]


class AttemptAnswer(Struct):
    """An attempt of a task."""

    attempt: Annotated[int, Meta(description="1 for the first.")]
    started_at: int
    ended_at: Annotated[int | None, Meta(description="null while it runs.")]
    error: Annotated[str | None, Meta(description="Why it failed; at most 300 characters of earlier attempts.")]


class TaskAnswer(Struct):
    task_id: str
    user_id: str
    seq: Annotated[int, Meta(description="Its number among all tasks of the user, from 1; 0 while it is scheduled.")]
    task: Annotated[str, Meta(description="Name of its function.")]
    state: State
    position: Position
    planned_at: Annotated[int, Meta(description="The earliest start that the limits allowed when it was submitted.")]
    estimated_at: Annotated[
        int | None,
        Meta(description="Estimated start; null once it started, and in a lane that is paused without an end."),
    ]
    submitted_at: int
    started_at: Annotated[int | None, Meta(description="Newest start; null before the first.")]
    completed_at: Annotated[int | None, Meta(description="Null until it finishes.")]
    attempts: Annotated[int, Meta(description="Attempts so far.")]
    result: Annotated[Any, Meta(description="Its function's result; null until it succeeded.")]
    error: Annotated[str | None, Meta(description="The last attempt's error; null without one.")]
    run_at: Annotated[int | None, Meta(description="When the task is scheduled to be admitted; null if at once.")]
    callback_url: Annotated[str | None, Meta(description="Gets a POST of its outcome; null without one.")]
    units: Annotated[int, Meta(description="What each of its starts counts for in limits of units.")]
    used_units: Annotated[
        int | None, Meta(description="The units that its last attempt used, as its function reported; null if not.")
    ]
    cancel_requested_at: Annotated[
        int | None,
        Meta(description="When a client cancelled the task while it ran, so that it should stop; else null."),
    ]
    schedule: Annotated[str | None, Meta(description="Name of the schedule that submitted it; null for none.")]
    shared: Annotated[str | None, Meta(description="The shared limit that the task counts against; null for none.")]
    progress: Annotated[
        ProgressAnswer | None,
        Meta(description="The last report of the running attempt, or of the last one; null if it reported nothing."),
    ]
    payload: Annotated[
        Any, Meta(description="As it was submitted; null if it is larger than 16 KB, in a list larger than 1 KB.")
    ]
    payload_omitted: Annotated[bool, Meta(description="The payload is not shown: it is too large, or expired.")]
    attempt_history: Annotated[
        list[AttemptAnswer],
        Meta(description="Its newest attempts, oldest first, at most 11; without those whose worker died."),
    ]
    redriven_as: Annotated[str | None, Meta(description="Id of the task as which this failed one was submitted again.")]


class TaskListAnswer(Struct):
    tasks: list[TaskAnswer]
    next: Annotated[str | None, Meta(description="Cursor of the next page, for `before`; null on the last page.")]


class RedrivenTask(Struct):
    """A failed task that is submitted again."""

    user_id: str
    task_id: Annotated[str, Meta(description="Of the failed task.")]
    redriven_as: Annotated[str, Meta(description="Id of the new task.")]
    repeated: Annotated[bool, Meta(description="It was submitted by an earlier request.")]
    seq: int
    position: Position
    planned_at: int
    state: State


class StayingTask(Struct):
    """A failed task that could not be submitted again."""

    user_id: str
    task_id: str
    reason: str


class RedriveAnswer(Struct):
    tasks: Annotated[
        list[RedrivenTask], Meta(description="Submitted again, each once, in the order of their failures.")
    ]
    stays: Annotated[
        list[StayingTask],
        Meta(description="Failed tasks that stay, for a reason. Later ones of its user stay too, if it was refused."),
    ]
    next: Annotated[
        str | None, Meta(description="Cursor for `before` of the next request; null if no failed tasks follow.")
    ]


class LimitAnswer(Struct):
    name: str
    quota: Annotated[int, Meta(description="Starts or units in a window.")]
    counts: Literal["starts", "units"]
    window_seconds: int
    used: Annotated[
        int,
        Meta(description="Starts, or units of starts, that count now; over the quota if more was used than estimated."),
    ]
    remaining: Annotated[int, Meta(description="Starts or units left for a task submitted now.")]
    reset_seconds: Annotated[int, Meta(description="Seconds until `remaining` grows.")]


class WaitsForAnswer(Struct):
    """The shared limit whose turn a lane waits for."""

    name: str
    before: Annotated[int, Meta(description="Turns before the lane's, about: some of them may be lost.")]
    start_at: Annotated[
        int | None,
        Meta(description="About when its turn comes; null in a pause without an end, or if that depends on a task."),
    ]


class LaneAnswer(Struct):
    user_id: str
    limits: Annotated[str, Meta(description="As text, such as `1/second; 20/minute`.")]
    own_limits: Annotated[bool, Meta(description="True if the user has its own limits.")]
    policies: list[LimitAnswer]
    backlog: Annotated[int, Meta(description="Number of waiting tasks.")]
    running: Annotated[str | None, Meta(description="Id of a running task; null if none runs.")]
    at_once: Annotated[int, Meta(description="How many of the user's tasks may run at once.")]
    slots_in_use: Annotated[int, Meta(description="How many of them run, by their leases.")]
    next_start_at: Annotated[
        int | None, Meta(description="Estimated start of the lane's next attempt; null if no task waits.")
    ]
    next_starts: Annotated[
        list[int],
        Meta(description="Estimated starts of waiting tasks, soonest first: at most 60, within the next 75 seconds."),
    ]
    open_at: Annotated[int | None, Meta(description="Planned start of a task submitted now.")]
    paused: bool
    paused_until: Annotated[int | None, Meta(description="End of the pause; null if not paused, or until a resume.")]
    throttled_until: Annotated[
        int | None, Meta(description="End of the throttling: an API answered a task with 429 or 503.")
    ]
    throttled_reason: Annotated[str | None, Meta(description="Why it is throttled; null when it is not.")]
    starts: Annotated[list[int], Meta(description="Times of the newest starts, newest first.")]
    start_ahead_at: Annotated[
        int | None,
        Meta(
            description="A start in the future, recorded by a worker whose clock was ahead: no task of the lane starts "
            "before it. A resume corrects it. null without one."
        ),
    ]
    admitted: Annotated[int, Meta(description="Number of tasks ever admitted.")]
    started: Annotated[int, Meta(description="Number of starts ever claimed, retries included.")]
    now: Annotated[int, Meta(description="The server's time.")]
    waits_for: Annotated[
        WaitsForAnswer | None, Meta(description="The shared limit that the lane's next task waits for; null for none.")
    ]
    group: Annotated[
        str | None, Meta(description="The user's group, which takes turns at shared limits as one; null for no group.")
    ]


class ScheduleAnswer(Struct):
    user_id: str
    name: str
    task: str
    payload: Any
    units: Annotated[int | None, Meta(description="As requested; null for what the task's definition says.")]
    shared: Annotated[str | None, Meta(description="As requested; null for what the task's definition says.")]
    callback_url: str | None
    cron: str | None
    timezone: Annotated[str | None, Meta(description="The time zone of `cron`; null with `every_seconds`.")]
    every_seconds: int | None
    paused: bool
    next_at: Annotated[int | None, Meta(description="The next tick; null while it is paused.")]
    last_at: Annotated[int | None, Meta(description="The last tick that submitted a task or was refused.")]
    last_task_id: Annotated[str | None, Meta(description="The task that it submitted last.")]
    refused: Annotated[int, Meta(description="Number of ticks whose task was refused, such as by MAX_DELAY.")]
    refused_at: Annotated[int | None, Meta(description="The last tick that was refused.")]
    refused_reason: str | None
    created_at: int


class ScheduleListAnswer(Struct):
    schedules: Annotated[list[ScheduleAnswer], Meta(description="By name.")]
    next: Annotated[str | None, Meta(description="Cursor of the next page, for `before`; null on the last page.")]


class EmptiedAnswer(LaneAnswer):
    """The emptied lane."""

    cancelled: Annotated[int, Meta(description="Waiting tasks that this request cancelled, without scheduled ones.")]
    cancelled_scheduled: Annotated[
        int,
        Meta(
            description="Scheduled tasks that this request cancelled, counted up to 1,000. A scheduled task that was "
            "cancelled by itself is counted until its time."
        ),
    ]


class ForgottenAnswer(Struct):
    """A user without records, payloads, schedules and own limits."""

    user_id: str
    deleted: Annotated[int, Meta(description="Finished tasks that this request deleted.")]
    done: Annotated[bool, Meta(description="False if records are left: repeat the request.")]


class CompletionAnswer(Struct):
    """A finished task."""

    user_id: str
    task_id: str
    seq: int
    task: str
    state: State
    started_at: int | None
    completed_at: int
    late_ms: Annotated[
        int | None,
        Meta(description="Milliseconds from planned start to start; null if the task was replanned or retried."),
    ]
    error: str | None


class TotalsAnswer(Struct):
    """Sums over the lanes that the answer read: the page, or with `order=active` the first 500 by user id."""

    lanes: int
    complete: Annotated[bool, Meta(description="True if the sums cover all lanes of the search.")]
    waiting: int
    running: int
    paused: int
    starts_per_second: float
    late_ms: Annotated[
        int | None, Meta(description="Median and maximum over the completions of the last minute; null without any.")
    ]
    worst_late_ms: int | None


class LanesAnswer(Struct):
    lanes: Annotated[
        list[LaneAnswer], Meta(description="By user id, or with `order=active` the longest backlog first.")
    ]
    totals: TotalsAnswer
    completions: Annotated[
        list[CompletionAnswer],
        Meta(
            description="The 20 newest finished tasks, and up to 10 older failed ones, newest first, among the newest "
            "20 tasks of the 12 lanes that started a task last and the newest task of each other lane."
        ),
    ]
    next: Annotated[str | None, Meta(description="Cursor of the next page, for `before`; null on the last page.")]
    now: int


class TaskNamesAnswer(Struct):
    names: Annotated[list[str], Meta(description="In alphabetical order.")]


class HealthAnswer(Struct):
    status: Literal["ok", "unavailable"]
    dynamodb: Annotated[str, Meta(description="`ok`, or the error.")]
    sqs: Annotated[str, Meta(description="`ok`, or the error.")]


class Problem(Struct):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: Annotated[str, Meta(description="JSON pointer, header or parameter at fault.")] | UnsetType = UNSET


class QuotaProblem(Struct):
    """Over the limit. `queued` says whether the task is queued all the same."""

    type: str
    title: str
    status: Literal[429]
    detail: str
    violated_policies: Annotated[list[str], Meta(description="Names of the limits.")] = field(name="violated-policies")
    user_id: str
    queued: bool
    task_id: str | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    position: int | UnsetType = UNSET
    planned_at: int | UnsetType = UNSET
    delay_ms: int | UnsetType = UNSET
    state: State | UnsetType = UNSET
    shared: str | UnsetType = UNSET
    lower_bound: bool | UnsetType = UNSET
    estimated_at: int | UnsetType | None = UNSET
    tasks: Sequence[SubmittedTask] | UnsetType = UNSET
