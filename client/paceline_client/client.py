"""The API's operations as methods."""

from __future__ import annotations

import random as chance
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any
from uuid import uuid4

import httpx

from paceline_client.answers import json_object, read_answer, read_list
from paceline_client.calls import (
    Call,
    epoch_ms,
    field_of_all,
    json_call,
    order_body,
    parts,
    submit_call,
    task_path,
    user_path,
)
from paceline_client.errors import AnswerError, PacelineError, ProblemError
from paceline_client.sender import Clock, Sender, SystemClock, Token
from paceline_client.shared_limits import SharedLimitCalls
from paceline_client.values import Health, Lane, State, SubmittedTask, Task, TaskOrder
from paceline_client.version import __version__
from paceline_client.waiting import Waiting

#: Longest key for one task, and for many, which get a part number appended; in characters.
MAX_KEY = 255
MAX_KEY_OF_MANY = 240


class Paceline(SharedLimitCalls):
    """One Paceline deployment. Threads may share it; close it, or use it in a `with` statement.

    base_url: without `/api/v1`; on AWS with the stage, `https://….execute-api.….amazonaws.com/api`.
    token: the bearer token, or what gives a fresh one for each try; None for `AUTH=none`.
    try_seconds: how long the connection, and each wait for bytes of an answer, may take.
    total_seconds: how long a call may go on trying. More than 35 outlives an API process that died in a submit.
    transport, clock, random, new_key: for tests; what they do is to be had from outside.
    """

    def __init__(
        self,
        base_url: str,
        token: Token = None,
        *,
        try_seconds: float = 10.0,
        total_seconds: float = 60.0,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = chance.random,
        new_key: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url has to begin with http:// or https://, unlike {base_url!r}")
        http = httpx.Client(
            base_url=base_url,
            transport=transport,
            headers={"Accept": "application/json", "User-Agent": f"paceline-client/{__version__}"},
        )
        self._clock = clock or SystemClock()
        self._random = random
        self._new_key = new_key
        self._sender = Sender(http, token, self._clock, random, try_seconds, total_seconds)

    def __enter__(self) -> Paceline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._sender.close()

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
        callback_url: gets a signed POST when it has ended.
        units: what it counts for in limits of units; None for what its definition says.
        shared: the shared limit that it counts against; None for what its definition says.
        idempotency_key: the same submit with the same key is the same task, for days. None makes a new one.
        strict: over the limit queue nothing, and raise Refused. It is raised without, too, where the deployment
        wants it so or the lane's backlog would take too long.
        """
        key = self._key(idempotency_key, MAX_KEY)
        order = TaskOrder(payload, task, run_at, delay_seconds, callback_url, units, shared)
        call = submit_call("/api/v1/task", {"user_id": user_id, **order_body(order)}, key, strict)
        try:
            return read_answer(SubmittedTask, self._submitted(call))
        except PacelineError as error:
            error.idempotency_key = key
            raise

    def submit_many(
        self,
        user_id: str,
        tasks: Iterable[TaskOrder],
        *,
        idempotency_key: str | None = None,
        strict: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[SubmittedTask]:
        """Submits tasks in order, a hundred at a time, and returns them. Each hundred is taken whole or not.

        When a later hundred fails, the ones before it stay: the error's `accepted` has them, and the same
        call with the error's `idempotency_key` goes on behind them. A key is for the same tasks in the same order.

        progress: called after each hundred with how many were taken, and how many there are.
        """
        orders = list(tasks)
        key = self._key(idempotency_key, MAX_KEY_OF_MANY)
        submitted_tasks: list[SubmittedTask] = []
        try:
            for part in parts(orders):
                submitted_tasks += self._submit_part(
                    user_id, part, f"{key}:{len(submitted_tasks)}", strict, len(submitted_tasks)
                )
                if progress:
                    progress(len(submitted_tasks), len(orders))
        except PacelineError as error:
            error.idempotency_key, error.accepted = key, tuple(submitted_tasks)
            raise
        return submitted_tasks

    def task(self, user_id: str, task_id: str) -> Task:
        """Returns the task's current state. NotFoundError if this user has no task with that id."""
        return read_answer(Task, self._body(Call("GET", task_path(user_id, task_id))))

    def tasks(self, user_id: str, *, state: State | None = None, page_size: int = 100) -> Iterator[Task]:
        """The user's tasks, newest first; pages are fetched as they are needed."""
        params = {"limit": str(page_size)} | ({"state": state} if state else {})
        while True:
            body = self._body(Call("GET", user_path(user_id, "/tasks"), params=params))
            yield from [read_answer(Task, one) for one in read_list(body)]
            if not body.get("next"):
                return
            params["before"] = str(body["next"])

    def wait(self, which: SubmittedTask | Task | tuple[str, str], timeout: float | None = None) -> Task:
        """Returns the finished task; its `state` is succeeded, failed or cancelled.

        Sleeps until the task should start, then looks at it at growing intervals.

        which: a submitted task, or a user id and a task id.
        timeout: seconds; None for no end. WaitTimeoutError when they are over.
        """
        user_id, task_id = which if isinstance(which, tuple) else (which.user_id, which.task_id)
        call = Call("GET", task_path(user_id, task_id))
        return Waiting(self._sender, self._clock, self._random, call, timeout).ended()

    def cancel(self, user_id: str, task_id: str) -> Task:
        """Cancels a task; it takes no more start. ConflictError when it has ended.

        A running task is asked to stop: its state is then still `running`, and `wait` returns how it ended.
        """
        return read_answer(Task, self._body(Call("DELETE", task_path(user_id, task_id))))

    def lane(self, user_id: str) -> Lane:
        """The user's lane; it is empty for a user who never submitted."""
        return self._lane("GET", user_id)

    def set_limits(self, user_id: str, limits: str) -> Lane:
        """Gives the user limits of its own, such as `5/second; 100/minute`, in force from the next start on."""
        return self._lane("PUT", user_id, "/limits", {"limits": limits})

    def clear_limits(self, user_id: str) -> Lane:
        """Gives the user the deployment's limits again."""
        return self._lane("DELETE", user_id, "/limits")

    def pause(self, user_id: str, until: int | datetime | None = None) -> Lane:
        """Pauses the lane until that time, None for no end. Once this returns, no task starts.

        until: epoch milliseconds, or a datetime with a time zone.
        """
        return self._lane("POST", user_id, "/pause", {} if until is None else {"until": epoch_ms(until, "until")})

    def resume(self, user_id: str) -> Lane:
        """Ends the lane's pause, if there is one."""
        return self._lane("POST", user_id, "/resume", {})

    def health(self) -> Health:
        """Returns the state of the services behind the API. Tries once; UnavailableError without an answer."""
        response = self._sender.send_once(Call("GET", "/health"))
        body = json_object(response)
        if response.status_code not in (200, 503) or "dynamodb" not in body:
            raise self._sender.problem_of(response)
        return read_answer(Health, body)

    def _submit_part(
        self, user_id: str, orders: Sequence[TaskOrder], key: str, strict: bool, first: int
    ) -> list[SubmittedTask]:
        tasks = [order_body(order) for order in orders]
        call = submit_call("/api/v1/tasks", {"user_id": user_id, "tasks": tasks}, key, strict)
        try:
            submitted_tasks = [read_answer(SubmittedTask, one) for one in read_list(self._submitted(call))]
        except ProblemError as error:
            error.field = field_of_all(error.field, first)
            raise
        if len(submitted_tasks) != len(orders):
            raise AnswerError(f"{len(orders)} tasks were sent, and {len(submitted_tasks)} answered")
        return submitted_tasks

    def _submitted(self, call: Call) -> dict[str, Any]:
        """Returns an accepted submit's answer: 202, or 429 with the queued task."""
        response = self._sender.send(call)
        body = json_object(response)
        if response.is_success or (response.status_code == 429 and body.get("queued") is True):
            return body
        raise self._sender.problem_of(response)

    def _lane(self, method: str, user_id: str, rest: str = "", body: Mapping[str, Any] | None = None) -> Lane:
        path = user_path(user_id, rest)
        return read_answer(Lane, self._body(Call(method, path) if body is None else json_call(method, path, body)))

    def _body(self, call: Call) -> dict[str, Any]:
        return self._sender.body_of(self._sender.send(call))

    def _key(self, key: str | None, most: int) -> str:
        if key is None:
            return self._new_key()
        if not 1 <= len(key) <= most or not key.isascii() or not key.isprintable():
            raise ValueError(f"idempotency_key has to be 1 to {most} printable ASCII characters")
        return key
