"""Units: from the submit or the task's definition, in answers, records and the log; and what a function really used."""

from typing import Any

import pytest
from chalice.test import HTTPResponse

from chalicelib.tasks import Context, RetryAfter
from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline
from tests.functional.test_hostile_inputs import assert_refused
from tests.functional.test_submit import header

LIMITS = "5/second; 100 units/minute"


@pytest.fixture
def paceline(deploy: Deploy) -> Paceline:
    return deploy(LIMITS=LIMITS)


def submit(paceline: Paceline, user: str, headers: dict[str, str] | None = None, **fields: Any) -> HTTPResponse:
    return paceline.request("POST", "/api/v1/task", {"user_id": user, **fields}, **(headers or {}))


def submit_many(paceline: Paceline, user: str, *tasks: dict[str, Any]) -> HTTPResponse:
    return paceline.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": list(tasks)})


def lane(paceline: Paceline, user: str) -> dict[str, Any]:
    body: dict[str, Any] = paceline.get(f"/api/v1/users/{user}").json_body
    return body


def left(paceline: Paceline, user: str) -> int:
    [units] = [policy for policy in lane(paceline, user)["policies"] if policy["counts"] == "units"]
    assert (units["name"], units["quota"]) == ("minute-units", 100)
    remaining: int = units["remaining"]
    return remaining


def run(paceline: Paceline, user: str) -> None:
    """Runs the user's tasks that can start now; the others stay hidden."""
    for record in paceline.receive(user):
        if not paceline.work(record):
            paceline.delete(record)


def register(paceline: Paceline, name: str, function: Any, units: Any = 1) -> None:
    paceline.parts.registry.task(name, units=units)(function)


# --- at submit


def test_units_of_a_submit_are_stored_and_logged(paceline: Paceline, user: str) -> None:
    task_id = submit(paceline, user, units=40).json_body["task_id"]
    task = paceline.get(f"/api/v1/users/{user}/tasks/{task_id}").json_body
    assert (task["units"], task["used_units"]) == (40, None)
    run(paceline, user)
    [event] = paceline.events
    assert (event["units"], event["used_units"]) == (40, None)


def test_task_counts_for_one_unless_its_definition_or_its_submit_says(paceline: Paceline, user: str) -> None:
    register(paceline, "fixed", lambda: None, units=3)
    register(paceline, "computed", lambda words: None, units=lambda payload: 2 * len(payload["words"]))
    computed = {"task": "computed", "payload": {"words": ["a", "b"]}}
    submit_many(
        paceline, user, {}, {"task": "fixed"}, computed, {**computed, "units": 7}, {"task": "fixed", "units": 1}
    )
    run(paceline, user)
    assert [event["units"] for event in paceline.events] == [1, 3, 4, 7, 1]


def test_scheduled_task_keeps_its_units_until_it_runs(paceline: Paceline, user: str) -> None:
    assert submit(paceline, user, units=40, delay_seconds=60).status_code == 202
    paceline.clock.advance(60_000)
    assert paceline.dispatch(*paceline.receive_scheduled()) == []
    run(paceline, user)
    assert [(event["units"], event["started_at"] - NOW) for event in paceline.events] == [(40, 60_000)]


@pytest.mark.parametrize("units", [0, -1, 1_000_001, 1.5, "3", True, [1], 10**400])
def test_units_of_another_form_are_refused(paceline: Paceline, user: str, units: object) -> None:
    assert_refused(submit(paceline, user, units=units), 422, "/units")
    assert_refused(submit_many(paceline, user, {}, {"units": units}), 422, "/tasks/1/units")
    assert lane(paceline, user)["admitted"] == 0


@pytest.mark.parametrize(("units", "status"), [(None, 202), (1.0, 202), (100, 202), (101, 422)])
def test_units_are_allowed_up_to_the_quota(paceline: Paceline, user: str, units: object, status: int) -> None:
    assert submit(paceline, user, units=units).status_code == status


def raising(payload: Any) -> int:
    raise KeyError("model")


@pytest.mark.parametrize("units", [raising, lambda payload: 0, lambda payload: 1.5, lambda payload: None])
def test_units_that_can_not_be_computed_are_the_request_s_fault_and_name_the_task(
    paceline: Paceline, user: str, units: Any
) -> None:
    register(paceline, "chat", lambda payload: None, units)
    one, many = submit(paceline, user, task="chat"), submit_many(paceline, user, {}, {"task": "chat"})
    assert_refused(one, 422, "/payload")
    assert_refused(many, 422, "/tasks/1/payload")
    assert "'chat'" in one.json_body["title"]
    assert "'chat'" in one.json_body["detail"]
    assert lane(paceline, user)["admitted"] == 0
    assert submit(paceline, user, task="chat", units=5).status_code == 202


def test_payload_that_does_not_fit_is_refused_before_its_units_are_computed(paceline: Paceline, user: str) -> None:
    register(paceline, "chat", lambda prompt: None, raising)
    assert submit(paceline, user, task="chat").json_body["title"] == "The payload does not fit the task 'chat'"


def test_task_that_a_limit_never_allows_is_refused(paceline: Paceline, user: str) -> None:
    register(paceline, "chat", lambda payload: None, units=200)
    for answer, field in (
        (submit(paceline, user, units=101), "/units"),
        (submit(paceline, user, task="chat"), "/payload"),
        (submit(paceline, user, units=101, delay_seconds=60), "/units"),
        (submit_many(paceline, user, {}, {"units": 101}), "/tasks/1/units"),
        (submit_many(paceline, user, {}, {"units": 101, "delay_seconds": 60}), "/tasks/1/units"),
        (submit_many(paceline, user, {"units": 5, "delay_seconds": 60}, {"task": "chat"}), "/tasks/1/payload"),
    ):
        assert_refused(answer, 422, field)
        assert answer.json_body["title"] == "Too many units"
        assert "more than the limit 100 units/minute ever allows" in answer.json_body["detail"]
    assert lane(paceline, user)["admitted"] == 0
    assert paceline.get(f"/api/v1/users/{user}/tasks").json_body["tasks"] == []


def test_limits_of_the_user_decide_whether_a_task_is_too_large(paceline: Paceline, user: str) -> None:
    paceline.request("PUT", f"/api/v1/users/{user}/limits", {"limits": "500 units/minute; 300 units/10 seconds"})
    assert submit(paceline, user, units=300).status_code == 202
    refused = submit(paceline, user, units=301)
    assert_refused(refused, 422, "/units")
    assert "300 units/10 seconds" in refused.json_body["detail"]
    paceline.request("PUT", f"/api/v1/users/{user}/limits", {"limits": "5/second"})
    assert submit(paceline, user, units=1_000_000).status_code == 202


def test_refused_units_can_be_sent_again_under_the_same_key(paceline: Paceline, user: str) -> None:
    key = {"Idempotency_Key": "k-1", "Prefer": "handling=strict"}
    refused = submit(paceline, user, key, units=101)
    assert (refused.status_code, refused.headers.get("Preference-Applied")) == (422, None)
    paceline.request("PUT", f"/api/v1/users/{user}/limits", {"limits": "500 units/minute"})
    assert submit(paceline, user, key, units=101).status_code == 202
    assert submit(paceline, user, key, units=101).headers["Idempotency-Replayed"] == "true"
    assert_refused(submit(paceline, user, key, units=102), 422, "Idempotency-Key")


def test_waiting_task_that_a_lowered_limit_never_allows_fails_and_the_lane_goes_on(
    paceline: Paceline, user: str
) -> None:
    submit_many(paceline, user, {"units": 60}, {"units": 60}, {"units": 30})
    run(paceline, user)
    paceline.request("PUT", f"/api/v1/users/{user}/limits", {"limits": "50 units/minute"})
    paceline.clock.advance(120_000)
    run(paceline, user)
    events = {event["seq"]: event for event in paceline.events}
    assert [events[seq]["event"] for seq in (1, 2, 3)] == ["task_completed", "task_failed", "task_completed"]
    assert "50 units/minute" in events[2]["error"]
    assert "60" in events[2]["error"]
    assert (events[2]["started_at"], events[2]["attempt"], events[2]["units"]) == (None, 0, 60)


# --- in answers


def test_answers_name_limits_of_units_and_what_is_left_of_them(paceline: Paceline, user: str) -> None:
    answer = submit(paceline, user, units=60)
    assert header(answer, "RateLimit-Policy") == '"second";q=5;w=1, "minute-units";q=100;qu="units";w=60'
    assert header(answer, "RateLimit").startswith('"second";r=4;t=1, "minute-units";r=40;t=6')
    assert left(paceline, user) == 40
    assert [policy["counts"] for policy in lane(paceline, user)["policies"]] == ["starts", "units"]


def test_task_whose_units_do_not_fit_waits_and_smaller_ones_wait_behind_it(paceline: Paceline, user: str) -> None:
    submit(paceline, user, units=60)
    over = submit(paceline, user, units=41)
    assert (over.status_code, over.json_body["violated-policies"]) == (429, ["minute-units"])
    delay_ms = over.json_body["delay_ms"]
    assert 60_000 <= delay_ms <= 60_600
    assert header(over, "Retry-After") in ("60", "61")
    assert int(header(over, "RateLimit").rpartition("t=")[2]) <= int(header(over, "Retry-After"))
    behind = submit(paceline, user, units=1)
    assert (behind.status_code, behind.json_body["position"]) == (429, 2)
    assert behind.json_body["planned_at"] == over.json_body["planned_at"]


def test_strict_submit_names_the_limit_of_units(paceline: Paceline, user: str) -> None:
    submit(paceline, user, units=60)
    refused = submit(paceline, user, {"Prefer": "handling=strict"}, units=41)
    assert (refused.status_code, refused.json_body["queued"]) == (429, False)
    assert refused.json_body["violated-policies"] == ["minute-units"]
    assert submit(paceline, user, {"Prefer": "handling=strict"}, units=40).status_code == 202


# --- what was used


def spending(paceline: Paceline, user: str, *used: int | None, takes_ms: int = 0) -> None:
    """The task `spend` reports these, one after the other."""
    reports = list(used)

    def spend(context: Context) -> None:
        paceline.clock.advance(takes_ms)
        if (units := reports.pop(0)) is not None:
            context.used(units)

    register(paceline, "spend", spend, units=60)


def test_units_that_were_not_used_are_given_back(paceline: Paceline, user: str) -> None:
    spending(paceline, user, 10)
    task_id = submit(paceline, user, task="spend").json_body["task_id"]
    assert left(paceline, user) == 40
    run(paceline, user)
    assert left(paceline, user) == 90
    [event] = paceline.events
    assert (event["units"], event["used_units"]) == (60, 10)
    task = paceline.get(f"/api/v1/users/{user}/tasks/{task_id}").json_body
    assert (task["units"], task["used_units"]) == (60, 10)


def test_units_that_were_used_beyond_the_estimate_count_from_the_end_on(paceline: Paceline, user: str) -> None:
    spending(paceline, user, 95, takes_ms=500)
    submit(paceline, user, task="spend")
    run(paceline, user)
    assert left(paceline, user) == 5
    over = submit(paceline, user, units=6)
    # The task's own 60 leave the window first.
    assert 59_500 <= over.json_body["delay_ms"] <= 60_100


def test_waiting_task_starts_as_soon_as_units_are_given_back(paceline: Paceline, user: str) -> None:
    spending(paceline, user, 10, 20)
    submit_many(paceline, user, {"task": "spend"}, {"task": "spend"})
    run(paceline, user)
    assert [event["started_at"] - NOW for event in paceline.events] == [0, 0]
    assert left(paceline, user) == 70


def test_each_attempt_gives_back_its_own_units(paceline: Paceline, user: str) -> None:
    def busy(context: Context) -> None:
        context.used(0 if context.attempt == 1 and not throttled else 30)
        if not throttled:
            throttled.append(True)
            raise RetryAfter(2, "429")

    throttled: list[bool] = []
    register(paceline, "busy", busy, units=60)
    submit(paceline, user, task="busy")
    [record] = paceline.receive(user)
    assert paceline.work(record)
    assert left(paceline, user) == 100
    paceline.clock.advance(2_000)
    assert paceline.work(record) == []
    assert left(paceline, user) == 70
    [event] = paceline.events
    assert (event["starts"], event["starts_used"]) == ([NOW], [{"units": 0, "at": NOW}])
    assert (event["units"], event["used_units"]) == (60, 30)
