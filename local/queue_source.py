"""The queue as a Lambda event source sees it: receive, delete, hide. The only file of the worker that knows boto3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.aws.client import USER_AGENT

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

#: A killed worker's messages come back to another one after this time; held ones are extended well before it.
VISIBILITY_SECONDS = 10

#: More in one call is refused by SQS.
BATCH = 10


class SourceError(Exception):
    """The queue could not be asked; trying again later may help."""


@dataclass(frozen=True)
class Message:
    """One received message."""

    id: str
    receipt: str
    #: The message group.
    lane: str
    #: Grows along the lane.
    sequence: int
    #: As boto3 gave it.
    raw: Mapping[str, Any]


class Source:
    """One FIFO queue; may be used by many threads."""

    def __init__(self, queue_url: str, client: SQSClient | None = None) -> None:
        self._queue_url = queue_url
        self._client = client or _client()

    def receive(self, count: int, wait_seconds: int) -> list[Message]:
        """Up to `count` messages, hidden from others for VISIBILITY_SECONDS."""
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
        """Delete them; returns why some could not be deleted. Those come back, and the handler knows them."""
        refused: list[str] = []
        for batch in _batches(messages):
            entries = [{"Id": str(n), "ReceiptHandle": message.receipt} for n, message in enumerate(batch)]
            try:
                answer = self._client.delete_message_batch(QueueUrl=self._queue_url, Entries=entries)  # type: ignore[arg-type]
            except (BotoCoreError, ClientError) as error:
                raise SourceError(f"deleting: {error}") from error
            refused += [f"{batch[int(entry['Id'])].id}: {entry['Code']}" for entry in answer.get("Failed", [])]
        return refused

    def hide(self, messages: Sequence[Message], seconds: int) -> None:
        """Hide them for so long from now; 0 gives them back. One whose receipt has expired is passed over."""
        for batch in _batches(messages):
            entries = [
                {"Id": str(n), "ReceiptHandle": message.receipt, "VisibilityTimeout": seconds}
                for n, message in enumerate(batch)
            ]
            try:
                self._client.change_message_visibility_batch(QueueUrl=self._queue_url, Entries=entries)  # type: ignore[arg-type]
            except (BotoCoreError, ClientError) as error:
                raise SourceError(f"changing visibility: {error}") from error


def _client() -> SQSClient:
    # Retries are the caller's, who also has to stop in time.
    config = Config(
        connect_timeout=2,
        read_timeout=12,
        retries={"total_max_attempts": 1},
        max_pool_connections=64,
        parameter_validation=False,
        user_agent=USER_AGENT,
    )
    return boto3.client("sqs", config=config)


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
