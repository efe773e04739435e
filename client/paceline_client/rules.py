"""The API's operations as steps, for both clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic

from paceline_client.answers import json_object, read_answer, read_list
from paceline_client.calls import (
    Call,
    epoch_ms,
    field_of_all,
    json_call,
    order_body,
    parts,
    schedule_path,
    shared_path,
    submit_call,
    task_path,
    user_path,
)
from paceline_client.errors import AnswerError, PacelineError, ProblemError
from paceline_client.exchange import Exchange, Retries
from paceline_client.steps import Steps, Times, Value
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
from paceline_client.waiting import Waiting

#: Longest key for one task, and for many, which get a part number appended; in characters.
MAX_KEY = 255
MAX_KEY_OF_MANY = 240

#: Called with how many tasks were submitted, and how many there are.
OnProgress = Callable[[int, int], None]
#: A submitted task, or a user id and a task id.
Which = SubmittedTask | Task | tuple[str, str]


@dataclass(frozen=True)
class Listing(Generic[Value]):
    """A list that the API gives in pages."""

    #: of its values
    kind: type[Value]
    path: str
    params: Mapping[str, str]
    #: the field of an answer that holds the values
    name: str


@dataclass(frozen=True)
class Ticks:
    """When a schedule ticks: by `cron` in the time zone, or each `every_seconds`."""

    cron: str | None
    timezone: str | None
    every_seconds: int | None


def _preference(strict: bool) -> Mapping[str, str]:
    return {"Prefer": "handling=strict"} if strict else {}


class Rules:
    """Each method gives the steps of the client's method of that name, or its Listing."""

    def __init__(self, retries: Retries, times: Times, random: Callable[[], float], new_key: Callable[[], str]) -> None:
        self._retries = retries
        self._times = times
        self._random = random
        self._new_key = new_key

    def submit(self, user_id: str, order: TaskOrder, key: str | None, strict: bool) -> Steps[SubmittedTask]:
        key = self._key(key, MAX_KEY)
        call = submit_call("/api/v1/task", {"user_id": user_id, **order_body(order)}, key, strict)
        try:
            return read_answer(SubmittedTask, (yield from self._submitted(self._exchange(), call)))
        except PacelineError as error:
            error.idempotency_key = key
            raise

    def submit_many(
        self, user_id: str, tasks: Iterable[TaskOrder], key: str | None, strict: bool, progress: OnProgress | None
    ) -> Steps[list[SubmittedTask]]:
        orders = list(tasks)
        key = self._key(key, MAX_KEY_OF_MANY)
        submitted: list[SubmittedTask] = []
        exchange = self._exchange()
        try:
            for part in parts(orders):
                part_key = f"{key}:{len(submitted)}"
                submitted += yield from self._submit_part(exchange, user_id, part, part_key, strict, len(submitted))
                if progress:
                    progress(len(submitted), len(orders))
        except PacelineError as error:
            error.idempotency_key, error.accepted = key, tuple(submitted)
            raise
        return submitted

    def task(self, user_id: str, task_id: str) -> Steps[Task]:
        return self._read(Task, Call("GET", task_path(user_id, task_id)))

    def tasks(self, user_id: str, state: State | None, page_size: int) -> Listing[Task]:
        params = {"limit": str(page_size)} | ({"state": state} if state else {})
        return Listing(Task, user_path(user_id, "/tasks"), params, "tasks")

    def failed(self, page_size: int) -> Listing[Task]:
        return Listing(Task, "/api/v1/tasks", {"state": "failed", "limit": str(page_size)}, "tasks")

    def lanes(self, search: str, page_size: int) -> Listing[Lane]:
        return Listing(Lane, "/api/v1/lanes", {"search": search, "limit": str(page_size)}, "lanes")

    def redrive(self, user_id: str, task_id: str, strict: bool) -> Steps[SubmittedTask]:
        call = json_call("POST", f"{task_path(user_id, task_id)}/redrive", {}, _preference(strict))
        return read_answer(SubmittedTask, (yield from self._submitted(self._exchange(), call)))

    def redrive_page(
        self, user_id: str | None, since: int | datetime | None, strict: bool, before: str | None
    ) -> Steps[tuple[list[Redriven], str | None]]:
        """Submits the failed tasks of one page again; the cursor of the next page, None after the last."""
        if user_id is None and since is None:
            raise ValueError("redrive_many needs `user_id` or `since`")
        path = "/api/v1/redrive" if user_id is None else user_path(user_id, "/redrive")
        given = {"since": None if since is None else epoch_ms(since, "since"), "before": before}
        body = {name: value for name, value in given.items() if value is not None}
        page = yield from self._exchange().body(json_call("POST", path, body, _preference(strict)))
        outcomes = [read_answer(Redriven, one) for name in ("tasks", "stays") for one in read_list(page, name)]
        return outcomes, str(page["next"]) if page.get("next") else None

    def empty(self, user_id: str) -> Steps[Emptied]:
        call = Call("DELETE", user_path(user_id, "/tasks"), params={"state": "queued"})
        body = yield from self._exchange().body(call)
        return Emptied(int(body["cancelled"]), int(body.get("cancelled_scheduled", 0)))

    def forget(self, user_id: str) -> Steps[int]:
        deleted = 0
        while True:
            body = yield from self._exchange().body(Call("DELETE", user_path(user_id)))
            deleted += int(body["deleted"])
            if body["done"]:
                return deleted

    def page(self, listing: Listing[Value], before: str | None) -> Steps[tuple[list[Value], str | None]]:
        """One page of the list, and the cursor of the next page; None after the last. before: None for the first."""
        params = listing.params if before is None else {**listing.params, "before": before}
        body = yield from self._exchange().body(Call("GET", listing.path, params=params))
        cursor = body.get("next")
        return [read_answer(listing.kind, one) for one in read_list(body, listing.name)], str(
            cursor
        ) if cursor else None

    def wait(self, which: Which, timeout: float | None) -> Steps[Task]:
        user_id, task_id = which if isinstance(which, tuple) else (which.user_id, which.task_id)
        call = Call("GET", task_path(user_id, task_id))
        return (yield from Waiting(self._exchange(), self._times, self._random, call, timeout).ended())

    def cancel(self, user_id: str, task_id: str) -> Steps[Task]:
        return self._read(Task, Call("DELETE", task_path(user_id, task_id)))

    def lane(self, user_id: str) -> Steps[Lane]:
        return self._lane("GET", user_id)

    def set_limits(self, user_id: str, limits: str) -> Steps[Lane]:
        return self._lane("PUT", user_id, "/limits", {"limits": limits})

    def clear_limits(self, user_id: str) -> Steps[Lane]:
        return self._lane("DELETE", user_id, "/limits")

    def set_group(self, user_id: str, group: str | None) -> Steps[Lane]:
        return self._lane("PUT", user_id, "", {"group": group})

    def pause(self, user_id: str, until: int | datetime | None) -> Steps[Lane]:
        return self._lane("POST", user_id, "/pause", {} if until is None else {"until": epoch_ms(until, "until")})

    def resume(self, user_id: str) -> Steps[Lane]:
        return self._lane("POST", user_id, "/resume", {})

    def schedules(self, user_id: str, page_size: int) -> Listing[Schedule]:
        return Listing(Schedule, user_path(user_id, "/schedules"), {"limit": str(page_size)}, "schedules")

    def schedule(self, user_id: str, name: str) -> Steps[Schedule]:
        return self._read(Schedule, Call("GET", schedule_path(user_id, name)))

    def put_schedule(self, user_id: str, name: str, order: TaskOrder, ticks: Ticks, paused: bool) -> Steps[Schedule]:
        given = {field: value for field, value in vars(ticks).items() if value is not None}
        body = {**order_body(order), **given, "paused": paused}
        return self._read(Schedule, json_call("PUT", schedule_path(user_id, name), body))

    def pause_schedule(self, user_id: str, name: str, paused: bool) -> Steps[Schedule]:
        one = yield from self.schedule(user_id, name)
        order = TaskOrder(one.payload, one.task, callback_url=one.callback_url, units=one.units, shared=one.shared)
        ticks = Ticks(one.cron, one.timezone, one.every_seconds)
        return (yield from self.put_schedule(user_id, name, order, ticks, paused))

    def delete_schedule(self, user_id: str, name: str) -> Steps[Schedule]:
        return self._read(Schedule, Call("DELETE", schedule_path(user_id, name)))

    def shared_limits(self) -> Steps[list[SharedLimit]]:
        body = yield from self._exchange().body(Call("GET", "/api/v1/limits"))
        return [read_answer(SharedLimit, one) for one in read_list(body, "limits")]

    def shared_limit(self, name: str) -> Steps[SharedLimit]:
        return self._read(SharedLimit, Call("GET", shared_path(name)))

    def set_shared_limit(self, name: str, limits: str) -> Steps[SharedLimit]:
        return self._read(SharedLimit, json_call("PUT", shared_path(name), {"limits": limits}))

    def delete_shared_limit(self, name: str) -> Steps[SharedLimit]:
        return self._read(SharedLimit, Call("DELETE", shared_path(name)))

    def pause_shared_limit(self, name: str, until: int | datetime | None) -> Steps[SharedLimit]:
        body = {} if until is None else {"until": epoch_ms(until, "until")}
        return self._read(SharedLimit, json_call("POST", shared_path(name, "/pause"), body))

    def resume_shared_limit(self, name: str) -> Steps[SharedLimit]:
        return self._read(SharedLimit, json_call("POST", shared_path(name, "/resume"), {}))

    def health(self) -> Steps[Health]:
        exchange = self._exchange()
        response = yield from exchange.send_once(Call("GET", "/health"))
        body = json_object(response)
        if response.status_code not in (200, 503) or "dynamodb" not in body:
            raise exchange.problem_of(response)
        return read_answer(Health, body)

    def _exchange(self) -> Exchange:
        return Exchange(self._retries, self._times, self._random)

    def _submit_part(
        self, exchange: Exchange, user_id: str, orders: Sequence[TaskOrder], key: str, strict: bool, first: int
    ) -> Steps[list[SubmittedTask]]:
        tasks = [order_body(order) for order in orders]
        call = submit_call("/api/v1/tasks", {"user_id": user_id, "tasks": tasks}, key, strict)
        try:
            answered = yield from self._submitted(exchange, call)
        except ProblemError as error:
            error.field = field_of_all(error.field, first)
            raise
        submitted = [read_answer(SubmittedTask, one) for one in read_list(answered)]
        if len(submitted) != len(orders):
            raise AnswerError(f"{len(orders)} tasks were sent, and {len(submitted)} answered")
        return submitted

    def _submitted(self, exchange: Exchange, call: Call) -> Steps[dict[str, Any]]:
        """Returns an accepted submit's answer: 202, or 429 with the queued task."""
        response = yield from exchange.send(call)
        body = json_object(response)
        if response.is_success or (response.status_code == 429 and body.get("queued") is True):
            return body
        raise exchange.problem_of(response)

    def _lane(self, method: str, user_id: str, rest: str = "", body: Mapping[str, Any] | None = None) -> Steps[Lane]:
        path = user_path(user_id, rest)
        return self._read(Lane, Call(method, path) if body is None else json_call(method, path, body))

    def _read(self, kind: type[Value], call: Call) -> Steps[Value]:
        """Sends the call, and reads the body of a successful answer as this kind of value."""
        return read_answer(kind, (yield from self._exchange().body(call)))

    def _key(self, key: str | None, most: int) -> str:
        if key is None:
            return self._new_key()
        if not 1 <= len(key) <= most or not key.isascii() or not key.isprintable():
            raise ValueError(f"idempotency_key has to be 1 to {most} printable ASCII characters")
        return key
