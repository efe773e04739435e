"""Sends the dead letters of the queue for scheduled tasks and callbacks to that queue again.

SQS moves a message there that it delivered 1,000 times. A repeat does no harm: the record of a scheduled task says
whether it is admitted or cancelled.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from msgspec.structs import replace

from chalicelib.container import Container
from chalicelib.core.errors import MessageError
from chalicelib.core.scheduled import Callback, EmptySchedule, ScheduledMessage, from_message

#: Seconds for which a message is ours; those that stay come back into sight after it.
HIDDEN_SECONDS = 60
BATCH = 10


class ScheduledRedrive:
    """One run over the dead letters of the scheduled queue; repeats of their messages do no harm."""

    def __init__(self, parts: Container, user_id: str | None, wait_seconds: int) -> None:
        self._parts = parts
        self._user_id = user_id
        self._wait_seconds = wait_seconds
        self._sqs: Any = parts.sqs
        self._url = parts.settings.scheduled_dead_letter_url
        #: receipts of those that stay, by message ids
        self._stay = dict[str, str]()

    def run(self) -> Iterator[str]:
        try:
            while messages := self._received():
                for message in messages:
                    if line := self._handle(message):
                        yield line
        finally:
            show_again(self._sqs, self._url, self._stay.values())

    def _received(self) -> list[Any]:
        """Received messages that this run has not seen; those seen stay hidden until its end."""
        request = {
            "MaxNumberOfMessages": BATCH,
            "VisibilityTimeout": HIDDEN_SECONDS,
            "WaitTimeSeconds": self._wait_seconds,
        }
        found = self._sqs.receive_message(QueueUrl=self._url, **request).get("Messages", [])
        return [message for message in found if message["MessageId"] not in self._stay]

    def _handle(self, message: Any) -> str | None:
        try:
            scheduled = from_message(message["Body"])
        except MessageError as error:
            return self._keep(message, f"stays ({message['MessageId']}): {error}")
        user_id = _user_of(scheduled)
        if self._user_id not in (None, user_id):
            return self._keep(message, None)
        if isinstance(scheduled, Callback):
            scheduled = replace(scheduled, begun_at=self._parts.clock.now_ms())
        self._parts.scheduled_queue.send([(scheduled, 0)])
        self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return f"{user_id}: scheduled message sent again ({message['MessageId']})"

    def _keep(self, message: Any, line: str | None) -> str | None:
        self._stay[message["MessageId"]] = message["ReceiptHandle"]
        return line


def _user_of(message: ScheduledMessage) -> str:
    return message.user_id if isinstance(message, Callback | EmptySchedule) else message.task.user_id


def show_again(sqs: Any, url: str, receipts: Iterable[str]) -> None:
    """Makes the messages visible again; those that AWS refuses reappear by themselves."""
    for receipt in receipts:
        with suppress(BotoCoreError, ClientError):
            sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=0)
