"""The queue of scheduled messages: a standard SQS queue, since a FIFO queue cannot delay a single message."""

from collections.abc import Sequence

from chalicelib.aws.sqs_queue import SQSQueue
from chalicelib.core.scheduled import ScheduledMessage, to_message


class SQSScheduledQueue(SQSQueue):
    def send(self, messages: Sequence[tuple[ScheduledMessage, int]]) -> None:
        entries = [{"MessageBody": to_message(message), "DelaySeconds": seconds} for message, seconds in messages]
        self._send_all(entries, "sending scheduled messages")
