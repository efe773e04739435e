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

Item = dict[str, Any]
Names = dict[Any, str]
Token = tuple[str, str]
#: What of an expression was read: gets the item, the values and the names of a call.
Evaluate = Callable[[Item, Item, Names], Any]
Path = list[str | int]

#: Functions whose result depends on the arguments only. Nobody changes the lists that some return.
_PURE = ("_ddb_canonicalize_number", "_number_error", "_number_size_bytes", "_condition_syntax_error", "_tokenize")
#: Results cached for each function.
_CACHED = 20_000
_COMPARISONS = ("EQ", "NE", "LT", "GT", "LE", "GE")
_KEYWORDS = frozenset(("AND", "OR", "NOT", "BETWEEN", "IN"))
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
    evaluate = dynamodb._evaluate_condition

    @functools.lru_cache(_CACHED)
    def read(text: str, slot: str) -> Evaluate | None:
        tokens = dynamodb._tokenize(text)
        is_wrong = (
            dynamodb._check_redundant_parens(tokens, slot)
            or dynamodb._check_reserved_keyword_usage(tokens)
            or dynamodb._condition_syntax_error(text, slot)
        )
        try:
            return None if is_wrong else _Reader(tokens, dynamodb).read()
        except _UnusualError:
            return None

    def evaluate_read(text: str, item: Item, values: Item, names: Names, slot: str = "ConditionExpression") -> Any:
        condition = read(text, slot) if text and text.strip() else None
        if condition is None or values is None or names is None:
            return evaluate(text, item, values, names, slot)
        return condition(item, values, names)

    return evaluate_read


class _UnusualError(Exception):
    """This condition has parts that `_Reader` does not know."""


class _Reader:
    """Reads a condition of AND, OR, NOT, comparisons and `attribute_exists`, by recursive descent."""

    def __init__(self, tokens: list[Token], dynamodb: Any) -> None:
        self._tokens = tokens
        self._at = 0
        self._compare, self._get = dynamodb._compare_ddb, dynamodb._get_at_path

    def read(self) -> Evaluate:
        condition = self._either()
        self._take("EOF")
        return condition

    def _either(self) -> Evaluate:
        parts = [self._all()]
        while self._skip("OR"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else _either(parts)

    def _all(self) -> Evaluate:
        parts = [self._one()]
        while self._skip("AND"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else _all(parts)

    def _one(self) -> Evaluate:
        if self._skip("NOT"):
            denied = self._one()
            return lambda *call: not denied(*call)
        if self._kind() == "LPAREN":
            self._take("LPAREN")
            inner = self._either()
            self._take("RPAREN")
            return inner
        if self._kind() == "IDENT" and self._tokens[self._at + 1][0] == "LPAREN":
            return self._existence()
        return self._comparison()

    def _existence(self) -> Evaluate:
        function = self._take("IDENT").lower()
        if function not in ("attribute_exists", "attribute_not_exists"):
            raise _UnusualError
        self._take("LPAREN")
        attribute = self._path()
        self._take("RPAREN")
        exists = function == "attribute_exists"
        return lambda *call: (attribute(*call) is not None) is exists

    def _comparison(self) -> Evaluate:
        left = self._operand()
        if self._kind() not in _COMPARISONS:
            raise _UnusualError
        sign = self._take(self._kind())
        right, compare = self._operand(), self._compare
        return lambda *call: compare(left(*call), sign, right(*call))

    def _operand(self) -> Evaluate:
        if self._kind() != "VALUE_REF":
            return self._path()
        name = self._take("VALUE_REF")
        return lambda _item, values, _names: values.get(name)

    def _path(self) -> Evaluate:
        parts: Path = [self._name()]
        while self._kind() in ("DOT", "LBRACKET"):
            if self._take(self._kind()) == ".":
                parts.append(self._name())
            else:
                parts.append(int(self._take("NUMBER")))
                self._take("RBRACKET")
        get = self._get
        return lambda item, _values, names: get(item, [names.get(part, part) for part in parts])

    def _name(self) -> str:
        kind, text = self._tokens[self._at]
        is_name = kind == "NAME_REF" or (kind == "IDENT" and text.upper() not in _KEYWORDS)
        if not is_name or self._tokens[self._at + 1][0] == "LPAREN":
            raise _UnusualError
        return self._take(kind)

    def _kind(self) -> str:
        return self._tokens[self._at][0]

    def _take(self, kind: str) -> str:
        found, text = self._tokens[self._at]
        if found != kind:
            raise _UnusualError
        self._at += 1
        return text

    def _skip(self, keyword: str) -> bool:
        is_there = self._kind() == "IDENT" and self._tokens[self._at][1].upper() == keyword
        self._at += is_there
        return is_there


def _all(parts: list[Evaluate]) -> Evaluate:
    def evaluate(item: Item, values: Item, names: Names) -> bool:
        return all(part(item, values, names) for part in parts)

    return evaluate


def _either(parts: list[Evaluate]) -> Evaluate:
    def evaluate(item: Item, values: Item, names: Names) -> bool:
        return any(part(item, values, names) for part in parts)

    return evaluate


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
