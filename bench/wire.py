"""Counts the requests that boto3 sends by kind, repeats included, and the write units that DynamoDB charges."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3

from chalicelib.aws.dynamodb_size import item_bytes, units_of_bytes, write_units

_WRITES = ("UpdateItem", "PutItem")


class Wire:
    """Create it before the clients that it counts."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        boto3.setup_default_session()
        events = boto3.DEFAULT_SESSION.events  # type: ignore[union-attr]
        events.register("before-send", self._sent)
        events.register("after-call.sqs.ReceiveMessage", self._received)
        events.register("after-call.dynamodb", self._written)
        events.register("provide-client-params.dynamodb", self._asked)
        self._asks = threading.local()

    @contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """Counts the requests sent during the block; complete when it ends."""
        with self._lock:
            before = Counter(self._counts)
        counted: Counter[str] = Counter()
        yield counted
        with self._lock:
            counted.update(self._counts - before)

    def _sent(self, event_name: str, **_others: Any) -> None:
        self._add(event_name.rpartition(".")[2])

    def _received(self, parsed: Mapping[str, Any], **_others: Any) -> None:
        if not parsed.get("Messages"):
            self._add("empty ReceiveMessage")

    def _asked(self, params: Mapping[str, Any], **_others: Any) -> None:
        self._asks.parameters = params

    def _written(self, parsed: Mapping[str, Any], model: Any, **_others: Any) -> None:
        """Adds write units, one per KB begun. An item that an update does not return is taken to be its values."""
        asked = self._asks.parameters
        if model.name in _WRITES:
            item = parsed.get("Attributes") or parsed.get("Item") or asked.get("Item")
            size = item_bytes(item) if item else item_bytes(asked["Key"]) + item_bytes(_named_values(asked))
            self._add("write units", units_of_bytes(size))
        if model.name == "BatchWriteItem":
            items = [one["PutRequest"]["Item"] for some in asked["RequestItems"].values() for one in some]
            self._add("write units", sum(map(write_units, items)))

    def _add(self, kind: str, count: int = 1) -> None:
        with self._lock:
            self._counts[kind] += count


def _named_values(asked: Mapping[str, Any]) -> dict[str, Any]:
    """An update's values under its names: as large as the item if the update sets all of it."""
    values = dict(asked.get("ExpressionAttributeValues", {}))
    return values | {name: {"BOOL": True} for name in asked.get("ExpressionAttributeNames", {}).values()}
