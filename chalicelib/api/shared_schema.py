"""Types of requests and answers about shared limits. Times are epoch milliseconds."""

from typing import Annotated

from msgspec import Meta, Struct

from chalicelib.api.schema import LimitAnswer

#: As `parse_shared_limits` reads it, which also checks quota, unit and window.
_LIMIT = r"[0-9]{1,9}(?:\s*[Uu][Nn][Ii][Tt][Ss]?)?(?:\s*/\s*|\s+[Pp][Ee][Rr]\s+)(?:[0-9]{1,9}\s*)?[A-Za-z]+"
_PART = rf"(?:{_LIMIT}|[0-9]{{1,9}}\s*[Aa][Tt]\s+[Oo][Nn][Cc][Ee])"
SharedLimitsText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=500,
        description="Up to 5 limits, and a number of tasks at once: `25/second; 90000 units/minute; 10 at once`.",
        examples=["25/second; 10 at once"],
        # Described, and left to `parse_shared_limits` to check: its errors say what is wrong.
        extra_json_schema={"pattern": rf"^[\s;,]*{_PART}(?:\s*[;,\n][\s;,]*{_PART}){{0,5}}[\s;,]*$"},
    ),
]


class SharedLimitsRequest(Struct, forbid_unknown_fields=True):
    """The limits of a shared limit, from now on."""

    limits: SharedLimitsText


class WaiterAnswer(Struct):
    """A lane that waits for a shared limit, as far as it said so: those that wait for seconds do."""

    user_id: str
    task_id: str
    turn: Annotated[int, Meta(description="Lower turns start first.")]


class SharedLimitAnswer(Struct):
    name: str
    limits: Annotated[str, Meta(description="In force; empty if the shared limit was deleted.")]
    setting: Annotated[str | None, Meta(description="As SHARED_LIMITS has it; null if it does not.")]
    policies: list[LimitAnswer]
    at_once: Annotated[int | None, Meta(description="How many tasks may run at once; null for any number.")]
    running: Annotated[int, Meta(description="Tasks that run; counted only with a number at once.")]
    waiting: Annotated[int, Meta(description="Lanes that wait for their turn, about.")]
    waiters: Annotated[
        list[WaiterAnswer],
        Meta(description="Up to 20 of them, in order of turns."),
    ]
    next_start_at: Annotated[
        int | None,
        Meta(description="When it allows the next start; null if it is paused without an end, or full at once."),
    ]
    paused: bool
    paused_until: Annotated[int | None, Meta(description="End of the pause; null if not paused, or until a resume.")]
    throttled_until: Annotated[
        int | None, Meta(description="End of the throttling: an API answered a task with 429 or 503.")
    ]
    throttled_reason: str | None
    starts: Annotated[list[int], Meta(description="Times of the newest starts, newest first.")]
    started: Annotated[int, Meta(description="Number of starts ever taken.")]
    now: int


class SharedLimitListAnswer(Struct):
    limits: Annotated[list[SharedLimitAnswer], Meta(description="By name.")]
    now: int
