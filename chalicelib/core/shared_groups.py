"""Groups of users that take turns at a shared limit as one.

A group has one turn of a shared limit at a time, as a lane without a group has one. Its lanes that wait stand in the
group's queue, stored as a shared limit of its own without limits: a lane's number there is its turn in the queue, and
`turn` the group's newest turn of the shared limit. The first lane uses that turn, and gets the group's next one with
the same write.
"""

from msgspec import Struct

from chalicelib.core.lane import Lane
from chalicelib.core.limits import Limits
from chalicelib.core.ports import LaneStore, SharedLimitStore, TaskQueue
from chalicelib.core.shared_limit import MISSED_AFTER_MS, SharedLimit, Waiter, first_time

#: Turns used after the lane's own, if no more lanes wait, after which it asks for a new one.
PASSED_OVER = 3
#: Milliseconds within which a start follows the time at which it is allowed if the shared limit is full.
FULL_MS = 1_000
#: Milliseconds from a group's start to its next one, if others want the shared limit: about as long as a lane needs
#: from one task to the next, so that a group is not faster than a lane whose turn comes before its next task does.
GROUP_PAUSE_MS = 100
#: Milliseconds for which others count as wanting the shared limit after they have had a turn in it.
WANTED_FOR_MS = 1_000
#: Lanes of a queue that are looked at for the first one that still waits, and those before the newest that was served:
#: a lane that came late still waits.
MOST_LOOKED_AT, LATE_LOOKED_AT = 40, 3


def queue_name(shared: str, group: str) -> str:
    """The name of the group's queue for that shared limit; neither of the two names holds a space."""
    return f"{shared} {group}"


class Member(Struct, frozen=True):
    """A lane that waits in its group's queue, as both were read."""

    queue: SharedLimit
    #: its number in the queue
    number: int

    @property
    def before(self) -> int:
        """Lanes of the group that go first; some of them may have lost their numbers."""
        return max(0, self.number - self.queue.served - 1)

    @property
    def has_next(self) -> bool:
        """Another lane of the group waits."""
        return self.queue.asked > max(self.number, self.queue.served)

    @property
    def looks_for_lost(self) -> bool:
        """True for the lanes that find out if those before them wait no more: the next two, and every eighth."""
        return 0 < self.before <= 2 or (self.before > 0 and self.before % 8 == 0)

    def has_turn(self, shared: SharedLimit) -> bool:
        """True until the group's turn is used, or many later turns are: then the group asks for a new turn."""
        turn = self.queue.turn
        is_late = 0 < turn < shared.served and turn not in shared.used and not is_passed_over(shared, turn)
        return turn > shared.served or is_late

    def asks_from(self, shared: SharedLimit) -> int:
        """From when on the lane may ask for the group's next turn, epoch ms: those before it come first.

        The lane that has just used a turn may still store the next one.
        """
        is_newest = 0 < self.queue.turn == shared.served and bool(shared.starts)
        used_at = shared.starts[0] + MISSED_AFTER_MS if is_newest else 0
        return max(used_at, self.queue.turn_from) + self.before * MISSED_AFTER_MS

    def goes_behind(self, now_ms: int) -> bool:
        """True if the lane leaves what is free to those before it, since others than the group want it too."""
        return now_ms < self.queue.turn_from + (WANTED_FOR_MS if self.before else 0)

    def is_contended(self, shared: SharedLimit, allowed_at: int, at: int) -> bool:
        """True if the group's next lane and others want the shared limit while it is full: they take turns.

        A start is of a full one if it is taken at about the time from which on the limits and the turn allow it. Else
        each lane of the group may take what is free.
        """
        is_wanted = shared.asked > max(self.queue.turn, shared.served) or at < self.queue.turn_from + WANTED_FOR_MS
        return self.has_next and is_wanted and at < allowed_at + FULL_MS

    def may_use_turn(self, shared: SharedLimit, limits: Limits, units: int, now_ms: int) -> bool:
        """True for the first lane, and for the one behind each that missed the turn."""
        turn = self.queue.turn
        if not self.before:
            return True
        return turn > shared.served and bool(tuple(limits)) and now_ms >= self.takes_over_at(shared, limits, units)

    def takes_over_at(self, shared: SharedLimit, limits: Limits, units: int) -> int:
        """When all lanes before it will have missed the group's turn, epoch ms."""
        usable_at = max(first_time(shared, limits, self.queue.turn, units), self.queue.turn_from)
        return usable_at + self.before * MISSED_AFTER_MS

    def expected_turn(self, shared: SharedLimit) -> int:
        """The turn of the shared limit that the lane uses if each lane before it uses one of the group's."""
        first = self.queue.turn if self.queue.turn > shared.served else shared.asked + 1
        return first + self.before * max(1, shared.waiting)


def is_passed_over(shared: SharedLimit, turn: int) -> bool:
    return shared.served - turn >= max(PASSED_OVER, shared.waiting)


def has_waiters_turn(lane: Lane, shared: SharedLimit, waiter: Waiter) -> bool:
    """True if the lane still has the turn that it is listed with; one of a group, if it still waits with the group."""
    if waiter.group:
        return lane.group == waiter.group and lane.turn_in_group(shared.name) > 0
    return lane.turn_for(shared.name) == waiter.turn


def first_waiting(
    store: SharedLimitStore, lanes: LaneStore, queue: SharedLimit, without: int = 0
) -> tuple[Waiter, Lane] | None:
    """The first listed lane that still waits in the group's queue; None if there is none.

    without: a number that does not count.
    """
    shared, _, group = queue.name.partition(" ")
    for waiter in store.waiters(queue.name, max(0, queue.served - LATE_LOOKED_AT), MOST_LOOKED_AT):
        lane = lanes.get(waiter.user_id)
        if waiter.turn != without and lane.group == group and lane.turn_in_group(shared) == waiter.turn:
            return waiter, lane
    return None


def pass_over_lost(
    store: SharedLimitStore, lanes: LaneStore, messages: TaskQueue, before: Lane, after: Lane, now_ms: int
) -> None:
    """Lets the next lane of the group go first, and wakes it, if the change of a lane lost its number in the queue."""
    turn = before.turn
    if turn is None or not before.turn_in_group(turn.name):
        return
    is_kept = (after.group, after.turn_in_group(turn.name)) == (before.group, turn.number)
    if not is_kept and turn.number <= store.get(queue_name(turn.name, before.group)).served + 1:
        wake_first(store, lanes, messages, turn.name, before.group, now_ms)


def wake_first(
    store: SharedLimitStore, lanes: LaneStore, messages: TaskQueue, shared: str, group: str, now_ms: int
) -> None:
    """Lets the first lane go first that still waits in the group's queue, and wakes it."""
    queue = store.get(queue_name(shared, group))
    found = first_waiting(store, lanes, queue)
    if found is None:
        return
    waiter, lane = found
    if waiter.turn - 1 > queue.served:
        store.save_group_turn(queue, waiter.turn - 1, queue.turn, queue.turn_from)
    for receipt in lane.next_receipts(now_ms):
        messages.defer(receipt, 0)
