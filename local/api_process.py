"""One API process: serves the Chalice app on the listening socket that supervisord passes as file descriptor 0.

It also listens on a private unix socket, by which this process's own health is checked. The server's loop itself
answers there, so that a check waits neither for a thread nor for room among the connections.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask, WSGITask
from waitress.wasyncore import loop

from chalicelib.api.problems import RETRY_UNAVAILABLE
from local.gateway import MAX_BODY_BYTES, Environ, Gateway, StartResponse, completed, problem, status_line
from local.health import api_socket
from local.parent import end_with_parent
from local.request_threads import WAIT_SECONDS, BusyError, LoopRequests, RequestThreads

Application = Callable[[Environ, StartResponse], Iterable[bytes]]

#: Connections beyond which each new one closes the one that has been idle for longest.
IDLE_CONNECTIONS = 900
#: Connections beyond which no further ones are accepted, since all are active.
_CONNECTIONS = 1000
#: Seconds that running requests get to finish when the process stops.
_DRAIN_SECONDS = 30.0


def main() -> None:
    end_with_parent()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    listener, private = sockets()
    # Import after logging is configured, since loading the app can fail.
    from app import app  # noqa: PLC0415
    from local.parts import warm_up  # noqa: PLC0415

    warm_up()
    Server(Gateway(app), listener, private).serve()


def sockets() -> tuple[socket.socket, socket.socket]:
    """Returns the shared listening socket and this process's private one."""
    path = api_socket(Path(os.environ["RUN_DIR"]), os.environ["PROCESS_NAME"])
    path.unlink(missing_ok=True)
    private = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    private.bind(str(path))
    return socket.socket(fileno=os.dup(0)), private


class ProblemTask(ErrorTask):  # type: ignore[misc]
    """Answers in the app's error format what Waitress rejects by itself, such as a body that is too large."""

    def execute(self) -> None:
        status, headers, body = problem(self.request.error.code, self.request.error.body)
        if isinstance(self.request.error, BusyError):
            headers.append(("Retry-After", str(RETRY_UNAVAILABLE)))
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

    def __init__(self, server: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(server, *arguments, **options)
        if len(server.active_channels) > IDLE_CONNECTIONS:
            idle = [channel for channel in server.active_channels.values() if channel.is_idle and channel is not self]
            if idle:
                min(idle, key=lambda channel: channel.last_activity).will_close = True

    def writable(self) -> bool:
        """Leaves an answer to its request's thread; else the loop would poll without a pause until it is sent.

        The loop sends what is left after the request, and meanwhile if the thread waits for that.
        """
        is_left_to_thread = self.requests and self.total_outbufs_len <= self.adj.outbuf_high_watermark
        return not is_left_to_thread and bool(super().writable())

    @property
    def is_idle(self) -> bool:
        return not (self.requests or self.total_outbufs_len or self.will_close)


class Server:
    """Waitress on a listener and a private one for health checks; after SIGTERM, running requests finish."""

    def __init__(
        self,
        application: Application,
        listener: socket.socket,
        private: socket.socket | None = None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """wait_seconds: how long a request may wait for a thread."""
        self._map: dict[int, Any] = {}
        self._threads = RequestThreads(wait_seconds)
        self._loop_requests = LoopRequests()
        self._servers = [self._listen(application, listener, self._threads, _CONNECTIONS)]
        if private:
            # The limit counts all connections.
            self._servers.append(self._listen(self._health, private, self._loop_requests, 2 * _CONNECTIONS))
        self._stopping = False
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)

    def serve(self) -> None:
        while not self._stopping:
            self._turn(1.0)
        for server in self._servers:
            # Only remove it from our map: the other API process shares the socket.
            server.accepting = False
            server.del_channel()
        self._drain()

    def _turn(self, timeout_seconds: float) -> None:
        loop(timeout=timeout_seconds, map=self._map, use_poll=True, count=1)
        self._loop_requests.serve()
        self._threads.refuse_overdue()

    def _health(self, _environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = b"all threads are stuck" if self._threads.are_stuck() else b"OK"
        start_response(status_line(200 if body == b"OK" else 503), [("Content-Length", str(len(body)))])
        return [body]

    def _listen(self, application: Application, listener: socket.socket, dispatcher: Any, connections: int) -> Any:
        # Waitress needs separate servers for TCP and unix sockets; they share the loop.
        server = create_server(
            application,
            map=self._map,
            _dispatcher=dispatcher,
            sockets=[listener],
            ident="Paceline",
            connection_limit=connections,
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
            self._turn(0.05)
        self._threads.shutdown()

    def _is_busy(self) -> bool:
        channels = [channel for server in self._servers for channel in server.active_channels.values()]
        return any(channel.requests or channel.total_outbufs_len for channel in channels)


if __name__ == "__main__":
    main()
