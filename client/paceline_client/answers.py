"""Reads answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import httpx

from paceline_client.errors import AnswerError

Value = TypeVar("Value")


def read_answer(kind: type[Value], body: Mapping[str, Any]) -> Value:
    """Converts an answer; ignores unknown fields. AnswerError if a field is missing or of another type."""
    try:
        value: Value = _read(kind, body)
    except TypeError as error:
        raise AnswerError(f"the answer is no {kind.__name__}: is this a Paceline? {error}") from error
    return value


def read_list(body: Mapping[str, Any], name: str = "tasks") -> list[Any]:
    """The values that an answer lists under this name."""
    values = body.get(name)
    if not isinstance(values, list):
        raise AnswerError(f"the answer has no list of {name}: is this a Paceline?")
    return values


@lru_cache
def _types_of(kind: Any) -> Mapping[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _read(kind: Any, body: Mapping[str, Any]) -> Any:
    """A field that an older server lacks is None, if it may be."""
    given = {name: _converted(hint, body.get(name), name) for name, hint in _types_of(kind).items()}
    return kind(**given)


def _converted(hint: Any, value: Any, name: str) -> Any:
    if get_origin(hint) in (Union, UnionType):
        if value is None and NoneType in get_args(hint):
            return None
        return _converted(next(one for one in get_args(hint) if one is not NoneType), value, name)
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_converted(get_args(hint)[0], one, name) for one in value)
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return _read(hint, value)
    if not _fits(hint, value):
        raise TypeError(f"`{name}` is {type(value).__name__}")
    return value


def _fits(hint: Any, value: Any) -> bool:
    """Literals take any text, since a newer server may know more of them."""
    if hint is Any:
        return True
    wanted = str if get_origin(hint) is Literal else get_origin(hint) or hint
    number = (int, float) if wanted is float else wanted
    return isinstance(value, number) and (wanted is bool or not isinstance(value, bool))


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
