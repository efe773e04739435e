"""Keeps MiniStack's state in the state file: restores it, and adds what each call changed.

Items and messages are added one by one. What is left of the services (stacks, tables and queues without their contents,
alarms) is small: it is compared as a whole, after each call that may change it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from local.ministack_items import Items, Table, table_id
from local.ministack_messages import Messages, Queue, queue_id
from local.state_file import StateFile, StateFileError

#: Calls that change items and messages only, by the end of their X-Amz-Target.
_CONTENT_CALLS = frozenset(
    {
        *("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan"),
        *("BatchGetItem", "BatchWriteItem", "TransactGetItems", "TransactWriteItems"),
        *("SendMessage", "SendMessageBatch", "ReceiveMessage", "DeleteMessage", "DeleteMessageBatch"),
        *("ChangeMessageVisibility", "ChangeMessageVisibilityBatch", "GetQueueAttributes"),
    }
)
#: How a stack goes on whose creation, update or deletion ended with the process: CloudFormation then accepts the next.
_INTERRUPTED = {
    "CREATE_IN_PROGRESS": "CREATE_FAILED",
    "ROLLBACK_IN_PROGRESS": "ROLLBACK_FAILED",
    "DELETE_IN_PROGRESS": "DELETE_FAILED",
}
_SERVICE = "INSERT OR REPLACE INTO services VALUES (?, ?)"

log = logging.getLogger("emulator")


class MinistackState:
    """All of MiniStack's state."""

    def __init__(self, file: StateFile) -> None:
        from ministack import app  # noqa: PLC0415 - MiniStack reads the environment when it is imported
        from ministack.core import persistence  # noqa: PLC0415
        from ministack.services import cloudformation, dynamodb, sqs  # noqa: PLC0415

        self._app, self._persistence = app, persistence
        self._cloudformation, self._dynamodb, self._sqs = cloudformation, dynamodb, sqs
        self._file = file
        #: tables and queues whose contents changed since the last `add_services`
        self._changed: set[str] = set()
        #: tables and queues in the file
        self._owners: set[str] = set()
        self._services: dict[str, str] = {}
        #: the last attempt to store changes failed
        self.is_failing = False
        self._items = Items(file, self._changed)
        self._messages = Messages(file, self._changed, self.is_stored)

    def restore(self, older: Path) -> None:
        """Restores what is stored, or takes over what an earlier version saved in the folder `older`.

        Then has MiniStack add each change to the file. Raises StateFileError if the state can't be taken over.
        """
        is_new = self._file.is_new
        saved = self._take_over(older) if is_new else self._restore()
        self._end_interrupted_stacks()
        self._items.watch()
        self._messages.watch()
        self.add_services()
        if is_new:
            self._file.add_version()
            self._file.store()
        for path in saved:
            path.unlink()

    def is_stored(self) -> bool:
        """Stores the changes that wait; returns False where that is impossible."""
        try:
            self._file.store()
        except StateFileError as error:
            if not self.is_failing:
                log.error("the state can't be stored, so every call is answered 503: %s", error)
            self.is_failing = True
            return False
        if self.is_failing:
            log.error("the state is stored again")
        self.is_failing = False
        return True

    def is_call_stored(self, target: str) -> bool:
        """The same after a call of this X-Amz-Target, which is empty for older protocols."""
        if target.rpartition(".")[2] not in _CONTENT_CALLS:
            self.add_services()
        return self.are_calls_stored()

    def are_calls_stored(self) -> bool:
        """The same after calls that change items and messages only."""
        if not self._changed <= self._owners:
            self.add_services()
        return self.is_stored()

    def add_services(self) -> None:
        """Adds what changed apart from items and messages."""
        for name, text in self._service_texts():
            if self._services.get(name) != text:
                self._services[name] = text
                self._file.add(_SERVICE, name, text)
        tables, queues = self._tables(), self._queues()
        for owner in self._owners - tables.keys() - queues.keys():
            self._items.forget(owner)
            self._messages.forget(owner)
        for owner in tables.keys() - self._owners:
            self._items.add_all(tables[owner])
        for owner in queues.keys() - self._owners:
            self._messages.add_all(queues[owner])
        self._owners = {*tables, *queues}
        self._changed.clear()

    def _restore(self) -> list[Path]:
        for name, text in self._file.rows("SELECT name, state FROM services"):
            self._services[name] = text
            self._load(name, json.loads(text, object_hook=self._persistence._json_object_hook))
        tables, queues = self._tables(), self._queues()
        self._items.restore(tables)
        self._messages.restore(queues)
        self._owners = {*tables, *queues}
        return []

    def _take_over(self, older: Path) -> list[Path]:
        """Loads the files that MiniStack itself saved; returns them."""
        self._persistence.PERSIST_STATE, self._persistence.STATE_DIR = True, str(older)
        paths = []
        for name in self._app._state_map:
            path = older / f"{name}.json"
            state = self._persistence.load_state(name)
            if state is None and path.exists():
                raise StateFileError(f"{path} can't be read")
            if state is not None:
                paths.append(path)
                self._load(name, state)
        self._persistence.PERSIST_STATE = False
        return paths

    def _load(self, name: str, state: Any) -> None:
        module: ModuleType = self._app._get_module(self._app._state_map[name])
        module.load_persisted_state(state)

    def _end_interrupted_stacks(self) -> None:
        for stack in self._cloudformation._stacks.all_values():
            status = stack["StackStatus"]
            if status.endswith("_IN_PROGRESS"):
                stack["StackStatus"] = _INTERRUPTED.get(status, "UPDATE_ROLLBACK_COMPLETE")

    def _service_texts(self) -> Iterator[tuple[str, str]]:
        with self._without_contents():
            for name, get_state in self._app._build_persistence_save_dict().items():
                state = get_state()
                if state is not None:
                    yield name, json.dumps(state, default=self._persistence._json_default)

    @contextmanager
    def _without_contents(self) -> Iterator[None]:
        """Lets MiniStack's own `get_state` copy tables and queues without items, messages and counts of them."""
        tables, queues = self._dynamodb._tables, self._sqs._queues
        with self._dynamodb._lock:  # against the thread that removes expired items
            self._dynamodb._tables, self._sqs._queues = _emptied(tables, _empty_table), _emptied(queues, _empty_queue)
            try:
                yield
            finally:
                self._dynamodb._tables, self._sqs._queues = tables, queues

    def _tables(self) -> Mapping[str, Table]:
        return {table_id(table): table for table in self._dynamodb._tables.all_values()}

    def _queues(self) -> Mapping[str, Queue]:
        return {queue_id(queue): queue for queue in self._sqs._queues.all_values()}


def _emptied(scoped: Any, empty: Any) -> Any:
    copy = type(scoped)()
    copy._data.update({key: empty(value) for key, value in scoped.all_items()})
    return copy


def _empty_table(table: Table) -> Table:
    return {**table, "TableId": table_id(table), "items": {}, "ItemCount": 0, "TableSizeBytes": 0}


def _empty_queue(queue: Queue) -> Queue:
    kept = {name: value for name, value in queue["attributes"].items() if not name.startswith("Approximate")}
    empty = {"attributes": kept, "messages": [], "dedup_cache": {}, "fifo_seq": 0}
    return {**queue, "state_id": queue_id(queue), **empty}
