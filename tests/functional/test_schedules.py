"""Schedules through the app's HTTP and SQS sides."""

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.core.schedule import OVERDUE_MS
from chalicelib.schedules.ringing import SEARCH_EVERY_MS
from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline
from tests.tokens import SECRET, make_token

HOUR_MS = 3_600_000


def put(paceline: Paceline, user: str, name: str = "report", **body: Any) -> Any:
    return paceline.request("PUT", f"/api/v1/users/{user}/schedules/{name}", body)


def get(paceline: Paceline, user: str, name: str = "report") -> Any:
    return paceline.get(f"/api/v1/users/{user}/schedules/{name}").json_body


def run_until(paceline: Paceline, until: int) -> None:
    """Handles each message of the queue of scheduled messages at its time, until then."""
    queue = paceline.queues.scheduled_queue  # type: ignore[attr-defined]
    while (at := queue.next_available_at()) is not None and at < until:
        wait_until(paceline, at)
        for record in paceline.receive_scheduled():
            if not paceline.dispatch(record):
                paceline.delete(record)
    wait_until(paceline, until)


def wait_until(paceline: Paceline, at: int) -> None:
    paceline.clock.advance(max(0, at - paceline.clock.now_ms()))


def tasks(paceline: Paceline, user: str) -> list[dict[str, Any]]:
    """Those that ticks submitted, in their order."""
    listed = paceline.get(f"/api/v1/users/{user}/tasks?limit=100").json_body["tasks"]
    return sorted((one for one in listed if one["schedule"]), key=lambda one: one["seq"])


def times(paceline: Paceline, user: str) -> list[int]:
    return [task["submitted_at"] for task in tasks(paceline, user)]


@pytest.fixture
def busy(deploy: Deploy) -> Paceline:
    return deploy(LIMITS="1000/second", MAX_DELAY="1h")


def test_a_schedule_is_stored_listed_and_deleted(paceline: Paceline, user: str) -> None:
    answer = put(paceline, user, task="log", payload={"a": 1}, every_seconds=60)
    assert answer.status_code == 201
    expected = {
        "user_id": user,
        "name": "report",
        "task": "log",
        "payload": {"a": 1},
        "units": None,
        "shared": None,
        "callback_url": None,
        "cron": None,
        "timezone": None,
        "every_seconds": 60,
        "paused": False,
        "next_at": NOW + 60_000,
        "last_at": None,
        "last_task_id": None,
        "refused": 0,
        "refused_at": None,
        "refused_reason": None,
        "created_at": NOW,
    }
    assert answer.json_body == expected
    assert get(paceline, user) == expected
    assert paceline.get(f"/api/v1/users/{user}/schedules").json_body == {"schedules": [expected], "next": None}
    assert paceline.request("DELETE", f"/api/v1/users/{user}/schedules/report").json_body == expected
    assert paceline.get(f"/api/v1/users/{user}/schedules").json_body == {"schedules": [], "next": None}
    for method in ("GET", "DELETE"):
        assert paceline.request(method, f"/api/v1/users/{user}/schedules/report").status_code == 404


def test_each_tick_submits_the_task_once(busy: Paceline, user: str) -> None:
    put(busy, user, payload={"a": 1}, every_seconds=60)
    run_until(busy, NOW + 5 * 60_000 + 30_000)
    assert times(busy, user) == [NOW + n * 60_000 for n in range(1, 6)]
    last = tasks(busy, user)[-1]
    assert (last["task"], last["schedule"], last["seq"]) == ("log", "report", 5)
    found = get(busy, user)
    assert (found["last_at"], found["next_at"]) == (NOW + 300_000, NOW + 360_000)
    assert found["last_task_id"] == last["task_id"]


def test_the_completion_log_names_the_schedule(busy: Paceline, user: str) -> None:
    put(busy, user, payload={"a": 1}, every_seconds=1)
    run_until(busy, NOW + 1_500)
    busy.submit(user)
    for record in busy.receive(user):
        assert busy.work(record) == []
    assert [event.get("schedule") for event in busy.events] == ["report", None]


def test_ticks_count_against_the_shared_limit_of_their_task(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="1000/second", MAX_DELAY="1h", SHARED_LIMITS="stripe: 1/minute")
    put(paceline, user, shared="stripe", every_seconds=1)
    run_until(paceline, NOW + 2_500)
    assert [task["shared"] for task in tasks(paceline, user)] == ["stripe", "stripe"]
    assert get(paceline, user)["shared"] == "stripe"


def test_cron_ticks_across_the_change_to_summer_time_and_back(busy: Paceline, user: str) -> None:
    wait_until(busy, int(datetime(2027, 3, 27, tzinfo=timezone.utc).timestamp() * 1000))
    put(busy, user, cron="30 2 * * *", timezone="Europe/Zurich")
    run_until(busy, busy.clock.now_ms() + 3 * 24 * HOUR_MS)
    assert [utc(at) for at in times(busy, user)] == ["03-27 01:30", "03-28 01:00", "03-29 00:30"]
    wait_until(busy, int(datetime(2027, 10, 29, 12, tzinfo=timezone.utc).timestamp() * 1000))
    put(busy, user, "autumn", cron="*/30 2 * * *", timezone="Europe/Zurich")
    busy.request("DELETE", f"/api/v1/users/{user}/schedules/report")
    run_until(busy, busy.clock.now_ms() + 2 * 24 * HOUR_MS)
    assert [utc(at) for at in times(busy, user)[3:]] == ["10-30 00:00", "10-30 00:30", "10-31 00:00", "10-31 00:30"]


def utc(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, timezone.utc):%m-%d %H:%M}"


def test_after_an_outage_only_the_last_missed_tick_comes(busy: Paceline, user: str) -> None:
    put(busy, user, every_seconds=60)
    busy.clock.advance(10 * 60_000 + 5_000)
    run_until(busy, busy.clock.now_ms() + 60_000)
    assert times(busy, user) == [NOW + 605_000, NOW + 660_000]
    assert tasks(busy, user)[0]["task_id"].startswith(f"{NOW + 600_000:012x}"[:8])


def test_a_changed_schedule_fires_no_old_tick(busy: Paceline, user: str) -> None:
    put(busy, user, every_seconds=60)
    busy.clock.advance(59_000)
    assert put(busy, user, every_seconds=100, payload="new").status_code == 200
    run_until(busy, NOW + 59_000 + 250_000)
    assert times(busy, user) == [NOW + 159_000, NOW + 259_000]
    assert busy.get(f"/api/v1/users/{user}/schedules").json_body["schedules"][0]["payload"] == "new"


def test_another_payload_keeps_the_ticks(busy: Paceline, user: str) -> None:
    put(busy, user, every_seconds=60)
    busy.clock.advance(59_000)
    assert put(busy, user, every_seconds=60, payload="new").json_body["next_at"] == NOW + 60_000
    run_until(busy, NOW + 61_000)
    assert times(busy, user) == [NOW + 60_000]


def test_a_repeated_put_changes_nothing(busy: Paceline, user: str) -> None:
    first = put(busy, user, cron="0 8 * * *", timezone="America/New_York").json_body
    busy.clock.advance(HOUR_MS)
    again = put(busy, user, cron="0 8 * * *", timezone="America/New_York")
    assert (again.status_code, again.json_body) == (200, first)


def test_a_paused_schedule_fires_none_and_on_resume_none_of_the_missed(busy: Paceline, user: str) -> None:
    put(busy, user, every_seconds=60)
    busy.clock.advance(59_000)
    paused = put(busy, user, every_seconds=60, paused=True).json_body
    assert (paused["paused"], paused["next_at"]) == (True, None)
    run_until(busy, NOW + 600_000)
    assert times(busy, user) == []
    put(busy, user, every_seconds=60)
    run_until(busy, NOW + 670_000)
    assert times(busy, user) == [NOW + 660_000]


def test_a_deleted_schedule_fires_no_more(busy: Paceline, user: str) -> None:
    put(busy, user, every_seconds=60)
    run_until(busy, NOW + 61_000)
    busy.request("DELETE", f"/api/v1/users/{user}/schedules/report")
    run_until(busy, NOW + 600_000)
    assert len(times(busy, user)) == 1
    assert len(busy.queues.scheduled_queue) == 0  # type: ignore[attr-defined]


def test_all_schedules_of_a_user_are_deleted_at_once(deploy: Deploy, user: str) -> None:
    paceline = deploy(MAX_SCHEDULES="250")
    for n in range(220):
        put(paceline, user, f"s{n}", every_seconds=60)
    put(paceline, f"{user}-2", every_seconds=60)
    assert paceline.parts.schedule_control.delete_all(user) == 220
    assert paceline.get(f"/api/v1/users/{user}/schedules").json_body["schedules"] == []
    assert paceline.parts.schedules.users("", 10) == [f"{user}-2"]
    assert paceline.parts.schedule_control.delete_all(user) == 0


def test_the_schedules_of_a_forgotten_user_fire_no_more(busy: Paceline, user: str) -> None:
    for one in (user, f"{user}-2"):
        put(busy, one, every_seconds=60)
        put(busy, one, "poll", every_seconds=90)
    answer = busy.request("DELETE", f"/api/v1/users/{user}")
    assert (answer.status_code, answer.json_body["done"]) == (200, True)
    run_until(busy, NOW + 600_000)
    assert (len(times(busy, user)), len(times(busy, f"{user}-2"))) == (0, 15)
    assert busy.get(f"/api/v1/users/{user}/schedules").json_body["schedules"] == []


def test_the_schedules_of_a_user_with_work_stay(busy: Paceline, user: str) -> None:
    put(busy, user, every_seconds=60)
    busy.submit(user)
    assert busy.request("DELETE", f"/api/v1/users/{user}").status_code == 409
    run_until(busy, NOW + 61_000)
    assert len(times(busy, user)) == 1


def test_a_schedule_has_one_message_however_often_it_is_put(busy: Paceline, user: str) -> None:
    for payload in range(5):
        put(busy, user, every_seconds=60, payload=payload)
    run_until(busy, NOW + 61_000)
    assert len(busy.queues.scheduled_queue) == 1  # type: ignore[attr-defined]
    assert len(times(busy, user)) == 1


def test_message_received_nearly_as_often_as_allowed_is_replaced(busy: Paceline, user: str) -> None:
    put(busy, user, every_seconds=1)
    run_until(busy, NOW + 1_100_000)
    assert times(busy, user) == [NOW + n * 1_000 for n in range(1_000, 1_100)]
    assert tasks(busy, user)[-1]["seq"] == 1_099
    assert get(busy, user)["last_at"] == NOW + 1_099_000
    assert busy.queues.scheduled_queue.dead_letters == ()  # type: ignore[attr-defined]
    assert len(busy.queues.scheduled_queue) == 1  # type: ignore[attr-defined]


def test_a_daily_schedule_outlives_its_messages(busy: Paceline, user: str) -> None:
    put(busy, user, cron="0 8 * * *")
    run_until(busy, NOW + 60 * 24 * HOUR_MS)
    assert len(times(busy, user)) == 60
    assert len({at % (24 * HOUR_MS) for at in times(busy, user)}) == 1


@pytest.mark.parametrize("env", [{"OVER_LIMIT": "reject"}, {"MAX_DELAY": "0"}])
def test_a_refused_tick_is_logged_and_counted(
    deploy: Deploy, user: str, env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    paceline = deploy(LIMITS="1/hour", **env)
    put(paceline, user, every_seconds=60)
    run_until(paceline, NOW + 181_000)
    assert len(times(paceline, user)) == 1
    found = get(paceline, user)
    assert (found["refused"], found["refused_at"], found["last_at"]) == (2, NOW + 180_000, NOW + 180_000)
    assert found["refused_reason"]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "tick_refused" in line]
    assert [(line["event"], line["schedule"], line["tick_at"]) for line in lines] == [
        ("tick_refused", "report", NOW + 120_000),
        ("tick_refused", "report", NOW + 180_000),
    ]
    assert lines[0]["_aws"]["CloudWatchMetrics"][0]["Metrics"] == [{"Name": "tick_refused", "Unit": "Count"}]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "/cron"),
        ({"cron": "0 8 * * *", "every_seconds": 60}, 422, "/cron"),
        ({"cron": "0 8 * *"}, 422, "/cron"),
        ({"cron": "0 0 8 * * *"}, 422, "/cron"),
        ({"cron": "61 8 * * *"}, 422, "/cron"),
        ({"cron": "0 8 * * MOON"}, 422, "/cron"),
        ({"cron": "0 0 30 2 *"}, 422, "/cron"),
        ({"cron": "@daily..."}, 422, "/cron"),
        ({"cron": "*" * 300}, 422, "/cron"),
        ({"cron": "0 8 * * *", "timezone": "Europe/Nowhere"}, 422, "/timezone"),
        ({"cron": "0 8 * * *", "timezone": "../../etc/passwd"}, 422, "/timezone"),
        ({"cron": "0 8 * * *", "timezone": "Europe"}, 422, "/timezone"),
        ({"cron": "0 8 * * *", "timezone": "Europe/Zurich\x00"}, 422, "/timezone"),
        ({"every_seconds": 60, "timezone": "Europe/Zurich"}, 422, "/timezone"),
        ({"every_seconds": 0}, 422, "/every_seconds"),
        ({"every_seconds": -5}, 422, "/every_seconds"),
        ({"every_seconds": 1.5}, 422, "/every_seconds"),
        ({"every_seconds": 10**9}, 422, "/every_seconds"),
        ({"every_seconds": 60, "paused": "yes"}, 422, "/paused"),
        ({"every_seconds": 60, "task": "missing"}, 422, "/task"),
        ({"every_seconds": 60, "units": 0}, 422, "/units"),
        ({"every_seconds": 60, "run_at": NOW}, 422, "/run_at"),
        ({"every_seconds": 60, "callback_url": "https://evil.example/"}, 422, "/callback_url"),
        ({"every_seconds": 60, "payload": "x" * 70_000}, 413, "/payload"),
    ],
)
def test_a_wrong_schedule_is_refused_with_its_field(
    paceline: Paceline, user: str, body: dict[str, Any], status: int, field: str
) -> None:
    answer = put(paceline, user, **body)
    assert (answer.status_code, answer.json_body["field"]) == (status, field)
    assert paceline.get(f"/api/v1/users/{user}/schedules").json_body["schedules"] == []


@pytest.mark.parametrize("cron", ["", "0 8", "0 8 * *", "0 0 8 * * *"])
def test_a_cron_expression_with_another_number_of_fields_is_refused_with_their_names(
    paceline: Paceline, user: str, cron: str
) -> None:
    assert put(paceline, user, cron=cron).json_body["detail"].endswith("5 fields: minute hour day month weekday.")


@pytest.mark.parametrize("name", ["a b", ".", "..", "-x", "x" * 65, "%C3%A4", "a%2Fb"])
def test_a_name_that_is_not_allowed_is_refused(paceline: Paceline, user: str, name: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        body = {"every_seconds": 60} if method == "PUT" else None
        path = f"/api/v1/users/{user}/schedules/{name.replace(' ', '%20')}"
        answer = paceline.request(method, path, body)
        assert answer.status_code == 422, answer.body
        assert answer.json_body["field"] == "name"


def test_a_user_has_as_many_schedules_as_allowed(deploy: Deploy, user: str) -> None:
    paceline = deploy(MAX_SCHEDULES="2")
    assert [put(paceline, user, name, every_seconds=60).status_code for name in "aba"] == [201, 201, 200]
    full = put(paceline, user, "c", every_seconds=60)
    assert (full.status_code, "2 schedules" in full.json_body["detail"]) == (409, True)
    assert put(paceline, f"{user}-2", "c", every_seconds=60).status_code == 201
    paceline.request("DELETE", f"/api/v1/users/{user}/schedules/a")
    assert put(paceline, user, "c", every_seconds=60).status_code == 201


def test_the_list_has_pages(paceline: Paceline, user: str) -> None:
    names = ["a", "a-1", "a.1", "a_b", "aa", "b", "report"]
    for name in names:
        put(paceline, user, name, every_seconds=60)
    found, before = list[str](), ""
    while before is not None:
        page = paceline.get(f"/api/v1/users/{user}/schedules?limit=2{f'&before={before}' if before else ''}").json_body
        found += [one["name"] for one in page["schedules"]]
        before = page["next"]
    assert found == sorted(names)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "before=%20"])
def test_a_wrong_page_is_refused(paceline: Paceline, user: str, query: str) -> None:
    assert paceline.get(f"/api/v1/users/{user}/schedules?{query}").status_code == 422


def lose_messages(paceline: Paceline) -> None:
    paceline.queues.scheduled_queue._messages.clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["list", "get", "put", "another's tick"])
def test_a_lost_message_ends_no_schedule(busy: Paceline, user: str, way: str) -> None:
    put(busy, user, every_seconds=60)
    lose_messages(busy)
    busy.clock.advance(60_000 + OVERDUE_MS + 1)
    if way == "list":
        busy.get(f"/api/v1/users/{user}/schedules")
    elif way == "get":
        get(busy, user)
    elif way == "put":
        put(busy, user, every_seconds=60)
    else:
        busy.clock.advance(SEARCH_EVERY_MS)
        put(busy, f"{user}-2", every_seconds=1)
        run_until(busy, busy.clock.now_ms() + 1_500)
        busy.request("DELETE", f"/api/v1/users/{user}-2/schedules/report")
    run_until(busy, busy.clock.now_ms() + 120_000)
    assert len(times(busy, user)) == 3
    assert len(busy.queues.scheduled_queue) == 1  # type: ignore[attr-defined]


def test_a_process_that_starts_sends_lost_messages_again(busy: Paceline, user: str) -> None:
    put(busy, user, every_seconds=60)
    busy.parts.ringer.search(is_start=True)
    lose_messages(busy)
    busy.clock.advance(60_000 + OVERDUE_MS + 1)
    busy.parts.ringer.search(is_start=True)
    run_until(busy, busy.clock.now_ms() + 1_000)
    assert len(times(busy, user)) == 1


def test_a_slow_queue_is_not_taken_for_a_lost_message(busy: Paceline, user: str) -> None:
    put(busy, user, every_seconds=60)
    busy.clock.advance(60_000 + OVERDUE_MS + 1)
    for _ in range(3):
        get(busy, user)
    assert len(busy.queues.scheduled_queue) == 2  # type: ignore[attr-defined]
    run_until(busy, busy.clock.now_ms() + 1_000)
    assert (len(times(busy, user)), len(busy.queues.scheduled_queue)) == (1, 1)  # type: ignore[attr-defined]


def test_users_manage_their_own_schedules(deploy: Deploy, user: str) -> None:
    paceline = deploy(AUTH="jwt", JWT_SECRET=SECRET)
    path = f"/api/v1/users/{user}/schedules/report"
    own, foreign = (f"Bearer {make_token(sub=one)}" for one in (user, "eve"))
    for token, status in ((own, 201), (foreign, 403), (None, 401)):
        headers = {"Authorization": token} if token else {}
        assert paceline.request("PUT", path, {"every_seconds": 60}, **headers).status_code == status
    for method in ("GET", "DELETE"):
        assert paceline.request(method, path, Authorization=foreign).status_code == 403
        assert paceline.request(method, path, Authorization=own).status_code == 200


def test_a_task_that_is_gone_fails_and_the_schedule_goes_on(busy: Paceline, user: str) -> None:
    put(busy, user, every_seconds=60)
    store = busy.parts.schedules
    schedule = store.get(user, "report")
    assert schedule
    gone = replace(schedule, order=replace(schedule.order, task="gone"), revision=schedule.revision + 1)
    assert store.save(gone, schedule.revision)
    run_until(busy, NOW + 121_000)
    assert [task["task"] for task in tasks(busy, user)] == ["gone", "gone"]


class PutsMeanwhile:
    """A submitter during whose submits a client puts the schedule again."""

    def __init__(self, submitter: Any, put_again: Callable[[], None]) -> None:
        self._submitter = submitter
        self._put_again = put_again

    def submit(self, *arguments: Any) -> Any:
        self._put_again()
        return self._submitter.submit(*arguments)


@pytest.mark.parametrize(("changed", "last_at"), [({}, 3), ({"payload": "new"}, 3), ({"paused": True}, 1)])
def test_a_put_while_a_tick_is_submitted_delays_no_other(
    busy: Paceline, user: str, changed: dict[str, Any], last_at: int
) -> None:
    put(busy, user, every_seconds=2)
    parts: Any = busy.parts
    parts.submitter = PutsMeanwhile(parts.submitter, lambda: put(busy, user, every_seconds=2, **changed))
    run_until(busy, NOW + 7_000)
    assert get(busy, user)["last_at"] == NOW + last_at * 2_000
