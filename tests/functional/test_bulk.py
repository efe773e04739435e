from typing import Any

import pytest

from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline


def bulk(user: str, count: int, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "tasks": [{"payload": number, **more} for number in range(count)]}


def test_bulk_answers_with_each_position(paceline: Paceline, user: str) -> None:
    response = paceline.request("POST", "/api/v1/tasks", bulk(user, 3))
    body = response.json_body
    assert (response.status_code, body["queued"], body["title"]) == (
        429,
        True,
        "Rate limit exceeded. Tasks have been queued.",
    )
    assert [task["seq"] for task in body["tasks"]] == [1, 2, 3]
    assert [task["position"] for task in body["tasks"]] == [0, 1, 2]
    assert [task["delay_ms"] for task in body["tasks"]] == [0, 1_000, 2_000]
    assert [task["queued"] for task in body["tasks"]] == [False, True, True]
    assert response.headers["Retry-After"] == "2"
    assert "Location" not in response.headers


def test_bulk_behind_a_backlog_that_starts_late_tells_what_is_ahead_of_those_over_the_limit(
    paceline: Paceline, user: str
) -> None:
    paceline.request("POST", "/api/v1/tasks", bulk(user, 4))
    paceline.clock.advance(60_000)
    body = paceline.request("POST", "/api/v1/tasks", bulk(user, 2)).json_body
    assert body["status"] == 429
    assert [(task["position"], task["queued"], task["delay_ms"]) for task in body["tasks"]] == [
        (0, False, 0),
        (5, True, 1_000),
    ]


def test_bulk_to_a_paused_lane_numbers_its_tasks(paceline: Paceline, user: str) -> None:
    paceline.request("POST", f"/api/v1/users/{user}/pause", {})
    body = paceline.request("POST", "/api/v1/tasks", bulk(user, 3)).json_body
    assert (body["status"], [task["position"] for task in body["tasks"]]) == (429, [1, 2, 3])


def test_bulk_within_the_limits_is_accepted(deploy: Deploy, user: str) -> None:
    response = deploy(LIMITS="5/second").request("POST", "/api/v1/tasks", bulk(user, 5))
    assert (response.status_code, response.json_body["queued"]) == (202, False)


@pytest.mark.parametrize("prefer", ["handling=strict", "respond-async"])
def test_bulk_over_the_limit_follows_the_preference(paceline: Paceline, user: str, prefer: str) -> None:
    response = paceline.request("POST", "/api/v1/tasks", bulk(user, 2), Prefer=prefer)
    expected = (429, False, 0) if prefer == "handling=strict" else (202, True, 2)
    assert (response.status_code, response.json_body["queued"], len(paceline.receive(user))) == expected


def test_bulk_whose_last_task_would_wait_too_long_is_refused_as_a_whole(deploy: Deploy, user: str) -> None:
    paceline = deploy(MAX_DELAY="5s")
    assert paceline.request("POST", "/api/v1/tasks", bulk(user, 7)).json_body["queued"] is False
    assert paceline.receive(user) == []
    assert paceline.request("POST", "/api/v1/tasks", bulk(user, 6)).json_body["queued"] is True


@pytest.mark.parametrize(
    ("count", "violated"), [(2, ["second"]), (20, ["second"]), (21, ["second", "minute", "hour-units"])]
)
def test_strict_bulk_that_an_idle_lane_refuses_names_the_limits_that_it_exceeds(
    deploy: Deploy, user: str, count: int, violated: list[str]
) -> None:
    paceline = deploy(LIMITS="1/second; 20/minute; 100 units/hour")
    tasks = [{"task": "log", "payload": n, "units": 5} for n in range(count)]
    body = {"user_id": user, "tasks": tasks}
    refused = paceline.request("POST", "/api/v1/tasks", body, Prefer="handling=strict").json_body
    assert (refused["status"], refused["queued"], refused["violated-policies"]) == (429, False, violated)
    assert refused["detail"] == "The limit is reached, and waiting was not wanted."


@pytest.mark.parametrize("until", [None, NOW + 60_000])
def test_strict_submit_to_a_paused_lane_names_the_pause_and_no_limit(
    paceline: Paceline, user: str, until: int | None
) -> None:
    paceline.request("POST", f"/api/v1/users/{user}/pause", {"until": until})
    refused = paceline.request("POST", "/api/v1/tasks", bulk(user, 1), Prefer="handling=strict").json_body
    assert (refused["status"], refused["violated-policies"]) == (429, [])
    assert refused["title"] == "Lane paused. Nothing has been queued."
    assert refused["detail"] == "The lane is paused, and waiting was not wanted."
