"""An SQS queue: sends messages in batches, and hides received ones."""

from collections.abc import Iterator, Sequence
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.aws.client import error_code, unavailable
from chalicelib.core.errors import UnavailableError

#: Entries of one SendMessageBatch, and bytes of all its bodies, with room for the rest of the request.
BATCH_ENTRIES = 10
BATCH_BYTES = 1_000_000
#: Tries to send the entries of a batch that SQS did not take.
BATCH_TRIES = 4
#: Error codes for a message whose visibility timeout has passed: it is visible again and cannot be hidden.
GONE_ERRORS = {"InvalidParameterValue", "MessageNotInflight", "ReceiptHandleIsInvalid"}

#: Parameters of a message, without the `Id` by which a batch names it.
Entry = dict[str, Any]


class SQSQueue:
    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def defer(self, receipt: str, seconds: int) -> bool:
        try:
            with unavailable("hiding the message"):
                self._client.change_message_visibility(
                    QueueUrl=self._queue_url, ReceiptHandle=receipt, VisibilityTimeout=seconds
                )
        except ClientError as error:
            if error_code(error) not in GONE_ERRORS:
                raise
            return False
        return True

    def _send_all(self, entries: Sequence[Entry], what: str) -> None:
        """Sends the messages in order. UnavailableError, beginning with `what`, if SQS does not take one of them."""
        for batch in _batches(entries):
            self._send_batch(batch, what)

    def _send_batch(self, entries: Sequence[Entry], what: str) -> None:
        left = [{"Id": str(n), **entry} for n, entry in enumerate(entries)]
        for _ in range(BATCH_TRIES):
            with unavailable(what):
                answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=left)
            failed = {entry["Id"] for entry in answer.get("Failed", [])}
            left = [entry for entry in left if entry["Id"] in failed]
            if not left:
                return
        raise UnavailableError(f"{what}: {len(left)} of a batch were not taken")


def _batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Consecutive messages, as many in a batch as SQS takes."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        length = len(entry["MessageBody"].encode())
        if batch and (len(batch) == BATCH_ENTRIES or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += length
    if batch:
        yield batch
