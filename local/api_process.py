"""One API process: serves the Chalice app on the listening socket that supervisord gives it as file descriptor 0.

Beside it a private unix socket, so that this very process can be asked for its health.
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

from local.gateway import MAX_BODY_BYTES, Environ, Gateway, StartResponse, problem, status_line
from local.health import api_socket
from local.parent import end_with_parent

Application = Callable[[Environ, StartResponse], Iterable[bytes]]

log = logging.getLogger("server")

_THREADS = 32
#: For requests that are under way when the process is told to stop.
_DRAIN_SECONDS = 30.0


def main() -> None:
    end_with_parent()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    listeners = sockets()
    # The app can fail to load: after the log is set up.
    from app import app  # noqa: PLC0415
    from local.parts import warm_up  # noqa: PLC0415

    warm_up()
    Server(Gateway(app), listeners).serve()


def sockets() -> list[socket.socket]:
    """The one that is shared, and this process's own."""
    path = api_socket(Path(os.environ["RUN_DIR"]), os.environ["PROCESS_NAME"])
    path.unlink(missing_ok=True)
    private = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    private.bind(str(path))
    return [socket.socket(fileno=os.dup(0)), private]


class ProblemTask(ErrorTask):  # type: ignore[misc]
    """Says what Waitress refuses before the app sees it, such as a body that is too large, as all else is said."""

    def execute(self) -> None:
        status, headers, body = problem(self.request.error.code, self.request.error.body)
        self.status = status_line(status)
        self.response_headers.extend(headers)
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class AppTask(WSGITask):  # type: ignore[misc]
    """Sends head and body at once: two packets would wake the client twice."""

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
        log.exception("a request was not answered")


class Dispatcher:
    """Waitress's tasks on a pool that grows with what comes at a time.

    Waitress's own has all its threads take turns, so each request finds another one's memory out of the CPU's cache.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="request")

    def add_task(self, channel: HTTPChannel) -> None:
        self._pool.submit(_serve, channel)

    def shutdown(self) -> None:
        """The process ends once the requests under way have."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Server:
    """Waitress on several sockets with one pool of threads; SIGTERM lets requests under way finish."""

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
            # Only from our map: the socket itself is shared with the other API process.
            server.accepting = False
            server.del_channel()
        self._drain()

    def _listen(self, application: Application, listener: socket.socket) -> Any:
        # Waitress takes TCP and unix sockets only in separate servers; they share the loop and the threads.
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
        """Have `serve` return once the requests under way are answered; from any thread, and as a signal's handler."""
        self._stopping = True
        self._servers[0].pull_trigger()

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        # A connection that has just been accepted gets the time to send what it came for.
        settled_at = time.monotonic() + 0.1
        while time.monotonic() < settled_at or (self._is_busy() and time.monotonic() < deadline):
            loop(timeout=0.05, map=self._map, use_poll=True, count=1)
        self._dispatcher.shutdown()

    def _is_busy(self) -> bool:
        channels = [channel for server in self._servers for channel in server.active_channels.values()]
        return any(channel.requests or channel.total_outbufs_len for channel in channels)


if __name__ == "__main__":
    main()
