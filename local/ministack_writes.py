"""Answers usual UpdateItem and PutItem calls of DynamoDB for MiniStack, which checks each call some ten times.

The checks are the same: texts once for all calls that repeat them, values and the new item once for each call. A call
that is unusual or wrong goes to MiniStack's function before anything has changed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from local.ministack_expressions import reading_conditions
from local.ministack_items import Partitions, Table
from local.ministack_json import encode
from local.ministack_reader import CLAUSES, Evaluate, Item, Names, Path, UnusualError
from local.ministack_updates import Change, UpdateReader, is_natural

Call = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]
Handler = Callable[[Call], Answer]

_EXPRESSIONS = ("ConditionExpression", "UpdateExpression")
_VALUES, _NAMES = "ExpressionAttributeValues", "ExpressionAttributeNames"
_FIELDS = frozenset(
    ("TableName", "ReturnValues", "ReturnValuesOnConditionCheckFailure", *_EXPRESSIONS, _VALUES, _NAMES)
)
_UPDATE_FIELDS, _PUT_FIELDS = _FIELDS | {"Key"}, _FIELDS | {"Item"}
#: Characters of a key, and levels of maps and lists in a value, that DynamoDB surely takes.
_SURE_KEY, _SURE_LEVELS = 250, 10
#: Texts that are kept.
_CACHED = 20_000
#: Python's type of each usual type of value.
_TYPES = {"S": str, "N": str, "BOOL": bool, "L": list, "M": dict}
_HEADERS = {"Content-Type": "application/x-amz-json-1.0"}


@dataclass(frozen=True)
class Texts:
    """The expressions of a call."""

    condition: Evaluate | None
    changes: list[Change]
    #: the paths that change
    targets: list[Path]
    #: MiniStack's charge for the update is at most this, and the size of all values and names for each use of one
    charge: int
    uses: int

    def holds(self, item: Item, values: Item, names: Names) -> bool:
        return self.condition is None or self.condition(item, values, names)

    def changed(self, item: Item, key: Item, values: Item, names: Names) -> Item:
        """The item after the update. Raises UnusualError if it changes one path twice, or the key."""
        targets = {tuple(names.get(part, part) for part in path) for path in self.targets}
        attributes = {path[0] for path in targets}
        _require(len(targets) == len(self.targets) and attributes.isdisjoint(key))
        # Paths into one attribute have one length, so none leads to another.
        _require(len(attributes) == len({(path[0], len(path)) for path in targets}))
        after = dict(item or key)
        for change in self.changes:
            change(after, item, values, names)
        return after


def tune_writes(dynamodb: Any) -> None:
    """Applies the patches to MiniStack's module. Call it once."""
    writes = Writes(dynamodb)
    dynamodb._update_item = _usually(writes.update, dynamodb._update_item)
    dynamodb._put_item = _usually(writes.put, dynamodb._put_item)


def _usually(answer: Handler, otherwise: Handler) -> Handler:
    def answer_call(call: Call) -> Answer:
        try:
            return answer(call)
        except UnusualError:
            return otherwise(call)

    return answer_call


class Writes:
    """The calls; each raises UnusualError if MiniStack shall answer."""

    def __init__(self, dynamodb: Any) -> None:
        self._dynamodb = dynamodb
        self._condition = reading_conditions(dynamodb)
        self._read = functools.lru_cache(_CACHED)(self._read_texts)
        self._most = dynamodb._DDB_ITEM_MAX_BYTES

    def update(self, call: Call) -> Answer:
        table, key, wanted = self._table(call, _UPDATE_FIELDS), _map(call, "Key"), call.get("ReturnValues", "NONE")
        texts, given = self._texts(call), (_map(call, _VALUES), _map(call, _NAMES))
        _require(len(key) == len(_key_names(table)) and wanted in ("NONE", "ALL_NEW"))
        _require(texts.charge + texts.uses * len(encode(given)) <= self._most)
        before = _item(table, *(keys := self._key(table, key)))
        if not texts.holds(before, *given):
            return self._refusal(call, before)
        text = self._set(table, keys, before, texts.changed(before, key, *given), is_update=True)
        return 200, dict(_HEADERS), b'{"Attributes":%s}' % text if wanted == "ALL_NEW" else b"{}"

    def put(self, call: Call) -> Answer:
        table, texts, item = self._table(call, _PUT_FIELDS), self._texts(call), _map(call, "Item")
        _require(not texts.changes and call.get("ReturnValues", "NONE") == "NONE")
        _require(all(map(_is_usual, item.values())))
        before = _item(table, *(keys := self._key(table, item)))
        if not texts.holds(before, _map(call, _VALUES), _map(call, _NAMES)):
            return self._refusal(call, before)
        self._set(table, keys, before, item, is_update=False)
        return 200, dict(_HEADERS), b"{}"

    def _table(self, call: Call, fields: frozenset[str]) -> Table:
        """The table of a call with these fields, if its writes change nothing but its items and indexes."""
        _require(type(call) is dict and call.keys() <= fields and type(name := call.get("TableName")) is str)
        table: Table = self._dynamodb._tables.get(name)
        _require(table and isinstance(table["items"], Partitions))
        _require(not any(map(table.get, ("StreamSpecification", "VectorIndexes", "_global_regions"))))
        _require(not self._dynamodb._kinesis_destinations.get(name))
        return table

    def _texts(self, call: Call) -> Texts:
        names, values = _map(call, _NAMES), _map(call, _VALUES)
        texts = (call[field] for field in _EXPRESSIONS if field in call)
        _require(all(type(text) is str and text for text in (*texts, *names.values())))
        _require(all(map(_is_usual, values.values())))
        texts = (call.get(field, "") for field in _EXPRESSIONS)
        if (found := self._read(*texts, tuple(names), tuple(values))) is None:
            raise UnusualError
        return found

    def _read_texts(self, condition: str, update: str, names: tuple[str, ...], values: tuple[str, ...]) -> Texts | None:
        fields: Call = {"ConditionExpression": condition, "UpdateExpression": update}
        fields |= {_NAMES: dict.fromkeys(names, "a"), _VALUES: dict.fromkeys(values, True)}
        call = {field: given for field, given in fields.items() if given}
        try:
            _require(all(name.startswith("#") for name in names))
            _require(not self._dynamodb._single_write_request_error(call))
            _require(not self._dynamodb._validate_expression_attrs(call, _EXPRESSIONS, "envelope"))
            read = self._condition(condition, "ConditionExpression") if condition else None
            _require(read or not condition)
            return self._read_update(read, update)
        except UnusualError:
            return None

    def _read_update(self, condition: Evaluate | None, text: str) -> Texts:
        tokens = self._dynamodb._tokenize(text)
        attributes = [token for token in tokens if token[1] not in CLAUSES]
        _require(not self._dynamodb._check_reserved_keyword_usage(attributes))
        reader = UpdateReader(tokens, self._dynamodb)
        changes = reader.update()
        return Texts(condition, changes, reader.targets, 3 + 64 * len(text), text.count(":") + text.count("#"))

    def _key(self, table: Table, attributes: Item) -> tuple[str, str]:
        texts = []
        for name in _key_names(table):
            _require(_is_usual(value := attributes.get(name, {})) and self._dynamodb._get_attr_type(table, name) == "S")
            texts.append(text := value.get("S", ""))
            _require(0 < len(text) <= _SURE_KEY)
        return texts[0], texts[1] if texts[1:] else "__no_sort__"

    def _refusal(self, call: Call, before: Item) -> Answer:
        refusal: Answer = self._dynamodb._conditional_check_failed(call, before)
        return refusal

    def _set(self, table: Table, key: tuple[str, str], before: Item, item: Item, *, is_update: bool) -> bytes:
        _require(len(text := encode(item)) <= self._most)
        if not before or any(before.get(name) != item.get(name) for name in _index_names(table)):
            _require(not self._dynamodb._validate_index_key_values(table, item, is_update))
        self._dynamodb._set_item(table, *key, item)
        return text


def _require(condition: Any) -> None:
    if not condition:
        raise UnusualError


def _map(call: Call, field: str) -> dict[str, Any]:
    """A map that the call has, and that is not empty; an empty one if it lacks the field."""
    found: dict[str, Any] = call.get(field, {})
    _require(type(found) is dict and (found or field not in call))
    return found


def _is_usual(value: Any, levels: int = _SURE_LEVELS) -> bool:
    """True for a value of an item that DynamoDB surely takes, and stores as it is."""
    if type(value) is not dict or len(value) != 1:
        return False
    ((kind, given),) = value.items()
    if _TYPES.get(kind) is not type(given):
        return False
    if kind in ("L", "M"):
        parts: Any = given if kind == "L" else value[kind].values()
        return levels > 0 and all(_is_usual(part, levels - 1) for part in parts)
    return kind != "N" or is_natural(given)


def _item(table: Table, pk: str, sk: str) -> Item:
    """The item with this key; an empty map if there is none."""
    items = table["items"].get(pk)
    found: Item = items.get(sk, {}) if items else {}
    return found


def _key_names(table: Table) -> list[str]:
    return [name for name in (table["pk_name"], table["sk_name"]) if name]


def _index_names(table: Table) -> Iterator[str]:
    """Attributes that are keys of the table's indexes."""
    for kind in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes"):
        for index in table.get(kind) or ():
            yield from (key["AttributeName"] for key in index["KeySchema"])
