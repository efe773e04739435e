"""Reads DynamoDB's conditions into functions, so that each text is read once.

It knows the usual parts only. Those mean what they mean in MiniStack, which evaluates whatever is unusual or wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Item = dict[str, Any]
#: Indexes of lists are looked up too, and not found.
Names = dict[Any, str]
Token = tuple[str, str]
#: A condition, or an operand of an expression: gets the item, the values and the names of a call.
Evaluate = Callable[[Item, Item, Names], Any]
Path = list[str | int]

_COMPARISONS = ("EQ", "NE", "LT", "GT", "LE", "GE")
#: The words before the parts of an update, which are no attributes.
CLAUSES = ("SET", "REMOVE", "ADD", "DELETE")
_KEYWORDS = frozenset(("AND", "OR", "NOT", "BETWEEN", "IN", *CLAUSES))


class UnusualError(Exception):
    """This expression, or its use with this item, is not one of the usual ones."""


class Reader:
    """Reads one text, by recursive descent."""

    def __init__(self, tokens: list[Token], dynamodb: Any) -> None:
        """tokens: as MiniStack's `_tokenize` returns them."""
        self._tokens = tokens
        self._at = 0
        self._compare, self._get = dynamodb._compare_ddb, dynamodb._get_at_path

    def condition(self) -> Evaluate:
        condition = self._either()
        self._take("EOF")
        return condition

    def _either(self) -> Evaluate:
        parts = [self._all()]
        while self._skip("OR"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda *call: any(part(*call) for part in parts)

    def _all(self) -> Evaluate:
        parts = [self._one()]
        while self._skip("AND"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda *call: all(part(*call) for part in parts)

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
            raise UnusualError
        self._take("LPAREN")
        attribute = self._path()
        self._take("RPAREN")
        exists = function == "attribute_exists"
        return lambda *call: (attribute(*call) is not None) is exists

    def _comparison(self) -> Evaluate:
        left = self._operand()
        if self._kind() not in _COMPARISONS:
            raise UnusualError
        sign = self._take(self._kind())
        right, compare = self._operand(), self._compare
        return lambda *call: compare(left(*call), sign, right(*call))

    def _operand(self) -> Evaluate:
        return self._given() if self._kind() == "VALUE_REF" else self._path()

    def _given(self) -> Evaluate:
        name = self._take("VALUE_REF")
        return lambda _item, values, _names: values.get(name)

    def _path(self) -> Evaluate:
        path, get = self._attribute(), self._get
        if len(path) > 1:
            return lambda item, _values, names: get(item, [names.get(part, part) for part in path])
        name = str(path[0])
        return lambda item, _values, names: item.get(names.get(name, name))

    def _attribute(self) -> Path:
        parts: Path = [self._name()]
        while self._kind() in ("DOT", "LBRACKET"):
            if self._take(self._kind()) == ".":
                parts.append(self._name())
            else:
                parts.append(self._index())
                self._take("RBRACKET")
        return parts

    def _name(self) -> str:
        kind, text = self._tokens[self._at]
        is_name = kind == "NAME_REF" or (kind == "IDENT" and text.upper() not in _KEYWORDS)
        if not is_name or self._tokens[self._at + 1][0] == "LPAREN":
            raise UnusualError
        return self._take(kind)

    def _index(self) -> int:
        if not (number := self._take("NUMBER")).isdecimal():
            raise UnusualError
        return int(number)

    def _kind(self) -> str:
        return self._tokens[self._at][0]

    def _take(self, kind: str) -> str:
        found, text = self._tokens[self._at]
        if found != kind:
            raise UnusualError
        self._at += 1
        return text

    def _skip(self, keyword: str) -> bool:
        is_there = self._kind() == "IDENT" and self._tokens[self._at][1].upper() == keyword
        self._at += is_there
        return is_there
