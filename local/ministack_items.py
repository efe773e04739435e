"""Keeps MiniStack's DynamoDB items in the state file: adds each change to it, and restores them from it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from local.state_file import StateFile

Table = dict[str, Any]
Item = dict[str, Any]

_SET = "INSERT INTO items VALUES (?, ?, ?) ON CONFLICT (owner, key) DO UPDATE SET item = excluded.item"
_REMOVE = "DELETE FROM items WHERE owner = ? AND key = ?"
_REMOVE_ALL = "DELETE FROM items WHERE owner = ?"


def table_id(table: Table) -> str:
    """An id that a table of the same name, created after this one is deleted, doesn't share."""
    found: str = table.setdefault("TableId", str(uuid4()))
    return found


class Items:
    """The items of all tables."""

    def __init__(self, file: StateFile, changed: set[str]) -> None:
        """changed: gets the id of each table that an item was changed in."""
        from ministack.services import dynamodb  # noqa: PLC0415 - MiniStack reads the environment when it is imported

        self._dynamodb = dynamodb
        self._file = file
        self._changed = changed

    def watch(self) -> None:
        """Has MiniStack add each change to the file from now on. Call it once, in the event loop's thread."""
        loop, thread = asyncio.get_running_loop(), threading.get_ident()
        set_item, remove_item = self._dynamodb._set_item, self._dynamodb._remove_item
        replaced = self._dynamodb._items_replaced

        def set_and_add(table: Table, pk: str, sk: str, item: Item) -> Any:
            before = set_item(table, pk, sk, item)
            self._add(table, pk, sk, item)
            return before

        def remove_and_add(table: Table, pk: str, sk: str) -> Any:
            if threading.get_ident() != thread:
                # MiniStack's thread for expired items, which must not remove one that a call changes meanwhile.
                loop.call_soon_threadsafe(remove_if_unchanged, table, pk, sk, _item(table, pk, sk))
                return None
            before = remove_item(table, pk, sk)
            self._changed.add(table_id(table))
            self._file.add(_REMOVE, table_id(table), _key(pk, sk))
            return before

        def remove_if_unchanged(table: Table, pk: str, sk: str, item: Item | None) -> None:
            if item is not None and _item(table, pk, sk) is item:
                remove_and_add(table, pk, sk)

        def replaced_and_add(table: Table) -> None:
            replaced(table)
            self._file.add(_REMOVE_ALL, table_id(table))
            self.add_all(table)

        self._dynamodb._set_item, self._dynamodb._remove_item = set_and_add, remove_and_add
        self._dynamodb._items_replaced = replaced_and_add

    def add_all(self, table: Table) -> None:
        """Adds all items of a table."""
        for pk, items in table["items"].items():
            for sk, item in items.items():
                self._add(table, pk, sk, item)

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Puts the stored items into these tables, which are given by their ids. Call it before `watch`."""
        for table in tables.values():
            table["items"] = defaultdict(dict)
        for owner, key, text in self._file.rows("SELECT owner, key, item FROM items ORDER BY rowid"):
            if owner in tables:
                pk, sk = json.loads(key)
                tables[owner]["items"][pk][sk] = json.loads(text)
        for table in tables.values():
            self._dynamodb._items_replaced(table)

    def forget(self, owner: str) -> None:
        """Adds the removal of a deleted table's items."""
        self._file.add(_REMOVE_ALL, owner)

    def _add(self, table: Table, pk: str, sk: str, item: Item) -> None:
        self._changed.add(table_id(table))
        self._file.add(_SET, table_id(table), _key(pk, sk), json.dumps(item))


def _item(table: Table, pk: str, sk: str) -> Item | None:
    found: Item | None = table["items"].get(pk, {}).get(sk)
    return found


def _key(pk: str, sk: str) -> str:
    return json.dumps((pk, sk))
