"""Changes of a whole lane, as pure functions: limits, pause, resume, cancellation, new plans.

Each returns the changed lane; `LaneStore.change` writes it if the lane was not written meanwhile.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from msgspec.structs import replace

from chalicelib.core.estimates import estimated_starts, opens_at, planner_of_backlog, plans_from
from chalicelib.core.history import NO_HISTORY, History, updated, without_future
from chalicelib.core.lane import CLOCKS_DIFFER_MS, LEASE_MS, Lane, Lease, Phase
from chalicelib.core.limits import Limits, fingerprint, large_limits, memory_needed, smallest_units_quota

#: Milliseconds after an emptying within which messages of its tasks may still come: as long as SQS keeps one.
EMPTIED_KEPT_MS = 14 * 86_400_000


def with_limits(lane: Lane, own: Limits | None, default: Limits, now_ms: int) -> Lane:
    """The lane under limits of its own, or under the default again; its backlog is planned anew."""
    return replanned(replace(lane, limits=own), own or default, now_ms)


def up_to_date(lane: Lane, limits: Limits, now_ms: int) -> Lane:
    """The lane itself, or planned anew if its waiting tasks have plans that can't come true any more.

    They were planned under an earlier default, or before the lane was throttled or its first task failed. limits: in
    force now.
    """
    if _has_plans_to_count_anew(lane, limits):
        return replanned(lane, limits, now_ms)
    if not lane.waiting:
        return lane
    is_held_up = lane.throttled_until > now_ms or lane.retrying is not None
    is_too_early = is_held_up and max(lane.planned, default=0) < plans_from(lane, limits, now_ms)
    return replanned(lane, limits, now_ms) if is_too_early or lane.has_old_plans(limits) else lane


def _has_plans_to_count_anew(lane: Lane, limits: Limits) -> bool:
    """True if large limits are in force and the planned starts were counted under others, or without what came since:

    later attempts, or corrected units.
    """
    large = large_limits(limits)
    if not large or not lane.admitted:
        return False
    lacks_room = lane.plans.room is None and not all(limit.counts_units for limit in large)
    lacks_room = lacks_room or (lane.plans.unit_room is None and smallest_units_quota(limits) is not None)
    is_old = lane.planned_under != fingerprint(limits) or lacks_room
    return is_old or bool(lane.retries) or lane.plans.is_outdated


def with_group(lane: Lane, group: str) -> Lane:
    """The lane of a user in that group, "" for none. It loses its turn: it asks again, with its new group."""
    return lane if group == lane.group else replace(lane, group=group, turn=None, revision=lane.revision + 1)


def paused(lane: Lane, until: int, default: Limits, now_ms: int) -> Lane:
    """The lane, paused until that time, epoch ms; FOREVER_MS for no end."""
    return replanned(replace(lane, paused_until=until, turn=None), lane.limits_or(default), now_ms)


def resumed(lane: Lane, default: Limits, now_ms: int) -> Lane:
    """The lane without pause and throttling, and without starts in the future; its backlog is planned anew.

    Such a start comes from a worker whose clock was ahead, so its task really started before now.
    """
    opened = replace(
        lane,
        paused_until=None,
        throttled_until=0,
        throttled_reason="",
        starts=_without_future(lane.starts, now_ms),
        real=_history_without_future(lane, now_ms),
        running=_reopened(lane, lane.running, now_ms),
        slots=_reopened_slots(lane, now_ms),
        reported_at=min(lane.reported_at, now_ms + CLOCKS_DIFFER_MS),
    )
    return replanned(opened, lane.limits_or(default), now_ms)


def _without_future(starts: Sequence[int], now_ms: int) -> tuple[int, ...]:
    """The starts, newest first, those in the future set to now, or to an older one that was claimed ahead of time.

    >>> _without_future((9_000_000, 5_100, 4_000), 5_000)
    (5100, 5100, 4000)
    """
    oldest_first = (now_ms if at > now_ms + CLOCKS_DIFFER_MS else at for at in reversed(starts))
    return tuple(reversed([*accumulate(oldest_first, max)]))


def _history_without_future(lane: Lane, now_ms: int) -> History:
    return lane.real if start_ahead(lane, now_ms) is None else without_future(lane.real, now_ms + CLOCKS_DIFFER_MS)


def _reopened_slots(lane: Lane, now_ms: int) -> Mapping[str, Lease] | None:
    if not lane.slots:
        return lane.slots
    reopened = {task_id: _reopened(lane, lease, now_ms) for task_id, lease in lane.slots.items()}
    return {task_id: lease for task_id, lease in reopened.items() if lease}


def _reopened(lane: Lane, lease: Lease | None, now_ms: int) -> Lease | None:
    """The lease: over if it only keeps a throttled task back, and no longer than any worker's lease."""
    if lease is None:
        return None
    is_ahead = start_ahead(lane, now_ms) is not None
    if is_ahead and lease.used:
        lease = replace(lease, used=(lease.used[0], min(lease.used[1], now_ms + CLOCKS_DIFFER_MS)))
    if lane.throttled_until > now_ms and lease.until == lane.throttled_until:
        return replace(lease, until=now_ms)
    return replace(lease, until=min(lease.until, now_ms + LEASE_MS)) if is_ahead else lease


def start_ahead(lane: Lane, now_ms: int) -> int | None:
    """A start in the future, epoch ms, which a worker recorded whose clock was ahead. Nothing starts before it."""
    newest = max(lane.starts, default=0)
    return newest if newest > now_ms + CLOCKS_DIFFER_MS else None


def without(lane: Lane, cancelled: Mapping[str, int]) -> Lane:
    """The lane with these waiting tasks, id and seq, cancelled; those behind them keep their planned starts.

    An empty lane loses its turn.
    """
    after = replace(lane, cancelled={**lane.cancelled, **cancelled}, revision=lane.revision + 1)
    return replace(after, turn=lane.kept_turn if after.waiting or lane.retrying else None)


def without_retrying(lane: Lane, lease: Lease, seq: int, default: Limits, now_ms: int) -> Lane:
    """The lane with a task between two attempts, with that lease and seq, cancelled; it delays no other task."""
    if lease.in_slot:  # its message takes it out of its slot
        return without(lane, {lease.task_id: seq})
    over = replace(lease, phase=Phase.STARTED, until=now_ms)
    lane = replace(without(lane, {lease.task_id: seq}), running=over)
    return replanned(lane, lane.limits_or(default), now_ms)


def without_cancelled_run(lane: Lane, lease: Lease, default: Limits, now_ms: int) -> Lane:
    """The lane with this lease over, of a task that was cancelled while it ran, so that no renewal finds it."""
    over = replace(lease, phase=Phase.STARTED, until=min(lease.until, now_ms), token=lease.last_token)
    if lease.in_slot:
        lane = replace(lane, slots={**(lane.slots or {}), lease.task_id: over})
    else:
        lane = replace(lane, running=over)
    return replanned(lane, lane.limits_or(default), now_ms)


def emptied(lane: Lane, retrying: Mapping[str, int], default: Limits, at: int, now_ms: int) -> Lane:
    """The lane with each waiting task cancelled; those that have started go on, except between two attempts.

    retrying: id and seq of the tasks between two attempts. at: epoch ms; scheduled tasks submitted up to then are
    cancelled too. Workers log the cancellations as the messages come.
    """
    running = lane.running
    if running and running.task_id in retrying:
        running = replace(running, phase=Phase.STARTED, until=now_ms)
    is_drained_long_ago = at > lane.emptied_at + EMPTIED_KEPT_MS
    after = replace(
        lane,
        running=running,
        cancelled={**lane.cancelled, **retrying},
        started_seq=max(lane.started_seq, lane.admitted),
        emptied_seq=lane.admitted,
        emptied_from=lane.started_seq if is_drained_long_ago else lane.emptied_from,
        emptied_at=at,
        waiting_units=0,
        turn=None,
    )
    return replanned(after, lane.limits_or(default), now_ms)


def forgotten(lane: Lane, default: Limits, now_ms: int) -> Lane:
    """The lane of a user without work who is forgotten: its seqs and starts, and until when an API is not called."""
    after = replace(
        lane,
        limits=None,
        paused_until=None,
        group="",
        turn=None,
        forgotten_seq=lane.admitted,
        forgotten_at=now_ms,
    )
    return replanned(after, default, now_ms)


def replanned(lane: Lane, limits: Limits, now_ms: int) -> Lane:
    """Plans the waiting tasks anew from the real starts, so they start as soon as the limits allow now."""
    planned, plans = _counted_plans(lane, limits, now_ms) if large_limits(limits) else _plans(lane, limits, now_ms)
    return replace(
        lane,
        planned=planned,
        plans=plans,
        waiting_units=lane.waiting_units if lane.waiting else 0,
        planned_under=fingerprint(limits),
        retries=(),  # the real starts among the planned ones include them
        replanned_seq=lane.admitted,
        replanned_at=opens_at(lane, now_ms),
        revision=lane.revision + 1,
        turn=lane.kept_turn,
    )


def _plans(lane: Lane, limits: Limits, now_ms: int) -> tuple[tuple[int, ...], History]:
    estimates = estimated_starts(lane, limits, now_ms, [now_ms] * lane.waiting)
    planned = [*reversed(estimates), *lane.starts]
    if lane.started == len(lane.starts):  # the lane remembers all of them; cancelled tasks took none
        planned += [0] * (lane.admitted - len(planned))
    return tuple(planned[: memory_needed(limits)]), NO_HISTORY


def _counted_plans(lane: Lane, limits: Limits, now_ms: int) -> tuple[tuple[int, ...], History]:
    """The plans under large limits; they count the next attempt of a failed task too, until they are made anew."""
    planner, _ = planner_of_backlog(lane, limits, now_ms, lane.waiting)
    planned = tuple(planner.listed)
    return planned, updated(NO_HISTORY, planned, lane.admitted, planner.tallies())


def with_run_time(lane: Lane, took_ms: int) -> Lane:
    """The lane with one more task in its average run time, in which the latest ones count most.

    >>> from itertools import accumulate
    >>> list(accumulate((3_000, 3_000, 1_000), with_run_time, initial=Lane("ann")))[-1].took_ms
    2500
    """
    average_ms = (3 * lane.took_ms + took_ms) // 4 if lane.took_ms else took_ms
    return replace(lane, took_ms=max(1, average_ms))  # 0 stands for unknown
