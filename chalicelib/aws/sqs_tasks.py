"""The lanes' queue: an SQS FIFO queue with a message group for each user, and its dead-letter queue."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from chalicelib.aws.client import unavailable
from chalicelib.aws.sqs_queue import Entry, SQSQueue
from chalicelib.core.task import Task

#: Milliseconds within which SQS drops a second message of a task that is sent again.
AGAIN_MS = 60_000
#: Characters of the reason in a dead letter; SQS would take more.
MAX_REASON = 1_000


class SQSTaskQueue(SQSQueue):
    def __init__(self, client: Any, queue_url: str, dead_letter_url: str) -> None:
        super().__init__(client, queue_url)
        self._dead_letter_url = dead_letter_url

    def check(self) -> None:
        """UnavailableError if the queue cannot be reached."""
        with unavailable("SQS"):
            self._client.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=["QueueArn"])

    def send(self, task: Task) -> None:
        with unavailable("sending the task"):
            self._client.send_message(QueueUrl=self._queue_url, **_message(task))

    def send_again(self, task: Task, now_ms: int) -> None:
        message = _message(replace(task, is_repeat=True))
        with unavailable("sending the task again"):
            self._client.send_message(
                QueueUrl=self._queue_url,
                **{**message, "MessageDeduplicationId": f"{task.task_id}-{now_ms // AGAIN_MS}"},
            )

    def forward(self, task: Task, now_ms: int) -> None:
        with unavailable("forwarding the task"):
            self._client.send_message(
                QueueUrl=self._queue_url,
                MessageBody=task.to_message(),
                MessageGroupId=task.own_group,
                MessageDeduplicationId=forwarded_id(task, now_ms),
            )

    def send_many(self, tasks: Sequence[Task]) -> None:
        self._send_all([_message(task) for task in tasks], "sending the tasks")

    def send_dead(self, user_id: str, task_id: str, body: str, reason: str) -> None:
        with unavailable("copying to the dead-letter queue"):
            self._client.send_message(
                QueueUrl=self._dead_letter_url,
                MessageBody=body,
                MessageGroupId=user_id,
                MessageDeduplicationId=task_id,
                MessageAttributes={"reason": {"DataType": "String", "StringValue": reason[:MAX_REASON] or "unknown"}},
            )


def forwarded_id(task: Task, now_ms: int) -> str:
    return f"{task.task_id}-run-{now_ms // AGAIN_MS}" if task.is_repeat else f"{task.task_id}-run"


def _message(task: Task) -> Entry:
    return {
        "MessageBody": task.to_message(),
        "MessageGroupId": task.user_id,
        "MessageDeduplicationId": task.task_id,
    }
