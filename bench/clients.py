"""HTTP clients that take little CPU themselves: threads that keep their connections and send what was made before."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

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
        connection, seconds = HTTPConnection("127.0.0.1", port, timeout=60), []
        while (n := next(turn)) < len(requests):
            path, body = requests[n]
            begun = time.perf_counter()
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            seconds.append(time.perf_counter() - begun)
            if response.status not in (202, 429):
                raise RuntimeError(f"{response.status}: {answer[:300]!r}")
        connection.close()
        return seconds

    with ThreadPoolExecutor(clients) as pool:
        begun = time.perf_counter()
        each = list(pool.map(client, range(clients)))
        return time.perf_counter() - begun, [one for some in each for one in some]
