import json
from typing import Any

import http_sfv
import pytest
from chalice.test import HTTPResponse

from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
TITLE_QUEUED = "Rate limit exceeded. Task has been queued."
TITLE_REFUSED = "Rate limit exceeded. Nothing has been queued."


def header(response: HTTPResponse, name: str) -> str:
    found = {key.lower(): value for key, value in response.headers.items()}[name.lower()]
    return found if isinstance(found, str) else found[0]


def structured(response: HTTPResponse, name: str) -> dict[str, dict[str, Any]]:
    """A field of structured items (RFC 9651) such as `"second";r=0;t=1`, by name."""
    fields = http_sfv.List()
    fields.parse(header(response, name).encode())
    return {item.value: dict(item.params) for item in fields}


def in_queue(paceline: Paceline, user: str) -> int:
    return len(paceline.receive(user))


@pytest.mark.parametrize("path", ["/api/v1/task", "/task"])
def test_submit_within_the_limits_is_accepted(paceline: Paceline, user: str, path: str) -> None:
    response = paceline.submit(user, {"n": 1}, path)
    assert response.status_code == 202
    assert header(response, "Content-Type") == "application/json"
    body = response.json_body
    assert body == {
        "task_id": body["task_id"],
        "user_id": user,
        "seq": 1,
        "position": 0,
        "planned_at": NOW,
        "delay_ms": 0,
        "queued": False,
        "state": "queued",
    }
    [record] = paceline.receive(user)
    assert json.loads(record["body"])["payload"] == {"n": 1}


def test_headers_of_a_submit_within_the_limits(paceline: Paceline, user: str) -> None:
    response = paceline.submit(user)
    assert structured(response, "RateLimit-Policy") == {"second": {"q": 1, "w": 1}, "minute": {"q": 20, "w": 60}}
    assert structured(response, "RateLimit") == {"second": {"r": 0, "t": 1}, "minute": {"r": 19, "t": 60}}
    assert header(response, "Retry-After") == "1"


def test_submit_over_the_limit_is_queued_and_says_so(paceline: Paceline, user: str) -> None:
    paceline.submit(user)
    paceline.clock.advance(400)
    response = paceline.submit(user)
    assert response.status_code == 429
    assert header(response, "Content-Type") == "application/problem+json"
    body = response.json_body
    assert (body["type"], body["title"], body["status"]) == (QUOTA_EXCEEDED, TITLE_QUEUED, 429)
    assert body["violated-policies"] == ["second"]
    assert (body["queued"], body["position"], body["seq"], body["state"]) == (True, 1, 2, "queued")
    assert (body["planned_at"], body["delay_ms"]) == (NOW + 1_000, 600)
    assert header(response, "Retry-After") == "1"
    assert in_queue(paceline, user) == 2


def test_position_and_delay_grow_with_the_backlog(paceline: Paceline, user: str) -> None:
    bodies = [paceline.submit(user).json_body for _ in range(23)]
    assert [body["position"] for body in bodies] == [0, *range(1, 23)]
    assert [body["seq"] for body in bodies] == list(range(1, 24))
    assert [body["delay_ms"] for body in bodies] == [*range(0, 20_000, 1_000), 60_000, 61_000, 62_000]
    assert paceline.submit(user).json_body["violated-policies"] == ["second", "minute"]


def test_submit_within_the_limits_behind_a_late_backlog_may_start_now(paceline: Paceline, user: str) -> None:
    for _ in range(3):
        paceline.submit(user)
    paceline.clock.advance(60_000)
    response = paceline.submit(user)
    body = response.json_body
    assert (response.status_code, body["position"], body["queued"], body["delay_ms"]) == (202, 0, False, 0)
    assert header(response, "Retry-After") == "1"


def test_retry_after_is_never_before_the_planned_start(paceline: Paceline, user: str) -> None:
    for _ in range(25):
        response = paceline.submit(user)
        if response.status_code == 429:
            assert int(header(response, "Retry-After")) * 1_000 >= response.json_body["delay_ms"]
            states = structured(response, "RateLimit")
            violated = response.json_body["violated-policies"]
            assert max(states[name]["t"] for name in violated) == int(header(response, "Retry-After"))
        paceline.clock.advance(130)


def test_quota_comes_back_with_time(paceline: Paceline, user: str) -> None:
    paceline.submit(user)
    paceline.clock.advance(999)
    assert paceline.submit(f"{user}-2").status_code == 202
    paceline.clock.advance(1)
    response = paceline.submit(user)
    assert response.status_code == 202
    assert structured(response, "RateLimit")["minute"] == {"r": 18, "t": 59}
    paceline.clock.advance(60_000)
    assert structured(paceline.submit(user), "RateLimit")["minute"] == {"r": 19, "t": 60}


def test_location_leads_to_the_task(paceline: Paceline, user: str) -> None:
    response = paceline.submit(user)
    found = paceline.get(header(response, "Location"))
    assert found.status_code == 200
    assert found.json_body["task_id"] == response.json_body["task_id"]
    assert found.json_body["state"] == "queued"


@pytest.mark.parametrize(
    "strange", ["a/b", "a%2Fb", "a%41", "?x=1&y", "#", "+", "\"\\'<>", "{}[]|^`~", ".", "..", "x" * 128]
)
def test_location_leads_to_the_task_of_a_user_with_a_strange_id(paceline: Paceline, user: str, strange: str) -> None:
    name = strange if len(strange) == 128 else f"{strange}{user}"
    response = paceline.submit(name)
    assert response.status_code in (202, 429)
    found = paceline.get(header(response, "Location"))
    assert (found.status_code, found.json_body.get("user_id")) == (200, name)


@pytest.mark.parametrize("user_id", [".", ".."])
def test_user_id_that_clients_would_tidy_away_has_a_path_of_its_own(paceline: Paceline, user_id: str) -> None:
    response = paceline.submit(user_id)
    location = header(response, "Location")
    assert location.startswith(f"/api/v1/users/%20{user_id}/")
    assert paceline.get(location).json_body["user_id"] == user_id
    assert paceline.get(f"/api/v1/users/%20{user_id}").json_body["admitted"] >= 1
    assert paceline.get("/api/v1/users/%20ann").status_code == 400


def test_user_may_be_named_in_the_query(paceline: Paceline, user: str) -> None:
    response = paceline.request("POST", f"/task?userId={user}", {"payload": 1})
    assert (response.status_code, response.json_body["user_id"]) == (202, user)
    assert paceline.request("POST", f"/task?userId={user}-2").status_code == 202
    assert paceline.request("POST", f"/task?userId={user}", {"user_id": user}).status_code == 429


# --- a lane that is paused


def pause(paceline: Paceline, user: str, until: int | None = None) -> None:
    assert paceline.request("POST", f"/api/v1/users/{user}/pause", {"until": until}).status_code == 200


@pytest.mark.parametrize("backlog", [0, 3])
def test_submit_to_a_lane_paused_without_an_end_says_that_it_has_to_be_resumed(
    paceline: Paceline, user: str, backlog: int
) -> None:
    pause(paceline, user)
    for _ in range(backlog):
        paceline.submit(user)
    response = paceline.submit(user)
    assert (response.status_code, response.json_body["position"]) == (429, backlog + 1)
    assert response.json_body["title"] == "Lane paused. Task has been queued."
    assert response.json_body["detail"] == "The lane is paused: it goes on when it is resumed."
    assert header(response, "Retry-After") == str(max(1, backlog))


def test_submit_to_a_lane_paused_for_a_time_says_when_it_starts(paceline: Paceline, user: str) -> None:
    pause(paceline, user, NOW + 90_000)
    response = paceline.submit(user)
    body = response.json_body
    assert (response.status_code, body["position"], body["delay_ms"]) == (429, 1, 90_000)
    detail = "The lane is paused for a time. It is number 1 in line and starts in about 90000 ms."
    assert (body["detail"], header(response, "Retry-After")) == (detail, "90")
    many = paceline.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": [{}, {}]}).json_body
    assert many["title"] == "Lane paused. Tasks have been queued."
    assert many["detail"] == "The lane is paused for a time. The last of them starts in about 92000 ms."


# --- what to do over the limit


@pytest.mark.parametrize(
    "prefer", ["handling=strict", "respond-async, handling=strict", 'Handling = "strict"', "wait=5,handling=strict;x"]
)
def test_strict_submit_over_the_limit_is_refused_with_nothing_queued(
    paceline: Paceline, user: str, prefer: str
) -> None:
    paceline.submit(user)
    response = paceline.submit(user, Prefer=prefer)
    assert_refused(response, retry_after="1")
    assert in_queue(paceline, user) == 1
    assert paceline.parts.lanes.get(user).admitted == 1


def assert_refused(response: HTTPResponse, retry_after: str) -> None:
    assert response.status_code == 429
    assert header(response, "Content-Type") == "application/problem+json"
    body = response.json_body
    assert (body["type"], body["title"], body["queued"]) == (QUOTA_EXCEEDED, TITLE_REFUSED, False)
    assert "task_id" not in body
    assert header(response, "Retry-After") == retry_after
    assert "Location" not in response.headers


def test_strict_submit_within_the_limits_is_accepted(paceline: Paceline, user: str) -> None:
    assert paceline.submit(user, Prefer="handling=strict").status_code == 202


def test_refusals_cost_no_quota(paceline: Paceline, user: str) -> None:
    paceline.submit(user)
    for _ in range(5):
        paceline.submit(user, Prefer="handling=strict")
    paceline.clock.advance(1_000)
    assert paceline.submit(user, Prefer="handling=strict").status_code == 202


@pytest.mark.parametrize("prefer", ["respond-async", "RESPOND-ASYNC, wait=10"])
def test_submit_that_prefers_to_wait_is_accepted_over_the_limit(paceline: Paceline, user: str, prefer: str) -> None:
    paceline.submit(user)
    response = paceline.submit(user, Prefer=prefer)
    assert (response.status_code, response.json_body["queued"]) == (202, True)
    assert header(response, "Content-Type") == "application/json"
    assert in_queue(paceline, user) == 2


@pytest.mark.parametrize("prefer", ["", ",", "handling=lenient", "strict", "nonsense=\x7f"])
def test_other_preferences_change_nothing(paceline: Paceline, user: str, prefer: str) -> None:
    paceline.submit(user)
    response = paceline.submit(user, Prefer=prefer)
    assert (response.status_code, response.json_body["queued"]) == (429, True)


@pytest.mark.parametrize(
    ("over_limit", "status", "queued"), [("queue", 429, True), ("accept", 202, True), ("reject", 429, False)]
)
def test_deployment_chooses_what_happens_over_the_limit(
    deploy: Deploy, user: str, over_limit: str, status: int, queued: bool
) -> None:
    paceline = deploy(OVER_LIMIT=over_limit)
    paceline.submit(user)
    response = paceline.submit(user)
    assert (response.status_code, response.json_body["queued"]) == (status, queued)
    assert in_queue(paceline, user) == 1 + queued


def test_request_s_preference_goes_before_the_deployment_s(deploy: Deploy, user: str) -> None:
    paceline = deploy(OVER_LIMIT="reject")
    paceline.submit(user)
    assert paceline.submit(user, Prefer="respond-async").status_code == 202
    assert_refused(deploy(OVER_LIMIT="accept").submit(user, Prefer="handling=strict"), retry_after="2")


def test_backlog_longer_than_the_longest_delay_is_refused(deploy: Deploy, user: str) -> None:
    paceline = deploy(MAX_DELAY="3s")
    assert [paceline.submit(user).status_code for _ in range(4)] == [202, 429, 429, 429]
    assert_refused(paceline.submit(user, Prefer="respond-async"), retry_after="1")
    assert in_queue(paceline, user) == 4
    paceline.clock.advance(1_000)
    assert paceline.submit(user).json_body["queued"] is True


def test_limits_of_the_deployment_are_kept_to(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="2/10 seconds")
    bodies = [paceline.submit(user).json_body for _ in range(5)]
    assert [body["delay_ms"] for body in bodies] == [0, 0, 10_000, 10_000, 20_000]
    assert structured(paceline.submit(user), "RateLimit-Policy") == {"10-seconds": {"q": 2, "w": 10}}


# --- what can not be served


def problem(response: HTTPResponse) -> dict[str, Any]:
    assert header(response, "Content-Type") == "application/problem+json"
    body: dict[str, Any] = response.json_body
    assert body["status"] == response.status_code
    assert body["title"]
    assert body["detail"]
    return body


@pytest.mark.parametrize(
    "body", [None, b"", b"  \n", b"{}", b'{"user_id": null}', b'{"user_id": ""}', b'{"payload": 1}']
)
def test_submit_without_a_user_is_told_that_it_needs_one(paceline: Paceline, body: bytes | None) -> None:
    response = paceline.request("POST", "/api/v1/task", body)
    assert response.status_code == 400
    assert problem(response)["title"] == "User ID is required"
    assert problem(response)["field"] == "/user_id"


@pytest.mark.parametrize(
    "user_id",
    [
        1,
        1.5,
        True,
        [],
        ["ann"],
        {},
        {"a": 1},
        " ",
        "a b",
        "a\n",
        "a\x00",
        "é",
        "名",
        "😀",
        "\ud800",
        "\u200b",
        "x" * 129,
        "x" * 9_000,
    ],
)
def test_user_id_that_sqs_would_not_take_is_refused(paceline: Paceline, user_id: Any) -> None:
    response = paceline.request("POST", "/api/v1/task", {"user_id": user_id})
    assert response.status_code in (400, 413)
    assert problem(response).get("field") in ("/user_id", None)


HOSTILE = {
    "not JSON": b"{not json",
    "half of JSON": b'{"user_id": "ann"',
    "two values": b'{"user_id": "ann"} {}',
    "a name twice": b'{"user_id": "ann", "user_id": "bob"}',
    "a name twice, deep": b'{"user_id": "ann", "payload": {"a": [{"b": 1, "b": 2}]}}',
    "NaN": b'{"user_id": "ann", "payload": NaN}',
    "Infinity": b'{"user_id": "ann", "payload": [-Infinity]}',
    "a number too large to be one": b'{"user_id": "ann", "payload": 1e999}',
    "an endless integer": b'{"user_id": "ann", "payload": ' + b"9" * 20_000 + b"}",
    "a list": b"[]",
    "a list of tasks": b'[{"user_id": "ann"}]',
    "text": b'"ann"',
    "null": b"null",
    "a number": b"1",
    "deep nesting": b'{"user_id": "ann", "payload": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "nesting that is just readable": b'{"user_id": "ann", "payload": ' + b"[" * 900 + b"]" * 900 + b"}",
    "deep nesting of objects": b'{"user_id": "ann", "payload": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}",
    "half a surrogate pair": b'{"user_id": "ann", "payload": "\\ud800"}',
    "half a surrogate pair as a name": b'{"user_id": "ann", "payload": {"\\udfff": 1}}',
    "bytes that are no UTF-8": b'{"user_id": "ann", "payload": "\xff\xfe"}',
    "UTF-8 of a surrogate": b'{"user_id": "ann", "payload": "\xed\xa0\x80"}',
    "overlong UTF-8": b'{"user_id": "ann", "payload": "\xc0\xaf"}',
    "a bare control character": b'{"user_id": "ann", "payload": "\x00"}',
    "task is a number": b'{"user_id": "ann", "task": 1}',
    "task is a list": b'{"user_id": "ann", "task": ["log"]}',
    "task is unknown": b'{"user_id": "ann", "task": "rm -rf"}',
    "task is very long": b'{"user_id": "ann", "task": "' + b"x" * 5_000 + b'"}',
    "task is a half surrogate": b'{"user_id": "ann", "task": "\\ud800"}',
    "a field that there is not": b'{"user_id": "ann", "paylod": 1}',
    "a field named by half a surrogate": b'{"user_id": "ann", "\\ud800": 1}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_body_is_refused_and_said_why(paceline: Paceline, body: bytes) -> None:
    response = paceline.request("POST", "/api/v1/task", body)
    assert response.status_code in (400, 413, 422), response.body
    problem(response)
    assert paceline.parts.lanes.get("ann").admitted == 0


@pytest.mark.parametrize(
    "payload",
    [
        "\x00\x01\x1f\x7f",
        "\ufffe\uffff",
        "😀",
        "\u2028\u2029",
        "a\r\nb",
        12345678901234567890,
        -0.0,
        1e308,
        "",
        [],
        {},
        {"": None},
    ],
)
def test_unusual_payload_arrives_as_it_was_sent(paceline: Paceline, user: str, payload: Any) -> None:
    assert paceline.submit(user, payload).status_code == 202
    [record] = paceline.receive(user)
    assert json.loads(record["body"])["payload"] == payload
    assert paceline.work(record) == []
    assert paceline.events[0]["event"] == "task_completed"


def test_byte_order_mark_and_utf_16_are_read_or_refused_but_break_nothing(paceline: Paceline, user: str) -> None:
    text = json.dumps({"user_id": user})
    for body in (text.encode("utf-8-sig"), text.encode("utf-16"), text.encode("utf-32")):
        assert paceline.request("POST", "/api/v1/task", body).status_code in (202, 400, 429)


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json", ";"]
)
def test_body_that_does_not_call_itself_json_is_refused(paceline: Paceline, user: str, media_type: str) -> None:
    response = paceline.request("POST", "/api/v1/task", {"user_id": user}, Content_Type=media_type)
    assert response.status_code == 415
    assert problem(response)["field"] == "Content-Type"


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_may_be_called_so_in_several_ways(paceline: Paceline, user: str, media_type: str) -> None:
    assert paceline.request("POST", "/api/v1/task", {"user_id": user}, Content_Type=media_type).status_code == 202


def test_payload_may_be_as_large_as_is_allowed_and_no_larger(deploy: Deploy, user: str) -> None:
    paceline = deploy(MAX_PAYLOAD="1000")
    assert paceline.submit(user, "x" * 998).status_code == 202
    response = paceline.submit(user, "x" * 999)
    assert response.status_code == 413
    assert problem(response)["field"] == "/payload"
    assert "1000" in problem(response)["detail"]


def test_spaces_of_a_payload_do_not_count(deploy: Deploy, user: str) -> None:
    paceline = deploy(MAX_PAYLOAD="20001")
    most = json.dumps({"user_id": user, "payload": [1] * 10_000})
    assert len(most) > 20_001 + 8_192
    assert paceline.request("POST", "/api/v1/task", most.encode()).status_code == 202
    assert paceline.submit(user, [1] * 10_001).status_code == 413


def test_payload_is_measured_in_bytes(deploy: Deploy, user: str) -> None:
    paceline = deploy(MAX_PAYLOAD="1000")
    assert paceline.submit(user, "é" * 499).status_code == 202
    assert paceline.submit(user, "é" * 500).status_code == 413


def test_body_that_is_far_too_large_is_not_even_read(paceline: Paceline) -> None:
    response = paceline.request("POST", "/api/v1/task", b"[" * 1_000_000)
    assert response.status_code == 413
    problem(response)


def test_unknown_task_names_the_field_and_what_there_is(paceline: Paceline, user: str) -> None:
    response = paceline.request("POST", "/api/v1/task", {"user_id": user, "task": "nope"})
    assert response.status_code == 422
    assert problem(response)["field"] == "/task"
    assert "log" in problem(response)["detail"]


def test_body_and_query_must_not_name_two_users(paceline: Paceline, user: str) -> None:
    response = paceline.request("POST", f"/api/v1/task?userId={user}", {"user_id": f"{user}-2"})
    assert response.status_code == 400
    assert problem(response)["field"] == "/user_id"
