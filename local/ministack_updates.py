"""Reads DynamoDB's update expressions into functions, so that each text is read once; see `ministack_reader`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from local.ministack_json import decode, encode
from local.ministack_reader import Evaluate, Item, Names, Path, Reader, Token, UnusualError

#: Changes an item, but no value in it that another item has: gets it, the item before, and the values and names of a
#: call.
Change = Callable[[Item, Item, Item, Names], None]
#: Digits of a number, and names in a path, that DynamoDB surely takes.
_SURE_DIGITS, _SURE_NAMES = 30, 10


class UpdateReader(Reader):
    """Reads one update expression."""

    def __init__(self, tokens: list[Token], dynamodb: Any) -> None:
        super().__init__(tokens, dynamodb)
        #: paths that the update changes
        self.targets = list[Path]()

    def update(self) -> list[Change]:
        """SET, REMOVE and ADD, each clause once, of attributes and of what is in maps."""
        reading = {"SET": self._assignment, "REMOVE": self._removal, "ADD": self._addition}
        changes, seen = list[Change](), set[str]()
        while self._kind() != "EOF":
            clause = self._take("IDENT")
            read = reading.get(clause)
            if read is None or clause in seen:
                raise UnusualError
            seen.add(clause)
            changes.append(read())
            while self._kind() == "COMMA":
                self._take("COMMA")
                changes.append(read())
        return changes

    def _assignment(self) -> Change:
        path = self._target()
        self._take("EQ")
        # What is moved into a map could be nested too deeply.
        value = self._sum() if len(path) == 1 else self._given()

        def assign(item: Item, before: Item, values: Item, names: Names) -> None:
            parent, name = _parent(item, path, names)
            if parent is None:
                raise UnusualError
            parent[name] = value(before, values, names)

        return assign

    def _removal(self) -> Change:
        path = self._target()

        def remove(item: Item, _before: Item, _values: Item, names: Names) -> None:
            parent, name = _parent(item, path, names)
            if parent is not None:
                parent.pop(name, None)

        return remove

    def _addition(self) -> Change:
        path, added = self._target(), self._given()
        if len(path) > 1:
            raise UnusualError
        target = path[0]

        def add(item: Item, before: Item, values: Item, names: Names) -> None:
            attribute = names.get(target, str(target))
            number = _natural(added(before, values, names)) + _natural(before.get(attribute, {"N": "0"}))
            item[attribute] = {"N": str(number)}

        return add

    def _target(self) -> Path:
        path = self._attribute()
        if len(path) > _SURE_NAMES or not all(type(part) is str for part in path):
            raise UnusualError
        self.targets.append(path)
        return path

    def _sum(self) -> Evaluate:
        first = self._value()
        if self._kind() not in ("PLUS", "MINUS"):
            return first
        sign = 1 if self._take(self._kind()) == "+" else -1
        second = self._value()

        def add(*call: Any) -> Item:
            if (number := _natural(first(*call)) + sign * _natural(second(*call))) < 0:
                raise UnusualError
            return {"N": str(number)}

        return add

    def _value(self) -> Evaluate:
        if self._kind() == "IDENT" and self._tokens[self._at + 1][0] == "LPAREN":
            return self._function()
        if self._kind() == "VALUE_REF":
            return self._given()
        return self._existing(self._path())

    def _existing(self, path: Evaluate) -> Evaluate:
        def get(*call: Any) -> Any:
            if (found := path(*call)) is None:
                raise UnusualError
            return found

        return get

    def _function(self) -> Evaluate:
        function = self._take("IDENT")
        self._take("LPAREN")
        if function == "if_not_exists":
            path = self._path()
            self._take("COMMA")
            default = self._value()
            self._take("RPAREN")
            return lambda *call: default(*call) if (found := path(*call)) is None else found
        if function == "list_append":
            first = self._value()
            self._take("COMMA")
            second = self._value()
            self._take("RPAREN")
            return lambda *call: {"L": _list(first(*call)) + _list(second(*call))}
        raise UnusualError


def _parent(item: Item, path: Path, names: Names) -> tuple[Item | None, str]:
    """The map that has the path's last name, in a copy that is the item's own, and this name; None without the map."""
    first, *inner = (names.get(part, str(part)) for part in path)
    if not inner:
        return item, first
    if first not in item:
        return None, first
    found = item[first] = decode(encode(item[first]))
    for name in inner[:-1]:
        if (found := _entries(found).get(name)) is None:
            return None, name
    return _entries(found), inner[-1]


def _entries(value: Item) -> Item:
    if "M" not in value:
        raise UnusualError
    found: Item = value["M"]
    return found


def is_natural(text: Any) -> bool:
    """True for a number's text that DynamoDB stores as it is: digits, the first of which is not 0."""
    is_short = type(text) is str and 0 < len(text) <= _SURE_DIGITS and text.isascii() and text.isdigit()
    return is_short and (text[0] != "0" or text == "0")


def _natural(value: Item) -> int:
    if not is_natural(text := value.get("N")):
        raise UnusualError
    return int(text or 0)


def _list(value: Item) -> list[Any]:
    if "L" not in value:
        raise UnusualError
    found: list[Any] = value["L"]
    return found
