"""Shared limits: their routes, and what answers to submits say of them, each against the starts that come of it."""

from typing import Any

import pytest
from chalice.test import HTTPResponse

from chalicelib.core.lane import CLOCKS_DIFFER_MS
from chalicelib.core.ports import SharedBacklog, SharedClaim
from chalicelib.core.shared_limit import Taken, Waiter, claim_shared
from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline
from tests.functional.test_hostile_inputs import assert_refused
from tests.functional.test_submit import header
from tests.functional.test_units import lane, submit, submit_many

SHARED = "stripe: 3/second; 50/minute | openai: 100 units/minute | db: 2 at once"
LIMITS = "100/second"


@pytest.fixture
def paceline(deploy: Deploy) -> Paceline:
    return deploy(LIMITS=LIMITS, SHARED_LIMITS=SHARED, MAX_DELAY="1h")


def shared(paceline: Paceline, name: str = "stripe") -> dict[str, Any]:
    body: dict[str, Any] = paceline.get(f"/api/v1/limits/{name}").json_body
    return body


def put(paceline: Paceline, name: str, limits: str) -> HTTPResponse:
    return paceline.request("PUT", f"/api/v1/limits/{name}", {"limits": limits})


def taken(paceline: Paceline, *ages_ms: int, name: str = "stripe", units: int = 1) -> None:
    """Tasks of other users started so long ago."""
    store, settings = paceline.parts.shared_limits, paceline.parts.settings.shared_limits
    for number, age_ms in enumerate(ages_ms):
        at = paceline.clock.now_ms() - age_ms
        own = store.get(name).limits
        limits = settings[name] if own is None else own
        store.try_claim(SharedClaim(name, "other", f"o{number}", at, f"token-{number}", limits, own, units))


def waiting(paceline: Paceline, *users: str, name: str = "stripe") -> None:
    """These users wait for their turns."""
    store = paceline.parts.shared_limits
    for user in users:
        turn = store.ask(name).asked
        store.add_waiter(name, Waiter(turn, user, f"task-of-{user}"), paceline.clock.now_ms() + 5_000)


# --- what answers say


def test_task_that_may_start_now_is_answered_202(paceline: Paceline, user: str) -> None:
    answered = submit(paceline, user, shared="stripe")
    body = answered.json_body
    assert (answered.status_code, body["position"], body["delay_ms"], body["queued"]) == (202, 0, 0, False)
    assert (body["shared"], body["lower_bound"], body["estimated_at"]) == ("stripe", True, NOW)
    policies = '"second";q=100;w=1, "stripe-second";q=3;w=1, "stripe-minute";q=50;w=60'
    assert header(answered, "RateLimit-Policy") == policies
    assert header(answered, "RateLimit") == '"second";r=99;t=1, "stripe-second";r=2;t=0, "stripe-minute";r=49;t=0'
    assert header(answered, "Retry-After") == "0"


def test_full_shared_limit_is_answered_429_with_a_lower_bound(paceline: Paceline, user: str) -> None:
    taken(paceline, 900, 600, 300)
    answered = submit(paceline, user, shared="stripe")
    body = answered.json_body
    assert (answered.status_code, body["title"]) == (429, "Rate limit exceeded. Task has been queued.")
    assert (body["position"], body["planned_at"], body["delay_ms"], body["queued"]) == (1, NOW, 100, True)
    assert (body["lower_bound"], body["estimated_at"]) == (True, NOW + 100)
    assert body["violated-policies"] == ["stripe-second"]
    assert (header(answered, "Retry-After"), header(answered, "RateLimit").split(", ")[1]) == (
        "1",
        '"stripe-second";r=0;t=1',
    )
    assert body["detail"].endswith("It is number 1 in line and starts in at least 100 ms.")


def test_those_who_wait_go_first_and_are_counted(paceline: Paceline, user: str) -> None:
    taken(paceline, 900, 600, 300)
    waiting(paceline, "bob", "cat", "dan", "eve")
    answered = submit(paceline, user, shared="stripe")
    body = answered.json_body
    # Nothing starts before 100; the four before it take 100, 400, 700 and 1_100.
    assert (body["position"], body["delay_ms"], body["estimated_at"]) == (5, 100, NOW + 1_400)
    assert "waits for the shared limit stripe, with about 4 lanes before it" in body["detail"]
    assert header(answered, "Retry-After") == "2"


def test_those_who_wait_go_first_also_if_there_is_room(paceline: Paceline, user: str) -> None:
    taken(paceline, 1_020, 700, 300)  # the oldest has left its window for less than a worker needs to wake
    waiting(paceline, "bob")
    answered = submit(paceline, user, shared="stripe")
    assert (answered.status_code, answered.json_body["position"], answered.json_body["delay_ms"]) == (429, 2, 0)
    paceline.clock.advance(1_000)
    assert submit(paceline, "cat", shared="stripe").status_code == 202  # by then its turn is lost


def test_the_lane_s_own_limits_count_as_well(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="1/second", SHARED_LIMITS=SHARED)
    taken(paceline, 900, 600, 300)
    bodies = [submit(paceline, user, shared="stripe").json_body for _ in range(3)]
    found = [
        (body["position"], body["planned_at"] - NOW, body["delay_ms"], body["estimated_at"] - NOW) for body in bodies
    ]
    assert found == [(1, 0, 100, 100), (1, 1_000, 1_000, 1_000), (2, 2_000, 2_000, 2_000)]


def test_tasks_of_a_bulk_wait_for_each_other(paceline: Paceline, user: str) -> None:
    answered = submit_many(paceline, user, *[{"shared": "stripe"}] * 5, {})
    tasks = answered.json_body["tasks"]
    assert answered.status_code == 429
    assert [task["delay_ms"] for task in tasks] == [0, 0, 0, 1_000, 1_000, 0]
    assert ["lower_bound" in task for task in tasks] == [True] * 5 + [False]
    assert answered.json_body["violated-policies"] == ["stripe-second"]


def test_units_count_against_a_shared_limit(paceline: Paceline, user: str) -> None:
    taken(paceline, 30_000, name="openai", units=60)
    assert submit(paceline, user, shared="openai", units=40).status_code == 202
    answered = submit(paceline, user, shared="openai", units=41)
    assert (answered.status_code, answered.json_body["violated-policies"]) == (429, ["openai-minute-units"])
    # A start counts until the end of its hundredth of the window, plus the window.
    assert 30_000 <= answered.json_body["delay_ms"] <= 30_600
    assert '"openai-minute-units";q=100;qu="units";w=60' in header(answered, "RateLimit-Policy")


def test_task_with_more_units_than_a_shared_limit_ever_allows_is_refused(paceline: Paceline, user: str) -> None:
    refused = submit(paceline, user, shared="openai", units=101)
    assert_refused(refused, 422, "/units")
    assert "more than the 100 that the shared limit 'openai' ever allows" in refused.json_body["detail"]
    assert_refused(submit_many(paceline, user, {}, {"shared": "openai", "units": 101}), 422, "/tasks/1/units")
    assert lane(paceline, user)["admitted"] == 0


def test_as_many_as_may_run_at_once_keep_a_task_waiting(paceline: Paceline, user: str) -> None:
    store, limits = paceline.parts.shared_limits, paceline.parts.settings.shared_limits["db"]
    for task_id in ("t1", "t2"):
        seen = store.get("db")
        start = claim_shared(seen, limits, NOW - 5_000, NOW, task=("bob", task_id), token=task_id)
        assert isinstance(start, Taken)
        store.claim(seen, start)
    answered = submit(paceline, user, shared="db")
    assert (answered.status_code, answered.json_body["position"]) == (429, 1)
    assert "As many tasks run as the shared limit db lets run at once." in answered.json_body["detail"]
    assert (shared(paceline, "db")["running"], shared(paceline, "db")["next_start_at"]) == (2, None)


def test_strict_submit_is_refused_at_a_full_shared_limit(paceline: Paceline, user: str) -> None:
    strict = {"Prefer": "handling=strict"}
    assert submit(paceline, user, strict, shared="stripe").status_code == 202
    taken(paceline, 900, 600, 300)
    refused = submit(paceline, user, strict, shared="stripe")
    body = refused.json_body
    assert (refused.status_code, body["queued"], "task_id" in body) == (429, False, False)
    assert body["title"] == "Rate limit exceeded. Nothing has been queued."
    assert (body["violated-policies"], header(refused, "Retry-After")) == (["stripe-second"], "1")
    assert lane(paceline, user)["admitted"] == 1
    assert submit(paceline, user, strict).status_code == 202


def test_task_that_would_wait_longer_than_allowed_is_refused(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS=LIMITS, SHARED_LIMITS=SHARED, MAX_DELAY="3s")
    taken(paceline, 900, 600, 300)
    waiting(paceline, *(f"other-{n}" for n in range(12)))
    refused = submit(paceline, user, shared="stripe")
    assert (refused.status_code, refused.json_body["queued"]) == (429, False)
    assert "longer than the 3000 ms allowed" in refused.json_body["detail"]


def test_unknown_shared_limit_is_refused(paceline: Paceline, user: str) -> None:
    assert_refused(submit(paceline, user, shared="strip"), 422, "/shared")
    assert_refused(submit_many(paceline, user, {}, {"shared": "strip"}), 422, "/tasks/1/shared")
    assert_refused(submit(paceline, user, shared="strip", delay_seconds=60), 422, "/shared")
    assert lane(paceline, user)["admitted"] == 0
    put(paceline, "strip", "1/second")
    assert submit(paceline, user, shared="strip").status_code == 202
    assert submit(paceline, user, shared="strip", delay_seconds=60).status_code == 202


def test_one_read_for_tasks_with_a_shared_limit_and_none_for_others(paceline: Paceline, user: str) -> None:
    reads = list[str]()
    store = paceline.parts.shared_limits

    class Counting:
        def get(self, name: str) -> Any:
            reads.append(name)
            return store.get(name)

    paceline.parts.submitter._shared_limits._store = Counting()  # type: ignore[union-attr, assignment]
    submit(paceline, user)
    submit_many(paceline, user, {}, {})
    assert reads == []
    submit(paceline, user, shared="stripe")
    submit_many(paceline, user, *[{"shared": "stripe"}] * 3, {"shared": "openai"}, {})
    assert reads == ["stripe", "stripe", "openai"]
    reads.clear()
    submit(paceline, user, shared="stripe", delay_seconds=60)
    assert reads == []


def test_repeat_gets_the_first_answer_also_when_the_shared_limit_is_full(paceline: Paceline, user: str) -> None:
    key = {"Idempotency-Key": "once"}
    first = submit(paceline, user, key, shared="stripe")
    taken(paceline, 900, 600, 300)
    again = submit(paceline, user, key, shared="stripe")
    assert (again.status_code, again.json_body) == (202, first.json_body)


# --- pause, throttling, limits


def test_paused_shared_limit_queues_and_says_so(paceline: Paceline, user: str) -> None:
    paused = paceline.request("POST", "/api/v1/limits/stripe/pause")
    assert (paused.status_code, paused.json_body["paused"], paused.json_body["paused_until"]) == (200, True, None)
    assert paused.json_body["next_start_at"] is None
    answered = submit(paceline, user, shared="stripe")
    body = answered.json_body
    assert (answered.status_code, body["title"]) == (429, "Shared limit paused. Task has been queued.")
    assert (body["position"], body["estimated_at"]) == (1, None)
    strict = submit(paceline, user, {"Prefer": "handling=strict"}, shared="stripe")
    assert strict.json_body["title"] == "Shared limit paused. Nothing has been queued."
    resumed = paceline.request("POST", "/api/v1/limits/stripe/resume")
    assert (resumed.status_code, resumed.json_body["paused"]) == (200, False)
    assert submit(paceline, "bob", shared="stripe").status_code == 202


def test_shared_limit_is_paused_until_a_time(paceline: Paceline, user: str) -> None:
    until = NOW + 60_000
    paused = paceline.request("POST", "/api/v1/limits/stripe/pause", {"until": until})
    assert (paused.json_body["paused_until"], paused.json_body["next_start_at"]) == (until, until)
    assert submit(paceline, user, shared="stripe").json_body["delay_ms"] == 60_000


def test_throttled_shared_limit_says_until_when_and_why_and_a_resume_ends_it(paceline: Paceline, user: str) -> None:
    paceline.parts.shared_limits.throttle("stripe", NOW + 30_000, "HTTP 429")
    found = shared(paceline)
    assert (found["throttled_until"], found["throttled_reason"]) == (NOW + 30_000, "HTTP 429")
    answered = submit(paceline, user, shared="stripe").json_body
    assert (answered["title"], answered["delay_ms"]) == ("Shared limit throttled. Task has been queued.", 30_000)
    resumed = paceline.request("POST", "/api/v1/limits/stripe/resume").json_body
    assert (resumed["throttled_until"], resumed["throttled_reason"]) == (None, None)


def test_limits_set_at_run_time_win_until_they_are_deleted(paceline: Paceline) -> None:
    changed = put(paceline, "stripe", "5/second; 4 at once")
    assert (changed.status_code, changed.json_body["limits"]) == (200, "5/second; 4 at once")
    assert (changed.json_body["setting"], changed.json_body["at_once"]) == ("3/second; 50/minute", 4)
    deleted = paceline.request("DELETE", "/api/v1/limits/stripe").json_body
    assert (deleted["limits"], deleted["at_once"]) == ("3/second; 50/minute", None)
    assert [policy["name"] for policy in deleted["policies"]] == ["stripe-second", "stripe-minute"]


def test_shared_limit_made_at_run_time_is_gone_once_it_is_deleted(paceline: Paceline, user: str) -> None:
    assert put(paceline, "hub", "1/second").json_body["setting"] is None
    waiting(paceline, "bob", "cat", name="hub")
    paceline.request("POST", "/api/v1/limits/hub/pause")
    deleted = paceline.request("DELETE", "/api/v1/limits/hub")
    body = deleted.json_body
    assert (deleted.status_code, body["limits"], body["waiting"], body["paused"]) == (200, "", 2, False)
    assert paceline.get("/api/v1/limits/hub").status_code == 404
    assert_refused(submit(paceline, user, shared="hub"), 422, "/shared")


def test_all_shared_limits_are_listed_by_name(paceline: Paceline) -> None:
    put(paceline, "aws", "1/second")
    put(paceline, "gone", "1/second")
    paceline.request("DELETE", "/api/v1/limits/gone")
    body = paceline.get("/api/v1/limits").json_body
    assert [one["name"] for one in body["limits"]] == ["aws", "db", "openai", "stripe"]
    assert body["now"] == NOW


def test_shared_limit_says_what_is_left_and_who_waits(paceline: Paceline) -> None:
    taken(paceline, 900, 600, 300)
    waiting(paceline, "bob", "cat")
    found = shared(paceline)
    left = {
        policy["name"]: (policy["used"], policy["remaining"], policy["reset_seconds"]) for policy in found["policies"]
    }
    assert left == {"stripe-second": (3, 0, 1), "stripe-minute": (3, 45, 60)}
    assert (found["waiting"], found["started"], found["next_start_at"]) == (2, 3, NOW + 100)
    assert [(one["user_id"], one["task_id"], one["turn"]) for one in found["waiters"]] == [
        ("bob", "task-of-bob", 1),
        ("cat", "task-of-cat", 2),
    ]
    assert paceline.get("/api/v1/limits").json_body["limits"][2] == found


@pytest.mark.parametrize("save", ["save_head_receipt", "save_next_receipt"])
def test_change_wakes_those_who_wait(paceline: Paceline, user: str, save: str) -> None:
    submit(paceline, user, shared="stripe")
    [record] = paceline.receive(user)
    lane_store = paceline.parts.lanes
    getattr(lane_store, save)(lane_store.get(user), record["receiptHandle"])
    waiting(paceline, user)
    assert paceline.receive(user) == []
    put(paceline, "stripe", "100/second")
    assert len(paceline.receive(user)) == 1


def test_start_that_was_taken_before_a_change_has_reached_its_lane_when_that_is_answered(paceline: Paceline) -> None:
    taken(paceline, -120)
    paceline.request("POST", "/api/v1/limits/stripe/pause")
    assert paceline.clock.now_ms() == NOW + 120 + CLOCKS_DIFFER_MS + 1


@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [("GET", "", None), ("DELETE", "", None), ("POST", "/pause", {}), ("POST", "/resume", None)],
)
def test_unknown_name_is_not_found(paceline: Paceline, method: str, rest: str, body: Any) -> None:
    assert_refused(paceline.request(method, f"/api/v1/limits/strip{rest}", body), 404, "name")


@pytest.mark.parametrize("name", ["a%20b", "%20..", "x" * 65, "%C3%A9"])
def test_name_of_another_form_is_malformed(paceline: Paceline, name: str) -> None:
    assert_refused(put(paceline, name, "1/second"), 400, "name")
    assert_refused(paceline.get(f"/api/v1/limits/{name}"), 400, "name")


@pytest.mark.parametrize("limits", ["", "often", "101 at once", "1/second; 1/second", 5, None])
def test_limits_of_another_form_are_refused(paceline: Paceline, limits: Any) -> None:
    assert_refused(put(paceline, "stripe", limits), 422, "/limits")
    assert shared(paceline)["limits"] == "3/second; 50/minute"


def test_use_of_each_shared_limit_is_summed_for_metrics(paceline: Paceline) -> None:
    taken(paceline, 900, 600, 300)
    waiting(paceline, "bob")
    found = {one.name: one for one in paceline.parts.shared_control.backlogs()}
    assert found["stripe"] == SharedBacklog("stripe", 1, 0, {"second": (3, 3), "minute": (3, 50)})
    assert list(found) == ["db", "openai", "stripe"]
