"""What ends a stop of a lane: of one that an API throttled, and of one whose worker's clock was ahead."""

import pytest

from chalicelib.core.errors import RetryAfter
from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline
from tests.functional.test_answers import Stage

DAY_SECONDS = 86_400
HOUR_MS = 3_600_000


def asks_for(seconds: float) -> None:
    raise RetryAfter(seconds, "HTTP 503 with Retry-After")


@pytest.fixture
def throttled(paceline: Paceline, user: str) -> Stage:
    """Its first task was answered "come back tomorrow"; a second one waits."""
    stage = Stage(paceline, user)
    stage.submit()
    stage.run(lambda: asks_for(DAY_SECONDS))
    stage.at(5_000)
    stage.submit()
    return stage


def test_throttling_ends_after_max_throttle_whatever_the_api_asks_for(throttled: Stage) -> None:
    assert throttled.lane()["throttled_until"] == NOW + HOUR_MS


def test_submit_to_a_throttled_lane_says_so_in_its_title(throttled: Stage) -> None:
    assert throttled.submit().json_body["title"] == "Lane throttled. Task has been queued."
    refused = throttled.submit(Prefer="handling=strict").json_body
    assert (refused["title"], refused["queued"]) == ("Lane throttled. Nothing has been queued.", False)


def test_max_throttle_is_a_setting(deploy: Deploy, user: str) -> None:
    stage = Stage(deploy(MAX_THROTTLE="90s"), user)
    stage.submit()
    stage.run(lambda: asks_for(DAY_SECONDS))
    assert stage.lane()["throttled_until"] == NOW + 90_000


def test_resume_ends_throttling_and_wakes_the_task(throttled: Stage, user: str) -> None:
    throttled.paceline.request("POST", f"/api/v1/users/{user}/resume")
    lane = throttled.lane()
    assert (lane["throttled_until"], lane["throttled_reason"], lane["next_start_at"]) == (None, None, NOW + 5_000)
    throttled.run(lambda: None, lambda: None)
    ends = [(event["seq"], event["attempt"], event["started_at"]) for event in throttled.paceline.events]
    assert ends == [(1, 1, NOW + 5_000), (2, 1, NOW + 6_000)]


def test_throttled_task_is_cancelled_and_the_lane_stays_throttled(throttled: Stage, user: str) -> None:
    [second, first] = throttled.paceline.get(f"/api/v1/users/{user}/tasks").json_body["tasks"]
    cancelled = throttled.paceline.request("DELETE", f"/api/v1/users/{user}/tasks/{first['task_id']}")
    assert (cancelled.status_code, cancelled.json_body["state"]) == (200, "cancelled")
    assert throttled.lane()["throttled_until"] == NOW + HOUR_MS
    assert throttled.task(second["task_id"])["estimated_at"] == NOW + HOUR_MS


def test_resume_keeps_a_backoff(deploy: Deploy, user: str) -> None:
    stage = Stage(deploy(BACKOFF="10m"), user)
    stage.submit()
    stage.run(lambda: 1 / 0)
    stage.paceline.request("POST", f"/api/v1/users/{user}/resume")
    assert stage.lane()["next_start_at"] == NOW + 600_000


def test_start_of_a_clock_that_was_ahead_is_shown_and_corrected_by_a_resume(stage_ahead: Stage, user: str) -> None:
    lane = stage_ahead.lane()
    assert (lane["start_ahead_at"], lane["starts"]) == (NOW + HOUR_MS, [NOW + HOUR_MS])
    assert lane["next_start_at"] == NOW + HOUR_MS + 1_000
    stage_ahead.paceline.request("POST", f"/api/v1/users/{user}/resume")
    lane = stage_ahead.lane()
    assert (lane["start_ahead_at"], lane["starts"]) == (None, [NOW + 5_000])
    stage_ahead.at(6_000)
    stage_ahead.run(lambda: None)
    assert stage_ahead.paceline.events[-1]["started_at"] == NOW + 6_000


@pytest.fixture
def stage_ahead(paceline: Paceline, user: str) -> Stage:
    """A worker whose clock was an hour ahead ran the first task; the clock is right again, and a second task waits."""
    stage = Stage(paceline, user)
    stage.submit()
    stage.at(HOUR_MS)
    [record] = paceline.receive(user)
    stage.deliver(record, lambda: None)
    paceline.delete(record)
    paceline.clock.step_back(HOUR_MS - 5_000)
    stage.submit()
    return stage
