"""Runs requests on threads, and refuses those that wait too long for one."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from waitress.channel import HTTPChannel
from waitress.utilities import Error

THREADS = 32
#: Seconds that a request may wait for a thread, since its client also waits for the answer.
WAIT_SECONDS = 10.0
#: Seconds after which a request counts as stuck: twice as long as its calls of AWS may take.
STUCK_SECONDS = 60.0

log = logging.getLogger("server")


class BusyError(Error):  # type: ignore[misc]
    """The error of a request that found no free thread in time."""

    code = 503
    reason = "Service Unavailable"


class RequestThreads:
    """Waitress's dispatcher: a thread pool that grows with the number of concurrent requests.

    Waitress's own dispatcher rotates through all its threads, so each request runs with a cold CPU cache.
    """

    def __init__(self, wait_seconds: float = WAIT_SECONDS, now: Callable[[], float] = time.monotonic) -> None:
        """wait_seconds: how long a request may wait for a thread."""
        self._wait_seconds = wait_seconds
        self._now = now
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="request")
        #: requests that may still wait for a thread: since when, and what runs them
        self._waiting: deque[tuple[float, HTTPChannel, Future[None]]] = deque()
        #: since when each busy thread serves its request
        self._busy: dict[int, float] = {}

    def add_task(self, channel: HTTPChannel) -> None:
        self._waiting.append((self._now(), channel, self._pool.submit(self._serve, channel)))

    def refuse_overdue(self) -> None:
        """Answers each request that waited too long with a 503. Only the server's loop may call it."""
        while self._waiting:
            since, channel, future = self._waiting[0]
            is_waiting = not future.running() and not future.done()
            if is_waiting and self._now() - since < self._wait_seconds:
                return
            self._waiting.popleft()
            if is_waiting and future.cancel():
                refuse(channel, "All threads are busy, since AWS answers slowly or too many requests came at once")

    def are_stuck(self) -> bool:
        """Returns True if every thread has been busy with one request for far longer than a request may take."""
        began = list(self._busy.values())
        return len(began) == THREADS and self._now() - max(began) > STUCK_SECONDS

    def shutdown(self) -> None:
        """Drops the requests that wait; the running ones finish."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _serve(self, channel: HTTPChannel) -> None:
        thread = threading.get_ident()
        self._busy[thread] = self._now()
        try:
            serve(channel)
        finally:
            del self._busy[thread]


class LoopRequests:
    """A dispatcher that serves in the server's loop, for requests that must not wait for a thread."""

    def __init__(self) -> None:
        self._waiting: deque[HTTPChannel] = deque()

    def add_task(self, channel: HTTPChannel) -> None:
        self._waiting.append(channel)  # its caller has the channel locked

    def serve(self) -> None:
        while self._waiting:
            serve(self._waiting.popleft())


def serve(channel: HTTPChannel) -> None:
    try:
        channel.service()
    except BaseException:  # a SystemExit would end a thread of the pool for good
        log.exception("a request failed without an answer")


def refuse(channel: HTTPChannel, reason: str) -> None:
    channel.requests[0].error = BusyError(reason)
    serve(channel)
