"""Takes starts of shared limits for tasks that their own lanes let start now.

Shared first, lane second: a crash between the two loses a start of the shared limit and never takes one too many. While
the shared limit is free, that is one conditional write. While it is full, or others wait, the lane asks for a turn,
stores it, and its message waits until the turn's time is near; the claim alone takes the start.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from msgspec.structs import replace

from chalicelib.core.claim import NO_SHARED_LIMITS, SharedStart, Start, smallest_exceeded
from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import CLOCKS_DIFFER_MS, LEASE_MS, Lane, Phase, Turn
from chalicelib.core.limits import (
    Limits,
    format_limits,
    large_limits,
    memory_needed,
    most_at_once,
    smallest_units_quota,
)
from chalicelib.core.ports import (
    Clock,
    Correction,
    LaneStore,
    Presence,
    SharedClaim,
    SharedLimitStore,
    SharedWritten,
    TaskQueue,
    Written,
)
from chalicelib.core.shared_groups import has_waiters_turn, is_passed_over, wake_first
from chalicelib.core.shared_layout import SharedLayout
from chalicelib.core.shared_limit import (
    MISSED_AFTER_MS,
    Full,
    SharedLimit,
    Taken,
    Waiter,
    claim_shared,
    first_time,
    turn_time,
    turn_times,
)
from chalicelib.core.shared_shards import plain_name, shard_of
from chalicelib.core.task import Task
from chalicelib.core.visibility import MAX_SLEEP_MS, again_seconds
from chalicelib.settings import Settings
from chalicelib.worker.known_lanes import NoPresence
from chalicelib.worker.shared_groups import LISTED_FROM_MS, GroupTurns, Place, is_listed
from chalicelib.worker.steps import LEAD_MS, LOOK_FOR_MS, Facts, ReadLane, Step, WaitUntil, fail_too_large

#: Tries of a claim that loses races against others; then the message looks again a moment later.
CLAIM_TRIES = 12
#: Milliseconds before its time at which a lane claims whose turn has come. One whose turn was passed over, since its
#: message was late, claims up to LEAD_MS before: so it comes first.
ON_TIME_LEAD_MS = 100
#: Turns before the newest one that was used among which a release looks for a lane that still waits.
PASSED_TURNS = 20
#: Listed lanes among which a release looks for it, and turns from the next one on that are listed again at each look
#: while the shared limit is closed.
NEXT_TURNS = 40
#: Starts after which the list of starts is trimmed.
TRIM_EVERY = 12
#: Milliseconds after which a message looks again that lost them all.
LOST_RACES_MS = 50
#: Tries to find the task's shard, which may be another one by the answer.
SHARD_TRIES = 3
#: Milliseconds after which a message looks again that finds the shards of its shared limit changing.
CHANGING_MS = 500
#: Milliseconds between the turns of lanes that are listed: of a thousand lanes that wait for 100 starts a second, every
#: fiftieth costs the write.
LISTED_EVERY_MS = 500
#: Milliseconds after which a message looks again whose wait has no certain end: for a task that runs to end, or while
#: the shared limit is paused or throttled.
LOOK_AGAIN_MS = 60_000
#: Milliseconds for which a lane lets those before it start where fewer tasks run than may run at once: they were woken,
#: and a lane with a backlog, whose worker is awake, would be quicker each time. A turn that is lost costs as much.
GIVE_WAY_MS = 150
#: Receives of a message after which it looks again less often, so that 1,000 receives, after which SQS dead-letters it,
#: last for the 14 days that it lives.
MANY_LOOKS = 300
SLOW_LOOK_MS = 1_800_000


#: Milliseconds between two lines about a wrong clock.
CLOCK_LOGGED_EVERY_MS = 60_000

log = logging.getLogger(__name__)


class SharedClaims:
    """Thread-safe for different lanes."""

    def __init__(
        self,
        store: SharedLimitStore,
        lanes: LaneStore,
        queue: TaskQueue,
        clock: Clock,
        settings: Settings,
        is_clock_off: Callable[[], bool] = lambda: False,
        presence: Presence | None = None,
        layout: SharedLayout | None = None,
    ) -> None:
        """is_clock_off: this machine's clock is wrong by over a second: it claims no start that others would count.

        presence: tells a task that runs on this machine without a valid lease; None on Lambda.
        """
        self._layout = layout or SharedLayout(store, clock, settings.shared_limits)
        self._is_clock_off = is_clock_off
        self._presence = presence or NoPresence()
        self._clock_logged_at = 0
        self._store = store
        self._lanes = lanes
        self._queue = queue
        self._clock = clock
        #: by the name of the item
        self._known: dict[str, SharedLimit] = {}
        #: revision and number of shards, by the name of the shared limit
        self._shards: dict[str, tuple[int, int]] = {}
        self._claims = count(1)
        self._groups = GroupTurns(store, lanes, queue)

    def take(self, task: Task, start: Start, facts: Facts, token: str) -> tuple[SharedStart | Step, Facts]:
        """Takes a start of the task's shared limit at or shortly after start.at, at which its lane lets it start.

        Returns the step to take first if there is none yet, such as to wait; and the facts, with the lane's turn.
        """
        known = self._known.get(self._item(task))
        if not facts.is_lane_fresh and (facts.receives > 1 or (known and known.waiting)):
            return ReadLane(), facts  # a start would be lost if its lane has to wait, and to ask for a turn needs it
        return self._take(task, start, facts, f"{token}.{next(self._claims)}")  # a job may take several, in turn

    def _seen(self, task: Task, is_grouped: bool) -> SharedLimit:
        """The shared limit as it was seen last, if that may allow the start at once; else as it is."""
        known = self._known.get(self._item(task))
        limits = self._limits(known) if known and not known.is_changing else None
        if is_grouped or known is None or limits is None or known.waiting or smallest_exceeded(limits, task.units):
            return self._read(self._item(task))
        return known

    def _in_shard(self, task: Task, shared: SharedLimit) -> SharedLimit | None:
        """The task's shard; None while the shards are changed. shared: the one that was taken for it."""
        for _ in range(SHARD_TRIES):
            if self._layout.is_due(shared):
                self._layout.lay_out(task.shared)
                self._read(task.shared)
                shared = self._read(self._item(task))
            if not self._has_moved(task, shared):
                return shared
            if not self._layout.is_open(shared):
                return None
            shared = self._read(self._item(task))
        return None

    def _has_moved(self, task: Task, shared: SharedLimit) -> bool:
        """True if the shards have changed meanwhile: the next look asks the right one."""
        return shared.name != self._item(task) or not self._layout.is_open(shared)

    def _item(self, task: Task) -> str:
        """The name of the item that the task counts against, as far as is known."""
        return shard_of(task.shared, task.task_id, self._shards.get(task.shared, (0, 1))[1])

    def _take(self, task: Task, start: Start, facts: Facts, token: str) -> tuple[SharedStart | Step, Facts]:
        seen = self._seen(task, bool(facts.is_lane_fresh and facts.lane and facts.lane.group))
        if self._is_clock_off():  # as the answers have shown up to now
            return self._leave_to_others(task, facts), facts
        shared = self._in_shard(task, seen)
        if shared is None:
            now_ms = self._clock.now_ms()
            return WaitUntil(now_ms, now_ms + CHANGING_MS), facts
        return self._take_of(shared, task, start, facts, token)

    def _take_of(
        self, shared: SharedLimit, task: Task, start: Start, facts: Facts, token: str
    ) -> tuple[SharedStart | Step, Facts]:
        """Takes a start of the task's shard, as it was read."""
        name, place = shared.name, self._place(shared.name, facts)
        for _ in range(CLAIM_TRIES):
            limits = self._limits(shared)
            if self._has_moved(task, shared):
                return ReadLane(), facts
            if limits is None:
                listed_at = shared.listed_at(task.task_id)
                return SharedStart(name, start.at, NO_SHARED_LIMITS, listed_at=listed_at), facts
            if limit := smallest_exceeded(limits, task.units):
                return fail_too_large(facts, facts.lane or start.lane, task, limit), facts
            now_ms = self._clock.now_ms()
            begin = start.at if now_ms <= start.at + CLOCKS_DIFFER_MS else now_ms
            who = (task.user_id, task.task_id)
            turn = place.turn
            latest = now_ms + (LEAD_MS if turn <= shared.served or not turn else ON_TIME_LEAD_MS)
            decision = claim_shared(shared, limits, begin, latest, task.units, turn, who, token)
            decision = place.decided(decision, now_ms)
            if isinstance(decision, Taken) and not place.has_given_way and _comes_before_others(shared, limits, turn):
                self._clock.sleep(GIVE_WAY_MS)
                place.has_given_way, shared = True, self._read(name)
                place.lose_if_used(shared)
                start = replace(start, at=max(start.at, self._clock.now_ms()))
            elif isinstance(decision, Taken) and facts.is_forwarded and _was_just_used(turn, shared, now_ms):
                return WaitUntil(now_ms, now_ms + LOST_RACES_MS), facts  # another task of the lane starts with it
            elif isinstance(decision, Taken):
                allowed_at = first_time(shared, limits, turn, task.units) if turn else 0
                shared = self._claim(task, shared, place.asking_again(shared, decision, allowed_at), place, token)
                if shared.newest == token:
                    self._groups.hand_on(name, facts.lane, place, shared, limits, decision.at)
                    return replace(self._start(shared, decision, allowed_at), turn=_lanes_turn(facts, place)), facts
                place.lose_if_used(shared)
            elif not facts.is_lane_fresh or facts.lane is None:
                return ReadLane(), facts
            elif decision.is_for_holder and (freed := self._without_lost_holder(shared, now_ms)):
                shared = freed
            else:
                shared, step, facts = self._find_turn(task, place, shared, limits, decision, facts, facts.lane)
                if step:
                    return step, facts
        now_ms = self._clock.now_ms()
        return WaitUntil(now_ms, now_ms + LOST_RACES_MS), facts

    def _place(self, name: str, facts: Facts) -> Place:
        """Without a turn for a lane that was remembered: its turn may be used since."""
        if facts.lane is None or not facts.is_lane_fresh:
            return Place()
        return Place(facts.lane.turn_for(name), member=self._groups.member(name, facts.lane))

    def _find_turn(
        self, task: Task, place: Place, shared: SharedLimit, limits: Limits, full: Full, facts: Facts, lane: Lane
    ) -> tuple[SharedLimit, Step | None, Facts]:
        """Waits for the turn that the lane has; None as the step once it has got one, perhaps that of its group."""
        now_ms = self._clock.now_ms()
        if place.turn and not is_passed_over(shared, place.turn):
            self._list(task, place, shared, lane.group, full, now_ms)
            return shared, self._wait(shared, limits, place.turn, full, facts, task.units), facts
        if not lane.group:
            place.turn, shared, facts = self._ask(shared.name, facts, lane)
            place.is_new = True
            return shared, None if place.turn else ReadLane(), facts
        asked, facts = self._groups.look(shared.name, place, shared, facts, now_ms)
        if place.member is None:
            return shared, ReadLane(), facts
        step = self._wait_in_group(task, place, self._remember(asked), limits, full, facts)
        place.turn = 0 if step else place.member.queue.turn
        return asked, step, facts

    def _leave_to_others(self, task: Task, facts: Facts) -> WaitUntil:
        now_ms = self._clock.now_ms()
        self._known.pop(self._item(task), None)  # the next look reads it, and compares the clock again
        if abs(now_ms - self._clock_logged_at) >= CLOCK_LOGGED_EVERY_MS:
            self._clock_logged_at = now_ms
            log.error("this machine's clock is over a second off AWS's: it starts no task with a shared limit")
        return _waiting(now_ms + 1_000 + 1_000 * again_seconds(facts.receives))

    def _without_lost_holder(self, shared: SharedLimit, now_ms: int) -> SharedLimit | None:
        """The shared limit without the task that began to run longest ago; None if it may still run."""
        task_id, oldest = min((shared.holders or {}).items(), key=lambda one: one[1].at)
        if now_ms < oldest.at + LEASE_MS:
            return None
        lease = self._lanes.get(oldest.user_id).lease_of(task_id)
        if lease and lease.phase is not Phase.RETRY and (lease.until > now_ms or self._presence.is_served(lease.token)):
            return None
        return self._remember(self._store.release(shared.name, task_id, oldest.at))

    def is_open(self, task: Task) -> bool:
        """True if the task's shared limit is open, and fewer tasks run under it than may."""
        shared = self._read(self._item(task))
        limits, now_ms = self._limits(shared), self._clock.now_ms()
        return limits is None or (not shared.is_full(limits, task.task_id) and shared.opens_at(now_ms) <= now_ms)

    def is_near(self, name: str, lane: Lane, task: Task) -> bool:
        """True if the shared limit lets the lane's next task start within LOOK_FOR_MS, as far as is known.

        name: of the item for which the lane has a turn; else of the shared limit that the task names.
        """
        name = self._item(task) if name == task.shared else name
        shared, now_ms = self._read(name), self._clock.now_ms()
        limits = self._limits(shared)
        if limits is None:
            return True
        turn = lane.turn_for(name) or shared.asked + 1
        return not shared.is_full(limits) and turn_time(shared, limits, turn, now_ms) <= now_ms + LOOK_FOR_MS

    def release(self, task: Task, start: SharedStart | None) -> None:
        """Takes a task whose attempt is over off those that run at once, and wakes the first lane that waits.

        UnavailableError if that fails: the task's message then comes back for it.
        """
        if start and start.listed_at:
            self._release(start.name, task.task_id, start.listed_at)

    def release_finished(self, task: Task) -> None:
        """The same for a finished task, whichever attempt of it is listed: its worker died, or could not release it.

        With a number at once a shared limit has one shard.
        """
        if listed_at := self._read(task.shared).listed_at(task.task_id):
            self._release(task.shared, task.task_id, listed_at)

    def _release(self, name: str, task_id: str, at: int) -> None:
        shared = self._store.release(name, task_id, at)
        with suppress(UnavailableError):  # it looks again by itself
            self._wake_first(shared)

    def correct_units(self, start: SharedStart, token: str, more: int, now_ms: int) -> int:
        """Counts the units that a start really used beyond those that it was claimed with, below 0 for less.

        token: names the start. Returns from when on they count, epoch ms.
        """
        limits = self._limits(self._known.get(start.name) or self._read(start.name))
        if limits is None or smallest_units_quota(limits) is None:
            return now_ms
        correction = Correction(start.name, token, start.at, more)
        while not isinstance(write := self._store.correct_units(correction, now_ms), SharedWritten):
            now_ms = max(now_ms, write.shared.starts[0]) + 1  # after a start that was claimed without knowing of them
        self._remember(write.shared)
        return now_ms

    def throttle(self, name: str, until: int, reason: str) -> None:
        """Lets nothing start that counts against the shared limit until that time, epoch ms."""
        for shard in self._layout.throttle(name, until, reason):
            self._remember(shard)

    def is_limited(self, name: str) -> bool:
        """True if there is such a shared limit, as far as this worker knows."""
        known = self._known.get(name)
        return bool(name) and known is not None and self._limits(known) is not None

    def _limits(self, shared: SharedLimit) -> Limits | None:
        """In force for this shard; None if the shared limit was deleted."""
        return self._layout.share(shared)

    def _read(self, name: str) -> SharedLimit:
        return self._remember(self._store.get(name))

    def _remember(self, shared: SharedLimit) -> SharedLimit:
        name = plain_name(shared.name)
        self._known[shared.name] = shared
        if shared.revision >= self._shards.get(name, (0, 1))[0]:
            self._shards[name] = shared.revision, shared.shards
        return shared

    def _claim(self, task: Task, seen: SharedLimit, taken: Taken, place: Place, token: str) -> SharedLimit:
        """The shared limit after the claim; the token of its newest claim says whether the claim succeeded."""
        is_newest = place.turn > seen.served
        claim = SharedClaim(
            seen.name, *(task.user_id, task.task_id), taken.at, token, taken.limits, seen.limits, task.units,
            place.turn, is_newest, place.asks_again, seen.shards,
        )  # fmt: skip
        if seen.used and not place.turn:  # only the exact claim ends the list of turns that were used
            return self._remember(self._store.claim(seen, taken).shared)
        write = self._store.try_claim(claim)
        if isinstance(write, SharedWritten):
            self._trim(write.shared, taken.limits)
            return self._remember(write.shared)
        if _shows_the_same(write.shared, seen):
            write = self._store.claim(seen, taken)
        return self._remember(write.shared)

    def _trim(self, shared: SharedLimit, limits: Limits) -> None:
        """Shortens the list of starts now and then. Each length is seen by one claim alone."""
        kept, listed = memory_needed(limits), len(shared.starts)
        if listed > kept and (listed - kept) % TRIM_EVERY == 0 and not large_limits(limits):
            with suppress(UnavailableError):  # the next one does it
                self._store.trim(shared, kept)

    def _start(self, shared: SharedLimit, taken: Taken, allowed_at: int) -> SharedStart:
        text = format_limits(shared.limits) if shared.limits is not None else ""
        return SharedStart(shared.name, taken.at, text, allowed_at, shared.listed_at(taken.task_id))

    def _ask(self, name: str, facts: Facts, lane: Lane) -> tuple[int, SharedLimit, Facts]:
        """The lane's turn, stored in it; 0 if the lane changed meanwhile."""
        shared = self._remember(self._store.ask(name))
        write = self._lanes.save_turn(lane, Turn(name, shared.asked, lane.revision))
        if not isinstance(write, Written):
            with suppress(UnavailableError):  # it is passed over
                self._store.withdraw(name, shared.asked)
        is_stored = isinstance(write, Written)
        return shared.asked if is_stored else 0, shared, replace(facts, lane=write.lane)

    def _list(self, task: Task, place: Place, shared: SharedLimit, group: str, full: Full, now_ms: int) -> None:
        """Lists the lane as waiting, for those who wake it and who ask.

        It is listed each time that it looks while its wait has no certain end, and else once, if at all.
        """
        is_closed = shared.opens_at(now_ms) >= now_ms + LISTED_FROM_MS
        has_no_end = full.is_for_holder or (is_closed and full.position <= NEXT_TURNS)
        is_due = place.is_new and is_listed(full, now_ms) and (group or _is_apart(place.turn, full, now_ms))
        if has_no_end or is_due:
            with suppress(UnavailableError):  # it looks again by itself
                self._store.add_waiter(shared.name, Waiter(place.turn, task.user_id, task.task_id, group), full.at)

    def _wait_in_group(
        self, task: Task, place: Place, shared: SharedLimit, limits: Limits, full: Full, facts: Facts
    ) -> WaitUntil | None:
        """The wait of a lane that may not use its group's turn yet; None if it may."""
        member, units, now_ms = place.member, task.units, self._clock.now_ms()
        assert member is not None, "it was looked at"
        at = turn_time(shared, limits, member.expected_turn(shared), now_ms, units)
        # Only a number at once, and a task may start: another lane of the group does, or its message is lost.
        is_left = not tuple(limits) and not full.is_for_holder and shared.opens_at(now_ms) <= now_ms
        listed = replace(full, at=at, is_for_holder=full.is_for_holder or is_left)
        self._groups.list(task, facts.lane.group if facts.lane else "", place, listed, now_ms)
        if not member.has_turn(shared):  # another lane of the group asks for the next one at this moment
            return WaitUntil(now_ms, max(now_ms + MISSED_AFTER_MS, member.asks_from(shared)))
        if member.looks_for_lost and member.queue.turn < shared.served:
            member = place.member = self._groups.without_lost(shared.name, member, now_ms)
        if member.may_use_turn(shared, limits, units, now_ms):
            return WaitUntil(now_ms, member.queue.turn_from) if now_ms < member.queue.turn_from else None
        if is_left:
            self._groups.without_lost(shared.name, member, now_ms)
            return _waiting(now_ms + 1_000 * again_seconds(facts.receives))
        step = self._wait(shared, limits, member.expected_turn(shared), full, facts, units)
        if full.is_for_holder or member.before > 1 or not tuple(limits):
            return step
        at = member.takes_over_at(shared, limits, units)
        if not now_ms < at < step.wake_at:
            return step
        return WaitUntil(at + LEAD_MS, at) if at - now_ms <= MAX_SLEEP_MS else _waiting(at)

    def _wait(self, shared: SharedLimit, limits: Limits, turn: int, full: Full, facts: Facts, units: int) -> WaitUntil:
        """Until the turn's time if that is near; else half the way, since turns before it may be lost.

        It also looks right after the time of the turn before, in case that one is missed.
        """
        now_ms = self._clock.now_ms()
        longest_ms = LOOK_AGAIN_MS if facts.receives < MANY_LOOKS else SLOW_LOOK_MS
        if full.is_for_holder:
            return _waiting(now_ms + longest_ms, is_for_shared=True)
        lead_ms = LEAD_MS if turn <= shared.served else ON_TIME_LEAD_MS
        before, at = turn_times(shared, limits, turn, now_ms, units)
        missed_at = before + MISSED_AFTER_MS
        if now_ms < missed_at < at - lead_ms and missed_at - now_ms <= MAX_SLEEP_MS:
            return WaitUntil(missed_at + LEAD_MS, missed_at)
        if at - now_ms <= MAX_SLEEP_MS + LEAD_MS:
            return WaitUntil(at, max(at - lead_ms, now_ms + 1))
        halfway = at if at - now_ms < LISTED_FROM_MS else (now_ms + at) // 2
        if now_ms < missed_at < halfway:
            halfway = missed_at
        if shared.opens_at(now_ms) > now_ms:
            return _waiting(min(halfway, now_ms + longest_ms), is_for_shared=True)
        return _waiting(halfway)

    def _wake_first(self, shared: SharedLimit) -> None:
        first, now_ms = max(0, shared.served - PASSED_TURNS), self._clock.now_ms()
        for waiter in self._store.waiters(shared.name, first, NEXT_TURNS) if shared.asked else ():
            lane = self._lanes.get(waiter.user_id)
            has_turn = has_waiters_turn(lane, shared, waiter)
            if has_turn and (receipts := lane.next_receipts(now_ms)):
                for receipt in receipts:
                    self._queue.defer(receipt, 0)
                return
            if waiter.group and not has_turn and waiter.turn > shared.served:
                wake_first(self._store, self._lanes, self._queue, shared.name, waiter.group, now_ms)
                return


def _lanes_turn(facts: Facts, place: Place) -> int:
    """The lane's number that a start with a turn uses up; 0 for a start without one."""
    return facts.lane.turn.number if place.turn and facts.lane and facts.lane.turn else 0


def _was_just_used(turn: int, shared: SharedLimit, now_ms: int) -> bool:
    """True if a start was taken with that turn whose lane may still be claimed."""
    is_used = 0 < turn == shared.served or turn in shared.used
    return is_used and bool(shared.starts) and now_ms < shared.starts[0] + CLOCKS_DIFFER_MS


def _waiting(until: int, is_for_shared: bool = False) -> WaitUntil:
    return WaitUntil(until, until - LEAD_MS, is_for_shared=is_for_shared)


def _is_apart(turn: int, full: Full, now_ms: int) -> bool:
    """True if the turn's time is LISTED_EVERY_MS after that of the one listed before."""
    apart = full.position * LISTED_EVERY_MS // max(full.at - now_ms, 1)
    return turn % max(apart, 1) == 0


def _comes_before_others(shared: SharedLimit, limits: Limits, turn: int) -> bool:
    """True if lanes with earlier turns may still use all that is free of the number at once: one was just woken."""
    most = most_at_once(limits)
    return most is not None and turn > 0 and shared.ahead_of(turn) >= most - len(shared.holders or {})


def _shows_the_same(one: SharedLimit, other: SharedLimit) -> bool:
    """True if a fast claim was refused although nothing changed: the exact one decides."""
    facts = ("started", "revision", "asked", "served", "limits", "holders", "reports")
    return all(getattr(one, name) == getattr(other, name) for name in facts)
