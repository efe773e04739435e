"""Copies records of finished tasks in the emulator's state file, while no emulator has it open.

A hundred tasks a second could be run instead. A copy differs from what the run of its task would have stored in its id,
seq and times alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

Item = dict[str, Any]
Row = tuple[str, str, str]
#: Milliseconds between two tasks of a user: one of `1/second`.
_BETWEEN_MS = 1_000
_TIMES = ("planned_at", "submitted_at", "started_at", "completed_at")
_COUNTS = ("admitted", "started_seq", "started")


def multiply(state_file: Path, users: str, tasks: int) -> None:
    """Gives each user whose id begins so, and whose one task has finished, this many finished tasks."""
    with closing(sqlite3.connect(state_file)) as db, db:
        rows = db.execute("SELECT owner, key, item FROM items WHERE key LIKE ?", (f'["{users}%',)).fetchall()
        for row in rows:
            db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", _multiplied(row, tasks))


def _multiplied(row: Row, tasks: int) -> Iterator[Row]:
    owner, key, text = row
    item = json.loads(text)
    if "state" in item:
        assert item["state"] == {"S": "succeeded"}, f"a task of {key} has not finished"
        yield from ((owner, *_stored(_copy(item, n, tasks))) for n in range(tasks))
    elif "admitted" in item:
        yield owner, key, _json(item | {name: {"N": str(tasks)} for name in _COUNTS})


def _copy(record: Item, n: int, tasks: int) -> Item:
    """The record of the last of a user's tasks, copied as that of number `n` of them, from 0 on."""
    earlier_ms = (tasks - 1 - n) * _BETWEEN_MS
    milliseconds_in_id = UUID(record["item"]["S"]).int - (earlier_ms << 80)
    times = {name: {"N": str(int(record[name]["N"]) - earlier_ms)} for name in _TIMES}
    expires = {"N": str(int(record["expires_at"]["N"]) - earlier_ms // 1000)}
    names = {"item": {"S": str(UUID(int=milliseconds_in_id))}, "seq": {"N": str(n + 1)}, "expires_at": expires}
    return record | times | names


def _stored(item: Item) -> tuple[str, str]:
    return json.dumps((item["user_id"]["S"], item["item"]["S"])), _json(item)


def _json(item: Item) -> str:
    return json.dumps(item, separators=(",", ":"), ensure_ascii=False)
