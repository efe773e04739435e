"""HTTP clients that use little CPU: threads that keep their connections and send prepared requests.

On a machine with two cores the clients' CPU delays the measured system: with http.client an answer takes 0.4 ms longer
than with the parser of httptools.
"""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from httptools import HttpResponseParser

#: Method, path and body.
Request = tuple[str, str, bytes]


def submit(user_id: str, tasks: int = 1) -> Request:
    """A submit, by the bulk route if it has several tasks."""
    if tasks == 1:
        return "POST", "/api/v1/task", json.dumps({"user_id": user_id, "payload": {"n": 1}}).encode()
    orders = [{"payload": {"n": n}} for n in range(tasks)]
    return "POST", "/api/v1/tasks", json.dumps({"user_id": user_id, "tasks": orders}).encode()


def pause(user_id: str, milliseconds: int) -> Request:
    """A request that pauses the user's lane for that long."""
    until = time.time_ns() // 1_000_000 + milliseconds
    return "POST", f"/api/v1/users/{user_id}/pause", json.dumps({"until": until}).encode()


@dataclass(frozen=True)
class Sent:
    """Answers of a series of requests; times in seconds."""

    #: from the first request to the last answer
    seconds: float
    #: of each accepted request
    latencies: list[float]
    #: answers 503
    refused: int


def send_all(port: int, requests: Sequence[Request], clients: int) -> Sent:
    """Sends all requests, each client one at a time. RuntimeError for an answer other than 200, 202, 429 and 503."""
    turn = itertools.count()

    def client(_number: int) -> list[float | None]:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            latencies: list[float | None] = []
            while (n := next(turn)) < len(requests):
                begun = time.perf_counter()
                status, answer = _ask(connection, *requests[n])
                if status not in (200, 202, 429, 503):
                    raise RuntimeError(f"{status}: {answer[:300]!r}")
                latencies.append(None if status == 503 else time.perf_counter() - begun)
            return latencies

    with ThreadPoolExecutor(clients) as pool:
        begun = time.perf_counter()
        each = [latency for latencies in pool.map(client, range(clients)) for latency in latencies]
        seconds = time.perf_counter() - begun
    accepted = [latency for latency in each if latency is not None]
    return Sent(seconds, accepted, len(each) - len(accepted))


def _ask(connection: socket.socket, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Returns status and body of the answer. ConnectionError if it is incomplete."""
    fields = f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    connection.sendall(f"{method} {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body)
    answer = _Answer()
    parser = HttpResponseParser(answer)
    while not answer.is_complete:
        if not (data := connection.recv(65_536)):
            raise ConnectionError("closed before the answer was complete")
        parser.feed_data(data)
    return parser.get_status_code(), bytes(answer.body)


class _Answer:
    """Collects an answer; httptools calls its methods."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.is_complete = False

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.is_complete = True
