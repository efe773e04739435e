"""`python -m bench.bare_http TASKS`: the HTTP server of an API process, and behind it just the calls of a submit."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

from bench.bare import for_user, record
from local.api_process import Server, sockets
from local.gateway import Environ, StartResponse

#: What an answer has for each task.
ANSWER_BYTES = 160


def main() -> None:
    tasks = int(sys.argv[1])
    recording = record(tasks)
    answer = b" " * (ANSWER_BYTES * tasks)

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET":  # asks for its health
            start_response("200 OK", [])
            return [b""]
        user_id = json.loads(environ["wsgi.input"].read())["user_id"]
        for_user(recording, user_id).replay()
        start_response("202 Accepted", [("Content-Type", "application/json")])
        return [answer]

    Server(application, sockets()).serve()


if __name__ == "__main__":
    main()
