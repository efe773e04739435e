"""The queue `later`: a standard SQS queue, since order is for lanes, and only there a single message can be delayed."""

from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.aws.client import error_code, unavailable
from chalicelib.aws.sqs_tasks import BATCH_BYTES, BATCH_ENTRIES, BATCH_TRIES, GONE_ERRORS
from chalicelib.core.errors import UnavailableError
from chalicelib.core.scheduled import ScheduledMessage, to_message


class SQSScheduledQueue:
    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def send(self, messages: Sequence[tuple[ScheduledMessage, int]]) -> None:
        batch: list[dict[str, Any]] = []
        size = 0
        for message, seconds in messages:
            body = to_message(message)
            if batch and (len(batch) == BATCH_ENTRIES or size + len(body) > BATCH_BYTES):
                self._send_batch(batch)
                batch, size = [], 0
            batch.append({"Id": str(len(batch)), "MessageBody": body, "DelaySeconds": seconds})
            size += len(body)  # it is ASCII
        if batch:
            self._send_batch(batch)

    def _send_batch(self, entries: list[dict[str, Any]]) -> None:
        for _ in range(BATCH_TRIES):
            with unavailable("sending scheduled messages"):
                answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            failed = {entry["Id"] for entry in answer.get("Failed", [])}
            entries = [entry for entry in entries if entry["Id"] in failed]
            if not entries:
                return
        raise UnavailableError(f"sending scheduled messages: {len(entries)} of a batch were not taken")

    def defer(self, receipt: str, seconds: int) -> None:
        try:
            with unavailable("hiding until later"):
                self._client.change_message_visibility(
                    QueueUrl=self._queue_url, ReceiptHandle=receipt, VisibilityTimeout=seconds
                )
        except ClientError as error:
            if error_code(error) not in GONE_ERRORS:
                raise
