"""The local gateway passes the app the same event and context as the gateway of `chalice local`."""

from __future__ import annotations

import io
from typing import Any

import pytest
from chalice.app import AuthResponse, Chalice, Response
from chalice.config import Config
from chalice.local import LocalGateway
from hypothesis import example, given, settings
from hypothesis import strategies as st

from local.gateway import Gateway

Event = dict[str, Any]
TIMEOUT_SECONDS = 60
BINARY = "application/octet-stream"
TEXTS = ("", "ann", "task", "{user}", "%7Buser%7D", "grün", "%00", "a;b", "a#b", "a b", "..", "~", "😀", "+", "%2F")


class Recorder(Chalice):
    """Keeps what it is called with."""

    called_with: tuple[Event, Any]

    def __call__(self, event: Event, context: Any) -> Any:
        self.called_with = event, context
        return {"statusCode": 200, "headers": {}, "multiValueHeaders": {}, "body": ""}


def recorder() -> Recorder:
    app = Recorder(app_name="recorder")

    @app.authorizer()
    def authorizer(request: Any) -> AuthResponse:
        return AuthResponse(routes=["*"], principal_id=request.token, context={"a": "b"})

    def view(**_parameters: str) -> Response:
        return Response("")

    for path in ("/", "/api/v1/task", "/users/{user}", "/users/{user}/tasks/{task_id}"):
        app.route(path, methods=["POST"], content_types=["*/*"])(view)
    app.route("/guarded/{user}", methods=["POST"], content_types=["*/*"], authorizer=authorizer)(view)
    return app


THEIR_APP, OUR_APP = recorder(), recorder()
CHALICE = LocalGateway(THEIR_APP, Config.create(lambda_timeout=TIMEOUT_SECONDS))
PACELINE = Gateway(OUR_APP, TIMEOUT_SECONDS)


def by_chalice(path: str, headers: dict[str, str], body: bytes) -> tuple[Event, Any] | int:
    """Event and context, or the status of the refusal."""
    try:
        CHALICE.event_converter._route_matcher.match_route(path)
    except ValueError:
        return 404
    CHALICE.handle_request("POST", path, headers, body or None)
    return THEIR_APP.called_with


def by_paceline(path: str, headers: dict[str, str], body: bytes) -> tuple[Event, Any] | int:
    statuses: list[int] = []
    environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "REQUEST_URI": path, "wsgi.input": io.BytesIO(body)}
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    list(PACELINE(environ, lambda status, _: statuses.append(int(status.split()[0]))))
    return OUR_APP.called_with if statuses == [200] else statuses[0]


def assert_alike(path: str, headers: dict[str, str], body: bytes) -> None:
    theirs, ours = by_chalice(path, headers, body), by_paceline(path, headers, body)
    if isinstance(theirs, int) or isinstance(ours, int):
        assert ours == theirs
        return
    assert ours[0] == theirs[0]
    contexts = [{**vars(context), "_start_time": 0, "aws_request_id": ""} for _, context in (ours, theirs)]
    for context in contexts:
        context.pop("_time_source")
    assert contexts[0] == contexts[1]


@pytest.mark.parametrize("body", [b"", b"{}", "grün".encode(), b"\xff\x00"])
@pytest.mark.parametrize("content_type", ["", "application/json", BINARY, f"{BINARY}; charset=x", "image/png"])
@pytest.mark.parametrize(
    "path", ["/", "/api/v1/task", "/api/v1/task/", "/api/v1/task?a=1&a=2&b", "/users/ann?x=%C3%BC"]
)
def test_bodies_and_content_types_come_alike(path: str, content_type: str, body: bytes) -> None:
    assert_alike(path, {"content-type": content_type} if content_type else {}, body)


SEGMENTS = ("api", "v1", "task", "tasks", "users", "guarded", *TEXTS)
PATHS = st.lists(st.sampled_from(SEGMENTS) | st.text(max_size=3), max_size=4).map("/".join)
QUERIES = st.sampled_from(("", "?", "?a", "?a=1&a=2", "?a=%26", "?=", "?a=1;b=2", "?a#b", "??"))


@settings(max_examples=50)
@example("/users/", "{user}", "")
@given(st.sampled_from(("/", "//", "/users/", "/guarded/", "/api/v1/task")), PATHS, QUERIES)
def test_paths_and_queries_come_alike(begin: str, rest: str, query: str) -> None:
    assert_alike(begin + rest + query, {"host": "localhost", "authorization": "Bearer ann"}, b"{}")


@settings(max_examples=20)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}(-[a-z]{1,4})?", fullmatch=True), st.text(max_size=9), max_size=5))
def test_headers_come_alike(headers: dict[str, str]) -> None:
    assert_alike("/users/ann", {**headers, "host": "localhost"}, b"")


def test_an_authorizer_is_asked_alike() -> None:
    assert_alike("/guarded/ann?a=1", {"authorization": "Bearer ann"}, b"{}")
    assert OUR_APP.called_with[0]["requestContext"]["authorizer"] == {"a": "b", "principalId": "Bearer ann"}
