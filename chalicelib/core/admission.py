"""Admission: the next planned starts of a lane, as pure decisions on values. A store makes them atomic.

A decision says which lane to write; a store writes it on condition that the lane is still the one decided on.
"""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.estimates import plans_from
from chalicelib.core.lane import Lane
from chalicelib.core.limits import Limits, earliest_start, fingerprint, memory_needed


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


def admit(
    lane: Lane,
    limits: Limits,
    now_ms: int,
    newest: str,
    count: int = 1,
    units: Sequence[int] = (),  # noqa: ARG001
) -> Admission:
    """Plans the next `count` starts of the lane.

    newest: the id of the last of the tasks to be admitted. units: one number for each task; empty if each has 1.

    >>> from chalicelib.core.limits import parse_limits
    >>> one = admit(Lane("ann"), parse_limits("1/second; 20/minute"), 5_000, "t1")
    >>> one.planned, one.first_seq
    ((5000,), 1)
    >>> admit(one.lane, parse_limits("1/second; 20/minute"), 5_010, "t3", count=2).planned
    (6000, 7000)
    """
    starts = list(lane.counted)
    begin = plans_from(lane, limits, now_ms)
    is_any_forgotten = lane.admitted > len(lane.planned) or lane.has_forgotten_starts
    for _ in range(count):
        starts.insert(0, earliest_start(starts, limits, begin, is_any_forgotten))
    planned = starts[:count]
    after = replace(
        lane,
        admitted=lane.admitted + count,
        planned=(*planned, *lane.planned)[: memory_needed(limits)],
        newest=newest,
        planned_under=fingerprint(limits),
    )
    return Admission(tuple(reversed(planned)), after, limits)


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
    starts = list(known)
    while len(starts) < len(expected):
        latest = [starts[limit.quota - 1] - limit.window_ms for limit in limits if limit.quota <= len(starts)]
        starts.insert(0, min(starts[0], *latest))
    return tuple(starts)
