"""One user's lane as a value: what it stores, and what follows from that alone. See estimates.py, lane_changes.py."""

from collections.abc import Mapping
from enum import Enum

from msgspec import Struct, field
from msgspec.structs import replace

from chalicelib.core.history import NO_HISTORY, History
from chalicelib.core.limits import Limits, fingerprint

#: Milliseconds after which a running task is marked in the lane. A task that is expected to wait less than this for the
#: tasks ahead may start now.
MARKED_AFTER_MS = 1_000
#: Milliseconds after its start by which the mark of a task that still runs is stored, with room for the write.
MARKED_BY_MS = 1_200
#: Milliseconds that a start may lie in the future: workers claim ahead of time, and clocks differ a little.
CLOCKS_DIFFER_MS = 500
#: Milliseconds for which a claim keeps other workers off; renewed while the task runs.
LEASE_MS = 10_000
#: The same for a claim of a slot, whose lease is renewed less often.
SLOT_LEASE_MS = 14_000
#: Milliseconds after its message is to be visible for which a slot is left to a started task that waits for one.
AT_DOOR_MS = 10_000
#: Average run time, milliseconds, below which waiting tasks hardly delay each other.
BRIEF_MS = 10
#: A pause without an end: the year 9999, epoch ms.
FOREVER_MS = 253_370_764_800_000


class Phase(Enum):
    """How far the task of the newest start has come, as the lane knows it."""

    #: it started; its end is known only if it ran for a second
    STARTED = ""
    #: it has run for a second, and has not ended unless its lease has
    RUNNING = "running"
    #: its attempt is over and the next one may start once the lease ends
    RETRY = "retry"


class Lease(Struct, frozen=True):
    """The worker of the lane's newest start: it keeps two workers from running a task at once, and counts attempts."""

    task_id: str
    #: 1 for the first
    attempt: int
    #: epoch ms; until then no other worker may take the task
    until: int
    #: names this one claim, so that a claim whose answer was lost is recognised as done
    token: str
    #: epoch ms of each start of this task, oldest first, the running one last
    starts: tuple[int, ...] = ()
    #: the task's seq if it runs out of order, on a later task's message, which then waits for its outcome; else 0
    filled_seq: int = 0
    phase: Phase = Phase.STARTED
    #: the user's own limits at each of the starts, as text, "" for the default; empty if all had the default
    start_limits: tuple[str, ...] = ()
    #: the units that the running start really used, and from when on they count, epoch ms; empty without a report
    used: tuple[int, ...] = ()
    #: the same for each earlier start, units and time in turn, both -1 without a report; empty if none had one
    earlier_used: tuple[int, ...] = ()
    #: when a client cancelled the task while it ran, epoch ms; 0 if none did
    cancel_requested_at: int = 0
    #: of a task that waits for a slot or its next attempt: the receipt of its hidden message, which wakes it
    receipt: str = ""
    #: when that message will be visible again by itself, epoch ms
    visible_at: int = 0
    #: it is in one of the lane's slots
    in_slot: bool = False
    #: the limits of the shared limit at each of the starts, as text, "" for those of the setting; empty if all had them
    shared_limits: tuple[str, ...] = ()
    #: when the shared limit and the lane's turn allowed the first start, epoch ms; 0 if it waited for neither
    allowed_at: int = 0

    @property
    def is_corrected(self) -> bool:
        """The units that its running start really used were counted."""
        return bool(self.used)

    @property
    def reports(self) -> tuple[tuple[int, int] | None, ...]:
        """The units that each of `starts` really used, and from when on they count, epoch ms; None without a report."""
        pairs = zip(self.earlier_used[::2], self.earlier_used[1::2], strict=True)
        earlier = [None if units < 0 else (units, at) for units, at in pairs] or [None] * (len(self.starts) - 1)
        return (*earlier, (self.used[0], self.used[1]) if self.used else None)

    @property
    def last_token(self) -> str:
        """Its token once its attempt is over, so that no renewal finds it."""
        return f"{self.token}-over"


class Turn(Struct, frozen=True):
    """The lane's place in the order in which lanes use a shared limit: whichever of its tasks starts next uses it."""

    #: the shared limit
    name: str
    #: counted by the shared limit, from 1 on; of a user in a group: by the group's queue
    number: int
    #: of the lane when it was stored: a lane that was paused, throttled or emptied since has lost it
    revision: int
    #: the user's group then; "" without one
    group: str = ""


class Lane(Struct, frozen=True):
    """A lane as it was read; empty for a user who never submitted."""

    user_id: str
    #: how many tasks were admitted; the newest one's seq
    admitted: int = 0
    #: planned starts, newest first, epoch ms
    planned: tuple[int, ...] = ()
    #: the task admitted last, so that an admission whose answer was lost is recognised as done
    newest: str = ""
    #: the highest seq that has started or was skipped
    started_seq: int = 0
    #: how many starts were taken, retries included
    started: int = 0
    #: real starts, newest first, epoch ms
    starts: tuple[int, ...] = ()
    #: starts of second and later attempts, newest first, epoch ms: they count beside the planned starts
    retries: tuple[int, ...] = ()
    running: Lease | None = None
    #: average run time of the user's latest tasks, milliseconds; 0 while unknown
    took_ms: int = 0
    #: the user's own limits, None for the deployment's
    limits: Limits | None = None
    #: epoch ms until which no task starts; None when not paused
    paused_until: int | None = None
    #: fingerprint of the limits that the waiting tasks were planned under; empty if it was not stored
    planned_under: str = ""
    #: tasks up to this seq were planned under other limits or before a pause: their planned starts no longer count
    replanned_seq: int = 0
    #: epoch ms from which on those tasks start as soon as the limits allow
    replanned_at: int = 0
    #: the receipt of the lane's hidden head message, by which a change of the lane wakes it
    head_receipt: str = ""
    #: epoch ms until which the lane is throttled; 0 if it was not
    throttled_until: int = 0
    throttled_reason: str = ""
    #: cancelled tasks that a worker still has to skip: id and seq
    cancelled: Mapping[str, int] = field(default_factory=dict)
    #: grows with each change of limits, pause, throttling or cancellations
    revision: int = 0
    #: of the real starts, beside `starts`
    real: History = NO_HISTORY
    #: of the planned starts, beside `planned`
    plans: History = NO_HISTORY
    #: units of the waiting tasks beyond one for each
    waiting_units: int = 0
    #: None while the lane waits for no shared limit
    turn: Turn | None = None
    #: the users of a group take turns at shared limits as one; "" for a user without a group
    group: str = ""
    #: leases of tasks that may run beside each other, and of those between two attempts, by task id; None in a lane
    #: that never had several at once, or whose last such task is over
    slots: Mapping[str, Lease] | None = None
    #: the receipt of the hidden message of the next task, which was moved to a group of its own and waits for a slot
    next_receipt: str = ""
    #: the latest time from which on units that tasks in slots used count, epoch ms
    reported_at: int = 0
    #: how many tasks in slots reported the units that they used
    reports: int = 0
    #: grows whenever a slot is freed, so that no task begins to wait for one that was freed meanwhile
    freed: int = 0
    #: tasks after `emptied_from` up to this seq were cancelled, all at once, unless they had started; 0 if none were
    emptied_seq: int = 0
    emptied_from: int = 0
    #: scheduled tasks that were submitted at this time or before are cancelled, epoch ms; 0 if none are
    emptied_at: int = 0
    #: tasks up to this seq are finished and logged, also if they have no record: their user was forgotten
    forgotten_seq: int = 0
    #: scheduled tasks without a record that were submitted at this time or before are finished, epoch ms
    forgotten_at: int = 0

    @property
    def counted(self) -> tuple[int, ...]:
        """The starts that a new planned start has to respect, newest first, epoch ms."""
        return tuple(sorted((*self.planned, *self.retries), reverse=True)) if self.retries else self.planned

    @property
    def waiting(self) -> int:
        """Tasks admitted, not started and not cancelled."""
        return self.waiting_before(self.admitted + 1)

    def waiting_before(self, seq: int) -> int:
        """Tasks that will start before the one with that seq."""
        passed_over = sum(self.started_seq < other < seq for other in self.cancelled.values())
        return max(0, seq - 1 - self.started_seq - passed_over)

    @property
    def units_each(self) -> int:
        """The units of a waiting task: their average, rounded up."""
        return 1 - (-self.waiting_units // self.waiting) if self.waiting and self.waiting_units > 0 else 1

    def turn_for(self, shared: str) -> int:
        """The number of the lane's turn for that shared limit; 0 if it has none, or lost it, or is in a group."""
        return 0 if self.group else self._number_for(shared)

    def turn_in_group(self, shared: str) -> int:
        """The lane's number in its group's queue for that shared limit; 0 if it has none, or lost it."""
        return self._number_for(shared) if self.group else 0

    def _number_for(self, shared: str) -> int:
        mine, turn = (shared, self.revision, self.group), self.turn
        return turn.number if turn and (turn.name, turn.revision, turn.group) == mine else 0

    @property
    def awaited_shared(self) -> str:
        """The shared limit that the lane's next task waits for; "" if it waits for none."""
        return self.turn.name if self.turn and self._number_for(self.turn.name) else ""

    @property
    def kept_turn(self) -> Turn | None:
        """The lane's turn as a change that does not lose it stores it, with the next revision."""
        turn = self.turn
        return replace(turn, revision=self.revision + 1) if turn and turn.revision == self.revision else None

    def lease_of(self, task_id: str) -> Lease | None:
        """The task's lease, if it is the lane's newest or in a slot; it may be over."""
        if self.running and self.running.task_id == task_id:
            return self.running
        return self.slots.get(task_id) if self.slots else None

    def is_emptied(self, task_id: str, seq: int) -> bool:
        """True if the task was cancelled when the lane was emptied, unless its record says that it had finished.

        A started task has a lease until it is finished.
        """
        return 0 < seq <= self.emptied_seq and task_id not in self.cancelled and self.lease_of(task_id) is None

    def is_forgotten(self, seq: int) -> bool:
        """True if the task with that seq is finished and logged, whatever its record says: its user was forgotten.

        A submit that is slow may store the record of its task once more, after that.
        """
        return 0 < seq <= self.forgotten_seq

    def is_emptied_schedule(self, submitted_at: int) -> bool:
        """True if a scheduled task that was submitted then, and not admitted, was cancelled by an emptying."""
        return submitted_at <= self.emptied_at

    def in_use(self, now_ms: int) -> list[Lease]:
        """The leases of tasks that run, or may run, at that time.

        >>> lane = Lane("ann", running=Lease("t1", 1, until=9_000, token="w"), slots={
        ...     "t2": Lease("t2", 1, until=8_000, token="x"),
        ...     "t3": Lease("t3", 1, until=9_500, token="y", phase=Phase.RETRY)})
        >>> [lease.task_id for lease in lane.in_use(7_000)], [lease.task_id for lease in lane.in_use(8_000)]
        (['t1', 't2'], ['t1'])
        """
        leases = [*([self.running] if self.running else []), *(self.slots or {}).values()]
        return [lease for lease in leases if lease.until > now_ms and lease.phase is not Phase.RETRY]

    def at_the_door(self, now_ms: int) -> list[Lease]:
        """The started tasks that wait for a slot for their next attempt, those first that have waited longest.

        A task whose message has not come back when it was to be visible may have lost it, and waits no more.
        """
        waiting = [
            lease
            for lease in (self.slots or {}).values()
            if lease.receipt and lease.until <= now_ms < lease.visible_at + AT_DOOR_MS
        ]
        return sorted(waiting, key=lambda lease: lease.until)

    def next_receipts(self, now_ms: int) -> list[str]:
        """Of the hidden messages whose tasks may start next: a started one's, and the next one's or the head's."""
        first = [lease.receipt for lease in self.at_the_door(now_ms)[:1]]
        return [receipt for receipt in (*first, self.next_receipt or self.head_receipt) if receipt]

    def is_leased(self, now_ms: int) -> bool:
        """True while no other worker may take the task of the lane's newest start."""
        return self.running is not None and self.running.until > now_ms

    @property
    def retrying(self) -> Lease | None:
        """The lease of the task that waits between two attempts, at the head of the lane."""
        return self.running if self.running and self.running.phase is Phase.RETRY else None

    def retry_of(self, task_id: str) -> Lease | None:
        """The task's lease if it waits between two attempts."""
        lease = self.lease_of(task_id)
        return lease if lease and lease.phase is Phase.RETRY else None

    def is_cancelled_run(self, task_id: str, now_ms: int) -> bool:
        """True if the task was cancelled while it ran, and no worker runs it any more: its next start never comes."""
        lease = self.lease_of(task_id)
        is_over = lease is not None and (lease.phase is Phase.RETRY or lease.until <= now_ms)
        return lease is not None and lease.cancel_requested_at > 0 and is_over

    @property
    def has_forgotten_starts(self) -> bool:
        """True if starts were taken that `starts` does not hold any more."""
        return self.started > len(self.starts)

    def is_paused(self, now_ms: int) -> bool:
        return self.paused_until is not None and self.paused_until > now_ms

    def is_throttled(self, now_ms: int) -> bool:
        return self.throttled_until > now_ms

    def limits_or(self, default: Limits) -> Limits:
        return self.limits or default

    def is_replanned(self, seq: int, limits: Limits) -> bool:
        """True if the task's planned start no longer counts: it starts as soon as these limits, now in force, allow."""
        return seq <= self.replanned_seq or self.has_old_plans(limits)

    def has_old_plans(self, limits: Limits) -> bool:
        """True if the waiting tasks were planned under other limits than these: the deployment's default changed."""
        return bool(self.planned_under) and self.planned_under != fingerprint(limits)
