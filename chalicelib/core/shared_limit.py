"""A limit that tasks of many users count against, as a value: what it stores, and what follows from that alone. Pure.

It counts starts as a lane does, but has no tasks. Lanes that want it while it is full take turns. A turn says when to
wake and takes nothing; the claim alone takes a slot. A turn that nobody uses is passed over by the next claim.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.history import NO_HISTORY, History, listed_for, tallies_of, updated, without_future
from chalicelib.core.lane import CLOCKS_DIFFER_MS, FOREVER_MS
from chalicelib.core.limits import Limit, Limits, fingerprint, large_limits, most_at_once, small_limits
from chalicelib.core.past_starts import next_start, with_start
from chalicelib.core.planner import Planner
from chalicelib.core.shared_shards import LONGEST_WINDOW_MS
from chalicelib.core.tally import Tally, counted

#: Milliseconds from its time after which a turn counts as missed: the next ones may take its start.
MISSED_AFTER_MS = 60
#: While so many lanes wait, starts are taken at multiples of so many milliseconds: claims at one moment would refuse
#: each other, since no start may lie before one that was taken. All windows are multiples of it, so that no start of a
#: full shared limit is lost.
MANY_WAITING, TICK_MS = 10, 20
#: Number of corrections of units in the item: a repeated call, whose first answer was lost, finds its own among them.
CORRECTIONS_KEPT = 40
#: Turns ahead for which the time of a turn is computed start by start; beyond them it follows from the rate.
EXACT_TURNS = 200


class Holder(Struct, frozen=True):
    """A task that runs under a shared limit with a number at once."""

    user_id: str
    #: its start, epoch ms
    at: int


class Waiter(Struct, frozen=True):
    """A lane that waits for its turn for some seconds, as it is listed for those who ask and who wake it."""

    turn: int
    user_id: str
    task_id: str
    #: of the user; the turn is the group's
    group: str = ""


class SharedLimit(Struct, frozen=True):
    """A shared limit as it was read; empty if nothing ever counted against it."""

    name: str
    #: set at run time, None for those of the deployment's setting
    limits: Limits | None = None
    #: how many starts were taken
    started: int = 0
    #: the newest of them, newest first, epoch ms
    starts: tuple[int, ...] = ()
    #: of the starts, beside `starts`
    real: History = NO_HISTORY
    #: epoch ms until which no task starts; None when not paused
    paused_until: int | None = None
    #: epoch ms until which it is throttled; 0 if it was not
    throttled_until: int = 0
    throttled_reason: str = ""
    #: grows with each change of limits, pause or throttling
    revision: int = 0
    #: epoch ms of the last resume or change of limits: no turn was missed before it
    opened_at: int = 0
    #: how many turns were given; the newest one
    asked: int = 0
    #: the newest turn that was used: those up to it are used, lost or late
    served: int = 0
    #: turns that were used since the list of starts was trimmed, in order: claims add theirs in any order
    used: tuple[int, ...] = ()
    #: the tasks that run, by id; None if no task was ever counted at once
    holders: Mapping[str, Holder] | None = None
    #: the token of the newest claim, so that a claim whose answer was lost is recognised
    newest: str = ""
    #: the latest time from which on units that tasks really used count, epoch ms: nothing starts before it
    reported_at: int = 0
    #: how many starts had their units corrected
    reports: int = 0
    #: names the corrections of late, newest first, so that none counts twice
    corrected: tuple[str, ...] = ()
    #: of a group's queue: the newest turn that the group got of the shared limit; 0 if the next lane has to ask for one
    turn: int = 0
    #: and from when on the group may use it, epoch ms
    turn_from: int = 0
    #: items over which it is spread, each with a part of its quotas (see shared_shards.py); this is one of them
    shards: int = 1
    #: limits or number of shards change at this moment: nothing starts until all shards are written
    is_changing: bool = False

    @property
    def waiting(self) -> int:
        """Turns that were given and not used; some of them may be lost."""
        return max(0, self.asked - self.served)

    def ahead_of(self, turn: int) -> int:
        """Turns that come before this one."""
        return max(0, turn - self.served - 1)

    def is_paused(self, now_ms: int) -> bool:
        return self.paused_until is not None and self.paused_until > now_ms

    def is_throttled(self, now_ms: int) -> bool:
        return self.throttled_until > now_ms

    def opens_at(self, now_ms: int) -> int:
        """When pause and throttling are over and all reports of units count, epoch ms; now if there is nothing."""
        return max(now_ms, self.paused_until or 0, self.throttled_until, self.reported_at)

    def listed_at(self, task_id: str) -> int:
        """The start with which the task is listed among those that run at once, epoch ms; 0 if it is not listed."""
        holder = (self.holders or {}).get(task_id)
        return holder.at if holder else 0

    def is_full(self, limits: Limits, task_id: str = "") -> bool:
        """True if as many tasks run as may run at once, this one not counted."""
        most, holders = most_at_once(limits), self.holders or {}
        return most is not None and len(holders) - (task_id in holders) >= most


class Taken(Struct, frozen=True):
    """The shared limit allows a start at `at`, epoch ms; `after` is the shared limit with that start."""

    at: int
    after: SharedLimit
    #: in force
    limits: Limits = ()
    user_id: str = ""
    task_id: str = ""
    #: the turn that it uses; 0 for a start without one
    turn: int = 0


class Full(Struct, frozen=True):
    """The shared limit allows no start yet."""

    #: the estimated start, epoch ms: a lower bound
    at: int
    #: turns before this one, and itself
    position: int
    #: the wait is for one of the tasks that run to end
    is_for_holder: bool = False


def claim_shared(
    shared: SharedLimit,
    limits: Limits,
    begin_ms: int,
    latest_ms: int,
    units: int = 1,
    turn: int = 0,
    task: tuple[str, str] = ("", ""),
    token: str = "",
) -> Taken | Full:
    """Decides whether a task may take a start from begin_ms to latest_ms, both epoch ms, and which is the first.

    turn: the lane's, 0 for none: then nothing starts while others wait. task: user id and task id.

    >>> from chalicelib.core.limits import parse_limits
    >>> limits = parse_limits("2/second")
    >>> shared = SharedLimit("stripe", started=2, starts=(5_500, 5_000))
    >>> claim_shared(shared, limits, 5_900, 6_050).after.starts
    (6000, 5500, 5000)
    >>> claim_shared(shared, limits, 5_800, 5_950)
    Full(at=6000, position=1, is_for_holder=False)
    >>> claim_shared(replace(shared, asked=1), limits, 5_900, 6_050)
    Full(at=6500, position=2, is_for_holder=False)
    """
    mine = turn or shared.asked + 1
    position = shared.ahead_of(mine) + 1
    if shared.is_full(limits, task[1]):
        return Full(turn_time(shared, limits, mine, begin_ms, units), position, is_for_holder=True)
    allowed_at = turn_time(shared, limits, mine, begin_ms, units)
    if allowed_at > latest_ms or (position > 1 and not turn):
        return Full(allowed_at, position)
    at = -(-allowed_at // TICK_MS) * TICK_MS if shared.waiting >= MANY_WAITING else allowed_at
    return Taken(at, _after(shared, limits, at, units, turn, task, token), limits, *task, turn)


def _after(
    shared: SharedLimit, limits: Limits, at: int, units: int, turn: int, task: tuple[str, str], token: str
) -> SharedLimit:
    listed, real = with_start(shared, limits, at, units)
    user_id, task_id = task
    holders = shared.holders
    if most_at_once(limits) is not None:
        holders = {**(holders or {}), task_id: Holder(user_id, at)}
    return replace(
        shared,
        started=shared.started + 1,
        starts=listed,
        real=real,
        paused_until=None,
        throttled_until=0,
        throttled_reason="",
        served=max(shared.served, turn),
        used=(),
        corrected=shared.corrected[:CORRECTIONS_KEPT],
        holders=holders,
        newest=token,
    )


def turn_time(shared: SharedLimit, limits: Limits, turn: int, now_ms: int, units: int = 1) -> int:
    """When that turn may start if each turn before it is used as soon as the limits allow, epoch ms.

    A lower bound. A turn whose time has passed without a start is missed: those behind it move up.

    >>> from chalicelib.core.limits import parse_limits
    >>> shared = SharedLimit("stripe", asked=9, served=4, started=2, starts=(5_500, 5_000))
    >>> [turn_time(shared, parse_limits("2/second"), turn, 5_800) for turn in (4, 5, 6, 7)]
    [6000, 6000, 6500, 7000]
    >>> turn_time(shared, parse_limits("2/second"), 7, 6_060)   # the first of the turns before it is missed
    6500
    >>> turn_time(shared, parse_limits("2/second"), 100_004, 5_800)
    50005500
    """
    return turn_times(shared, limits, turn, now_ms, units)[1]


def turn_times(shared: SharedLimit, limits: Limits, turn: int, now_ms: int, units: int = 1) -> tuple[int, int]:
    """The last time before that of the turn at which another turn may start, and that of the turn, epoch ms.

    The first is 0 where no turn is before it, and beyond EXACT_TURNS, where it is unknown.
    """
    begin = shared.opens_at(now_ms)
    places = shared.ahead_of(turn) + 1
    if places > 1:
        places = max(1, places - _missed(shared, limits, places, now_ms, units))
    if not tuple(limits):  # only a number at once
        return 0, max((begin, *shared.starts[:1]))  # not before a start by another machine's clock, which ended a pause
    planned = _planned(shared, limits, begin, min(places, EXACT_TURNS), units)
    beyond = max(0, places - EXACT_TURNS)
    before = 0 if beyond else max((at for at in planned if at < planned[-1]), default=0)
    return before, planned[-1] + _duration_ms(limits, beyond, units)


def planned_starts(shared: SharedLimit, limits: Limits, count: int, now_ms: int) -> list[int]:
    """The next `count` starts of one unit from now on if each comes as soon as the limits allow, epoch ms.

    Exact for EXACT_TURNS of them; those beyond follow from the rates.
    """
    begin = shared.opens_at(now_ms)
    if not tuple(limits):  # only a number at once
        return [next_start(shared, limits, begin)] * count
    planned = _planned(shared, limits, begin, min(count, EXACT_TURNS), 1)
    beyond = range(1, count - len(planned) + 1)
    return planned + [planned[-1] + _duration_ms(limits, n, 1) for n in beyond]


def missed_turns(shared: SharedLimit, limits: Limits, now_ms: int) -> int:
    """How many of the turns that were given and not used could have been used, and so count no more."""
    return _missed(shared, limits, shared.waiting, now_ms, 1) if shared.waiting and tuple(limits) else 0


def _missed(shared: SharedLimit, limits: Limits, places: int, now_ms: int, units: int) -> int:
    """How many of the next turns could have started and did not."""
    planned = _planned(shared, limits, shared.opens_at(shared.opened_at), min(places, EXACT_TURNS), units)
    missed, beyond = sum(at + MISSED_AFTER_MS <= now_ms for at in planned), places - len(planned)
    if missed < len(planned) or not beyond:
        return missed
    since_ms = now_ms - MISSED_AFTER_MS - planned[-1]
    return missed + min(beyond, *(since_ms * one.quota // (one.window_ms * one.taken_by(units)) for one in limits))


def first_time(shared: SharedLimit, limits: Limits, turn: int, units: int) -> int:
    """When the turn could first start, whether that has passed or not, epoch ms."""
    places = shared.ahead_of(turn) + 1
    planned = _planned(shared, limits, shared.opens_at(shared.opened_at), min(places, EXACT_TURNS), units)
    return planned[-1] + _duration_ms(limits, places - len(planned), units)


def _duration_ms(limits: Limits, count: int, units: int) -> int:
    """Milliseconds that this number of starts takes under the rate limits."""
    return max((count * one.window_ms * one.taken_by(units) // one.quota for one in limits), default=0)


def _planned(shared: SharedLimit, limits: Limits, begin: int, places: int, units: int) -> list[int]:
    """The next legal starts from that time on, epoch ms."""
    if places == 1:
        return [next_start(shared, limits, begin, units)]
    planner, planned = _planner(shared, limits), [begin]
    for _ in range(places):
        planned.append(planner.next(planned[-1], units))
    return planned[1:]


def _planner(shared: SharedLimit, limits: Limits) -> Planner:
    if not large_limits(limits):
        return Planner(shared.starts, shared.started > len(shared.starts), limits)
    listed = listed_for(shared.real, shared.starts, shared.started, limits)
    tallies = tallies_of(shared.real, shared.starts, shared.started, limits)
    return Planner(listed, shared.started > len(listed), limits, tallies)


def with_shared_limits(shared: SharedLimit, limits: Limits | None, now_ms: int) -> SharedLimit:
    """The shared limit with limits set at run time, or under those of the setting again."""
    return replace(shared, limits=limits, opened_at=now_ms, revision=shared.revision + 1)


def paused_shared(shared: SharedLimit, until: int | None) -> SharedLimit:
    """The shared limit, paused until that time, epoch ms; None for no end."""
    return replace(shared, paused_until=FOREVER_MS if until is None else until, revision=shared.revision + 1)


def resumed_shared(shared: SharedLimit, now_ms: int) -> SharedLimit:
    """The shared limit without pause and throttling, and without starts in the future.

    Such a start comes from a worker whose clock was ahead, so its task really started before now.
    """
    return replace(
        without_starts_ahead(shared, now_ms),
        paused_until=None,
        throttled_until=0,
        throttled_reason="",
        opened_at=now_ms,
        revision=shared.revision + 1,
    )


def without_starts_ahead(shared: SharedLimit, now_ms: int) -> SharedLimit:
    latest = now_ms + CLOCKS_DIFFER_MS
    is_ahead = bool(shared.starts) and shared.starts[0] > latest
    return replace(
        shared,
        starts=tuple(min(at, latest) for at in shared.starts) if is_ahead else shared.starts,
        real=without_future(shared.real, latest) if is_ahead else shared.real,
        reported_at=min(shared.reported_at, latest),
    )


def controlled_by(shared: SharedLimit, control: SharedLimit) -> SharedLimit:
    """The shard with the limits, pause and throttling of the shared limit's first one, as of that one's revision."""
    return replace(
        shared,
        limits=control.limits,
        paused_until=control.paused_until,
        throttled_until=control.throttled_until,
        throttled_reason=control.throttled_reason,
        opened_at=control.opened_at,
        shards=control.shards,
        is_changing=control.is_changing,
        revision=control.revision,
    )


def full_at(shared: SharedLimit, limits: Limits, at: int, started: int) -> SharedLimit:
    """The shared limit as if it had been used up at that time, epoch ms, and knew no start before.

    started: how many were taken, in all its shards. A large limit with a longer window than shards have counts no more.
    """
    listed = (at,) * max((limit.quota for limit in small_limits(limits)), default=1)
    total, extra_units = max(shared.started, len(listed), started if shared.shards == 1 else 0), shared.real.extra_units
    real = History(extra_units=extra_units) if extra_units else NO_HISTORY
    tallies = {limit: counted(Tally(), limit, [(at, _used_up(limit, started))]) for limit in large_limits(limits)}
    if tallies:
        real = updated(real, listed, total, tallies, fingerprint(limits))
    return replace(shared, starts=listed, started=total, real=real)


def _used_up(limit: Limit, started: int) -> int:
    return limit.quota if limit.window_ms <= LONGEST_WINDOW_MS else min(limit.quota, started)
