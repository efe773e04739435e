"""Lanes and tasks that wait for a shared limit, as the API shows them."""

from typing import Any

import pytest
from chalice.test import HTTPResponse

from chalicelib.core.lane import Turn
from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline
from tests.functional.test_hostile_inputs import assert_refused
from tests.functional.test_shared_limits import shared, taken, waiting
from tests.functional.test_units import lane, run, submit


@pytest.fixture
def paceline(deploy: Deploy) -> Paceline:
    return deploy(LIMITS="100/second", SHARED_LIMITS="stripe: 1/10 seconds; 50/minute")


def task(paceline: Paceline, user: str, task_id: str) -> dict[str, Any]:
    body: dict[str, Any] = paceline.get(f"/api/v1/users/{user}/tasks/{task_id}").json_body
    return body


def test_lane_that_waits_for_its_turn_says_so(paceline: Paceline, user: str) -> None:
    taken(paceline, 2_000)
    waiting(paceline, "bob", "cat")
    first, second = (submit(paceline, user, shared="stripe").json_body["task_id"] for _ in range(2))
    run(paceline, user)
    assert paceline.events == []
    found = lane(paceline, user)
    assert found["waits_for"] == {"name": "stripe", "before": 2, "start_at": NOW + 28_000}
    assert (task(paceline, user, first)["position"], task(paceline, user, first)["estimated_at"]) == (3, NOW + 28_000)
    later = task(paceline, user, second)
    assert (later["position"] > 3, later["estimated_at"] >= NOW + 28_000) == (True, True)
    assert [one["waits_for"] for one in paceline.get(f"/api/v1/lanes?search={user}").json_body["lanes"]] == [
        found["waits_for"]
    ]
    assert [one["user_id"] for one in shared(paceline)["waiters"]] == ["bob", "cat", user]


def test_lane_that_waits_for_nothing_says_nothing_and_reads_nothing(paceline: Paceline, user: str) -> None:
    task_id = submit(paceline, user, shared="stripe").json_body["task_id"]
    run(paceline, user)
    paceline.parts.control._shared_limits = paceline.parts.overview._shared_limits = NoReads()  # type: ignore[assignment]
    assert lane(paceline, user)["waits_for"] is None
    assert task(paceline, user, task_id)["state"] == "succeeded"
    assert paceline.get(f"/api/v1/lanes?search={user}").json_body["lanes"][0]["waits_for"] is None


class NoReads:
    def get(self, name: str) -> None:
        raise AssertionError(name)


def test_lane_that_lost_its_turn_does_not_wait_for_it(paceline: Paceline, user: str) -> None:
    taken(paceline, 2_000)
    submit(paceline, user, shared="stripe")
    run(paceline, user)
    assert lane(paceline, user)["waits_for"]["before"] == 0
    paceline.request("POST", f"/api/v1/users/{user}/pause")
    assert lane(paceline, user)["waits_for"] is None


def test_turn_at_a_paused_shared_limit_has_no_time(paceline: Paceline, user: str) -> None:
    taken(paceline, 2_000)
    task_id = submit(paceline, user, shared="stripe").json_body["task_id"]
    run(paceline, user)
    paceline.request("POST", "/api/v1/limits/stripe/pause")
    assert lane(paceline, user)["waits_for"] == {"name": "stripe", "before": 0, "start_at": None}
    assert task(paceline, user, task_id)["estimated_at"] is None


def test_turn_at_a_deleted_shared_limit_is_not_waited_for(paceline: Paceline, user: str) -> None:
    paceline.request("PUT", "/api/v1/limits/hub", {"limits": "1/minute"})
    store = paceline.parts.lanes
    submit(paceline, user, shared="hub")
    seen = store.get(user)
    store.save_turn(seen, Turn("hub", 1, seen.revision))
    assert lane(paceline, user)["waits_for"]["name"] == "hub"
    paceline.request("DELETE", "/api/v1/limits/hub")
    assert lane(paceline, user)["waits_for"] is None


def put_group(paceline: Paceline, user: str, body: dict[str, Any]) -> HTTPResponse:
    return paceline.request("PUT", f"/api/v1/users/{user}", body)


def test_user_is_put_into_a_group_and_taken_out_again(paceline: Paceline, user: str) -> None:
    assert lane(paceline, user)["group"] is None
    answered = put_group(paceline, user, {"group": "acme"})
    assert (answered.status_code, answered.json_body["group"]) == (200, "acme")
    assert lane(paceline, user)["group"] == "acme"
    assert put_group(paceline, user, {"group": None}).json_body["group"] is None
    put_group(paceline, user, {"group": "acme"})
    assert put_group(paceline, user, {}).json_body["group"] is None
    assert lane(paceline, user)["group"] is None


@pytest.mark.parametrize("group", ["", "two words", "x" * 129, "\u00e9", 7, ["acme"]])
def test_name_of_a_group_has_to_be_like_a_user_id(paceline: Paceline, user: str, group: Any) -> None:
    assert_refused(put_group(paceline, user, {"group": group}), 422, "/group")
    assert lane(paceline, user)["group"] is None


def test_group_survives_submits_starts_and_changes_and_is_forgotten_with_its_user(
    paceline: Paceline, user: str
) -> None:
    put_group(paceline, user, {"group": "acme"})
    submit(paceline, user, shared="stripe")
    paceline.request("PUT", f"/api/v1/users/{user}/limits", {"limits": "50/second"})
    paceline.request("POST", f"/api/v1/users/{user}/pause")
    paceline.request("POST", f"/api/v1/users/{user}/resume")
    run(paceline, user)
    assert lane(paceline, user)["started"] == 1
    paceline.request("DELETE", f"/api/v1/users/{user}/limits")
    assert lane(paceline, user)["group"] == "acme"
    paceline.clock.sleep(20_000)
    assert paceline.request("DELETE", f"/api/v1/users/{user}").status_code == 200
    assert lane(paceline, user)["group"] is None


def test_lane_that_waits_with_its_group_says_what_goes_before_it(paceline: Paceline, user: str) -> None:
    taken(paceline, 2_000)
    users = [f"{user}-{number}" for number in range(3)]
    for one in users:
        put_group(paceline, one, {"group": "acme"})
        submit(paceline, one, shared="stripe")
        run(paceline, one)
    waits = [lane(paceline, one)["waits_for"] for one in users]
    assert [one["before"] for one in waits] == [0, 1, 2]
    assert [one["start_at"] for one in waits] == [NOW + 8_000, NOW + 18_000, NOW + 28_000]
    assert [one["user_id"] for one in shared(paceline)["waiters"]] == users[:1]
    tasks = paceline.get(f"/api/v1/users/{users[2]}/tasks").json_body["tasks"]
    assert tasks[0]["position"] == 3
