"""Backlogs whose limits change: by a PUT, by the setting LIMITS, and backlogs whose messages are lost."""

from itertools import pairwise
from typing import Any

import pytest

from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline

DAY_MS = 86_400_000


def tasks_of(paceline: Paceline, user: str) -> list[dict[str, Any]]:
    """The user's tasks by seq."""
    return sorted(paceline.get(f"/api/v1/users/{user}/tasks").json_body["tasks"], key=lambda task: task["seq"])


def run_all(paceline: Paceline, seconds: int) -> None:
    """Delivers one message after the other as the event source does, for that long."""
    end = paceline.clock.now_ms() + 1_000 * seconds
    while paceline.clock.now_ms() < end:
        for record in paceline.queues.receive(1):
            if record["messageId"] not in paceline.work(record):
                paceline.delete(record)
        paceline.clock.advance(100)


def submit_bulk(paceline: Paceline, user: str, count: int) -> None:
    answer = paceline.request(
        "POST", "/api/v1/tasks", {"user_id": user, "tasks": [{"payload": n} for n in range(count)]}
    )
    assert answer.status_code in (202, 429)


def put_limits(paceline: Paceline, user: str, limits: str) -> Any:
    return paceline.request("PUT", f"/api/v1/users/{user}/limits", {"limits": limits})


def test_limits_that_plan_a_waiting_task_beyond_its_message_s_life_are_refused(paceline: Paceline, user: str) -> None:
    submit_bulk(paceline, user, 20)
    before = paceline.get(f"/api/v1/users/{user}").json_body
    refused = put_limits(paceline, user, "1/7 days")
    assert (refused.status_code, refused.json_body["title"]) == (409, "Limits too low for the backlog")
    assert "The last of 20 waiting tasks would start at 2027" in refused.json_body["detail"]
    assert paceline.get(f"/api/v1/users/{user}").json_body == before
    assert put_limits(paceline, user, "2/day").status_code == 200


@pytest.mark.parametrize("text", ["1/second; 1 at once", "1/second; 20/minute; 3 at once", "5/second; 100 at once"])
def test_a_user_s_limits_say_how_many_tasks_run_at_once(paceline: Paceline, user: str, text: str) -> None:
    assert put_limits(paceline, user, text).json_body["limits"] == text
    assert paceline.get(f"/api/v1/users/{user}").json_body["limits"] == text


@pytest.mark.parametrize("text", ["3 at once", "1/second; 0 at once", "1/second; 101 at once", "1/second; -1 at once"])
def test_any_other_number_of_tasks_at_once_is_refused(paceline: Paceline, user: str, text: str) -> None:
    refused = put_limits(paceline, user, text)
    assert (refused.status_code, refused.json_body["title"]) == (422, "Invalid limits")
    assert "'5 at once'" in refused.json_body["detail"]


def test_low_limits_are_accepted_without_a_backlog(paceline: Paceline, user: str) -> None:
    assert put_limits(paceline, user, "1/7 days").status_code == 200


@pytest.mark.parametrize("change", ["resume", "limits", "submit"])
def test_lane_whose_messages_are_lost_goes_on_from_its_records(paceline: Paceline, user: str, change: str) -> None:
    submit_bulk(paceline, user, 5)
    paceline.request("POST", f"/api/v1/users/{user}/pause")
    lost = paceline.receive(user)
    for record in lost:
        paceline.delete(record)
    paceline.clock.advance(15 * DAY_MS)
    if change == "limits":
        paceline.request("POST", f"/api/v1/users/{user}/pause", {"until": paceline.clock.now_ms() + 1_000})
        assert put_limits(paceline, user, "1/second").status_code == 200
    else:
        paceline.request("POST", f"/api/v1/users/{user}/resume")
    if change == "submit":
        paceline.submit(user)
    run_all(paceline, 12)
    states = [(task["seq"], task["state"]) for task in tasks_of(paceline, user)]
    assert states == [(seq, "succeeded") for seq in range(1, 7 if change == "submit" else 6)]
    assert [event["seq"] for event in paceline.events] == [seq for seq, _ in states]


def test_lost_message_of_a_task_between_two_attempts_is_sent_again_by_a_resume(deploy: Deploy, user: str) -> None:
    paceline = deploy(BACKOFF="10m")
    results = [lambda: 1 / 0, lambda: "done"]
    paceline.parts.registry.task("flaky")(lambda payload: results.pop(0)())
    paceline.request("POST", "/api/v1/task", {"user_id": user, "task": "flaky"})
    [record] = paceline.receive(user)
    paceline.work(record)
    paceline.delete(record)
    paceline.clock.advance(700_000)
    paceline.request("POST", f"/api/v1/users/{user}/resume")
    run_all(paceline, 2)
    assert [(event["seq"], event["attempt"], event["event"]) for event in paceline.events] == [(1, 2, "task_completed")]


def test_resume_of_a_lane_that_lost_nothing_runs_each_task_once(paceline: Paceline, user: str) -> None:
    submit_bulk(paceline, user, 3)
    paceline.clock.advance(400_000)
    for _ in range(3):
        paceline.request("POST", f"/api/v1/users/{user}/resume")
        paceline.clock.advance(400_000)
    run_all(paceline, 8)
    assert [event["seq"] for event in paceline.events] == [1, 2, 3]


# --- a new LIMITS setting


@pytest.fixture
def slow(deploy: Deploy, user: str) -> Paceline:
    """Five tasks were submitted under 1/minute; the first one has run, and the second one's message is hidden."""
    paceline = deploy(LIMITS="1/minute", MAX_DELAY="1d")
    submit_bulk(paceline, user, 5)
    run_all(paceline, 1)
    return paceline


def test_new_limits_setting_holds_for_the_backlog_in_all_answers(deploy: Deploy, slow: Paceline, user: str) -> None:
    faster = deploy(LIMITS="1/second")
    lane, tasks = faster.get(f"/api/v1/users/{user}").json_body, tasks_of(faster, user)
    assert lane["next_starts"] == [task["estimated_at"] for task in tasks[1:]]
    assert [at - NOW for at in lane["next_starts"]] == [1_000, 2_000, 3_000, 4_000]
    added = faster.submit(user)
    assert added.json_body["planned_at"] == NOW + 5_000
    assert faster.get(f"/api/v1/users/{user}").json_body["next_starts"] == [NOW + 1_000 * n for n in range(1, 6)]


def test_new_limits_setting_reaches_the_hidden_head_with_the_next_submit(
    deploy: Deploy, slow: Paceline, user: str
) -> None:
    faster = deploy(LIMITS="1/second")
    faster.submit(user)
    run_all(faster, 8)
    starts = sorted((event["started_at"] - NOW, event["seq"]) for event in faster.events)
    assert starts == [(1_000 * n, n + 1) for n in range(6)]


def test_new_limits_setting_reaches_the_hidden_head_when_it_is_received(
    deploy: Deploy, slow: Paceline, user: str
) -> None:
    faster = deploy(LIMITS="1/second")
    run_all(faster, 70)
    starts = sorted(event["started_at"] - NOW for event in faster.events)
    assert (starts[0], len(starts)) == (0, 5)
    assert [later - earlier for earlier, later in pairwise(starts[1:])] == [1_000] * 3


def test_lower_limits_setting_delays_the_backlog_and_new_tasks_alike(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="1/second", MAX_DELAY="1d")
    submit_bulk(paceline, user, 3)
    run_all(paceline, 1)  # the first two start, a second apart
    slower = deploy(LIMITS="1/minute")
    assert slower.submit(user).json_body["planned_at"] == NOW + 121_000
    assert [task["estimated_at"] for task in tasks_of(slower, user)[2:]] == [NOW + 61_000, NOW + 121_000]
