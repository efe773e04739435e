"""The findings of an audit, as values; `completions.audit_table` prints them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from chalicelib.core.limits import Limit


@dataclass(frozen=True, slots=True)
class NumberAtOnce:
    """How many tasks of a shared limit may run at once."""

    quota: int

    def __str__(self) -> str:
        return f"{self.quota} at once"


@dataclass(frozen=True, slots=True)
class LimitRow:
    """The fullest window of one limit, over all users. Without starts under the limit there is none."""

    limit: Limit | NumberAtOnce
    #: Starts that were made under this limit.
    starts: int = 0
    #: The most starts in any one window of the limit, or units for a limit of units.
    most: int = 0
    #: Whose they were.
    user_id: str | None = None
    #: The first and the last start in that window, epoch ms.
    first_at: int | None = None
    last_at: int | None = None
    #: The shared limit that it is part of, whose starts are all users'; empty for a limit of each user.
    shared: str = ""


@dataclass(frozen=True, slots=True)
class AtOnce:
    """The most tasks of one user that ran at once."""

    most: int
    user_id: str
    #: When the last of them started, epoch ms.
    at: int


@dataclass(frozen=True, slots=True)
class Breach:
    """One broken promise."""

    #: `pace`, `shared`, `order`, `at once`, `ended`, `early` or `attempts`.
    kind: str
    user_id: str
    #: When it happened, epoch ms.
    at: int
    #: The breach, in words.
    what: str
    #: The shared limit that was broken; empty for a promise to one user.
    shared: str = ""


@dataclass(frozen=True, slots=True)
class Lateness:
    """How much later than legal the first attempts started, in ms, as the workers measured it."""

    p50_ms: int
    p99_ms: int
    max_ms: int


@dataclass(frozen=True)
class Report:
    """All that an audit found."""

    users: int
    #: Ends in the log by their word: `completed`, `failed`, `cancelled`.
    events: Mapping[str, int]
    #: Starts that the log tells of, those of earlier attempts included.
    starts: int
    limits: list[LimitRow]
    #: None when nothing started.
    lateness: Lateness | None
    breaches: list[Breach]
    #: None if no task has succeeded.
    at_once: AtOnce | None = None
    #: Attempts whose start no log line holds, since their worker died. The audit can't check them.
    unknown_starts: int = 0
    #: Starts that used no attempt, since an API throttled the task (`RetryAfter`).
    throttled_starts: int = 0
    #: Further lines of tasks that the log has an outcome of: a worker died between logging and storing it.
    repeated_ends: int = 0
    #: Seqs without a logged outcome: refused submits, or outcomes in a log that is gone.
    missing_ends: int = 0
    #: Starts under a shared limit that neither the log nor the settings know, by its name. The audit can't judge them.
    unknown_shared: Mapping[str, int] = field(default_factory=dict)
    #: Lines that were no completions, by reason.
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Nothing has ended yet, so there is nothing to judge."""
        return not sum(self.events.values())

    @property
    def clean(self) -> bool:
        """No promise was broken."""
        return not self.breaches
