"""Judges a shared limit over all users: its windows, the tasks that ran at once, turns, and the tasks left in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chalicelib.core.limits import Limits, most_at_once
from completions.reader import Completion
from completions.shared_audit import audit_shared
from tests.chaos.judge import most_at_one_time
from tests.chaos.load import Acknowledged, Ledger
from tests.chaos.runs import Runs
from tests.windows import most_in_any_window

#: Milliseconds after the last fault from which on no lane waits for what a fault did: leases of dead workers have
#: ended, and messages that they had received are back.
QUIET_MS = 12_000
#: Starts that another user may have while a lane waits for its turn. A lane whose message is late is passed over.
MOST_PASSED = 8
#: Milliseconds after which a lane that waits has looked again, although a fault cost it what was to wake it.
LONGEST_WAIT_MS = 75_000


@dataclass(frozen=True)
class SharedVerdict:
    starts: int
    #: windows of all users' starts that hold more than the shared limit allows
    over: list[str]
    #: by the functions' own reports
    most_at_once: int
    too_many: list[str]
    #: starts of another user while a lane waited for its turn, long after the last fault
    waits: int
    most_passed: int
    passed_over: list[str]
    #: lanes that waited for too long although others started, counted from then on too
    starved: list[str]
    starts_by_user: dict[str, int]
    #: tasks that the shared limit still takes for running when all are final
    left: int

    @property
    def breaches(self) -> dict[str, list[str]]:
        kinds = {
            "over the shared limit": self.over,
            "too many at once under the shared limit": self.too_many,
            "passed over": self.passed_over,
            "starved": self.starved,
            "left in the shared limit": [f"{self.left} tasks"] if self.left else [],
        }
        return {kind: found for kind, found in kinds.items() if found}


def judge_shared(
    name: str,
    limits: Limits,
    own_limits: Limits,
    ledger: Ledger,
    ends: Sequence[Completion],
    runs: Runs,
    skew_ms: int,
    quiet_at: float,
    left: int,
) -> SharedVerdict:
    """own_limits: of each user, who runs one task at a time. quiet_at: from when on turns are judged, epoch ms."""
    starts = sorted(at for _, at in {(end.task_id, at) for end in ends for at in end.starts})
    fullest = [(limit, most_in_any_window(starts, limit.window_ms)) for limit in limits]
    over = [f"{limit}: {most} starts" for limit, most in fullest if most > limit.quota]
    # By true times below: the audit allows for clocks that differ by less.
    over += [f"audit: {breach.what}" for breach in audit_shared(ends, {name: tuple(limits)}).breaches]
    most, allowed = most_at_one_time(runs.by_task, ends, skew_ms), most_at_once(limits)
    waits = list(_waits(ledger, own_limits, ends, runs, quiet_at))
    passed = [wait for wait in waits if wait.since > quiet_at]
    begun = Counter({user: len(times) for user, times in _begun_by_user(ledger, runs).items()})
    return SharedVerdict(
        starts=len(starts),
        over=over,
        most_at_once=most,
        too_many=[f"{most} ran at once"] if allowed is not None and most > allowed else [],
        waits=len(passed),
        most_passed=max((wait.passed for wait in passed), default=0),
        passed_over=[str(wait) for wait in passed if wait.passed > MOST_PASSED],
        starved=[str(wait) for wait in waits if wait.passed and wait.until - wait.since > LONGEST_WAIT_MS],
        starts_by_user=dict(sorted(begun.items())),
        left=left,
    )


@dataclass(frozen=True)
class Wait:
    """A lane's next task waited for nothing but the shared limit, from the first to the second time by our clock."""

    user: str
    since: float
    until: float
    #: the user who started most often meanwhile, and how often
    other: str
    passed: int

    def __str__(self) -> str:
        return f"{self.user} waited for {self.until - self.since:.0f} ms; {self.other} started {self.passed} times"


def _waits(
    ledger: Ledger, own_limits: Limits, ends: Sequence[Completion], runs: Runs, quiet_at: float
) -> Iterator[Wait]:
    """The waits that ended after quiet_at, from then on."""
    by_user = _begun_by_user(ledger, runs)
    for user, ready_at, until in _ready_and_begun(ledger, own_limits, ends, runs):
        if until < quiet_at:
            continue
        since = max(ready_at, quiet_at)
        others = Counter({other: sum(since < at < until for at in begun) for other, begun in by_user.items()})
        del others[user]
        yield Wait(user, since, until, *(others.most_common(1) or [("", 0)])[0])


def _begun_by_user(ledger: Ledger, runs: Runs) -> Mapping[str, list[int]]:
    begun: defaultdict[str, list[int]] = defaultdict(list)
    for task_id, of_task in runs.by_task.items():
        if task := ledger.tasks.get(task_id):
            begun[task.user_id] += [run.begun_at for run in of_task]
    return {user: sorted(times) for user, times in begun.items()}


def _ready_and_begun(
    ledger: Ledger, own_limits: Limits, ends: Sequence[Completion], runs: Runs
) -> Iterator[tuple[str, float, float]]:
    """From when on each task lacked only the shared limit, with its user, and when it began."""
    over_at = {end.task_id: end.completed_at for end in ends}
    by_user: defaultdict[str, list[Acknowledged]] = defaultdict(list)
    for task in ledger.tasks.values():
        by_user[task.user_id].append(task)
    for user, tasks in by_user.items():
        before, free_at = list[int](), 0.0
        for task in sorted(tasks, key=lambda task: task.seq):
            begun = [run.begun_at for run in runs.by_task.get(task.task_id, ())]
            if begun:
                yield user, max(task.answered_at, free_at, _allowed_at(before, own_limits)), begun[0]
            before = sorted(before + begun)
            free_at = max(free_at, over_at.get(task.task_id, 0), *begun, 0)


def _allowed_at(begun: Sequence[int], limits: Limits) -> float:
    """When the user's own limits allow a start after these, in order."""
    return max((begun[-limit.quota] + limit.window_ms for limit in limits if len(begun) >= limit.quota), default=0)
