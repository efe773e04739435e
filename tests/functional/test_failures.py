"""Failed tasks: their list over all users, their view, and their redrive, once however often it is repeated."""

from collections.abc import Iterator
from typing import Any

import pytest
from chalice.test import HTTPResponse

from chalicelib.container import container
from chalicelib.core.errors import ConflictError
from chalicelib.submit.redriver import MOST_AT_ONCE
from chalicelib.tasks.registry import registry
from tests.functional.conftest import Deploy, Paceline
from tests.unit.workshop import Failing

OUT_OF_ORDER: list[bool] = []


@pytest.fixture(autouse=True)
def broken_task() -> Iterator[None]:
    def broken(payload: Any) -> Any:
        if OUT_OF_ORDER:
            raise RuntimeError("out of order")
        return payload

    registry.task("broken", attempts=2, backoff_seconds=1)(broken)
    registry.task("brief", attempts=1)(broken)
    OUT_OF_ORDER.append(True)
    yield
    OUT_OF_ORDER.clear()
    del registry._definitions["broken"], registry._definitions["brief"]


@pytest.fixture
def paceline(deploy: Deploy) -> Paceline:
    return deploy(LIMITS="5/second")


def fail(paceline: Paceline, user: str, *payloads: Any, task: str = "brief") -> list[str]:
    ids = []
    for payload in payloads:
        body = {"user_id": user, "task": task, "payload": payload}
        ids.append(paceline.request("POST", "/api/v1/task", body).json_body["task_id"])
    work(paceline)
    return ids


def work(paceline: Paceline) -> None:
    """Runs all that waits, whenever it may start."""
    while len(container().queue):  # type: ignore[arg-type]
        for record in paceline.queues.receive(1):
            if not paceline.work(record):
                paceline.delete(record)
        paceline.clock.advance(500)


def results(paceline: Paceline, user: str) -> list[Any]:
    return [event["result"] for event in paceline.events if event["user_id"] == user and "result" in event]


def task_of(paceline: Paceline, user: str, task_id: str) -> Any:
    return paceline.get(f"/api/v1/users/{user}/tasks/{task_id}").json_body


def redrive(paceline: Paceline, user: str, task_id: str, **headers: str) -> HTTPResponse:
    return paceline.request("POST", f"/api/v1/users/{user}/tasks/{task_id}/redrive", **headers)


def failed(paceline: Paceline, **query: Any) -> Any:
    text = "&".join(f"{name}={value}" for name, value in {"state": "failed", **query}.items())
    return paceline.get(f"/api/v1/tasks?{text}").json_body


def test_failures_of_all_users_are_listed_the_newest_first(paceline: Paceline, user: str) -> None:
    assert failed(paceline) == {"tasks": [], "next": None}
    ids = [*fail(paceline, f"{user}-1", 1, 2), *fail(paceline, f"{user}-2", 3)]
    OUT_OF_ORDER.clear()
    fail(paceline, user, 4)
    assert [one["task_id"] for one in failed(paceline)["tasks"]] == ids[::-1]
    first = failed(paceline, limit=2)
    rest = failed(paceline, limit=2, before=first["next"])
    assert [one["payload"] for one in (*first["tasks"], *rest["tasks"])] == [3, 2, 1]
    assert rest["next"] is None
    newest = first["tasks"][0]
    assert (newest["user_id"], newest["error"]) == (f"{user}-2", "RuntimeError: out of order")


@pytest.mark.parametrize("query", ["", "?state=queued", "?state=failed&limit=0", "?state=failed&before=x", "?state=no"])
def test_other_lists_over_all_users_are_refused(paceline: Paceline, query: str) -> None:
    assert paceline.get(f"/api/v1/tasks{query}").status_code == 422


def test_view_has_payload_and_attempts_with_their_times_and_errors(paceline: Paceline, user: str) -> None:
    begun_at = paceline.clock.now_ms()
    [task_id] = fail(paceline, user, {"n": 1}, task="broken")
    task = task_of(paceline, user, task_id)
    assert (task["payload"], task["payload_omitted"], task["attempts"]) == ({"n": 1}, False, 2)
    first, second = task["attempt_history"]
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert {first["error"], second["error"], task["error"]} == {"RuntimeError: out of order"}
    assert begun_at <= first["started_at"] <= first["ended_at"] < second["started_at"] <= second["ended_at"]
    assert (second["started_at"], second["ended_at"]) == (task["started_at"], task["completed_at"])


def test_payload_is_shown_up_to_a_size_and_in_lists_up_to_a_smaller_one(paceline: Paceline, user: str) -> None:
    sizes = [900, 16_000, 17_000]
    ids = [paceline.submit(user, "x" * size).json_body["task_id"] for size in sizes]
    shown = [task_of(paceline, user, task_id) for task_id in ids]
    assert [len(one["payload"] or "") for one in shown] == [900, 16_000, 0]
    assert [one["payload_omitted"] for one in shown] == [False, False, True]
    listed = paceline.get(f"/api/v1/users/{user}/tasks").json_body["tasks"]
    assert [len(one["payload"] or "") for one in listed] == [0, 0, 900]


def test_task_that_waits_for_its_next_attempt_shows_the_first(paceline: Paceline, user: str) -> None:
    body = {"user_id": user, "task": "broken"}
    task_id = paceline.request("POST", "/api/v1/task", body).json_body["task_id"]
    paceline.work(*paceline.receive(user))
    task = task_of(paceline, user, task_id)
    assert (task["state"], [one["attempt"] for one in task["attempt_history"]]) == ("queued", [1])


def test_failed_task_is_submitted_again_once(paceline: Paceline, user: str) -> None:
    [task_id] = fail(paceline, user, 7)
    OUT_OF_ORDER.clear()
    answers = [redrive(paceline, user, task_id) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202] * 3
    [new_id] = {answer.json_body["task_id"] for answer in answers}
    assert new_id != task_id
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true", "true"]
    assert answers[0].headers["Location"] == f"/api/v1/users/{user}/tasks/{new_id}"
    work(paceline)
    assert results(paceline, user) == [7]
    assert redrive(paceline, user, task_id).json_body["state"] == "succeeded"
    assert task_of(paceline, user, task_id)["redriven_as"] == new_id
    paceline.clock.advance(8 * 86_400_000)  # longer than a key is remembered
    container().requests._records.clear()  # type: ignore[attr-defined]
    assert redrive(paceline, user, task_id).json_body["task_id"] == new_id
    work(paceline)
    assert results(paceline, user) == [7]


def test_redrive_keeps_units_and_callback(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="5/second; 100 units/second", HTTP_ALLOWED_HOSTS="hooks.example.com")
    body = {"user_id": user, "task": "brief", "units": 40, "callback_url": "https://hooks.example.com/ends"}
    task_id = paceline.request("POST", "/api/v1/task", body).json_body["task_id"]
    work(paceline)
    again = task_of(paceline, user, redrive(paceline, user, task_id).json_body["task_id"])
    assert (again["units"], again["callback_url"]) == (40, body["callback_url"])


@pytest.mark.parametrize(
    ("port", "call"),
    [
        *[("failed_tasks", "reserve_redrive"), ("lanes", "try_fast_admit"), ("queue", "send")],
        *[("tasks", "create_if_absent"), ("requests", "finish")],
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_redrive_that_fails_in_the_middle_is_finished_by_its_repeat(
    paceline: Paceline, user: str, port: str, call: str, after: bool
) -> None:
    [task_id] = fail(paceline, user, 7)
    OUT_OF_ORDER.clear()
    parts = container()
    failing = Failing(getattr(parts, port))
    parts.__dict__[port] = failing
    for built in ("submitter", "idempotency", "redriver"):
        parts.__dict__.pop(built, None)
    failing.fail(call, after=after)
    status = redrive(paceline, user, task_id).status_code
    assert status == (202 if call == "finish" else 503)
    again = redrive(paceline, user, task_id)
    assert again.status_code == 202
    assert redrive(paceline, user, task_id).json_body["task_id"] == again.json_body["task_id"]
    work(paceline)
    assert results(paceline, user) == [7]


def test_refused_redrive_leaves_the_task_as_it_was(paceline: Paceline, user: str) -> None:
    [task_id] = fail(paceline, user, 7)
    OUT_OF_ORDER.clear()
    container().control.pause(user, None)
    answer = redrive(paceline, user, task_id, Prefer="handling=strict")
    assert (answer.status_code, answer.json_body["queued"]) == (429, False)
    assert task_of(paceline, user, task_id)["redriven_as"] is None
    container().control.resume(user)
    answer = redrive(paceline, user, task_id, Prefer="handling=strict")
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "handling=strict"
    work(paceline)
    assert results(paceline, user) == [7]


def test_redrive_over_the_limit_waits_as_a_submit_does(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="1/minute", MAX_DELAY="10m")
    [task_id] = fail(paceline, user, 7)
    paceline.submit(user)
    answer = redrive(paceline, user, task_id)
    assert (answer.status_code, answer.json_body["queued"]) == (429, True)
    assert redrive(paceline, user, task_id, Prefer="respond-async").status_code == 202


@pytest.mark.parametrize(("state", "status"), [("queued", 409), ("succeeded", 409), (None, 404)])
def test_only_a_failed_task_is_submitted_again(paceline: Paceline, user: str, state: str | None, status: int) -> None:
    OUT_OF_ORDER.clear()
    task_id = paceline.submit(user).json_body["task_id"] if state else "0198-0001"
    if state == "succeeded":
        work(paceline)
    assert redrive(paceline, user, task_id).status_code == status


def test_task_that_the_deployment_does_not_know_any_more_stays_failed(paceline: Paceline, user: str) -> None:
    [task_id] = fail(paceline, user, 7)
    del container().registry._definitions["brief"]
    assert redrive(paceline, user, task_id).status_code == 409
    page = paceline.request("POST", f"/api/v1/users/{user}/redrive").json_body
    assert (page["tasks"], page["stays"][0]["reason"]) == ([], "there is no task 'brief' in this deployment")


def test_a_users_failures_are_submitted_again_in_order(paceline: Paceline, user: str) -> None:
    fail(paceline, user, 1, 2, 3)
    fail(paceline, f"{user}-2", 9)
    OUT_OF_ORDER.clear()
    page = paceline.request("POST", f"/api/v1/users/{user}/redrive").json_body
    assert [one["repeated"] for one in page["tasks"]] == [False] * 3
    assert (page["stays"], page["next"]) == ([], None)
    again = paceline.request("POST", f"/api/v1/users/{user}/redrive").json_body
    assert [one["repeated"] for one in again["tasks"]] == [True] * 3
    work(paceline)
    assert (results(paceline, user), results(paceline, f"{user}-2")) == ([1, 2, 3], [])


def test_all_that_failed_since_a_time_are_submitted_again_in_pages(paceline: Paceline, user: str) -> None:
    users = [f"{user}-{n}" for n in range(3)]
    fail(paceline, users[0], "before")
    since = paceline.clock.now_ms()
    per_user = MOST_AT_ONCE // 3 + 3
    for one in users:
        fail(paceline, one, *range(per_user))
    by_hand = failed(paceline, limit=1)["tasks"][0]
    OUT_OF_ORDER.clear()
    assert redrive(paceline, by_hand["user_id"], by_hand["task_id"]).status_code in (202, 429)
    first = paceline.request("POST", "/api/v1/redrive", {"since": since}).json_body
    again = paceline.request("POST", "/api/v1/redrive", {"since": since}).json_body
    rest = paceline.request("POST", "/api/v1/redrive", {"since": since, "before": first["next"]}).json_body
    assert (len(first["tasks"]), rest["next"]) == (MOST_AT_ONCE, None)
    assert [one["redriven_as"] for one in again["tasks"]] == [one["redriven_as"] for one in first["tasks"]]
    assert sum(not one["repeated"] for one in (*first["tasks"], *rest["tasks"])) == 3 * per_user - 1
    work(paceline)
    assert [sorted(results(paceline, one)) for one in users] == [list(range(per_user))] * 3
    assert [results(paceline, one) == list(range(per_user)) for one in users] == [True, True, False]


@pytest.mark.parametrize("body", [{}, {"since": 1_795_324_829}, {"since": "yesterday"}, {"since": None}])
def test_redrive_of_all_users_needs_a_time(paceline: Paceline, body: Any) -> None:
    answer = paceline.request("POST", "/api/v1/redrive", body)
    assert (answer.status_code, answer.json_body["field"]) == (422, "/since")


def test_later_tasks_of_a_user_stay_behind_one_that_stays(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="1/minute", MAX_DELAY="90s")
    fail(paceline, user, 1, 2)
    paceline.clock.advance(120_000)
    fail(paceline, user, 3)
    fail(paceline, f"{user}-2", 9)
    OUT_OF_ORDER.clear()
    page = paceline.request("POST", f"/api/v1/users/{user}/redrive").json_body
    assert len(page["tasks"]) == 1
    assert "longer than the 90000 ms" in page["stays"][0]["reason"]
    assert page["stays"][1]["reason"] == "an earlier failed task of this user stays"
    assert page["next"] is None


def test_redrive_of_many_that_fails_in_the_middle_says_where_to_go_on(paceline: Paceline, user: str) -> None:
    fail(paceline, user, 1, 2, 3)
    OUT_OF_ORDER.clear()
    parts = container()
    parts.__dict__["queue"] = failing = Failing(parts.queue)
    for built in ("submitter", "idempotency", "redriver"):
        parts.__dict__.pop(built, None)
    failing.fail("send", after=True, skip=1)
    first = paceline.request("POST", f"/api/v1/users/{user}/redrive").json_body
    assert (len(first["tasks"]), first["next"]) == (1, first["tasks"][0]["task_id"])
    rest = paceline.request("POST", f"/api/v1/users/{user}/redrive", {"before": first["next"]}).json_body
    assert (len(rest["tasks"]), rest["next"]) == (2, None)
    work(paceline)
    assert results(paceline, user) == [1, 2, 3]


def test_failed_task_that_can_never_be_submitted_again_keeps_no_later_one_back(paceline: Paceline, user: str) -> None:
    [gone] = fail(paceline, user, 1, task="broken")
    fail(paceline, user, 2, 3)
    OUT_OF_ORDER.clear()
    definition = container().registry._definitions.pop("broken")
    page = paceline.request("POST", f"/api/v1/users/{user}/redrive").json_body
    container().registry._definitions["broken"] = definition
    assert [one["task_id"] for one in page["stays"]] == [gone]
    work(paceline)
    assert results(paceline, user) == [2, 3]


def test_key_that_a_user_took_keeps_no_failed_task_of_others_back(paceline: Paceline, user: str) -> None:
    since = paceline.clock.now_ms()
    [task_id] = fail(paceline, user, 1)
    fail(paceline, f"{user}-2", 2)
    OUT_OF_ORDER.clear()
    body = {"user_id": user, "task": "brief", "payload": "other"}
    taken = paceline.request("POST", "/api/v1/task", body, **{"Idempotency-Key": f"redrive:{task_id}"})
    assert taken.status_code == 202
    page = paceline.request("POST", "/api/v1/redrive", {"since": since}).json_body
    assert [one["user_id"] for one in page["tasks"]] == [f"{user}-2"]
    assert [(one["task_id"], "Key" in one["reason"]) for one in page["stays"]] == [(task_id, True)]
    work(paceline)
    assert (results(paceline, user), results(paceline, f"{user}-2")) == (["other"], [2])


def test_redrive_that_another_request_is_serving_keeps_no_other_task_back(paceline: Paceline, user: str) -> None:
    since = paceline.clock.now_ms()
    fail(paceline, user, 1)
    fail(paceline, f"{user}-2", 2)
    OUT_OF_ORDER.clear()
    parts = container()
    served = ConflictError("The first request is being served", "Try again shortly.")
    parts.__dict__["idempotency"] = failing = Failing(parts.idempotency, served)
    parts.__dict__.pop("redriver", None)
    failing.fail("run")
    page = paceline.request("POST", "/api/v1/redrive", {"since": since}).json_body
    assert [one["user_id"] for one in page["tasks"]] == [f"{user}-2"]
    assert [(one["user_id"], one["reason"]) for one in page["stays"]] == [(user, served.title)]


def test_redrive_of_a_task_whose_units_no_limit_allows_any_more_says_so(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="5/second; 100 units/second")
    body = {"user_id": user, "task": "brief", "units": 40}
    task_id = paceline.request("POST", "/api/v1/task", body).json_body["task_id"]
    work(paceline)
    paceline.request("PUT", f"/api/v1/users/{user}/limits", {"limits": "10 units/second"})
    answer = redrive(paceline, user, task_id)
    assert answer.status_code == 422, answer.json_body
    page = paceline.request("POST", f"/api/v1/users/{user}/redrive").json_body
    assert "more than the limit" in page["stays"][0]["reason"]


def test_task_between_two_attempts_is_among_those_that_start_next(paceline: Paceline, user: str) -> None:
    for task in ("broken", "log"):
        paceline.request("POST", "/api/v1/task", {"user_id": user, "task": task})
    paceline.work(*paceline.receive(user)[:1])
    listed = paceline.get(f"/api/v1/users/{user}/tasks?order=next").json_body["tasks"]
    assert sorted(task["seq"] for task in listed) == [1, 2]
    assert [task["attempts"] for task in listed if task["task"] == "broken"] == [1]
