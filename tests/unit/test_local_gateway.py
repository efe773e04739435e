from __future__ import annotations

import io
import json
from typing import Any

import pytest
from chalice.app import Chalice, Response

from local.gateway import Gateway


def small_app() -> Chalice:
    app = Chalice(app_name="small")

    @app.route("/echo", methods=["POST"], content_types=["*/*"])
    def echo() -> Response:
        status = int(app.current_request.headers.get("x-status", "202"))
        return Response(app.current_request.raw_body.decode(), {"Content-Type": "text/plain"}, status)

    @app.route("/users/{user}", methods=["GET", "DELETE"])
    def user(user: str) -> Any:
        query = app.current_request.query_params
        return {"user": user, "colours": query.getlist("colour") if query else []}

    return app


class Client:
    def __init__(self) -> None:
        self._gateway = Gateway(small_app())

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        environ: dict[str, Any] = {"REQUEST_METHOD": method, "REQUEST_URI": path, "wsgi.input": io.BytesIO(body)}
        environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        if body:
            environ |= {"CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": str(len(body))}
        begun: list[tuple[str, dict[str, str]]] = []
        body = b"".join(self._gateway(environ, lambda status, pairs: begun.append((status, dict(pairs)))))
        return int(begun[0][0].split()[0]), begun[0][1], body


@pytest.fixture
def client() -> Client:
    return Client()


def test_a_request_reaches_its_route_with_parameters(client: Client) -> None:
    status, _, body = client("GET", "/users/eve?colour=red&colour=blue")
    assert (status, json.loads(body)) == (200, {"user": "eve", "colours": ["red", "blue"]})


def test_an_unknown_path_is_a_404_problem(client: Client) -> None:
    status, headers, body = client("GET", "/nothing?here=1")
    assert (status, headers["Content-Type"]) == (404, "application/problem+json")
    assert json.loads(body)["detail"] == "The path /nothing does not exist"


def test_a_wrong_method_is_a_405_problem_that_names_the_right_ones(client: Client) -> None:
    status, headers, body = client("PUT", "/users/eve")
    assert (status, headers["Allow"]) == (405, "DELETE, GET")
    assert json.loads(body)["status"] == 405


def test_head_is_get_without_the_body(client: Client) -> None:
    _, _, whole = client("GET", "/users/eve")
    status, headers, body = client("HEAD", "/users/eve")
    assert (status, headers["Content-Length"], body) == (200, str(len(whole)), b"")


def test_text_comes_through_as_it_was_sent(client: Client) -> None:
    assert client("POST", "/echo", "grün".encode())[2] == "grün".encode()
