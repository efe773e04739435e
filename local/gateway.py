"""Stands in for API Gateway on one machine: a WSGI application that calls the Chalice app with API Gateway's events.

Requests reach the app as under `chalice local`, whose gateway takes twice the CPU. API Gateway's own errors
(unknown path or method, not authorized) are problem+json like the app's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from chalice.app import Chalice
from chalice.config import Config
from chalice.local import (
    LambdaContext,
    LocalChalice,
    LocalGatewayAuthorizer,
    LocalGatewayException,
    MatchResult,
    RouteMatcher,
)

from chalicelib.api.origins import UNSTORED
from chalicelib.api.problems import problem_of
from chalicelib.container import container, page_origins
from chalicelib.core.errors import SettingError, UnauthenticatedError, UnavailableError
from local import hosts

#: API Gateway's limit for a request body, in bytes.
MAX_BODY_BYTES = 10 * 1024 * 1024

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
#: Status, ordered headers, body.
Answer = tuple[int, list[tuple[str, str]], bytes]


class Gateway:
    """The WSGI application, thread-safe."""

    def __init__(self, app: Chalice, timeout_seconds: int = 60) -> None:
        self._app = _with_request_per_thread(app)
        self._routes: Mapping[str, Mapping[str, Any]] = app.routes
        self._matcher = RouteMatcher(list(app.routes))
        self._authorizer = LocalGatewayAuthorizer(app)
        self._binary_types = frozenset(app.api.binary_types)
        config = Config.create(lambda_timeout=timeout_seconds)
        self._context = config.function_name, config.lambda_memory_size, timeout_seconds * 1000

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        origins = page_origins()
        is_served = hosts.is_served(environ.get("HTTP_HOST"), origins)
        status, headers, body = self._answer(environ) if is_served else _misdirected()
        headers = completed(headers, environ.get("HTTP_ORIGIN"))
        if environ["REQUEST_METHOD"] == "HEAD":
            headers, body = [*headers, ("Content-Length", str(len(body)))], b""
        start_response(status_line(status), headers)
        return [body]

    def _answer(self, environ: Environ) -> Answer:
        path = environ.get("REQUEST_URI") or _path(environ)
        try:
            match = self._match(path)
        except ValueError:
            return problem(404, f"The path {path.partition('?')[0]} does not exist")
        methods = self._routes[match.route]
        method = environ["REQUEST_METHOD"]
        if method == "HEAD" and "HEAD" not in methods:
            method = "GET"
        if method not in methods:
            allowed = ", ".join(sorted(methods))
            return problem(405, f"Allowed methods: {allowed}", ("Allow", allowed))
        return self._call(method, path, match, environ)

    def _match(self, path: str) -> MatchResult:
        """The route, its parameters and the query. ValueError if there is none."""
        if path in self._routes and "{" not in path:
            return MatchResult(path, {}, {})
        return self._matcher.match_route(path)

    def _call(self, method: str, path: str, match: MatchResult, environ: Environ) -> Answer:
        event, context = self._event(method, path, match, environ), LambdaContext(*self._context)
        try:
            if self._routes[match.route][method].authorizer:
                event, context = self._authorizer.authorize(path, event, context)
        except LocalGatewayException as error:
            return _refused(error, event["headers"])
        response = self._app(event, context)
        return response["statusCode"], _response_headers(response), _response_body(response)

    def _event(self, method: str, path: str, match: MatchResult, environ: Environ) -> dict[str, Any]:
        """API Gateway's event. It has null for an empty body, and for a query without parameters."""
        headers, body = _request_headers(environ), environ["wsgi.input"].read() or None
        is_binary = body is not None and headers.get("content-type", "") in self._binary_types
        return {
            "requestContext": {
                "httpMethod": method,
                "resourcePath": match.route,
                "identity": {"sourceIp": "127.0.0.1"},
                "path": path.partition("?")[0],
            },
            "headers": headers,
            "pathParameters": match.captured,
            "stageVariables": {},
            "multiValueQueryStringParameters": match.query_params or None,
            "body": base64.b64encode(body).decode("ascii") if body and is_binary else body,
            **({"isBase64Encoded": True} if is_binary else {}),
        }


def _with_request_per_thread(app: Chalice) -> Chalice:
    """Gives each thread its own current request, as `chalice local` does; Chalice keeps it in one attribute."""
    if not isinstance(app, LocalChalice):
        app.__class__ = type("ThreadedChalice", (LocalChalice, type(app)), {})
    return app


def _path(environ: Environ) -> str:
    query = environ.get("QUERY_STRING", "")
    return f"{environ['PATH_INFO']}?{query}" if query else str(environ["PATH_INFO"])


def _request_headers(environ: Environ) -> dict[str, str]:
    headers = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")}
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            headers[key.replace("_", "-").lower()] = environ[key]
    return headers


def _response_headers(response: Mapping[str, Any]) -> list[tuple[str, str]]:
    single: Mapping[str, Any] = response.get("headers") or {}
    multiple: Mapping[str, list[Any]] = response.get("multiValueHeaders") or {}
    pairs = [(name, str(value)) for name, value in single.items() if name not in multiple]
    return pairs + [(name, str(value)) for name, values in multiple.items() for value in values]


def _response_body(response: Mapping[str, Any]) -> bytes:
    body = response.get("body") or ""
    if response.get("isBase64Encoded"):
        return base64.b64decode(body)
    return body if isinstance(body, bytes) else body.encode()


def problem(status: int, detail: str, *headers: tuple[str, str]) -> Answer:
    """Returns an error of API Gateway itself in the app's error format."""
    problem = {"type": "about:blank", "title": _phrase(status), "status": status, "detail": detail}
    body = json.dumps(problem, separators=(",", ":")).encode()
    return status, [("Content-Type", "application/problem+json"), *headers], body


def completed(headers: list[tuple[str, str]], origin: str | None) -> list[tuple[str, str]]:
    """Adds those headers of every answer that the app has not set, such as to an answer of the gateway itself."""
    present = {name.lower() for name, _ in headers}
    common = UNSTORED | page_origins().response_headers(origin)
    return headers + [(name, str(value)) for name, value in common.items() if name.lower() not in present]


def _misdirected() -> Answer:
    detail = "With AUTH=none only the names and addresses of this machine are served, and the hosts in CORS_ORIGINS."
    return problem(421, detail)


def _refused(error: LocalGatewayException, headers: Mapping[str, str]) -> Answer:
    """Asks the authenticator for the reason, since the authorizer only returns a denial."""
    authorization = headers.get("authorization")
    try:
        container().authenticator.identify([] if authorization is None else [authorization])
    except (UnauthenticatedError, UnavailableError, SettingError) as reason:
        answer = problem_of(reason).to_dict()
        return answer["statusCode"], _response_headers(answer), _response_body(answer)
    return problem(error.CODE, "The authorizer denied this request")


def status_line(status: int) -> str:
    return f"{status} {_phrase(status)}"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
