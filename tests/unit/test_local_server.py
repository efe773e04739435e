"""Refusals of the HTTP server itself, over a real socket."""

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from email.message import Message
from http.client import HTTPResponse
from typing import Any, NamedTuple

import pytest
from waitress.wasyncore import close_all

from local.api_process import Server
from local.gateway import MAX_BODY_BYTES


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    if environ["PATH_INFO"] == "/breaks":
        raise RuntimeError("boom")
    if environ["PATH_INFO"] == "/parts":
        start_response("200 OK", [])
        return [b"O", b"K"]
    start_response("200 OK", [("Content-Length", "2")])
    return [b"OK"]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


@pytest.fixture
def server(listener: socket.socket) -> Iterator[Server]:
    """Its handlers of signals go again, and what it opened is closed, which a process that ends need not do."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    server = Server(application, listener)
    yield server
    close_all(server._map)
    for number, handler in before.items():
        signal.signal(number, handler)


def answer(server: Server, listener: socket.socket, request: bytes) -> tuple[int, str | None, bytes]:
    """Status, content type and body of the answer to this request."""
    response = full_answer(server, listener, request)
    return response.status, response.headers["Content-Type"], response.body


class Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


def full_answer(server: Server, listener: socket.socket, request: bytes) -> Answer:
    """Serves until this one request is answered."""
    answers: list[Answer] = []

    def ask() -> None:
        try:
            with socket.create_connection(listener.getsockname(), timeout=10) as connection:
                connection.sendall(request)
                response = HTTPResponse(connection)
                response.begin()
                answers.append(Answer(response.status, response.headers, response.read()))
        finally:
            server.stop()

    client = threading.Thread(target=ask)
    client.start()
    server.serve()
    client.join()
    return answers[0]


def test_what_is_sent_reaches_the_application(server: Server, listener: socket.socket) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert answer(server, listener, request)[0::2] == (200, b"OK")


def test_answer_of_several_parts_arrives_whole(server: Server, listener: socket.socket) -> None:
    assert answer(server, listener, b"GET /parts HTTP/1.1\r\nHost: a\r\n\r\n")[0::2] == (200, b"OK")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"POST /task HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 413),
        (b"POST /task HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ".ljust(262_144, b"x"), 431),
        (b"GET /breaks HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 500),
    ],
    ids=["too large", "no length", "too much before the body", "the application fails"],
)
def test_what_the_server_itself_refuses_is_a_problem(
    server: Server, listener: socket.socket, sent: bytes, expected: int
) -> None:
    status, content_type, body = answer(server, listener, sent)
    assert (status, content_type) == (expected, "application/problem+json")
    problem = json.loads(body)
    assert problem["status"] == expected
    assert problem["title"]
    assert problem["detail"]


@pytest.mark.parametrize("allowed", ["", "https://app.example.com", "*"])
def test_what_the_server_itself_refuses_has_the_headers_of_every_answer(
    server: Server, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", allowed)
    head = "POST /task HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example.com\r\n"
    sent = f"{head}Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode()
    headers = full_answer(server, listener, sent).headers
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert headers["Access-Control-Allow-Origin"] == (allowed or None)
