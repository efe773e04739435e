"""Builds the arguments that Lambda passes to a function behind an SQS event source: event and context."""

from __future__ import annotations

import time
import uuid
from typing import Any

from local.queue_source import Message


def sqs_event(message: Message, queue_arn: str) -> dict[str, Any]:
    """Returns the event with this one message, as the event source mapping builds it."""
    raw = message.raw
    record = {
        "messageId": message.id,
        "receiptHandle": message.receipt,
        "body": raw["Body"],
        "attributes": dict(raw.get("Attributes", {})),
        "messageAttributes": {name: _attribute(value) for name, value in raw.get("MessageAttributes", {}).items()},
        "md5OfBody": raw.get("MD5OfBody", ""),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }
    return {"Records": [record]}


def _attribute(value: dict[str, Any]) -> dict[str, Any]:
    """Lambda lower-cases the first letter of each key and adds two empty lists."""
    small = {key[0].lower() + key[1:]: part for key, part in value.items()}
    return {**small, "stringListValues": [], "binaryListValues": []}


class Context:
    """Lambda's context object, with the members that a Python function can use."""

    function_version = "$LATEST"
    memory_limit_in_mb = 256
    identity = None
    client_context = None

    def __init__(self, function_name: str, log_stream_name: str, timeout_seconds: float) -> None:
        self.function_name = function_name
        self.invoked_function_arn = f"arn:aws:lambda:us-east-1:000000000000:function:{function_name}"
        self.log_group_name = f"/aws/lambda/{function_name}"
        self.log_stream_name = log_stream_name
        self.aws_request_id = str(uuid.uuid4())
        self._deadline = time.monotonic() + timeout_seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, round((self._deadline - time.monotonic()) * 1000))
