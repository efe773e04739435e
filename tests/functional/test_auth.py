import json
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import unquote

import pytest
from chalice.app import Chalice
from chalice.test import Client

from chalicelib.container import SystemClock
from local.gateway import Gateway
from tests.tokens import SECRET, forged, jwk, jwks, make_token, pem, rsa_key

Answer = tuple[int, dict[str, str], Any]
#: Sends a request: method, path, JSON body, headers.
Send = Callable[..., Answer]
Load = Callable[..., Send]


@pytest.fixture
def load(load_app: Callable[..., Chalice]) -> Load:
    """The app behind the local gateway, as `make run` serves it."""
    return lambda **env: partial(through_gateway, Gateway(load_app(**env)))


@pytest.fixture
def send(load: Load) -> Send:
    return load(AUTH="jwt", JWT_SECRET=SECRET)


def through_gateway(gateway: Gateway, method: str, path: str, body: Any = None, *authorization: str) -> Answer:
    raw, answered = b"" if body is None else json.dumps(body).encode(), []
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "REQUEST_URI": path,
        "PATH_INFO": unquote(path.partition("?")[0]),
        "QUERY_STRING": path.partition("?")[2],
        "CONTENT_TYPE": "application/json",
        "wsgi.input": BytesIO(raw),
    }
    if authorization:
        environ["HTTP_AUTHORIZATION"] = ", ".join(authorization)  # as waitress joins them
    text = b"".join(gateway(environ, lambda *args: answered.append(args)))
    status, headers = answered[0]
    return int(status.split()[0]), dict(headers), parsed(text)


def parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode()


def bearer(user_id: str = "ann", **claims: Any) -> str:
    return f"Bearer {token(user_id, **claims)}"


def token(user_id: str = "ann", key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """Good by the clock on the wall, since nothing tells the app another time."""
    return make_token(key, algorithm, sub=user_id, **{"exp": SystemClock().now_ms() // 1000 + 600, **claims})


#: Everything but what is public, with what a client sends there.
ROUTES = [
    ("POST", "/api/v1/task", {"user_id": "ann"}),
    ("POST", "/task?userId=ann", None),
    ("POST", "/api/v1/tasks", {"user_id": "ann", "tasks": [{}]}),
    ("GET", "/api/v1/users/ann", None),
    ("PUT", "/api/v1/users/ann", {"group": "acme"}),
    ("GET", "/api/v1/users/ann/tasks", None),
    ("GET", "/api/v1/users/ann/tasks/0198-0001", None),
    ("DELETE", "/api/v1/users/ann/tasks/0198-0001", None),
    ("PUT", "/api/v1/users/ann/limits", {"limits": "5/second"}),
    ("DELETE", "/api/v1/users/ann/limits", None),
    ("POST", "/api/v1/users/ann/pause", {}),
    ("POST", "/api/v1/users/ann/resume", None),
    ("GET", "/api/v1/users/ann/schedules", None),
    ("PUT", "/api/v1/users/ann/schedules/report", {"every_seconds": 60}),
    ("GET", "/api/v1/users/ann/schedules/report", None),
    ("DELETE", "/api/v1/users/ann/schedules/report", None),
    ("GET", "/api/v1/lanes", None),
    ("GET", "/api/v1/task-names", None),
    ("GET", "/api/v1/tasks?state=failed", None),
    ("DELETE", "/api/v1/users/ann/tasks?state=queued", None),
    ("DELETE", "/api/v1/users/ann", None),
    ("POST", "/api/v1/redrive", {"since": 1_795_324_829_123}),
    ("POST", "/api/v1/users/ann/redrive", {}),
    ("POST", "/api/v1/users/ann/tasks/0198-0001/redrive", None),
    ("GET", "/api/v1/limits", None),
    ("GET", "/api/v1/limits/stripe", None),
    ("PUT", "/api/v1/limits/stripe", {"limits": "5/second"}),
    ("DELETE", "/api/v1/limits/stripe", None),
    ("POST", "/api/v1/limits/stripe/pause", {}),
    ("POST", "/api/v1/limits/stripe/resume", None),
    ("GET", "/health", None),
    ("GET", "/kill", None),
    ("GET", "/metrics", None),
]
#: Said again here, so that nothing becomes public by one slip.
PUBLIC = {"/", "/web/{name}", "/health-check", "/openapi.json"}
FOR_ADMINS = {
    ("PUT", "limits"),
    ("DELETE", "limits"),
    ("POST", "pause"),
    ("POST", "resume"),
    ("GET", "lanes"),
    ("GET", "health"),
}


#: The last part of these is that of other routes too.
ONLY_FOR_ADMINS = {
    ("POST", "/api/v1/redrive"),
    ("GET", "/api/v1/tasks?state=failed"),
    ("DELETE", "/api/v1/users/ann"),
    ("PUT", "/api/v1/users/ann"),
}


def as_route(path: str) -> str:
    for value, parameter in (
        ("users/ann", "users/{user}"),
        ("0198-0001", "{task_id}"),
        ("es/report", "es/{name}"),
        ("stripe", "{name}"),
    ):
        path = path.replace(value, parameter)
    return path


def is_for_admins(method: str, path: str) -> bool:
    if path.startswith("/api/v1/limits") or (method, path) in ONLY_FOR_ADMINS:
        return True
    return (method, path.rsplit("/", 1)[1]) in FOR_ADMINS


def test_every_route_is_listed_here_or_public(load_app: Callable[..., Chalice]) -> None:
    routes = {(method, path) for path, methods in load_app().routes.items() for method in methods}
    listed = {(method, as_route(path.partition("?")[0])) for method, path, _ in ROUTES}
    assert routes - listed <= {("GET", path) for path in PUBLIC}
    assert listed <= routes


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_route_is_closed_without_a_token(send: Send, method: str, path: str, body: Any) -> None:
    status, headers, problem = send(method, path, body)
    assert (status, headers["Content-Type"]) == (401, "application/problem+json")
    assert headers["WWW-Authenticate"] == "Bearer"
    assert problem["title"] == "A token is required"
    assert problem["field"] == "Authorization"


#: Open to everybody with a token, or absent for everybody.
ANSWERED_ALIKE = ("/api/v1/task-names", "/kill", "/metrics")


@pytest.mark.parametrize(("method", "path", "body"), [one for one in ROUTES if one[1] not in ANSWERED_ALIKE])
def test_route_is_closed_to_other_users(send: Send, method: str, path: str, body: Any) -> None:
    status, headers, problem = send(method, path, body, bearer("bob"))
    assert (status, headers["Content-Type"]) == (403, "application/problem+json")
    assert headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="admin"'
    assert problem["title"] in ("The token belongs to another user", "Admin scope required")


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_route_is_open_to_its_user_unless_it_is_for_admins(send: Send, method: str, path: str, body: Any) -> None:
    status, _, _ = send(method, path, body, bearer("ann"))
    assert (status == 403) is is_for_admins(method, path)
    assert status not in (401, 500)


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_route_is_open_to_admins(send: Send, method: str, path: str, body: Any) -> None:
    assert send(method, path, body, bearer("root", scope="admin"))[0] not in (401, 403, 500)


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_route_is_open_to_all_without_authentication(load: Load, method: str, path: str, body: Any) -> None:
    for authorization in ([], ["Bearer garbage"]):
        assert load(AUTH="none")(method, path, body, *authorization)[0] not in (401, 403, 500)


def test_public_routes_need_no_token_and_look_at_none(send: Send) -> None:
    assert send("GET", "/health-check")[0] == 200
    assert send("GET", "/health-check", None, "Bearer garbage")[0] == 200


BAD = {
    "garbage": lambda: "Bearer garbage",
    "expired": lambda: bearer(exp=1),
    "no algorithm": lambda: f"Bearer {forged({'alg': 'none'}, {'sub': 'ann', 'exp': 9_999_999_999})}",
    "another secret": lambda: f"Bearer {token(key=SECRET[::-1])}",
    "a time of 400 digits": lambda: bearer(exp=10**400),
    "a negative time of 400 digits": lambda: bearer(nbf=-(10**400)),
    "padded": lambda: f"{bearer()}=",
    "not yet valid": lambda: bearer(nbf=9_999_999_999),
    "bad subject": lambda: bearer("a b"),
    "basic": lambda: "Basic YW5uOmFubg==",
    "huge": lambda: bearer(more="x" * 9_000),
    "empty": lambda: "",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_token_is_refused_with_what_is_wrong_and_nothing_else(
    send: Send, case: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    authorization = BAD[case]()
    status, headers, problem = send("POST", "/task", {"user_id": "ann"}, authorization)
    assert (status, headers["Content-Type"]) == (401, "application/problem+json")
    assert headers["WWW-Authenticate"] == f'Bearer error="invalid_token", error_description="{problem["title"]}"'
    shown = [str(problem), str(headers), caplog.text, *capsys.readouterr()]
    for part in authorization.removeprefix("Bearer ").split("."):
        assert len(part) < 8 or all(part not in text for text in shown)


def test_view_refuses_as_well_when_no_authorizer_stands_before_it(
    load_app: Callable[..., Chalice], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = load_app(AUTH="none")
    monkeypatch.setenv("AUTH", "jwt")
    monkeypatch.setenv("JWT_SECRET", SECRET)
    assert not app.builtin_auth_handlers
    send = partial(through_gateway, Gateway(app))
    for method, path, body in ROUTES:
        for case, make in BAD.items():
            status, headers, problem = send(method, path, body, make())
            assert (status, headers["Access-Control-Allow-Origin"]) == (401, "*"), (path, case, problem)


def test_repeated_header_is_refused_though_one_alone_would_do(send: Send) -> None:
    status, _, problem = send("POST", "/task", None, bearer(), bearer())
    assert (status, problem["title"]) == (401, "The token is malformed")


def test_repeated_header_is_seen_behind_api_gateway(load_app: Callable[..., Chalice]) -> None:
    app = load_app(AUTH="jwt", JWT_SECRET=SECRET)
    event = {
        "requestContext": {"httpMethod": "POST", "resourcePath": "/task", "identity": {}},
        "multiValueQueryStringParameters": None,
        "headers": {"Authorization": bearer()},
        "multiValueHeaders": {"Authorization": [bearer("eve"), bearer()]},
        "pathParameters": {},
        "stageVariables": {},
        "body": None,
    }
    assert app(event, None)["statusCode"] == 401
    event["multiValueHeaders"] = {"Authorization": [bearer()]}
    assert app(event, None)["statusCode"] in (202, 429)


@pytest.mark.parametrize("name", ["token", "access_token", "Authorization", "authorization"])
def test_token_in_the_query_or_body_is_not_looked_at(send: Send, name: str) -> None:
    assert send("POST", f"/task?userId=ann&{name}={token()}")[0] == 401
    assert send("POST", "/task", {"user_id": "ann", name: token()})[0] == 401


def test_scheme_has_no_case(send: Send) -> None:
    assert send("POST", "/task", None, f"bearer {token()}")[0] in (202, 429)


@pytest.mark.parametrize("path", ["/task", "/api/v1/task", "/task?userId=ann"])
def test_submit_without_a_user_is_for_the_caller(send: Send, path: str) -> None:
    status, headers, answer = send("POST", path, {}, bearer("ann"))
    assert status in (202, 429)
    assert answer["user_id"] == "ann"
    assert send("GET", headers["Location"], None, bearer("ann"))[2]["user_id"] == "ann"
    assert send("GET", headers["Location"], None, bearer("bob"))[0] == 403


def test_bulk_without_a_user_is_for_the_caller(send: Send) -> None:
    assert send("POST", "/api/v1/tasks", {"tasks": [{}, {}]}, bearer("cid"))[0] in (202, 429)
    assert send("GET", "/api/v1/users/cid/tasks", None, bearer("cid"))[2]["tasks"]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/task?userId=bob", None), ("/task", {"user_id": "bob"}), ("/task", {"user_id": "anne"})],
)
def test_submit_for_another_user_is_for_admins(send: Send, path: str, body: Any) -> None:
    assert send("POST", path, body, bearer("ann"))[0] == 403
    assert send("POST", path, body, bearer("root", scope="tasks admin"))[0] in (202, 429)


@pytest.mark.parametrize("user", ["bob", "%62ob", "Ann", "ann%2F..%2Fbob"])
def test_path_of_another_user_is_closed(send: Send, user: str) -> None:
    assert send("GET", f"/api/v1/users/{user}", None, bearer("ann"))[0] == 403


def test_path_names_the_user_percent_encoded(send: Send) -> None:
    assert send("GET", "/api/v1/users/a%2Fb%25", None, bearer("a/b%"))[0] == 200


def test_body_and_query_have_to_name_the_same_user(send: Send) -> None:
    assert send("POST", "/task?userId=ann", {"user_id": "bob"}, bearer("ann"))[0] == 400


def test_kill_is_for_admins_even_where_it_is_allowed(load: Load) -> None:
    send = load(AUTH="jwt", JWT_SECRET=SECRET, ALLOW_KILL="true")
    assert send("GET", "/kill")[0] == 401
    assert send("GET", "/kill", None, bearer())[0] == 403


def test_kill_is_not_there_for_anybody_where_it_is_not_allowed(send: Send) -> None:
    for authorization in (bearer(), bearer("root", scope="admin")):
        status, _, problem = send("GET", "/kill", None, authorization)
        assert (status, problem["title"]) == (404, "Not found")


def test_public_key_is_no_secret(load: Load) -> None:
    send = load(AUTH="jwt", JWT_PUBLIC_KEY=pem(rsa_key()))
    forgery = forged({"alg": "HS256"}, {"sub": "ann", "exp": 9_999_999_999}, pem(rsa_key()))
    assert send("POST", "/task", None, f"Bearer {forgery}")[0] == 401
    assert send("POST", "/task", None, f"Bearer {token(key=rsa_key(), algorithm='RS256')}")[0] in (202, 429)


class Issuer:
    """An HTTP server with a JWK set at any path but those that say otherwise."""

    def __init__(self) -> None:
        self.text = jwks(jwk(rsa_key(), kid="a"))
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status = {"/moved": 302, "/broken": 500}.get(self.path, 200)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/keys")
                self.end_headers()
                if status == 200:
                    self.wfile.write(issuer.text.encode() + b" " * (300_000 if self.path == "/huge" else 0))

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


def signed_by_issuer(kid: str = "a") -> str:
    exp = SystemClock().now_ms() // 1000 + 600
    return f"Bearer {make_token(rsa_key(), 'RS256', kid, exp=exp)}"


def test_keys_come_from_the_issuer(load: Load, issuer: Issuer) -> None:
    send = load(AUTH="jwt", JWT_JWKS_URL=f"{issuer.url}/keys")
    assert send("POST", "/task", None, signed_by_issuer())[0] in (202, 429)
    assert send("POST", "/task", None, signed_by_issuer("b"))[0] == 401


@pytest.mark.parametrize("path", ["/moved", "/broken", "/huge"])
def test_issuer_without_keys_makes_it_unavailable(load: Load, issuer: Issuer, path: str) -> None:
    status, headers, problem = load(AUTH="jwt", JWT_JWKS_URL=issuer.url + path)(
        "POST", "/task", None, signed_by_issuer()
    )
    assert (status, headers["Content-Type"]) == (503, "application/problem+json")
    assert headers["Retry-After"] == "1"
    assert "127.0.0.1" not in str(problem)


def test_issuer_that_is_down_makes_it_unavailable(load: Load, issuer: Issuer) -> None:
    issuer.close()
    send = load(AUTH="jwt", JWT_JWKS_URL=issuer.url)
    assert send("POST", "/task", None, signed_by_issuer())[0] == 503
    assert send("POST", "/task")[0] == 401
    assert send("GET", "/health-check")[0] == 200


def test_chalice_has_an_authorizer_with_tokens_only(load_app: Callable[..., Chalice]) -> None:
    assert load_app(AUTH="none").builtin_auth_handlers == []
    app = load_app(AUTH="jwt", JWT_SECRET=SECRET)
    assert [handler.handler_string for handler in app.builtin_auth_handlers] == ["app.authorizer"]
    unguarded = {
        path
        for path, entries in app.routes.items()
        if not all(entry.authorizer for method, entry in entries.items() if method != "OPTIONS")
    }
    assert "/health-check" in unguarded
    assert unguarded <= PUBLIC


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer garbage"}, 403),
        ({"Authorization": bearer(exp=1)}, 403),
        ({"Authorization": bearer("ann", scope="admin")}, 200),
    ],
)
def test_authorizer_guards_chalice_local(
    load_app: Callable[..., Chalice], headers: dict[str, str], status: int
) -> None:
    """The bodies are Chalice's: what is in chalice.local stands before the app."""
    with Client(load_app(AUTH="jwt", JWT_SECRET=SECRET)) as chalice:
        assert chalice.http.get("/api/v1/users/ann", headers=headers).status_code == status


def test_authorizer_says_nothing_when_keys_are_unavailable(load_app: Callable[..., Chalice], issuer: Issuer) -> None:
    """Neither yes nor no, either of which API Gateway would remember for the token."""
    issuer.close()
    load_app(AUTH="jwt", JWT_JWKS_URL=issuer.url)
    event = {
        "type": "TOKEN",
        "authorizationToken": signed_by_issuer(),
        "methodArn": "arn:aws:execute-api:r:1:a/s/GET/x",
    }
    assert sys.modules["app"].authorizer(event, None) is None


def test_wrong_choice_does_not_load(load_app: Callable[..., Chalice]) -> None:
    with pytest.raises(Exception, match="AUTH: 'jtw' is not allowed; allowed: none, jwt"):
        load_app(AUTH="jtw")
