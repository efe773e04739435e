"""Runs requests on threads, and refuses those that wait too long for one."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

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
    """Waitress's dispatcher: threads that grow with the number of concurrent requests.

    The thread that became idle last serves the next request, with a warm CPU cache. Waitress's own dispatcher rotates
    through all its threads.
    """

    def __init__(self, wait_seconds: float = WAIT_SECONDS, now: Callable[[], float] = time.monotonic) -> None:
        """wait_seconds: how long a request may wait for a thread."""
        self._wait_seconds = wait_seconds
        self._now = now
        self._lock = threading.Lock()
        #: what gives each idle thread its next request, None for its end; the last of them became idle last
        self._idle: list[SimpleQueue[HTTPChannel | None]] = []
        self._started = 0
        #: requests that wait for a thread, and since when
        self._waiting: deque[tuple[float, HTTPChannel]] = deque()
        #: since when each busy thread serves its request
        self._busy: dict[int, float] = {}
        self._stopping = False

    def add_task(self, channel: HTTPChannel) -> None:
        with self._lock:
            if self._idle:
                self._idle.pop().put(channel)
            elif self._started < THREADS:
                threading.Thread(target=self._run, args=[channel], name="request", daemon=True).start()
                self._started += 1
            else:
                self._waiting.append((self._now(), channel))

    def refuse_overdue(self) -> None:
        """Answers each request that waited too long with a 503. Only the server's loop may call it."""
        while self._waiting and (channel := self._overdue()):
            refuse(channel, "All threads are busy, since AWS answers slowly or too many requests came at once")

    def are_stuck(self) -> bool:
        """Returns True if every thread has been busy with one request for far longer than a request may take."""
        began = list(self._busy.values())
        return len(began) == THREADS and self._now() - max(began) > STUCK_SECONDS

    def shutdown(self) -> None:
        """Drops the requests that wait; the running ones finish while the process lives."""
        with self._lock:
            self._stopping = True
            self._waiting.clear()
            while self._idle:
                self._idle.pop().put(None)

    def _overdue(self) -> HTTPChannel | None:
        with self._lock:
            if self._waiting and self._now() - self._waiting[0][0] >= self._wait_seconds:
                return self._waiting.popleft()[1]
        return None

    def _run(self, first: HTTPChannel) -> None:
        requests: SimpleQueue[HTTPChannel | None] = SimpleQueue()
        channel: HTTPChannel | None = first
        while channel is not None:
            try:
                self._serve(channel)
            except BaseException:  # a SystemExit would end the thread for good
                log.exception("a request failed without an answer")
            channel = self._next(requests)

    def _next(self, requests: SimpleQueue[HTTPChannel | None]) -> HTTPChannel | None:
        """The next request for the calling thread; None when the thread has to end."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()[1]
            if self._stopping:
                return None
            self._idle.append(requests)
        return requests.get()

    def _serve(self, channel: HTTPChannel) -> None:
        thread = threading.get_ident()
        self._busy[thread] = self._now()
        try:
            channel.service()
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
    except BaseException:  # a SystemExit would end the server's loop
        log.exception("a request failed without an answer")


def refuse(channel: HTTPChannel, reason: str) -> None:
    channel.requests[0].error = BusyError(reason)
    serve(channel)
