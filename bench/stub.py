"""Replaces the transport of AWS's clients by one that answers in this process, at once, as AWS would."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from chalicelib.aws.signed_client import Connections

#: An address without a server.
NOWHERE = "http://127.0.0.1:1"
QUEUE_URL = f"{NOWHERE}/000000000000/paceline-dev.fifo"
ENVIRONMENT = {
    "TABLE_NAME": "paceline-dev",
    "QUEUE_URL": QUEUE_URL,
    "DEAD_LETTER_URL": f"{NOWHERE}/000000000000/paceline-dev-dead.fifo",
    "SCHEDULED_QUEUE_URL": f"{NOWHERE}/000000000000/paceline-dev-later",
    "AWS_ENDPOINT_URL": NOWHERE,
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_DEFAULT_REGION": "us-east-1",
}
_REFUSED = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"


class Stub:
    """Answers each call. is_over_limit: the fast admission finds the minute's quota used up."""

    def __init__(self) -> None:
        self.is_over_limit = False

    def install(self, with_boto3: bool = True) -> None:
        """Replaces the transport for the rest of this process. with_boto3=False does not import boto3 for it."""
        os.environ.update(ENVIRONMENT)
        Connections.exchange = lambda _, head, body: self._exchange(head, body)  # type: ignore
        if with_boto3:
            from botocore.httpsession import URLLib3Session  # noqa: PLC0415

            URLLib3Session.send = lambda _session, request: self._send(request)  # type: ignore

    def _exchange(self, head: bytes, body: bytes) -> tuple[int, dict[str, str], bytes]:
        target = head.partition(b"x-amz-target: ")[2].partition(b"\r\n")[0].decode()
        status, answer = self._answer(target.rpartition(".")[2], json.loads(body))
        return status, {"content-type": "application/x-amz-json-1.0"}, json.dumps(answer).encode()

    def _send(self, request: Any) -> Any:
        from botocore.awsrequest import AWSResponse  # noqa: PLC0415

        target = request.headers.get("X-Amz-Target") or b""
        operation = (target.decode() if isinstance(target, bytes) else str(target)).rpartition(".")[2]
        status, answer = self._answer(operation, json.loads(request.body or b"{}"))
        body = json.dumps(answer).encode()
        headers = {"content-type": "application/x-amz-json-1.0", "content-length": str(len(body))}
        return AWSResponse(request.url, status, headers, _Body(body))  # type: ignore[arg-type]

    def _answer(self, operation: str, parameters: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if operation == "UpdateItem" and "ReturnValues" in parameters:
            is_fast_admission = "if_not_exists(#planned" in parameters["UpdateExpression"]
            if is_fast_admission and self.is_over_limit:
                return 400, {"__type": _REFUSED, "message": "The conditional request failed", "Item": _lane()}
            lane = _lane(_admitted_at(parameters) if is_fast_admission else None)
            return 200, {"Attributes": lane | _claimed(parameters)}
        if operation == "SendMessage":
            digest = hashlib.md5(parameters["MessageBody"].encode()).hexdigest()
            return 200, {"MessageId": "m", "MD5OfMessageBody": digest, "SequenceNumber": "1"}
        return 200, {}


def _admitted_at(parameters: dict[str, Any]) -> int:
    """The planned start that a fast admission appends, epoch ms."""
    values = parameters["ExpressionAttributeValues"].values()
    return next(int(value["L"][0]["N"]) for value in values if value.get("L"))


def _claimed(parameters: dict[str, Any]) -> dict[str, Any]:
    """The lease that a claim sets, as an attribute of the lane; empty for another write."""
    values = parameters.get("ExpressionAttributeValues", {}).values()
    return next(({"running": value} for value in values if "token" in value.get("M", ())), {})


def _lane(newest_planned: int | None = None) -> dict[str, Any]:
    """A lane that remembers as many starts as it can: 40 tasks admitted, 20 started."""
    now_ms = int(time.time() * 1000)
    planned = now_ms + 20_000 if newest_planned is None else newest_planned
    return {
        "user_id": {"S": "ann"},
        "item": {"S": "lane"},
        "admitted": {"N": "40"},
        "planned": {"L": [{"N": str(planned - 1000 * n)} for n in range(21)]},
        "newest": {"S": "01a201c6-2ed8-78ae-98d6-419040bdc8e3"},
        "started_seq": {"N": "20"},
        "started": {"N": "20"},
        "starts": {"L": [{"N": str(now_ms - 1000 * n)} for n in range(20)]},
    }


class _Body:
    """The part of urllib3's response that botocore uses."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_options: Any) -> Iterator[bytes]:
        yield self._body
