"""What goes in and out over HTTP, as types: requests are checked against them, and the OpenAPI page is made of them.

Times are epoch milliseconds, an optional one is null until it is known.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from chalicelib.submit import MOST_TASKS
from chalicelib.users import USER_PATTERN

UserId = Annotated[str, Meta(pattern=USER_PATTERN, examples=["user123"], description="Whoever a limit is for.")]
TaskName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$", examples=["log"], description="One of the deployment's tasks.")
]
Payload = Annotated[Any, Meta(description="Any JSON value; the task's function gets it.")]
LimitsText = Annotated[str, Meta(min_length=1, max_length=500, examples=["5/second; 100/minute"])]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class TaskOrder(Struct, forbid_unknown_fields=True):
    """One task to be run."""

    task: TaskName = "log"
    payload: Payload = None


class SubmitRequest(Struct, forbid_unknown_fields=True):
    """One task for one user."""

    user_id: UserId | UnsetType = UNSET
    task: TaskName = "log"
    payload: Payload = None


class BulkRequest(Struct, forbid_unknown_fields=True):
    """Several tasks for one user, in order, all or none."""

    tasks: Annotated[list[TaskOrder], Meta(min_length=1, max_length=MOST_TASKS)]
    user_id: UserId | UnsetType = UNSET


class LimitsRequest(Struct, forbid_unknown_fields=True):
    """A user's own limits."""

    limits: LimitsText


class PauseRequest(Struct, forbid_unknown_fields=True):
    """Until when the lane is held, epoch milliseconds; null for no end."""

    until: Annotated[int, Meta(ge=0, le=253_370_764_800_000)] | None = None


class PlaceAnswer(Struct):
    """A task's place in its lane."""

    task_id: str
    user_id: str
    seq: int
    #: tasks ahead, 0 when it may start now
    position: int
    planned_at: int
    delay_ms: int
    queued: bool
    state: State


class BulkAnswer(Struct):
    user_id: str
    #: some of them wait
    queued: bool
    tasks: list[PlaceAnswer]


class TaskAnswer(Struct):
    task_id: str
    user_id: str
    seq: int
    task: str
    state: State
    position: int
    planned_at: int
    estimated_at: int | None
    submitted_at: int
    started_at: int | None
    completed_at: int | None
    attempts: int
    result: Any
    error: str | None


class TaskListAnswer(Struct):
    tasks: list[TaskAnswer]
    #: give it as `before` for the next page; null on the last
    next: str | None


class LimitAnswer(Struct):
    name: str
    quota: int
    window_seconds: int
    #: what a submit could still use now
    remaining: int
    #: seconds until there is more
    reset_seconds: int


class LaneAnswer(Struct):
    user_id: str
    limits: str
    #: the user has limits of its own
    own_limits: bool
    policies: list[LimitAnswer]
    #: tasks waiting
    backlog: int
    #: the task that runs now
    running: str | None
    next_start_at: int | None
    #: when waiting tasks will start, soonest first: at most 60, those of the next 75 seconds
    next_starts: list[int]
    #: when a further submit would start at once
    open_at: int | None
    paused: bool
    #: null when not paused, or paused without an end
    paused_until: int | None
    #: a task was told to slow down, so the lane waits until then
    held_until: int | None
    held_reason: str | None
    #: the newest starts, newest first
    starts: list[int]
    #: all tasks ever admitted
    admitted: int
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
    #: milliseconds after its planned start; null when that was planned anew, or a retry started it
    late_ms: int | None
    error: str | None


class TotalsAnswer(Struct):
    """What the lanes found add up to."""

    lanes: int
    #: whether all of them are in the sums
    complete: bool
    waiting: int
    running: int
    paused: int
    starts_per_second: float
    #: the middle and the worst of the newest completions; null when there are none
    late_ms: int | None
    worst_late_ms: int | None


class LanesAnswer(Struct):
    #: those that move first, and then by user id
    lanes: list[LaneAnswer]
    totals: TotalsAnswer
    #: of the lanes' newest tasks those that ended, newest first
    completions: list[CompletionAnswer]
    #: give it as `before` for the next page; null on the last
    next: str | None
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
    #: a JSON pointer, a header or a parameter
    field: str | UnsetType = UNSET


class QuotaProblem(Struct):
    """The limit is reached. `queued` says whether the task waits all the same."""

    type: str
    title: str
    status: Literal[429]
    detail: str
    violated_policies: Annotated[list[str], Meta(description="names of limits")] = field(name="violated-policies")
    user_id: str
    queued: bool
    task_id: str | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    position: int | UnsetType = UNSET
    planned_at: int | UnsetType = UNSET
    delay_ms: int | UnsetType = UNSET
    state: State | UnsetType = UNSET
    tasks: list[PlaceAnswer] | UnsetType = UNSET
