"""Keeps MiniStack's SQS messages in the state file: adds each change to it, and restores them from it.

A message keeps its visibility, its receipt handle and its count of receives, so a group stays blocked by a message in
flight; a queue keeps its deduplication ids and its sequence number.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import uuid4

from local.ministack_json import encode
from local.state_file import StateFile

Queue = dict[str, Any]
Message = dict[str, Any]
Call = dict[str, Any]
Answer = dict[str, Any]
Handler = Callable[[Call, str], Answer]

#: Message fields in columns of their own, since receives change them.
_COLUMNS = ("receipt_handle", "visible_at", "first_receive_at", "receive_count")

_SEND = "INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)"
_RECEIVE = "UPDATE messages SET handle = ?, visible_at = ?, first_receive_at = ?, receive_count = ? WHERE row = ?"
_HIDE = "UPDATE messages SET visible_at = ? WHERE handle = ?"
_DELETE = "DELETE FROM messages WHERE handle = ?"
_REMOVE = "DELETE FROM messages WHERE row = ?"
_PURGE = "DELETE FROM messages WHERE owner = ?"
_COUNT = "INSERT OR REPLACE INTO queues VALUES (?, ?)"
_DEDUPLICATE = "INSERT INTO duplicates VALUES (?, ?, ?, ?)"
_PRUNE = "DELETE FROM duplicates WHERE expires <= ?"
_MESSAGES = "SELECT owner, handle, visible_at, first_receive_at, receive_count, row, message FROM messages ORDER BY row"


def queue_id(queue: Queue) -> str:
    """An id that a queue of the same name, created after this one is deleted, doesn't share."""
    if "state_id" not in queue:
        queue["state_id"] = str(uuid4())
    found: str = queue["state_id"]
    return found


class Messages:
    """The messages of all queues."""

    def __init__(self, file: StateFile, changed: set[str], is_stored: Callable[[], bool]) -> None:
        """changed: gets the id of each queue that got a message.

        is_stored: stores the changes that wait; returns False where that is impossible.
        """
        from ministack.services import sqs  # noqa: PLC0415 - MiniStack reads the environment when it is imported

        self._sqs = sqs
        self._file = file
        self._changed = changed
        self._is_stored = is_stored
        self._last_row = 0

    def watch(self) -> None:
        """Has MiniStack add each change to the file from now on. Call it once."""
        sqs = self._sqs
        sqs._act_send_message = self._watching_send(sqs._act_send_message)  # also called for each message of a batch
        sqs._collect_msgs = self._watching_receive(sqs._collect_msgs)
        sqs._expire_retained = self._watching_expiry(sqs._expire_retained)
        sqs._dlq_sweep = self._watching_dead_letters(sqs._dlq_sweep)
        sqs._prune_dedup = self._watching_pruning(sqs._prune_dedup)
        handlers = sqs._HANDLERS
        handlers["SendMessage"] = sqs._act_send_message
        handlers["PurgeQueue"] = self._watching_purge(handlers["PurgeQueue"])
        for action, add in (("DeleteMessage", self._add_deletion), ("ChangeMessageVisibility", self._add_visibility)):
            handlers[action] = _watching(handlers[action], add)
            handlers[f"{action}Batch"] = _watching_batch(handlers[f"{action}Batch"], add)

    def add_all(self, queue: Queue) -> None:
        """Adds all messages of a queue, its deduplication ids and its sequence number."""
        for message in queue["messages"]:
            self._add_message(queue, message)
        for key in queue["dedup_cache"]:
            self._add_duplicate(queue, key)
        self._file.add(_COUNT, queue_id(queue), queue["fifo_seq"])

    def restore(self, queues: Mapping[str, Queue]) -> None:
        """Puts the stored messages into these queues, which are given by their ids. Call it before `watch`."""
        for owner, fifo_seq in self._file.rows("SELECT owner, fifo_seq FROM queues"):
            if owner in queues:
                queues[owner]["fifo_seq"] = fifo_seq
        for owner, key, text in self._file.rows("SELECT owner, key, entry FROM duplicates ORDER BY rowid"):
            if owner in queues:
                entry = json.loads(text)
                queues[owner]["dedup_cache"][json.loads(key)] = entry
                queues[owner]["fifo_seq"] = max(queues[owner]["fifo_seq"], int(entry["seq"]))
        for owner, *columns, row, text in self._file.rows(_MESSAGES):
            self._last_row = row
            if owner in queues:
                message = {**json.loads(text), **dict(zip(_COLUMNS, columns, strict=True)), "row": row}
                queues[owner]["messages"].append(message)

    def forget(self, owner: str) -> None:
        """Adds the removal of all that a deleted queue had."""
        for table in ("messages", "duplicates", "queues"):
            self._file.add(f"DELETE FROM {table} WHERE owner = ?", owner)  # noqa: S608 - names of our own

    def _watching_send(self, send: Handler) -> Handler:
        def send_and_add(data: Call, url: str) -> Answer:
            queue = self._sqs._get_q(data.get("QueueUrl", url))
            count = len(queue["messages"])
            answer = send(data, url)
            if len(queue["messages"]) > count:
                self._add_sent(queue, queue["messages"][-1])
            return answer

        return send_and_add

    def _watching_receive(self, collect: Callable[..., list[Message]]) -> Callable[..., list[Message]]:
        def collect_and_add(queue: Queue, *limits: int) -> list[Message]:
            if not self._is_stored():
                return []  # what can't be stored can't be shown
            messages = collect(queue, *limits)
            for message in messages:
                if "row" in message:
                    self._file.add(_RECEIVE, *(message[name] for name in _COLUMNS), message["row"])
                else:
                    self._add_message(queue, message)
            return messages

        return collect_and_add

    def _watching_expiry(self, expire: Callable[[Queue], None]) -> Callable[[Queue], None]:
        def expire_and_add(queue: Queue) -> None:
            before = queue["messages"]
            expire(queue)
            self._add_removals(before, queue["messages"])

        return expire_and_add

    def _watching_dead_letters(self, sweep: Callable[[Queue], None]) -> Callable[[Queue], None]:
        def sweep_and_add(queue: Queue) -> None:
            before = queue["messages"]
            sweep(queue)
            moved = len(before) - len(queue["messages"])
            if moved:
                self._add_removals(before, queue["messages"])
                target = json.loads(queue["attributes"]["RedrivePolicy"])["deadLetterTargetArn"]
                dead_letters = self._sqs._queue_by_arn(target)
                for message in dead_letters["messages"][-moved:]:
                    del message["row"]
                    self._add_message(dead_letters, message)

        return sweep_and_add

    def _watching_pruning(self, prune: Callable[[Queue], None]) -> Callable[[Queue], None]:
        def prune_and_add(queue: Queue) -> None:
            prune(queue)
            # Deduplication ids also keep the sequence number, but not once they are pruned.
            self._file.add(_COUNT, queue_id(queue), queue["fifo_seq"])
            self._file.add(_PRUNE, time.time())

        return prune_and_add

    def _watching_purge(self, purge: Handler) -> Handler:
        def purge_and_add(data: Call, url: str) -> Answer:
            answer = purge(data, url)
            self._file.add(_PURGE, queue_id(self._sqs._get_q(data.get("QueueUrl", url))))
            return answer

        return purge_and_add

    def _add_sent(self, queue: Queue, message: Message) -> None:
        self._add_message(queue, message)
        if message["dedup_cache_key"]:
            self._add_duplicate(queue, message["dedup_cache_key"])

    def _add_message(self, queue: Queue, message: Message) -> None:
        if "row" not in message:
            self._last_row += 1
            message["row"] = self._last_row
        self._changed.add(queue_id(queue))
        columns = (message.get(name) for name in _COLUMNS)
        self._file.add(_SEND, message["row"], queue_id(queue), *columns, encode(message).decode())

    def _add_duplicate(self, queue: Queue, key: str) -> None:
        entry = queue["dedup_cache"][key]
        texts = (encode(one).decode() for one in (key, entry))
        self._file.add(_DEDUPLICATE, queue_id(queue), entry["expire"], *texts)

    def _add_removals(self, before: Iterable[Message], after: Iterable[Message]) -> None:
        if after is before:
            return
        kept = {message["id"] for message in after}
        for message in before:
            if message["id"] not in kept and "row" in message:
                self._file.add(_REMOVE, message["row"])

    def _add_deletion(self, data: Call) -> None:
        self._file.add(_DELETE, data["ReceiptHandle"])

    def _add_visibility(self, data: Call) -> None:
        self._file.add(_HIDE, time.time() + int(data.get("VisibilityTimeout", 30)), data["ReceiptHandle"])


def _watching(handler: Handler, add: Callable[[Call], None]) -> Handler:
    def handle_and_add(data: Call, url: str) -> Answer:
        answer = handler(data, url)
        add(data)
        return answer

    return handle_and_add


def _watching_batch(handler: Handler, add: Callable[[Call], None]) -> Handler:
    def handle_and_add(data: Call, url: str) -> Answer:
        answer = handler(data, url)
        done = {entry["Id"] for entry in answer["Successful"]}
        for entry in data["Entries"]:
            if entry["Id"] in done:
                add(entry)
        return answer

    return handle_and_add
