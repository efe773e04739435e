"""Views and controls of shared limits: what is left, who waits, changed limits, pause, resume."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from chalicelib.core.contention import RetryWithJitter
from chalicelib.core.errors import NotFoundError, UnavailableError
from chalicelib.core.lane import CLOCKS_DIFFER_MS, FOREVER_MS, Lane
from chalicelib.core.limits import Limit, Limits
from chalicelib.core.ports import Clock, LaneStore, SharedBacklog, SharedLimitStore, SharedWritten, TaskQueue
from chalicelib.core.shared_estimates import SharedState, expected, state_of, used_of, waiting_of, wanted_of
from chalicelib.core.shared_groups import has_waiters_turn, queue_name, wake_first
from chalicelib.core.shared_layout import Change, SharedLayout
from chalicelib.core.shared_limit import (
    SharedLimit,
    Waiter,
    paused_shared,
    resumed_shared,
    with_shared_limits,
    without_starts_ahead,
)
from chalicelib.core.shared_shards import item_name, shard_of, share
from chalicelib.core.shared_views import behind_shared, waits_for
from chalicelib.core.task import Task, TaskState
from chalicelib.core.views import TaskView, WaitsFor

#: Lanes that a view lists, and that a change wakes, of those that wait; the others look again by themselves.
MAX_WAITERS = 20

#: A shard, and lanes that are listed as waiting for it.
Waiting = tuple[SharedLimit, Sequence[Waiter]]


class SharedUsage(Struct, frozen=True):
    #: starts, or units
    used: int
    left: int
    #: when more is left, epoch ms
    resets_at: int


class SharedView(Struct, frozen=True):
    """A shared limit and who waits for it."""

    #: the first shard, by which all are paused and throttled, with the limits of all together
    state: SharedState
    #: as SHARED_LIMITS has it; None if it does not
    setting: Limits | None
    now_ms: int
    #: those with the next turns
    waiters: Sequence[Waiter] = ()
    #: all shards
    shards: Sequence[SharedState] = ()

    @property
    def waiting(self) -> int:
        """Lanes that wait for their turn, about."""
        return sum(waiting_of(shard, self.now_ms) for shard in self.shards)

    @property
    def next_start_at(self) -> int | None:
        """When one of the shards allows the next start, epoch ms; None if none does before others end or resume it."""
        found = (expected(shard, self.now_ms) for shard in self.shards)
        return min((one.earliest_at for one in found if not one.is_full), default=None)

    @property
    def usage(self) -> Sequence[tuple[Limit, SharedUsage]]:
        """Each limit, with what counts against it and what is left for others than those that wait."""
        return [(limit, self._usage(index)) for index, limit in enumerate(self.state.limits)]

    def _usage(self, index: int) -> SharedUsage:
        now_ms, parts = self.now_ms, [(shard, shard.limits[index]) for shard in self.shards]
        used = [used_of(shard, part, now_ms) for shard, part in parts]
        left = sum(max(0, part.quota - wanted_of(shard, part, now_ms)) for shard, part in parts)
        return SharedUsage(sum(one.used for one in used), left, min(one.resets_at for one in used))

    @property
    def starts(self) -> Sequence[int]:
        """The newest starts, newest first, epoch ms."""
        return sorted((at for shard in self.shards for at in shard.shared.starts), reverse=True)

    @property
    def started(self) -> int:
        return sum(shard.shared.started for shard in self.shards)


class SharedStates:
    """Reads shared limits, or shards of them, for one answer, each once."""

    def __init__(self, shared_limits: SharedLimitStore, settings: Mapping[str, Limits]) -> None:
        """settings: the limits of those in SHARED_LIMITS, by name."""
        self._shared_limits = shared_limits
        self._settings = settings
        self._read: dict[str, SharedState | None] = {}

    def get(self, item: str) -> SharedState | None:
        """None if there is none of that name."""
        if item not in self._read:
            self._read[item] = state_of(self._shared_limits.get(item), self._settings)
        return self._read[item]

    def _of_task(self, task: Task) -> SharedState | None:
        """The shard that the task counts against."""
        first = self.get(task.shared)
        return self.get(shard_of(task.shared, task.task_id, first.shared.shards)) if first else None

    def waits_for(self, lane: Lane, now_ms: int) -> WaitsFor | None:
        """The shared limit that the lane waits for; None, and no read, for a lane without a turn."""
        if lane.turn is None or not (lane.turn_for(lane.turn.name) or lane.turn_in_group(lane.turn.name)):
            return None
        state = self.get(lane.turn.name)
        return waits_for(lane, state, now_ms, self._queue_of(lane, lane.turn.name)) if state else None

    def view(self, view: TaskView, lane: Lane | None, now_ms: int) -> TaskView:
        """The task's view with the wait that its shared limit adds; no read for a task without one."""
        task = view.record.task
        if lane is None or not task.shared or not task.seq or view.state is not TaskState.QUEUED:
            return view
        state = self._of_task(task)
        return behind_shared(view, lane, state, now_ms, self._queue_of(lane, state.shared.name)) if state else view

    def _queue_of(self, lane: Lane, name: str) -> SharedLimit | None:
        """The queue in which the lane waits with its group; None if it waits in none."""
        return self._shared_limits.get(queue_name(name, lane.group)) if lane.turn_in_group(name) else None


class SharedControl:
    def __init__(
        self,
        shared_limits: SharedLimitStore,
        lanes: LaneStore,
        queue: TaskQueue,
        clock: Clock,
        retry: RetryWithJitter,
        settings: Mapping[str, Limits],
        layout: SharedLayout | None = None,
    ) -> None:
        """settings: the limits of those in SHARED_LIMITS, by name."""
        self._shared_limits = shared_limits
        self._layout = layout or SharedLayout(shared_limits, clock, settings)
        self._lanes = lanes
        self._queue = queue
        self._clock = clock
        self._retry = retry
        self._settings = settings

    def all(self) -> list[SharedView]:
        """All shared limits, by name, each with who waits."""
        read = map(self._shared_limits.get, sorted({*self._settings, *self._shared_limits.names()}))
        found = (self._layout.shards(shared) for shared in read if self._layout.limits(shared) is not None)
        return [self._view(shards, self._waiters(shards)) for shards in found]

    def backlogs(self) -> list[SharedBacklog]:
        """How far each of them is used, for metrics."""
        return [_backlog(view) for view in self.all()]

    def one(self, name: str) -> SharedView:
        """The shared limit and who waits. NotFoundError if there is none of that name."""
        shards = self._layout.shards(self._existing(name))
        return self._view(shards, self._waiters(shards))

    def set_limits(self, name: str, limits: Limits) -> SharedView:
        """Sets its limits, in force from the next start on, whatever the setting says. Makes one that is not there."""
        return self._apply(
            self._shared_limits.get(name), lambda shared: with_shared_limits(shared, limits, self._clock.now_ms())
        )

    def delete(self, name: str) -> SharedView:
        """Takes the limits back that were set: those of the setting hold, or if there are none, none at all.

        Then also ends pause and throttling: tasks that wait for it go on under their users' limits alone.
        """

        def deleted(shared: SharedLimit) -> SharedLimit:
            if name not in self._settings:
                shared = resumed_shared(shared, self._clock.now_ms())
            return with_shared_limits(shared, None, self._clock.now_ms())

        return self._apply(self._existing(name), deleted, self._without_starts_ahead)

    def pause(self, name: str, until: int | None) -> SharedView:
        """Pauses it until that time, epoch ms, None for no end. After it returns, no task starts that counts."""
        return self._apply(self._existing(name), lambda shared: paused_shared(shared, until))

    def resume(self, name: str) -> SharedView:
        """Ends pause and throttling."""
        return self._apply(
            self._existing(name),
            lambda shared: resumed_shared(shared, self._clock.now_ms()),
            self._without_starts_ahead,
        )

    def _without_starts_ahead(self, shared: SharedLimit) -> SharedLimit:
        return without_starts_ahead(shared, self._clock.now_ms())

    def _apply(self, shared: SharedLimit, how: Change, others: Change | None = None) -> SharedView:
        """others: is done to the shards behind the first one."""
        shards_before = shared.shards
        shards = self._layout.spread(self._change(shared, how), others)
        self._wait_for_newest_start(shards)
        waiters = self._waiters(shards)
        if shards[0].paused_until != FOREVER_MS:
            given_up = [item_name(shared.name, index) for index in range(len(shards), shards_before)]
            # Lanes that wait at a shard that was given up ask for a turn of the one that their tasks count against now.
            for shard, listed in (*waiters, *self._waiters([self._shared_limits.get(item) for item in given_up])):
                self._wake(shard, listed)
        return self._view(shards, waiters)

    def _wait_for_newest_start(self, shards: Sequence[SharedLimit]) -> None:
        """A start that was taken before the change may reach its lane so long after its time, and not later."""
        newest, now_ms = max((at for one in shards for at in one.starts[:1]), default=0), self._clock.now_ms()
        if now_ms - CLOCKS_DIFFER_MS <= newest < now_ms + CLOCKS_DIFFER_MS:
            self._clock.sleep_until(newest + CLOCKS_DIFFER_MS + 1)

    def _change(self, shared: SharedLimit, how: Change) -> SharedLimit:
        """The first shard after the change."""
        for tries in self._retry.tries():
            self._retry.pause(tries)
            if shared.is_changing:
                shared = self._layout.finish(shared)[0]
            write = self._shared_limits.change(shared, self._layout.planned(shared, how(shared)))
            if isinstance(write, SharedWritten):
                return write.shared
            shared = write.shared
        raise UnavailableError(f"the shared limit {shared.name} is changed too often to be changed once more")

    def _wake(self, shared: SharedLimit, waiters: Sequence[Waiter]) -> None:
        """Shows the messages of these lanes to the workers: their waits were computed from the old state."""
        now_ms = self._clock.now_ms()
        for waiter in waiters:
            lane = self._lanes.get(waiter.user_id)
            if waiter.group and not has_waiters_turn(lane, shared, waiter):
                wake_first(self._shared_limits, self._lanes, self._queue, shared.name, waiter.group, now_ms)
                continue
            for receipt in lane.next_receipts(now_ms):
                self._queue.defer(receipt, 0)

    def _existing(self, name: str) -> SharedLimit:
        shared = self._shared_limits.get(name)
        if self._layout.limits(shared) is None:
            known = ", ".join(sorted({*self._settings, *self._shared_limits.names()})) or "none"
            raise NotFoundError("No such shared limit", f"There is no {name[:64]!r}; there are: {known}.", "name")
        return shared

    def _waiters(self, shards: Sequence[SharedLimit]) -> list[Waiting]:
        """Each shard with lanes that wait, and those of them with the next turns."""
        waiting = [shared for shared in shards if shared.waiting]
        return [(one, self._shared_limits.waiters(one.name, one.served, MAX_WAITERS)) for one in waiting]

    def _view(self, shards: Sequence[SharedLimit], waiters: Sequence[Waiting]) -> SharedView:
        first, limits = shards[0], self._layout.limits(shards[0]) or ()
        listed = sorted(
            ((one.turn - shard.served, one) for shard, all_of_it in waiters for one in all_of_it), key=_turn
        )
        parts = [share(limits, first.shards, index) for index in range(len(shards))]
        states = [SharedState(shard, part) for shard, part in zip(shards, parts, strict=True)]
        return SharedView(
            SharedState(first, limits),
            self._settings.get(first.name),
            self._clock.now_ms(),
            [one for _, one in listed[:MAX_WAITERS]],
            states,
        )


def _turn(listed: tuple[int, Waiter]) -> int:
    """The turns before that of the lane."""
    return listed[0]


def _backlog(view: SharedView) -> SharedBacklog:
    used = {limit.name: (usage.used, limit.quota) for limit, usage in view.usage}
    return SharedBacklog(view.state.name, view.waiting, len(view.state.shared.holders or {}), used)
