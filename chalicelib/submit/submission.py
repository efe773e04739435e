"""A submit's values: one request struct, checked when it is read, and the results, as they go out over HTTP."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from chalicelib.core.estimates import busy_ms, position_of
from chalicelib.core.lane import FOREVER_MS, Lane
from chalicelib.core.limits import MAX_QUOTA, Limits, at_once
from chalicelib.core.names import NAME_PATTERN
from chalicelib.core.scheduled import MAX_AHEAD_MS
from chalicelib.core.shared_estimates import Expected, SharedState
from chalicelib.core.task import DEFAULT_TASK, Task
from chalicelib.outbound.destinations import MAX_URL_LENGTH
from chalicelib.settings import OverLimit

#: Tasks of one bulk submit.
MAX_TASKS = 100

TaskName = Annotated[
    str,
    Meta(
        max_length=64,
        examples=["log"],
        description="One of the deployment's tasks.",
        # Only described: the error for an unknown name lists the tasks, which helps more than a pattern.
        extra_json_schema={"pattern": r"^[A-Za-z0-9._-]{1,64}$"},
    ),
]
Payload = Annotated[Any, Meta(description="Any JSON value; the task's function gets it.")]
RunAt = Annotated[
    # The lower bound refuses a time in seconds, which as milliseconds would lie in 1970 and start the task at once.
    int,
    Meta(
        ge=1_000_000_000_000,
        le=253_370_764_800_000,
        description="When the task joins its lane, epoch milliseconds, at most 13 days ahead; at once if that is past.",
    ),
]
DelaySeconds = Annotated[
    float,
    Meta(ge=0, le=MAX_AHEAD_MS // 1000, description="Seconds from now until the task joins its lane; not with run_at."),
]
CallbackUrl = Annotated[
    str,
    Meta(
        min_length=8,
        max_length=MAX_URL_LENGTH,
        description="Gets a signed POST of the task's completion event; its host has to be among HTTP_ALLOWED_HOSTS.",
    ),
]
Units = Annotated[
    int,
    Meta(
        ge=1,
        le=MAX_QUOTA,
        description="What the task counts for in limits of units; by default as its definition says, else 1. "
        "422 if a limit of the user has a lower quota.",
    ),
]
SharedName = Annotated[
    str,
    Meta(
        max_length=64,
        examples=["stripe"],
        description="The shared limit that the task counts against; by default as its definition says, for the task "
        "`http` by the host of its URL. Another one needs the scope `admin`.",
        # Only described: the error for an unknown name lists the shared limits.
        extra_json_schema={"pattern": NAME_PATTERN},
    ),
]
Position = Annotated[
    int,
    Meta(
        description="0: the limits allow the task's start now, or it has started, or it is scheduled. "
        "Otherwise 1 + the tasks ahead of it, a running one and one between two attempts included. "
        "For a task with a shared limit a lower bound."
    ),
]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class TaskRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """One task to be run."""

    task: TaskName = DEFAULT_TASK
    payload: Payload = None
    run_at: RunAt | None = None
    delay_seconds: DelaySeconds | None = None
    callback_url: CallbackUrl | None = None
    units: Units | None = None
    shared: SharedName | None = None

    @property
    def delay_ms(self) -> int | None:
        return None if self.delay_seconds is None else round(self.delay_seconds * 1000)

    def due_at(self, now_ms: int) -> int | None:
        """The time at which the task joins its lane, epoch ms; None when it joins at once."""
        at = now_ms + self.delay_ms if self.delay_ms is not None else self.run_at
        return at if at is not None and at > now_ms else None


class Submission(Struct, frozen=True):
    """One request to submit tasks of one user, checked."""

    user_id: str
    tasks: Sequence[TaskRequest]
    #: epoch ms of its arrival: the one time that admission and answer are computed from
    now_ms: int
    over_limit: OverLimit = OverLimit.QUEUE
    #: None without an Idempotency-Key
    key: str | None = None
    #: it came to the bulk route, which answers in another form
    is_bulk: bool = False
    #: where the client sees the API, such as `/prod`; locations in the answer begin with it
    base_path: str = ""
    #: `over_limit` is the request's own preference, not the deployment's setting
    is_preferred: bool = False
    #: one number for each task, which limits of units count; empty: as each task requests, else 1
    units: Sequence[int] = ()
    #: the shared limit of each task, empty for none; empty: as each task requests
    shared: Sequence[str] = ()
    #: by which the trace of the request goes on; empty for none
    traceparent: str = ""
    #: name of the schedule whose tick submits it; empty for none
    schedule: str = ""

    def units_of(self, index: int) -> int:
        return self.units[index] if self.units else self.tasks[index].units or 1

    def shared_of(self, index: int) -> str:
        return self.shared[index] if self.shared else self.tasks[index].shared or ""

    @property
    def has_shared(self) -> bool:
        return any(self.shared) or any(task.shared for task in self.tasks)

    @property
    def most_units(self) -> int:
        return max(map(self.units_of, range(len(self.tasks))))


class SubmittedTask(Struct, frozen=True):
    """A task that is queued or scheduled. Times are epoch milliseconds."""

    task_id: str
    user_id: str
    seq: Annotated[int, Meta(description="Its number in its lane; 0 while it is scheduled.")]
    position: Position
    planned_at: Annotated[int, Meta(description="The earliest start; while scheduled, the time to join the lane.")]
    delay_ms: Annotated[
        int,
        Meta(description="Milliseconds until the expected start: the planned start, or the end of the tasks ahead."),
    ]
    queued: Annotated[bool, Meta(description="It waits, for its limits or for its time.")]
    state: State
    shared: Annotated[str | UnsetType, Meta(description="The shared limit that it counts against.")] = UNSET
    lower_bound: Annotated[
        bool | UnsetType,
        Meta(
            description="`position` and `delay_ms` are lower bounds, since tasks of other users take turns with it at "
            "its shared limit. Absent without one, and while the task is scheduled."
        ),
    ] = UNSET
    estimated_at: Annotated[
        int | UnsetType | None,
        Meta(
            description="With `lower_bound`: about when it starts, if those that wait at the shared limit now go "
            "first; null while that is paused without an end."
        ),
    ] = UNSET

    @classmethod
    def of(
        cls, task: Task, lane: Lane, limits: Limits, now_ms: int, expected: Expected | None = None
    ) -> "SubmittedTask":
        """lane: as the admission left it. expected: what its shared limit says; None for a task without one."""
        position = position_of(lane, limits, task.seq, task.planned_at, now_ms) if task.seq else 0
        wait_ms = busy_ms(lane, limits, task.seq, now_ms) if task.seq else 0
        submitted = cls(
            task_id=task.task_id,
            user_id=task.user_id,
            seq=task.seq,
            position=position,
            planned_at=task.planned_at,
            delay_ms=max(wait_ms, task.planned_at - now_ms, 0),
            queued=position > 0 or not task.seq,
            state="queued",
            shared=task.shared or UNSET,
        )
        return submitted if expected is None else submitted._behind(expected, now_ms)

    def _behind(self, expected: Expected, now_ms: int) -> "SubmittedTask":
        """The task with the wait that its shared limit adds."""
        position = 0 if self.position == 0 and expected.is_now(now_ms) else max(1, self.position) + expected.before
        delay_ms = max(self.delay_ms, expected.earliest_at - now_ms)
        about_at = None if expected.estimated_at is None else max(now_ms + delay_ms, expected.estimated_at)
        later = {"position": position, "delay_ms": delay_ms, "queued": position > 0}
        return replace(self, **later, lower_bound=True, estimated_at=about_at)


class SharedUse(Struct, frozen=True):
    """A shared limit as a submit read it, and the starts and units that the submit's tasks want of it."""

    state: SharedState
    starts: int
    units: int


class Submitted(Struct, frozen=True):
    """The result of a submit that queued or scheduled its tasks, all of them, in order."""

    tasks: tuple[SubmittedTask, ...]
    #: right after the admission
    lane: Lane
    #: in force for the lane
    limits: Limits
    now_ms: int
    #: those of its tasks that do not wait for their time
    shared: tuple[SharedUse, ...] = ()

    @property
    def queued(self) -> bool:
        return any(task.queued for task in self.tasks)

    @property
    def is_over_limit(self) -> bool:
        return any(task.position for task in self.tasks)

    @property
    def is_paused(self) -> bool:
        return self.lane.is_paused(self.now_ms)

    @property
    def is_pause_endless(self) -> bool:
        return self.lane.paused_until == FOREVER_MS

    @property
    def ready_at(self) -> int:
        """From when on another task may start, as far as the tasks of the lane say, epoch ms."""
        return self.now_ms + busy_ms(self.lane, self.limits, self.lane.admitted + 1, self.now_ms)

    @property
    def last_admitted(self) -> SubmittedTask | None:
        """None when all tasks are scheduled."""
        return next((task for task in reversed(self.tasks) if task.seq), None)


class Refused(Struct, frozen=True):
    """The result of a submit that queued nothing."""

    user_id: str
    reason: str
    #: epoch ms from which on the same submit would be accepted
    retry_at: int
    now_ms: int
    limits: Limits
    lane: Lane
    #: the tasks that were not admitted on account of the lane's limits, and the units of all of them; 0: other reasons
    starts: int = 0
    units: int = 0
    #: the lane's planned starts, and so its pause or throttling if it has one, kept the tasks from being admitted
    is_planned_late: bool = False
    #: the index of a task whose units are more than a limit ever allows, so that no time would help
    too_large: int | None = None
    #: an earlier try of the same request got no answer, and may have queued the tasks
    is_unsure: bool = False
    #: the shared limits that kept the tasks from being queued, with what they want of them
    shared: tuple[SharedUse, ...] = ()
    #: the index of a task that names a shared limit that does not exist
    unknown_shared: int | None = None


def stop_of(lane: Lane, now_ms: int) -> str:
    """What stops the lane, as a sentence; empty if nothing does."""
    if lane.is_paused(now_ms):
        return "Lane paused."
    return "Lane throttled." if lane.is_throttled(now_ms) else ""


def reason_to_wait(lane: Lane, limits: Limits, planned_at: int, now_ms: int) -> str:
    """Why a new task with that planned start waits, as half a sentence."""
    if ahead := task_ahead(lane, limits, now_ms):
        return ahead
    if lane.is_paused(now_ms):
        return "The lane is paused"
    if lane.throttled_until > now_ms:
        return "The lane is throttled"
    return "The limit is reached" if planned_at > now_ms else "Other tasks of this user wait"


def task_ahead(lane: Lane, limits: Limits, now_ms: int) -> str:
    """Why a new task waits although its limits may allow its start, as half a sentence; empty if none is known."""
    if lane.retrying:
        return "A task of this user waits for its next attempt"
    if busy_ms(lane, limits, lane.started_seq + 1, now_ms):
        if (most := at_once(limits)) > 1:
            return f"{most} tasks of this user are running, as many as may run at once"
        return "A task of this user is running"
    return ""
