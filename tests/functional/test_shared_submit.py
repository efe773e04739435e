"""The shared limit of a task: from its submit, its definition or the host that it calls, to its record and the log."""

from typing import Any

import pytest
from chalice.test import HTTPResponse

from tests.functional.conftest import Deploy, Paceline
from tests.functional.test_hostile_inputs import assert_refused
from tests.functional.test_units import lane, run, submit, submit_many
from tests.tokens import SECRET, make_token

SHARED = {
    "SHARED_LIMITS": "stripe: 25/second | openai: 500/minute",
    "HTTP_SHARED": "api.stripe.com=stripe",
    "HTTP_ALLOWED_HOSTS": "*",
}


@pytest.fixture
def paceline(deploy: Deploy) -> Paceline:
    return _with_charge(deploy(LIMITS="5/second", **SHARED))


def _with_charge(paceline: Paceline) -> Paceline:
    paceline.parts.registry.task("charge", shared="stripe")(lambda: "charged")
    return paceline


def task(paceline: Paceline, user: str, submitted: HTTPResponse) -> dict[str, Any]:
    body: dict[str, Any] = paceline.get(f"/api/v1/users/{user}/tasks/{submitted.json_body['task_id']}").json_body
    return body


def test_shared_limit_of_the_definition_is_stored_and_logged(paceline: Paceline, user: str) -> None:
    assert task(paceline, user, submit(paceline, user, task="charge"))["shared"] == "stripe"
    assert task(paceline, user, submit(paceline, user))["shared"] is None
    run(paceline, user)
    assert [event["shared"] for event in paceline.events] == ["stripe", None]


def test_shared_limit_of_a_call_is_that_of_its_host(paceline: Paceline, user: str) -> None:
    def called(url: str) -> str | None:
        shared: str | None = task(paceline, user, submit(paceline, user, task="http", payload={"url": url}))["shared"]
        return shared

    assert called("https://api.stripe.com/v1/charges") == "stripe"
    assert called("https://example.com/") is None


def test_admin_names_another_shared_limit_at_submit(paceline: Paceline, user: str) -> None:
    submitted = submit_many(paceline, user, {}, {"shared": "openai"}, {"task": "charge", "shared": "openai"})
    ids = [one["task_id"] for one in submitted.json_body["tasks"]]
    found = [paceline.get(f"/api/v1/users/{user}/tasks/{one}").json_body["shared"] for one in ids]
    assert found == [None, "openai", "openai"]


def test_user_names_only_the_shared_limit_of_the_definition(deploy: Deploy, user: str) -> None:
    paceline = _with_charge(deploy(AUTH="jwt", JWT_SECRET=SECRET, **SHARED))
    now_s = paceline.clock.now_ms() // 1000
    bearer = {"Authorization": f"Bearer {make_token(sub=user, exp=now_s + 600)}"}
    admin = {"Authorization": f"Bearer {make_token(sub='root', scope='admin', exp=now_s + 600)}"}
    assert submit(paceline, user, bearer, task="charge", shared="stripe").status_code == 202
    refused = submit(paceline, user, bearer, task="charge", shared="openai")
    assert_refused(refused, 403, "/shared")
    assert "counts against 'stripe'" in refused.json_body["detail"]
    body = {"user_id": user, "tasks": [{}, {"shared": "stripe"}]}
    assert_refused(paceline.request("POST", "/api/v1/tasks", body, **bearer), 403, "/tasks/1/shared")
    assert submit(paceline, user, admin, shared="openai").status_code in (202, 429)


@pytest.mark.parametrize("shared", ["", ".", "a b", "x" * 65, 5, True, ["stripe"]])
def test_shared_limit_of_another_form_is_refused(paceline: Paceline, user: str, shared: object) -> None:
    assert_refused(submit(paceline, user, shared=shared), 422, "/shared")
    assert_refused(submit_many(paceline, user, {}, {"shared": shared}), 422, "/tasks/1/shared")
    assert lane(paceline, user)["admitted"] == 0


def test_scheduled_task_keeps_its_shared_limit_until_it_runs(paceline: Paceline, user: str) -> None:
    assert submit(paceline, user, task="charge", delay_seconds=60).status_code == 202
    paceline.clock.advance(60_000)
    assert paceline.dispatch(*paceline.receive_scheduled()) == []
    run(paceline, user)
    assert [event["shared"] for event in paceline.events] == ["stripe"]


def test_key_is_for_one_shared_limit(paceline: Paceline, user: str) -> None:
    key = {"Idempotency-Key": "once"}
    first = submit(paceline, user, key, shared="stripe")
    again = submit(paceline, user, key, shared="stripe")
    assert (again.json_body, again.headers["Idempotency-Replayed"]) == (first.json_body, "true")
    assert_refused(submit(paceline, user, key, shared="openai"), 422, "Idempotency-Key")
    assert_refused(submit(paceline, user, key), 422, "Idempotency-Key")
