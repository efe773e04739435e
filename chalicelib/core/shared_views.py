"""What a shared limit adds to the views of lanes and tasks that wait for it. Pure. Times are epoch ms."""

from msgspec.structs import replace

from chalicelib.core.lane import FOREVER_MS, Lane
from chalicelib.core.shared_estimates import SharedState, expected
from chalicelib.core.shared_groups import Member
from chalicelib.core.shared_limit import SharedLimit, turn_time
from chalicelib.core.task import TaskState
from chalicelib.core.views import TaskView, WaitsFor


def waits_for(lane: Lane, state: SharedState, now_ms: int, queue: SharedLimit | None = None) -> WaitsFor | None:
    """None if the lane has no turn for the shared limit, or has lost it. queue: in which it waits with its group."""
    shared, limits = state.shared, state.limits
    turn = lane.turn_for(shared.name)
    if queue and (number := lane.turn_in_group(shared.name)):
        turn = Member(queue, number).expected_turn(shared)
    if not turn:
        return None
    is_known = shared.paused_until != FOREVER_MS and not shared.is_full(limits)
    start_at = turn_time(shared, limits, turn, now_ms) if is_known else None
    return WaitsFor(state.name, shared.ahead_of(turn), start_at)


def behind_shared(
    view: TaskView, lane: Lane, state: SharedState, now_ms: int, queue: SharedLimit | None = None
) -> TaskView:
    """The view of a task that waits in its lane, with the wait that its shared limit adds."""
    if view.state is not TaskState.QUEUED:
        return view
    is_first = not lane.waiting_before(view.record.task.seq)
    if is_first and (turn := waits_for(lane, state, now_ms, queue)):
        before, at, is_now = turn.before, turn.start_at, False
    else:
        waits = expected(state, now_ms, view.record.task.units)
        before, at, is_now = waits.before, waits.estimated_at, waits.is_now(now_ms)
        at = None if waits.is_full else at
    position = 0 if view.position == 0 and is_now else max(1, view.position) + before
    estimated_at = None if at is None or view.estimated_at is None else max(at, view.estimated_at)
    return replace(view, position=position, estimated_at=estimated_at)
