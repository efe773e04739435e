"""What a shared limit says about tasks that want it: when they start, what is left, who goes first. Pure."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from chalicelib.core.estimates import Usage
from chalicelib.core.history import tallies_of
from chalicelib.core.lane import FOREVER_MS
from chalicelib.core.limits import Limit, Limits
from chalicelib.core.past_starts import next_start
from chalicelib.core.shared_limit import SharedLimit, missed_turns, planned_starts
from chalicelib.core.shared_shards import index_of, plain_name, share
from chalicelib.core.tally import resets_at, used_at


class SharedState(Struct, frozen=True):
    """A shared limit, or one of its shards, as it was read, and the limits in force for it."""

    shared: SharedLimit
    limits: Limits
    #: those of all shards together; None if they are the same
    total: Limits | None = None

    @property
    def name(self) -> str:
        return plain_name(self.shared.name)

    @property
    def policies(self) -> Sequence[tuple[Limit, Limit]]:
        """Each limit of the whole shared limit, and the part of it that was read."""
        return list(zip(self.limits if self.total is None else self.total, self.limits, strict=True))


def limits_of(shared: SharedLimit, settings: Mapping[str, Limits]) -> Limits | None:
    """Those in force for all shards together; None if the shared limit was deleted, or never existed."""
    return settings.get(plain_name(shared.name)) if shared.limits is None else shared.limits


def state_of(shared: SharedLimit, settings: Mapping[str, Limits]) -> SharedState | None:
    """The shard with the limits in force for it; None if the shared limit was deleted, or never existed."""
    total, index = limits_of(shared, settings), index_of(shared.name)
    if total is None or index >= shared.shards:  # such a shard is no longer one
        return None if total is None else SharedState(shared, total)
    return SharedState(shared, share(total, shared.shards, index), total)


class Expected(Struct, frozen=True):
    """When a task may start that wants a shared limit now. Times are epoch ms."""

    #: no start is earlier while the limits stay as they are
    earliest_at: int
    #: if each lane that waits starts one task before it, and no other lane asks; None if a pause has no end
    estimated_at: int | None
    #: lanes that go first
    before: int
    #: as many tasks run as may run at once, so the times say only when the rates allow the start
    is_full: bool

    def is_now(self, now_ms: int) -> bool:
        return self.earliest_at <= now_ms and not self.before and not self.is_full


def expected(state: SharedState, now_ms: int, units: int = 1) -> Expected:
    """For a task that has no turn yet.

    >>> from chalicelib.core.limits import parse_limits
    >>> shared = SharedLimit("stripe", asked=9, served=4, started=2, starts=(5_500, 5_000), opened_at=5_500)
    >>> expected(SharedState(shared, parse_limits("2/second")), 5_800)
    Expected(earliest_at=6000, estimated_at=8500, before=5, is_full=False)
    """
    return expected_in_turn(state, now_ms, [units])[0]


def expected_in_turn(state: SharedState, now_ms: int, units: Sequence[int]) -> list[Expected]:
    """For tasks of one lane that start one after the other. units: of each of them."""
    shared, limits = state.shared, state.limits
    before, count = waiting_of(state, now_ms), len(units)
    if shared.paused_until == FOREVER_MS:
        return [Expected(now_ms, None, before, is_full=True)] * count
    planned, is_full = planned_starts(shared, limits, before + count, now_ms), shared.is_full(limits)
    alone = {one: next_start(shared, limits, shared.opens_at(now_ms), one) for one in set(units)}
    found = []
    for index, one in enumerate(units):
        earliest_at = max(planned[index], alone[one])
        found.append(Expected(earliest_at, max(planned[index + before], earliest_at), before, is_full))
    return found


def waiting_of(state: SharedState, now_ms: int) -> int:
    """Lanes that wait for their turn, about: some of them may have lost it."""
    return state.shared.waiting - missed_turns(state.shared, state.limits, now_ms)


def used_of(state: SharedState, limit: Limit, now_ms: int) -> Usage:
    """The starts, or units, that count against one of its limits now, and when it allows more."""
    shared = state.shared
    if limit.is_large:
        tally = tallies_of(shared.real, shared.starts, shared.started, (limit,))[limit]
        return Usage(used_at(tally, limit, now_ms), resets_at(tally, limit, now_ms))
    taken = sum(1 for start in shared.starts if start > now_ms - limit.window_ms)
    newest = min(taken, limit.quota)
    return Usage(taken, shared.starts[newest - 1] + limit.window_ms if newest else now_ms)


def wanted_of(state: SharedState, limit: Limit, now_ms: int, starts: int = 0, units: int = 0) -> int:
    """What counts against one of its limits once each lane that waits has started a task of one unit.

    starts, units: of tasks that were submitted since it was read.
    """
    more = units if limit.counts_units else starts
    return used_of(state, limit, now_ms).used + waiting_of(state, now_ms) + more


def policy_name(name: str, limit: Limit) -> str:
    """The name in the RateLimit headers of a shared limit's limit: `stripe-second`."""
    return f"{name}-{limit.name}"


def stop_of_shared(shared: SharedLimit, now_ms: int) -> str:
    """What stops it, as a sentence; empty if nothing does."""
    if shared.is_paused(now_ms):
        return "Shared limit paused."
    return "Shared limit throttled." if shared.is_throttled(now_ms) else ""
