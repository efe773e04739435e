"""HTTP clients that take little CPU themselves: threads that keep their connections and send what was made before.

What a client takes is no part of what is measured, but on a machine with two cores it is taken from it: http.client
alone makes an answer some 0.4 ms later than the parser of httptools.
"""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from httptools import HttpResponseParser

Request = tuple[str, bytes]


def submit(user_id: str, tasks: int = 1) -> Request:
    """Path and body of a submit: of one task, or of many by the bulk route."""
    if tasks == 1:
        return "/api/v1/task", json.dumps({"user_id": user_id, "payload": {"n": 1}}).encode()
    orders = [{"payload": {"n": n}} for n in range(tasks)]
    return "/api/v1/tasks", json.dumps({"user_id": user_id, "tasks": orders}).encode()


def send_all(port: int, requests: Sequence[Request], clients: int) -> tuple[float, list[float]]:
    """Sends them all, by so many clients at a time. The seconds for all, and each one's, which were all accepted."""
    turn = itertools.count()

    def client(_number: int) -> list[float]:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            seconds = []
            while (n := next(turn)) < len(requests):
                begun = time.perf_counter()
                status, answer = _post(connection, *requests[n])
                seconds.append(time.perf_counter() - begun)
                if status not in (202, 429):
                    raise RuntimeError(f"{status}: {answer[:300]!r}")
            return seconds

    with ThreadPoolExecutor(clients) as pool:
        begun = time.perf_counter()
        each = list(pool.map(client, range(clients)))
        return time.perf_counter() - begun, [one for some in each for one in some]


def _post(connection: socket.socket, path: str, body: bytes) -> tuple[int, bytes]:
    """The answer's status and body."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
    answer = _Answer()
    parser = HttpResponseParser(answer)
    while not answer.is_complete:
        if not (data := connection.recv(65_536)):
            raise ConnectionError("closed before the answer was complete")
        parser.feed_data(data)
    return parser.get_status_code(), bytes(answer.body)


class _Answer:
    """What httptools finds in an answer, by the names that it calls."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.is_complete = False

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.is_complete = True
