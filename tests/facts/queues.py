"""Queues whose messages are called by their bodies: of Paceline's memory, and of whatever speaks SQS."""

import json
import time
from abc import ABC, abstractmethod
from typing import Any, Protocol
from uuid import uuid4

from botocore.exceptions import ClientError

from tests.factories import VirtualClock
from tests.memory.scheduled_queue import MemoryScheduledQueue
from tests.memory.task_queue import MemoryTaskQueue

#: Attributes of the lanes' queue in infra/template.yaml.
HIGH_THROUGHPUT = {"DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}


class Queue(ABC):
    """One new queue. `a1` is sent to group a; sends, deletes and hides return the error, or an empty text."""

    def __init__(self) -> None:
        #: of every receive, by the message's body
        self.receipts: dict[str, list[str]] = {}

    @abstractmethod
    def send(self, body: str, group: str = "", deduplication_id: str = "", **parameters: Any) -> str: ...

    @abstractmethod
    def _receive(self, most: int, hidden_seconds: int | None) -> list[tuple[str, str]]:
        """Body and receipt of each message."""

    @abstractmethod
    def delete(self, body: str, nth_receive: int = -1) -> str: ...

    @abstractmethod
    def hide(self, body: str, seconds: int, nth_receive: int = -1) -> str: ...

    @abstractmethod
    def wait(self, seconds: float) -> None: ...

    @abstractmethod
    def dead_letters(self) -> list[str]: ...

    def send_all(self, *bodies: str) -> None:
        for body in bodies:
            assert self.send(body) == ""

    def receive(self, most: int = 10, hidden_seconds: int | None = None) -> list[str]:
        received = self._receive(most, hidden_seconds)
        for body, receipt in received:
            self.receipts.setdefault(body, []).append(receipt)
        return [body for body, _ in received]


class Queues(Protocol):
    def fifo(self, visibility: int = 30, max_receives: int = 1_000, is_high_throughput: bool = True) -> Queue: ...

    def standard(self, visibility: int = 30) -> Queue: ...


class MemoryQueue(Queue):
    """By a clock of its own. A call takes a millisecond."""

    def __init__(self, visibility: int, max_receives: int) -> None:
        super().__init__()
        self._clock = VirtualClock()
        self._queue = MemoryTaskQueue(self._clock.now_ms, visibility * 1_000, max_receives=max_receives)

    def send(self, body: str, group: str = "", deduplication_id: str = "", **parameters: Any) -> str:
        self._clock.advance(1)
        self._queue.send_body(group or body[0], deduplication_id or body, body)
        return ""

    def _receive(self, most: int, hidden_seconds: int | None) -> list[tuple[str, str]]:
        self._clock.advance(1)
        received = self._queue.receive(most, None if hidden_seconds is None else hidden_seconds * 1_000)
        return [(message.body, message.receipt) for message in received]

    def delete(self, body: str, nth_receive: int = -1) -> str:
        self._clock.advance(1)
        return "" if self._queue.delete(self.receipts[body][nth_receive]) else "refused"

    def hide(self, body: str, seconds: int, nth_receive: int = -1) -> str:
        self._clock.advance(1)
        self._queue.defer(self.receipts[body][nth_receive], seconds)
        return ""

    def wait(self, seconds: float) -> None:
        self._clock.advance(round(seconds * 1_000))

    def dead_letters(self) -> list[str]:
        return [letter.body for letter in self._queue.dead_letters]


class MemoryStandardQueue(Queue):
    def __init__(self, visibility: int) -> None:
        super().__init__()
        self._clock = VirtualClock()
        self._queue = MemoryScheduledQueue(self._clock.now_ms, visibility * 1_000)

    def send(self, body: str, group: str = "", deduplication_id: str = "", **parameters: Any) -> str:
        self._queue.send_body(body)
        return ""

    def _receive(self, most: int, hidden_seconds: int | None) -> list[tuple[str, str]]:
        received = self._queue.receive()
        return [(received.body, received.receipt)] if received else []

    def delete(self, body: str, nth_receive: int = -1) -> str:
        self._queue.delete(self.receipts[body][nth_receive])
        return ""

    def hide(self, body: str, seconds: int, nth_receive: int = -1) -> str:
        self._queue.defer(self.receipts[body][nth_receive], seconds)
        return ""

    def wait(self, seconds: float) -> None:
        self._clock.advance(round(seconds * 1_000))

    def dead_letters(self) -> list[str]:
        return []


class MemoryQueues:
    def fifo(self, visibility: int = 30, max_receives: int = 1_000, is_high_throughput: bool = True) -> Queue:
        assert is_high_throughput
        return MemoryQueue(visibility, max_receives)

    def standard(self, visibility: int = 30) -> Queue:
        return MemoryStandardQueue(visibility)


class SQSQueue(Queue):
    """By the real clock."""

    def __init__(self, client: Any, url: str, dead_letter_url: str = "") -> None:
        super().__init__()
        self._client = client
        self.url = url
        self._dead_letter_url = dead_letter_url

    def send(self, body: str, group: str = "", deduplication_id: str = "", **parameters: Any) -> str:
        if self.url.endswith(".fifo"):
            ids = {"MessageGroupId": group or body[0], "MessageDeduplicationId": deduplication_id or body}
            parameters = ids | parameters
        return self._error(self._client.send_message, MessageBody=body, **parameters)

    def _receive(self, most: int, hidden_seconds: int | None) -> list[tuple[str, str]]:
        hidden = {} if hidden_seconds is None else {"VisibilityTimeout": hidden_seconds}
        answer = self._client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=most, **hidden)
        return [(message["Body"], message["ReceiptHandle"]) for message in answer.get("Messages", ())]

    def delete(self, body: str, nth_receive: int = -1) -> str:
        return self._error(self._client.delete_message, ReceiptHandle=self.receipts[body][nth_receive])

    def hide(self, body: str, seconds: int, nth_receive: int = -1) -> str:
        receipt = self.receipts[body][nth_receive]
        return self._error(self._client.change_message_visibility, ReceiptHandle=receipt, VisibilityTimeout=seconds)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)  # an emulator's clock is the real one

    def dead_letters(self) -> list[str]:
        answer = self._client.receive_message(QueueUrl=self._dead_letter_url, MaxNumberOfMessages=10)
        return [message["Body"] for message in answer.get("Messages", ())]

    def _error(self, call: Any, **parameters: Any) -> str:
        """The code and text of the call's error, with `<receipt>` for the receipt."""
        try:
            call(QueueUrl=self.url, **parameters)
        except ClientError as error:
            message = error.response["Error"]["Message"].replace(parameters.get("ReceiptHandle") or "\0", "<receipt>")
            return f"{error.response['Error']['Code']}: {message}"
        return ""


class SQSQueues:
    def __init__(self, client: Any) -> None:
        self._client = client
        self._urls: list[str] = []

    def fifo(self, visibility: int = 30, max_receives: int = 1_000, is_high_throughput: bool = True) -> SQSQueue:
        dead = self._create({"FifoQueue": "true"})
        attributes = {"FifoQueue": "true"} | self._attributes(visibility, max_receives, dead)
        url = self._create(attributes | (HIGH_THROUGHPUT if is_high_throughput else {}))
        return SQSQueue(self._client, url, dead)

    def standard(self, visibility: int = 30, max_receives: int = 1_000) -> SQSQueue:
        dead = self._create({})
        return SQSQueue(self._client, self._create(self._attributes(visibility, max_receives, dead)), dead)

    def _attributes(self, visibility: int, max_receives: int, dead_letter_url: str) -> dict[str, str]:
        redrive = {"deadLetterTargetArn": self.arn(dead_letter_url), "maxReceiveCount": max_receives}
        return {"VisibilityTimeout": str(visibility), "RedrivePolicy": json.dumps(redrive)}

    def remove(self) -> None:
        for url in self._urls:
            self._client.delete_queue(QueueUrl=url)

    def arn(self, url: str) -> str:
        answer = self._client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return str(answer["Attributes"]["QueueArn"])

    def _create(self, attributes: dict[str, str]) -> str:
        name = f"fact-{uuid4().hex[:12]}" + (".fifo" if "FifoQueue" in attributes else "")
        url = str(self._client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])
        self._urls.append(url)
        return url
