"""Scheduled tasks and callbacks through the app's HTTP and SQS sides."""

import json
from typing import Any

import pytest

from chalicelib.core.scheduled import MAX_AHEAD_MS
from chalicelib.scheduled.callbacks import CALLBACKS_AT_ONCE, MIN_WAIT_SECONDS, SLOT_MS
from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline
from tests.receiver import Receiver


def post(paceline: Paceline, user: str, **body: Any) -> Any:
    return paceline.request("POST", "/api/v1/task", {"user_id": user, **body})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"run_at": NOW + MAX_AHEAD_MS + 1}, "/run_at"),
        ({"run_at": NOW // 1000}, "/run_at"),
        ({"run_at": "tomorrow"}, "/run_at"),
        ({"run_at": NOW + 1.5}, "/run_at"),
        ({"delay_seconds": -1}, "/delay_seconds"),
        ({"delay_seconds": MAX_AHEAD_MS // 1000 + 1}, "/delay_seconds"),
        ({"delay_seconds": "1"}, "/delay_seconds"),
        ({"delay_seconds": 1, "run_at": NOW + 1}, "/delay_seconds"),
        ({"callback_url": "https://evil.example/"}, "/callback_url"),
        ({"callback_url": "ftp://hooks.example.com/"}, "/callback_url"),
        ({"callback_url": "https://hooks.example.com/\r\nX: y"}, "/callback_url"),
        ({"callback_url": "https://hooks.example.com/" + "x" * 2_048}, "/callback_url"),
        ({"callback_url": ""}, "/callback_url"),
        ({"callback_url": 1}, "/callback_url"),
    ],
)
def test_time_or_callback_that_is_not_allowed_is_refused(
    deploy: Deploy, user: str, body: dict[str, Any], field: str
) -> None:
    paceline = deploy(HTTP_ALLOWED_HOSTS="hooks.example.com")
    answer = post(paceline, user, **body)
    assert (answer.status_code, answer.json_body["field"]) == (422, field)
    many = paceline.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": [{}, body]})
    assert (many.status_code, many.json_body["field"]) == (422, f"/tasks/1{field}")
    assert paceline.get(f"/api/v1/users/{user}/tasks").json_body["tasks"] == []


def test_parked_task_is_accepted_listed_admitted_and_run(paceline: Paceline, user: str) -> None:
    answer = post(paceline, user, run_at=NOW + 500)
    assert answer.status_code == 202
    task = answer.json_body
    assert {**task, "task_id": "", "user_id": ""} == {
        "task_id": "",
        "user_id": "",
        "seq": 0,
        "position": 0,
        "planned_at": NOW + 500,
        "delay_ms": 500,
        "queued": True,
        "state": "queued",
    }
    [listed] = paceline.get(f"/api/v1/users/{user}/tasks").json_body["tasks"]
    assert (listed["seq"], listed["run_at"], listed["estimated_at"]) == (0, NOW + 500, NOW + 500)
    assert paceline.dispatch(*paceline.receive_scheduled()) == []
    assert paceline.work(*paceline.receive(user)) == []
    done = paceline.get(f"/api/v1/users/{user}/tasks/{task['task_id']}").json_body
    assert (done["state"], done["seq"], done["started_at"]) == ("succeeded", 1, NOW + 500)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 4, 0, 3, 1)])
@pytest.mark.parametrize("is_bulk", [True, False])
def test_tasks_due_at_one_time_start_in_the_order_in_which_their_submits_were_answered(
    paceline: Paceline, user: str, order: tuple[int, ...], is_bulk: bool
) -> None:
    """SQS delivers the messages of a standard queue in any order."""
    tasks = [{"delay_seconds": 60}] * 5
    if is_bulk:
        submitted = paceline.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": tasks}).json_body["tasks"]
    else:
        submitted = [post(paceline, user, **task).json_body for task in tasks]
    paceline.clock.advance(60_000)
    messages = paceline.receive_scheduled()
    assert paceline.dispatch(*(messages[n] for n in order)) == []
    listed = paceline.get(f"/api/v1/users/{user}/tasks").json_body["tasks"]
    seqs = {task["task_id"]: task["seq"] for task in listed}
    assert [seqs[task["task_id"]] for task in submitted] == [1, 2, 3, 4, 5]


def test_same_key_with_another_time_is_another_request(paceline: Paceline, user: str) -> None:
    def submit(**body: Any) -> Any:
        return paceline.request("POST", "/api/v1/task", {"user_id": user, **body}, Idempotency_Key="k")

    first, again = submit(delay_seconds=60), submit(delay_seconds=60)
    assert first.json_body == again.json_body
    assert submit(delay_seconds=61).status_code == 422
    assert submit().status_code == 422


def test_more_than_may_be_parked_for_a_day_are_refused_until_the_next(deploy: Deploy, user: str) -> None:
    paceline = deploy(MAX_SCHEDULED="2")
    assert [post(paceline, user, delay_seconds=60).status_code for _ in range(3)] == [202, 202, 429]
    refused = post(paceline, user, delay_seconds=60)
    assert (refused.json_body["queued"], refused.headers["Content-Type"]) == (False, "application/problem+json")
    assert int(refused.headers["Retry-After"]) <= 86_400
    assert post(paceline, user).status_code == 202
    paceline.clock.advance(1_000 * int(refused.headers["Retry-After"]))
    assert post(paceline, user, delay_seconds=60).status_code == 202


def test_refusal_names_the_full_day_and_when_the_same_delay_leads_past_it(deploy: Deploy, user: str) -> None:
    paceline = deploy(MAX_SCHEDULED="1")
    delay_seconds = 3 * 86_400 + 60
    assert post(paceline, user, delay_seconds=delay_seconds).status_code == 202
    refused = post(paceline, user, delay_seconds=delay_seconds)
    assert refused.json_body["detail"].endswith(" on 2026-11-25.")
    paceline.clock.advance(1_000 * (int(refused.headers["Retry-After"]) - 1))
    assert post(paceline, user, delay_seconds=delay_seconds).status_code == 429
    paceline.clock.advance(1_000)
    assert post(paceline, user, delay_seconds=delay_seconds).status_code == 202


def test_refusal_of_many_names_the_days_one_of_which_is_full(deploy: Deploy, user: str) -> None:
    paceline = deploy(MAX_SCHEDULED="1")
    assert post(paceline, user, delay_seconds=86_400).status_code == 202
    tasks = [{"delay_seconds": days * 86_400} for days in (2, 1)]
    refused = paceline.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": tasks})
    assert refused.json_body["detail"].endswith(" on 2026-11-23 or 2026-11-24.")
    paceline.clock.advance(1_000 * int(refused.headers["Retry-After"]))
    assert paceline.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": tasks}).status_code == 202


def test_production_refuses_private_addresses(deploy: Deploy) -> None:
    from chalicelib.core.errors import SettingError

    with pytest.raises(SettingError, match="HTTP_ALLOW_PRIVATE"):
        deploy(STAGE="prod", HTTP_ALLOW_PRIVATE="true")


def test_users_callbacks_over_the_bound_are_put_off_and_those_of_others_are_not(deploy: Deploy, user: str) -> None:
    """The slots are taken as by callbacks that hang in other processes."""
    paceline = deploy(HTTP_ALLOWED_HOSTS="*", HTTP_ALLOW_PRIVATE="true")
    with Receiver() as receiver:
        for name in (user, f"{user}-other"):
            post(paceline, name, callback_url=receiver.url())
            [record] = paceline.receive(name)
            paceline.work(record)
        slots = paceline.parts.callback_slots
        taken = [slots.take(user, NOW, NOW + SLOT_MS, CALLBACKS_AT_ONCE) for _ in range(CALLBACKS_AT_ONCE)]
        assert len(paceline.dispatch(*paceline.receive_scheduled())) == 1
        assert [json.loads(got.body)["user_id"] for got in receiver.got] == [f"{user}-other"]
        assert taken[0] is not None
        slots.give_back(user, taken[0], NOW + SLOT_MS)
        paceline.clock.advance(MIN_WAIT_SECONDS * 1000)
        assert paceline.dispatch(*paceline.receive_scheduled()) == []
        assert [json.loads(got.body)["user_id"] for got in receiver.got] == [f"{user}-other", user]


@pytest.mark.parametrize("number", [f"{NOW + 500}.0", f"{NOW + 500}.00e0", f"{(NOW + 500) / 1000}e3"])
def test_integer_may_be_written_with_a_fraction_of_zero(paceline: Paceline, user: str, number: str) -> None:
    one = f'{{"user_id": "{user}", "run_at": {number}, "payload": {{"whole": 2.0}}}}'
    answer = paceline.request("POST", "/api/v1/task", one.encode())
    assert (answer.status_code, answer.json_body["planned_at"]) == (202, NOW + 500)
    many = paceline.request(
        "POST", "/api/v1/tasks", f'{{"user_id": "{user}", "tasks": [{{"run_at": {number}}}]}}'.encode()
    )
    assert (many.status_code, many.json_body["tasks"][0]["planned_at"]) == (202, NOW + 500)
    pause = paceline.request("POST", f"/api/v1/users/{user}/pause", f'{{"until": {number}}}'.encode())
    assert (pause.status_code, pause.json_body["paused_until"]) == (200, NOW + 500)
    stored = paceline.parts.tasks.get(user, answer.json_body["task_id"])
    assert stored
    assert isinstance(stored.task.payload["whole"], float)  # a payload is the task's own


@pytest.mark.parametrize("number", ["1.5", f"{NOW}.5", "1e400", '"5.0"'])
def test_number_that_is_not_whole_is_no_integer(paceline: Paceline, user: str, number: str) -> None:
    body = f'{{"user_id": "{user}", "run_at": {number}}}'.encode()
    assert paceline.request("POST", "/api/v1/task", body).status_code in (400, 422)
    pause = paceline.request("POST", f"/api/v1/users/{user}/pause", f'{{"until": {number}}}'.encode())
    assert pause.status_code in (400, 422)
