"""When the tasks of a lane will start, and their position in line. Pure."""

import heapq
from collections.abc import Sequence

from msgspec import Struct

from chalicelib.core.history import listed_for, tallies_of
from chalicelib.core.lane import BRIEF_MS, FOREVER_MS, MARKED_AFTER_MS, MARKED_BY_MS, Lane, Lease, Phase
from chalicelib.core.limits import Limit, Limits, at_once, large_limits
from chalicelib.core.planner import Planner
from chalicelib.core.tally import Tally, counted, resets_at, used_at


class Usage(Struct, frozen=True):
    """How far a limit is used, in starts or units."""

    #: planned starts included, so more than the quota if tasks wait for it
    used: int
    #: when the limit allows one more than now, epoch ms; now if it is not used at all
    resets_at: int


def estimated_starts(
    lane: Lane, limits: Limits, now_ms: int, planned: Sequence[int], with_run_times: bool = False
) -> list[int]:
    """When the lane's next tasks will start if nothing else is late, from its real starts, in order.

    planned: the earliest time of each of them, in order, epoch ms. A pause without an end counts as over now. A task
    between two attempts starts before them.
    with_run_times: each task waits for the end of the one before it, by the lane's average run time.
    """
    planner, begin, estimates = _planner(lane, limits), opens_at(lane, now_ms), list[int]()
    took_ms = lane.took_ms if with_run_times and lane.took_ms >= BRIEF_MS else 0
    if lane.retrying:
        begin = planner.next(max(begin, lane.retrying.until), lane.units_each) + took_ms
    elif with_run_times:
        begin = max(begin, expected_end(lane, now_ms) or 0)
    if is_beside(lane, limits):
        return _estimates_beside(lane, limits, now_ms, planned, with_run_times)
    for at in planned:
        estimates.append(planner.next(max(begin, at), lane.units_each))
        begin = estimates[-1] + took_ms
    return estimates


def _estimates_beside(
    lane: Lane, limits: Limits, now_ms: int, planned: Sequence[int], with_run_times: bool
) -> list[int]:
    """The same where several tasks may run at once: with_run_times, each waits for the slot that is free first."""
    planner, begin, estimates = _planner(lane, limits), opens_at(lane, now_ms), list[int]()
    free = slot_ends(lane, limits, now_ms) if with_run_times else []
    for at in planned:
        estimates.append(planner.next(max(begin, at, free[0] if free else 0), lane.units_each))
        begin = estimates[-1]
        if free:
            heapq.heapreplace(free, begin + lane.took_ms)
    return estimates


def is_beside(lane: Lane, limits: Limits) -> bool:
    """True if several of the lane's tasks may run at once, or did lately."""
    return at_once(limits) > 1 or bool(lane.slots)


def slot_ends(lane: Lane, limits: Limits, now_ms: int) -> list[int]:
    """When each slot that a waiting task may take is free, soonest first, epoch ms; now for one that is free.

    A task ends by the average run time; one that has outlasted it in a second at the earliest, if it is marked.

    >>> from chalicelib.core.limits import parse_limits
    >>> from chalicelib.core.lane import Lease
    >>> slots = {f"t{n}": Lease(f"t{n}", 1, until=15_000, token="w", starts=(n * 1_000,)) for n in (5, 6)}
    >>> lane = Lane("ann", slots=slots, took_ms=3_000)
    >>> slot_ends(lane, parse_limits("1/second; 3 at once"), 7_000)
    [7000, 8000, 9000]
    >>> slot_ends(lane, parse_limits("1/second"), 7_000)  # both have to end
    [9000]
    """
    ends = sorted(_end_of(lease, lane.took_ms, now_ms) for lease in lane.in_use(now_ms))
    most = at_once(limits)
    return ends[-most:] if len(ends) >= most else [now_ms] * (most - len(ends)) + ends


def _end_of(lease: Lease, took_ms: int, now_ms: int) -> int:
    begun_at = lease.starts[-1] if lease.starts else now_ms
    return max(begun_at + took_ms, now_ms + (MARKED_AFTER_MS if lease.phase is Phase.RUNNING else 0))


def estimated_start(lane: Lane, limits: Limits, now_ms: int, ahead: int, with_run_times: bool = False) -> int:
    """When a task will start that has `ahead` waiting tasks before it, from the lane's real starts, epoch ms."""
    if large_limits(limits) and not (
        with_run_times and (lane.took_ms >= BRIEF_MS or expected_end(lane, now_ms) or lane.slots)
    ):
        return planner_of_backlog(lane, limits, now_ms, ahead + 1)[1]
    return estimated_starts(lane, limits, now_ms, [now_ms] * (ahead + 1), with_run_times)[-1]


def planner_of_backlog(lane: Lane, limits: Limits, now_ms: int, count: int) -> tuple[Planner, int]:
    """A planner that has planned the lane's next `count` starts from now on, and the last of them, epoch ms.

    A task between two attempts starts before them. Work by buckets where all limits are large.
    """
    planner, begin, left = _planner(lane, limits), opens_at(lane, now_ms), count
    if lane.retrying:
        begin = planner.next(max(begin, lane.retrying.until), lane.units_each)
    while left > 0:
        begin = planner.next(begin, lane.units_each)
        left -= 1 + planner.more(begin, lane.units_each, left - 1)
    return planner, begin


def retry_at(lane: Lane, limits: Limits, now_ms: int, lease: Lease | None = None) -> int:
    """When the task between two attempts will start, epoch ms. lease: its own, None for the one at the lane's head."""
    lease = lease or lane.retrying
    backoff_ends_at = lease.until if lease else 0
    return _planner(lane, limits).next(max(opens_at(lane, now_ms), backoff_ends_at), lane.units_each)


def planner_of_plans(lane: Lane, limits: Limits) -> Planner:
    """A planner that knows the lane's planned starts, and those of later attempts, which count beside them."""
    is_any_forgotten = lane.admitted > len(lane.planned) or lane.has_forgotten_starts
    tallies = _plan_tallies(lane, limits)
    return Planner(lane.counted, is_any_forgotten, limits, tallies)


def _planner(lane: Lane, limits: Limits) -> Planner:
    """A planner that knows the lane's real starts."""
    if not large_limits(limits) and not lane.real.tallies:
        return Planner(lane.starts, lane.has_forgotten_starts, limits)
    listed = listed_for(lane.real, lane.starts, lane.started, limits)
    return Planner(listed, lane.started > len(listed), limits, tallies_of(lane.real, lane.starts, lane.started, limits))


def _plan_tallies(lane: Lane, limits: Limits) -> dict[Limit, Tally]:
    if not large_limits(limits):
        return {}
    retries = [(at, 1) for at in lane.retries]
    tallies = tallies_of(lane.plans, lane.planned, lane.admitted, limits)
    return {limit: counted(tally, limit, retries) for limit, tally in tallies.items()}


def expected_end(lane: Lane, now_ms: int) -> int | None:
    """When the lane's started task will end, by the average run time, epoch ms; None if none is known to run.

    A marked task that has outlasted the average ends in a second at the earliest. A task without a mark counts as
    running while it may not have been marked yet, if the average says that it runs.

    >>> from msgspec.structs import replace
    >>> from chalicelib.core.lane import Lease
    >>> lease = Lease("t1", 1, until=15_000, token="w")
    >>> lane = Lane("ann", starts=(5_000,), running=lease, took_ms=3_000)
    >>> [expected_end(lane, now_ms) for now_ms in (5_400, 6_199, 6_200)]
    [8000, 8000, None]
    >>> marked = replace(lane, running=replace(lease, phase=Phase.RUNNING))
    >>> [expected_end(marked, now_ms) for now_ms in (6_500, 9_000, 15_000)]
    [8000, 10000, None]
    """
    lease = lane.running
    if lane.retrying:
        return max(now_ms, lane.retrying.until) + lane.took_ms
    if lease is None or lease.until <= now_ms or not lane.starts:
        return None
    started_at = lane.starts[0]
    if lease.phase is Phase.RUNNING:
        return max(started_at + lane.took_ms, now_ms + MARKED_AFTER_MS)
    return started_at + lane.took_ms if now_ms < started_at + min(lane.took_ms, MARKED_BY_MS) else None


def busy_ms(lane: Lane, limits: Limits, seq: int, now_ms: int) -> int:
    """How long the tasks ahead of that seq keep all that may run at once busy; 0 if less than a second.

    >>> from chalicelib.core.limits import parse_limits
    >>> from chalicelib.core.lane import Lease
    >>> slots = {f"t{n}": Lease(f"t{n}", 1, until=15_000, token="w", starts=(n * 1_000,)) for n in (5, 6)}
    >>> lane = Lane("ann", admitted=6, started_seq=2, slots=slots, took_ms=3_000)
    >>> [busy_ms(lane, parse_limits("1/second; 2 at once"), seq, 6_500) for seq in (3, 4, 5, 6)]
    [1500, 2500, 4500, 5500]
    >>> busy_ms(lane, parse_limits("1/second; 3 at once"), 3, 6_500)
    0
    """
    if is_beside(lane, limits):
        return _busy_beside(lane, limits, seq, now_ms)
    end = expected_end(lane, now_ms)
    waiting_ms = lane.waiting_before(seq) * lane.took_ms if lane.took_ms >= BRIEF_MS else 0
    expected_ms = (end - now_ms if end else 0) + waiting_ms
    return expected_ms if expected_ms >= MARKED_AFTER_MS else 0


def _busy_beside(lane: Lane, limits: Limits, seq: int, now_ms: int) -> int:
    ends, ahead = slot_ends(lane, limits, now_ms), lane.waiting_before(seq)
    took_ms = lane.took_ms if lane.took_ms >= BRIEF_MS else 0
    expected_ms = ends[ahead % len(ends)] - now_ms + ahead // len(ends) * took_ms
    return expected_ms if expected_ms >= MARKED_AFTER_MS else 0


def position_of(lane: Lane, limits: Limits, seq: int, planned_at: int, now_ms: int) -> int:
    """The position of a task that was just admitted: 0 if it may start now, else its number in line.

    It may not start now if limits, a pause or throttling keep it, or if the tasks ahead run for a second or more.
    While these keep even the first of those that wait from starting, that one is number 1; a running task, and one
    between two attempts, is ahead of it. Behind workers that are late a task has position 0 all the same: the user did
    not cause that wait.

    >>> from chalicelib.core.limits import parse_limits
    >>> limits = parse_limits("1/second; 20/minute")
    >>> begun = Lane("ann", admitted=3, started_seq=1, started=1, starts=(5_000,))
    >>> [position_of(begun, limits, seq, planned_at, 5_100) for seq, planned_at in ((2, 6_000), (3, 7_000))]
    [1, 2]
    """
    is_paused = lane.is_paused(now_ms)
    if planned_at <= now_ms and not is_paused and not busy_ms(lane, limits, seq, now_ms):
        return 0
    is_running = not lane.retrying and (expected_end(lane, now_ms) or 0) >= now_ms + MARKED_AFTER_MS
    if is_beside(lane, limits):
        is_running = busy_ms(lane, limits, lane.started_seq + 1, now_ms) > 0
    ahead = lane.waiting_before(seq) + (is_running or lane.retrying is not None)
    does_first_wait = is_paused or is_running or _first_start(lane, limits, now_ms) > now_ms
    return ahead + 1 if does_first_wait else max(1, ahead)


def _first_start(lane: Lane, limits: Limits, now_ms: int) -> int:
    """When the first of the waiting tasks may start; a task between two attempts is the first."""
    return retry_at(lane, limits, now_ms) if lane.retrying else estimated_starts(lane, limits, now_ms, [now_ms])[0]


def plans_from(lane: Lane, limits: Limits, now_ms: int) -> int:
    """The earliest planned start of a new task: after pause, throttling, and the next attempt of a failed task."""
    return estimated_starts(lane, limits, now_ms, [now_ms])[0] if lane.retrying else opens_at(lane, now_ms)


def open_at(lane: Lane, limits: Limits, now_ms: int, units: int = 1) -> int:
    """The planned start that one more task would get now, epoch ms."""
    return planner_of_plans(lane, limits).next(plans_from(lane, limits, now_ms), units)


def usage(lane: Lane, limit: Limit, now_ms: int) -> Usage:
    """What counts against the limit, one of those in force, at now_ms, planned starts included."""
    if not limit.is_large:
        taken = sum(1 for start in lane.counted if start > now_ms - limit.window_ms)
        newest = min(taken, limit.quota)
        return Usage(taken, lane.counted[newest - 1] + limit.window_ms if newest else now_ms)
    # Plans reach back no further than the last of them needs, so what counts now is what started and what waits.
    started = tallies_of(lane.real, lane.starts, lane.started, (limit,))[limit]
    waiting = lane.waiting + (lane.waiting_units if limit.counts_units else 0)
    total = used_at(started, limit, now_ms) + waiting
    tally = started if waiting < total < limit.quota else _plan_tallies(lane, (limit,))[limit]
    return Usage(total, resets_at(tally, limit, now_ms))


def started_units(lane: Lane, limit: Limit, now_ms: int) -> int:
    """The starts, or units, of real starts that count against the limit, one of those in force, at now_ms."""
    if not limit.is_large:
        return sum(1 for start in lane.starts if start > now_ms - limit.window_ms)
    return used_at(tallies_of(lane.real, lane.starts, lane.started, (limit,))[limit], limit, now_ms)


def opens_at(lane: Lane, now_ms: int) -> int:
    """The end of pause and throttling, epoch ms; now if there is neither, or if the pause has no end."""
    end = 0 if lane.paused_until is None or lane.paused_until == FOREVER_MS else lane.paused_until
    return max(now_ms, end, lane.throttled_until)
