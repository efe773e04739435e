"""A model of schedules: two dispatchers race for one queue, clients change schedules, and everything fails at times.

Each call takes time, so that the other processes act before and after its effect. A call may be refused, lose its
answer, take half a minute, or end its process; a message may be delivered twice, and all messages may be lost. The user
is forgotten at times, and comes back.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, cast

from msgspec.structs import replace

from chalicelib.core.contention import RetryWithJitter
from chalicelib.core.errors import ConflictError, NotFoundError, UnavailableError
from chalicelib.core.schedule import OVERDUE_MS, Order, Schedule, tick_task_id
from chalicelib.core.task import Outcome, Task, TaskState
from chalicelib.core.ticks import Timing
from chalicelib.lanes.clearance import Clearance
from chalicelib.scheduled.dispatcher import ScheduledDelivery, ScheduledDispatcher
from chalicelib.schedules.control import ScheduleControl
from chalicelib.schedules.ringing import SEARCH_EVERY_MS, Ringer
from chalicelib.schedules.ticker import Ticker
from chalicelib.settings import OverLimit
from chalicelib.submit.submitter import Submitter
from tests.factories import NOW, make_settings
from tests.memory.scheduled_queue import MemoryScheduledQueue
from tests.memory.schedules import MemoryScheduleStore
from tests.memory.stores import MemoryDueTasks, MemoryLaneStore, MemoryTaskStore
from tests.memory.task_queue import MemoryTaskQueue
from tests.simulation.faults import Faults, Remote
from tests.simulation.schedule import Fault, Wrong
from tests.simulation.virtual import MachineClock, Process, Timeline

USER = "ann"
VISIBILITY_MS = 10_000
#: Milliseconds of faults, and after them of calm, in which each tick has to come.
STORM_MS, CALM_MS = 300_000, 180_000
#: Milliseconds after the storm in which what it left is brought on: a lost message is found in a later search.
RECOVERED_MS = OVERDUE_MS + 2 * SEARCH_EVERY_MS + 60_000
#: Milliseconds by which a tick may come late in calm: a call takes up to 12.
PROMPT_MS = 1_500


@dataclass(frozen=True)
class TickParts:
    """Parts of the model; a mutant replaces one by a broken one."""

    schedules: type[MemoryScheduleStore] = MemoryScheduleStore
    submitter: type[Submitter] = Submitter
    ringer: type[Ringer] = Ringer
    control: type[ScheduleControl] = ScheduleControl
    clearance: type[Clearance] = Clearance


class StormFaults:
    """Faults by chance, until healed."""

    def __init__(self, random: Random, rate: float) -> None:
        self._random = random
        self._rate = rate
        self.is_healed = False

    def next(self, call: str, machine: str) -> Fault | None:
        if self.is_healed or self._random.random() >= self._rate:
            return None
        wrongs = list(Wrong) if machine.startswith("w") else [Wrong.REFUSED, Wrong.LOST, Wrong.SLOW_AFTER]
        return Fault(call, 0, self._random.choice(wrongs), self._random.choice([50, 900, 35_000]))


class SlowDispatchers(StormFaults):
    """Dispatchers stand still before or after writes and sends, for as long as others need to forget the user."""

    CALLS = ("schedules.save", "schedules.get", "lanes.try_fast_admit", "queue.send", "schedules.delete")

    def next(self, call: str, machine: str) -> Fault | None:
        if self.is_healed or call not in self.CALLS or self._random.random() >= self._rate:
            return None
        wrong = self._random.choice([Wrong.SLOW_BEFORE, Wrong.SLOW_AFTER])
        return Fault(call, 0, wrong, self._random.choice([50, 900, 3_000]))


@dataclass
class Witness:
    """What happened, and what of it breaks a promise."""

    broken: list[str] = field(default_factory=list)
    #: ticks that were taken, by schedule and generation, and those that a change dropped
    taken: set[tuple[str, str, int]] = field(default_factory=set)
    #: generations that a change or a deletion ended, once it was answered
    ended: set[str] = field(default_factory=set)
    #: messages sent to the lane for each task, those that are no repeats
    sent: Counter[str] = field(default_factory=Counter)
    tasks: dict[str, Task] = field(default_factory=dict)
    takes: int = 0
    #: generation of each tick's task, and those generations whose user was forgotten
    generations: dict[str, str] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    forgettings: int = 0

    def saved(self, schedule: Schedule, before: Schedule | None) -> None:
        if schedule.pending is None or (before and before.pending and before.pending.at == schedule.pending.at):
            return
        self.takes += 1
        if schedule.generation in self.ended:
            self.broken.append(f"tick {schedule.pending.at} of {schedule.name} was taken after its end was answered")
        self.taken.add((schedule.name, schedule.generation, schedule.pending.at))
        self.generations[tick_task_id(schedule, schedule.pending.at)] = schedule.generation

    def was_forgotten(self, generations: set[str]) -> None:
        """Forgetting the user was answered, who had schedules of these generations when it began."""
        self.ended |= generations
        self.forgotten |= generations
        self.forgettings += 1

    def sent_to_lane(self, task: Task) -> None:
        if self.generations.get(task.task_id) in self.forgotten:
            self.broken.append(f"a tick of {task.schedule} was submitted after its user was forgotten")
        self.tasks[task.task_id] = task
        if not task.is_repeat:
            self.sent[task.task_id] += 1


class TickWorld:
    #: changes by clients during the storm, and their kinds
    changes = 8
    kinds = ("put", "put", "payload", "pause", "delete", "lose", "forget")
    faults_of: type[StormFaults] = StormFaults

    def __init__(self, seed: int, parts: TickParts | None = None, rate: float = 0.06) -> None:
        parts = parts or TickParts()
        self.random = Random(f"{seed}/ticks")
        self.timeline = Timeline(seed, NOW)
        self.faults = self.faults_of(self.random, rate)
        self.witness = Witness()
        self.settings = make_settings(LIMITS="1000/second", MAX_DELAY="12d")
        now_ms = lambda: self.timeline.now  # noqa: E731
        self.lanes, self.tasks, self.schedules = MemoryLaneStore(), MemoryTaskStore(), parts.schedules()
        self.queue = MemoryTaskQueue(now_ms)
        self.scheduled_queue = MemoryScheduledQueue(now_ms, VISIBILITY_MS, self.random.choice)
        self.parts = parts
        self._numbers = count(1)
        self.clocks = {name: MachineClock(self.timeline, 0) for name in ("w0", "w1", "api")}
        self.busy: dict[str, set[Process]] = {"w0": set(), "w1": set()}
        self.dispatchers = {name: self._dispatcher(name) for name in self.busy}
        self.control = self._control()
        self.clearance = self._clearance()

    # The machines.

    def _remote(self, name: str, port: Any) -> Any:
        faults = cast(Faults, self.faults)
        return Remote(name, port, self.timeline, faults, self._die, self._observe)

    def _ports(self) -> dict[str, Any]:
        names = ("lanes", "tasks", "queue", "schedules", "scheduled_queue")
        return {name: self._remote(name, getattr(self, name)) for name in names}

    def _token(self) -> str:
        return f"token-{next(self._numbers)}"

    def _ringer(self, ports: dict[str, Any], clock: MachineClock) -> Ringer:
        return self.parts.ringer(ports["schedules"], ports["scheduled_queue"], clock, self.random.random)

    def _dispatcher(self, name: str) -> ScheduledDispatcher:
        clock, ports = self.clocks[name], self._ports()
        lanes = (ports["lanes"], ports["tasks"], ports["queue"])
        submitter = self.parts.submitter(*lanes, RetryWithJitter(clock, self.random.random), self.settings)
        ringer, stores = self._ringer(ports, clock), (ports["schedules"], ports["tasks"])
        ticker = Ticker(*stores, submitter, ringer, clock, self._token, OverLimit.QUEUE, "dev", lambda event: None)
        unused: Any = None
        queues = (ports["scheduled_queue"], ports["tasks"], ports["queue"])
        return ScheduledDispatcher(*queues, unused, unused, unused, clock, 0, ticker)

    def _control(self) -> ScheduleControl:
        clock, ports = self.clocks["api"], self._ports()
        retry = RetryWithJitter(clock, self.random.random)
        return self.parts.control(ports["schedules"], self._ringer(ports, clock), clock, retry, self._token, 10)

    def _clearance(self) -> Clearance:
        clock, ports = self.clocks["api"], self._ports()
        stores = (ports["lanes"], ports["tasks"], MemoryDueTasks(), ports["queue"], ports["scheduled_queue"])
        retry = RetryWithJitter(clock, self.random.random)
        return self.parts.clearance(*stores, clock, retry, self.settings, self.control.delete_all)

    def _die(self, process: Process) -> None:
        """The process ends with all that its machine does; another takes its place at once."""
        for other in list(self.busy.get(process.machine, ())):
            if other is not process:
                other.kill()
        process.kill()

    def _observe(self, name: str, arguments: tuple[Any, ...], effect: Callable[[], Any]) -> Any:
        if name == "schedules.save":
            schedule = arguments[0]
            before = self.schedules.get(schedule.user_id, schedule.name)
            if is_saved := effect():
                self.witness.saved(schedule, before)
            return is_saved
        messages = len(self.queue)
        answer = effect()
        if name == "queue.send" and len(self.queue) > messages:
            self.witness.sent_to_lane(arguments[0])
        return answer

    # The queue's deliveries.

    def deliver(self) -> None:
        """Each 200 ms, all visible messages, each to one of the machines, some to both; and lanes are worked off."""
        self._work()
        while delivery := self.scheduled_queue.receive():
            names = list(self.busy) if self._strikes(0.1) else [self.random.choice(list(self.busy))]
            for name in names:
                self._spawn(name, delivery)
        self.timeline.at(self.timeline.now + 200, self.deliver)

    def _work(self) -> None:
        """Finishes each task that was sent to the lane, in no time."""
        for message in self.queue.receive(100):
            task, lane = Task.from_message(message.body), self.lanes.get(USER)
            self.lanes.change(lane, replace(lane, started_seq=max(lane.started_seq, task.seq)))
            self.tasks.finish(task, Outcome(TaskState.SUCCEEDED, self.timeline.now, self.timeline.now, 1))
            self.queue.delete(message.receipt)

    def _strikes(self, chance: float) -> bool:
        return not self.faults.is_healed and self.random.random() < chance

    def _spawn(self, name: str, delivery: ScheduledDelivery) -> None:
        def handle() -> None:
            with suppress(UnavailableError):
                if self.dispatchers[name].handle(delivery):
                    self.scheduled_queue.delete(delivery.receipt)

        label = f"{name}:{delivery.receipt}.{next(self._numbers)}"
        process = self.timeline.spawn(label, handle, lambda: self.busy[name].discard(process))
        self.busy[name].add(process)

    # The clients.

    def change(self, name: str) -> None:
        """One client changes one schedule: another timing or payload, a pause, its end, or its deletion.

        Or it forgets the user, who comes back.
        """
        choice = self.random.choice(self.kinds)
        if choice == "lose" and self._strikes(0.5):
            self.scheduled_queue._messages.clear()
        elif choice == "delete":
            self._serve(lambda: self._delete(name))
        elif choice == "forget":
            self._serve(lambda: self._forget(name))
        else:
            seconds = self.random.choice([5, 7, 20, 60]) if choice == "put" else 10
            self._serve(lambda: self._put(name, seconds, choice))

    def _serve(self, request: Callable[[], None]) -> None:
        def serve() -> None:
            with suppress(UnavailableError, NotFoundError, ConflictError):
                request()

        self.timeline.spawn(f"api:{next(self._numbers)}", serve)

    def _put(self, name: str, seconds: int, choice: str) -> None:
        before = self._generations(name)
        order = Order(payload=choice if choice == "payload" else None)
        timing = Timing("* * * * *", "UTC") if seconds == 60 else Timing(every_seconds=seconds)
        stored, _ = self.control.put(USER, name, order, timing, choice == "pause")
        self.witness.ended |= before - {stored.generation}

    def _delete(self, name: str) -> None:
        before = self._generations(name)
        self.control.delete(USER, name)
        self.witness.ended |= before

    def _forget(self, name: str) -> None:
        before = self._generations("a") | self._generations("b")
        self.clearance.forget(USER)
        self.witness.was_forgotten(before)
        self._put(name, 10, "put")

    def _generations(self, name: str) -> set[str]:
        """Of the schedule as it is when the request begins: once that is answered, they have ended."""
        schedule = self.schedules.get(USER, name)
        return {schedule.generation} if schedule else set()

    # The run.

    def run(self) -> Witness:
        try:
            self._run_storm()
            self.faults.is_healed = True
            self._go_on(self.timeline.now + RECOVERED_MS)
            self._check_calm()
            self._check_all()
        finally:
            self.timeline.close()
        return self.witness

    def _run_storm(self) -> None:
        names = ("a", "b")
        for name in names:
            self._serve(lambda name=name: self._put(name, 10, "put"))  # type: ignore[misc]
        for _ in range(self.changes):
            name, at = self.random.choice(names), NOW + self.random.randrange(STORM_MS)
            self.timeline.at(at, lambda name=name: self.change(name))  # type: ignore[misc]
        self.timeline.at(NOW, self.deliver)
        self._go_on(NOW + STORM_MS)
        # At the end one of them ticks for sure, and its ticks bring on what is lost of the other.
        self.faults.is_healed = True
        self._serve(lambda: self._put("a", 10, "put"))
        self._go_on(self.timeline.now + 1_000)

    def _go_on(self, until: int) -> None:
        while self.timeline.run_next(until):
            pass
        self.timeline.now = until

    def _check_calm(self) -> None:
        """Without faults each tick comes once, at its time, and each schedule has one message."""
        start = self.timeline.now
        live, _ = self.schedules.page(USER, "", 10)
        self._go_on(start + CALM_MS)
        for schedule in live:
            expected = self._ticks_of(schedule, start, start + CALM_MS - PROMPT_MS)
            found = sorted(
                (_tick_of(task), task.submitted_at)
                for task in self.witness.tasks.values()
                if task.schedule == schedule.name and start < _tick_of(task) <= start + CALM_MS - PROMPT_MS
            )
            if [at for at, _ in found] != expected:
                late = set(expected) ^ {at for at, _ in found}
                self.witness.broken.append(f"{schedule.name} in calm: {len(late)} ticks are missing or too many")
            if any(not 0 <= submitted_at - at <= PROMPT_MS for at, submitted_at in found):
                self.witness.broken.append(f"{schedule.name} in calm: a tick is early or late")
        ticking = [one for one in live if not one.paused]
        if len(self.scheduled_queue) != len(ticking):
            self.witness.broken.append(f"{len(self.scheduled_queue)} messages for {len(ticking)} schedules")

    def _ticks_of(self, schedule: Schedule, after: int, until: int) -> list[int]:
        if schedule.paused:
            return []
        if schedule.timing.every_seconds is None:
            return [at for at in range(after // 60_000 * 60_000, until + 1, 60_000) if after < at <= until]
        period, anchor = schedule.timing.every_seconds * 1000, schedule.timing.anchor
        return [at for at in range(anchor, until + 1, period) if after < at <= until]

    def _check_all(self) -> None:
        by_tick: dict[tuple[str, int], set[str]] = defaultdict(set)
        for task in self.witness.tasks.values():
            by_tick[task.schedule, _tick_of(task)].add(task.task_id)
        self.witness.broken += [
            f"tick {at} of {name} has two tasks" for (name, at), ids in by_tick.items() if len(ids) > 1
        ]
        self.witness.broken += [f"{task_id} was sent twice as new" for task_id, n in self.witness.sent.items() if n > 1]
        for name, generation, at in self.witness.taken:
            is_dropped = generation in self.witness.ended or not self._is_current(name, generation)
            if (name, at) not in by_tick and not is_dropped:
                self.witness.broken.append(f"tick {at} of {name} was taken and never submitted")

    def _is_current(self, name: str, generation: str) -> bool:
        schedule = self.schedules.get(USER, name)
        return schedule is not None and schedule.generation == generation


class ForgettingWorld(TickWorld):
    """The user is forgotten again and again, and comes back each time, while dispatchers are slow."""

    changes = 60
    kinds = ("forget",)
    faults_of = SlowDispatchers


def _tick_of(task: Task) -> int:
    """The tick's time, which is the first part of the task's id."""
    return int(task.task_id.replace("-", "")[:12], 16)


def run(seed: int, parts: TickParts | None = None, rate: float = 0.06) -> Witness:
    return TickWorld(seed, parts, rate).run()


def run_forgetting(seed: int, parts: TickParts | None = None, rate: float = 0.2) -> Witness:
    return ForgettingWorld(seed, parts, rate).run()
