"""Reads answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from paceline_client.errors import AnswerError
from paceline_client.values import Health, Lane, Limit, SubmittedTask, Task, WaitsFor

Value = TypeVar("Value", SubmittedTask, Task, Limit, Lane, Health, WaitsFor)


def read_answer(kind: type[Value], body: Mapping[str, Any]) -> Value:
    """Converts an answer; ignores unknown fields."""
    try:
        return _read(kind, body)
    except (TypeError, KeyError) as error:
        raise AnswerError(f"the answer is no {kind.__name__}: is this a Paceline? {error}") from error


def read_list(body: Mapping[str, Any]) -> list[Any]:
    """The tasks that an answer lists."""
    tasks = body.get("tasks")
    if not isinstance(tasks, list):
        raise AnswerError("the answer has no list of tasks: is this a Paceline?")
    return tasks


def _read(kind: type[Value], body: Mapping[str, Any]) -> Value:
    known = {field.name: body[field.name] for field in fields(kind) if field.name in body}
    if kind is Lane:
        known["policies"] = tuple(_read(Limit, one) for one in body["policies"])
        known |= {name: tuple(body[name]) for name in ("starts", "next_starts")}
        known["waits_for"] = _read(WaitsFor, body["waits_for"]) if body.get("waits_for") else None
    return kind(**known)


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The body; empty if it is not a JSON object."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def http_date(text: str) -> float | None:
    """Epoch seconds; None if it is not a date."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
