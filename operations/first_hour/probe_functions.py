"""The probes' functions. CloudFormation takes this file as inline code: 4,096 characters at most, boto3 alone.

Each invocation sends one record of its times and counts to the results queue.
"""

import json
import math
import os
import time
from collections.abc import Callable
from typing import Any

import boto3

Dict = dict[str, Any]
SQS: Any = boto3.client("sqs")
QUEUE_URL = os.environ.get("QUEUE_URL", "")
RESULTS_URL = os.environ.get("RESULTS_URL", "")
PROBE = os.environ.get("PROBE", "")


def recorded(behave: Callable[[Any, Dict, Dict], tuple[bool, Dict]]) -> Callable[..., Dict]:
    """Makes a handler of a function that returns whether the message is done, and further facts."""

    def handler(event: Dict, _context: object, sqs: Any = SQS) -> Dict:
        failures = []
        for message in event["Records"]:
            begun, body = time.time(), json.loads(message["body"])
            is_done, facts = behave(sqs, message, body)
            record = {
                "probe": PROBE,
                "id": message["messageId"],
                "receives": _receives(message),
                "first_received": int(message["attributes"]["ApproximateFirstReceiveTimestamp"]) / 1000,
                "begun": begun,
                "ended": time.time(),
            }
            sqs.send_message(QueueUrl=RESULTS_URL, MessageBody=json.dumps({**body, **record, **facts}))
            if not is_done:
                failures.append({"itemIdentifier": message["messageId"]})
        return {"batchItemFailures": failures}

    return handler


def _receives(message: Dict) -> int:
    return int(message["attributes"]["ApproximateReceiveCount"])


def _hide(sqs: Any, message: Dict, seconds: int) -> float:
    """Returns the earliest time, epoch seconds, at which the message is visible again."""
    asked = time.time()
    sqs.change_message_visibility(QueueUrl=QUEUE_URL, ReceiptHandle=message["receiptHandle"], VisibilityTimeout=seconds)
    return asked + seconds


@recorded
def stay(_sqs: Any, _message: Dict, body: Dict) -> tuple[bool, Dict]:
    time.sleep(body["seconds"])
    return True, {}


@recorded
def hide_until(sqs: Any, message: Dict, body: Dict) -> tuple[bool, Dict]:
    """Defers each delivery before a time until then, as a worker does; the one after it is the start."""
    seconds = math.ceil(body["until"] - time.time())
    if seconds <= 0:
        return True, {}
    return False, {"visible_at": _hide(sqs, message, seconds)}


@recorded
def delete_early(sqs: Any, message: Dict, body: Dict) -> tuple[bool, Dict]:
    deleted = None
    if body["early"]:
        sqs.delete_message(QueueUrl=QUEUE_URL, ReceiptHandle=message["receiptHandle"])
        deleted = time.time()
    time.sleep(body["seconds"])
    return True, {"deleted": deleted}


@recorded
def send_next(sqs: Any, _message: Dict, body: Dict) -> tuple[bool, Dict]:
    """Sends a new message to the queue that triggers this function: Lambda's recursion guard counts it."""
    if body["n"] < body["last"]:
        sqs.send_message(QueueUrl=QUEUE_URL, MessageBody=json.dumps({**body, "n": body["n"] + 1}))
    return True, {}


@recorded
def fail(sqs: Any, message: Dict, body: Dict) -> tuple[bool, Dict]:
    """Gives the message back each time, for twice as long as the time before, up to a limit."""
    seconds = min(2 ** (_receives(message) - 1), body["most"])
    return False, {"asked": seconds, "visible_at": _hide(sqs, message, seconds)}
