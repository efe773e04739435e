"""Admission: the next planned starts of a lane, as pure decisions on values. A store makes them atomic.

A decision says which lane to write; a store writes it on condition that the lane is still the one decided on.
"""

from collections.abc import Sequence
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.estimates import planner_of_plans, plans_from
from chalicelib.core.history import NO_HISTORY, listed_for, updated
from chalicelib.core.lane import Lane
from chalicelib.core.limits import Limits, at_once, fingerprint, large_limits, memory_needed
from chalicelib.core.planner import Planner
from chalicelib.core.task import Task


class Admission(Struct, frozen=True):
    """Planned starts that the lane reserves for new tasks, in order, epoch ms."""

    planned: tuple[int, ...]
    #: the lane with these starts reserved
    lane: Lane
    #: in force at the admission
    limits: Limits = ()

    @property
    def first_seq(self) -> int:
        return self.lane.admitted - len(self.planned) + 1


def admit(lane: Lane, limits: Limits, now_ms: int, newest: str, count: int = 1, units: Sequence[int] = ()) -> Admission:
    """Plans the next `count` starts of the lane.

    newest: the id of the last of the tasks to be admitted. units: one number for each task; empty if each has 1.

    >>> from chalicelib.core.limits import parse_limits
    >>> one = admit(Lane("ann"), parse_limits("1/second; 20/minute"), 5_000, "t1")
    >>> one.planned, one.first_seq
    ((5000,), 1)
    >>> admit(one.lane, parse_limits("1/second; 20/minute"), 5_010, "t3", count=2).planned
    (6000, 7000)
    """
    planner, begin = planner_of_plans(lane, limits), plans_from(lane, limits, now_ms)
    planned = _planned(planner, begin, units or (1,) * count)
    admitted, listed = lane.admitted + count, (*reversed(planned), *lane.planned)[: memory_needed(limits)]
    after = replace(
        lane,
        admitted=admitted,
        planned=listed,
        newest=newest,
        planned_under=fingerprint(limits),
        plans=updated(lane.plans, listed, admitted, planner.tallies()) if large_limits(limits) else NO_HISTORY,
        waiting_units=lane.waiting_units + sum(units) - (count if units else 0),
    )
    return Admission(tuple(planned), after, limits)


def _planned(planner: Planner, begin: int, units: Sequence[int]) -> list[int]:
    """One start for each of these tasks, in order; those that may start at one time are planned together."""
    planned: list[int] = []
    for each, same in groupby(units):
        left = len(list(same))
        while left:
            at = planner.next(begin, each)
            count = 1 + planner.more(at, each, left - 1)
            planned += [at] * count
            left -= count
    return planned


def reserved(lane: Lane, limits: Limits, expected: Sequence[int]) -> tuple[int, ...]:
    """The planned starts of the lane's newest `len(expected)` tasks, in order, epoch ms.

    Call it after a write was recognised as done: the starts in the lane may come from an earlier try of the same
    request, which planned them at another time.

    expected: the starts that this try planned. They are returned if the lane holds them. Otherwise the lane holds the
    starts of the earlier try, but only the newest of them; each older one is computed as the latest start that the
    limits allow before its successor.

    >>> from chalicelib.core.limits import parse_limits
    >>> lane = Lane("ann", admitted=9, planned=(8_000, 7_000))
    >>> reserved(lane, parse_limits("2/2 seconds; 1/second"), (2_000, 3_000, 4_000))
    (6000, 7000, 8000)
    """
    known = tuple(reversed(lane.planned[: len(expected)]))
    if known == tuple(expected[-len(known) :]):
        return tuple(expected)
    listed = listed_for(lane.plans, lane.planned, lane.admitted, limits, len(expected))
    starts = list(reversed(listed[: len(expected)]))
    if not starts:  # the lane was emptied since the earlier try, and its cancelled tasks have no planned starts
        return tuple(expected)
    while len(starts) < len(expected):
        latest = [starts[limit.quota - 1] - limit.window_ms for limit in limits if limit.quota <= len(starts)]
        starts.insert(0, min([starts[0], *latest]))
    return tuple(starts)


def may_start_in_slot(lane: Lane, task: Task, default: Limits, now_ms: int) -> bool:
    """True if the task, just admitted, may start now beside those that run.

    Then its message needs no place behind those of the lane: it goes to a group of its own, as if it was forwarded.
    """
    most = at_once(lane.limits_or(default))
    is_next = lane.started_seq == task.seq - 1 and task.planned_at <= now_ms and not lane.cancelled
    is_open = not lane.is_paused(now_ms) and not lane.is_throttled(now_ms) and not lane.retrying
    return most > 1 and is_next and is_open and len(lane.in_use(now_ms)) + len(lane.at_the_door(now_ms)) < most
