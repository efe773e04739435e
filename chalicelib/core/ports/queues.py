"""The ports of the queues of lanes and of scheduled tasks."""

from collections.abc import Sequence
from typing import Protocol

from chalicelib.core.scheduled import ScheduledMessage
from chalicelib.core.task import Task


class TaskQueue(Protocol):
    """Sends and hides messages of lanes; sends dead letters. Methods raise UnavailableError if the queue fails."""

    def send(self, task: Task) -> None:
        """Sends the task's message to its user's group. A repeat within 5 minutes has no effect."""
        ...

    def send_again(self, task: Task, now_ms: int) -> None:
        """Sends the message of a task whose first message may be lost. A repeat within a minute has no effect."""
        ...

    def forward(self, task: Task, now_ms: int) -> None:
        """Sends the task's message to a group of its own. A repeat within 5 minutes has no effect.

        One of a task that is sent again has no effect within a minute.
        """
        ...

    def send_many(self, tasks: Sequence[Task]) -> None:
        """Sends one user's tasks in order, retrying rejected ones. Raises UnavailableError if some stay rejected."""
        ...

    def defer(self, receipt: str, seconds: int) -> bool:
        """Hides the message, and so the messages behind it in its group, for 0 to 43,000 seconds.

        False if it cannot, since the message is deleted or is visible again.
        """
        ...

    def send_dead(self, user_id: str, task_id: str, body: str, reason: str) -> None:
        """Copies a failed task's message to the dead-letter queue. A repeat within 5 minutes has no effect."""
        ...


class ScheduledQueue(Protocol):
    """Delivers scheduled messages at least once, in any order. Methods raise UnavailableError if the queue fails."""

    def send(self, messages: Sequence[tuple[ScheduledMessage, int]]) -> None:
        """Sends each message with its delay in seconds, 0 to 900."""
        ...

    def defer(self, receipt: str, seconds: int) -> bool:
        """Hides the message for 0 to 43,000 seconds; False if it cannot, since the message is gone."""
        ...
