"""What goes in and out over HTTP, as types: requests are checked against them, and the OpenAPI page is made of them.

Times are epoch milliseconds, an optional one is null until it is known.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from chalicelib.core.scheduled import MAX_AHEAD_MS
from chalicelib.core.users import USER_PATTERN
from chalicelib.outbound.destinations import MAX_URL
from chalicelib.submit.submitter import MAX_TASKS

UserId = Annotated[str, Meta(pattern=USER_PATTERN, examples=["user123"], description="Whoever a limit is for.")]
TaskName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$", examples=["log"], description="One of the deployment's tasks.")
]
Payload = Annotated[Any, Meta(description="Any JSON value; the task's function gets it.")]
LimitsText = Annotated[str, Meta(min_length=1, max_length=500, examples=["5/second; 100/minute"])]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


RunAt = Annotated[
    # More than seconds would be, by which it would have been long ago.
    int,
    Meta(
        ge=1_000_000_000_000,
        le=253_370_764_800_000,
        description="When it is to join its lane, epoch milliseconds, at most 13 days ahead; at once if that is past.",
    ),
]
DelaySeconds = Annotated[
    float, Meta(ge=0, le=MAX_AHEAD_MS // 1000, description="The same, so many seconds from now; not both.")
]
CallbackUrl = Annotated[
    str,
    Meta(
        min_length=8,
        max_length=MAX_URL,
        description="Gets a signed POST of the task's completion event; its host has to be among HTTP_ALLOWED_HOSTS.",
    ),
]


class TaskOrder(Struct, forbid_unknown_fields=True):
    """One task to be run."""

    task: TaskName = "log"
    payload: Payload = None
    run_at: RunAt | None = None
    delay_seconds: DelaySeconds | None = None
    callback_url: CallbackUrl | None = None


class SubmitRequest(Struct, forbid_unknown_fields=True):
    """One task for one user."""

    user_id: UserId | UnsetType = UNSET
    task: TaskName = "log"
    payload: Payload = None
    run_at: RunAt | None = None
    delay_seconds: DelaySeconds | None = None
    callback_url: CallbackUrl | None = None


class BulkRequest(Struct, forbid_unknown_fields=True):
    """Several tasks for one user, in order, all or none."""

    tasks: Annotated[list[TaskOrder], Meta(min_length=1, max_length=MAX_TASKS)]
    user_id: UserId | UnsetType = UNSET


class LimitsRequest(Struct, forbid_unknown_fields=True):
    """A user's own limits."""

    limits: LimitsText


class PauseRequest(Struct, forbid_unknown_fields=True):
    """Until when the lane is held, epoch milliseconds; null for no end."""

    until: Annotated[int, Meta(ge=0, le=253_370_764_800_000)] | None = None


Position = Annotated[
    int,
    Meta(
        description="0 when it may start now, has started, or waits for its time; else its number in line: 1 for the "
        "first task that may not start now."
    ),
]


class PlaceAnswer(Struct):
    """A task's place in its lane."""

    task_id: str
    user_id: str
    seq: Annotated[int, Meta(description="Its place in its lane; 0 while it waits for its time outside.")]
    position: Position
    planned_at: Annotated[int, Meta(description="The earliest start; the time to join its lane while it has no place.")]
    delay_ms: int
    queued: bool
    state: State


class BulkAnswer(Struct):
    user_id: str
    queued: Annotated[bool, Meta(description="Some of them wait.")]
    tasks: list[PlaceAnswer]


class TaskAnswer(Struct):
    task_id: str
    user_id: str
    seq: int
    task: str
    state: State
    position: Position
    planned_at: int
    estimated_at: int | None
    submitted_at: int
    started_at: int | None
    completed_at: int | None
    attempts: int
    result: Any
    error: str | None
    run_at: Annotated[int | None, Meta(description="When it was to join its lane; null when at once.")]
    callback_url: str | None


class TaskListAnswer(Struct):
    tasks: list[TaskAnswer]
    next: Annotated[str | None, Meta(description="Give it as `before` for the next page; null on the last.")]


class LimitAnswer(Struct):
    name: str
    quota: int
    window_seconds: int
    remaining: Annotated[int, Meta(description="What a submit could still use now.")]
    reset_seconds: Annotated[int, Meta(description="Seconds until there is more.")]


class LaneAnswer(Struct):
    user_id: str
    limits: str
    own_limits: Annotated[bool, Meta(description="The user has limits of its own.")]
    policies: list[LimitAnswer]
    backlog: Annotated[int, Meta(description="Tasks waiting.")]
    running: Annotated[str | None, Meta(description="The task that runs now.")]
    next_start_at: int | None
    next_starts: Annotated[
        list[int],
        Meta(description="When waiting tasks will start, soonest first: at most 60, those of the next 75 seconds."),
    ]
    open_at: Annotated[int | None, Meta(description="When a further submit would start at once.")]
    paused: bool
    paused_until: Annotated[int | None, Meta(description="Null when not paused, or paused without an end.")]
    throttled_until: Annotated[
        int | None, Meta(description="A task was told to slow down, so the lane waits until then.")
    ]
    throttled_reason: str | None
    starts: Annotated[list[int], Meta(description="The newest starts, newest first.")]
    admitted: Annotated[int, Meta(description="All tasks ever admitted.")]
    started: Annotated[int, Meta(description="All starts ever taken, retries included.")]
    now: int


class CompletionAnswer(Struct):
    """A task that ended."""

    user_id: str
    task_id: str
    seq: int
    task: str
    state: State
    started_at: int | None
    completed_at: int
    late_ms: Annotated[
        int | None,
        Meta(
            description="Milliseconds after its planned start; null when that was planned anew, or a retry started it."
        ),
    ]
    error: str | None


class TotalsAnswer(Struct):
    """What the lanes found add up to."""

    lanes: int
    complete: Annotated[bool, Meta(description="Whether all of them are in the sums.")]
    waiting: int
    running: int
    paused: int
    starts_per_second: float
    late_ms: Annotated[
        int | None, Meta(description="The middle and the worst of the newest completions; null when there are none.")
    ]
    worst_late_ms: int | None


class LanesAnswer(Struct):
    lanes: Annotated[list[LaneAnswer], Meta(description="Those that move first, and then by user id.")]
    totals: TotalsAnswer
    completions: Annotated[
        list[CompletionAnswer], Meta(description="Of the lanes' newest tasks those that ended, newest first.")
    ]
    next: Annotated[str | None, Meta(description="Give it as `before` for the next page; null on the last.")]
    now: int


class HealthAnswer(Struct):
    status: Literal["ok", "unavailable"]
    dynamodb: str
    sqs: str


class Problem(Struct):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    field: Annotated[str, Meta(description="A JSON pointer, a header or a parameter.")] | UnsetType = UNSET


class QuotaProblem(Struct):
    """The limit is reached. `queued` says whether the task waits all the same."""

    type: str
    title: str
    status: Literal[429]
    detail: str
    violated_policies: Annotated[list[str], Meta(description="Names of limits.")] = field(name="violated-policies")
    user_id: str
    queued: bool
    task_id: str | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    position: int | UnsetType = UNSET
    planned_at: int | UnsetType = UNSET
    delay_ms: int | UnsetType = UNSET
    state: State | UnsetType = UNSET
    tasks: list[PlaceAnswer] | UnsetType = UNSET
