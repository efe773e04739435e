"""Further pollers of a stage on LocalStack, whose own trigger invokes one worker at a time; AWS's has five or more."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.deployed.deployment import aws_client


@contextmanager
def polling(stage: str, count: int) -> Iterator[None]:
    """Polls the lanes' queue with so many threads, as Lambda's event source does. On AWS it adds nothing."""
    if not os.environ.get("AWS_ENDPOINT_URL"):
        yield
        return
    stopping = threading.Event()
    url = aws_client("sqs").get_queue_url(QueueName=f"paceline-{stage}.fifo")["QueueUrl"]
    with ThreadPoolExecutor(count) as pool:
        ended = [pool.submit(_poll, url, f"paceline-{stage}-worker", stopping) for _ in range(count)]
        try:
            yield
        finally:
            stopping.set()
    for one in ended:
        one.result()


def _poll(url: str, function: str, stopping: threading.Event) -> None:
    sqs, functions = aws_client("sqs"), aws_client("lambda")
    while not stopping.is_set():
        answer = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=1, MessageSystemAttributeNames=["All"]
        )
        for message in answer.get("Messages", ()):
            if _is_done(functions.invoke(FunctionName=function, Payload=json.dumps({"Records": [_record(message)]}))):
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def _record(message: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "awsRegion": "us-east-1",
    }


def _is_done(answer: Mapping[str, Any]) -> bool:
    """False for a message that stays in the queue: its function reported it, or ended without an answer."""
    return not answer.get("FunctionError") and not json.load(answer["Payload"])["batchItemFailures"]
