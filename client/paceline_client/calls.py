"""Builds requests: paths, bodies, and the parts of a large submit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from paceline_client.values import TaskOrder

#: Tasks of one request to the API, and bytes of their JSON, with room for the rest of the body.
MAX_TASKS = 100
MAX_BYTES = 3_900_000


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    #: JSON, the same bytes for each try
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)


def json_call(method: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Call:
    content = _json(body).encode()
    return Call(method, path, content, {"Content-Type": "application/json", **(headers or {})})


def submit_call(path: str, body: Mapping[str, Any], key: str, strict: bool) -> Call:
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    headers = {"Idempotency-Key": f'"{escaped}"'} | ({"Prefer": "handling=strict"} if strict else {})
    return json_call("POST", path, body, headers)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def order_body(order: TaskOrder) -> dict[str, Any]:
    """Omits unused fields, so that older servers accept the order."""
    run_at = None if order.run_at is None else epoch_ms(order.run_at, "run_at")
    times = {"run_at": run_at, "delay_seconds": order.delay_seconds}
    options = {**times, "callback_url": order.callback_url, "units": order.units, "shared": order.shared}
    given = {name: value for name, value in options.items() if value is not None}
    return {"task": order.task, "payload": order.payload, **given}


def parts(orders: Sequence[TaskOrder]) -> list[list[TaskOrder]]:
    """Splits the orders into requests; the same orders always give the same parts."""
    found: list[list[TaskOrder]] = []
    size = 0
    for order in orders:
        order_size = len(_json(order_body(order)).encode()) + 1
        if not found or len(found[-1]) == MAX_TASKS or size + order_size > MAX_BYTES:
            found.append([])
            size = 0
        found[-1].append(order)
        size += order_size
    return found


def field_of_all(field: str | None, first: int) -> str | None:
    """Turns a pointer into one part into a pointer into all tasks."""
    match = re.fullmatch(r"/tasks/(\d+)(.*)", field or "", re.DOTALL)
    return f"/tasks/{int(match[1]) + first}{match[2]}" if match else field


def user_path(user_id: str, rest: str = "") -> str:
    """`.` and `..` are legal ids, but would be tidied out of a path; a space before them is not part of the id."""
    before = "%20" if user_id in (".", "..") else ""
    return f"/api/v1/users/{before}{quote(user_id, safe='')}{rest}"


def task_path(user_id: str, task_id: str) -> str:
    return user_path(user_id, f"/tasks/{quote(task_id, safe='')}")


def schedule_path(user_id: str, name: str) -> str:
    return user_path(user_id, f"/schedules/{quote(name, safe='')}")


def shared_path(name: str, rest: str = "") -> str:
    return f"/api/v1/limits/{quote(name, safe='')}{rest}"


def epoch_ms(at: int | datetime, name: str) -> int:
    """Returns epoch milliseconds. ValueError, which names the argument `name`, for a datetime without time zone."""
    if isinstance(at, int):
        return at
    if at.tzinfo is None:
        raise ValueError(f"`{name}` needs a time zone, as in datetime.now(timezone.utc)")
    return round(at.timestamp() * 1000)
