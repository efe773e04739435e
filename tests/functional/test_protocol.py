"""HTTP's own rules on every route: preferences, content codings, repeated parameters, conditional requests, bodies."""

import gzip
import json
import re
from typing import Annotated, Any

import pytest
from chalice.test import HTTPResponse
from msgspec import Meta

from chalicelib.core.lane import Lane
from tests.factories import NOW
from tests.functional.conftest import Deploy, Paceline

STRICT, ASYNC = "handling=strict", "respond-async"


def submit(paceline: Paceline, user: str, prefer: str, **fields: Any) -> HTTPResponse:
    return paceline.request("POST", "/task", {"user_id": user, **fields}, Prefer=prefer)


def applied(response: HTTPResponse) -> tuple[int, str | None]:
    return response.status_code, response.headers.get("Preference-Applied")


# Preferences.


def test_applied_preference_is_confirmed(paceline: Paceline, user: str) -> None:
    assert applied(submit(paceline, user, STRICT)) == (202, STRICT)
    assert applied(submit(paceline, user, STRICT)) == (429, STRICT)
    assert applied(submit(paceline, user, ASYNC)) == (202, ASYNC)
    assert applied(submit(paceline, user, f"{ASYNC}, {STRICT}")) == (429, STRICT)
    assert applied(submit(paceline, user, 'respond-async=""')) == (202, ASYNC)
    assert applied(submit(paceline, user, "wait=5")) == (429, None)


def test_bulk_confirms_its_preference(paceline: Paceline, user: str) -> None:
    bulk = {"user_id": user, "tasks": [{}, {}]}
    assert applied(paceline.request("POST", "/api/v1/tasks", bulk, Prefer=STRICT)) == (429, STRICT)
    assert applied(paceline.request("POST", "/api/v1/tasks", bulk, Prefer=ASYNC)) == (202, ASYNC)


@pytest.mark.parametrize("over_limit", ["queue", "accept", "reject"])
def test_setting_is_no_preference(deploy: Deploy, user: str, over_limit: str) -> None:
    paceline = deploy(OVER_LIMIT=over_limit)
    assert "Preference-Applied" not in paceline.submit(user).headers
    assert "Preference-Applied" not in paceline.submit(user).headers


def test_preference_that_is_not_followed_is_not_confirmed(deploy: Deploy, user: str) -> None:
    paceline = deploy(MAX_DELAY="0s")
    paceline.submit(user)
    assert applied(submit(paceline, user, ASYNC)) == (429, None)
    for prefer in (ASYNC, STRICT):
        assert applied(submit(paceline, user, prefer, run_at=NOW + 60_000)) == (202, None)


# Content codings.

BODIES = [
    ("POST", "/task", {"user_id": "USER"}),
    ("POST", "/api/v1/tasks", {"user_id": "USER", "tasks": [{}]}),
    ("PUT", "/api/v1/users/USER/limits", {"limits": "1/second"}),
    ("PUT", "/api/v1/users/USER", {"group": "acme"}),
    ("POST", "/api/v1/users/USER/pause", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), BODIES)
@pytest.mark.parametrize(
    "coding", ["gzip", "GZIP", "x-gzip", "br", "deflate", "zstd", "identity, gzip", "gzip, gzip", "?"]
)
def test_encoded_body_is_a_415_that_names_the_coding_which_is_read(
    paceline: Paceline, user: str, method: str, path: str, body: Any, coding: str
) -> None:
    raw = gzip.compress(json.dumps(body).replace("USER", user).encode())
    for sent in (raw, raw * 9_000):  # also where the body would be too large
        response = paceline.request(method, path.replace("USER", user), sent, Content_Encoding=coding)
        assert (response.status_code, response.json_body["field"]) == (415, "Content-Encoding")
        assert response.headers["Accept-Encoding"] == "identity"
    assert paceline.parts.lanes.get(user) == Lane(user)


@pytest.mark.parametrize("coding", ["identity", "Identity", "", " , identity"])
def test_body_that_is_as_it_is_may_say_so(paceline: Paceline, user: str, coding: str) -> None:
    body = {"user_id": user}
    assert paceline.request("POST", "/task", body, Content_Encoding=coding).status_code == 202


def test_other_415_names_no_coding(paceline: Paceline, user: str) -> None:
    response = paceline.request("POST", "/task", b"user_id=ann", Content_Type="text/plain")
    assert (response.status_code, response.json_body["field"]) == (415, "Content-Type")
    assert "Accept-Encoding" not in response.headers


# Repeated parameters.


@pytest.mark.parametrize(
    ("method", "path", "name", "first", "second"),
    [
        *(("POST", path, "userId", one, two) for path in ("/task", "/api/v1/task") for one, two in ("ab", "aa")),
        *(("POST", "/task", "userId", one, two) for one, two in (("", "a"), ("a", ""))),
        ("POST", "/api/v1/tasks", "userId", "a", "b"),
        *(("GET", "/api/v1/users/ann/tasks", name, "5", "5") for name in ("state", "limit", "before", "x")),
        *(("GET", "/api/v1/lanes", name, "5", "6") for name in ("search", "limit", "before", "order", "x")),
    ],
)
def test_parameter_given_twice_is_a_400_that_names_it(
    paceline: Paceline, method: str, path: str, name: str, first: str, second: str
) -> None:
    body = {"tasks": [{}]} if path.endswith("/tasks") and method == "POST" else None
    response = paceline.request(method, f"{path}?{name}={first}&y=1&{name}={second}", body)
    assert (response.status_code, response.json_body["field"]) == (400, name)
    assert response.json_body["title"] == "A parameter is given twice"
    assert [paceline.parts.lanes.get(user).admitted for user in ("a", "b")] == [0, 0]


# Bodies of answers.


def test_every_body_is_compact_json(paceline: Paceline, user: str) -> None:
    answers = [
        paceline.submit(user),
        paceline.submit(user),
        submit(paceline, user, STRICT),
        paceline.submit("a b"),
        paceline.submit(user, Idempotency_Key=""),
        paceline.request("POST", "/task", b"{"),
        paceline.request("POST", "/task", b"x", Content_Type="text/plain"),
        paceline.request("PUT", f"/api/v1/users/{user}/limits", {"limits": "often"}),
        *(paceline.get(path) for path in (f"/api/v1/users/{user}", f"/api/v1/users/{user}/tasks/0", "/api/v1/lanes")),
        *(paceline.get(path) for path in ("/health", "/kill", "/openapi.json", "/web/nothing")),
    ]
    assert {answer.status_code for answer in answers} == {200, 202, 400, 404, 415, 422, 429}
    for answer in answers:
        text = answer.body.decode()
        assert len(json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)) == len(text), text


#: Each has a value that a pattern or a type refuses.
WRONG: list[dict[str, Any]] = [
    {"task": "a b"},
    {"task": "a" * 65},
    {"task": "log\n"},
    {"task": 1},
    {"user_id": "a b"},
    {"callback_url": "javascript:alert(1)"},
    *(
        {"task": "http", "payload": {"url": url}}
        for url in ("nonsense", "ftp://a.test/", "https://a b", "http://", "x")
    ),
    *({"task": "http", "payload": {"url": f"https://a.test/{end}"}} for end in ("\n", "\x00", "é", "x" * 3_000)),
    *({"task": "http", "payload": {"url": "https://a.test/", "headers": {name: "b"}}} for name in ("a b", "", "a\n")),
    *(
        {"task": "http", "payload": {"url": "https://a.test/", "headers": {"a": value}}}
        for value in ("", "b\r\nc", "€")
    ),
    {"task": "http", "payload": {"url": "https://a.test/", "method": "get"}},
]


@pytest.mark.parametrize("fields", WRONG, ids=lambda fields: json.dumps(fields)[:60])
def test_no_error_prints_a_regular_expression(deploy: Deploy, user: str, fields: dict[str, Any]) -> None:
    response = deploy(HTTP_ALLOWED_HOSTS="*").request("POST", "/task", {"user_id": user, **fields})
    assert response.status_code in (400, 422)
    detail = response.json_body["detail"]
    assert not re.search(r"regex|\(\?|\\Z|\[\^?.-.\]|[\]\w)][*+?{]\S*\$", detail), detail


def test_own_task_s_pattern_is_not_printed_either(paceline: Paceline, user: str) -> None:
    def order(sku: Annotated[str, Meta(pattern=r"^[A-Z]{2}-\d+$")]) -> None: ...

    paceline.parts.registry.task("order")(order)
    response = paceline.request("POST", "/task", {"user_id": user, "task": "order", "payload": {"sku": "a"}})
    assert (response.status_code, response.json_body["field"]) == (422, "/payload/sku")
    assert response.json_body["detail"] == "Expected `str` in the form that the task requires"


# Conditional requests.


def test_star_matches_a_file_that_exists(paceline: Paceline) -> None:
    for path in ("/", "/web/app.js"):
        response = paceline.request("GET", path, If_None_Match="*")
        assert (response.status_code, response.body) == (304, b"")
        assert response.headers["ETag"] == paceline.get(path).headers["ETag"]
    assert paceline.request("GET", "/web/nothing", If_None_Match="*").status_code == 404
