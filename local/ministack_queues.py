"""Has MiniStack's calls use the index of a FIFO queue's messages, with the same results.

MiniStack itself looks at every message of the queue for each receive, deletion and change of visibility.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from local.ministack_groups import GroupedMessages, Message, Queue

Call = dict[str, Any]
Answer = dict[str, Any]
#: MiniStack's handler of a call, with the queue's URL.
Handler = Callable[[Call, str], Answer]
_UNKNOWN_HANDLE = {
    "Code": "ReceiptHandleIsInvalid",
    "Message": "The input receipt handle is invalid.",
    "SenderFault": True,
}


def index_groups(sqs: Any) -> None:
    """Has MiniStack's module use the index. Call it before anything else replaces its functions."""
    sqs._get_q = _indexing(sqs._get_q, sqs)
    sqs._collect_msgs = _taking(sqs._collect_msgs)
    sqs._prune_dedup = _pruning(sqs)
    handlers = sqs._HANDLERS
    for action, change in (("DeleteMessage", _delete), ("ChangeMessageVisibility", _hide)):
        handlers[action] = _one(sqs, action, handlers[action], change)
        handlers[f"{action}Batch"] = _each(sqs, action, handlers[f"{action}Batch"], change)


def narrow_cleaning(sqs: Any) -> None:
    """Has MiniStack's module clean only what may need it. Call it after whatever else replaces these functions."""
    sqs._expire_retained = _narrowed(sqs._expire_retained, GroupedMessages.oldest, is_repeated=True)
    sqs._dlq_sweep = _narrowed(sqs._dlq_sweep, GroupedMessages.received)
    sqs._refresh_counts = _counting(sqs._refresh_counts, sqs)


def _indexing(get_queue: Callable[..., Queue], sqs: Any) -> Callable[..., Queue]:
    def get_indexed(url: str, action: str | None = None) -> Queue:
        queue = get_queue(url, action)
        if queue["is_fifo"] and not isinstance(queue["messages"], GroupedMessages):
            queue["messages"] = GroupedMessages(queue["messages"], sqs)
        return queue

    return get_indexed


def _taking(collect: Callable[..., list[Message]]) -> Callable[..., list[Message]]:
    def take(queue: Queue, most: int, hide_seconds: int) -> list[Message]:
        messages = queue["messages"]
        if isinstance(messages, GroupedMessages):
            return messages.take(most, hide_seconds)
        return collect(queue, most, hide_seconds)

    return take


def _pruning(sqs: Any) -> Callable[[Queue], None]:
    def prune(queue: Queue) -> None:
        """Ids expire in the order in which they came."""
        ids, now = queue["dedup_cache"], sqs.time.time()
        while ids and ids[first := next(iter(ids))]["expire"] <= now:
            del ids[first]

    return prune


def _delete(messages: GroupedMessages, message: Message, _call: Call, _sqs: Any) -> None:
    messages.remove(message)


def _hide(messages: GroupedMessages, message: Message, call: Call, sqs: Any) -> None:
    seconds = int(call.get("VisibilityTimeout", 30))
    messages.hide(message, seconds)
    if seconds == 0:
        sqs.esm_wake.set()


def _one(sqs: Any, action: str, handler: Handler, change: Callable[..., None]) -> Handler:
    def change_one(call: Call, url: str) -> Answer:
        messages = sqs._get_q(call.get("QueueUrl", url), f"sqs:{action}")["messages"]
        handle = call.get("ReceiptHandle", "")
        message = messages.find(handle) if isinstance(messages, GroupedMessages) else None
        if message is None:  # or MiniStack refuses the handle
            return handler(call, url)
        change(messages, message, call, sqs)
        return {}

    return change_one


def _each(sqs: Any, action: str, handler: Handler, change: Callable[..., None]) -> Handler:
    def change_each(call: Call, url: str) -> Answer:
        messages = sqs._get_q(call.get("QueueUrl", url), f"sqs:{action}")["messages"]
        if not isinstance(messages, GroupedMessages):
            return handler(call, url)
        entries = call.get("Entries", [])
        sqs._validate_batch_entries(entries, f"{action}BatchRequestEntry")
        answer: Answer = {"Successful": [], "Failed": []}
        for entry in entries:
            message = messages.find(entry.get("ReceiptHandle", ""))
            if message is None:
                answer["Failed"].append({"Id": entry.get("Id", ""), **_UNKNOWN_HANDLE})
            else:
                change(messages, message, entry, sqs)
                answer["Successful"].append({"Id": entry.get("Id", "")})
        return answer

    return change_each


def _narrowed(
    clean: Callable[[Queue], None], choose: Callable[[GroupedMessages], list[Message]], *, is_repeated: bool = False
) -> Callable[[Queue], None]:
    """Lets `clean` see only these messages of the queue, again and again while it removes some."""

    def clean_chosen(queue: Queue) -> None:
        messages = queue["messages"]
        if not isinstance(messages, GroupedMessages):
            clean(queue)
            return
        while chosen := choose(messages):
            clean(seen := {**queue, "messages": chosen})
            kept = {id(message) for message in seen["messages"]}
            removed = [message for message in chosen if id(message) not in kept]
            for message in removed:
                messages.remove(message)
            if not removed or not is_repeated:
                break

    return clean_chosen


def _counting(refresh: Callable[[Queue], None], sqs: Any) -> Callable[[Queue], None]:
    """Counts only the messages that may be hidden; all others are visible."""

    def count_hidden(queue: Queue) -> None:
        messages = queue["messages"]
        if not isinstance(messages, GroupedMessages):
            refresh(queue)
            return
        sqs._expire_retained(queue)
        refresh({**queue, "messages": (chosen := messages.hidden())})
        visible = int(queue["attributes"]["ApproximateNumberOfMessages"]) + len(messages) - len(chosen)
        queue["attributes"]["ApproximateNumberOfMessages"] = str(visible)

    return count_hidden
