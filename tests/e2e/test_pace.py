"""The promises of the pace, on real processes."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import PACED_TASKS, PACED_USERS
from tests.e2e.running import Paceline, assert_in_order, most_in_any_window

SHORT_LIMITS = ((3, 1_000), (10, 4_000))
REAL_LIMITS = ((1, 1_000), (20, 60_000))


def assert_exact_and_in_order(
    paceline: Paceline, user: str, count: int, limits: tuple[tuple[int, int], ...], timeout_seconds: float = 40
) -> None:
    entries = paceline.wait_for_completions(count, user, timeout_seconds=timeout_seconds)
    assert len(entries) == count
    assert_in_order(entries, paceline.answered)
    assert {entry["event"] for entry in entries} == {"task_completed"}
    starts = [entry["started_at"] for entry in entries]
    for quota, window_ms in limits:
        assert most_in_any_window(starts, window_ms) <= quota
    assert all(entry["started_at"] >= entry["planned_at"] for entry in entries)


def test_bursts_of_several_users_all_complete_in_order_and_at_the_pace(paceline: Paceline) -> None:
    users = ["burst-a", "burst-b", "burst-c"]
    answers = paceline.submit_all([user for user in users for _ in range(25)])
    for user in users:
        statuses = {answer.body["seq"]: answer.status for answer in answers if answer.body["user_id"] == user}
        assert statuses[1] == 202
        assert statuses[25] == 429
        assert_exact_and_in_order(paceline, user, 25, SHORT_LIMITS)


def test_concurrent_submits_of_one_user_get_places_and_starts_of_their_own(paceline: Paceline) -> None:
    answers = paceline.submit_all(["crowd"] * 40)
    # One that lost too many races is refused with nothing queued.
    admitted = [answer.body for answer in answers if "seq" in answer.body]
    assert {answer.status for answer in answers if "seq" not in answer.body} <= {429, 503}
    assert sorted(body["seq"] for body in admitted) == list(range(1, len(admitted) + 1))
    planned = sorted(body["planned_at"] for body in admitted)
    for quota, window_ms in SHORT_LIMITS:
        assert most_in_any_window(planned, window_ms) <= quota


def test_a_task_can_be_followed_to_its_end(paceline: Paceline) -> None:
    answer = paceline.submit("follower")
    paceline.wait_for_completions(1, "follower")
    task = paceline.request("GET", answer.headers["Location"])
    assert task.status == 200
    assert task.body["state"] == "succeeded"


@pytest.mark.parametrize("user", PACED_USERS)
def test_more_than_a_minutes_quota_keeps_the_real_pace(minute: Paceline, user: str) -> None:
    assert_exact_and_in_order(minute, user, PACED_TASKS, REAL_LIMITS, timeout_seconds=90)
