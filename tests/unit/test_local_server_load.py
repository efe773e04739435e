"""The HTTP server while AWS does not answer, and with more connections than it keeps, over real sockets."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from waitress.wasyncore import close_all

from local import api_process
from local.api_process import Server
from local.health import api_socket, is_healthy
from local.request_threads import STUCK_SECONDS, THREADS, RequestThreads
from tests.answer import Answer

NAME = "api-1"
WAIT_SECONDS = 10


class App:
    """Answers /slow once `go` is set, /large with more than a connection's buffers take; other paths at once."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            self.go.wait(60)
        parts = [bytes(4_000_000)] * 4 if environ["PATH_INFO"] == "/large" else [b"OK"]
        start_response("200 OK", [("Content-Length", str(sum(map(len, parts))))])
        return parts


class System:
    """A server in a thread of its own, and its clients."""

    def __init__(self, run_dir: Path) -> None:
        self.app = App()
        self.run_dir = run_dir
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.private = socket.socket(socket.AF_UNIX)
        self.private.bind(str(api_socket(run_dir, NAME)))
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self.server = Server(self.app, self.listener, self.private, wait_seconds=0.5)
        for number, handler in before.items():
            signal.signal(number, handler)
        self.thread = threading.Thread(target=self.server.serve)
        self.thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.listener.getsockname(), timeout=WAIT_SECONDS)

    def ask(self, path: str) -> Answer:
        with closing(HTTPConnection(*self.listener.getsockname(), timeout=60)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read().decode())

    def close(self) -> None:
        self.app.go.set()
        self.server.stop()
        self.thread.join(60)
        close_all(self.server._map)
        self.listener.close()
        self.private.close()


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path)
    yield system
    system.close()


def test_every_client_is_answered_and_the_process_is_healthy_while_all_threads_wait(system: System) -> None:
    answers: list[Answer] = []
    clients = [threading.Thread(target=lambda: answers.append(system.ask("/slow"))) for _ in range(3 * THREADS)]
    for client in clients:
        client.start()
    wait_until(lambda: len(answers) == 2 * THREADS)
    assert is_healthy(system.run_dir, NAME)
    refused = answers[0]
    assert {answer.status for answer in answers} == {503}
    assert refused.headers["Retry-After"]
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.body["detail"].startswith("All threads are busy")
    system.app.go.set()
    for client in clients:
        client.join()
    assert [answer.status for answer in answers].count(200) == THREADS
    assert system.ask("/fast").status == 200


def test_new_connections_close_the_oldest_idle_ones_and_leave_active_ones(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_process, "IDLE_CONNECTIONS", 10)
    active = system.connect()
    active.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    idle = [system.connect() for _ in range(30)]
    assert is_healthy(system.run_dir, NAME)
    assert system.ask("/fast").status == 200
    assert idle[0].recv(1) == b""
    assert idle[15].recv(1) == b""
    system.app.go.set()
    assert active.recv(100).startswith(b"HTTP/1.1 200 OK")
    idle[-1].sendall(b"GET /fast HTTP/1.1\r\nHost: a\r\n\r\n")
    assert idle[-1].recv(100).startswith(b"HTTP/1.1 200 OK")
    for connection in [active, *idle]:
        connection.close()


def test_a_check_is_answered_when_all_connections_are_active(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    public, _ = system.server._servers
    monkeypatch.setattr(public.adj, "connection_limit", 0)
    assert is_healthy(system.run_dir, NAME)


def test_the_loop_sleeps_while_a_thread_sends_its_answer(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    sending, go, turns = threading.Event(), threading.Event(), list[float]()
    send, turn = api_process.Channel.send, system.server._turn

    def send_the_first_late(channel: Any, data: bytes, do_close: bool = True) -> Any:
        if not sending.is_set():
            sending.set()
            go.wait(60)
        return send(channel, data, do_close)

    monkeypatch.setattr(api_process.Channel, "send", send_the_first_late)
    monkeypatch.setattr(system.server, "_turn", lambda seconds: (turns.append(seconds), turn(seconds)))
    with closing(system.connect()) as late:
        late.sendall(b"GET /fast HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sending.wait(WAIT_SECONDS)
        turns.clear()
        for _ in range(50):  # each wakes the loop
            assert system.ask("/fast").status == 200
        assert len(turns) < 50 * 10
        go.set()
        assert late.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_answer_larger_than_all_buffers_arrives_whole(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    public, _ = system.server._servers
    monkeypatch.setattr(public.adj, "outbuf_high_watermark", 100_000)
    with closing(HTTPConnection(*system.listener.getsockname(), timeout=60)) as connection:
        connection.request("GET", "/large")
        wait_until(lambda: any(one.total_outbufs_len > 100_000 for one in public.active_channels.values()))
        assert len(connection.getresponse().read()) == 16_000_000


class Stuck:
    """A channel whose request does not end before `go` is set."""

    def __init__(self) -> None:
        self.began, self.go = threading.Semaphore(0), threading.Event()

    def service(self) -> None:
        self.thread = threading.get_ident()
        self.began.release()
        self.go.wait(60)


def test_threads_are_stuck_once_all_are_busy_for_longer_than_a_request_may_take() -> None:
    now, channel = 0.0, Stuck()
    threads = RequestThreads(now=lambda: now)
    for _ in range(THREADS):
        threads.add_task(channel)
    for _ in range(THREADS):
        assert channel.began.acquire(timeout=WAIT_SECONDS)
    assert not threads.are_stuck()
    now = STUCK_SECONDS + 1
    assert threads.are_stuck()
    channel.go.set()
    wait_until(lambda: not threads.are_stuck())
    threads.shutdown()


def test_the_thread_that_became_idle_last_serves_the_next_request() -> None:
    threads, first, second, next_one = RequestThreads(), Stuck(), Stuck(), Stuck()
    for channel in (first, second):
        threads.add_task(channel)
        assert channel.began.acquire(timeout=WAIT_SECONDS)
    for idle, channel in enumerate((second, first), 1):
        channel.go.set()
        wait_until(lambda idle=idle: len(threads._idle) == idle)
    threads.add_task(next_one)
    assert next_one.began.acquire(timeout=WAIT_SECONDS)
    assert next_one.thread == first.thread
    next_one.go.set()
    threads.shutdown()


def test_a_shutdown_drops_the_requests_that_wait_and_ends_the_threads() -> None:
    threads, channel, waiting = RequestThreads(), Stuck(), Stuck()
    before = set(threading.enumerate())
    for one in (*[channel] * THREADS, waiting):
        threads.add_task(one)
    for _ in range(THREADS):
        assert channel.began.acquire(timeout=WAIT_SECONDS)
    threads.shutdown()
    channel.go.set()
    wait_until(lambda: before.issuperset(threading.enumerate()))
    assert not waiting.began.acquire(blocking=False)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 3 * WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
