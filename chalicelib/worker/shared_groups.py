"""Finds the turn of a lane whose user is in a group, and hands the next one on; see core/shared_groups.py."""

from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import Lane, Turn
from chalicelib.core.limits import Limits
from chalicelib.core.past_starts import next_start
from chalicelib.core.ports import LaneStore, SharedLimitStore, SharedWritten, TaskQueue, Written
from chalicelib.core.shared_groups import GROUP_PAUSE_MS, Member, first_waiting, queue_name, wake_first
from chalicelib.core.shared_limit import Full, SharedLimit, Taken, Waiter, turn_time
from chalicelib.core.task import Task
from chalicelib.worker.steps import Facts

#: Milliseconds of wait from which on a lane is listed as waiting, and looks again halfway at the latest.
LISTED_FROM_MS = 3_000
#: Tries to store the group's turn while others change the group's queue.
SAVE_TRIES = 5


class Place(Struct):
    """Where a lane stands that wants a shared limit, as far as one look at it has found out."""

    #: the turn that it may use, its own or its group's; 0 for none
    turn: int = 0
    #: the turn was given at this look
    is_new: bool = False
    #: the lane has joined its group's queue at this look
    has_joined: bool = False
    #: it has let those before it start first
    has_given_way: bool = False
    #: None for a user without a group, and before the group's queue is read
    member: Member | None = None

    #: the start comes with the group's next turn
    asks_again: bool = False

    #: others want the shared limit too
    is_contended: bool = False

    def asking_again(self, shared: SharedLimit, taken: Taken, allowed_at: int) -> Taken:
        """The start, with the group's next turn if its next lane needs one."""
        member = self.member
        self.is_contended = self.turn > 0 and member is not None and member.is_contended(shared, allowed_at, taken.at)
        is_burst = self.is_contended and next_start(taken.after, taken.limits, taken.at) < taken.at + 2 * GROUP_PAUSE_MS
        self.asks_again = self.turn > 0 and member is not None and member.has_next and not is_burst
        return replace(taken, after=replace(taken.after, asked=taken.after.asked + self.asks_again))

    def decided(self, decision: Taken | Full, now_ms: int) -> Taken | Full:
        """The decision about a start, or that it is left to a lane of the group that goes first."""
        if isinstance(decision, Full) or self.turn or self.member is None or not self.member.goes_behind(now_ms):
            return decision
        return Full(decision.at, self.member.before + 1)

    def lose_if_used(self, shared: SharedLimit) -> None:
        """Forgets the group's turn if another one of its lanes may have used it."""
        if self.member and shared.served >= self.turn:
            self.turn, self.member = 0, None


def is_listed(full: Full, now_ms: int) -> bool:
    """True for a lane whose wait is long, or has no certain end: whoever ends it wakes the lane."""
    return full.is_for_holder or full.at - now_ms >= LISTED_FROM_MS


class GroupTurns:
    def __init__(self, store: SharedLimitStore, lanes: LaneStore, messages: TaskQueue) -> None:
        self._messages = messages
        self._store = store
        self._lanes = lanes

    def look(
        self, name: str, place: Place, shared: SharedLimit, facts: Facts, now_ms: int
    ) -> tuple[SharedLimit, Facts]:
        """Reads the group's queue, joins it if the lane is not in it, and asks for a turn if the group has none.

        Returns the shared limit after that. place.member is None if the lane changed meanwhile.
        """
        place.turn, lane = 0, facts.lane
        assert lane is not None, "the lane was read"
        place.member = place.member or self.member(name, lane)
        if place.member is None:
            joined = self._store.ask(queue_name(name, lane.group))
            write = self._lanes.save_turn(lane, Turn(name, joined.asked, lane.revision, lane.group))
            place.has_joined, facts = True, replace(facts, lane=write.lane)
            if not isinstance(write, Written):
                with suppress(UnavailableError):  # it is passed over
                    self._store.withdraw(joined.name, joined.asked)
                return shared, facts
            place.member = Member(joined, joined.asked)
        member = place.member
        is_to_wait = (place.has_joined and member.before > 0) or now_ms < member.asks_from(shared)
        if member.has_turn(shared) or is_to_wait:
            return shared, facts
        return self._ask(name, place, place.member), facts

    def without_lost(self, name: str, member: Member, now_ms: int) -> Member:
        """The lane in its group's queue without those before it that lost their numbers; wakes the first one.

        For a group whose turn was passed over: the first lane is late, or waits no more.
        """
        wake_first(self._store, self._lanes, self._messages, name, member.queue.name.partition(" ")[2], now_ms)
        return Member(self._store.get(member.queue.name), member.number)

    def member(self, name: str, lane: Lane) -> Member | None:
        """The lane in its group's queue, which it reads; None for a lane that is in none."""
        number = lane.turn_in_group(name)
        return Member(self._store.get(queue_name(name, lane.group)), number) if number else None

    def _ask(self, name: str, place: Place, member: Member) -> SharedLimit:
        shared = self._store.ask(name)
        queue = member.queue
        for _ in range(SAVE_TRIES):
            write = self._store.save_group_turn(queue, queue.served, shared.asked, queue.turn_from)
            if isinstance(write, SharedWritten) or write.shared.turn != queue.turn:
                break
            queue = write.shared
        place.member, place.is_new = replace(member, queue=write.shared), isinstance(write, SharedWritten)
        return shared

    def list(self, task: Task, group: str, place: Place, full: Full, now_ms: int) -> None:
        """Lists a lane in its group's queue as one that the end of a task wakes; or if its wait is long."""
        if place.member and (full.is_for_holder or (place.has_joined and is_listed(full, now_ms))):
            waiter = Waiter(place.member.number, task.user_id, task.task_id, group)
            with suppress(UnavailableError):  # it looks again by itself
                self._store.add_waiter(place.member.queue.name, waiter, full.at)

    def hand_on(self, name: str, lane: Lane | None, place: Place, shared: SharedLimit, limits: Limits, at: int) -> None:
        """Stores that the lane starts at that time, epoch ms, and the turn that came with it for the group's next lane.

        Wakes that lane, which may have expected a later turn. If this fails, the group's next look asks for a turn.
        """
        number = lane.turn_in_group(name) if lane else 0
        if lane and number:
            with suppress(UnavailableError):
                member = place.member or Member(self._store.get(queue_name(name, lane.group)), number)
                found = first_waiting(self._store, self._lanes, member.queue, number) if member.has_next else None
                self._save(place, shared, member.queue, max(number, found[0].turn - 1 if found else 0), at)
                if found:
                    self._tell(*found, place, shared, limits, at)

    def _tell(self, waiter: Waiter, lane: Lane, place: Place, shared: SharedLimit, limits: Limits, at: int) -> None:
        """Lists the new turn for the lane that is to use it, if that comes in some seconds only, and wakes the lane."""
        until = turn_time(shared, limits, shared.asked, at)
        if place.asks_again and is_listed(Full(until, 1, shared.is_full(limits)), at):
            self._store.add_waiter(shared.name, replace(waiter, turn=shared.asked), until)
        for receipt in lane.next_receipts(at):
            self._messages.defer(receipt, 0)

    def _save(self, place: Place, shared: SharedLimit, queue: SharedLimit, served: int, at: int) -> None:
        turn, turn_from = 0 if place.turn else queue.turn, queue.turn_from
        if place.is_contended:
            turn, turn_from = shared.asked if place.asks_again else 0, at + GROUP_PAUSE_MS
        for _ in range(SAVE_TRIES):
            write = self._store.save_group_turn(queue, max(queue.served, served), turn, turn_from)
            if isinstance(write, SharedWritten):
                return
            if write.shared.turn != queue.turn:  # another lane of the group has asked for a turn meanwhile
                turn, turn_from = write.shared.turn, write.shared.turn_from
            queue = write.shared
