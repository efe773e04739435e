"""Deletes DynamoDB items that have expired, and the oldest records of finished tasks beyond a number.

MiniStack's own thread reads all items at once each minute, for which every call would wait.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from local.ministack_items import Table

#: Seconds between two cleanings of a table, and between two slices of one.
_CLEAN_SECONDS = 60.0
_SLICE_SECONDS = 0.01
#: Items of a slice: about a millisecond of CPU.
_SLICE = 1_000
_FINISHED = re.compile(rb'"state":\s*\{"S":\s*"(?:succeeded|failed|cancelled)"\}')
_COMPLETED = re.compile(rb'"completed_at":\s*\{"N":\s*"(\d+)"\}')
#: Milliseconds after its end for which a finished task's record stays in any case: longer than workers need it to
#: recognise a message that comes a second time.
_RECENT_MS = 900_000

log = logging.getLogger("emulator")

#: Partition key and sort key.
Key = tuple[str, str]


@contextmanager
def without_reaper() -> Iterator[None]:
    """Keeps MiniStack from starting its thread when its module is imported in this block."""
    start = threading.Thread.start

    def start_others(thread: threading.Thread) -> None:
        if thread.name != "dynamodb-ttl-reaper":
            start(thread)

    threading.Thread.start = start_others  # type: ignore
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore


class Cleaning:
    """Runs in the event loop, beside the calls."""

    def __init__(self, dynamodb: Any, store: Callable[[], bool], finished_at_most: int | None) -> None:
        """store: stores what changed. finished_at_most: None for any number of finished tasks."""
        self._dynamodb = dynamodb
        self._store = store
        self._finished_at_most = finished_at_most

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_CLEAN_SECONDS)
            try:
                await self.clean()
            except Exception:
                log.exception("a table was not cleaned")

    async def clean(self) -> None:
        """Cleans the tables whose items expire."""
        for scope, setting in list(self._dynamodb._ttl_settings.all_items()):
            table = self._dynamodb._tables.get_scoped(*scope)
            if table and setting.get("TimeToLiveStatus") == "ENABLED":
                await self._clean(table, setting["AttributeName"])

    async def _clean(self, table: Table, attribute: str) -> None:
        pattern = re.compile(rb'"%s":\s*\{"N":\s*"(\d+)"\}' % re.escape(attribute.encode()))
        ends, finished, now = array("q"), 0, time.time()
        async for key, text in self._items(table):
            if not (found := pattern.search(text)):
                continue
            if int(found[1]) <= now:
                self._remove(table, key, attribute, now)
            elif _FINISHED.search(text):
                finished += 1
                if not _is_recent(text, now):
                    ends.append(int(found[1]))
        if self._finished_at_most is not None and (more := min(len(ends), finished - self._finished_at_most)) > 0:
            last = sorted(ends)[more - 1]
            async for key, text in self._items(table):
                found = pattern.search(text)
                is_old = found and int(found[1]) <= last and _FINISHED.search(text) and not _is_recent(text, now)
                if more and is_old:
                    more -= 1
                    self._remove(table, key, attribute, last)

    async def _items(self, table: Table) -> Any:
        """Key and JSON of each item, in slices between which calls are answered."""
        keys = ((pk, sk) for pk in list(table["items"]) for sk in list(table["items"].get(pk, ())))
        while part := list(islice(keys, _SLICE)):
            for pk, sk in part:
                if (partition := table["items"].get(pk)) and sk in partition:
                    yield (pk, sk), partition.text(sk)
            self._store()
            await asyncio.sleep(_SLICE_SECONDS)

    def _remove(self, table: Table, key: Key, attribute: str, until: float) -> None:
        """Deletes the item if its own attribute, and not one of a map in it, is a time that has come."""
        pk, sk = key
        expires = table["items"][pk][sk].get(attribute, {}).get("N")
        if expires is not None and float(expires) <= until:
            self._dynamodb._remove_item(table, pk, sk)


def _is_recent(text: bytes, now: float) -> bool:
    found = _COMPLETED.search(text)
    return found is not None and int(found[1]) > now * 1000 - _RECENT_MS
