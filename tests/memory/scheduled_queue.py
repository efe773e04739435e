"""The queue `later` in memory, by the rules of a standard SQS queue and by the clock it is given: for tests."""

import threading
from collections.abc import Callable, Sequence

from msgspec import Struct

from chalicelib.core.scheduled import MAX_SQS_DELAY_SECONDS, ScheduledMessage, to_message


class _Queued(Struct):
    message_id: str
    body: str
    visible_at: int
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
    ) -> None:
        """choose: the one that is delivered of those that can be had; None: the first sent."""
        self._choose = choose or (lambda messages: messages[0])
        self._now_ms = now_ms
        self._visibility_ms = visibility_ms
        self._messages: list[_Queued] = []
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
            self._messages.append(_Queued(f"e{self._made}", body, self._now_ms() + seconds * 1000))

    def receive(self) -> tuple[str, str, str] | None:
        """Body, receipt and id of a message that can be had now."""
        with self._lock:
            visible = [message for message in self._messages if message.visible_at <= self._now_ms()]
            if not visible:
                return None
            message = self._choose(visible)
            message.receives += 1
            message.visible_at = self._now_ms() + self._visibility_ms
            return message.body, message.receipt, message.message_id

    def defer(self, receipt: str, seconds: int) -> None:
        """Hides or shows the message, by the receipt of any of its receives: AWS was seen to take earlier ones."""
        with self._lock:
            for message in self._messages:
                if message.message_id == receipt.partition("#")[0]:
                    message.visible_at = self._now_ms() + seconds * 1000

    def delete(self, receipt: str) -> None:
        with self._lock:
            self._messages = [message for message in self._messages if message.receipt != receipt]

    def next_available_at(self) -> int | None:
        """When a receive may next find something, epoch ms; None when the queue is empty."""
        return min((message.visible_at for message in self._messages), default=None)

    def __len__(self) -> int:
        return len(self._messages)
