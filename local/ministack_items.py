"""Keeps MiniStack's DynamoDB items in the state file: adds each change to it, and restores them from it.

In memory an item is the JSON that the file has, a fifth of the size of Python's dictionaries, and is decoded at each
read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

from local.ministack_json import decode, encode
from local.state_file import StateFile

Table = dict[str, Any]
Item = dict[str, Any]

_SET = "INSERT INTO items VALUES (?, ?, ?) ON CONFLICT (owner, key) DO UPDATE SET item = excluded.item"
_REMOVE = "DELETE FROM items WHERE owner = ? AND key = ?"
_REMOVE_ALL = "DELETE FROM items WHERE owner = ?"


def table_id(table: Table) -> str:
    """An id that a table of the same name, created after this one is deleted, doesn't share."""
    if "TableId" not in table:
        table["TableId"] = str(uuid4())
    found: str = table["TableId"]
    return found


class Partition(dict[str, Any]):
    """The items of one partition key by sort key, as JSON. Each read decodes an item anew."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Item:
        item: Item = decode(super().__getitem__(key))
        return item

    def __setitem__(self, key: str, item: Item) -> None:
        super().__setitem__(key, encode(item))

    def get(self, key: str, default: Any = None) -> Any:
        text = super().get(key)
        return default if text is None else decode(text)

    def pop(self, key: str, *default: Any) -> Any:
        text = super().pop(key, *default)
        return decode(text) if isinstance(text, bytes) else text

    def items(self) -> Any:
        return ((key, decode(text)) for key, text in super().items())

    def values(self) -> Any:
        return map(decode, super().values())

    def texts(self) -> Iterable[tuple[str, bytes]]:
        return super().items()

    def text(self, key: str) -> bytes:
        found: bytes = super().__getitem__(key)
        return found

    def set_text(self, key: str, text: bytes) -> None:
        super().__setitem__(key, text)


class Partitions(dict[str, Partition]):
    """A table's items by partition key."""

    __slots__ = ()

    def __missing__(self, key: str) -> Partition:
        self[key] = partition = Partition()
        return partition

    def setdefault(self, key: str, _default: Any = None) -> Partition:
        return self[key]


class Items:
    """The items of all tables."""

    def __init__(self, file: StateFile, changed: set[str]) -> None:
        """changed: gets the id of each table that an item was changed in."""
        from ministack.services import dynamodb  # noqa: PLC0415 - MiniStack reads the environment when it is imported

        self._dynamodb = dynamodb
        self._file = file
        self._changed = changed

    def watch(self) -> None:
        """Has MiniStack add each change to the file from now on. Call it once."""
        set_item, remove_item = self._dynamodb._set_item, self._dynamodb._remove_item
        replaced = self._dynamodb._items_replaced
        self._dynamodb._index_members = self._indexing(self._dynamodb._index_members)

        def set_and_add(table: Table, pk: str, sk: str, item: Item) -> Any:
            before = set_item(_with_texts(table), pk, sk, item)
            self._add(table, pk, sk, table["items"][pk].text(sk))
            return before

        def remove_and_add(table: Table, pk: str, sk: str) -> Any:
            before = remove_item(table, pk, sk)
            self._changed.add(table_id(table))
            self._file.add(_REMOVE, table_id(table), _key(pk, sk))
            return before

        def replaced_and_add(table: Table) -> None:
            replaced(table)
            self._file.add(_REMOVE_ALL, table_id(table))
            self.add_all(table)

        self._dynamodb._set_item, self._dynamodb._remove_item = set_and_add, remove_and_add
        self._dynamodb._items_replaced = replaced_and_add

    def add_all(self, table: Table) -> None:
        """Adds all items of a table."""
        for pk, items in _with_texts(table)["items"].items():
            for sk, text in items.texts():
                self._add(table, pk, sk, text)

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Puts the stored items into these tables, which are given by their ids. Call it before `watch`."""
        for table in tables.values():
            table["items"] = Partitions()
        for owner, key, text in self._file.rows("SELECT owner, key, CAST(item AS BLOB) FROM items ORDER BY rowid"):
            if owner in tables:
                pk, sk = decode(key)
                tables[owner]["items"][pk].set_text(sk, text)
        for table in tables.values():
            self._dynamodb._items_replaced(table)

    def forget(self, owner: str) -> None:
        """Adds the removal of a deleted table's items."""
        self._file.add(_REMOVE_ALL, owner)

    def _indexing(self, members: Any) -> Any:
        """Reads only items that have an index's key for a new index: few do."""

        def index(table: Table) -> Any:
            if table.get(self._dynamodb._INDEX_MEMBERS) is not None:
                return members(table)
            names = [encode(hashes[0]) for _, hashes, _ in self._dynamodb._index_key_schemas(table)]
            some = {
                pk: {sk: partition[sk] for sk, text in partition.texts() if any(name in text for name in names)}
                for pk, partition in _with_texts(table)["items"].items()
            }
            found = members(seen := {**table, "items": some})
            table[self._dynamodb._INDEX_MEMBERS] = seen[self._dynamodb._INDEX_MEMBERS]
            return found

        return index

    def _add(self, table: Table, pk: str, sk: str, text: bytes) -> None:
        self._changed.add(table_id(table))
        self._file.add(_SET, table_id(table), _key(pk, sk), text.decode())


def _with_texts(table: Table) -> Table:
    """Replaces the dictionaries that MiniStack made, as when it creates or restores a table."""
    if not isinstance(table["items"], Partitions):
        before, table["items"] = table["items"], Partitions()
        for pk, items in before.items():
            for sk, item in items.items():
                table["items"][pk][sk] = item
    return table


def _key(pk: str, sk: str) -> str:
    return json.dumps((pk, sk))
