"""Tasks with units: what they report to have used, and limits lowered below them."""

from random import Random

import pytest

from chalicelib.core.limits import parse_limits
from chalicelib.core.task import Json, Task, TaskState
from chalicelib.submit.submission import Submission, Submitted, TaskRequest
from chalicelib.tasks.runner import Call, Ended, Failed, Returned
from chalicelib.worker.finalizer import FINALIZE_TRIES
from chalicelib.worker.messages import Done
from tests.factories import NOW, task_id_of
from tests.unit.workshop import MortalRunner, WorkerDiedError, Workshop


class Reporting(MortalRunner):
    """Runs functions that report as many units as their payload says."""

    def run(self, call: Call) -> Ended:
        ended, uses = super().run(call), call.payload.get("uses")
        if isinstance(ended, Returned):
            return Returned(ended.value, uses)
        assert isinstance(ended, Failed)
        return Failed(ended.error, ended.is_permanent, uses)


class Api(Workshop):
    """An API with a limit of units; each task says what it is expected to use, and reports what it did."""

    def __init__(self, **env: str) -> None:
        super().__init__(**{"LIMITS": "100 units/minute", "BACKOFF": "1s", **env})
        self.task_runner, self.fails, self.dies = Reporting(), 0, False
        self.replace_worker()
        self.register("chat", self._chat)

    def _chat(self, _payload: Json) -> None:
        if self.dies:
            self.dies = False
            raise WorkerDiedError
        if self.fails:
            self.fails -= 1
            raise ValueError("not this time")

    def ask(self, units: int, uses: int | None = None, name: str = "chat") -> Task:
        task_id, request = task_id_of(next(self._numbers)), TaskRequest(name, {"uses": uses})
        submission = Submission("ann", [request], self.clock.now_ms(), units=[units])
        submitted = self.submitter.submit(submission, [task_id])
        assert isinstance(submitted, Submitted)
        return self.stored(submitted)[0]


def test_units_travel_with_the_task_and_count_at_its_claim() -> None:
    api = Api()
    tasks = [api.ask(60), api.ask(40), api.ask(1)]
    assert [task.units for task in tasks] == [60, 40, 1]
    api.run()
    assert api.started_ms[:2] == [0, 0]
    assert 60_000 <= api.started_ms[2] <= 60_600
    assert tasks[2].planned_at - NOW == api.started_ms[2]


def test_units_that_were_not_used_let_the_next_task_start_before_its_planned_start() -> None:
    api = Api(LIMITS="120 units/minute")
    tasks = [api.ask(90, uses=30) for _ in range(3)]
    assert tasks[1].planned_at - NOW >= 60_000
    api.run()
    assert api.started_ms[:2] == [0, 0]
    assert 60_000 <= api.started_ms[2] <= 60_600
    assert api.events[1]["planned_at"] == api.events[1]["started_at"] == NOW
    assert [event["late_ms"] for event in api.events] == [0, 0, 0]


def test_units_beyond_the_estimate_count_from_their_report_on() -> None:
    api = Api()
    api.ask(10, uses=95)
    api.ask(10)
    api.run()
    assert 60_000 <= api.started_ms[1] <= 60_600


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["lanes", "log"])
def test_units_are_corrected_once_whatever_is_repeated_or_lost(call: str, after: bool) -> None:
    api = Api()
    getattr(api, call).fail("correct_units", "write", times=3, after=after)
    api.ask(80, uses=20)
    api.run()
    lane = api.lanes.get("ann")
    assert (lane.real.unit_room, lane.real.extra_units) == (80, 19)
    assert {event["event"] for event in api.events} == {"task_completed"}


def test_units_of_a_worker_that_died_before_its_report_stay_counted() -> None:
    api = Api()
    api.dies = True
    api.ask(40, uses=10)
    with pytest.raises(WorkerDiedError):
        api.handle_next()
    api.replace_worker()
    api.run()
    assert api.lanes.get("ann").real.extra_units + api.lanes.get("ann").started == 40 + 10


def test_each_attempt_reports_its_own_units() -> None:
    api = Api(LIMITS="300 units/minute")
    api.fails = 1
    api.ask(80, uses=50)
    api.run()
    lane = api.lanes.get("ann")
    assert lane.started == 2
    assert lane.started + lane.real.extra_units == 100


def test_task_with_more_units_than_a_lowered_limit_fails_and_says_why_and_the_lane_goes_on() -> None:
    api = Api()
    tasks = [api.ask(units) for units in (100, 80, 10)]
    api.handle_next()
    api.control.set_limits("ann", parse_limits("50 units/minute"))
    api.run()
    first, second, third = (api.record(task) for task in tasks)
    assert [record.state for record in (first, second, third)] == [
        TaskState.SUCCEEDED,
        TaskState.FAILED,
        TaskState.SUCCEEDED,
    ]
    assert second.error == "its 80 units are more than 50 units/minute allows"
    event = api.event_of(tasks[1])
    assert (event["event"], event["attempt"], event["started_at"]) == ("task_failed", 0, None)
    assert [letter.reason for letter in api.queue.dead_letters] == [second.error]
    lane = api.lanes.get("ann")
    assert (lane.started_seq, lane.waiting, lane.waiting_units) == (3, 0, 0)


def test_task_between_two_attempts_fails_if_a_limit_was_lowered_below_its_units() -> None:
    api = Api(BACKOFF="10s")
    api.fails = 1
    task, following = api.ask(80), api.ask(10)
    api.handle_next()
    api.control.set_limits("ann", parse_limits("50 units/minute"))
    api.run()
    event = api.event_of(task)
    assert (event["event"], event["attempt"], event["started_at"]) == ("task_failed", 1, NOW)
    assert api.record(following).state is TaskState.SUCCEEDED


@pytest.mark.parametrize(("port", "call", "times"), [("lanes", "change", 1), ("tasks", "finish", FINALIZE_TRIES)])
def test_task_with_too_many_units_is_logged_once_and_passed_over_whatever_fails(
    port: str, call: str, times: int
) -> None:
    api = Api()
    tasks = [api.ask(units) for units in (100, 80)]
    api.handle_next()
    api.control.set_limits("ann", parse_limits("50 units/minute"))
    getattr(api, port).fail(call, times=times)
    api.run()
    assert [event["task_id"] for event in api.events] == [task.task_id for task in tasks]
    assert len(api.queue.dead_letters) == 1
    lane = api.lanes.get("ann")
    assert (lane.started_seq, lane.waiting, lane.waiting_units) == (2, 0, 0)


def test_waiting_units_are_those_of_the_tasks_that_wait() -> None:
    api = Api()
    tasks = [api.ask(units) for units in (100, 30, 20, 1)]
    assert api.lanes.get("ann").waiting_units == 99 + 29 + 19
    api.control.cancel("ann", tasks[2].task_id)
    api.run()
    lane = api.lanes.get("ann")
    assert (lane.waiting, lane.waiting_units) == (0, 0)


def test_backlog_is_planned_anew_once_units_were_given_back() -> None:
    """Each task takes a third of what it was expected to."""
    api = Api()
    late = [api.ask(60, uses=20) for _ in range(11)][-1]
    assert late.planned_at - NOW >= 600_000
    assert isinstance(api.handle_next(), Done)
    following = api.ask(60, uses=20)
    assert following.planned_at <= late.planned_at


class Model:
    """A receiver like an LLM's API: it counts requests and tokens as they come, and answers 429 beyond its limits."""

    def __init__(self, requests: int, tokens: int) -> None:
        self._most, self._counted = (requests, tokens), list[tuple[int, int]]()
        self.answers: list[int] = []

    def ask(self, now_ms: int, tokens: int) -> None:
        recent = [count for at, count in self._counted if at > now_ms - 60_000]
        is_beyond = len(recent) >= self._most[0] or sum(recent) >= self._most[1]
        self.answers.append(429 if is_beyond else 200)
        self._counted.append((now_ms, tokens))


@pytest.mark.parametrize("seed", range(3))
def test_model_never_answers_429_although_estimates_are_wrong_by_up_to_a_factor_of_3(seed: int) -> None:
    api, model, random = Api(LIMITS="50/minute; 9000 units/minute; 150/5 minutes"), Model(50, 9_000), Random(seed)

    def chat(payload: Json) -> None:
        model.ask(api.clock.now_ms(), payload["uses"])
        api.clock.advance(random.choice((0, 40, 900)))

    api.register("model", chat)
    for _ in range(300):
        units = random.choice((60, 150, 400))
        api.ask(units, uses=round(units * random.uniform(1 / 3, 3)), name="model")
    api.run()
    assert model.answers == [200] * 300
