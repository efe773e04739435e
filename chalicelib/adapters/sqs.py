"""The lanes' queue: an SQS FIFO queue with a message group for each user, and its dead-letter queue."""

from typing import Any

from botocore.exceptions import ClientError

from chalicelib.adapters.aws import error_code, unavailable
from chalicelib.tasks import Task

#: SQS takes message attributes of any length, but a reason longer than this helps nobody.
LONGEST_REASON = 1_000
#: The message is no longer ours to hide: its visibility ran out, and it comes or came back by itself.
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
                MessageAttributes={
                    "reason": {"DataType": "String", "StringValue": reason[:LONGEST_REASON] or "unknown"}
                },
            )
