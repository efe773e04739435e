"""The queue of scheduled messages in memory, by the rules of a standard SQS queue and by the clock it is given."""

import threading
from collections.abc import Callable, Sequence

from msgspec import Struct

from chalicelib.core.scheduled import MAX_SQS_DELAY_SECONDS, ScheduledMessage, to_message
from chalicelib.scheduled.dispatcher import ScheduledDelivery


class _Queued(Struct):
    message_id: str
    body: str
    visible_at: int
    sent_at: int
    receives: int = 0

    @property
    def receipt(self) -> str:
        return f"{self.message_id}#{self.receives}"


class MemoryScheduledQueue:
    def __init__(
        self,
        now_ms: Callable[[], int],
        visibility_ms: int = 90_000,
        choose: Callable[[Sequence[_Queued]], _Queued] | None = None,
        retention_ms: int = 1_209_600_000,
        max_receives: int = 1_000,
    ) -> None:
        """choose: the one that is delivered of those that can be had; None: the first sent."""
        self._choose = choose or (lambda messages: messages[0])
        self._now_ms = now_ms
        self._visibility_ms = visibility_ms
        self._retention_ms = retention_ms
        self._max_receives = max_receives
        self._messages: list[_Queued] = []
        self._dead: list[str] = []
        self._made = 0
        self._lock = threading.Lock()

    def send(self, messages: Sequence[tuple[ScheduledMessage, int]]) -> None:
        for message, seconds in messages:
            if not 0 <= seconds <= MAX_SQS_DELAY_SECONDS:
                raise ValueError(f"SQS delays a message by 0 to {MAX_SQS_DELAY_SECONDS} s, not {seconds}")
            self.send_body(to_message(message), seconds)

    def send_body(self, body: str, seconds: int = 0) -> None:
        with self._lock:
            self._made += 1
            now_ms = self._now_ms()
            self._messages.append(_Queued(f"e{self._made}", body, now_ms + seconds * 1000, now_ms))

    def receive(self) -> ScheduledDelivery | None:
        """A message that can be had now."""
        with self._lock:
            now_ms = self._now_ms()
            self._drop_old(now_ms)
            while visible := [message for message in self._messages if message.visible_at <= now_ms]:
                message = self._choose(visible)
                if message.receives < self._max_receives:
                    return self._take(message, now_ms)
                self._messages.remove(message)
                self._dead.append(message.body)
            return None

    def _take(self, message: _Queued, now_ms: int) -> ScheduledDelivery:
        message.receives += 1
        message.visible_at = now_ms + self._visibility_ms
        return ScheduledDelivery(message.body, message.receipt, message.message_id, message.sent_at, message.receives)

    def _drop_old(self, now_ms: int) -> None:
        self._messages = [message for message in self._messages if message.sent_at + self._retention_ms > now_ms]

    def defer(self, receipt: str, seconds: int) -> bool:
        """Hides or shows the message, by the receipt of any of its receives: AWS was seen to take earlier ones."""
        with self._lock:
            for message in self._messages:
                if message.message_id == receipt.partition("#")[0]:
                    message.visible_at = self._now_ms() + seconds * 1000
                    return True
            return False

    def delete(self, receipt: str) -> None:
        with self._lock:
            self._messages = [message for message in self._messages if message.receipt != receipt]

    @property
    def dead_letters(self) -> Sequence[str]:
        """Bodies of the messages that were received too often."""
        return tuple(self._dead)

    def next_available_at(self) -> int | None:
        """When a receive may next find something, epoch ms; None when the queue is empty."""
        return min((message.visible_at for message in self._messages), default=None)

    def __len__(self) -> int:
        return len(self._messages)
