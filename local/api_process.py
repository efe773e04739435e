"""One API process: serves the Chalice app on the listening socket that supervisord passes as file descriptor 0.

It also listens on a private unix socket, by which this process's own health is checked.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask, WSGITask
from waitress.wasyncore import loop

from local.gateway import MAX_BODY_BYTES, Environ, Gateway, StartResponse, completed, problem, status_line
from local.health import api_socket
from local.parent import end_with_parent

Application = Callable[[Environ, StartResponse], Iterable[bytes]]

log = logging.getLogger("server")

_THREADS = 32
#: Seconds that running requests get to finish when the process stops.
_DRAIN_SECONDS = 30.0


def main() -> None:
    end_with_parent()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    listeners = sockets()
    # Import after logging is configured, since loading the app can fail.
    from app import app  # noqa: PLC0415
    from local.parts import warm_up  # noqa: PLC0415

    warm_up()
    Server(Gateway(app), listeners).serve()


def sockets() -> list[socket.socket]:
    """Returns the shared listening socket and this process's private one."""
    path = api_socket(Path(os.environ["RUN_DIR"]), os.environ["PROCESS_NAME"])
    path.unlink(missing_ok=True)
    private = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    private.bind(str(path))
    return [socket.socket(fileno=os.dup(0)), private]


class ProblemTask(ErrorTask):  # type: ignore[misc]
    """Answers in the app's error format what Waitress rejects by itself, such as a body that is too large."""

    def execute(self) -> None:
        status, headers, body = problem(self.request.error.code, self.request.error.body)
        self.status = status_line(status)
        self.response_headers.extend(completed(headers, self.request.headers.get("ORIGIN")))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class AppTask(WSGITask):  # type: ignore[misc]
    """Sends head and body together: two packets would wake the client twice."""

    wrote_header = False

    def write(self, data: bytes) -> None:
        if self.wrote_header or not self.has_body or self.content_length != len(data):
            super().write(data)
            return
        head = self.build_response_header()
        self.wrote_header = True
        self.channel.write_soon(head + data)
        self.content_bytes_written += len(data)


class Channel(HTTPChannel):  # type: ignore[misc]
    error_task_class = ProblemTask
    task_class = AppTask


def _serve(channel: HTTPChannel) -> None:
    try:
        channel.service()
    except BaseException:  # a SystemExit would end a thread of the pool for good
        log.exception("a request failed without an answer")


class Dispatcher:
    """Runs Waitress's tasks on a thread pool that grows with the number of concurrent requests.

    Waitress's own dispatcher rotates through all its threads, so each request runs with a cold CPU cache.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="request")

    def add_task(self, channel: HTTPChannel) -> None:
        self._pool.submit(_serve, channel)

    def shutdown(self) -> None:
        """Does nothing: the process exits once its running requests finish."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Server:
    """Waitress on several sockets with one thread pool; after SIGTERM, running requests finish."""

    def __init__(self, application: Application, sockets: list[socket.socket]) -> None:
        self._map: dict[int, Any] = {}
        self._dispatcher = Dispatcher()
        self._servers = [self._listen(application, listener) for listener in sockets]
        self._stopping = False
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)

    def serve(self) -> None:
        while not self._stopping:
            loop(timeout=1.0, map=self._map, use_poll=True, count=1)
        for server in self._servers:
            # Only remove it from our map: the other API process shares the socket.
            server.accepting = False
            server.del_channel()
        self._drain()

    def _listen(self, application: Application, listener: socket.socket) -> Any:
        # Waitress needs separate servers for TCP and unix sockets; they share the loop and the threads.
        server = create_server(
            application,
            map=self._map,
            _dispatcher=self._dispatcher,
            sockets=[listener],
            ident="Paceline",
            connection_limit=1000,
            backlog=1024,
            max_request_body_size=MAX_BODY_BYTES,
            asyncore_use_poll=True,
        )
        server.channel_class = Channel
        return server

    def stop(self, *_signal: object) -> None:
        """Makes `serve` return once running requests are answered. Any thread or signal handler may call it."""
        self._stopping = True
        self._servers[0].pull_trigger()

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        # Give a connection that was just accepted time to send its request.
        settled_at = time.monotonic() + 0.1
        while time.monotonic() < settled_at or (self._is_busy() and time.monotonic() < deadline):
            loop(timeout=0.05, map=self._map, use_poll=True, count=1)
        self._dispatcher.shutdown()

    def _is_busy(self) -> bool:
        channels = [channel for server in self._servers for channel in server.active_channels.values()]
        return any(channel.requests or channel.total_outbufs_len for channel in channels)


if __name__ == "__main__":
    main()
