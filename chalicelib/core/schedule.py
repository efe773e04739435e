"""A user's schedule: its task, its next tick, and the tick that is being submitted. Pure. Times are epoch ms.

A schedule has one next tick, and each change of it is a conditional write of the whole schedule. A dispatcher takes a
tick: the same write moves `next_at` on. So two dispatchers never submit one tick, and none submits an old one after a
change. The tick stays `pending` until its task is submitted, so that it survives the dispatcher that took it.
"""

import hashlib
import json

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.task import DEFAULT_TASK, Json
from chalicelib.core.ticks import Timing, last_tick, next_tick

#: Milliseconds after which another dispatcher may submit a tick that was taken: the first one may be dead.
TAKEN_MS = 30_000
#: Milliseconds after its time at which a tick's message counts as lost.
OVERDUE_MS = 300_000


class Order(Struct, frozen=True):
    """The task that each tick submits."""

    task: str = DEFAULT_TASK
    payload: Json = None
    #: as requested; None for the units of the task's definition
    units: int | None = None
    callback_url: str | None = None
    #: the task's units when the schedule was stored
    counted_units: int = 1
    #: as requested; None for the shared limit of the task's definition
    shared: str | None = None
    #: the task's shared limit when the schedule was stored; empty for none
    counted_shared: str = ""


class Pending(Struct, frozen=True):
    """A tick that was taken, and whose task may not be submitted yet."""

    at: int
    #: identifies the dispatcher that took it
    token: str
    #: until then it is that dispatcher's
    until: int


class Refusal(Struct, frozen=True):
    """A tick whose task was refused, such as by MAX_DELAY."""

    at: int
    reason: str


class Schedule(Struct, frozen=True):
    user_id: str
    name: str
    order: Order
    timing: Timing
    paused: bool
    created_at: int
    #: changes with the order, the timing and the pause
    generation: str
    #: None while it is paused
    next_at: int | None
    pending: Pending | None = None
    #: the last tick that was submitted or refused
    last_at: int | None = None
    #: id of the task that was submitted last
    last_task_id: str | None = None
    #: number of ticks that were refused, and the last of them
    refused: int = 0
    refusal: Refusal | None = None
    #: number of the message that brings the next tick; a message with a lower one ends
    bell: int = 0
    #: when that message was sent
    rung_at: int = 0
    #: number of this write of it; the first one's is the time, so that no two schedules of one name share numbers
    revision: int = 0

    @property
    def wakes_at(self) -> int | None:
        """When its message is to be received next; None while it needs none."""
        return self.pending.until if self.pending else self.next_at


def planned(schedule: Schedule, now_ms: int) -> Schedule:
    """The schedule with its next tick computed anew: later than now and than each tick it had."""
    timing = replace(schedule.timing, anchor=now_ms if schedule.timing.every_seconds else 0)
    next_at = None if schedule.paused else next_tick(timing, max(now_ms, schedule.last_at or 0))
    return replace(schedule, timing=timing, next_at=next_at)


def changed(schedule: Schedule, order: Order, timing: Timing, paused: bool, generation: str, now_ms: int) -> Schedule:
    """The schedule with these values; the same schedule if it has them already.

    Another timing, a pause or its end plans the next tick anew, so a schedule that is resumed does not catch up. A tick
    that was taken before and is not submitted yet is dropped with the order that it was taken for.
    """
    has_timing = replace(timing, anchor=schedule.timing.anchor) == schedule.timing and paused == schedule.paused
    if has_timing and order == schedule.order:
        return schedule
    last_at = schedule.pending.at if schedule.pending else schedule.last_at
    after = replace(schedule, order=order, paused=paused, generation=generation, pending=None, last_at=last_at)
    return after if has_timing else planned(replace(after, timing=timing), now_ms)


def taken(schedule: Schedule, token: str, now_ms: int) -> Schedule:
    """The schedule with its due tick taken. Of ticks that passed meanwhile the last is taken, the others are missed."""
    assert schedule.next_at is not None, "a paused schedule has no tick to take"
    at = last_tick(schedule.timing, schedule.next_at, now_ms)
    following = next_tick(schedule.timing, max(at, now_ms))
    return replace(schedule, next_at=following, pending=Pending(at, token, now_ms + TAKEN_MS))


def taken_over(schedule: Schedule, token: str, now_ms: int) -> Schedule:
    """The schedule with the pending tick taken from a dispatcher that may be dead."""
    assert schedule.pending is not None
    return replace(schedule, pending=Pending(schedule.pending.at, token, now_ms + TAKEN_MS))


def submitted(schedule: Schedule, task_id: str) -> Schedule:
    """The schedule once its pending tick's task is submitted."""
    assert schedule.pending is not None
    return replace(schedule, pending=None, last_at=schedule.pending.at, last_task_id=task_id)


def refused(schedule: Schedule, reason: str) -> Schedule:
    """The schedule once its pending tick's task is refused."""
    assert schedule.pending is not None
    at = schedule.pending.at
    return replace(schedule, pending=None, last_at=at, refused=schedule.refused + 1, refusal=Refusal(at, reason))


def is_overdue(schedule: Schedule, now_ms: int) -> bool:
    """True if the schedule's message is so late that it may be lost."""
    wakes_at = schedule.wakes_at
    return wakes_at is not None and max(wakes_at, schedule.rung_at) + OVERDUE_MS < now_ms


def tick_task_id(schedule: Schedule, at: int) -> str:
    """The id of the tick's task: a UUID of version 7 with the tick's time, the same for each try to submit it.

    It serves as the tick's idempotency key.
    """
    key = json.dumps([schedule.user_id, schedule.name, schedule.generation, at])
    chance = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big")
    number = (at << 80) | (0x7 << 76) | ((chance >> 64 & 0xFFF) << 64) | (0b10 << 62) | (chance & (1 << 62) - 1)
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
