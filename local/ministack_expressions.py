"""Evaluates DynamoDB's expressions for MiniStack without reading their texts anew: a lane's calls repeat a few texts.

Results are MiniStack's own: a text that is unusual here, or wrong, goes to MiniStack's function.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from local.ministack_json import decode, encode
from local.ministack_reader import Evaluate, Item, Reader, UnusualError

Names = dict[str, str]

#: Functions whose result depends on the arguments only. Nobody changes the lists that some return.
_PURE = ("_ddb_canonicalize_number", "_number_error", "_number_size_bytes", "_condition_syntax_error", "_tokenize")
#: Results cached for each function.
_CACHED = 20_000
#: Types of a value of an item.
_TYPES = frozenset(("S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"))


def tune_expressions(dynamodb: Any) -> None:
    """Applies the patches to MiniStack's module. Call it once."""
    for name in _PURE:
        setattr(dynamodb, name, functools.lru_cache(_CACHED)(getattr(dynamodb, name)))
    dynamodb._evaluate_condition = _evaluating_read_ones(dynamodb)
    dynamodb._validate_expression_attrs = _checking_each_once(dynamodb._validate_expression_attrs)
    dynamodb._update_request_charge = _charging_large_ones(
        dynamodb._update_request_charge, dynamodb._DDB_ITEM_MAX_BYTES
    )
    dynamodb.copy = SimpleNamespace(deepcopy=copied)


def copied(value: Any) -> Any:
    """A deep copy; of an item it takes a tenth of the standard library's time."""
    if type(value) is dict and value and all(map(_is_attribute, value.values())):
        return decode(encode(value))
    return copy.deepcopy(value)


def _is_attribute(value: Any) -> bool:
    return type(value) is dict and len(value) == 1 and not _TYPES.isdisjoint(value)


def _evaluating_read_ones(dynamodb: Any) -> Callable[..., Any]:
    evaluate, read = dynamodb._evaluate_condition, reading_conditions(dynamodb)

    def evaluate_read(text: str, item: Item, values: Item, names: Names, slot: str = "ConditionExpression") -> Any:
        is_usual = text and values is not None and names is not None and all(type(one) is str for one in names.values())
        condition = read(text, slot, tuple(names.items())) if is_usual else None
        return evaluate(text, item, values, names, slot) if condition is None else condition(item, values)

    return evaluate_read


def reading_conditions(dynamodb: Any) -> Callable[[str, str, tuple[tuple[str, str], ...]], Evaluate | None]:
    """Returns a function that reads a condition by its text, the name of its parameter, and the names of attributes.

    That function returns None for a condition that is unusual or wrong.
    """

    @functools.lru_cache(_CACHED)
    def read(text: str, slot: str, names: tuple[tuple[str, str], ...]) -> Evaluate | None:
        tokens = dynamodb._tokenize(text)
        is_wrong = (
            not text.strip()
            or dynamodb._check_redundant_parens(tokens, slot)
            or dynamodb._check_reserved_keyword_usage(tokens)
            or dynamodb._condition_syntax_error(text, slot)
        )
        try:
            return None if is_wrong else Reader(tokens, dict(names), dynamodb).condition()
        except UnusualError:
            return None

    return read


def _checking_each_once(check: Callable[..., Any]) -> Callable[..., Any]:
    """Skips a check of texts that were correct with the same names of values and attributes."""
    correct = set[Any]()

    def check_once(data: Item, fields: tuple[str, ...], *wording: Any) -> Any:
        values, names = data.get("ExpressionAttributeValues"), data.get("ExpressionAttributeNames")
        try:
            call = (fields, *(data.get(field) for field in fields), *(values or ()), None, *(names or ()))
            if call in correct:
                return None
        except TypeError:  # not what a correct call has
            return check(data, fields, *wording)
        error = check(data, fields, *wording)
        if error is None:
            if len(correct) >= _CACHED:
                correct.clear()
            correct.add(call)
        return error

    return check_once


def _charging_large_ones(charge: Callable[..., int], most: int) -> Callable[..., int]:
    """Computes the charge only where it can exceed `most`. MiniStack needs to know no more than that."""

    def charge_if_large(text: str, values: Item | None, names: Names | None, item: Item) -> int:
        value_bytes, name_bytes = (len(encode(given)) if given else 0 for given in (values, names))
        # Each character costs less than 64 bytes, and each use of a value or a name no more than all of them.
        upper = 64 * len(text) + text.count(":") * value_bytes + text.count("#") * name_bytes + 3
        return upper if upper <= most else charge(text, values, names, item)

    return charge_if_large
