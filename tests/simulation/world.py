"""One simulated deployment: the real use cases over memory adapters, on API and worker machines, behind a queue."""

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from chalicelib.api import responses
from chalicelib.core.claim import NO_SHARED_LIMITS
from chalicelib.core.contention import RetryWithJitter
from chalicelib.core.errors import ConflictError, InvalidError, NotFoundError, RetryAfter, UnavailableError
from chalicelib.core.lane import Lane, Lease
from chalicelib.core.limits import Limits, parse_limits, parse_shared_limits
from chalicelib.core.ports import Presence, SharedWritten, Written
from chalicelib.core.scheduled import Callback
from chalicelib.core.shared_groups import queue_name
from chalicelib.core.shared_layout import SharedLayout
from chalicelib.core.shared_limit import SharedLimit
from chalicelib.core.shared_names import parse_shared
from chalicelib.core.shared_shards import MAX_SHARDS, item_name, shards_of
from chalicelib.lanes.clearance import Clearance
from chalicelib.lanes.control import Control
from chalicelib.lanes.shared import SharedControl, SharedView
from chalicelib.scheduled.admission import DueAdmitter
from chalicelib.scheduled.callbacks import DeliveryFailure
from chalicelib.scheduled.cancellations import ScheduledCancellations
from chalicelib.scheduled.dispatcher import ScheduledDelivery, ScheduledDispatcher
from chalicelib.settings import OverLimit
from chalicelib.submit.daily_cap import DailyCap
from chalicelib.submit.idempotency import Idempotency
from chalicelib.submit.submission import Submission, TaskRequest
from chalicelib.submit.submitter import Submitter
from chalicelib.tasks.registry import Context, Registry
from chalicelib.tasks.runner import Call, Ended, InProcess
from chalicelib.worker.execution import TaskExecutor
from chalicelib.worker.finalizer import Finalizer
from chalicelib.worker.lease_renewal import LeaseRenewer
from chalicelib.worker.messages import Deferred, Delivery, Handled
from chalicelib.worker.next_step import next_step
from chalicelib.worker.shared_claims import SharedClaims
from chalicelib.worker.worker import Decide, Worker
from tests.factories import NOW, make_settings
from tests.memory.requests import MemoryRequestStore
from tests.memory.scheduled_queue import MemoryScheduledQueue
from tests.memory.shared_limits import MemorySharedLimitStore
from tests.memory.stores import (
    MemoryCompletionLog,
    MemoryDueTasks,
    MemoryLaneStore,
    MemoryScheduledCounts,
    MemoryTaskStore,
)
from tests.memory.task_queue import MemoryTaskQueue, Message
from tests.simulation import schedule
from tests.simulation.answers import Answers
from tests.simulation.faults import Faults, Remote
from tests.simulation.promises import GOES_ON_WITHIN_MS, Broken, History
from tests.simulation.virtual import DiedError, MachineClock, Process, Timeline

#: A Lambda invocation and an API call are killed after so long, ms.
WORKER_TIMEOUT_MS = 60_000
API_TIMEOUT_MS = 29_000
#: On Lambda a message is hidden for so long; a local worker hides it again and again for less.
LAMBDA_VISIBILITY_MS = 90_000
LOCAL_VISIBILITY_MS = 10_000
LOCAL_KEPT_EVERY_MS = 3_000
LOCAL_SLOTS = 4
#: Lambda stops a chain of invocations after so many, each by a message that the one before sent: "recursive loop
#: detection", https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
LONGEST_CHAIN = 16
#: From this length on, ms, every lane that waits has to go on within a minute of an outage's end.
LONG_OUTAGE_MS = 3_600_000
#: After the last fault all has to end within this, ms: an hour for a wait whose word was lost, and what it holds up.
DRAINED_WITHIN_MS = 7_200_000
#: and where nothing failed between hiding a message and leaving word of it, less than that hour
CALMLY_DRAINED_WITHIN_MS = 3_000_000
#: Calls that write tasks, which come first among their arguments.
TASK_WRITES = (
    "tasks.create_if_absent",
    "tasks.create_many",
    "tasks.finish",
    "tasks.attempt_failed",
    "tasks.mark_admitted",
    "tasks.cancel_scheduled",
)
#: Calls that put tasks' messages into the lanes' queue.
FORWARDS_OR_SENDS = ("queue.send", "queue.send_many", "queue.send_again", "queue.forward")
#: A world of a few tasks has some thousand events; one that goes on for so long runs in circles.
MAX_EVENTS = 100_000
#: The same for each part of a plan of hundreds of tasks.
MAX_EVENTS_EACH = 1_000


class SimulatedPresence:
    """A process that dies leaves the body of `serving`, as the system lets go of its locks."""

    def __init__(self, served: set[str]) -> None:
        self._served = served

    @contextmanager
    def serving(self, token: str) -> Iterator[None]:
        self._served.add(token)
        try:
            yield
        finally:
            self._served.discard(token)

    def is_served(self, token: str) -> bool:
        return token in self._served


class MortalRunner(InProcess):
    """Runs functions in the simulated process, which may die in one: no function's failure comes of that."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def run(self, call: Call) -> Ended:
        ended = replace(super().run(call), used_units=call.payload["uses"])
        if self._timeline.current is not None and self._timeline.current.is_dead:
            raise DiedError
        return ended


@dataclass(frozen=True)
class Parts:
    """Parts of the simulated machines; a mutant replaces one by a broken one."""

    lanes: type[MemoryLaneStore] = MemoryLaneStore
    shared_limits: type[MemorySharedLimitStore] = MemorySharedLimitStore
    shared_claims: type[SharedClaims] = SharedClaims
    shared_layout: type[SharedLayout] = SharedLayout
    tasks: type[MemoryTaskStore] = MemoryTaskStore
    queue: type[MemoryTaskQueue] = MemoryTaskQueue
    scheduled_queue: type[MemoryScheduledQueue] = MemoryScheduledQueue
    requests: type[MemoryRequestStore] = MemoryRequestStore
    due_tasks: type[MemoryDueTasks] = MemoryDueTasks
    finalizer: type[Finalizer] = Finalizer
    decide: Decide = field(default=next_step)
    submitter: type[Submitter] = Submitter
    control: type[Control] = Control
    renewer: type[LeaseRenewer] | None = None
    #: whether a running task's message is kept hidden, on Lambda
    is_extended: bool = True
    #: of a machine with several processes
    presence: Callable[[set[str]], Presence] = SimulatedPresence
    #: whether the message stays in the queue
    is_kept: Callable[[Handled], bool] = field(default=lambda outcome: isinstance(outcome, Deferred))


@dataclass(frozen=True)
class Result:
    plan: schedule.Plan
    broken: tuple[Broken, ...]
    figures: dict[str, int]
    story: tuple[str, ...]
    calls: int


class SimulatedRenewer(LeaseRenewer):
    """Renews from a process of the simulation, where the real one has a thread."""

    def __init__(
        self, lanes: Any, clock: MachineClock, spawn: Callable[[Callable[[], None]], Process], hide: Any = None
    ) -> None:
        super().__init__(lanes, clock, hide=hide)
        self._spawn = spawn
        self._process: Process | None = None

    def _start(self) -> None:
        if self._process is None or not self._process.is_alive:
            self._process = self._spawn(self._run)

    def _run(self) -> None:
        while self._running:
            self._clock.sleep(self._pause_ms())
            self.renew_due()


class World:
    def __init__(self, plan: schedule.Plan, parts: Parts | None = None) -> None:
        self.plan = plan
        self.parts = parts or Parts()
        self.timeline = Timeline(plan.seed, NOW)
        self.faults = Faults(plan, self.timeline)
        deadline = "50s" if plan.is_lambda else "300s"
        settings = make_settings(MAX_ATTEMPTS=str(plan.max_attempts), DEADLINE=deadline)
        shared = parse_shared(plan.shared)
        self.settings = dataclasses.replace(settings, limits=parse_limits(plan.limits), shared_limits=shared)
        slots = plan.workers * (1 if plan.is_lambda else LOCAL_SLOTS)
        self.history = History(self.settings, plan, slots, self.faults.renewal_failed_at)
        self.answers = Answers(self.history, plan)
        self.story: list[str] = []
        visibility_ms = LAMBDA_VISIBILITY_MS if plan.is_lambda else LOCAL_VISIBILITY_MS
        self.lanes = self.parts.lanes()
        self.shared_limits = self.parts.shared_limits()
        self.tasks = self.parts.tasks()
        self.queue = self.parts.queue(lambda: self.timeline.now, visibility_ms)
        any_order = Random(f"{plan.seed}/any order").choice if plan.is_any_order else None
        self.scheduled_queue = self.parts.scheduled_queue(lambda: self.timeline.now, visibility_ms, any_order)
        #: how many messages led to each message, itself included
        self.depths: dict[str, int] = {}
        self.scheduled_counts, self.due_tasks = MemoryScheduledCounts(), self.parts.due_tasks()
        self.teller = CallbackSender(self.history)
        self.requests = self.parts.requests()
        self.log = MemoryCompletionLog()
        self.registry = Registry()
        self.registry.task("run")(self._function)
        self.apis = [ApiMachine(self, n) for n in range(2)]
        self.served = set[str]()
        self.workers = [WorkerMachine(self, n) for n in range(plan.workers)]
        self.source = Source(self)
        self.scheduled_source = ScheduledSource(self)
        self._answered: dict[str, list[str]] = {}
        #: calls that gave an answer which repeats get
        self._kept_answers: set[Process | None] = set()
        #: until when each process is about to throttle the shared limit
        self._throttling: dict[Process, int] = {}
        self._actions = count()
        self._events = 0
        self._most_events = max(MAX_EVENTS, MAX_EVENTS_EACH * plan.size)

    def run(self) -> Result:
        try:
            for action in self.plan.actions:
                self.timeline.at(NOW + action.at, lambda action=action: self._act(action))  # type: ignore[misc]
            last = max((action.at for action in self.plan.actions), default=0)
            last = max([last, *(outage.ends_at for outage in self.plan.outages)])
            ends = {outage.ends_at for outage in self.plan.outages if outage.lasts_ms >= LONG_OUTAGE_MS}
            for end in ends:
                self.timeline.at(NOW + end, self._outage_ends)
            # After a long outage later than each lane has to go on by itself: the end of the pauses restarts them.
            self._go_on(NOW + last + (2 * GOES_ON_WITHIN_MS if ends else 60_000))
            losses = sum(isinstance(action, schedule.LoseMessages) for action in self.plan.actions)
            for _ in range(1 + losses):  # a worker may die after the first resume in a task whose message was lost
                self._heal()
                self._go_on(self.timeline.now + (CALMLY_DRAINED_WITHIN_MS if self.plan.is_calm else DRAINED_WITHIN_MS))
            if not self.history.broken:
                records = {task_id: record for (_, task_id), record in self.tasks._records.items()}
                counted = sum(one.started + one.real.extra_units for one in self._shards())
                self.history.check_shared_units("s", counted)
                self.history.check_drained(len(self.queue) + len(self.scheduled_queue), records)
                self.history.check_released(self.shared_limits.get("s"))
        finally:
            self.timeline.close()
        figures = self.history.figures + self.faults.met
        return Result(
            self.plan,
            tuple(self.history.broken),
            dict(figures),
            tuple(self.story),
            self.faults.calls,
        )

    def _go_on(self, until: int) -> None:
        while not self.history.broken and self.timeline.run_next(until):
            self._events += 1
            if self._events > self._most_events:
                self.history.breaks("nothing lost", f"after {self._most_events} events it still goes on")

    def _heal(self) -> None:
        """Ends all faults and pauses; from here on everything has to drain."""
        self.faults.is_healed = True
        self.tell("all is healed")
        if self.plan.shared:
            self._act(schedule.ChangeShared(0, "s", pauses_ms=0))
        for user in {action.user for action in self.plan.actions if hasattr(action, "user")}:
            self._act(schedule.Resume(0, user))

    def _outage_ends(self) -> None:
        self.tell("the outage ends")
        self.history.outage_ends(self.timeline.now)

    def tell(self, what: str) -> None:
        self.story.append(f"{(self.timeline.now - NOW) / 1000:10.3f}  {what}")

    def chance(self) -> float:
        assert self.timeline.current is not None
        return self.timeline.current.random.random()

    # Actions of clients, and faults.

    def _act(self, action: schedule.Action) -> None:
        number = next(self._actions)
        if isinstance(action, schedule.StepClock):
            machine = (self.apis + self.workers)[action.machine % (2 + len(self.workers))]
            machine.clock.offset_ms = action.offset_ms
        elif isinstance(action, schedule.Kill):
            self.workers[action.machine % len(self.workers)].kill("killed")
        elif isinstance(action, schedule.Poison):
            self.queue.send_body(action.user, f"poison-{number}", '{"v": 1}')
            self.source.look()
        elif isinstance(action, schedule.LoseMessages):
            self.tell(f"the messages of {action.user} are lost")
            for group in self._groups_of(action.user):
                self.queue._groups.pop(group)
        elif isinstance(action, schedule.ForgetLane):
            self._forget(action.user)
        else:
            name = action.tag if isinstance(action, schedule.Submit) else type(action).__name__
            self.apis[number % 2].serve(f"{name}@{action.at}", lambda api: self._serve(api, action))

    def _groups_of(self, user: str) -> list[str]:
        """The groups of the user's messages: the lane's, and those of forwarded ones."""
        groups = self.queue._groups.items()
        return [name for name, group in groups if json.loads(group.messages[0].body).get("user_id", name) == user]

    def _forget(self, user: str) -> None:
        lane = self.lanes.get(user)
        special = lane.limits or lane.paused_until is not None or lane.cancelled or lane.admitted > lane.started_seq
        # Neither a message nor a task whose worker died and whose message was lost is left for as long as that.
        special = special or self._groups_of(user) or lane.slots
        if not special and lane.starts and lane.starts[0] < self.timeline.now - 61_000:
            self.lanes.prepare(user, lambda lane: Lane(user))

    def _serve(self, api: "ApiMachine", action: schedule.Action) -> None:
        try:
            if isinstance(action, schedule.Submit):
                self._submit(api, action)
            elif isinstance(action, schedule.Cancel):
                self._cancel(api, action)
            elif isinstance(action, schedule.Empty):
                self._empty(api, action.user)
            elif isinstance(action, schedule.ForgetUser):
                self._forget_user(api, action.user)
            elif isinstance(action, schedule.SetLimits):
                api.control.set_limits(action.user, parse_limits(action.limits) if action.limits else None)
            elif isinstance(action, schedule.SetGroup):
                api.control.set_group(action.user, action.group)
            elif isinstance(action, schedule.ChangeShared):
                self._change_shared(api, action)
            elif isinstance(action, schedule.Pause | schedule.Resume):
                self._pause_or_resume(api, action)
        except (UnavailableError, ConflictError, NotFoundError, InvalidError) as error:
            self.tell(f"{type(action).__name__} is answered {type(error).__name__}: {error}")

    def _submit(self, api: "ApiMachine", action: schedule.Submit) -> None:
        self.history.submit_begun(action.tag, self.timeline.now, action.key)
        new = [
            TaskRequest(
                "run",
                {"tag": f"{action.tag}/{n}", **vars(behaviour)},
                run_at=None if action.due_at is None else NOW + action.due_at,
                delay_seconds=None if action.delay_ms is None else action.delay_ms / 1000,
                callback_url="https://example.com" if action.is_told else None,
            )
            for n, behaviour in enumerate(action.behaviours)
        ]
        over_limit = OverLimit.REJECT if action.is_strict else OverLimit.QUEUE
        is_bulk = len(new) > 1
        serve = api.submitter.submit_bulk if is_bulk else api.submitter.submit
        units = [behaviour.units for behaviour in action.behaviours]
        now_ms = api.clock.now_ms()
        shared = [behaviour.shared for behaviour in action.behaviours]
        submission = Submission(action.user, new, now_ms, over_limit, action.key, is_bulk, units=units, shared=shared)
        self.tell(f"{api.name} submits {action.tag}")
        answer = api.idempotency.run(submission, serve, responses.submit_answer)
        response = responses.submit_response(answer)
        body = json.loads(response.body)
        submitted = body.get("tasks", [body]) if body.get("queued") or response.status_code == 202 else []
        if action.key and body.get("queued") is False and response.status_code == 429:
            self.history.refused(action.tag, self.lanes.get(action.user).cancelled)
        self.tell(f"{action.tag} is answered {response.status_code}: {[task['seq'] for task in submitted]}")
        if action.key and submitted and self.timeline.current in self._kept_answers:
            self.history.answer_kept(action.key, response.body)
        self.answers.answered(submitted)
        for index, task in enumerate(submitted):
            self.history.answered(task["task_id"], self.timeline.now, action.key, index)
            self._answered.setdefault(action.user, []).append(task["task_id"])

    def _cancel(self, api: "ApiMachine", action: schedule.Cancel) -> None:
        answered = self._answered.get(action.user, [])
        if len(answered) > action.nth_newest:
            task_id = answered[-1 - action.nth_newest]
            self.tell(f"{self.history.known[task_id].tag} is to be cancelled")
            self.history.cancel_begun(task_id)
            view = api.control.cancel(action.user, task_id)
            if view.state.value == "cancelled":
                self.tell(f"{self.history.known[task_id].tag} is answered to be cancelled")
                self.history.cancel_answered(task_id)
            else:
                self.tell(f"{self.history.known[task_id].tag} is answered to be asked to stop")
                self.history.stop_answered(task_id)

    def _empty(self, api: "ApiMachine", user: str) -> None:
        self.tell(f"the lane of {user} is to be emptied")
        self.history.emptying_begun(user)
        emptied = api.clearance.empty(user)
        self.tell(f"the lane of {user} is emptied of {emptied.waiting} tasks")

    def _forget_user(self, api: "ApiMachine", user: str) -> None:
        forgotten = api.clearance.forget(user)
        self.tell(f"{user} is forgotten with {forgotten.deleted} tasks")

    def _change_shared(self, api: "ApiMachine", action: schedule.ChangeShared) -> None:
        change = self.history.shared_change_begins(action.name)
        try:
            view = self._shared_changed(api, action)
            self.tell(f"{action.name} is changed: {view.state}")
            self.history.shared_changed(action.name, self.timeline.now, view.state.shared, change)
        finally:
            self.history.shared_change_ends(action.name)

    def _shared_changed(self, api: "ApiMachine", action: schedule.ChangeShared) -> SharedView:
        if action.limits:
            return api.shared.set_limits(action.name, parse_shared_limits(action.limits))
        if action.limits is not None:
            return api.shared.delete(action.name)
        if action.pauses_ms:
            return api.shared.pause(action.name, api.clock.now_ms() + action.pauses_ms)
        return api.shared.resume(action.name)

    def _resume(self, api: "ApiMachine", user: str) -> None:
        self.history.resume_begins(user)
        try:
            api.control.resume(user)
        finally:
            self.history.resume_ends(user)

    def _pause_or_resume(self, api: "ApiMachine", action: schedule.Pause | schedule.Resume) -> None:
        change = self.history.change_begins(action.user)
        try:
            if isinstance(action, schedule.Resume):
                self._resume(api, action.user)
                return
            until = None if action.lasts_ms is None else api.clock.now_ms() + action.lasts_ms
            view = api.control.pause(action.user, until)
            if view.lane.paused_until is not None:
                self.tell(f"{action.user} is paused until {view.lane.paused_until - NOW}")
                self.history.paused(action.user, self.timeline.now, view.lane.paused_until, change)
        finally:
            self.history.change_ends(action.user)

    # Calls of AWS and of tasks.

    def observe(self, name: str, arguments: tuple[Any, ...], effect: Callable[[], Any]) -> Any:
        process = self.timeline.current
        assert process is not None
        if name.startswith(("queue.", "scheduled_queue.")):
            effect = self._deepening(effect, process)
        if name.startswith("lanes."):
            return self._observe_lane(name, arguments, effect, process)
        if name.startswith("shared_limits."):
            return self._observe_shared(name, arguments, effect, process)
        if name in (
            "queue.send",
            "tasks.create_if_absent",
            "queue.send_many",
            "queue.forward",
            "tasks.create_many",
            "tasks.mark_admitted",
        ):
            tasks = arguments[0] if isinstance(arguments[0], Sequence) else [arguments[0]]
            for task in tasks:
                self.history.seen(task, self.timeline.now, name.startswith("queue"))
        if name in TASK_WRITES:
            return self._observe_task(name, arguments, effect, process)
        answer = self._observe_send(name, arguments, effect) if name in FORWARDS_OR_SENDS else effect()
        if name == "requests.finish":
            self._kept_answers.add(process)
        if name == "requests.begin" and answer.answer is not None:
            self._kept_answers.add(process)
        if name == "log.write":
            self.tell(f"{process.name} logs {arguments[0]['event']} {arguments[0]['seq']}")
            self.history.logged(arguments[0])
        if name.startswith(("queue.", "source.")):
            self.source.look()
        if name.startswith("scheduled_queue."):
            self.scheduled_source.look()
        return answer

    def _observe_send(self, name: str, arguments: tuple[Any, ...], effect: Callable[[], Any]) -> Any:
        before = self._messages()
        answer = effect()
        for task_id in [task_id for message, task_id in self._messages().items() if message not in before]:
            if name == "queue.forward":
                self.history.forwarded(task_id, self.timeline.now, arguments[0].is_repeat)
            else:
                self.history.message_added(task_id, self.timeline.now, is_again=name == "queue.send_again")
        return answer

    def _deepening(self, effect: Callable[[], Any], process: Process) -> Callable[[], Any]:
        """The effect; each message that it sends is one deeper in the chain than the one that the process handles."""

        def deepening() -> Any:
            before = self._message_ids()
            answer = effect()
            self.depths |= dict.fromkeys(self._message_ids() - before, process.depth + 1)
            return answer

        return deepening

    def _message_ids(self) -> set[str]:
        groups = self.queue._groups.values()
        lanes = {message.message_id for group in groups for message in group.messages}
        return lanes | {message.message_id for message in self.scheduled_queue._messages}

    def is_stopped(self, message_id: str) -> bool:
        """True if Lambda does not invoke a function with this message, since its chain is too long."""
        stops = self.plan.is_lambda and self.depths.get(message_id, 0) > LONGEST_CHAIN
        if stops:
            self.tell(f"Lambda stops the chain that leads to {message_id}")
        return stops

    def _observe_lane(self, name: str, arguments: tuple[Any, ...], effect: Callable[[], Any], process: Process) -> Any:
        if name == "lanes.save_turn":
            before, answer = self.lanes.get(arguments[0].user_id), effect()
            if isinstance(answer, Written):
                turn = arguments[1]
                queue = queue_name(turn.name, turn.group) if turn.group else turn.name
                self.history.turn_stored(before, answer.lane, self.shared_limits.get(queue).served)
            return answer
        if name == "lanes.throttle" and process in self._throttling:
            self.history.shared_throttled("s", self.timeline.now, self._throttling.pop(process))
        if name in ("lanes.change", "lanes.forget", "lanes.throttle", "lanes.release_lease"):
            return self._observe_change(name, arguments, effect)
        if name in ("lanes.try_fast_admit", "lanes.admit"):
            return self._observe_admission(arguments, effect)
        if name in ("lanes.try_fast_claim", "lanes.claim"):
            return self._observe_claim(arguments, effect, process)
        if name == "lanes.correct_units":
            return self._observe_correction(*arguments, effect)
        answer = effect()
        if name == "lanes.request_cancel" and answer:
            self.tell(f"{self._tag(arguments[1])} is marked to be asked to stop")
            self.history.stop_requested(arguments[1].task_id, self.timeline.now)
        return answer

    def _observe_claim(self, arguments: tuple[Any, ...], effect: Callable[[], Any], process: Process) -> Any:
        start = arguments[0] if hasattr(arguments[0], "at") else arguments[1]
        before = self.lanes.get(start.lane.user_id)
        answer = effect()
        lane = self.lanes.get(start.lane.user_id)
        if lane.started > before.started:
            lease = replace(start, lane=lane).lease
            assert lease
            known = self.history.known.get(lease.task_id)
            self.tell(f"{process.name} starts {known and known.tag} at {lane.starts[0] - NOW}, attempt {start.attempt}")
            limits = lane.limits_or(self.settings.limits)
            self.history.started(lane, lease, limits, process, self.timeline.now, start.units)
            if known and known.task.shared:
                self.history.started_shared(known, lease, self._shared_limits_of(lease), process, start.units)
        return answer

    def _observe_shared(
        self, name: str, arguments: tuple[Any, ...], effect: Callable[[], Any], process: Process
    ) -> Any:
        if name == "shared_limits.save_group_turn":
            queue = self.shared_limits.get(arguments[0].name)
            write = effect()
            if isinstance(write, SharedWritten):
                shard = queue.name.partition(" ")[0]
                self.history.group_turn_stored(queue, arguments[2], self.shared_limits.get(shard).served)
            return write
        item = arguments[0] if isinstance(arguments[0], str) else arguments[0].name
        before = self.shared_limits.get(item)
        answer = effect()
        after = self.shared_limits.get(item)
        if name == "shared_limits.throttle":
            self._throttling[process] = after.throttled_until
        if name == "shared_limits.correct_units" and after.reports > before.reports:
            correction, at = arguments
            self.history.corrected_shared("s", correction.token, correction.more, at)
        limits = after.limits or self.settings.shared_limits.get("s", ())
        if after.newest != before.newest:
            units = 1 + after.real.extra_units - before.real.extra_units
            claim = arguments[-1]
            self.history.shared_taken("s", after.starts[0], units, limits)
            self.history.turn_taken(claim.user_id, after.starts[0], item, claim.turn)
        if len(after.holders or ()) < len(before.holders or ()) or after.revision > before.revision:
            self.history.shared_opens("s", after.opens_at(self.timeline.now))
        return answer

    def _shards(self) -> list[SharedLimit]:
        return [self.shared_limits.get(item_name("s", index)) for index in range(MAX_SHARDS)]

    def _shared_limits_of(self, lease: Lease) -> Limits | None:
        text = lease.shared_limits[-1] if lease.shared_limits else ""
        if text == NO_SHARED_LIMITS:
            return None
        return parse_shared_limits(text) if text else self.settings.shared_limits["s"]

    def _observe_correction(self, start: Any, used_units: int, _at: int, effect: Callable[[], Any]) -> Any:
        before = replace(start, lane=self.lanes.get(start.lane.user_id)).lease
        answer = effect()
        after = replace(start, lane=self.lanes.get(start.lane.user_id)).lease
        if after and before and after.is_corrected and not before.is_corrected:
            self.tell(f"{self._tag(after)} is corrected from {start.units} to {used_units} units")
            self.history.corrected(start.lane.user_id, start.lease.token, used_units, after.used[1])
        return answer

    def _observe_admission(self, arguments: tuple[Any, ...], effect: Callable[[], Any]) -> Any:
        user = arguments[0] if isinstance(arguments[0], str) else arguments[0].user_id
        before = self.lanes.get(user)
        answer = effect()
        lane = self.lanes.get(user)
        if lane.admitted > before.admitted:
            self.answers.admitted(lane, lane.admitted - before.admitted, self.timeline.now)
        return answer

    def _observe_change(self, name: str, arguments: tuple[Any, ...], effect: Callable[[], Any]) -> Any:
        user = arguments[0] if isinstance(arguments[0], str) else arguments[0].user_id
        before = self.lanes.get(user)
        answer = effect()
        lane = self.lanes.get(user)
        if name in ("lanes.throttle", "lanes.release_lease") and answer:
            self.history.released(arguments[1].task_id, arguments[2])
        if name == "lanes.throttle" and answer:
            lease, until = arguments[1:3]
            self.tell(f"{self._tag(lease)} is throttled until {until - NOW}")
            self.history.throttled(user, lease.task_id, until)
        if name == "lanes.change" and lane.retrying and lane.retrying != before.retrying:
            self.history.released(lane.retrying.task_id, lane.retrying.until)
        if (lane.emptied_at, lane.emptied_seq) != (before.emptied_at, before.emptied_seq):
            self.tell(f"the lane of {user} is emptied up to {lane.emptied_seq}")
            self.history.emptied(replace(lane, emptied_seq=min(lane.emptied_seq, before.admitted)))
        if lane.forgotten_at != before.forgotten_at:
            self.tell(f"the lane of {user} says that its user is forgotten")
            self.history.forgotten(user)
        if _opening(lane) != _opening(before):
            default = self.settings.limits
            self.history.lane_changed(lane, lane.limits_or(default), before.limits_or(default), self.timeline.now)
        return answer

    def _observe_task(self, name: str, arguments: tuple[Any, ...], effect: Callable[[], Any], process: Process) -> Any:
        tasks = arguments[0] if isinstance(arguments[0], Sequence) else [arguments[0]]
        before = [self._ended(task) for task in tasks]
        answer = effect()
        for task, outcome in zip(tasks, before, strict=True):
            now_ended = self._ended(task)
            if outcome and now_ended != outcome:
                self.history.end_changed(task, outcome, now_ended)
            if now_ended and not outcome:
                self.tell(f"{process.name} stores {self._tag(task)} as {now_ended.state.value}")
                by_worker = process.name.startswith("w") and ":scheduled" not in process.name
                self.history.stored(task, now_ended, by_worker, self.timeline.now)
        return answer

    def _ended(self, task: Any) -> Any:
        """The stored outcome, read past the simulated faults."""
        record = self.tasks._records.get((task.user_id, task.task_id))
        return record and record.outcome

    def _messages(self) -> dict[str, str]:
        """The tasks in the queue, by their messages."""
        groups = self.queue._groups.values()
        return {one.message_id: json.loads(one.body).get("task_id", "") for group in groups for one in group.messages}

    def _tag(self, task: Any) -> str:
        known = self.history.known.get(task.task_id)
        return known.tag if known else "?"

    def _function(self, payload: dict[str, Any], context: Context) -> object:
        process = self.timeline.current
        assert process is not None
        known = self.history.run_begins(payload["tag"], process, self.timeline.now)
        if known is None:
            return None
        runs = known.runs
        fault = self.faults.next("function", process.machine)
        is_stopped = self._runs(process, payload, context)
        if runs <= payload["kills"] or (fault and fault.wrong.value.startswith("died")):
            self.workers[int(process.machine[1:])].die(process)
        ends = payload["kills"] + payload["fails"]
        result = "raised" if runs <= ends else "bad" if payload["is_bad"] else "done"
        if ends < runs <= ends + payload["holds"]:
            result = "throttled"
        result = "stopped" if is_stopped else result
        self.history.run_ends(known, process, result, self.timeline.now)
        if result == "stopped":
            raise InterruptedError
        if result == "raised":
            raise ValueError("not this time")
        if result == "throttled":
            raise RetryAfter(payload["holds_ms"] / 1000, shared=payload["holds_all"])
        return float("nan") if result == "bad" else known.runs

    def _runs(self, process: Process, payload: dict[str, Any], context: Context) -> bool:
        """Waits as long as the function runs; True if it stops because it was cancelled."""
        if not payload["stops"]:
            process.wait(payload["runs_ms"])
            return False
        until = self.timeline.now + payload["runs_ms"]
        while (left := until - self.timeline.now) > 0 and not context.cancelled:
            process.wait(min(left, 500))
        return context.cancelled


def _opening(lane: Lane) -> tuple[Any, ...]:
    """Attributes that decide when the lane's tasks may start."""
    return lane.limits, lane.paused_until, lane.throttled_until


class Machine(ABC):
    def __init__(self, world: World, kind: str, number: int, offset_ms: int) -> None:
        self.world = world
        self.name, self.number = f"{kind}{number}", number
        self.clock = MachineClock(world.timeline, offset_ms)

    def remote(self, name: str, error: type[Exception] = UnavailableError) -> Any:
        world = self.world
        return Remote(name, getattr(world, name), world.timeline, world.faults, self.die, world.observe, error)

    def layout(self) -> SharedLayout:
        world, each = self.world, self.world.plan.starts_each
        count = partial(shards_of, of_an_item=each, of_a_shard=each) if each else shards_of
        return world.parts.shared_layout(self.remote("shared_limits"), self.clock, self.shared_settings, count)

    @property
    def shared_settings(self) -> Mapping[str, Limits]:
        earlier = self.world.plan.earlier_shared
        return parse_shared(earlier) if earlier and self.number % 2 else self.world.settings.shared_limits

    def scheduling(self) -> dict[str, Any]:
        cap = DailyCap(self.remote("scheduled_counts"), self.world.settings.max_scheduled)
        return {"daily_cap": cap, "due_tasks": self.remote("due_tasks")}

    @abstractmethod
    def die(self, process: Process) -> None: ...


class ApiMachine(Machine):
    """Serves API calls; one that dies takes no other with it, as on Lambda."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, "api", number, world.plan.offsets[number])
        lanes, tasks, queue = self.remote("lanes"), self.remote("tasks"), self.remote("queue")
        races = RetryWithJitter(self.clock, world.chance)
        scheduled_queue = self.remote("scheduled_queue")
        self.submitter = world.parts.submitter(
            lanes, tasks, queue, races, world.settings, scheduled_queue=scheduled_queue, **self.scheduling()
        )
        self._ids = count(1)
        self.idempotency = Idempotency(self.remote("requests"), self.clock, self._new_id)
        known = self.shared_settings
        self.shared = SharedControl(self.remote("shared_limits"), lanes, queue, self.clock, races, known, self.layout())
        self.control = world.parts.control(
            lanes, tasks, queue, self.clock, races, world.settings, scheduled_queue, self.remote("shared_limits")
        )
        queues = (queue, scheduled_queue)
        self.clearance = Clearance(
            lanes,
            tasks,
            self.remote("due_tasks"),
            *queues,
            self.clock,
            races,
            world.settings,
            lambda user_id: None,
            self.remote("shared_limits"),
        )

    def serve(self, name: str, action: Callable[["ApiMachine"], None]) -> None:
        timeline = self.world.timeline
        process = timeline.spawn(f"{self.name}:{name}", lambda: action(self))
        timeline.at(timeline.now + API_TIMEOUT_MS, process.kill)

    def die(self, process: Process) -> None:
        self.world.tell(f"{process.name} dies")
        process.kill()

    def _new_id(self) -> str:
        """As a UUID of version 7: the time, a number of this machine, and the machine."""
        low = next(self._ids) << 64 | int(self.name[-1]) << 56
        return str(UUID(int=self.clock.now_ms() << 80 | 7 << 76 | low))


class WorkerMachine(Machine):
    """A process that handles messages, one at a time as on Lambda or several; it is replaced when it dies."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, "w", number, world.plan.offsets[2 + number])
        self.slots = 1 if world.plan.is_lambda else LOCAL_SLOTS
        self._handling: dict[Process, Message] = {}
        self._others: list[Process] = []
        self._numbers = count(1)
        self._is_up = True
        self._source = Remote(
            "source", SourcePort(world), world.timeline, world.faults, self.die, world.observe, UnavailableError
        )
        self._served = set[str]() if world.plan.is_apart else world.served
        self._teller, self._done = self.remote("teller"), self.remote("scheduled_queue")
        self._begin()

    @property
    def free(self) -> int:
        return self.slots - len(self._handling) if self._is_up else 0

    def handle(self, message: Message) -> None:
        world = self.world
        name = f"{self.name}:{message.receipt}"
        process = world.timeline.spawn(name, lambda: self._handle(message), lambda: self._ended(process))
        process.depth = world.depths.get(message.message_id, 0)
        self._handling[process] = message
        task_id = json.loads(message.body).get("task_id", "")
        world.history.delivered(process, world.timeline.now, task_id)
        if world.plan.is_lambda:
            world.timeline.at(world.timeline.now + WORKER_TIMEOUT_MS, lambda: self._time_out(process))
        else:
            self._spawn(lambda: self._keep_hidden(process, message))

    def kill(self, why: str) -> None:
        """All that it does ends at once; a new process replaces it a little later."""
        if not self._is_up:
            return
        self._is_up = False
        self.world.tell(f"{self.name} is {why}")
        self.world.history.worker_died(self.name)
        processes = [*self._handling, *self._others]
        for process in list(self._handling):
            self._forget(process, "died")
        self._others.clear()
        self.world.timeline.at(self.world.timeline.now + 500, self._begin)
        current = self.world.timeline.current
        for process in sorted(processes, key=lambda one: one is current):
            process.kill()

    def die(self, process: Process) -> None:
        self.kill(f"dead in {process.name}")
        raise DiedError

    def _begin(self) -> None:
        world, parts = self.world, self.world.parts
        lanes, tasks, queue = self.remote("lanes"), self.remote("tasks"), self.remote("queue")
        log = self.remote("log", OSError)
        hide = queue.defer if world.plan.is_lambda and parts.is_extended else None
        renewer: LeaseRenewer = SimulatedRenewer(lanes, self.clock, self._spawn, hide)
        if parts.renewer:
            renewer = parts.renewer(lanes, self.clock)
        finalizer = parts.finalizer(
            tasks, queue, log, self.clock, renewer, world.settings.stage, self.remote("scheduled_queue")
        )
        presence = None if world.plan.is_lambda else parts.presence(self._served)
        stores = (self.remote("shared_limits"), lanes, queue)
        shared = parts.shared_claims(*stores, self.clock, world.settings, presence=presence, layout=self.layout())
        executor = TaskExecutor(
            lanes, tasks, world.registry, self.clock, world.settings, renewer, finalizer,
            lambda: self.kill("expired"), MortalRunner(world.timeline), shared,
        )  # fmt: skip
        life = f"{self.name}.{next(self._numbers)}"
        tokens = count(1)
        self._worker = Worker(
            lanes, tasks, queue, executor, finalizer, self.clock, lambda: f"{life}.{next(tokens)}", world.settings,
            presence, parts.decide, shared,
        )  # fmt: skip
        submitter = parts.submitter(
            lanes,
            tasks,
            queue,
            RetryWithJitter(self.clock, world.chance),
            world.settings,
            scheduled_queue=self.remote("scheduled_queue"),
            **self.scheduling(),
        )
        due = (self.remote("due_tasks"), tasks, queue)
        cancellations = ScheduledCancellations(due[0], tasks, finalizer, self.clock)
        admitter = DueAdmitter(*due, submitter, self.clock, lambda: f"{life}.{next(tokens)}", cancellations, lanes)
        self._scheduled_messages = ScheduledDispatcher(
            self.remote("scheduled_queue"), tasks, queue, admitter, cancellations, self._tell, self.clock
        )
        self._is_up = True
        if hasattr(world, "source"):
            world.source.look()
            world.scheduled_source.look()

    def _tell(self, callback: Callback) -> DeliveryFailure | None:
        try:
            self._teller.tell(callback)
        except UnavailableError as error:
            return DeliveryFailure(str(error), is_final=False)
        return None

    @property
    def is_up(self) -> bool:
        return self._is_up

    def run_scheduled_message(self, delivery: ScheduledDelivery) -> None:
        process = self._spawn(lambda: self._run_scheduled_message(delivery), "scheduled")
        process.depth = self.world.depths.get(delivery.message_id, 0)

    def _run_scheduled_message(self, delivery: ScheduledDelivery) -> None:
        try:
            if self._scheduled_messages.handle(delivery):
                self._done.delete(delivery.receipt)
        except UnavailableError as error:
            self.world.tell(f"{self.name} gives a message up: {error}")

    def _handle(self, message: Message) -> None:
        process = self.world.timeline.current
        assert process is not None
        process.wait(process.random.randint(0, 20))
        delivery = Delivery(
            message.body, message.receipt, message.user_id, message.message_id, message.sent_at, message.receives
        )
        try:
            outcome = self._worker.handle(delivery)
        except UnavailableError as error:
            self.world.tell(f"{process.name} gives up: {error}")
            self._forget(process, "unavailable")
            return
        except Exception as error:  # noqa: BLE001 - whatever else comes out is a defect
            self.world.history.breaks("no crash", f"{process.name}: {type(error).__name__}: {error}")
            return
        self.world.tell(f"{process.name} is {type(outcome).__name__.lower()}")
        is_kept = self.world.parts.is_kept(outcome)
        self._forget(process, "handled")
        if not is_kept:
            self._delete(message)

    def _delete(self, message: Message) -> None:
        try:
            self._source.delete(message.receipt)
        except UnavailableError:
            self.world.tell(f"{message.receipt} is not deleted")

    def _keep_hidden(self, process: Process, message: Message) -> None:
        while True:
            self.clock.sleep(LOCAL_KEPT_EVERY_MS)
            if process not in self._handling:
                return
            try:
                self._source.keep(message.receipt)
            except UnavailableError:
                continue

    def _time_out(self, process: Process) -> None:
        if process in self._handling:
            self.kill(f"out of time in {process.name}")

    def _spawn(self, body: Callable[[], None], name: str = "other") -> Process:
        process = self.world.timeline.spawn(f"{self.name}:{name}{next(self._numbers)}", body)
        self._others.append(process)
        return process

    def _forget(self, process: Process, outcome: str) -> None:
        if self._handling.pop(process, None) is not None:
            self.world.history.handled(process, outcome, self.world.timeline.now)

    def _ended(self, process: Process) -> None:
        self._forget(process, "died")
        self.world.source.look()


class SourcePort:
    """Calls of a worker process to the queue itself."""

    def __init__(self, world: World) -> None:
        self._world = world

    def delete(self, receipt: str) -> bool:
        return self._world.queue.delete(receipt)

    def keep(self, receipt: str) -> None:
        self._world.queue.defer(receipt, LOCAL_VISIBILITY_MS // 1000)


class EventSource(ABC):
    """Looks at a queue when there may be something, and hands it out."""

    def __init__(self, world: World, name: str, queue: MemoryTaskQueue | MemoryScheduledQueue) -> None:
        self._world = world
        self._queue = queue
        self._random = Random(f"{world.plan.seed}/{name}")
        self._next_look: int | None = None

    def look(self) -> None:
        """Looks at the queue when there may be something, soon if it is there already."""
        timeline, next_at = self._world.timeline, self._queue.next_available_at()
        if next_at is None:
            return
        at = max(next_at, timeline.now) + self._random.randint(0, 30)
        if self._next_look is None or at < self._next_look or self._next_look < timeline.now:
            self._next_look = at
            timeline.at(at, lambda: self._look_now(at))

    def _look_now(self, at: int) -> None:
        if self._next_look != at:
            return  # an earlier look took its turn; else the looks of a long wait would multiply
        self._next_look = None
        if silent_until := self._world.faults.silent_until():
            self._world.timeline.at(silent_until, self.look)
        else:
            self._poll()

    @abstractmethod
    def _poll(self) -> None: ...


class Source(EventSource):
    """Hands each visible message to a process with room, groups side by side, BatchSize 1."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "source", world.queue)

    def _poll(self) -> None:
        while free := [worker for worker in self._world.workers if worker.free]:
            messages = self._world.queue.receive(1)
            if not messages:
                break
            if self._world.timeline.now < NOW + self._world.plan.throttled_until:
                self._hand_over_later(messages[0])
            elif not self._world.is_stopped(messages[0].message_id):
                self._random.choice(free).handle(messages[0])
        else:
            return  # whoever is free next looks again
        self.look()

    def _hand_over_later(self, message: Message) -> None:
        """Hands it to the first worker that is free once invocations are not throttled any more."""
        timeline = self._world.timeline

        def hand_over() -> None:
            if free := [worker for worker in self._world.workers if worker.free]:
                free[0].handle(message)
            else:
                timeline.at(timeline.now + 100, hand_over)

        timeline.at(NOW + self._world.plan.throttled_until, hand_over)


class CallbackSender:
    """The receivers of callbacks."""

    def __init__(self, history: History) -> None:
        self._history = history

    def tell(self, callback: Callback) -> None:
        self._history.sent_callbacks(callback)


class ScheduledSource(EventSource):
    """Hands each message that is due to a worker machine that is up."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "scheduled", world.scheduled_queue)

    def _poll(self) -> None:
        up = [worker for worker in self._world.workers if worker.is_up]
        if not up:
            return  # whoever comes up next looks again
        received = self._world.scheduled_queue.receive()
        if received and not self._world.is_stopped(received.message_id):
            self._random.choice(up).run_scheduled_message(received)
        self.look()


def run(plan: schedule.Plan, parts: Parts | None = None) -> Result:
    return World(plan, parts).run()
