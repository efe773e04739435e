"""Answers while a task of the user runs, and between two attempts of one."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from chalice.test import HTTPResponse

from chalicelib.core.errors import PermanentError
from chalicelib.tasks import Context
from chalicelib.worker.lease_renewal import RENEW_AFTER_MS
from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline
from tests.functional.test_submit import header, in_queue
from tests.in_process import Record

Job = Callable[[], object]


class Stage:
    """A deployment whose task `long` runs for some time, while the test asks."""

    def __init__(self, paceline: Paceline, user: str) -> None:
        self.paceline = paceline
        self.user = user
        self._jobs: list[Job] = []
        paceline.parts.registry.task("long")(lambda payload: self._jobs.pop(0)())

    def submit(self, **headers: str) -> HTTPResponse:
        return self.paceline.request("POST", "/api/v1/task", {"user_id": self.user, "task": "long"}, **headers)

    def submit_many(self, count: int) -> HTTPResponse:
        return self.paceline.request(
            "POST", "/api/v1/tasks", {"user_id": self.user, "tasks": [{"task": "long"}] * count}
        )

    def at(self, milliseconds: int) -> None:
        """Moves the clock that long after the beginning, in steps, and renews the leases that are due at each."""
        while (left_ms := NOW + milliseconds - self.paceline.clock.now_ms()) > 0:
            self.paceline.clock.advance(min(left_ms, RENEW_AFTER_MS))
            self.paceline.parts.renewer.renew_due()

    def run(self, *jobs: Job) -> None:
        """Delivers the visible messages; each task does the next job."""
        self._jobs += jobs
        self.paceline.work(*self.paceline.receive(self.user))

    def deliver(self, record: Record, job: Job) -> None:
        """Delivers one message, again if it was deferred."""
        self._jobs.append(job)
        self.paceline.work(record)

    def lane(self) -> dict[str, Any]:
        body: dict[str, Any] = self.paceline.get(f"/api/v1/users/{self.user}").json_body
        return body

    def task(self, task_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.paceline.get(f"/api/v1/users/{self.user}/tasks/{task_id}").json_body
        return body


@pytest.fixture
def stage(paceline: Paceline, user: str) -> Stage:
    return Stage(paceline, user)


def fail() -> None:
    raise ValueError("not this time")


# --- while a task runs


def test_task_behind_a_running_one_is_not_accepted_as_if_it_could_start(stage: Stage) -> None:
    stage.submit()
    answers: list[HTTPResponse] = []

    def run_for_12_s() -> None:
        stage.at(1_100)
        stage.at(2_200)
        answers.extend([stage.submit(Prefer="handling=strict"), stage.submit(), stage.submit(Prefer="respond-async")])
        stage.at(12_000)

    stage.run(run_for_12_s)
    refused, queued, accepted = answers
    reason = "A task of this user is running, and waiting was not wanted."
    assert (refused.status_code, refused.json_body["queued"], refused.json_body["detail"]) == (429, False, reason)
    assert refused.json_body["violated-policies"] == []
    assert int(header(refused, "Retry-After")) == 1
    body = queued.json_body
    assert (queued.status_code, body["queued"], body["position"], body["seq"]) == (429, True, 2, 2)
    assert (body["planned_at"], body["delay_ms"]) == (NOW + 2_200, 1_000)
    assert body["detail"].startswith(
        "A task of this user is running, and a lane runs one task at a time. It is number 2"
    )
    assert (accepted.status_code, accepted.json_body["position"]) == (202, 3)


def test_strict_submit_is_accepted_again_once_the_long_task_has_ended(stage: Stage) -> None:
    stage.submit()
    stage.run(lambda: stage.at(12_000))
    answer = stage.submit(Prefer="handling=strict")
    assert (answer.status_code, answer.json_body["position"]) == (202, 0)


def test_lost_worker_s_mark_locks_nobody_out(stage: Stage) -> None:
    stage.submit()
    stage.paceline.parts.lanes.end_lease = lambda *_: False  # type: ignore[method-assign]
    stage.run(lambda: stage.at(3_000))
    assert stage.submit(Prefer="handling=strict").status_code == 429
    stage.at(14_000)
    assert stage.submit(Prefer="handling=strict").status_code == 202


def test_bulk_of_long_tasks_promises_what_earlier_ones_took(stage: Stage) -> None:
    stage.submit()
    stage.run(lambda: stage.at(3_000))
    stage.at(10_000)
    answer = stage.submit_many(4)
    tasks = answer.json_body["tasks"]
    assert [task["delay_ms"] for task in tasks] == [0, 3_000, 6_000, 9_000]
    assert [task["position"] for task in tasks] == [0, 1, 2, 3]
    assert [task["planned_at"] - NOW for task in tasks] == [10_000, 11_000, 12_000, 13_000]
    assert (answer.status_code, header(answer, "Retry-After")) == (429, "9")
    lane, last = stage.lane(), stage.task(tasks[-1]["task_id"])
    assert [at - lane["now"] for at in lane["next_starts"]] == [0, 3_000, 6_000, 9_000]
    assert (last["estimated_at"], last["position"]) == (lane["next_starts"][-1], 3)


def test_long_tasks_of_a_user_with_a_high_quota_do_not_all_start_now(deploy: Deploy, user: str) -> None:
    stage = Stage(deploy(LIMITS="50/second"), user)
    assert [task["position"] for task in stage.submit_many(3).json_body["tasks"]] == [0, 0, 0]
    stage.run(*(lambda at=at: stage.at(at) for at in (2_000, 4_000, 6_000)))
    assert [task["position"] for task in stage.submit_many(3).json_body["tasks"]] == [0, 1, 2]
    refused = stage.submit(Prefer="handling=strict")
    assert (refused.status_code, header(refused, "Retry-After")) == (429, "6")
    assert refused.json_body["detail"] == "Other tasks of this user wait, and waiting was not wanted."


def test_short_tasks_of_a_user_with_a_high_quota_may_start_now(deploy: Deploy, user: str) -> None:
    stage = Stage(deploy(LIMITS="50/second"), user)
    stage.submit()
    stage.run(lambda: stage.at(40))
    for _ in range(20):
        assert stage.submit(Prefer="handling=strict").status_code == 202


def test_retry_after_of_an_accepted_task_counts_its_run_time(stage: Stage) -> None:
    assert header(stage.submit(), "Retry-After") == "1"
    stage.run(lambda: stage.at(5_000))
    stage.at(20_000)
    assert header(stage.submit(), "Retry-After") == "5"


def test_lane_that_a_long_task_left_takes_the_next_task_by_one_write(stage: Stage) -> None:
    stage.submit()
    stage.run(lambda: stage.at(3_000))
    stage.at(10_000)
    lanes, writes = stage.paceline.parts.lanes, []
    admit = lanes.try_fast_admit
    lanes.try_fast_admit = lambda *arguments: writes.append(admit(*arguments)) or writes[-1]  # type: ignore
    lanes.admit = lambda *_: pytest.fail("a second write")  # type: ignore[method-assign]
    assert stage.submit(Prefer="handling=strict").json_body["position"] == 0
    stage.at(30_000)
    assert stage.submit().json_body["position"] == 1  # the one before has not run, and it will take 3 s
    assert len(writes) == 2


# --- between two attempts


@pytest.fixture
def backing_off(deploy: Deploy, user: str) -> Stage:
    """Its first task failed at 0 s and is tried again at 600 s; it has been hidden until then."""
    stage = Stage(deploy(BACKOFF="600s"), user)
    stage.submit()
    stage.run(fail)
    stage.at(5_000)
    return stage


def test_new_task_is_planned_after_the_backoff_of_the_one_ahead(backing_off: Stage) -> None:
    answer = backing_off.submit()
    body = answer.json_body
    assert (answer.status_code, body["position"], body["planned_at"]) == (429, 2, NOW + 601_000)
    assert (body["delay_ms"], header(answer, "Retry-After")) == (596_000, "596")
    assert body["detail"].startswith(
        "A task of this user waits for its next attempt, and a lane runs one task at a time"
    )
    refused = backing_off.submit(Prefer="handling=strict")
    assert (refused.status_code, refused.json_body["queued"]) == (429, False)
    assert refused.json_body["detail"] == "A task of this user waits for its next attempt, and waiting was not wanted."
    assert header(refused, "Retry-After") == "597"


def test_lane_shows_the_end_of_the_backoff_and_does_not_slide(backing_off: Stage) -> None:
    later = backing_off.submit().json_body
    for at in (6_000, 300_000):
        backing_off.at(at)
        lane = backing_off.lane()
        assert (lane["next_start_at"], lane["open_at"]) == (NOW + 600_000, NOW + 602_000)
        assert (lane["running"], lane["backlog"]) == (None, 1)
        task = backing_off.task(later["task_id"])
        assert (task["position"], task["estimated_at"]) == (2, NOW + 601_000)


def test_task_that_backs_off_says_when_it_is_tried_again(backing_off: Stage, user: str) -> None:
    [task] = backing_off.paceline.get(f"/api/v1/users/{user}/tasks").json_body["tasks"]
    assert (task["state"], task["attempts"]) == ("queued", 1)
    assert (task["position"], task["estimated_at"]) == (1, NOW + 600_000)


def test_task_between_two_attempts_is_cancelled_and_the_next_goes_on_at_once(backing_off: Stage, user: str) -> None:
    paceline = backing_off.paceline
    [first] = paceline.get(f"/api/v1/users/{user}/tasks").json_body["tasks"]
    backing_off.submit()
    backing_off.at(20_000)
    for _ in range(2):
        cancelled = paceline.request("DELETE", f"/api/v1/users/{user}/tasks/{first['task_id']}")
        assert (cancelled.status_code, cancelled.json_body["state"]) == (200, "cancelled")
        assert (cancelled.json_body["attempts"], cancelled.json_body["started_at"]) == (1, NOW)
    assert backing_off.lane()["next_start_at"] == NOW + 20_000
    backing_off.run(lambda: None, lambda: None)
    assert [(event["event"], event["seq"]) for event in paceline.events] == [
        ("task_cancelled", 1),
        ("task_completed", 2),
    ]
    [end, following] = paceline.events
    assert (end["attempt"], end["started_at"], following["started_at"]) == (1, NOW, NOW + 20_000)
    assert in_queue(paceline, user) == 0


def test_next_attempt_s_start_counts_in_every_answer(deploy: Deploy, user: str) -> None:
    stage = Stage(deploy(BACKOFF="5s", LIMITS="1/minute", MAX_DELAY="1h"), user)
    stage.submit()
    record, *_ = stage.paceline.receive(user)
    stage.deliver(record, fail)
    stage.at(60_000)
    stage.deliver(record, lambda: None)
    stage.at(70_000)
    refused, queued = stage.submit(Prefer="handling=strict"), stage.submit()
    assert (refused.status_code, header(refused, "Retry-After")) == (429, "50")
    assert (queued.json_body["position"], queued.json_body["planned_at"]) == (1, NOW + 120_000)
    assert (header(refused, "RateLimit"), refused.json_body["violated-policies"]) == ('"minute";r=0;t=50', ["minute"])
    assert stage.lane()["open_at"] == NOW + 180_000


def test_running_task_is_asked_to_stop_and_its_view_says_so_also_after_its_end(stage: Stage, user: str) -> None:
    task_id, answers = stage.submit().json_body["task_id"], []
    path = f"/api/v1/users/{user}/tasks/{task_id}"
    stage.run(lambda: answers.append(stage.paceline.request("DELETE", path)))
    [answer] = answers
    assert (answer.status_code, answer.json_body["state"]) == (202, "running")
    assert answer.json_body["cancel_requested_at"] == NOW
    late, view = stage.paceline.request("DELETE", path), stage.paceline.request("GET", path).json_body
    assert (late.status_code, late.json_body["title"]) == (409, "The task has started")
    assert late.json_body["detail"] == "It is succeeded. Only a task that has not ended can be cancelled."
    assert (view["state"], view["cancel_requested_at"]) == ("succeeded", NOW)


def test_view_shows_the_progress_of_the_last_attempt_only(paceline: Paceline, user: str) -> None:
    """The first attempt reports half; the second one nothing at first, then all just before its end."""
    views: list[dict[str, Any]] = []

    def view() -> dict[str, Any]:
        body: dict[str, Any] = paceline.get(f"/api/v1/users/{user}/tasks/{task_id}").json_body
        return body

    def reports(*, context: Context) -> None:
        if context.attempt == 1:
            context.progress(0.5, "page 3")
            deadline = time.monotonic() + 30
            while view()["progress"] is None:
                assert time.monotonic() < deadline, "it is not stored"
                time.sleep(0.01)
            views.append(view())
            paceline.clock.advance(100)
            raise ValueError("not this time")
        views.append(view())
        context.progress(1)

    paceline.parts.registry.task("reports", attempts=2, backoff_seconds=5)(reports)
    task_id = paceline.request("POST", "/api/v1/task", {"user_id": user, "task": "reports"}).json_body["task_id"]
    [record] = paceline.receive(user)
    paceline.work(record)
    views.append(view())
    paceline.clock.advance(6_000)
    paceline.work(record)
    views.append(view())
    first = {"fraction": 0.5, "text": "page 3", "at": NOW}
    last = {"fraction": 1.0, "text": "", "at": views[-1]["completed_at"]}
    states = ["running", "queued", "running", "succeeded"]
    assert [view["state"] for view in views] == states
    assert [view["progress"] for view in views] == [first, None, None, last]


def test_failed_for_good_task_blocks_nobody(stage: Stage) -> None:
    def fail_for_good() -> None:
        stage.at(4_000)
        raise PermanentError("never")

    stage.submit()
    stage.run(fail_for_good)
    assert stage.submit(Prefer="handling=strict").status_code == 202
