"""The queue in memory, by the rules of an SQS FIFO queue and by the clock it is given: for tests and a simulator."""

import threading
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from chalicelib.core.task import Task

#: Milliseconds for which a repeated send changes nothing, counted from the first, deleted or not.
DEDUPLICATION_MS = 300_000
#: Milliseconds after its receive for which a message can be hidden at most.
MAX_HIDDEN_MS = 43_200_000


class Message(Struct, frozen=True):
    """A message as a receive gives it."""

    message_id: str
    user_id: str
    body: str
    receipt: str
    #: how often it was received, this time included
    receives: int
    #: epoch ms
    sent_at: int


class DeadLetter(Struct, frozen=True):
    user_id: str
    deduplication_id: str
    body: str
    reason: str


class _Queued(Struct):
    message_id: str
    user_id: str
    body: str
    sent_at: int
    #: epoch ms; until then it is hidden
    visible_at: int
    received_at: int = 0
    receives: int = 0

    @property
    def receipt(self) -> str:
        return f"{self.message_id}#{self.receives}"


class _Group(Struct):
    """The messages of one user, oldest first."""

    messages: list[_Queued] = field(default_factory=list)

    @property
    def visible_at(self) -> int:
        """When its first message was sent or became visible again, epoch ms: AWS was seen to serve groups by this."""
        return self.messages[0].visible_at


class MemoryTaskQueue:
    """An SQS FIFO queue with high-throughput attributes, and its dead-letter queue.

    A group gives its messages in order, up to the first that is hidden: so a message in flight holds the rest of its
    group. Each receive counts and gives a new receipt, which is good while the message is hidden.
    """

    def __init__(
        self,
        now_ms: Callable[[], int],
        visibility_ms: int = 90_000,
        retention_ms: int = 1_209_600_000,
        max_receives: int = 1_000,
    ) -> None:
        self._now_ms = now_ms
        self._visibility_ms = visibility_ms
        self._retention_ms = retention_ms
        self._max_receives = max_receives
        self._groups: dict[str, _Group] = {}
        self._sent: dict[tuple[str, str], int] = {}
        self._sent_dead: dict[tuple[str, str], int] = {}
        self._dead: list[DeadLetter] = []
        self._messages_made = 0
        self._lock = threading.Lock()

    def send(self, task: Task) -> None:
        self.send_body(task.user_id, task.task_id, task.to_message())

    def send_again(self, task: Task, now_ms: int) -> None:
        self.send_body(task.user_id, f"{task.task_id}-{now_ms // 60_000}", replace(task, is_repeat=True).to_message())

    def forward(self, task: Task, now_ms: int) -> None:
        again = f"-{now_ms // 60_000}" if task.is_repeat else ""
        self.send_body(task.own_group, f"{task.task_id}-run{again}", task.to_message())

    def send_many(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self.send(task)

    def send_body(self, user_id: str, deduplication_id: str, body: str) -> None:
        """Puts any text at the end of the user's lane, as `send` does with a task."""
        with self._lock:
            if not self._is_new(self._sent, (user_id, deduplication_id)):
                return
            now_ms = self._now_ms()
            self._messages_made += 1
            group = self._groups.setdefault(user_id, _Group())
            group.messages.append(_Queued(f"m{self._messages_made}", user_id, body, now_ms, visible_at=now_ms))

    def send_dead(self, user_id: str, task_id: str, body: str, reason: str) -> None:
        with self._lock:
            if self._is_new(self._sent_dead, ("", task_id)):  # the dead-letter queue looks at ids alone
                self._dead.append(DeadLetter(user_id, task_id, body, reason))

    def receive(self, most: int = 1, visibility_ms: int | None = None) -> list[Message]:
        """The next messages, of the group first whose head has been visible longest, and as many of it as there are.

        visibility_ms: for which they are hidden; None: as the queue has it.
        """
        with self._lock:
            self._drop_old()
            now_ms = self._now_ms()
            received: list[Message] = []
            hidden_until = now_ms + (self._visibility_ms if visibility_ms is None else visibility_ms)
            for group in sorted(self._groups.values(), key=lambda group: group.visible_at):
                for message in list(_visible(group, now_ms)):
                    if len(received) < most and not self._is_exhausted(group, message):
                        received.append(self._take(message, now_ms, hidden_until))
            return received

    def _take(self, message: _Queued, now_ms: int, hidden_until: int) -> Message:
        message.receives += 1
        message.received_at, message.visible_at = now_ms, hidden_until
        return Message(
            message.message_id, message.user_id, message.body, message.receipt, message.receives, message.sent_at
        )

    def _is_exhausted(self, group: _Group, message: _Queued) -> bool:
        """Moves a message that was received as often as it may be to the dead-letter queue."""
        if message.receives < self._max_receives:
            return False
        self._remove(group, message)
        self._dead.append(DeadLetter(message.user_id, message.message_id, message.body, "received too often"))
        return True

    def delete(self, receipt: str) -> bool:
        """Deletes the message; False when the receipt has expired and the message stays."""
        with self._lock:
            found = self._in_flight(receipt)
            if found is None:
                return False
            self._remove(*found)
            return True

    def defer(self, receipt: str, seconds: int) -> bool:
        with self._lock:
            found, hidden_until = self._in_flight(receipt), self._now_ms() + seconds * 1000
            if found is None or hidden_until > found[1].received_at + MAX_HIDDEN_MS:
                return False
            found[1].visible_at = hidden_until
            return True

    def next_available_at(self) -> int | None:
        """When a receive may next find something, epoch ms; None when the queue is empty."""
        with self._lock:
            self._drop_old()
            return min((group.visible_at for group in self._groups.values()), default=None)

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        return tuple(self._dead)

    def __len__(self) -> int:
        return sum(len(group.messages) for group in self._groups.values())

    def _is_new(self, sent: dict[tuple[str, str], int], key: tuple[str, str]) -> bool:
        now_ms = self._now_ms()
        if key in sent and now_ms < sent[key] + DEDUPLICATION_MS:
            return False
        sent[key] = now_ms
        return True

    def _in_flight(self, receipt: str) -> tuple[_Group, _Queued] | None:
        for group in self._groups.values():
            for message in group.messages:
                if message.receives and message.receipt == receipt and message.visible_at > self._now_ms():
                    return group, message
        return None

    def _remove(self, group: _Group, message: _Queued) -> None:
        group.messages.remove(message)
        if not group.messages:
            del self._groups[message.user_id]

    def _drop_old(self) -> None:
        oldest = self._now_ms() - self._retention_ms
        for group in list(self._groups.values()):
            for message in [message for message in group.messages if message.sent_at <= oldest]:
                self._remove(group, message)


def _visible(group: _Group, now_ms: int) -> Iterator[_Queued]:
    for message in group.messages:
        if message.visible_at > now_ms:
            return
        yield message
