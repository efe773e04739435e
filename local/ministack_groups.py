"""The messages of one of MiniStack's FIFO queues, indexed by group and receipt handle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import chain, count
from typing import Any

Queue = dict[str, Any]
Message = dict[str, Any]


class Group:
    """The messages of one group, by their order in the queue."""

    __slots__ = ("messages", "received", "version")

    def __init__(self) -> None:
        self.messages: dict[int, Message] = {}
        #: of these, the ones that were ever received
        self.received: dict[int, Message] = {}
        #: only the newest of the group's entries among those that are ready or hidden counts
        self.version = 0

    def free_at(self) -> float:
        """The time at which none of its messages is in flight any more."""
        return max((message["visible_at"] for message in self.received.values()), default=0.0)

    def visible(self, now: float) -> Iterator[tuple[int, Message]]:
        return ((order, message) for order, message in self.messages.items() if message["visible_at"] <= now)


class GroupedMessages:
    """Stands for the list of a FIFO queue's messages; see MiniStack's `_collect_fifo` for its rules."""

    def __init__(self, messages: Iterable[Message], sqs: Any) -> None:
        """sqs: MiniStack's module, which makes receipt handles and has the clock."""
        self._sqs = sqs
        self._order = count()
        self._version = 0
        self._messages: dict[int, Message] = {}
        self._received: dict[int, Message] = {}
        self._delayed: dict[int, Message] = {}
        self._groups: dict[Any, Group] = {}
        #: order and group's id of received messages by receipt handle
        self._handles: dict[str, tuple[int, Any]] = {}
        #: groups that have a message to receive: its order, the group's version and id
        self._ready: list[tuple[int, int, Any]] = []
        #: other groups: the time at which they may have one
        self._hidden: list[tuple[float, int, Any]] = []
        for message in messages:
            self.append(message)

    def __iter__(self) -> Iterator[Message]:
        return iter(list(self._messages.values()))

    def __len__(self) -> int:
        return len(self._messages)

    def __getitem__(self, index: Any) -> Any:
        return next(reversed(self._messages.values())) if index == -1 else list(self)[index]

    def append(self, message: Message) -> None:
        self._sqs._ensure_msg_fields(message)  # a message of SNS lacks some
        order, now = next(self._order), self._sqs.time.time()
        name = message["group_id"] or ("", order)  # without a group no message waits for another
        group = self._groups.setdefault(name, Group())
        self._messages[order] = group.messages[order] = message
        if message["receive_count"]:
            self._add_received(order, name, message)
        elif message["visible_at"] > now:
            self._delayed[order] = message
        if len(group.messages) == 1 or message["receive_count"] or self._delayed:
            self._schedule(name, group, now)

    def clear(self) -> None:
        for of_queue in (self._messages, self._received, self._delayed, self._groups, self._handles):
            of_queue.clear()
        self._ready.clear()
        self._hidden.clear()

    def find(self, handle: str) -> Message | None:
        """The message with this receipt handle."""
        order, _ = self._handles.get(handle, (-1, None))
        return self._messages.get(order)

    def remove(self, message: Message) -> None:
        order, name = self._handles.get(message["receipt_handle"]) or self._search(message)
        group = self._groups[name]
        self._handles.pop(message["receipt_handle"], None)
        for messages in (self._messages, self._received, self._delayed, group.messages, group.received):
            messages.pop(order, None)
        if group.messages:
            self._schedule(name, group, self._sqs.time.time())
        else:
            del self._groups[name]

    def hide(self, message: Message, seconds: int) -> None:
        """Hides a received message for this time from now."""
        now = self._sqs.time.time()
        message["visible_at"] = now + seconds
        _, name = self._handles[message["receipt_handle"]]
        self._schedule(name, self._groups[name], now)

    def take(self, most: int, hide_seconds: int) -> list[Message]:
        """Receives messages: those of groups of which none is in flight, in their order."""
        now = self._sqs.time.time()
        self._show(now)
        taken: list[Message] = []
        opened: dict[Any, Iterator[tuple[int, Message]]] = {}
        while len(taken) < most and (name := self._next_ready()) is not None:
            group = self._groups[name]
            visible = opened.get(name) or group.visible(now)
            order, message = next(visible)
            self._receive(order, name, message, now, hide_seconds)
            taken.append(message)
            if following := next(visible, None):
                heappush(self._ready, (following[0], group.version, name))
                visible = chain((following,), visible)
            opened[name] = visible
        for name in opened:
            self._schedule(name, self._groups[name], now)
        return taken

    def received(self) -> list[Message]:
        """The messages that were received before, in their order."""
        return [self._received[order] for order in sorted(self._received)]

    def oldest(self) -> list[Message]:
        """The message that is here for the longest time, if there is one."""
        return list(next(zip(self._messages.values(), strict=False), ()))

    def hidden(self) -> list[Message]:
        """All messages that may be hidden: those that were received or have a delay."""
        return [*self._received.values(), *self._delayed.values()]

    def _receive(self, order: int, name: Any, message: Message, now: float, hide_seconds: int) -> None:
        self._handles.pop(message["receipt_handle"], None)
        message["receipt_handle"] = self._sqs.new_uuid()
        message["visible_at"] = now + hide_seconds
        message["receive_count"] += 1
        if message["first_receive_at"] is None:
            message["first_receive_at"] = now
        self._delayed.pop(order, None)
        self._add_received(order, name, message)

    def _add_received(self, order: int, name: Any, message: Message) -> None:
        self._received[order] = self._groups[name].received[order] = message
        if message["receipt_handle"]:  # a dead letter has none
            self._handles[message["receipt_handle"]] = order, name

    def _schedule(self, name: Any, group: Group, now: float) -> None:
        """Adds the group to those that are ready, or hides it until it may be."""
        self._version += 1
        group.version = self._version
        if (free_at := group.free_at()) > now:
            heappush(self._hidden, (free_at, group.version, name))
        elif first := next(group.visible(now), None):
            heappush(self._ready, (first[0], group.version, name))
        else:
            earliest = min(message["visible_at"] for message in group.messages.values())
            heappush(self._hidden, (earliest, group.version, name))

    def _show(self, now: float) -> None:
        while self._hidden and self._hidden[0][0] <= now:
            _, version, name = heappop(self._hidden)
            if self._is_current(version, name):
                self._schedule(name, self._groups[name], now)

    def _next_ready(self) -> Any:
        """Removes the group whose message is next from those that are ready; None if there is none."""
        while self._ready:
            _, version, name = heappop(self._ready)
            if self._is_current(version, name):
                return name
        return None

    def _is_current(self, version: int, name: Any) -> bool:
        group = self._groups.get(name)
        return group is not None and group.version == version

    def _search(self, message: Message) -> tuple[int, Any]:
        order = next(order for order, one in self._messages.items() if one is message)
        return order, message["group_id"] or ("", order)
