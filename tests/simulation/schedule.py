"""The plan of one simulated world: clients' actions and machines' faults, drawn from a seed, and shrunk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from typing import TypeAlias


@dataclass(frozen=True)
class Behaviour:
    """The behaviour of a task's function."""

    runs_ms: int = 5
    #: attempts that raise before one succeeds
    fails: int = 0
    #: attempts that kill their process
    kills: int = 0
    #: the result is not valid JSON
    is_bad: bool = False
    #: attempts that are throttled first, and ms of each throttling
    holds: int = 0
    holds_ms: int = 2_000
    units: int = 1
    #: the units that each attempt reports; None reports none
    uses: int | None = None
    #: it looks twice a second whether it was cancelled, and then stops
    stops: bool = False
    #: the shared limit that it counts against
    shared: str = ""
    #: what throttles it throttles all tasks of its shared limit
    holds_all: bool = False


@dataclass(frozen=True)
class Submit:
    """One task, or a bulk; the same tag and key again is a repeat of the request."""

    at: int
    user: str
    tag: str
    behaviours: tuple[Behaviour, ...]
    key: str | None = None
    is_strict: bool = False
    #: ms from now at which it is scheduled
    delay_ms: int | None = None
    #: ms from the beginning for which it is scheduled
    due_at: int | None = None
    #: has a callback URL
    is_told: bool = False


@dataclass(frozen=True)
class Cancel:
    at: int
    user: str
    #: index among the user's acknowledged tasks, newest first
    nth_newest: int


@dataclass(frozen=True)
class SetLimits:
    at: int
    user: str
    limits: str | None


@dataclass(frozen=True)
class Pause:
    at: int
    user: str
    #: milliseconds; None pauses until a resume
    lasts_ms: int | None


@dataclass(frozen=True)
class Resume:
    at: int
    user: str


@dataclass(frozen=True)
class StepClock:
    at: int
    machine: int
    offset_ms: int


@dataclass(frozen=True)
class Kill:
    """Kills a worker machine at any point."""

    at: int
    machine: int


@dataclass(frozen=True)
class Poison:
    """A malformed message in the user's lane."""

    at: int
    user: str


@dataclass(frozen=True)
class ForgetLane:
    """Deletes the lane's item, as TTL does, if it is idle for longer than any window."""

    at: int
    user: str


@dataclass(frozen=True)
class LoseMessages:
    """Deletes all messages of the lane, as a purge does, or SQS after 14 days."""

    at: int
    user: str


@dataclass(frozen=True)
class Empty:
    """Cancels all that waits or is scheduled."""

    at: int
    user: str


@dataclass(frozen=True)
class ForgetUser:
    """Deletes all of a user but its seqs and starts; refused while it has work."""

    at: int
    user: str


@dataclass(frozen=True)
class ChangeShared:
    """Sets the limits of the shared limit at run time ("": those of the setting), pauses it or resumes it."""

    at: int
    name: str
    limits: str | None = None
    #: milliseconds
    pauses_ms: int | None = None


@dataclass(frozen=True)
class SetGroup:
    """Puts the user into a group that takes turns at shared limits as one; "" for none."""

    at: int
    user: str
    group: str


Action: TypeAlias = (
    ChangeShared
    | SetGroup
    | Submit
    | Cancel
    | Empty
    | ForgetUser
    | SetLimits
    | Pause
    | Resume
    | StepClock
    | Kill
    | Poison
    | ForgetLane
    | LoseMessages
)


class Wrong(Enum):
    """Faults of one call."""

    REFUSED = "refused"
    #: the call took effect, the answer was lost and the caller timed out
    LOST = "answer lost"
    #: the call took effect, the answer was lost and the driver repeated the call
    REPEATED = "repeated"
    DIED_BEFORE = "died before"
    DIED_AFTER = "died after"
    SLOW_BEFORE = "slow before"
    SLOW_AFTER = "slow after"


@dataclass(frozen=True)
class Fault:
    """The nth call with that name fails."""

    call: str
    nth: int
    wrong: Wrong
    #: for slow and lost ones, and between repeats
    milliseconds: int = 0


@dataclass(frozen=True)
class Outage:
    """Calls whose names have this prefix are refused for a while."""

    at: int
    lasts_ms: int
    calls: str
    #: for this worker only; None applies to all
    worker: int | None = None
    #: SQS delivers no message either
    is_total: bool = False

    def strikes(self, call: str, machine: str, since: int) -> bool:
        here = self.worker is None or machine == f"w{self.worker}"
        return here and call.startswith(self.calls) and self.at <= since < self.ends_at

    @property
    def ends_at(self) -> int:
        return self.at + self.lasts_ms


@dataclass(frozen=True)
class Plan:
    seed: int
    limits: str
    #: as on Lambda: one message a process, killed after 60 s. Else as on one machine: several, kept hidden
    is_lambda: bool
    workers: int
    #: clock error of each machine in ms, the API's first
    offsets: tuple[int, ...]
    actions: tuple[Action, ...]
    faults: tuple[Fault, ...] = ()
    outages: tuple[Outage, ...] = ()
    max_attempts: int = 3
    #: each worker has a machine of its own, so no worker sees whether another lives
    is_apart: bool = False
    #: scheduled messages are delivered in any order
    is_any_order: bool = False
    #: SHARED_LIMITS
    shared: str = ""
    #: the same for every second machine, of which no window allows more: those that a deployment has not reached yet
    earlier_shared: str = ""
    #: starts a second of one shard of it; 0: as it is built
    starts_each: int = 0
    #: invocations are throttled until then, ms: the messages are received, and hidden for ever less when they begin
    throttled_until: int = 0

    @property
    def size(self) -> int:
        tasks = sum(len(action.behaviours) for action in self.actions if isinstance(action, Submit))
        return len(self.actions) + len(self.faults) + len(self.outages) + tasks

    @property
    def is_calm(self) -> bool:
        """No fault occurs in it."""
        kills = any(isinstance(action, Kill | StepClock | ForgetLane | LoseMessages) for action in self.actions)
        return not (self.faults or self.outages or kills or any(self.offsets))

    @property
    def is_prompt(self) -> bool:
        """Calm, and no task kills its worker or exceeds its deadline."""
        submits = [action for action in self.actions if isinstance(action, Submit)]
        behaviours = [behaviour for submit in submits for behaviour in submit.behaviours]
        return self.is_calm and not any(one.kills or one.runs_ms > 30_000 for one in behaviours)


#: Calls that can fail, with the weight of each.
CALLS = {
    "lanes.get": 2,
    "lanes.try_fast_admit": 2,
    "lanes.admit": 2,
    "lanes.try_fast_claim": 5,
    "lanes.claim": 5,
    "lanes.change": 5,
    "lanes.save_head_receipt": 3,
    "lanes.renew_lease": 3,
    "lanes.release_lease": 1,
    "lanes.throttle": 2,
    "tasks.create_if_absent": 4,
    "tasks.create_many": 2,
    "tasks.get": 3,
    "tasks.between": 2,
    "tasks.finish": 6,
    "tasks.attempt_failed": 3,
    "queue.send": 6,
    "queue.send_many": 3,
    "queue.defer": 3,
    "queue.send_dead": 3,
    "source.delete": 4,
    "source.keep": 2,
    "log.write": 5,
    "requests.begin": 3,
    "requests.finish": 4,
    "requests.abandon": 2,
    "requests.forget": 1,
    "function": 5,
    "scheduled_queue.send": 3,
    "scheduled_queue.defer": 1,
    "tasks.mark_admitted": 2,
    "tasks.cancel_scheduled": 2,
    "teller.tell": 2,
}
LIMITS = ("1/second; 20/minute", "2/second; 4/10 seconds", "1/second; 3/10 seconds", "5/second", "2/3 seconds")
OUTAGES = (
    "lanes.",
    "tasks.",
    "queue.",
    "log.",
    "lanes.renew_lease",
    "tasks.finish",
    "source.",
    "source.",
    "source.keep",
    "",
)


def draw(seed: int) -> Plan:
    """Returns the plan of that seed."""
    random = Random(seed)
    users = ["ann", "bob", "cy"][: random.choice((1, 1, 1, 2, 3))]
    is_close = random.random() < 0.2
    is_lambda = random.random() < 0.6
    workers = random.randint(1, 3)
    is_skewed = random.random() < (0.2 if is_close else 0.5)
    offsets = tuple(random.randint(-250, 250) if is_skewed else 0 for _ in range(2 + workers))
    is_apart = not is_lambda and random.random() < 0.4
    drawn = _close_actions(random, users) if is_close else _actions(random, users, workers, is_skewed, is_lambda)
    actions = sorted(drawn, key=lambda action: action.at)
    faulty = random.random() < (0.3 if is_close else 0.8)
    faults = tuple(_fault(random) for _ in range(random.choice((1, 1, 2, 3, 5)))) if faulty else ()
    outages = tuple(_outage(random, workers) for _ in range(random.choice((0, 0, 0, 1, 2)))) if faulty else ()
    if not is_close and random.random() < 0.1:
        workers, offsets, is_lambda, is_apart = 2, (0,) * 4, False, random.random() < 0.5
        actions, outages = list(_long_actions(random, users)), (_separation(random),)
    return Plan(
        seed, random.choice(LIMITS), is_lambda, workers, offsets, tuple(actions), faults, outages,
        random.choice((1, 2, 3)), is_apart,
    )  # fmt: skip


#: Calls that can fail around the admission of scheduled tasks.
DUE_CALLS = (
    "due_tasks.add",
    "due_tasks.due",
    "due_tasks.remove",
    "due_tasks.try_begin_admitting",
    "due_tasks.end_admitting",
    "scheduled_counts.add",
    "scheduled_queue.send",
    "scheduled_queue.defer",
    "scheduled_queue.delete",
    "tasks.get",
    "tasks.mark_admitted",
    "tasks.create_if_absent",
    "lanes.try_fast_admit",
    "lanes.admit",
    "queue.send",
)


def draw_due(seed: int) -> Plan:
    """Returns that seed's plan of many tasks that are due at few times, whose messages come in any order."""
    random = Random(f"due {seed}")
    users, workers = ["ann", "bob"][: random.choice((1, 1, 2))], random.randint(1, 3)
    offsets = tuple(random.choice((0, random.randint(-250, 250))) for _ in range(2 + workers))
    faults = tuple(_due_fault(random) for _ in range(random.choice((0, 0, 1, 2, 4))))
    actions = sorted(_due_actions(random, users, workers), key=lambda action: action.at)
    return Plan(
        seed, random.choice(LIMITS), random.random() < 0.6, workers, offsets, tuple(actions), faults, is_any_order=True
    )


#: Limits of units beside small ones: they are counted as quotas of thousands are.
UNIT_LIMITS = (
    "20 units/10 seconds",
    "3/second; 12 units/5 seconds",
    "1/second; 9 units/2 seconds",
    "9 units/3 seconds; 20 units/20 seconds",
    "2/second; 30 units/20 seconds; 4/10 seconds",
)
UNIT_CALLS = (
    *("lanes.correct_units",) * 6,
    "lanes.try_fast_admit",
    "lanes.admit",
    "lanes.try_fast_claim",
    "lanes.claim",
    "lanes.change",
    "lanes.release_lease",
    "log.write",
    "tasks.finish",
    "queue.send",
    "function",
)


def draw_units(seed: int) -> Plan:
    """Returns that seed's plan of tasks with units, which they estimate up to three times too high or too low."""
    random = Random(f"units {seed}")
    users, workers = ["ann", "bob"][: random.choice((1, 1, 2))], random.randint(1, 3)
    offsets = tuple(random.choice((0, random.randint(-250, 250))) for _ in range(2 + workers))
    if random.random() < 0.3:
        offsets = (0,) * (2 + workers)
    faults = tuple(_unit_fault(random) for _ in range(random.choice((0, 0, 1, 2, 4))))
    actions = sorted(_unit_actions(random, users, workers), key=lambda action: action.at)
    limits = random.choice(UNIT_LIMITS)
    return Plan(seed, limits, random.random() < 0.6, workers, offsets, tuple(actions), faults)


#: Shared limits, by turns full of several users' tasks.
SHARED_LIMITS = (
    "s: 1/second",
    "s: 3/second; 5/10 seconds",
    "s: 2/second; 12 units/5 seconds",
    "s: 5/second; 2 at once",
    "s: 1 at once",
    "s: 4/10 seconds",
    "s: 150/minute",
)
SHARED_CALLS = (
    *("shared_limits.try_claim",) * 4,
    *("shared_limits.claim",) * 2,
    *("shared_limits.ask",) * 3,
    "shared_limits.get",
    "shared_limits.release",
    "shared_limits.release",
    "shared_limits.throttle",
    "shared_limits.add_waiter",
    "shared_limits.waiters",
    *("lanes.save_turn",) * 3,
    "lanes.try_fast_claim",
    "lanes.claim",
    "lanes.get",
    "lanes.change",
    "queue.defer",
    "tasks.finish",
    "source.delete",
    "function",
)


def draw_shared(seed: int) -> Plan:
    """Returns that seed's plan of several users' tasks that count against one shared limit, most of them."""
    random = Random(f"shared {seed}")
    users = ["ann", "bob", "cy", "dan"][: random.choice((1, 2, 3, 4))]
    workers, is_lambda, is_skewed = random.randint(1, 4), random.random() < 0.6, random.random() < 0.4
    offsets = tuple(random.randint(-250, 250) if is_skewed else 0 for _ in range(2 + workers))
    faults = tuple(_shared_fault(random) for _ in range(random.choice((0, 0, 1, 2, 4))))
    outages = (_outage(random, workers),) if faults and random.random() < 0.2 else ()
    actions = tuple(sorted(_shared_actions(random, users, workers), key=lambda action: action.at))
    is_apart = not is_lambda and random.random() < 0.4
    return Plan(
        seed, random.choice(("5/second", "20/second", *LIMITS)), is_lambda, workers, offsets, actions, faults, outages,
        random.choice((1, 2, 3)), is_apart, shared=random.choice(SHARED_LIMITS),
    )  # fmt: skip


#: Shared limits over two to four shards, where each carries one start a second, and lower ones of an earlier setting.
#: They have the same windows: a process counts in those of its own setting only.
SHARDED_LIMITS = {
    "s: 3/second": ("s: 1/second", "s: 2/second"),
    "s: 4/second; 6/3 seconds": ("s: 1/second; 3/3 seconds", "s: 2/second; 5/3 seconds"),
    "s: 5/second; 7/3 seconds": ("s: 1/second; 2/3 seconds", "s: 2/second; 6/3 seconds"),
    "s: 5/2 seconds": ("s: 1/2 seconds", "s: 3/2 seconds"),
}


def draw_shards(seed: int) -> Plan:
    """Returns the plan of `draw_shared`, or of `draw_groups`, under a shared limit that is spread over shards."""
    random = Random(f"shards {seed}")
    plan = draw_groups(seed) if random.random() < 0.3 else draw_shared(seed)

    def of_shards(action: Action) -> Action:
        if not isinstance(action, ChangeShared) or not action.limits:
            return action
        texts = ("1/second", "2/second", "5/second", "20/second", "2/3 seconds; 9/6 seconds", "8/second; 3 at once")
        return replace(action, limits=random.choice(texts))

    more = [ChangeShared(random.randint(1, 20_000), "s", random.choice(("", "2/second", "6/second")))]
    actions = (*map(of_shards, plan.actions), *(more if random.random() < 0.4 else ()))
    wrong, pause = random.choice(list(Wrong)), random.choice((5, 50, 700, 5_000))
    faults = (
        *plan.faults,
        *([Fault("shared_limits.change", random.randint(1, 20), wrong, pause)] if plan.faults else ()),
    )
    shared, lower = random.choice(list(SHARDED_LIMITS.items()))
    return replace(
        plan, actions=tuple(sorted(actions, key=lambda action: action.at)), faults=faults,
        shared=shared, starts_each=1, earlier_shared=random.choice(("", "", *lower)),
    )  # fmt: skip


def draw_groups(seed: int) -> Plan:
    """Returns the plan of `draw_shared`, with most of its users in a group, which some of them leave or join later."""
    plan, random = draw_shared(seed), Random(f"groups {seed}")
    users = sorted({action.user for action in plan.actions if isinstance(action, Submit)}) or ["ann"]
    joins = [SetGroup(0, user, "g") for user in users if random.random() < 0.75]
    changes = [SetGroup(random.randint(1, 30_000), random.choice(users), random.choice(("g", "h", ""))) for _ in "12"]
    emptyings = [Empty(random.randint(1, 20_000), random.choice(users))] if random.random() < 0.4 else []
    actions = (*joins, *plan.actions, *(changes if random.random() < 0.5 else ()), *emptyings)
    return replace(plan, actions=tuple(sorted(actions, key=lambda action: action.at)))


def draw_shared_units(seed: int) -> Plan:
    """Returns the plan of `draw_shared` under a shared limit of units, which its tasks estimate too high or too low."""
    plan, random = draw_shared(seed), Random(f"shared units {seed}")

    def spending(behaviour: Behaviour) -> Behaviour:
        units = random.choice((1, 3, 6))
        return replace(behaviour, units=units, uses=random.choice((None, 0, 1, units, 2 * units)))

    def of_units(action: Action) -> Action:
        if not isinstance(action, Submit):
            return action
        return replace(action, behaviours=tuple(map(spending, action.behaviours)))

    shared = random.choice(
        ("s: 12 units/5 seconds", "s: 3/second; 30 units/20 seconds", "s: 6 units/second; 2 at once")
    )
    numbers, wrongs = random.sample(range(1, 9), 2), random.sample(list(Wrong), 2)
    faults = [Fault("shared_limits.correct_units", n, wrong, 700) for n, wrong in zip(numbers, wrongs, strict=True)]
    faults = (*plan.faults, *faults) if random.random() < 0.6 else plan.faults
    return replace(plan, actions=tuple(map(of_units, plan.actions)), shared=shared, faults=tuple(faults))


def _shared_actions(random: Random, users: list[str], workers: int) -> Iterator[Action]:
    at = 0
    for number in range(random.randint(3, 14)):
        at += random.choice((0, 0, 5, 100, 700, 3_000, 12_000))
        user, dice = random.choice(users), random.random()
        if dice < 0.72:
            many = tuple(_shared_behaviour(random) for _ in range(random.choice((1, 1, 2, 4))))
            yield Submit(at, user, f"t{number}", many)
        elif dice < 0.78:
            yield Cancel(at, user, random.randint(0, 3))
        elif dice < 0.82:
            yield random.choice((Pause(at, user, 4_000), Resume(at, user), SetLimits(at, user, LIMITS[0])))
        elif dice < 0.88:
            yield Kill(at, random.randrange(workers))
        elif dice < 0.94:
            limits = random.choice(("", "1/second", "8/second; 3 at once", "2/3 seconds"))
            yield ChangeShared(at, "s", limits)
        else:
            yield ChangeShared(at, "s", pauses_ms=random.choice((0, 2_000, 9_000)))


def _shared_behaviour(random: Random) -> Behaviour:
    return Behaviour(
        random.choice((0, 5, 5, 200, 1_500, 6_000)), fails=random.choice((0, 0, 0, 0, 1)),
        kills=random.choice((0, 0, 0, 0, 0, 0, 1)), units=random.choice((1, 1, 3)),
        holds=random.choice((0, 0, 0, 0, 0, 1)), holds_all=random.random() < 0.7,
        shared=random.choice(("s", "s", "s", "s", "")),
    )  # fmt: skip


def _shared_fault(random: Random) -> Fault:
    wrong = random.choice(list(Wrong))
    return Fault(random.choice(SHARED_CALLS), random.randint(1, 9), wrong, random.choice((5, 50, 700, 5_000)))


#: Limits with several tasks at once.
SEVERAL = (
    "5/second; 3 at once",
    "1/second; 2 at once",
    "10/second; 10 at once",
    "2/second; 4/10 seconds; 5 at once",
    "20/second; 2 at once",
)
#: Calls that only lanes with several tasks at once make, or make at other points.
SEVERAL_CALLS = (
    "lanes.try_fast_claim",
    "lanes.claim",
    "lanes.release_slot",
    "lanes.release_lease",
    "lanes.renew_lease",
    "lanes.save_head_receipt",
    "lanes.save_next_receipt",
    "lanes.save_slot_receipt",
    "lanes.get",
    "lanes.throttle",
    "lanes.change",
    "queue.forward",
    "queue.defer",
    "queue.send",
    "tasks.finish",
    "tasks.attempt_failed",
    "tasks.create_if_absent",
    "source.delete",
    "log.write",
    "function",
)


def draw_several(seed: int) -> Plan:
    """Returns that seed's plan of lanes that run several tasks at once, whose number changes."""
    random = Random(f"several {seed}")
    users, workers, is_lambda = ["ann", "bob"][: random.choice((1, 1, 2))], random.randint(1, 4), random.random() < 0.6
    is_skewed = random.random() < 0.4
    offsets = tuple(random.randint(-250, 250) if is_skewed else 0 for _ in range(2 + workers))
    faults = tuple(_several_fault(random) for _ in range(random.choice((0, 0, 1, 2, 4))))
    outages = (_outage(random, workers),) if faults and random.random() < 0.3 else ()
    drawn = _several_actions(random, users, workers, is_skewed, is_lambda)
    actions = tuple(sorted(drawn, key=lambda action: action.at))
    is_apart = not is_lambda and random.random() < 0.4
    attempts = random.choice((1, 2, 3))
    limits = random.choice((*SEVERAL, *SEVERAL, LIMITS[0]))
    texts = [limits, *(action.limits or limits for action in actions if isinstance(action, SetLimits))]
    if not all("at once" in text for text in texts):
        # A lane with one task at a time forgets a task that lost both its worker and its message.
        actions = tuple(action for action in actions if not isinstance(action, LoseMessages))
    return Plan(seed, limits, is_lambda, workers, offsets, actions, faults, outages, attempts, is_apart)


EMPTY_CALLS = (
    *("lanes.change",) * 4,
    *("log.write",) * 3,
    *("tasks.finish",) * 3,
    *("lanes.claim",) * 2,
    "lanes.try_fast_claim",
    "lanes.try_fast_admit",
    "lanes.get",
    "tasks.get",
    "tasks.between",
    "tasks.newest",
    "queue.send",
    "queue.defer",
    "queue.forward",
    "scheduled_queue.send",
    "due_tasks.due",
    "due_tasks.remove",
    "tasks.cancel_scheduled",
)


def draw_emptyings(seed: int) -> Plan:
    """Returns that seed's plan of lanes that are emptied while tasks wait, run, are scheduled and are submitted."""
    random = Random(f"emptyings {seed}")
    users, workers, is_lambda = ["ann", "bob"][: random.choice((1, 1, 2))], random.randint(1, 3), random.random() < 0.6
    is_skewed = random.random() < 0.3
    offsets = tuple(random.randint(-20, 20) if is_skewed else 0 for _ in range(2 + workers))
    faults = tuple(_empty_fault(random) for _ in range(random.choice((0, 0, 0, 1, 2, 4))))
    outages = (_outage(random, workers),) if faults and random.random() < 0.3 else ()
    actions = tuple(sorted(_empty_actions(random, users, workers, is_lambda), key=lambda action: action.at))
    limits = random.choice((*LIMITS, *LIMITS, *SEVERAL))
    return Plan(seed, limits, is_lambda, workers, offsets, actions, faults, outages, random.choice((1, 2, 3)))


def draw_forgettings(seed: int) -> Plan:
    """Returns that seed's plan of users who are forgotten, with faults, and come back within their limits' windows."""
    random = Random(f"forgettings {seed}")
    users, workers, is_lambda = ["ann", "bob"][: random.choice((1, 1, 2))], random.randint(1, 3), random.random() < 0.6
    faults = tuple(_forget_fault(random) for _ in range(random.choice((0, 0, 1, 2, 4))))
    actions = tuple(sorted(_forget_actions(random, users, workers, is_lambda), key=lambda action: action.at))
    limits = random.choice((*LIMITS, *SEVERAL))
    return Plan(seed, limits, is_lambda, workers, (0,) * (2 + workers), actions, faults, (), random.choice((1, 2)))


def _forget_actions(random: Random, users: list[str], workers: int, is_lambda: bool) -> Iterator[Action]:
    at = 0
    for number in range(random.randint(3, 12)):
        at += random.choice((0, 15, 150, 600, 1_100, 4_000, 12_000))
        user, dice = random.choice(users), random.random()
        if number == 0 or dice < 0.4:
            many, key = random.choice((1, 1, 3, 6)), f"key-{number}" if random.random() < 0.2 else None
            behaviours = tuple(_behaviour(random, is_lambda) for _ in range(many))
            yield Submit(at, user, f"t{number}", behaviours, key, delay_ms=random.choice((None, None, None, 900)))
        elif dice < 0.8:
            yield ForgetUser(at, user)
        elif dice < 0.9:
            yield Empty(at, user)
        elif dice < 0.95:
            yield SetLimits(at, user, random.choice((None, *LIMITS[:2])))
        else:
            yield Kill(at, random.randrange(workers))


#: Calls whose faults may leave something of a forgotten user.
FORGET_CALLS = (
    *("lanes.forget",) * 3,
    *("tasks.create_if_absent", "tasks.delete_finished") * 2,
    "tasks.create_many",
    "tasks.finish",
    "tasks.newest",
    "tasks.mark_admitted",
    "tasks.cancel_scheduled",
    "lanes.try_fast_admit",
    "lanes.try_fast_claim",
    "queue.send",
    "scheduled_queue.send",
    "source.delete",
    "log.write",
    "function",
)


def _forget_fault(random: Random) -> Fault:
    return Fault(
        random.choice(FORGET_CALLS), random.randint(1, 6), random.choice(list(Wrong)), random.choice((50, 700, 5_000))
    )


def _empty_actions(random: Random, users: list[str], workers: int, is_lambda: bool) -> Iterator[Action]:
    at = 0
    for number in range(random.randint(2, 9)):
        at += random.choice((0, 1, 15, 150, 600, 1_100, 4_000, 12_000))
        user, dice = random.choice(users), random.random()
        if number == 0 or dice < 0.45:
            many = random.choice((1, 3, 8, 14))
            delay_ms = random.choice((None, None, None, 900, 5_000))
            key = f"key-{number}" if random.random() < 0.2 else None
            behaviours = tuple(_behaviour(random, is_lambda) for _ in range(many))
            yield Submit(at, user, f"t{number}", behaviours, key, delay_ms=delay_ms)
        elif dice < 0.80:
            yield Empty(at, user)
            if random.random() < 0.5:
                later = at + random.choice((1, 60, 200, 900))
                yield Submit(later, user, f"l{number}", (_behaviour(random, is_lambda),))
        elif dice < 0.86:
            yield Cancel(at, user, random.randint(0, 5))
        elif dice < 0.92:
            yield random.choice((Pause(at, user, random.choice((None, 3_000))), Resume(at, user)))
        elif dice < 0.96:
            yield SetLimits(at, user, random.choice((None, *LIMITS[:2], *SEVERAL[:2])))
        else:
            yield Kill(at, random.randrange(workers))


def _empty_fault(random: Random) -> Fault:
    wrong = random.choice(list(Wrong))
    return Fault(random.choice(EMPTY_CALLS), random.randint(1, 8), wrong, random.choice((5, 50, 700, 5_000)))


def _several_actions(
    random: Random, users: list[str], workers: int, is_skewed: bool, is_lambda: bool
) -> Iterator[Action]:
    for action in _actions(random, users, workers, is_skewed, is_lambda):
        if isinstance(action, SetLimits):
            yield replace(action, limits=random.choice((None, *SEVERAL, *LIMITS[:2])))
        else:
            yield action
    for number in range(random.choice((0, 1, 2))):
        many = tuple(_behaviour(random, is_lambda) for _ in range(random.choice((3, 6, 12))))
        yield Submit(random.choice((0, 500, 6_000)), random.choice(users), f"b{number}", many)
    for _ in range(random.choice((0, 0, 1, 2))):
        yield SetLimits(random.randint(0, 12_000), random.choice(users), random.choice((*SEVERAL, LIMITS[0])))
    if random.random() < 0.15:
        yield LoseMessages(random.randint(0, 12_000), random.choice(users))


def _several_fault(random: Random) -> Fault:
    wrong = random.choice(list(Wrong))
    return Fault(random.choice(SEVERAL_CALLS), random.randint(1, 8), wrong, random.choice((5, 50, 700, 5_000)))


def _unit_actions(random: Random, users: list[str], workers: int) -> Iterator[Action]:
    at = 0
    for number in range(random.randint(3, 16)):
        at += random.choice((0, 0, 15, 90, 400, 1_100, 6_000, random.choice((0, 31_000))))
        user, dice = random.choice(users), random.random()
        if dice < 0.80:
            many = random.choice((1, 1, 2, 5))
            key = f"key-{number}" if random.random() < 0.2 else None
            yield Submit(at, user, f"t{number}", tuple(_unit_behaviour(random) for _ in range(many)), key)
        elif dice < 0.88:
            yield SetLimits(at, user, random.choice((None, *UNIT_LIMITS, *LIMITS[:2])))
        elif dice < 0.92:
            yield Cancel(at, user, random.randint(0, 3))
        elif dice < 0.96:
            yield Kill(at, random.randrange(workers))
        else:
            yield Resume(at, user)


CANCEL_CALLS = (
    *("lanes.request_cancel",) * 4,
    *("tasks.request_cancel",) * 4,
    *("lanes.renew_lease",) * 3,
    "lanes.release_lease",
    "lanes.end_lease",
    "lanes.claim",
    "lanes.change",
    "tasks.attempt_failed",
    "tasks.finish",
    "log.write",
    "queue.defer",
    "function",
)


def draw_cancels(seed: int) -> Plan:
    """Returns that seed's plan of tasks that run for seconds and are cancelled meanwhile, also as they end."""
    random = Random(f"cancels {seed}")
    users, workers = ["ann", "bob"][: random.choice((1, 1, 2))], random.randint(1, 3)
    is_skewed, is_lambda = random.random() < 0.3, random.random() < 0.6
    offsets = tuple(random.randint(-250, 250) if is_skewed else 0 for _ in range(2 + workers))
    faults = tuple(_cancel_fault(random) for _ in range(random.choice((0, 0, 1, 2, 4))))
    actions = tuple(sorted(_cancel_actions(random, users, workers), key=lambda action: action.at))
    outages = (_outage(random, workers),) if faults and random.random() < 0.3 else ()
    is_apart = not is_lambda and random.random() < 0.3
    most = random.choice((1, 2, 3))
    return Plan(
        seed, random.choice(LIMITS), is_lambda, workers, offsets, actions, faults, outages, most, is_apart=is_apart
    )


def _cancel_actions(random: Random, users: list[str], workers: int) -> Iterator[Action]:
    at = 0
    for number in range(random.randint(1, 6)):
        at += random.choice((0, 20, 600, 2_500, 9_000, 31_000))
        user = random.choice(users)
        behaviour = _long_behaviour(random)
        yield Submit(at, user, f"t{number}", (behaviour,), is_told=random.random() < 0.2)
        near_its_end = behaviour.runs_ms + random.randint(-40, 60)
        for _ in range(random.choice((0, 1, 1, 1, 2))):
            again = random.choice((500, 1_500, 5_000, 11_000, near_its_end, near_its_end))
            yield Cancel(at + max(1, again), user, random.choice((0, 0, 0, 1)))
        if random.random() < 0.25:
            yield Kill(at + random.choice((700, 2_000, 6_000, 12_500)), random.randrange(workers))
        if random.random() < 0.15:
            yield random.choice((Pause(at, user, random.choice((None, 9_000))), Resume(at + 4_000, user)))


def _long_behaviour(random: Random) -> Behaviour:
    return Behaviour(
        random.choice((5, 900, 2_500, 4_000, 12_000, 25_000, 70_000)),
        fails=random.choice((0, 0, 0, 1, 2)),
        kills=random.choice((0, 0, 0, 0, 1)),
        holds=random.choice((0, 0, 0, 0, 1)),
        stops=random.random() < 0.6,
    )


def _cancel_fault(random: Random) -> Fault:
    wrong = random.choice(list(Wrong))
    return Fault(random.choice(CANCEL_CALLS), random.randint(1, 5), wrong, random.choice((5, 50, 700, 5_000)))


def _unit_behaviour(random: Random) -> Behaviour:
    units = random.choice((1, 2, 3, 6, 9))
    uses = random.choice((None, units, max(1, units // 3), units * 3, random.randint(0, 20)))
    return Behaviour(
        random.choice((0, 5, 5, 200, 1_500)), random.choice((0, 0, 0, 0, 1)), units=units, uses=uses,
        holds=random.choice((0, 0, 0, 0, 0, 1)),
    )  # fmt: skip


def _unit_fault(random: Random) -> Fault:
    wrong = random.choice(list(Wrong))
    return Fault(random.choice(UNIT_CALLS), random.randint(1, 8), wrong, random.choice((5, 50, 700, 5_000)))


def _due_actions(random: Random, users: list[str], workers: int) -> Iterator[Action]:
    at, times = 0, [random.choice((4_000, 9_000, 30_000)) + random.choice((0, 0, 5, 300)) for _ in range(2)]
    for number in range(random.randint(2, 9)):
        at += random.choice((0, 1, 15, 90, 400))
        user, behaviours = random.choice(users), tuple(Behaviour() for _ in range(random.choice((1, 1, 1, 2, 4))))
        key = f"key-{number}" if random.random() < 0.3 else None
        due_at, again_at = random.choice(times), at + random.choice((5, 700, 2_500))
        submit = Submit(at, user, f"t{number}", behaviours, key, due_at=due_at)
        yield submit
        if key and again_at < due_at - 1_000:  # a repeat after its time is as any other repeat
            yield replace(submit, at=again_at)
        if random.random() < 0.15:
            yield Cancel(at + random.choice((200, 3_900, 4_000)), user, random.randint(0, 2))
        if random.random() < 0.15:
            yield Kill(random.choice(times) + random.randint(0, 120), random.randrange(workers))
        if random.random() < 0.2:
            yield Submit(random.choice(times) + random.randint(-20, 20), user, f"n{number}", (Behaviour(),))


def _due_fault(random: Random) -> Fault:
    wrong = random.choice(list(Wrong))
    return Fault(random.choice(DUE_CALLS), random.randint(1, 6), wrong, random.choice((5, 50, 700, 5_000)))


def _actions(random: Random, users: list[str], workers: int, is_skewed: bool, is_lambda: bool) -> Iterator[Action]:
    at, submits = 0, list[Submit]()
    for number in range(random.randint(2, 14)):
        at += random.choice(
            (0, 0, 1, 3, 20, 150, 600, 1_100, 2_500, 7_000, random.choice((0, 31_000, 95_000, 310_000)))
        )
        user, dice = random.choice(users), random.random()
        if dice < 0.55 or not submits:
            submits.append(_submit(random, at, user, number, is_lambda))
            yield submits[-1]
        elif dice < 0.65:
            yield replace(random.choice(submits), at=at)
        elif dice < 0.75:
            yield Cancel(at, user, random.randint(0, 3))
        elif dice < 0.80:
            yield SetLimits(at, user, random.choice((None, *LIMITS)))
        elif dice < 0.86:
            yield Pause(at, user, random.choice((None, 500, 2_000, 20_000)))
        elif dice < 0.90:
            yield Resume(at, user)
        elif dice < 0.93:
            yield Kill(at, random.randrange(workers))
        elif dice < 0.96 and is_skewed:
            yield StepClock(at, random.randrange(workers + 2), random.randint(-250, 250))
        elif dice < 0.98:
            yield Poison(at, user)
        else:
            yield ForgetLane(at, user)


def _close_actions(random: Random, users: list[str]) -> Iterator[Action]:
    """Changes of a lane while its worker decides on a wait."""
    at = 0
    for number in range(random.randint(2, 6)):
        user = random.choice(users)
        own = random.choice(("1/10 seconds", "1/30 seconds", "2/minute"))
        yield Pause(at, user, random.choice((None, 20_000))) if random.random() < 0.7 else SetLimits(at, user, own)
        at += random.choice((40, 100, 600))
        for nth in range(random.choice((1, 1, 2))):
            key = f"key-{number}" if random.random() < 0.3 else None
            yield Submit(at, user, f"t{number}.{nth}", (Behaviour(random.choice((0, 5, 200, 1_500))),), key)
        at += random.randint(0, 150)
        ends = (Resume(at, user), SetLimits(at, user, random.choice((None, *LIMITS))), Cancel(at, user, 0))
        yield random.choices(ends, (6, 4, 1))[0]
        at += random.choice((0, 5, 1_100, 2_500, 12_000, 40_000))


def _long_actions(random: Random, users: list[str]) -> Iterator[Action]:
    """Tasks that run long enough for another worker to try to take them over."""
    for number in range(random.randint(1, 3)):
        runs_ms = random.choice((12_000, 25_000, 40_000))
        yield Submit(1_000 * number, random.choice(users), f"t{number}", (Behaviour(runs_ms),))


def _separation(random: Random) -> Outage:
    """A worker cannot renew the message's visibility, the lease, or either."""
    calls = random.choice(("source.keep", "source.keep", "lanes.renew_lease", ""))
    at, lasts_ms = random.choice((500, 3_000)), random.choice((14_000, 25_000))
    return Outage(at, lasts_ms, calls, None if calls else random.randrange(2))


def _submit(random: Random, at: int, user: str, number: int, is_lambda: bool) -> Submit:
    many = random.choice((1, 1, 1, 1, 2, 3))
    key = f"key-{number}" if random.random() < 0.4 else None
    behaviours = tuple(_behaviour(random, is_lambda) for _ in range(many))
    delay_ms = random.choice((200, 3_000, 20_000, 1_000_000)) if random.random() < 0.12 else None
    is_told = random.random() < 0.15
    return Submit(at, user, f"t{number}", behaviours, key, random.random() < 0.05, delay_ms, is_told=is_told)


def _behaviour(random: Random, is_lambda: bool) -> Behaviour:
    runs_ms = random.choice((0, 5, 5, 5, 200, 1_500, 8_000, 25_000, 70_000 if is_lambda else 130_000))
    holds, holds_ms = random.choice((0, 0, 0, 0, 0, 0, 1, 2)), random.choice((400, 4_000, 20_000))
    if random.random() < 0.6:
        return Behaviour(min(runs_ms, 1_500), holds=holds, holds_ms=holds_ms)
    return Behaviour(
        runs_ms,
        fails=random.choice((0, 0, 1, 2, 4)),
        kills=random.choice((0, 0, 0, 1, 4)),
        is_bad=random.random() < 0.1,
        holds=holds,
        holds_ms=holds_ms,
    )


def _fault(random: Random) -> Fault:
    call = random.choices(list(CALLS), list(CALLS.values()))[0]
    wrong = random.choice(list(Wrong))
    return Fault(call, random.choice((1, 1, 2, 2, 3, 4, 6)), wrong, random.choice((30, 300, 1_500, 4_000)))


def _outage(random: Random, workers: int) -> Outage:
    at = random.choice((0, 500, 3_000, 10_000, 30_000))
    if random.random() < 0.3:
        return Outage(at, random.choice((8_000, 14_000, 25_000)), "", random.randrange(workers))
    return Outage(at, random.choice((300, 3_000, 8_000, 25_000)), random.choice(OUTAGES))


def shrink(plan: Plan, fails: Callable[[Plan], bool], tries: int = 600) -> Plan:
    """A smaller plan that still fails: actions, faults and tasks are left out, then simplified, while it does."""
    while tries > 0:
        for smaller in _smaller(plan):
            tries -= 1
            if fails(smaller):
                plan = smaller
                break
            if tries <= 0:
                return plan
        else:
            return plan
    return plan


def _smaller(plan: Plan) -> Iterator[Plan]:
    for index in range(len(plan.outages)):
        yield replace(plan, outages=plan.outages[:index] + plan.outages[index + 1 :])
    for index in range(len(plan.faults)):
        yield replace(plan, faults=plan.faults[:index] + plan.faults[index + 1 :])
    for index in range(len(plan.actions)):
        yield replace(plan, actions=plan.actions[:index] + plan.actions[index + 1 :])
    if any(plan.offsets):
        yield replace(plan, offsets=tuple(0 for _ in plan.offsets))
    if plan.workers > 1:
        yield replace(plan, workers=1)
    for action in plan.actions:
        for simpler in _simpler(action):
            yield replace(plan, actions=tuple(simpler if one is action else one for one in plan.actions))


def _simpler(action: Action) -> Iterator[Action]:
    if not isinstance(action, Submit):
        return
    for field in ("delay_ms", "due_at", "is_told"):
        if getattr(action, field):
            yield replace(action, **{field: False if field == "is_told" else None})
    if len(action.behaviours) > 1:
        yield replace(action, behaviours=action.behaviours[:-1])
    for index, behaviour in enumerate(action.behaviours):
        for simpler in (
            Behaviour(),
            replace(behaviour, fails=0),
            replace(behaviour, kills=0),
            replace(behaviour, holds=0),
            replace(behaviour, uses=None),
            replace(behaviour, stops=False),
        ):
            if simpler != behaviour:
                behaviours = (*action.behaviours[:index], simpler, *action.behaviours[index + 1 :])
                yield replace(action, behaviours=behaviours)
