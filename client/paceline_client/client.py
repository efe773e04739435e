"""The synchronous client."""

from __future__ import annotations

import random as chance
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol
from uuid import uuid4

import httpx

from paceline_client.exchange import Retries
from paceline_client.rules import Listing, OnProgress, Rules, Ticks, Which
from paceline_client.steps import Outcome, Sleep, Step, Times, Value, request_options, run, transport_error
from paceline_client.values import (
    Emptied,
    Health,
    Lane,
    Redriven,
    Schedule,
    SharedLimit,
    State,
    SubmittedTask,
    Task,
    TaskOrder,
)
from paceline_client.version import __version__

Token = str | Callable[[], str] | None

#: Seconds that a call may take, one try, and one connection.
TOTAL_SECONDS = 20.0
TRY_SECONDS = 10.0
CONNECT_SECONDS = 2.0


class Clock(Times, Protocol):
    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def checked_url(base_url: str) -> str:
    """ValueError if it does not begin with http:// or https://."""
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"base_url has to begin with http:// or https://, unlike {base_url!r}")
    return base_url


#: The headers of every request.
HEADERS = {"Accept": "application/json", "User-Agent": f"paceline-client/{__version__}"}


class Paceline:
    """One Paceline deployment. Threads may share it; close it, or use it in a `with` statement.

    base_url: without `/api/v1`; on AWS with the stage, `https://….execute-api.….amazonaws.com/api`.
    token: the bearer token, or a function that returns a fresh one for each try; None for `AUTH=none`.
    total_seconds: how long a request may take, all tries and pauses included. More than 35 outlives an API process
    that died in a submit.
    try_seconds: how long each wait for bytes of an answer may take.
    connect_seconds: how long the server may take to accept a connection.
    fail_fast: a call that has not reached Paceline yet fails at its first connection error. With False, and after an
    answer or a lost one, the call tries again until `total_seconds`.
    transport, clock, random, new_key: replaced by tests.
    """

    def __init__(
        self,
        base_url: str,
        token: Token = None,
        *,
        total_seconds: float = TOTAL_SECONDS,
        try_seconds: float = TRY_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
        fail_fast: bool = True,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = chance.random,
        new_key: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self._http = httpx.Client(base_url=checked_url(base_url), transport=transport, headers=HEADERS)
        self._token = token
        self._connect_seconds = connect_seconds
        self._clock = clock or SystemClock()
        self._rules = Rules(Retries(total_seconds, try_seconds, fail_fast), self._clock, random, new_key)

    def __enter__(self) -> Paceline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def submit(
        self,
        user_id: str,
        payload: Any = None,
        task: str = "log",
        *,
        run_at: int | datetime | None = None,
        delay_seconds: float | None = None,
        callback_url: str | None = None,
        units: int | None = None,
        shared: str | None = None,
        idempotency_key: str | None = None,
        strict: bool = False,
    ) -> SubmittedTask:
        """Submits one task; over the limit it is `queued` and waits.

        run_at, delay_seconds: when it joins its lane, as in TaskOrder; until then it `is_scheduled`.
        callback_url: gets a signed POST when the task has ended.
        units: what it counts for in limits of units; None for what its definition says.
        shared: the shared limit that it counts against; None for what its definition says.
        idempotency_key: the same submit with the same key is the same task, for days. None makes a new one.
        strict: over the limit queue nothing, and raise Refused. Refused is raised without it, too, where the
        deployment wants it so or the lane's backlog would take too long.
        """
        order = TaskOrder(payload, task, run_at, delay_seconds, callback_url, units, shared)
        return run(self._rules.submit(user_id, order, idempotency_key, strict), self._perform)

    def submit_many(
        self,
        user_id: str,
        tasks: Iterable[TaskOrder],
        *,
        idempotency_key: str | None = None,
        strict: bool = False,
        progress: OnProgress | None = None,
    ) -> list[SubmittedTask]:
        """Submits tasks in order, a hundred at a time, and returns them. Each hundred is taken whole or not.

        When a later hundred fails, the ones before it stay: the error's `accepted` has them, and the same
        call with the error's `idempotency_key` goes on behind them. A key is for the same tasks in the same order.

        progress: called after each hundred with how many were taken, and how many there are.
        """
        return run(self._rules.submit_many(user_id, tasks, idempotency_key, strict, progress), self._perform)

    def task(self, user_id: str, task_id: str) -> Task:
        """Returns the task's current state. NotFoundError if this user has no task with that id."""
        return run(self._rules.task(user_id, task_id), self._perform)

    def tasks(self, user_id: str, *, state: State | None = None, page_size: int = 100) -> Iterator[Task]:
        """The user's tasks, newest first; pages are fetched as they are needed."""
        return self._pages(self._rules.tasks(user_id, state, page_size))

    def task_names(self) -> list[str]:
        """Returns the names of the tasks that can be submitted."""
        return run(self._rules.task_names(), self._perform)

    def failed(self, *, page_size: int = 100) -> Iterator[Task]:
        """Yields the failed tasks of all users, the newest failure first, page by page. Needs an admin."""
        return self._pages(self._rules.failed(page_size))

    def lanes(self, search: str = "", *, page_size: int = 100) -> Iterator[Lane]:
        """Yields the lanes of the users whose ids begin with `search`, by id, page by page. Needs an admin."""
        return self._pages(self._rules.lanes(search, page_size))

    def redrive(self, user_id: str, task_id: str, *, strict: bool = False) -> SubmittedTask:
        """Submits a failed task again, at the end of its lane. A repeat returns the same new task.

        ConflictError if it has not failed. strict: as for `submit`.
        """
        return run(self._rules.redrive(user_id, task_id, strict), self._perform)

    def redrive_many(
        self, *, user_id: str | None = None, since: int | datetime | None = None, strict: bool = False
    ) -> Iterator[Redriven]:
        """Submits failed tasks again: those of a user, or those of all users that failed since a time.

        Each is submitted once, however often this is repeated. It goes on as the result is read, page by page.
        since: epoch milliseconds, or a datetime with a time zone; needed without a user.
        """
        before: str | None = None
        while True:
            page, before = run(self._rules.redrive_page(user_id, since, strict, before), self._perform)
            yield from page
            if before is None:
                return

    def empty(self, user_id: str) -> Emptied:
        """Cancels all waiting and scheduled tasks of a user; running ones go on. Returns how many it cancelled."""
        return run(self._rules.empty(user_id), self._perform)

    def forget(self, user_id: str) -> int:
        """Deletes a user's finished tasks, payloads, schedules and own limits; returns how many tasks were deleted.

        ConflictError while it has tasks that wait, are scheduled or run. Its seqs and starts stay for its longest
        window and 14 days. Needs an admin.
        """
        return run(self._rules.forget(user_id), self._perform)

    def wait(self, which: Which, timeout: float | None = None) -> Task:
        """Returns the finished task; its `state` is succeeded, failed or cancelled.

        Sleeps until the task should start, then looks at it at growing intervals.

        which: a submitted task, or a user id and a task id.
        timeout: seconds; None for no end. WaitTimeoutError when they are over.
        """
        return run(self._rules.wait(which, timeout), self._perform)

    def cancel(self, user_id: str, task_id: str) -> Task:
        """Cancels a task; it takes no more start. ConflictError when it has ended.

        A running task is asked to stop: its state is then still `running`, and `wait` returns how it ended.
        """
        return run(self._rules.cancel(user_id, task_id), self._perform)

    def lane(self, user_id: str) -> Lane:
        """Returns the user's lane; an empty one for a user who never submitted."""
        return run(self._rules.lane(user_id), self._perform)

    def set_limits(self, user_id: str, limits: str) -> Lane:
        """Gives the user limits of its own, such as `5/second; 100/minute`, from the next start on. Needs an admin."""
        return run(self._rules.set_limits(user_id, limits), self._perform)

    def clear_limits(self, user_id: str) -> Lane:
        """Gives the user the deployment's limits again. Needs an admin."""
        return run(self._rules.clear_limits(user_id), self._perform)

    def set_group(self, user_id: str, group: str | None) -> Lane:
        """Puts the user into a group, such as a tenant's, that takes turns as one; None for none. Needs an admin."""
        return run(self._rules.set_group(user_id, group), self._perform)

    def pause(self, user_id: str, until: int | datetime | None = None) -> Lane:
        """Pauses the lane until that time, None for no end. Once this returns, no task starts. Needs an admin.

        until: epoch milliseconds, or a datetime with a time zone.
        """
        return run(self._rules.pause(user_id, until), self._perform)

    def resume(self, user_id: str) -> Lane:
        """Ends the lane's pause and throttling, if there is one. Needs an admin."""
        return run(self._rules.resume(user_id), self._perform)

    def schedules(self, user_id: str, *, page_size: int = 100) -> Iterator[Schedule]:
        """Yields the user's schedules, by name, page by page."""
        return self._pages(self._rules.schedules(user_id, page_size))

    def schedule(self, user_id: str, name: str) -> Schedule:
        """Returns the schedule. NotFoundError if this user has none with that name."""
        return run(self._rules.schedule(user_id, name), self._perform)

    def put_schedule(
        self,
        user_id: str,
        name: str,
        payload: Any = None,
        task: str = "log",
        *,
        cron: str | None = None,
        timezone: str | None = None,
        every_seconds: int | None = None,
        paused: bool = False,
        units: int | None = None,
        callback_url: str | None = None,
        shared: str | None = None,
    ) -> Schedule:
        """Submits the task at each tick, from now on and in place of the schedule of this name, if there is one.

        cron: five fields, such as `30 7 * * MON-FRI`, in the time zone (an IANA name; UTC by default).
        every_seconds: the other way; the first tick comes as long after this call.
        paused: no ticks until it is put again without; then none of the missed ones.
        """
        order = TaskOrder(payload, task, callback_url=callback_url, units=units, shared=shared)
        ticks = Ticks(cron, timezone, every_seconds)
        return run(self._rules.put_schedule(user_id, name, order, ticks, paused), self._perform)

    def pause_schedule(self, user_id: str, name: str, paused: bool = True) -> Schedule:
        """Pauses the schedule, or with paused=False resumes it; a resumed one does not catch up on missed ticks."""
        return run(self._rules.pause_schedule(user_id, name, paused), self._perform)

    def delete_schedule(self, user_id: str, name: str) -> Schedule:
        """Deletes the schedule and returns it; tasks that it submitted stay. NotFoundError if there is none."""
        return run(self._rules.delete_schedule(user_id, name), self._perform)

    def shared_limits(self) -> list[SharedLimit]:
        """Returns all shared limits, by name, each with who waits. Needs an admin, as all that follow."""
        return run(self._rules.shared_limits(), self._perform)

    def shared_limit(self, name: str) -> SharedLimit:
        """Returns the shared limit and who waits. NotFoundError if there is none of that name."""
        return run(self._rules.shared_limit(name), self._perform)

    def set_shared_limit(self, name: str, limits: str) -> SharedLimit:
        """Sets limits such as `25/second; 10 at once`, in force from the next start on, whatever SHARED_LIMITS says."""
        return run(self._rules.set_shared_limit(name, limits), self._perform)

    def delete_shared_limit(self, name: str) -> SharedLimit:
        """Takes back what was set: the setting's limits hold again, or none; `waiting` says how many lanes waited."""
        return run(self._rules.delete_shared_limit(name), self._perform)

    def pause_shared_limit(self, name: str, until: int | datetime | None = None) -> SharedLimit:
        """Pauses it until that time, None for no end. Once this returns, no task that counts against it starts."""
        return run(self._rules.pause_shared_limit(name, until), self._perform)

    def resume_shared_limit(self, name: str) -> SharedLimit:
        """Ends its pause and its throttling, if there are any."""
        return run(self._rules.resume_shared_limit(name), self._perform)

    def health(self) -> Health:
        """Returns the state of the services behind the API. Tries once; UnavailableError without an answer."""
        return run(self._rules.health(), self._perform)

    def _pages(self, listing: Listing[Value]) -> Iterator[Value]:
        before: str | None = None
        while True:
            page, before = run(self._rules.page(listing, before), self._perform)
            yield from page
            if before is None:
                return

    def _perform(self, step: Step) -> Outcome:
        if isinstance(step, Sleep):
            self._clock.sleep(step.seconds)
            return None
        token = self._token() if callable(self._token) else self._token
        try:
            return self._http.request(**request_options(step, token, self._connect_seconds))
        except httpx.HTTPError as error:
            return transport_error(error, step.call)
