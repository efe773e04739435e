"""Keeps the shards of a shared limit alike: their limits, pause and throttling, and how many there are.

The first shard, whose item has the plain name, is the truth. Each change is written to it, then to the others, each of
which takes a newer revision only: so whoever is interrupted, or overtaken, leaves the rest to a repeat.

Another number of shards, or other limits, is written in two rounds. The first closes all shards; so from then on
nothing starts. The second opens them as if all were used up at the newest start of them all. So no window holds
starts that a shard of before counts and one of after does not.
"""

from collections.abc import Callable, Mapping
from functools import partial

from msgspec.structs import replace

from chalicelib.core.errors import UnavailableError
from chalicelib.core.limits import Limits, most_at_once
from chalicelib.core.ports import Clock, SharedLimitStore, SharedWritten
from chalicelib.core.shared_estimates import limits_of, state_of
from chalicelib.core.shared_limit import SharedLimit, controlled_by, full_at
from chalicelib.core.shared_shards import MAX_SHARDS, index_of, is_shareable, item_name, shards_of

#: Milliseconds after which a change of shards that is not finished counts as interrupted: a worker finishes it.
INTERRUPTED_AFTER_MS = 5_000
#: Milliseconds after a change for which no worker adds shards: old and new processes of a deployment, whose settings
#: need different numbers, would stop the shared limit again and again.
KEPT_FOR_MS = 60_000
#: Tries of a write that loses races against claims.
WRITE_TRIES = 20

#: Makes of a shard's old state its new one.
Change = Callable[[SharedLimit], SharedLimit]


class SharedLayout:
    def __init__(
        self,
        store: SharedLimitStore,
        clock: Clock,
        settings: Mapping[str, Limits],
        count: Callable[[Limits], int] = shards_of,
    ) -> None:
        """settings: the limits of those in SHARED_LIMITS, by name. count: how many shards limits need."""
        self._store = store
        self._clock = clock
        self._settings = settings
        self._count = count

    def limits(self, shared: SharedLimit) -> Limits | None:
        """Those in force for all shards together; None if the shared limit was deleted, or never existed."""
        return limits_of(shared, self._settings)

    def share(self, shared: SharedLimit) -> Limits | None:
        """Those in force for this shard."""
        state = state_of(shared, self._settings)
        return state.limits if state else None

    def shards(self, shared: SharedLimit) -> list[SharedLimit]:
        """All shards, given the first one."""
        return [shared, *(self._store.get(item_name(shared.name, index)) for index in range(1, shared.shards))]

    def is_open(self, shared: SharedLimit) -> bool:
        """True unless its shards change at this moment, or are too many for the limits.

        While they change, a new one may be there that the change has not closed yet: it does not know their number.
        """
        limits, is_known = self.limits(shared), index_of(shared.name) < shared.shards
        return is_known and not shared.is_changing and (limits is None or is_shareable(limits, shared.shards))

    def is_due(self, shared: SharedLimit) -> bool:
        """True if the number of shards is too low, or too high for the limits; or its change was interrupted.

        One that is only higher than needed stays: while a deployment goes on, old and new processes would change it in
        turn.
        """
        limits, since_ms = self.limits(shared), self._clock.now_ms() - shared.opened_at
        if shared.is_changing:
            return since_ms >= INTERRUPTED_AFTER_MS
        is_short = limits is not None and self._count(limits) > shared.shards
        return not self.is_open(shared) or (is_short and since_ms >= KEPT_FOR_MS)

    def lay_out(self, name: str) -> None:
        """Gives the shared limit the number of shards that it needs, if that is due."""
        shared = self._store.get(name)
        if not self.is_due(shared):
            return
        if not shared.is_changing:
            now_ms, shards = self._clock.now_ms(), self._count(self.limits(shared) or ())
            changed = replace(shared, shards=shards, is_changing=True, opened_at=now_ms, revision=shared.revision + 1)
            write = self._store.change(shared, changed)
            if not isinstance(write, SharedWritten):
                return
            shared = write.shared
        self.finish(shared)

    def planned(self, seen: SharedLimit, changed: SharedLimit) -> SharedLimit:
        """The first shard as the change is to write it: closed if limits or number of shards become others."""
        limits = self.limits(changed)
        shards = self._count(limits or ())
        is_same = (limits, shards) == (self.limits(seen), seen.shards)
        if is_same or max(shards, seen.shards) == 1:
            return changed
        return replace(changed, shards=shards, is_changing=True, opened_at=self._clock.now_ms())

    def spread(self, shared: SharedLimit, also: Change | None = None) -> list[SharedLimit]:
        """Writes the first shard's state to all others. Returns all shards. also: is done to each of the others."""
        if shared.is_changing:
            return self.finish(shared)
        names = (item_name(shared.name, index) for index in range(1, shared.shards))
        return [shared, *(self._follow(self._store.get(name), shared, also) for name in names)]

    def throttle(self, name: str, until: int, reason: str) -> list[SharedLimit]:
        """Lets nothing start in any shard until that time, epoch ms. Returns all shards."""
        shared = self._store.throttle(name, until, reason)
        while shared.is_changing:
            self.finish(shared)
            shared = self._store.throttle(name, until, reason)
        return self.spread(shared)

    def finish(self, shared: SharedLimit) -> list[SharedLimit]:
        """Finishes the change of limits or shards that the first shard shows. Returns all shards.

        Each step may be repeated, also by several processes at once.
        """
        while shared.is_changing:
            shards = [shared, *self._closed(shared)]
            used_up_at = max((at for one in shards for at in one.starts[:1]), default=0)
            used_up = (used_up_at, sum(one.started for one in shards))
            others = [self._opened(one, shared, used_up) for one in shards[1:]]
            write = self._store.change(shared, self._open(shared, used_up))
            shared = write.shared
            if isinstance(write, SharedWritten):
                return [shared, *others[: shared.shards - 1]]
        return self.spread(shared)

    def _closed(self, shared: SharedLimit) -> list[SharedLimit]:
        """The other shards, of before and of after, each closed unless this change has opened it."""
        found = [self._store.get(item_name(shared.name, index)) for index in range(1, MAX_SHARDS)]
        used = [one for one in found if index_of(one.name) < shared.shards or one.revision]
        return [self._follow(one, shared) for one in used]

    def _follow(self, seen: SharedLimit, control: SharedLimit, also: Change | None = None) -> SharedLimit:
        """The shard with the state of the first one, unless it has a newer one."""
        return self._write(seen, lambda one: one.revision < control.revision, partial(_following, control, also))

    def _opened(self, seen: SharedLimit, control: SharedLimit, used_up: tuple[int, int]) -> SharedLimit:
        return self._write(seen, lambda one: one.revision <= control.revision, lambda one: self._open(one, used_up))

    def _open(self, shared: SharedLimit, used_up: tuple[int, int]) -> SharedLimit:
        """used_up: when, epoch ms, and how many starts were taken; 0 if none was."""
        limits = self.share(shared) or ()
        is_used = used_up[0] and index_of(shared.name) < shared.shards
        full = full_at(shared, limits, *used_up) if is_used else shared
        # A later attempt of a task that is listed may count against another shard: nobody would take it off here.
        holders = None if most_at_once(limits) is None else shared.holders
        return replace(full, holders=holders, is_changing=False, revision=shared.revision + 1)

    def _write(self, seen: SharedLimit, is_older: Callable[[SharedLimit], bool], change: Change) -> SharedLimit:
        for _ in range(WRITE_TRIES):
            if not is_older(seen):
                return seen
            write = self._store.change(seen, change(seen))
            if isinstance(write, SharedWritten):
                return write.shared
            seen = write.shared
        raise UnavailableError(f"the shard {seen.name} is changed too often to be changed once more")


def _following(control: SharedLimit, also: Change | None, shard: SharedLimit) -> SharedLimit:
    changed = controlled_by(shard, control)
    return also(changed) if also else changed
