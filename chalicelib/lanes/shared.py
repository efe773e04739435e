"""Views and controls of shared limits: what is left, who waits, changed limits, pause, resume."""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from chalicelib.core.contention import RetryWithJitter
from chalicelib.core.errors import NotFoundError, UnavailableError
from chalicelib.core.lane import CLOCKS_DIFFER_MS, FOREVER_MS, Lane
from chalicelib.core.limits import Limits
from chalicelib.core.ports import Clock, LaneStore, SharedBacklog, SharedLimitStore, SharedWritten, TaskQueue
from chalicelib.core.shared_estimates import SharedState, used_of, waiting_of
from chalicelib.core.shared_groups import has_waiters_turn, queue_name, wake_first
from chalicelib.core.shared_limit import SharedLimit, Waiter, paused_shared, resumed_shared, with_shared_limits
from chalicelib.core.shared_views import behind_shared, waits_for
from chalicelib.core.task import TaskState
from chalicelib.core.views import TaskView, WaitsFor

#: Lanes that a view lists, and that a change wakes, of those that wait; the others look again by themselves.
MAX_WAITERS = 20


class SharedView(Struct, frozen=True):
    """A shared limit and who waits for it."""

    state: SharedState
    #: as SHARED_LIMITS has it; None if it does not
    setting: Limits | None
    now_ms: int
    #: those with the next turns
    waiters: Sequence[Waiter] = ()


class SharedStates:
    """Reads shared limits for one answer, each once."""

    def __init__(self, shared_limits: SharedLimitStore, settings: Mapping[str, Limits]) -> None:
        """settings: the limits of those in SHARED_LIMITS, by name."""
        self._shared_limits = shared_limits
        self._settings = settings
        self._read: dict[str, SharedState | None] = {}

    def get(self, name: str) -> SharedState | None:
        """None if there is none of that name."""
        if name not in self._read:
            shared = self._shared_limits.get(name)
            limits = self._settings.get(name) if shared.limits is None else shared.limits
            self._read[name] = None if limits is None else SharedState(shared, limits)
        return self._read[name]

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
        state = self.get(task.shared)
        return behind_shared(view, lane, state, now_ms, self._queue_of(lane, task.shared)) if state else view

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
    ) -> None:
        """settings: the limits of those in SHARED_LIMITS, by name."""
        self._shared_limits = shared_limits
        self._lanes = lanes
        self._queue = queue
        self._clock = clock
        self._retry = retry
        self._settings = settings

    def all(self) -> list[SharedView]:
        """All shared limits, by name, each with who waits."""
        read = map(self._shared_limits.get, sorted({*self._settings, *self._shared_limits.names()}))
        return [self._listed(shared) for shared in read if self._limits(shared) is not None]

    def backlogs(self) -> list[SharedBacklog]:
        """How far each of them is used, for metrics."""
        return [_backlog(view.state, view.now_ms) for view in self.all()]

    def one(self, name: str) -> SharedView:
        """The shared limit and who waits. NotFoundError if there is none of that name."""
        return self._listed(self._existing(name))

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

        return self._apply(self._existing(name), deleted)

    def pause(self, name: str, until: int | None) -> SharedView:
        """Pauses it until that time, epoch ms, None for no end. After it returns, no task starts that counts."""
        return self._apply(self._existing(name), lambda shared: paused_shared(shared, until))

    def resume(self, name: str) -> SharedView:
        """Ends pause and throttling."""
        return self._apply(self._existing(name), lambda shared: resumed_shared(shared, self._clock.now_ms()))

    def _apply(self, shared: SharedLimit, how: Callable[[SharedLimit], SharedLimit]) -> SharedView:
        shared = self._change(shared, how)
        self._wait_for_newest_start(shared)
        view = self._listed(shared)
        if shared.paused_until != FOREVER_MS:
            self._wake(shared, view.waiters)
        return view

    def _wait_for_newest_start(self, shared: SharedLimit) -> None:
        """A start that was taken before the change may reach its lane so long after its time, and not later."""
        newest, now_ms = shared.starts[0] if shared.starts else 0, self._clock.now_ms()
        if now_ms - CLOCKS_DIFFER_MS <= newest < now_ms + CLOCKS_DIFFER_MS:
            self._clock.sleep_until(newest + CLOCKS_DIFFER_MS + 1)

    def _change(self, shared: SharedLimit, how: Callable[[SharedLimit], SharedLimit]) -> SharedLimit:
        for tries in self._retry.tries():
            self._retry.pause(tries)
            write = self._shared_limits.change(shared, how(shared))
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
        if self._limits(shared) is None:
            known = ", ".join(sorted({*self._settings, *self._shared_limits.names()})) or "none"
            raise NotFoundError("No such shared limit", f"There is no {name[:64]!r}; there are: {known}.", "name")
        return shared

    def _limits(self, shared: SharedLimit) -> Limits | None:
        """Those in force; None if it does not exist."""
        return self._settings.get(shared.name) if shared.limits is None else shared.limits

    def _listed(self, shared: SharedLimit) -> SharedView:
        waiters = self._shared_limits.waiters(shared.name, shared.served, MAX_WAITERS) if shared.waiting else []
        return self._view(shared, waiters)

    def _view(self, shared: SharedLimit, waiters: Sequence[Waiter] = ()) -> SharedView:
        limits, setting = self._limits(shared), self._settings.get(shared.name)
        return SharedView(SharedState(shared, limits or ()), setting, self._clock.now_ms(), waiters)


def _backlog(state: SharedState, now_ms: int) -> SharedBacklog:
    used = {limit.name: (used_of(state, limit, now_ms).used, limit.quota) for limit in state.limits}
    return SharedBacklog(state.name, waiting_of(state, now_ms), len(state.shared.holders or {}), used)
