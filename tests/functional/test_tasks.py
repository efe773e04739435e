import json

import pytest

from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline


def task_path(user: str, task_id: str) -> str:
    return f"/api/v1/users/{user}/tasks/{task_id}"


def test_task_is_shown_from_queued_to_succeeded(paceline: Paceline, user: str) -> None:
    first, second = (paceline.submit(user).json_body for _ in range(2))
    waiting = paceline.get(task_path(user, second["task_id"])).json_body
    assert (waiting["state"], waiting["position"], waiting["estimated_at"]) == ("queued", 1, NOW + 1_000)
    record, _ = paceline.receive(user)
    assert paceline.work(record) == []
    done = paceline.get(task_path(user, first["task_id"])).json_body
    assert (done["state"], done["started_at"], done["completed_at"], done["attempts"]) == ("succeeded", NOW, NOW, 1)
    assert done["error"] is None


def test_place_of_a_task_is_what_its_submit_said_and_0_when_it_may_start_now(paceline: Paceline, user: str) -> None:
    paceline.submit(user)
    assert paceline.work(*paceline.receive(user)) == []
    paceline.clock.advance(400)
    submitted = [paceline.submit(user).json_body for _ in range(3)]

    def positions() -> list[tuple[int, int | None]]:
        shown = [paceline.get(task_path(user, one["task_id"])).json_body for one in submitted]
        assert shown == paceline.get(f"/api/v1/users/{user}/tasks?state=queued").json_body["tasks"][::-1]
        return [(task["position"], task["estimated_at"]) for task in shown]

    assert [one["position"] for one in submitted] == [1, 2, 3]
    assert positions() == [(1, NOW + 1_000), (2, NOW + 2_000), (3, NOW + 3_000)]
    paceline.clock.advance(600)
    assert positions() == [(0, NOW + 1_000), (1, NOW + 2_000), (2, NOW + 3_000)]
    paceline.request("POST", f"/api/v1/users/{user}/pause", {})
    assert positions() == [(1, None), (2, None), (3, None)]


@pytest.mark.parametrize(
    "task_id", ["0198", "lane", "nope", "x" * 2_000, "%00", "%F0%9F%98%80", "%ud800", "..", "%2e%2e"]
)
def test_unknown_task_is_not_found(paceline: Paceline, user: str, task_id: str) -> None:
    paceline.submit(user)
    response = paceline.get(task_path(user, task_id))
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json_body["status"] == 404


def test_task_of_another_user_is_not_found(paceline: Paceline, user: str) -> None:
    task_id = paceline.submit(user).json_body["task_id"]
    assert paceline.get(task_path(f"{user}-2", task_id)).status_code == 404


@pytest.mark.parametrize("name", ["x" * 129, "%20", "%00", "é", "%E9"])
def test_path_with_no_user_id_is_refused(paceline: Paceline, name: str) -> None:
    response = paceline.get(task_path(name, "0198"))
    assert response.status_code == 400
    assert response.json_body["field"] == "/user_id"


def test_health_check_answers_ok(paceline: Paceline) -> None:
    response = paceline.get("/health-check")
    assert (response.status_code, response.body) == (200, b"OK")


@pytest.mark.parametrize("allow", ["", "false", "no"])
def test_kill_is_not_there_unless_it_is_allowed(deploy: Deploy, allow: str) -> None:
    response = deploy(ALLOW_KILL=allow).get("/kill")
    assert response.status_code == 404
    assert json.loads(response.body)["status"] == 404


def next_seqs(paceline: Paceline, user: str, query: str = "") -> list[int]:
    listed = paceline.get(f"/api/v1/users/{user}/tasks?order=next{query}").json_body
    assert listed["next"] is None
    return [task["seq"] for task in listed["tasks"]]


def test_tasks_that_start_next_are_listed_first_one_first(paceline: Paceline, user: str) -> None:
    assert next_seqs(paceline, user) == []
    tasks = [paceline.submit(user).json_body for _ in range(130)]
    paceline.request("POST", "/api/v1/task", {"user_id": user, "delay_seconds": 600})
    assert next_seqs(paceline, user) == list(range(1, 101))
    assert paceline.work(*paceline.receive(user)[:1]) == []
    assert paceline.request("DELETE", task_path(user, tasks[2]["task_id"])).status_code == 200
    assert next_seqs(paceline, user, "&limit=3") == [2, 4, 5]
    listed = paceline.get(f"/api/v1/users/{user}/tasks?order=next&limit=1").json_body["tasks"][0]
    assert listed == paceline.get(task_path(user, tasks[1]["task_id"])).json_body
    paceline.request("POST", f"/api/v1/users/{user}/pause", {})
    assert next_seqs(paceline, user)[:3] == [2, 4, 5]
    paceline.request("DELETE", f"/api/v1/users/{user}/tasks?state=queued")
    assert next_seqs(paceline, user) == []


@pytest.mark.parametrize(
    "query", ["order=first", "order=next&state=queued", "order=next&before=0198", "order=next&limit=101"]
)
def test_order_that_is_none_is_refused(paceline: Paceline, user: str, query: str) -> None:
    assert paceline.get(f"/api/v1/users/{user}/tasks?{query}").status_code == 422


def test_names_of_the_tasks_that_can_be_submitted_are_listed(paceline: Paceline, user: str) -> None:
    names = paceline.get("/api/v1/task-names").json_body["names"]
    assert {"http", "log"} <= set(names)
    assert names == sorted(names)
    for name in set(names) - {"http"}:
        submitted = paceline.request("POST", "/api/v1/task", {"user_id": user, "task": name})
        assert submitted.json_body.get("title") != "Unknown task"
