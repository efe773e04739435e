"""Evaluates DynamoDB's expressions for MiniStack without reading their texts anew: a lane's calls repeat a few texts.

Results are MiniStack's own: a text that is unusual here, or wrong, goes to MiniStack's function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from local.ministack_json import encode
from local.ministack_reader import Evaluate, Item, Names, Reader, UnusualError

#: Functions whose result depends on the arguments only. Nobody changes the lists that some return.
_PURE = ("_ddb_canonicalize_number", "_number_error", "_number_size_bytes", "_condition_syntax_error", "_tokenize")
#: Results cached for each function.
_CACHED = 20_000


def tune_expressions(dynamodb: Any) -> None:
    """Applies the patches to MiniStack's module. Call it once."""
    for name in _PURE:
        setattr(dynamodb, name, functools.lru_cache(_CACHED)(getattr(dynamodb, name)))
    dynamodb._evaluate_condition = _evaluating_read_ones(dynamodb)
    dynamodb._update_request_charge = _charging_large_ones(
        dynamodb._update_request_charge, dynamodb._DDB_ITEM_MAX_BYTES
    )


def _evaluating_read_ones(dynamodb: Any) -> Callable[..., Any]:
    evaluate, read = dynamodb._evaluate_condition, reading_conditions(dynamodb)

    def evaluate_read(text: str, item: Item, values: Item, names: Names, slot: str = "ConditionExpression") -> Any:
        condition = read(text, slot) if text else None
        if condition is None or values is None or names is None:
            return evaluate(text, item, values, names, slot)
        return condition(item, values, names)

    return evaluate_read


def reading_conditions(dynamodb: Any) -> Callable[[str, str], Evaluate | None]:
    """Returns a function that reads a condition, given its text and the name of its parameter.

    That function returns None for a condition that is unusual or wrong.
    """

    @functools.lru_cache(_CACHED)
    def read(text: str, slot: str) -> Evaluate | None:
        tokens = dynamodb._tokenize(text)
        is_wrong = (
            not text.strip()
            or dynamodb._check_redundant_parens(tokens, slot)
            or dynamodb._check_reserved_keyword_usage(tokens)
            or dynamodb._condition_syntax_error(text, slot)
        )
        try:
            return None if is_wrong else Reader(tokens, dynamodb).condition()
        except UnusualError:
            return None

    return read


def _charging_large_ones(charge: Callable[..., int], most: int) -> Callable[..., int]:
    """Computes the charge only where it can exceed `most`. MiniStack needs to know no more than that."""

    def charge_if_large(text: str, values: Item | None, names: Names | None, item: Item) -> int:
        value_bytes, name_bytes = (len(encode(given)) if given else 0 for given in (values, names))
        # Each character costs less than 64 bytes, and each use of a value or a name no more than all of them.
        upper = 64 * len(text) + text.count(":") * value_bytes + text.count("#") * name_bytes + 3
        return upper if upper <= most else charge(text, values, names, item)

    return charge_if_large
