"""Receives, deletes and hides a queue's messages, like Lambda's event source.."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.aws.client import ClientOptions, client

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

#: Seconds after which a killed worker's messages reappear; the others are extended well before.
VISIBILITY_SECONDS = 10

#: Largest batch that SQS accepts.
BATCH = 10


class SourceError(Exception):
    """The queue did not answer or refused; a retry may help."""


@dataclass(frozen=True)
class Message:
    """One received message."""

    id: str
    receipt: str
    #: the message group
    lane: str
    #: increases along the lane
    sequence: int
    #: as received from boto3
    raw: Mapping[str, Any]


class Source:
    """One FIFO queue. Thread-safe."""

    def __init__(self, queue_url: str, client: SQSClient | None = None) -> None:
        self._queue_url = queue_url
        self._client: Any = client or _client()

    def receive(self, count: int, wait_seconds: int) -> list[Message]:
        """Receives up to `count` messages and hides them for VISIBILITY_SECONDS. Raises SourceError."""
        try:
            answer = self._client.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=count,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=VISIBILITY_SECONDS,
                MessageSystemAttributeNames=["All"],
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        except (BotoCoreError, ClientError) as error:
            raise SourceError(f"receiving: {error}") from error
        return [_message(raw) for raw in answer.get("Messages", [])]

    def delete(self, messages: Sequence[Message]) -> list[str]:
        """Deletes messages; returns the errors of those that could not be deleted and will be redelivered."""
        refused: list[str] = []
        for batch in _batches(messages):
            entries = [{"Id": str(n), "ReceiptHandle": message.receipt} for n, message in enumerate(batch)]
            try:
                answer = self._client.delete_message_batch(QueueUrl=self._queue_url, Entries=entries)
            except (BotoCoreError, ClientError) as error:
                raise SourceError(f"deleting: {error}") from error
            refused += [f"{batch[int(entry['Id'])].id}: {entry['Code']}" for entry in answer.get("Failed", [])]
        return refused

    def hide(self, messages: Sequence[Message], seconds: int) -> None:
        """Hides the messages for `seconds` from now; 0 shows them. Skips messages whose receipt has expired."""
        for batch in _batches(messages):
            entries = [
                {"Id": str(n), "ReceiptHandle": message.receipt, "VisibilityTimeout": seconds}
                for n, message in enumerate(batch)
            ]
            try:
                self._client.change_message_visibility_batch(QueueUrl=self._queue_url, Entries=entries)
            except (BotoCoreError, ClientError) as error:
                raise SourceError(f"changing visibility: {error}") from error


def _client() -> Any:
    # No retries here: callers retry themselves and have to stop in time.
    options = ClientOptions(tries=1, connect_timeout=2, read_timeout=12)
    return client("sqs", os.environ.get("AWS_ENDPOINT_URL") or None, options)


def _message(raw: Mapping[str, Any]) -> Message:
    attributes = raw.get("Attributes", {})
    return Message(
        id=raw["MessageId"],
        receipt=raw["ReceiptHandle"],
        lane=attributes.get("MessageGroupId", raw["MessageId"]),
        sequence=int(attributes.get("SequenceNumber", 0)),
        raw=raw,
    )


def _batches(messages: Sequence[Message]) -> Iterable[Sequence[Message]]:
    return (messages[start : start + BATCH] for start in range(0, len(messages), BATCH))
