"""Checks the promises step by step against the true history. Knows nothing of how the code keeps them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core.lane import Lane, Lease
from chalicelib.core.limits import Limit, Limits, at_once, large_limits, most_at_once, small_limits
from chalicelib.core.scheduled import Callback
from chalicelib.core.shared_limit import SharedLimit
from chalicelib.core.task import Outcome, Task, TaskRecord, TaskState
from chalicelib.settings import Settings
from tests.simulation.schedule import Plan
from tests.simulation.virtual import Process

#: How long a lease lasts that is not renewed, ms, with room for clocks that differ.
LEASE_MS = 11_000
#: For how long the queue takes a repeated send for the same, ms.
DEDUPLICATION_MS = 300_000
#: Ends of a function that do not finish its task.
GOES_ON = ("raised", "throttled")
#: How long after a long outage the last waiting lane goes on, ms.
GOES_ON_WITHIN_MS = 60_000
#: How late a start may be where nothing goes wrong, ms: no change ends a wait below 3 s, and a gap lasts up to 2 s.
LATEST_MS = 5_000
#: How long a running task that was cancelled goes on where nothing goes wrong, ms: until its worker's next renewal, and
#: until it looks. A lease in a slot is renewed half as often.
STOPPED_WITHIN_MS = 4_000
STOPPED_IN_SLOT_WITHIN_MS = 7_500


@dataclass(frozen=True)
class Broken:
    """A promise that did not hold."""

    promise: str
    what: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.what}"


@dataclass
class Started:
    """A start as it was recorded in the lane, and what became of it."""

    user: str
    task_id: str
    #: recorded, epoch ms
    at: int
    attempt: int
    limits: Limits
    process: Process
    #: true time
    claimed_at: int
    #: claimed, then raised, ended, unanswered (the worker gave the message back in an AWS failure) or died
    became: str = "claimed"
    has_run: bool = False
    has_raised: bool = False
    #: it was throttled, and that was written: no attempt
    was_throttled: bool = False
    #: under the message of a later task
    is_out_of_turn: bool = False
    #: which of the worker processes that followed each other on its machine
    life: int = 0
    #: its function has given a result, so its outcome is to be stored
    has_result: bool = False
    #: when its task may start again, epoch ms; 0 until it is released
    retry_at: int = 0
    #: as claimed, or fewer that the task reported
    units: int = 1
    #: names the claim
    token: str = ""
    #: one task at a time: its message keeps those behind it in the queue, also once several may run at once
    is_alone: bool = False


@dataclass
class Known:
    """A task, from whatever showed it."""

    task: Task
    tag: str
    begun_at: int
    #: true time; None while its submit was not answered
    answered_at: int | None = None
    seqs: set[int] = field(default_factory=set)
    starts: list[Started] = field(default_factory=list)
    runs: int = 0
    running_in: Process | None = None
    last_result: str = ""
    outcome: list[Outcome] = field(default_factory=list)
    logged: list[dict[str, Any]] = field(default_factory=list)
    cancel_begun: bool = False
    cancel_answered: bool = False
    #: it was cancelled by an emptying of its lane
    is_emptied: bool = False
    #: it had ended when its user was forgotten
    is_forgotten: bool = False
    #: true time at which its lane had the first request to stop it while it runs; None without one
    stop_requested_at: int | None = None
    #: such a request was answered
    stop_answered: bool = False
    in_queue: bool = False
    #: a later one had started before its submit was answered: the lane had waited for it as long as it does
    was_passed_over: bool = False
    #: true time at which it was first sent or stored
    seen_at: int = 0
    #: true time of each message that was put into the queue
    messages: list[int] = field(default_factory=list)
    #: true time of each of its messages that was forwarded
    forwarded: list[int] = field(default_factory=list)
    #: it was scheduled when it was seen first
    is_scheduled: bool = False
    #: seqs of its messages
    sent_as: set[int] = field(default_factory=set)
    #: events of the callbacks that were sent
    sent_callbacks: list[str] = field(default_factory=list)


#: Milliseconds after a throttling for which starts are left that were taken before it.
THROTTLED_WITHIN_MS = 500


@dataclass(frozen=True)
class Paused:
    """A pause that was answered."""

    user: str
    since: int
    until: int


@dataclass(frozen=True)
class Closed:
    """A change of a shared limit that was answered, and how long it is paused."""

    since: int
    until: int
    #: None for those of the setting
    limits: Limits | None


class Promptness:
    """From when on each start was possible, where nothing goes wrong and all clocks agree."""

    def __init__(self, slots: int) -> None:
        #: true time at which the outcome of each user's last task was stored
        self.free_at: dict[str, int] = {}
        self._slots = slots
        self._running = 0
        self._full_since = 0
        #: when all workers were busy with tasks: begin and end, true time
        self._full: list[tuple[int, int]] = []
        self._changed_at: dict[str, int] = {}
        self._closed_until: dict[str, int] = {}
        #: A lane remembers as many starts as its limits ask for; when they grow, it takes those before for recent.
        self._unsure_until: dict[str, int] = {}

    def changed(self, lane: Lane, limits: Limits, before: Limits, now: int) -> None:
        is_any_large = bool(large_limits((*limits, *before)))
        if is_any_large or max(limit.quota for limit in limits) > max(limit.quota for limit in before):
            self._unsure_until[lane.user_id] = now + max(limit.window_ms for limit in limits)
        self._changed_at[lane.user_id] = now
        self._closed_until[lane.user_id] = max(lane.paused_until or 0, lane.throttled_until)

    def run_begins(self, now: int) -> None:
        self._running += 1
        if self._running == self._slots:
            self._full_since = now

    def run_ends(self, now: int) -> None:
        if self._running == self._slots:
            self._full.append((self._full_since, now))
        self._running -= 1

    def late_ms(self, known: Known, start: Started, before: list[int], units: list[tuple[int, int]]) -> int:
        """How much later the task starts than it could, the time left out in which no worker had room."""
        lasting = (self._closed_until, self._unsure_until, self.free_at)
        times = [self._possible_at(known), *(until.get(start.user, 0) for until in lasting)]
        for limit in small_limits(start.limits):
            times += [at + limit.window_ms for at in sorted(before)[-limit.quota :][:1] if len(before) >= limit.quota]
        times += [self._free_at(start, limit, units) for limit in large_limits(start.limits)]
        begin, end = max(times), start.at
        return end - begin - sum(max(0, min(last, end) - max(first, begin)) for first, last in self._full)

    def _free_at(self, start: Started, limit: Limit, units: list[tuple[int, int]]) -> int:
        """When the large limit allows the start if each of the units counts for 1.01 windows."""
        room = limit.quota - limit.taken_by(start.units)
        for at, count in sorted(units, reverse=True):
            room -= limit.taken_by(count)
            if room < 0:
                return at + limit.window_ms * 101 // 100
        return 0

    def _possible_at(self, known: Known) -> int:
        """As planned at its submit, or from a change of the lane on if there was one since."""
        changed_at = self._changed_at.get(known.task.user_id, 0)
        planned_at = known.task.planned_at if changed_at < known.seen_at else changed_at
        return max(known.seen_at, planned_at, known.task.run_at or 0)


class History:
    """Everything that happened, by true time. Whatever breaks a promise is kept in `broken`."""

    def __init__(self, settings: Settings, plan: Plan, slots: int, renewal_failed_at: Mapping[str, int]) -> None:
        """slots: of all workers."""
        self.broken: list[Broken] = []
        self._renewal_failed_at = renewal_failed_at
        self._is_apart = plan.is_apart
        #: a task that runs without a valid lease is seen by its lock
        self._has_locks = not (plan.is_apart or plan.is_lambda)
        self._is_calm = plan.is_calm
        self._clocks_differ_ms = 0 if plan.is_calm else 500
        self.known: dict[str, Known] = {}
        self.starts: dict[str, list[Started]] = {}
        self.figures: Counter[str] = Counter()
        self._max_attempts = settings.max_attempts
        self._deadline_ms = settings.deadline_ms
        self._begun: dict[str, int] = {}
        self._keyed: set[str] = set()
        self._keys: dict[str, set[str]] = {}
        self._kept_answers: dict[str, str] = {}
        self._lives: Counter[str] = Counter()
        self._prompt = Promptness(slots) if plan.is_prompt else None
        self._is_sharded = plan.starts_each > 0
        self._paused: dict[str, Paused] = {}
        #: the users' lanes as they were emptied last
        self._emptied: dict[str, Lane] = {}
        #: time and units of each start under a shared limit, by name
        self._shared_starts: dict[str, list[tuple[int, int]]] = {}
        #: units that were used beyond those claimed: time and number, by name
        self._shared_overuse: dict[str, list[tuple[int, int]]] = {}
        #: where the start with that token is in the list above
        self._shared_tokens: dict[str, int] = {}
        self._shared_corrected = set[str]()
        #: the turn with which the start of that user at that time was taken, and the task that started with that turn
        self._turn_of: dict[tuple[str, int], tuple[str, int]] = {}
        self._turn_used_by: dict[tuple[str, int], str] = {}
        self._shared_closed: dict[str, Closed] = {}
        #: since and until when, by name
        self._shared_throttled: dict[str, tuple[int, int]] = {}
        #: the same for each start that was taken of it, and the limits of the newest
        self._shared_taken: dict[str, list[tuple[int, int]]] = {}
        self._shared_limits: dict[str, Limits] = {}
        self._shared_open_at: dict[str, int] = {}
        self._shared_changes: Counter[str] = Counter()
        self._shared_open: Counter[str] = Counter()
        self._throttled_until: dict[str, int] = {}
        self._open_resumes: Counter[str] = Counter()
        self._changes: Counter[str] = Counter()
        self._open_changes: Counter[str] = Counter()
        self._claimed_by: dict[Process, list[Started]] = {}
        self._delivered: dict[Process, tuple[int, str]] = {}
        self._true_runs: dict[str, list[int]] = {}
        #: units that were used beyond those claimed: time and number, by user
        self._overuse: dict[str, list[tuple[int, int]]] = {}
        #: users with waiting tasks who have not gone on since the end of a long outage, true time
        self._stopped_since: dict[str, int] = {}

    def breaks(self, promise: str, what: str) -> None:
        self.broken.append(Broken(promise, what))

    # Calls and answers of clients.

    def submit_begun(self, tag: str, now: int, key: str | None) -> None:
        self._begun.setdefault(tag, now)
        if key:
            self._keyed.add(tag)

    def seen(self, task: Task, now: int, queued: bool) -> None:
        """The task was sent or stored."""
        tag = task.payload["tag"] if isinstance(task.payload, dict) else ""
        known = self.known.get(task.task_id)
        if known is None:
            begun = self._begun.get(tag.split("/")[0], now)
            known = self.known[task.task_id] = Known(task, tag, begun, seen_at=now, is_scheduled=not task.seq)
        emptied = self._emptied.get(task.user_id)
        if emptied and (
            emptied.is_emptied(task.task_id, task.seq)
            or (not task.seq and emptied.is_emptied_schedule(task.submitted_at))
        ):
            known.cancel_begun = True  # it was admitted before, and is sent now
        if task.seq:
            known.seqs.add(task.seq)
            known.task = task if known.is_scheduled else known.task
        known.in_queue = known.in_queue or queued
        if queued:
            known.sent_as.add(task.seq)
        if known.is_scheduled and len(known.sent_as) > 1:
            self.breaks("one seq in the lane", f"{known.tag} was scheduled and is sent as {known.sent_as}")

    def answered(self, task_id: str, now: int, key: str | None, index: int) -> None:
        known = self.known.get(task_id)
        if known is None:
            self.breaks("nothing lost", f"{task_id} was answered and never sent")
            return
        if known.answered_at is None:
            known.answered_at = now
            started = [one for one in self.known.values() if one.starts and one.task.user_id == known.task.user_id]
            known.was_passed_over = any(one.task.seq > known.task.seq for one in started)
        if key:
            name = f"{key}/{index}"
            self._keys.setdefault(name, set()).add(task_id)
            if len(self._keys[name]) > 1:
                self.breaks("same key, same answer", f"{name} was answered with {sorted(self._keys[name])}")

    def refused(self, tag: str, cancelled: Mapping[str, int]) -> None:
        """A request with a key was answered that nothing of it is queued."""
        for task_id, known in self.known.items():
            is_live = (
                not any(outcome.state is TaskState.CANCELLED for outcome in known.outcome) and task_id not in cancelled
            )
            if known.in_queue and is_live and known.tag.split("/")[0] == tag:
                self.breaks("true words", f"{known.tag} was sent, and its request is answered that nothing is queued")

    def answer_kept(self, key: str, body: str) -> None:
        """The request was answered, and no failure of AWS came between that and keeping the answer for repeats."""
        if self._kept_answers.setdefault(key, body) != body:
            self.breaks("same key, same answer", f"{key} was answered {self._kept_answers[key]} and {body}")

    def message_added(self, task_id: str, now: int, is_again: bool = False) -> None:
        """A repeat within five minutes adds none, since waiting is free. is_again: an operator asked for it."""
        known = self.known[task_id]
        if is_again:
            return
        if known.messages and now < known.messages[-1] + DEDUPLICATION_MS:
            self.breaks("one message", f"{known.tag} is in the queue by two messages")
        known.messages.append(now)

    def forwarded(self, task_id: str, now: int, is_again: bool) -> None:
        """Its message was put into a group of its own; so that of a task which was sent again."""
        forwarded = self.known[task_id].forwarded
        if is_again:
            return
        if forwarded and now < forwarded[-1] + DEDUPLICATION_MS:
            self.breaks("one message", f"{self.known[task_id].tag} was forwarded twice")
        forwarded.append(now)

    def cancel_begun(self, task_id: str) -> None:
        self.known[task_id].cancel_begun = True

    def cancel_answered(self, task_id: str) -> None:
        known = self.known[task_id]
        known.cancel_answered = True
        is_running = known.starts and not known.starts[-1].has_raised
        if is_running and known.stop_requested_at is None:
            self.breaks("a cancelled task takes no start", f"{task_id} was running before its cancel was answered")

    def emptying_begun(self, user: str) -> None:
        """Its scheduled tasks may be cancelled from now on, before the lane's write."""
        for known in self.known.values():
            if known.task.user_id == user and not known.task.seq:
                known.cancel_begun = True

    def emptied(self, lane: Lane) -> None:
        """The lane's write has cancelled all that waited, and nothing of it starts any more."""
        self._emptied[lane.user_id] = lane
        for task_id, known in self.known.items():
            seqs = known.seqs or {known.task.seq}
            is_waiting = lane.is_emptied(task_id, max(seqs)) or task_id in lane.cancelled
            if known.task.user_id != lane.user_id or known.outcome:
                continue
            if max(seqs) == 0 and lane.is_emptied_schedule(known.task.submitted_at):
                known.cancel_begun = True
            elif is_waiting and max(seqs) > 0:
                known.cancel_begun = True
                # A request that was served twice may have the task once more, behind those that were cancelled.
                known.is_emptied = len(seqs) == 1 and known.answered_at is not None
                known.cancel_answered = known.cancel_answered or known.is_emptied
                self.figures["tasks cancelled by an emptying"] += known.is_emptied

    def forgotten(self, user: str) -> None:
        """Its lane says so from now on: the records of its finished tasks go, and none of them starts again."""
        for known in self.known.values():
            if known.task.user_id == user and known.outcome:
                known.is_forgotten = True
                self.figures["tasks of forgotten users"] += 1
        self.figures["users forgotten"] += 1

    def stop_requested(self, task_id: str, now: int) -> None:
        known = self.known[task_id]
        if known.stop_requested_at is None:
            known.stop_requested_at = now
            self.figures["running tasks that were cancelled"] += 1

    def stop_answered(self, task_id: str) -> None:
        self.known[task_id].stop_answered = True

    def change_begins(self, user: str) -> int:
        """A pause or resume begins; what it gives tells `paused` whether another came between. 0: one is under way."""
        self._paused.pop(user, None)
        self._changes[user] += 1
        self._open_changes[user] += 1
        return self._changes[user] if self._open_changes[user] == 1 else 0

    def resume_begins(self, user: str) -> None:
        """Throttling may end from now on, and has ended afterwards."""
        self._open_resumes[user] += 1

    def resume_ends(self, user: str) -> None:
        self._open_resumes[user] -= 1
        self._throttled_until.pop(user, None)

    def change_ends(self, user: str) -> None:
        self._open_changes[user] -= 1

    def paused(self, user: str, now: int, until: int, change: int) -> None:
        if change == self._changes[user] and self._open_changes[user] == 1:
            self._paused[user] = Paused(user, now, until)

    # Steps of workers.

    def delivered(self, process: Process, now: int, task_id: str) -> None:
        self._delivered[process] = (now, task_id)

    def corrected(self, user: str, token: str, used_units: int, at: int) -> None:
        """The task of that claim reported the units that it used, and the lane counts them, for the first time."""
        [start] = [one for one in self.starts[user] if one.token == token]
        if used_units < start.units:
            start.units = used_units
        else:
            self._overuse.setdefault(user, []).append((at, used_units - start.units))
        self.figures["starts whose units were corrected"] += 1

    def _units(self, user: str, starts: list[Started]) -> list[tuple[int, int]]:
        return [*((one.at, one.units) for one in starts), *self._overuse.get(user, ())]

    def started(self, lane: Lane, lease: Lease, limits: Limits, process: Process, now: int, units: int = 1) -> None:
        start = Started(lane.user_id, lease.task_id, lane.starts[0], lease.attempt, limits, process, now)
        start.life, start.units, start.token = self._lives[process.machine], units, lease.token
        start.is_alone = not lease.in_slot
        before = self.starts.setdefault(start.user, [])
        before.append(start)
        self._claimed_by.setdefault(process, []).append(start)
        self._check_pace(start, before)
        known = self.known.get(start.task_id)
        if known is None:
            self.breaks("nothing out of nothing", f"{start.task_id} started and was never sent or stored")
            return
        run_at = known.task.run_at
        self.figures["starts of tasks that were scheduled"] += known.is_scheduled
        if run_at is not None and start.at < run_at - self._clocks_differ_ms:
            self.breaks("scheduled", f"{known.tag} starts at {start.at}, scheduled for {run_at}")
        self._check_goes_on(start.user, now)
        self._check_pause(start)
        self._check_order(known, start)
        self._check_again(known, start)
        if known.is_forgotten:
            self.breaks("forgotten", f"{known.tag} starts after its user was forgotten")
        self._check_at_once(known, start, lane)
        self._check_prompt(known, start, before[:-1])
        start.is_out_of_turn = self._delivered.get(process, (0, ""))[1] != start.task_id
        known.starts.append(start)
        number = sum(not one.was_throttled for one in known.starts)
        if start.attempt != number:
            self.breaks("attempts", f"start {number} of {known.tag} counts as attempt {start.attempt}")
        if number > self._max_attempts:
            self.breaks("attempts", f"{known.tag} takes start {number} of {self._max_attempts}")
        if known.cancel_answered or known.stop_answered:
            self.breaks("a cancelled task takes no start", f"{known.tag} started after its cancel was answered")

    def started_shared(self, known: Known, lease: Lease, limits: Limits | None, process: Process, units: int) -> None:
        """The start counts against a shared limit, under these limits; None: it was deleted."""
        name, at = known.task.shared, lease.starts[-1]
        starts = self._shared_starts.setdefault(name, [])
        self.figures["starts under a shared limit"] += limits is not None
        if limits is None:
            return
        self._shared_tokens[lease.token] = len(starts)
        self._check_turn(known, at)
        starts.append((at, units))
        overuse = self._shared_overuse.get(name, ())
        taken = sum(one == at for one, _ in self._shared_taken.get(name, ()))
        if taken < sum(one == at for one, _ in starts):
            self.breaks("shared start taken", f"{known.tag} starts at {at}, and {taken} starts were taken of {name}")
        for limit in limits:
            within = [(one, count) for one, count in starts if at - limit.window_ms < one <= at]
            if limit.counts_units:  # those of later starts were not known to this claim
                within += [(one, count) for one, count in overuse if at - limit.window_ms < one <= at]
            after = [(one, count) for one, count in starts if at <= one < at + limit.window_ms]
            for window in (within, after):
                if sum(limit.taken_by(count) for _, count in window) > limit.quota:
                    self.breaks("shared pace", f"{known.tag} starts at {at}: {window} within {limit} of {name}")
        self._check_shared_at_once(known, limits, at)
        closed = self._shared_closed.get(name)
        if closed and closed.since - self._clocks_differ_ms <= at < closed.until:
            self.breaks("shared limit is closed", f"{known.tag} starts at {at}, closed until {closed.until}")
        since, until = self._shared_throttled.get(name, (0, 0))
        if since + THROTTLED_WITHIN_MS + self._clocks_differ_ms <= at < until:
            self.breaks("shared limit is throttled", f"{known.tag} starts at {at}, throttled until {until}")
        if closed and at >= closed.since + self._clocks_differ_ms and closed.limits not in (None, limits):
            self.breaks("shared limits in force", f"{known.tag} starts at {at} under {limits}, not {closed.limits}")

    def corrected_shared(self, name: str, token: str, more: int, at: int) -> None:
        """The shared limit counts the units that a start really used beyond those claimed, below 0 for less."""
        index = self._shared_tokens.get(token)
        self.figures["starts under a shared limit whose units were corrected"] += 1
        if index is None or token in self._shared_corrected:
            self.breaks("shared units", f"the start of {token} was not made, or was corrected before")
        elif more > 0:
            self._shared_overuse.setdefault(name, []).append((at, more))
            self._shared_taken.setdefault(name, []).append((at, more))
        else:
            start, units = self._shared_starts[name][index]
            self._shared_starts[name][index] = start, units + more
        self._shared_corrected.add(token)

    def check_shared_units(self, name: str, counted: int) -> None:
        """At the end the shared limit has counted each correction once."""
        real = sum(units for _, units in (*self._shared_starts.get(name, ()), *self._shared_overuse.get(name, ())))
        self.figures["units that starts of a shared limit lost"] += counted - real
        if counted < real:
            self.breaks("shared units", f"{name} has counted {counted} units of {real}")

    def _check_shared_at_once(self, known: Known, limits: Limits, at: int) -> None:
        most = most_at_once(limits)
        if most is None:
            return
        others = [one for one in self.known.values() if one is not known and one.task.shared == known.task.shared]
        running = [one.tag for one in others if one.running_in and one.running_in.is_alive]
        self.figures["starts beside others of a shared limit"] += bool(running)
        self.figures["shared limits that were full at once"] += len(running) == most - 1
        may_be_lost = bool(self._renewal_failed_at) and not self._has_locks
        if len(running) >= most and not may_be_lost and self._is_one_limit_at_once(known.task.shared):
            self.breaks("shared at once", f"{known.tag} starts at {at} beside {running}, {most} at once")

    def _is_one_limit_at_once(self, name: str) -> bool:
        """The number at once was never changed: a lowered one ends no task that runs, and without one none counts."""
        return not self._shared_changes[name]

    def shared_change_begins(self, name: str) -> int:
        self._shared_closed.pop(name, None)
        self._shared_throttled.pop(name, None)
        self._shared_changes[name] += 1
        self._shared_open[name] += 1
        return self._shared_changes[name] if self._shared_open[name] == 1 else 0

    def shared_changed(self, name: str, now: int, shared: SharedLimit, change: int) -> None:
        """A change of the shared limit was answered: from now on nothing starts that it does not allow."""
        if change == self._shared_changes[name] and self._shared_open[name] == 1:
            self._shared_closed[name] = Closed(now, shared.paused_until or 0, shared.limits)

    def shared_throttled(self, name: str, now: int, until: int) -> None:
        """A worker has let nothing start under the shared limit until that time, epoch ms."""
        self.figures["throttlings of a shared limit"] += 1
        if not self._shared_open[name]:
            self._shared_throttled[name] = now, until

    def shared_change_ends(self, name: str) -> None:
        self._shared_open[name] -= 1

    def _check_pace(self, start: Started, all_starts: list[Started]) -> None:
        times = [one.at for one in all_starts]
        if len(times) > 1 and start.at < max(times[:-1]):
            self.breaks("pace", f"a start at {start.at} is recorded after one at {max(times[:-1])}")
        for limit in start.limits:
            if limit.counts_units:
                self._check_units(start, all_starts, limit)
                continue
            within = [at for at in times if start.at - limit.window_ms < at <= start.at]
            if len(within) > limit.quota:
                self.breaks("pace", f"{len(within)} starts within {limit}: {within}")

    def _check_units(self, start: Started, all_starts: list[Started], limit: Limit) -> None:
        units = [(at, count) for at, count in self._units(start.user, all_starts) if at > start.at - limit.window_ms]
        if sum(count for _, count in units) > limit.quota:
            self.breaks("pace", f"more than {limit} at {start.at}: {units}")

    def _check_at_once(self, known: Known, start: Started, lane: Lane) -> None:
        """Nothing starts unless fewer run than may: by their leases, and by the processes that really run them."""
        most = at_once(start.limits)
        if lane.slots is None and most == 1:
            return
        leases = [lease.task_id for lease in lane.in_use(start.at)]
        if len(leases) > most:
            self.breaks("at once", f"{known.tag} starts at {start.at} as one of {len(leases)} leases, of {most}")
        others = [one for one in self.known.values() if one is not known and one.task.user_id == start.user]
        running = [one.tag for one in others if one.running_in and one.running_in.is_alive]
        cut_off = [one for one in others if one.running_in and self._is_cut_off(one.running_in.machine, start)]
        self.figures["starts beside others"] += bool(running)
        if len(running) >= most and not cut_off:
            self.breaks("at once", f"{known.tag} starts at {start.at} beside {running}, {most} at once")

    def _is_cut_off(self, machine: str, start: Started) -> bool:
        """It could not renew the leases of what it runs, so these may have ended."""
        return start.claimed_at - self._renewal_failed_at.get(machine, 0) < LEASE_MS

    def _check_pause(self, start: Started) -> None:
        until = self._throttled_until.get(start.user, 0)
        # A start that was taken of a shared limit before the throttling may be claimed up to 500 ms later.
        is_over = self._is_shared(start) and start.claimed_at + self._clocks_differ_ms >= until
        if start.at < until and not is_over and not self._open_resumes[start.user]:
            self.breaks("throttled", f"{start.task_id} was claimed for {start.at}, throttled until {until}")
        pause = self._paused.get(start.user)
        if pause and start.at < pause.until:
            self.breaks("paused", f"{start.task_id} was claimed for {start.at}, paused until {pause.until}")

    def _is_shared(self, start: Started) -> bool:
        known = self.known.get(start.task_id)
        return known is not None and known.task.shared != ""

    def outage_ends(self, now: int) -> None:
        """A long outage is over: each lane with a task that waits, and may start, has to go on."""
        waiting = [one for one in self.known.values() if one.answered_at is not None and not one.outcome]
        due = [one for one in waiting if not one.cancel_begun and (one.task.run_at or 0) <= now]
        self._stopped_since = dict.fromkeys((one.task.user_id for one in due), now)
        self.figures["lanes that waited at the end of a long outage"] += len(self._stopped_since)

    def _check_goes_on(self, user: str, now: int) -> None:
        since = self._stopped_since.pop(user, None)
        if since is not None and now - since > GOES_ON_WITHIN_MS:
            self.breaks("goes on after an outage", f"{user}'s lane goes on {(now - since) / 1000} s after its end")

    def _check_prompt(self, known: Known, start: Started, before: list[Started]) -> None:
        """No start is late but for its own lane: while a worker has room, others' tasks delay none."""
        if self._prompt is None or known.starts:
            return
        late_ms = self._prompt.late_ms(known, start, [one.at for one in before], self._units(start.user, before))
        late_ms = min(late_ms, start.at - self._newest_first_start(before))
        if known.task.shared and self._is_sharded:
            return  # a task waits for its own shard
        if known.task.shared:
            late_ms = min(late_ms, start.at - self._shared_possible_at(known, start))
        self.figures["starts looked at for promptness"] += 1
        self.figures["of those more than a second late"] += late_ms > 1_000
        if late_ms > LATEST_MS:
            self.breaks("prompt", f"{known.tag} starts at {start.at}, {late_ms} ms after it could")

    def _newest_first_start(self, before: list[Started]) -> int:
        """The time of the newest start of a task that had not started before: no later task starts earlier."""
        known = [self.known.get(one.task_id) for one in before]
        return max((one.starts[0].at for one in known if one and one.starts), default=0)

    def _shared_possible_at(self, known: Known, start: Started) -> int:
        """When the shared limit could be used at first, by the starts that were taken of it, as the calm see it."""
        name = known.task.shared
        taken = sorted(one for one in self._shared_taken.get(name, ()) if one[0] <= start.at)
        earlier = taken[: len(taken) - 1]
        times = [self._shared_open_at.get(name, 0), *(at for at, _ in earlier[-1:])]
        for limit in self._shared_limits.get(name, ()):
            room = limit.quota - limit.taken_by(start.units)
            for at, units in reversed(earlier):
                room -= limit.taken_by(units)
                if room < 0:
                    times.append(at + limit.window_ms * (101 if limit.is_large else 100) // 100)
                    break
        return max(times)

    def shared_taken(self, name: str, at: int, units: int, limits: Limits) -> None:
        self._shared_taken.setdefault(name, []).append((at, units))
        self._shared_limits[name] = limits

    def turn_taken(self, user: str, at: int, item: str, turn: int) -> None:
        """A start of that item of the shared limit was taken for a lane, with this turn; 0 for none."""
        self._turn_of[user, at] = item, turn
        self.figures["starts of a shared limit that were lost"] += 1  # until its lane takes it

    def _check_turn(self, known: Known, at: int) -> None:
        """Each turn lets one task start: a start that its lane does not take is lost, and does not count."""
        item, turn = self._turn_of.get((known.task.user_id, at), ("", 0))
        self.figures["starts with a turn"] += turn > 0
        self.figures["starts of a shared limit that were lost"] -= 1
        earlier = self._turn_used_by.get((item, turn))
        if earlier:
            self.breaks("one start to a turn", f"{known.tag} starts with turn {turn} of {item}, as {earlier} did")
        if turn:
            self._turn_used_by[item, turn] = known.tag

    def turn_stored(self, before: Lane, after: Lane, served: int) -> None:
        """A lane asks for a turn only if it has none that is still to come."""
        turn, new = before.turn, after.turn
        is_open = turn and turn.revision == before.revision == after.revision and turn.number > served
        if turn and new and is_open and new.name == turn.name and new.number != turn.number:
            self.breaks("one turn to a lane", f"{after.user_id} has turn {turn.number} and asks for another one")
        if new and not new.group and after.group:
            self.breaks("one turn to a group", f"{after.user_id} of {after.group} asks for a turn of its own")
        self.figures["turns"] += 1
        self.figures["numbers in groups' queues"] += bool(new and new.group)

    def group_turn_stored(self, queue: SharedLimit, turn: int, served: int) -> None:
        """A group gets a turn only if it has none that is still to come."""
        if queue.turn > served and turn not in (queue.turn, 0):
            self.breaks("one turn to a group", f"{queue.name} has turn {queue.turn} and gets {turn}")
        self.figures["turns of groups"] += turn > queue.turn

    def shared_opens(self, name: str, at: int) -> None:
        """It is changed or throttled until then, epoch ms, or a task that ran under it has ended by then."""
        self._shared_open_at[name] = max(self._shared_open_at.get(name, 0), at)

    def lane_changed(self, lane: Lane, limits: Limits, before: Limits, now: int) -> None:
        """Its limits, pause or hold are others now."""
        if self._prompt:
            self._prompt.changed(lane, limits, before, now)

    def throttled(self, user: str, task_id: str, until: int) -> None:
        """The task was throttled: no task of its user starts before then, and its attempt does not count."""
        self._throttled_until[user] = until
        self.known[task_id].starts[-1].was_throttled = True
        self.figures["starts that were throttled"] += 1

    def released(self, task_id: str, retry_at: int) -> None:
        """The attempt is over, and the lane knows from when on the task may start again."""
        self.known[task_id].starts[-1].retry_at = retry_at

    def _check_order(self, known: Known, start: Started) -> None:
        if known.starts:
            return
        if known.is_scheduled:
            self._check_order_of_scheduled(known)
            return
        delivered_at = self._delivered.get(start.process, (0, ""))[0]
        for other in self.known.values():
            if (
                other.task.user_id != start.user
                or other is known
                or other.starts
                or other.outcome
                or other.cancel_begun
            ):
                continue
            if other.answered_at is None or other.is_scheduled:
                continue
            # With several at once it waits at the lane's head until it may start, and is then forwarded.
            has_had_its_turn = other.was_passed_over and other.forwarded
            if other.answered_at < known.begun_at and not has_had_its_turn:
                self.breaks("order", f"{known.tag} started before {other.tag}, answered before it was submitted")
            if other.was_passed_over:
                continue
            once = len(other.seqs) == len(known.seqs) == 1
            if once and min(other.seqs) < min(known.seqs) and other.answered_at < delivered_at:
                self.breaks("order by seq", f"{known.tag} {known.seqs} started before {other.tag} {other.seqs}")

    def _check_order_of_scheduled(self, known: Known) -> None:
        """Of tasks due at one time, that comes first whose submit was answered before the other's was begun."""
        for other in self.known.values():
            is_due_with_it = other.is_scheduled and other is not known and other.task.user_id == known.task.user_id
            if not is_due_with_it or other.task.run_at != known.task.run_at or other.starts or other.outcome:
                continue
            if other.answered_at is None or other.cancel_begun:
                continue
            self.figures["pairs of tasks due at one time"] += 1
            if other.answered_at < known.begun_at or self._are_in_one_bulk(other, known):
                self.breaks("order of scheduled", f"{known.tag} {known.seqs} starts before {other.tag} {other.seqs}")

    def _are_in_one_bulk(self, first: Known, second: Known) -> bool:
        """True if both came in one bulk in this order; False where a request without a key was repeated."""
        (submit, index), (other_submit, other_index) = first.tag.split("/"), second.tag.split("/")
        if submit != other_submit or int(index) >= int(other_index):
            return False
        return sum(one.tag in (first.tag, second.tag) for one in self.known.values()) == 2

    def _check_again(self, known: Known, start: Started) -> None:
        for earlier in known.starts:
            if earlier.became == "claimed" and not earlier.has_raised and earlier.process.is_alive:
                self._run_twice(known, earlier.process, start.process, start.claimed_at)
            if earlier.became == "ended":
                self.breaks("runs once", f"{known.tag} is started again after it had ended in {earlier.process.name}")
            same_worker = (earlier.process.machine, earlier.life) == (start.process.machine, start.life)
            if earlier.has_result and same_worker:
                self.breaks("runs once", f"{known.tag} is started again by {start.process.machine}, which had its end")

    def _may_have_lost_its_worker(self, known: Known) -> bool:
        return self._is_apart and any(start.process.machine in self._renewal_failed_at for start in known.starts)

    def _run_twice(self, known: Known, first: Process, second: Process, now: int) -> None:
        """Another machine cannot see that a worker lives which can't renew its lease."""
        if self._is_apart and now - self._renewal_failed_at.get(first.machine, 0) < LEASE_MS:
            self.figures["run twice at once, on machines apart, the first one cut off for longer than its lease"] += 1
        else:
            self.breaks("run once at a time", f"{known.tag} runs in {first.name} and in {second.name}")

    def run_begins(self, tag: str, process: Process, now: int) -> Known | None:
        mine = self._claimed_by.get(process)
        if not mine:
            self.breaks("runs once", f"{tag} runs and no start was claimed")
            return None
        mine[-1].has_run = True
        known = self.known[mine[-1].task_id]
        known.runs += 1
        if self._prompt:
            self._prompt.run_begins(now)
        self._count_true_time(mine[-1], now)
        twins = [one for one in self.known.values() if one.tag == known.tag and one.runs and one is not known]
        if twins and tag.split("/", maxsplit=1)[0] in self._keyed:
            self.breaks("same key, runs once", f"{known.tag} runs as {known.task.task_id} and {twins[0].task.task_id}")
        if known.running_in and known.running_in.is_alive:
            self._run_twice(known, known.running_in, process, now)
        known.running_in = process
        return known

    def _count_true_time(self, start: Started, now: int) -> None:
        """Machines whose clocks differ record starts that keep the pace; by true time they may not."""
        runs = self._true_runs.setdefault(start.user, [])
        runs.append(now)
        for limit in small_limits(start.limits):
            self.figures["starts"] += 1
            if sum(1 for at in runs if now - limit.window_ms < at) > limit.quota:
                self.figures["starts in a window overfull by true time"] += 1

    def run_ends(self, known: Known, process: Process, result: str, now: int) -> None:
        known.last_result = result
        self._check_stop(known, now)
        if self._prompt:
            self._prompt.run_ends(now)
        for start in known.starts:
            mine = start.process is process and start.became == "claimed"
            start.has_raised = start.has_raised or (mine and result in GOES_ON)
            start.has_result = start.has_result or (mine and result not in GOES_ON)
        if known.running_in is process:
            known.running_in = None

    def _check_stop(self, known: Known, now: int) -> None:
        """Where nothing fails, a function that stops when it is cancelled stops within some seconds."""
        self.figures["tasks that stopped because they were cancelled"] += known.last_result == "stopped"
        requested_at = known.stop_requested_at
        if not (self._is_calm and known.task.payload["stops"] and requested_at is not None):
            return
        is_alone = not known.starts or known.starts[-1].is_alone
        if now > requested_at + (STOPPED_WITHIN_MS if is_alone else STOPPED_IN_SLOT_WITHIN_MS):
            self.breaks("a cancelled task is asked to stop", f"{known.tag} ran on for {now - requested_at} ms")

    def handled(self, process: Process, outcome: str, now: int) -> None:
        """The worker's code returned (done, deferred), gave up in an AWS failure, crashed or died."""
        for start in self._claimed_by.pop(process, ()):
            known = self.known.get(start.task_id)
            result = known.last_result if known and start.has_run else ""
            if self._prompt and start.is_alone:
                self._prompt.free_at[start.user] = now
            if start.became == "ended":
                continue
            if outcome in ("died", "unavailable"):
                start.became = outcome
                self.figures[f"handled: {outcome} after a claim"] += 1
            else:
                start.became = "raised" if result in GOES_ON else "ended"
        self._delivered.pop(process, None)

    def worker_died(self, machine: str) -> None:
        """With it went all that it remembered."""
        self._lives[machine] += 1

    def end_changed(self, task: Task, before: Outcome, after: Outcome | None) -> None:
        known = self.known.get(task.task_id)
        self.breaks("an end stays", f"{known and known.tag} had ended as {before} and now as {after}")

    def stored(self, task: Task, outcome: Outcome, by_worker: bool, now: int) -> None:
        known = self.known.get(task.task_id)
        if known is None:
            return
        if self._prompt and by_worker:
            self._prompt.free_at[task.user_id] = now
        known.outcome.append(outcome)
        for start in known.starts:
            if start.became == "claimed":
                start.became = "ended"
        if by_worker and not known.logged:
            self.breaks("logged before stored", f"{known.tag} is stored as {outcome.state.value} and is not logged")

    def logged(self, event: dict[str, Any]) -> None:
        known = self.known.get(event["task_id"])
        if known is None:
            self.breaks("nothing out of nothing", f"an end of {event['task_id']} is logged")
            return
        known.logged.append(event)

    # At the end of all.

    def sent_callbacks(self, callback: Callback) -> None:
        self.figures["callbacks sent"] += 1
        self.known[callback.task_id].sent_callbacks.append(callback.event["event"])

    def check_drained(self, waiting: int, records: dict[str, Any]) -> None:
        if waiting:
            self.breaks("nothing lost", f"{waiting} messages are still in the queue")
        if self._stopped_since:
            self.breaks(
                "goes on after an outage", f"no task of {sorted(self._stopped_since)} has started since its end"
            )
        for known in self.known.values():
            if known.answered_at is not None or (known.starts and known.in_queue):
                self._check_end(known, records.get(known.task.task_id))

    def check_released(self, shared: SharedLimit) -> None:
        """Once all tasks are final, none counts as one that runs."""
        for task_id in shared.holders or ():
            self.breaks("shared at once", f"{self.known[task_id].tag} is final, and still listed as one that runs")

    def _check_end(self, known: Known, record: Any) -> None:
        if known.is_forgotten and (record is None or record.outcome is None):  # or a slow submit stored it again
            record = TaskRecord(known.task, known.outcome[-1].state, known.outcome[-1])
        if record is None or record.outcome is None:
            self.breaks("nothing lost", f"{known.tag} has no end; it was answered at {known.answered_at}")
            return
        state = record.outcome.state
        words = [event["event"] for event in known.logged]
        word = {TaskState.SUCCEEDED: "task_completed"}.get(state, f"task_{state.value}")
        if not words:
            self.breaks("every end is logged", f"{known.tag} ended as {state.value} and no line says so")
        elif word not in words:
            self.breaks("every end is logged", f"{known.tag} ended as {state.value} and the log says {words}")
        if known.task.callback_url and word not in known.sent_callbacks:
            self.breaks("every callback is sent", f"{known.tag} is {state.value}, and sent was {known.sent_callbacks}")
        hurt = any(start.became in ("died", "unavailable") for start in known.starts)
        hurt = hurt or self._may_have_lost_its_worker(known)
        if len(words) > 1:
            self.figures["ends logged more than once"] += 1
            is_cancelled_again = set(words) == {"task_cancelled"} and not (known.starts and self._is_calm)
            if known.is_emptied and self._is_calm:
                self.breaks("every end is logged once", f"{known.tag} was cancelled with its lane: {words}")
            if not hurt and not is_cancelled_again and (known.starts or self._is_calm):
                self.breaks("every end is logged once", f"{known.tag}: {words}, and no worker died or gave up in it")
        if state is TaskState.CANCELLED and not known.cancel_begun:
            self.breaks("nothing lost", f"{known.tag} is cancelled without a cancellation")
        if known.last_result == "stopped" and state is TaskState.SUCCEEDED:
            self.breaks("a cancelled task ends cancelled", f"{known.tag} stopped and has succeeded")
        if state is TaskState.SUCCEEDED and known.runs == 0:
            self.breaks("nothing lost", f"{known.tag} ended as succeeded and never ran")
        overdue = known.task.payload["runs_ms"] >= self._deadline_ms - 1_000
        hurt = hurt or "units are more than" in (record.outcome.error or "")
        if state is TaskState.FAILED and known.last_result not in ("raised", "bad") and not hurt and not overdue:
            self.breaks("nothing lost", f"{known.tag} failed: {record.outcome.error}")
        self.figures["ran more than once, its worker having died or given up"] += hurt and known.runs > 1
