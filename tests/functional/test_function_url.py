"""The app behind a Lambda Function URL: events of payload format 2.0, as the Lambda guide shows them."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from chalice.app import Chalice

from app import app, function_url
from chalicelib.api.function_url import matching_route, rest_event
from tests.answer import Answer
from tests.functional.conftest import Paceline
from tests.functional.test_auth import bearer
from tests.tokens import SECRET


def call(method: str, url: str, body: str | None = None, **event: Any) -> Answer:
    path, _, query = url.partition("?")
    context = {"http": {"method": method, "path": path, "protocol": "HTTP/1.1"}, "stage": "$default"}
    request = {"version": "2.0", "rawPath": path, "rawQueryString": query, "requestContext": context}
    request |= {"headers": {"content-type": "application/json"}, "isBase64Encoded": False}
    if body is not None:
        request["body"] = body
    answer = function_url(request | event, None)
    assert set(answer) == {"statusCode", "headers", "body", "isBase64Encoded"}
    assert all(isinstance(value, str) for value in answer["headers"].values())
    return Answer(answer["statusCode"], answer["headers"], answer["body"])


def test_a_submit_is_answered_with_its_location(paceline: Paceline, user: str) -> None:
    answer = call("POST", "/api/v1/task", json.dumps({"user_id": user}))
    assert (answer.status, answer.body["position"]) == (202, 0)
    assert answer.headers["Location"] == f"/api/v1/users/{user}/tasks/{answer.body['task_id']}"
    assert call("GET", answer.headers["Location"]).body["state"] == "queued"


def test_a_body_in_base64_is_decoded(paceline: Paceline, user: str) -> None:
    text = json.dumps({"user_id": user, "payload": "Grüße"})
    body = base64.b64encode(text.encode()).decode()
    assert call("POST", "/api/v1/task", body, isBase64Encoded=True).status == 202
    assert json.loads(paceline.receive(user)[0]["body"])["payload"] == "Grüße"


@pytest.mark.parametrize(("user_id", "encoded"), [("a/b?c", "a%2Fb%3Fc"), ("50%25", "50%2525"), (".", "%20.")])
def test_a_path_keeps_its_percent_encoding_until_the_user_is_read(
    paceline: Paceline, user_id: str, encoded: str
) -> None:
    call("POST", "/api/v1/task", json.dumps({"user_id": user_id}))
    lane = call("GET", f"/api/v1/users/{encoded}")
    assert (lane.status, lane.body["user_id"]) == (200, user_id)


def test_a_query_parameter_given_twice_is_seen_twice(paceline: Paceline) -> None:
    assert call("POST", "/task?userId=ann").status == 202
    assert call("POST", "/task?userId=ann&userId=bob").status == 400
    assert call("POST", "/task?userId=ann%26bob").body["user_id"] == "ann&bob"


def test_an_unknown_path_and_method_are_problems(paceline: Paceline) -> None:
    missing, wrong = call("GET", "/no-such-path"), call("PATCH", "/api/v1/task")
    assert (missing.status, missing.headers["Content-Type"]) == (404, "application/problem+json")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert missing.headers["Cache-Control"] == wrong.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/api/v1/users//tasks", "/api/v1/users/ann/tasks/1/2", "//", "/web/"])
def test_a_path_with_too_few_or_too_many_segments_is_not_found(paceline: Paceline, path: str) -> None:
    assert call("GET", path).status == 404


def test_every_route_is_found_by_its_own_path() -> None:
    for route in app.routes:
        names = [part[1:-1] for part in route.split("/") if part.startswith("{")]
        path = "/".join(f"%7B{part[1:-1]}" if part.startswith("{") else part for part in route.split("/"))
        assert matching_route(app.routes, path) == (route, {name: f"%7B{name}" for name in names})


def test_a_fixed_segment_wins_over_a_parameter() -> None:
    routes = {"/a/{x}": None, "/a/b": None}
    assert matching_route(routes, "/a/b") == ("/a/b", {})
    assert matching_route(routes, "/a/c/") == ("/a/{x}", {"x": "c"})


def test_the_dashboard_and_its_files_are_served(paceline: Paceline) -> None:
    page = call("GET", "/", headers={})
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert call("GET", "/web/app.js", headers={}).status == 200
    cached = call("GET", "/", headers={"if-none-match": page.headers["ETag"]})
    assert (cached.status, cached.text) == (304, "")
    assert call("HEAD", "/", headers={}).status == 200


def test_cookies_are_one_header() -> None:
    event = {"rawPath": "/", "cookies": ["a=1", "b=2"], "headers": {"host": "x"}}
    assert rest_event(event, "GET", "/", {})["headers"] == {"host": "x", "cookie": "a=1; b=2"}


def test_the_app_itself_asks_for_a_token(load_app: Callable[..., Chalice]) -> None:
    """No authorizer stands before a Function URL."""
    load_app(AUTH="jwt", JWT_SECRET=SECRET)
    from app import function_url as loaded

    event = {"rawPath": "/api/v1/users/ann", "requestContext": {"http": {"method": "GET"}}}
    assert loaded(event, None)["statusCode"] == 401
    assert loaded(event | {"headers": {"authorization": bearer("ann")}}, None)["statusCode"] == 200
    assert loaded(event | {"headers": {"authorization": bearer("bob")}}, None)["statusCode"] == 403


def test_pages_of_allowed_origins_can_read_errors(load_app: Callable[..., Chalice]) -> None:
    load_app(AUTH="none", CORS_ORIGINS="https://app.example.com")
    from app import function_url as loaded

    event = {"rawPath": "/none", "requestContext": {"http": {"method": "GET"}}}
    answer = loaded(event | {"headers": {"origin": "https://app.example.com"}}, None)
    assert answer["headers"]["Access-Control-Allow-Origin"] == "https://app.example.com"
    preflight = {"rawPath": "/api/v1/task", "requestContext": {"http": {"method": "OPTIONS"}}}
    assert loaded(preflight, None)["statusCode"] == 204
