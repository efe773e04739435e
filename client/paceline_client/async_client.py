"""The asynchronous client: the same methods, rules and errors as the synchronous one."""

from __future__ import annotations

import asyncio
import random as chance
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol
from uuid import uuid4

import httpx

from paceline_client.client import CONNECT_SECONDS, HEADERS, TOTAL_SECONDS, TRY_SECONDS, checked_url
from paceline_client.exchange import Retries
from paceline_client.rules import Listing, OnProgress, Rules, Ticks, Which
from paceline_client.steps import Outcome, Sleep, Step, Times, Value, request_options, run_async, transport_error
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

AsyncToken = str | Callable[[], str | Awaitable[str]] | None


class AsyncClock(Times, Protocol):
    async def sleep(self, seconds: float) -> None: ...


class SystemAsyncClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class AsyncPaceline:
    """One Paceline deployment, for the coroutines of one asyncio event loop. Use it in an `async with` statement.

    The arguments are those of Paceline. token may be an async function, too.
    """

    def __init__(
        self,
        base_url: str,
        token: AsyncToken = None,
        *,
        total_seconds: float = TOTAL_SECONDS,
        try_seconds: float = TRY_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
        fail_fast: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: AsyncClock | None = None,
        random: Callable[[], float] = chance.random,
        new_key: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self._http = httpx.AsyncClient(base_url=checked_url(base_url), transport=transport, headers=HEADERS)
        self._token = token
        self._connect_seconds = connect_seconds
        self._clock = clock or SystemAsyncClock()
        self._rules = Rules(Retries(total_seconds, try_seconds, fail_fast), self._clock, random, new_key)

    async def __aenter__(self) -> AsyncPaceline:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def submit(
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
        """As Paceline.submit."""
        order = TaskOrder(payload, task, run_at, delay_seconds, callback_url, units, shared)
        return await run_async(self._rules.submit(user_id, order, idempotency_key, strict), self._perform)

    async def submit_many(
        self,
        user_id: str,
        tasks: Iterable[TaskOrder],
        *,
        idempotency_key: str | None = None,
        strict: bool = False,
        progress: OnProgress | None = None,
    ) -> list[SubmittedTask]:
        """As Paceline.submit_many."""
        steps = self._rules.submit_many(user_id, tasks, idempotency_key, strict, progress)
        return await run_async(steps, self._perform)

    async def task(self, user_id: str, task_id: str) -> Task:
        """As Paceline.task."""
        return await run_async(self._rules.task(user_id, task_id), self._perform)

    def tasks(self, user_id: str, *, state: State | None = None, page_size: int = 100) -> AsyncIterator[Task]:
        """As Paceline.tasks, for `async for`."""
        return self._pages(self._rules.tasks(user_id, state, page_size))

    def failed(self, *, page_size: int = 100) -> AsyncIterator[Task]:
        """As Paceline.failed, for `async for`."""
        return self._pages(self._rules.failed(page_size))

    def lanes(self, search: str = "", *, page_size: int = 100) -> AsyncIterator[Lane]:
        """As Paceline.lanes, for `async for`."""
        return self._pages(self._rules.lanes(search, page_size))

    async def redrive(self, user_id: str, task_id: str, *, strict: bool = False) -> SubmittedTask:
        """As Paceline.redrive."""
        return await run_async(self._rules.redrive(user_id, task_id, strict), self._perform)

    async def redrive_many(
        self, *, user_id: str | None = None, since: int | datetime | None = None, strict: bool = False
    ) -> AsyncIterator[Redriven]:
        """As Paceline.redrive_many, for `async for`."""
        before: str | None = None
        while True:
            page, before = await run_async(self._rules.redrive_page(user_id, since, strict, before), self._perform)
            for one in page:
                yield one
            if before is None:
                return

    async def empty(self, user_id: str) -> Emptied:
        """As Paceline.empty."""
        return await run_async(self._rules.empty(user_id), self._perform)

    async def forget(self, user_id: str) -> int:
        """As Paceline.forget."""
        return await run_async(self._rules.forget(user_id), self._perform)

    async def wait(self, which: Which, timeout: float | None = None) -> Task:
        """As Paceline.wait."""
        return await run_async(self._rules.wait(which, timeout), self._perform)

    async def cancel(self, user_id: str, task_id: str) -> Task:
        """As Paceline.cancel."""
        return await run_async(self._rules.cancel(user_id, task_id), self._perform)

    async def lane(self, user_id: str) -> Lane:
        """As Paceline.lane."""
        return await run_async(self._rules.lane(user_id), self._perform)

    async def set_limits(self, user_id: str, limits: str) -> Lane:
        """As Paceline.set_limits."""
        return await run_async(self._rules.set_limits(user_id, limits), self._perform)

    async def clear_limits(self, user_id: str) -> Lane:
        """As Paceline.clear_limits."""
        return await run_async(self._rules.clear_limits(user_id), self._perform)

    async def set_group(self, user_id: str, group: str | None) -> Lane:
        """As Paceline.set_group."""
        return await run_async(self._rules.set_group(user_id, group), self._perform)

    async def pause(self, user_id: str, until: int | datetime | None = None) -> Lane:
        """As Paceline.pause."""
        return await run_async(self._rules.pause(user_id, until), self._perform)

    async def resume(self, user_id: str) -> Lane:
        """As Paceline.resume."""
        return await run_async(self._rules.resume(user_id), self._perform)

    def schedules(self, user_id: str, *, page_size: int = 100) -> AsyncIterator[Schedule]:
        """As Paceline.schedules, for `async for`."""
        return self._pages(self._rules.schedules(user_id, page_size))

    async def schedule(self, user_id: str, name: str) -> Schedule:
        """As Paceline.schedule."""
        return await run_async(self._rules.schedule(user_id, name), self._perform)

    async def put_schedule(
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
        """As Paceline.put_schedule."""
        order = TaskOrder(payload, task, callback_url=callback_url, units=units, shared=shared)
        ticks = Ticks(cron, timezone, every_seconds)
        return await run_async(self._rules.put_schedule(user_id, name, order, ticks, paused), self._perform)

    async def pause_schedule(self, user_id: str, name: str, paused: bool = True) -> Schedule:
        """As Paceline.pause_schedule."""
        return await run_async(self._rules.pause_schedule(user_id, name, paused), self._perform)

    async def delete_schedule(self, user_id: str, name: str) -> Schedule:
        """As Paceline.delete_schedule."""
        return await run_async(self._rules.delete_schedule(user_id, name), self._perform)

    async def shared_limits(self) -> list[SharedLimit]:
        """As Paceline.shared_limits."""
        return await run_async(self._rules.shared_limits(), self._perform)

    async def shared_limit(self, name: str) -> SharedLimit:
        """As Paceline.shared_limit."""
        return await run_async(self._rules.shared_limit(name), self._perform)

    async def set_shared_limit(self, name: str, limits: str) -> SharedLimit:
        """As Paceline.set_shared_limit."""
        return await run_async(self._rules.set_shared_limit(name, limits), self._perform)

    async def delete_shared_limit(self, name: str) -> SharedLimit:
        """As Paceline.delete_shared_limit."""
        return await run_async(self._rules.delete_shared_limit(name), self._perform)

    async def pause_shared_limit(self, name: str, until: int | datetime | None = None) -> SharedLimit:
        """As Paceline.pause_shared_limit."""
        return await run_async(self._rules.pause_shared_limit(name, until), self._perform)

    async def resume_shared_limit(self, name: str) -> SharedLimit:
        """As Paceline.resume_shared_limit."""
        return await run_async(self._rules.resume_shared_limit(name), self._perform)

    async def health(self) -> Health:
        """As Paceline.health."""
        return await run_async(self._rules.health(), self._perform)

    async def _pages(self, listing: Listing[Value]) -> AsyncIterator[Value]:
        before: str | None = None
        while True:
            page, before = await run_async(self._rules.page(listing, before), self._perform)
            for one in page:
                yield one
            if before is None:
                return

    async def _perform(self, step: Step) -> Outcome:
        if isinstance(step, Sleep):
            await self._clock.sleep(step.seconds)
            return None
        token = self._token() if callable(self._token) else self._token
        text = token if token is None or isinstance(token, str) else await token
        try:
            return await self._http.request(**request_options(step, text, self._connect_seconds))
        except httpx.HTTPError as error:
            return transport_error(error, step.call)
