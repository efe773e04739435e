"""The lanes' queue: an SQS FIFO queue with a message group for each user, and its dead-letter queue."""

from collections.abc import Iterator, Sequence
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.aws.client import error_code, unavailable
from chalicelib.core.errors import UnavailableError
from chalicelib.core.task import Task

#: Characters of the reason in a dead letter; SQS would take more.
MAX_REASON = 1_000
#: Entries of one SendMessageBatch, and bytes of all its bodies, with room for the rest of the request.
BATCH_ENTRIES = 10
BATCH_BYTES = 1_000_000
#: How often what a batch left undone is sent again.
BATCH_TRIES = 4
#: Error codes for a message whose visibility timeout has passed: it is visible again and cannot be hidden.
GONE_ERRORS = {"InvalidParameterValue", "MessageNotInflight", "ReceiptHandleIsInvalid"}


class SQSTaskQueue:
    def __init__(self, client: Any, queue_url: str, dead_letter_url: str) -> None:
        self._client = client
        self._queue_url = queue_url
        self._dead_letter_url = dead_letter_url

    def check(self) -> None:
        """UnavailableError when the queue can't be reached."""
        with unavailable("SQS"):
            self._client.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=["QueueArn"])

    def send(self, task: Task) -> None:
        with unavailable("sending the task"):
            self._client.send_message(
                QueueUrl=self._queue_url,
                MessageBody=task.to_message(),
                MessageGroupId=task.user_id,
                MessageDeduplicationId=task.task_id,
            )

    def send_many(self, tasks: Sequence[Task]) -> None:
        for batch in _batches([(task, task.to_message()) for task in tasks]):
            self._send_batch(batch)

    def _send_batch(self, batch: Sequence[tuple[Task, str]]) -> None:
        entries = [
            {
                "Id": str(n),
                "MessageBody": body,
                "MessageGroupId": task.user_id,
                "MessageDeduplicationId": task.task_id,
            }
            for n, (task, body) in enumerate(batch)
        ]
        for _ in range(BATCH_TRIES):
            with unavailable("sending the tasks"):
                answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            failed = {entry["Id"] for entry in answer.get("Failed", [])}
            entries = [entry for entry in entries if entry["Id"] in failed]
            if not entries:
                return
        raise UnavailableError(f"sending the tasks: {len(entries)} of a batch were not taken")

    def defer(self, receipt: str, seconds: int) -> None:
        try:
            with unavailable("deferring the task"):
                self._client.change_message_visibility(
                    QueueUrl=self._queue_url, ReceiptHandle=receipt, VisibilityTimeout=seconds
                )
        except ClientError as error:
            if error_code(error) not in GONE_ERRORS:
                raise

    def send_dead(self, user_id: str, task_id: str, body: str, reason: str) -> None:
        with unavailable("copying to the dead-letter queue"):
            self._client.send_message(
                QueueUrl=self._dead_letter_url,
                MessageBody=body,
                MessageGroupId=user_id,
                MessageDeduplicationId=task_id,
                MessageAttributes={"reason": {"DataType": "String", "StringValue": reason[:MAX_REASON] or "unknown"}},
            )


def _batches(bodies: Sequence[tuple[Task, str]]) -> Iterator[list[tuple[Task, str]]]:
    """Consecutive tasks, as many at once as SQS takes."""
    batch: list[tuple[Task, str]] = []
    size = 0
    for task, body in bodies:
        length = len(body.encode())
        if batch and (len(batch) == BATCH_ENTRIES or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((task, body))
        size += length
    if batch:
        yield batch
