"""Types of the HTTP bodies: they check requests, and the OpenAPI page is generated from them.

Times are epoch milliseconds; an optional time is null until it is known.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from chalicelib.core.users import USER_PATTERN
from chalicelib.submit.submission import MAX_TASKS, Position, State, SubmittedTask, TaskRequest

UserId = Annotated[str, Meta(pattern=USER_PATTERN, examples=["user123"], description="The user whose limits hold.")]
LimitsText = Annotated[str, Meta(min_length=1, max_length=500, examples=["5/second; 100/minute"])]


class SubmitRequest(TaskRequest, frozen=True, forbid_unknown_fields=True):
    """One task for one user."""

    user_id: UserId | UnsetType = UNSET


class BulkRequest(Struct, forbid_unknown_fields=True):
    """Several tasks for one user, in order, all or none."""

    tasks: Annotated[list[TaskRequest], Meta(min_length=1, max_length=MAX_TASKS)]
    user_id: UserId | UnsetType = UNSET


class LimitsRequest(Struct, forbid_unknown_fields=True):
    """A user's own limits."""

    limits: LimitsText


class PauseRequest(Struct, forbid_unknown_fields=True):
    """The end of the pause, epoch milliseconds; null for a pause without an end."""

    until: Annotated[int, Meta(ge=0, le=253_370_764_800_000)] | None = None


class BulkAnswer(Struct):
    user_id: str
    queued: Annotated[bool, Meta(description="At least one task waits.")]
    tasks: Sequence[SubmittedTask]


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
    run_at: Annotated[int | None, Meta(description="When the task joins its lane; null for at once.")]
    callback_url: str | None


class TaskListAnswer(Struct):
    tasks: list[TaskAnswer]
    next: Annotated[str | None, Meta(description="Give it as `before` for the next page; null on the last.")]


class LimitAnswer(Struct):
    name: str
    quota: int
    window_seconds: int
    remaining: Annotated[int, Meta(description="Starts left in the current window.")]
    reset_seconds: Annotated[int, Meta(description="Seconds until more starts are left.")]


class LaneAnswer(Struct):
    user_id: str
    limits: str
    own_limits: Annotated[bool, Meta(description="True if the user has limits of its own.")]
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
        int | None, Meta(description="An API answered a task with 429; the lane waits until then.")
    ]
    throttled_reason: str | None
    starts: Annotated[list[int], Meta(description="The newest starts, newest first.")]
    admitted: Annotated[int, Meta(description="All tasks ever admitted.")]
    started: Annotated[int, Meta(description="All starts ever taken, retries included.")]
    now: int


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
        Meta(
            description="Milliseconds from the planned start to the start; null after a changed plan, and for a retry."
        ),
    ]
    error: str | None


class TotalsAnswer(Struct):
    """Sums over the lanes found."""

    lanes: int
    complete: Annotated[bool, Meta(description="True if the sums cover all lanes found.")]
    waiting: int
    running: int
    paused: int
    starts_per_second: float
    late_ms: Annotated[int | None, Meta(description="Median of the newest completions; null without completions.")]
    worst_late_ms: Annotated[int | None, Meta(description="Maximum of the newest completions.")]


class LanesAnswer(Struct):
    lanes: Annotated[
        list[LaneAnswer], Meta(description="Lanes with a backlog or a running task first, then by user id.")
    ]
    totals: TotalsAnswer
    completions: Annotated[
        list[CompletionAnswer], Meta(description="Finished tasks among the lanes' newest, newest first.")
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
    """The limit is reached. `queued` is true if the task waits, false if it was refused."""

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
    tasks: Sequence[SubmittedTask] | UnsetType = UNSET
