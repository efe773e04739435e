"""A shared limit over shards: its routes and the answers to submits speak of all of it."""

from collections import Counter
from typing import Any

import pytest

from chalicelib.core.errors import RetryAfter
from chalicelib.core.shared_shards import item_name, shard_of
from tests.functional.conftest import Deploy, Paceline
from tests.functional.test_hostile_inputs import assert_refused
from tests.functional.test_shared_limits import put, shared
from tests.functional.test_submit import header
from tests.functional.test_units import run, submit, submit_many


@pytest.fixture
def paceline(deploy: Deploy) -> Paceline:
    return deploy(LIMITS="100/second", SHARED_LIMITS="api: 300/second | small: 100/second")


def start_one(paceline: Paceline, user: str) -> bool:
    """Submits one task and lets a worker look at it; whether it ran."""
    before = len(paceline.events)
    submit(paceline, user, shared="api")
    run(paceline, user)
    return len(paceline.events) > before


def test_view_sums_the_shards_and_the_log_names_the_shared_limit(paceline: Paceline, user: str) -> None:
    assert all(start_one(paceline, f"{user}-{number}") for number in range(12))
    view = shared(paceline, "api")
    [policy] = view["policies"]
    assert (view["name"], view["limits"], view["setting"]) == ("api", "300/second", "300/second")
    assert (policy["name"], policy["quota"], policy["used"], policy["remaining"]) == ("api-second", 300, 12, 288)
    assert (view["started"], len(view["starts"]), view["next_start_at"]) == (12, 12, view["now"])
    store = paceline.parts.shared_limits
    assert sum(store.get(item_name("api", index)).started > 0 for index in range(5)) > 1
    assert {event["shared"] for event in paceline.events} == {"api"}
    assert not any("shared_limits" in event for event in paceline.events)
    listed = paceline.get("/api/v1/limits").json_body["limits"]
    assert [one["name"] for one in listed] == ["api", "small"]


def test_submit_reads_the_shard_of_its_task_alone(
    paceline: Paceline, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_one(paceline, user)
    submit(paceline, user, shared="api")  # from now on the process knows how many shards there are
    store, read = paceline.parts.shared_limits, list[str]()
    get = store.get
    monkeypatch.setattr(store, "get", lambda name: read.append(name) or get(name))
    answered = submit(paceline, user, shared="api")
    assert read == [shard_of("api", answered.json_body["task_id"], 5)]
    assert header(answered, "RateLimit-Policy").endswith('"api-second";q=300;w=1')
    read.clear()
    submit(paceline, user, shared="small")
    assert read == ["small"]


def test_bulk_over_several_shards_names_the_limit_once(paceline: Paceline, user: str) -> None:
    start_one(paceline, user)
    answered = submit_many(paceline, user, *[{"shared": "api"}] * 30)
    assert Counter(header(answered, "RateLimit-Policy").split(", "))['"api-second";q=300;w=1'] == 1
    assert all(task["lower_bound"] for task in answered.json_body["tasks"])


def test_pause_is_in_force_in_every_shard_before_it_is_answered(paceline: Paceline, user: str) -> None:
    start_one(paceline, user)
    assert paceline.request("POST", "/api/v1/limits/api/pause", {}).json_body["paused"]
    assert not any(start_one(paceline, f"{user}-{number}") for number in range(10))
    answered = submit(paceline, user, shared="api")
    assert answered.json_body["title"].startswith("Shared limit paused.")
    assert not paceline.request("POST", "/api/v1/limits/api/resume", {}).json_body["paused"]
    assert start_one(paceline, f"{user}-new")


def test_limits_that_an_incident_lowers_are_in_force_at_once(paceline: Paceline, user: str) -> None:
    assert all(start_one(paceline, f"{user}-{number}") for number in range(20))
    answered = put(paceline, "api", "5/second")
    assert (answered.status_code, answered.json_body["limits"]) == (200, "5/second")
    [policy] = shared(paceline, "api")["policies"]
    assert (policy["quota"], policy["used"], policy["remaining"]) == (5, 5, 0)
    for number in range(9):
        start_one(
            paceline, f"{user}-more{number}"
        )  # its worker sleeps until the limits allow the start, if that is near
    before, after = (
        sorted(event["started_at"] for event in events) for events in (paceline.events[:20], paceline.events[20:])
    )
    assert after[0] >= before[-1] + 1_000
    assert all(sixth - first >= 1_000 for first, sixth in zip(after, after[5:], strict=False))
    paceline.clock.advance(60_000)
    answered = paceline.request("DELETE", "/api/v1/limits/api")
    assert (answered.status_code, answered.json_body["limits"]) == (200, "300/second")
    paceline.clock.advance(1_100)
    assert all(start_one(paceline, f"{user}-later{number}") for number in range(20))


def test_shared_limit_of_many_starts_is_made_and_deleted_at_run_time(paceline: Paceline, user: str) -> None:
    assert put(paceline, "new", "500/second").status_code == 200
    before = len(paceline.events)
    for number in range(8):
        submit(paceline, f"{user}-{number}", shared="new")
        run(paceline, f"{user}-{number}")
    assert len(paceline.events) == before + 8
    assert shared(paceline, "new")["policies"][0]["used"] == 8
    assert paceline.request("DELETE", "/api/v1/limits/new").status_code == 200
    assert paceline.get("/api/v1/limits/new").status_code == 404


def test_process_that_knows_shards_of_a_deleted_limit_finds_the_one_that_came_after_it(
    paceline: Paceline, user: str
) -> None:
    for limits in ("1000/second", "50/second"):
        assert put(paceline, "new", limits).status_code == 200
        answered = [submit(paceline, f"{user}-{number}", shared="new") for number in range(5)]
        assert {one.status_code for one in answered} <= {202, 429}
        assert f'"new-second";q={limits.partition("/")[0]};w=1' in header(answered[-1], "RateLimit-Policy")
        assert paceline.request("DELETE", "/api/v1/limits/new").status_code == 200
    assert_refused(submit(paceline, user, shared="new"), 422, "/shared")


def test_slow_down_of_an_api_stops_the_tasks_of_every_shard(paceline: Paceline, user: str) -> None:
    def call() -> Any:
        raise RetryAfter(30, "429 from the API", shared=True)

    paceline.parts.registry.task("call")(call)
    submit(paceline, user, task="call", shared="api")
    run(paceline, user)
    assert shared(paceline, "api")["throttled_reason"]
    assert not any(start_one(paceline, f"{user}-{number}") for number in range(10))
    paceline.request("POST", "/api/v1/limits/api/resume", {})
    assert start_one(paceline, f"{user}-new")


def test_lane_that_waits_for_a_shard_is_shown_waiting_for_the_shared_limit(paceline: Paceline, user: str) -> None:
    start_one(paceline, user)
    paceline.request("POST", "/api/v1/limits/api/pause", {})
    submitted = submit(paceline, user, shared="api")
    run(paceline, user)
    assert paceline.get(f"/api/v1/users/{user}").json_body["waits_for"]["name"] == "api"
    view = shared(paceline, "api")
    assert (view["waiting"], [one["task_id"] for one in view["waiters"]]) == (1, [submitted.json_body["task_id"]])
