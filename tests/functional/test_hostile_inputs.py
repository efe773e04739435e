"""Hostile inputs on every route: a problem that names the field, never a 500, and nothing changed.

Bodies of a single submit are in test_submit.
"""

import json
from typing import Any
from urllib.parse import quote

import pytest
from chalice.test import HTTPResponse

from chalicelib.core.lane import Lane
from tests.functional.conftest import Paceline

LONG = "x" * 100_000
DEEP = b"[" * 900 + b"]" * 900


def assert_refused(response: HTTPResponse, status: int, field: str) -> None:
    assert response.status_code == status, response.body
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json_body
    assert (problem["status"], problem["field"]) == (status, field), problem
    assert problem["title"]
    assert problem["detail"]


BODIES: dict[str, tuple[bytes, int, str]] = {
    "half of JSON": (b'{"limits": ', 400, "body"),
    "no object": (b"[]", 400, "body"),
    "a name twice": (b'{"limits": "1/second", "limits": "2/second"}', 400, "body"),
    "UTF-16": ('{"limits": "1/second"}'.encode("utf-16"), 400, "body"),
    "UTF-32": ('{"limits": "1/second"}'.encode("utf-32"), 400, "body"),
    "no UTF-8": (b'{"limits": "\xff"}', 400, "body"),
    "deep": (b'{"limits": ' + b"[" * 50_000 + b"}", 413, "body"),
    "as deep as it is read": (b'{"until": ' + DEEP + b"}", 422, "/until"),
    "too large": (b'{"limits": "' + LONG.encode() + b'"}', 413, "body"),
    "a field that there is not": (b'{"limit": "1/second"}', 422, "/limit"),
    "a field named by half a surrogate": (b'{"\\ud800": 1}', 422, "body"),
}

LIMITS: dict[str, tuple[bytes, int, str]] = BODIES | {
    "as deep as it is read": (b'{"limits": ' + DEEP + b"}", 422, "/limits"),
    "nothing": (b"{}", 422, "/limits"),
    "no body": (b"", 422, "/limits"),
    "null": (b'{"limits": null}', 422, "/limits"),
    "a number": (b'{"limits": 1}', 422, "/limits"),
    "empty": (b'{"limits": ""}', 422, "/limits"),
    "blank": (b'{"limits": " ; "}', 422, "/limits"),
    "no limits": (b'{"limits": "often"}', 422, "/limits"),
    "a quota of none": (b'{"limits": "0/second"}', 422, "/limits"),
    "a quota too high": (b'{"limits": "1000001/second"}', 422, "/limits"),
    "a huge quota": (b'{"limits": "999999999999/second"}', 422, "/limits"),
    "a negative quota": (b'{"limits": "-1/second"}', 422, "/limits"),
    "digits of another script": ('{"limits": "٣/second"}'.encode(), 422, "/limits"),
    "an endless window": (b'{"limits": "1/999999999 days"}', 422, "/limits"),
    "the same window twice": (b'{"limits": "1/second; 2/second"}', 422, "/limits"),
    "six limits": (b'{"limits": "1/1s;1/2s;1/3s;1/4s;1/5s;1/6s"}', 422, "/limits"),
    "half a surrogate pair": (b'{"limits": "\\ud800"}', 422, "/limits"),
    "long": (b'{"limits": "' + b"1/second;" * 60 + b'"}', 422, "/limits"),
}

PAUSES: dict[str, tuple[bytes, int, str]] = {
    **{name: BODIES[name] for name in BODIES if name not in ("a name twice", "a field that there is not")},
    "in the past": (b'{"until": 1}', 422, "/until"),
    "negative": (b'{"until": -1}', 422, "/until"),
    "after the end of time": (b'{"until": 253370764800001}', 422, "/until"),
    "huge": (b'{"until": ' + b"9" * 4_000 + b"}", 422, "/until"),
    "endless": (b'{"until": ' + b"9" * 8_000 + b"}", 400, "body"),
    "a huge float": (b'{"until": 1e999}', 400, "body"),
    "a float": (b'{"until": 1e300}', 422, "/until"),
    "NaN": (b'{"until": NaN}', 400, "body"),
    "text": (b'{"until": "tomorrow"}', 422, "/until"),
    "truth": (b'{"until": true}', 422, "/until"),
}

BULKS: dict[str, tuple[bytes, int, str]] = {
    "no tasks": (b'{"user_id": "USER"}', 422, "/tasks"),
    "an empty list": (b'{"user_id": "USER", "tasks": []}', 422, "/tasks"),
    "101 tasks": (b'{"user_id": "USER", "tasks": [' + b",".join([b"{}"] * 101) + b"]}", 422, "/tasks"),
    "no list": (b'{"user_id": "USER", "tasks": {"0": {}}}', 422, "/tasks"),
    "one is null": (b'{"user_id": "USER", "tasks": [{}, null]}', 422, "/tasks/1"),
    "one has another user": (b'{"user_id": "USER", "tasks": [{}, {"user_id": "bob"}]}', 422, "/tasks/1/user_id"),
    "one is unknown": (b'{"user_id": "USER", "tasks": [{}, {"task": "no-such"}]}', 422, "/tasks/1/task"),
    "one has no name": (b'{"user_id": "USER", "tasks": [{}, {"task": "a b"}]}', 422, "/tasks/1/task"),
    "one is too large": (
        json.dumps({"user_id": "USER", "tasks": [{}, {"payload": "x" * 70_000}]}).encode(),
        413,
        "/tasks/1/payload",
    ),
    "one is too deep": (
        b'{"user_id": "USER", "tasks": [{}, {}, {"payload": ' + b"[" * 33 + b"]" * 33 + b"}]}",
        422,
        "/tasks/2/payload",
    ),
    "one is half a surrogate pair": (
        b'{"user_id": "USER", "tasks": [{"payload": ["\\udfff"]}]}',
        422,
        "/tasks/0/payload",
    ),
    "a name twice in one": (b'{"user_id": "USER", "tasks": [{"payload": {"a": 1, "a": 2}}]}', 400, "body"),
    "no user": (b'{"tasks": [{}]}', 400, "/user_id"),
    "no user id": (b'{"user_id": "a b", "tasks": [{}]}', 400, "/user_id"),
    "far too large": (b'{"user_id": "USER", "tasks": [{"payload": "' + b"x" * 5_000_000 + b'"}]}', 413, "body"),
}

TABLE = [
    pytest.param(method, path, *case, id=f"{path.rpartition('/')[2]}: {name}")
    for method, path, cases in (
        ("PUT", "/api/v1/users/USER/limits", LIMITS),
        ("POST", "/api/v1/users/USER/pause", PAUSES),
        ("POST", "/api/v1/tasks", BULKS),
    )
    for name, case in cases.items()
]


@pytest.mark.parametrize(("method", "path", "body", "status", "field"), TABLE)
def test_bad_body_is_refused_and_changes_nothing(
    paceline: Paceline, user: str, method: str, path: str, body: bytes, status: int, field: str
) -> None:
    response = paceline.request(method, path.replace("USER", user), body.replace(b"USER", user.encode()))
    assert_refused(response, status, field)
    assert paceline.parts.lanes.get(user) == Lane(user)
    assert paceline.receive(user) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=", "state"),
        ("state=QUEUED", "state"),
        ("state=queued%00", "state"),
        (f"state={LONG}", "state"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=1e1", "limit"),
        ("limit=", "limit"),
        ("limit=%D9%A3", "limit"),
        (f"limit={'9' * 10_000}", "limit"),
        ("before=lane", "before"),
        ("before=request%23", "before"),
        ("before=%00", "before"),
        (f"before={'a' * 65}", "before"),
    ],
)
def test_bad_parameter_of_a_list_is_refused(paceline: Paceline, user: str, query: str, field: str) -> None:
    assert_refused(paceline.get(f"/api/v1/users/{user}/tasks?{query}"), 422, field)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "task_id", ["a" * 2_000, "lane", "request%23", "ABC", "a%00", "%F0%9F%98%80", "a b", "a/../lane"]
)
def test_what_can_be_no_task_is_not_found(paceline: Paceline, user: str, method: str, task_id: str) -> None:
    response = paceline.request(method, f"/api/v1/users/{user}/tasks/{quote(task_id, safe='%')}")
    assert_refused(response, 404, "task_id")


@pytest.mark.parametrize("name", ["%20", "%00", "a%0D%0Ab", "%E9", "%C3%A9", "x" * 129, "x" * 10_000])
@pytest.mark.parametrize(("method", "rest"), [("GET", ""), ("POST", "/pause"), ("PUT", "/limits"), ("GET", "/tasks")])
def test_path_with_no_user_id_is_refused(paceline: Paceline, method: str, rest: str, name: str) -> None:
    body = {"limits": "1/second"} if rest == "/limits" else None
    assert_refused(paceline.request(method, f"/api/v1/users/{name}{rest}", body), 400, "/user_id")


@pytest.mark.parametrize(
    "key",
    ["", " ", '""', "x" * 256, "a\tb", "a\x00b", "a\r\nX-Injected: 1", "é", "\ud800", "\x7f", '"' + "x" * 256 + '"'],
)
def test_bad_idempotency_key_is_refused(paceline: Paceline, user: str, key: str) -> None:
    response = paceline.submit(user, Idempotency_Key=key)
    assert_refused(response, 400, "Idempotency-Key")
    assert paceline.parts.lanes.get(user) == Lane(user)


@pytest.mark.parametrize(
    "prefer", ["", ";;;,,,", "handling", "handling=", "a\r\nX-Injected: 1", "\x00", "é" * 5_000, "respond-async" * 999]
)
def test_strange_preference_is_passed_over(paceline: Paceline, user: str, prefer: str) -> None:
    paceline.submit(user)
    response = paceline.submit(user, Prefer=prefer)
    assert (response.status_code, response.json_body["queued"]) == (429, True)
    assert not any("\n" in str(value) or "injected" in name.lower() for name, value in response.headers.items())


@pytest.mark.parametrize("user_id", ["a b", "%00", "x" * 129, "é", "x" * 50_000])
def test_bad_user_in_the_query_is_refused(paceline: Paceline, user_id: str) -> None:
    response = paceline.request("POST", f"/task?userId={quote(user_id, safe='%')}")
    assert_refused(response, 400, "/user_id")


@pytest.mark.parametrize("character", [chr(code) for code in range(0x21, 0x7F)])
def test_every_character_of_a_user_id_leads_to_its_task(paceline: Paceline, user: str, character: str) -> None:
    name = f"{character}{user}{character}{character}"
    submitted = paceline.submit(name)
    assert (submitted.status_code, submitted.json_body["user_id"]) == (202, name)
    task = paceline.get(submitted.headers["Location"])
    assert (task.status_code, task.json_body["user_id"]) == (200, name)
    lane = paceline.get(f"/api/v1/users/{quote(name, safe='')}")
    assert (lane.status_code, lane.json_body["user_id"], lane.json_body["admitted"]) == (200, name, 1)


@pytest.mark.parametrize("payload", [10**300, -(2**64), 2**53 + 1, 1e-320, "\x00", "a\r\nb", {"__proto__": 1}])
def test_unusual_result_is_shown_as_it_is(paceline: Paceline, user: str, payload: Any) -> None:
    task_id = paceline.submit(user, payload).json_body["task_id"]
    [record] = paceline.receive(user)
    assert paceline.work(record) == []
    shown = paceline.get(f"/api/v1/users/{user}/tasks/{task_id}")
    assert (shown.status_code, shown.json_body["state"]) == (200, "succeeded")
