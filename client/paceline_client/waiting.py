"""Waits for a task's outcome: sleeps until the task should start, then polls it."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from paceline_client.answers import http_date, read_answer
from paceline_client.calls import Call
from paceline_client.errors import UnavailableError, WaitTimeoutError
from paceline_client.exchange import Exchange
from paceline_client.steps import Sleep, Steps, Times
from paceline_client.values import Task

#: Shortest and longest seconds between two polls of a task that should have started.
FIRST_LOOK_SECONDS = 0.1
LAST_LOOK_SECONDS = 5.0
LOOK_GROWTH = 1.5
#: Longest sleep in seconds: cancellations and changed limits are noticed after it.
MAX_SLEEP_SECONDS = 60.0
#: Seconds that the last request gets, even after the deadline.
SHORTEST_TRY_SECONDS = 1.0
#: Clock differences below this, in seconds, are ignored: the Date header has whole seconds.
CLOCK_DOUBT_SECONDS = 2.0


class Waiting:
    """One wait for one task, until `deadline` by the monotonic clock, None for no end."""

    def __init__(
        self, exchange: Exchange, times: Times, random: Callable[[], float], call: Call, timeout: float | None
    ) -> None:
        self._exchange = exchange
        self._times = times
        self._random = random
        self._call = call
        self._deadline = None if timeout is None else times.monotonic() + timeout
        self._seen: Task | None = None

    def ended(self) -> Steps[Task]:
        """Returns the finished task. WaitTimeoutError after the deadline."""
        look = FIRST_LOOK_SECONDS
        while True:
            task, until_start = yield from self._look()
            if task.has_ended:
                return task
            pause = max(until_start, 0.0) + look * (0.75 + self._random() / 2)
            yield self._sleep(min(pause, MAX_SLEEP_SECONDS))
            if until_start < look:
                look = min(look * LOOK_GROWTH, LAST_LOOK_SECONDS)

    def _look(self) -> Steps[tuple[Task, float]]:
        """Returns the task and the seconds until its estimated start, 0 if unknown."""
        left = self._left()
        try:
            within = None if left is None else max(left, SHORTEST_TRY_SECONDS)
            response = yield from self._exchange.send(self._call, within)
        except UnavailableError as error:
            is_dead = self._seen is None and not error.was_sent
            if left is None or left > self._exchange.retries.total_seconds or is_dead:
                raise
            raise WaitTimeoutError(self._seen, str(error)) from error
        task = self._seen = read_answer(Task, self._exchange.body_of(response))
        if task.estimated_at is None:
            return task, 0.0
        return task, task.estimated_at / 1000 - self._server_now(response)

    def _sleep(self, seconds: float) -> Sleep:
        left = self._left()
        if left is not None and left <= 0:
            raise WaitTimeoutError(self._seen)
        return Sleep(seconds if left is None else min(seconds, left))

    def _left(self) -> float | None:
        return None if self._deadline is None else self._deadline - self._times.monotonic()

    def _server_now(self, response: httpx.Response) -> float:
        """Returns epoch seconds: this machine's clock, or the server's if they differ."""
        here, there = self._times.now(), http_date(response.headers.get("Date", ""))
        return here if there is None or abs(there - here) <= CLOCK_DOUBT_SECONDS else there
