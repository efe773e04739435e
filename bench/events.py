"""Events as Lambda hands them to the functions."""

from __future__ import annotations

import json
import time
from typing import Any


def submit_event(user_id: str, tasks: int = 1, payload: Any = None) -> dict[str, Any]:
    """API Gateway's event of a submit: of one task, or of many by the bulk route. payload: of the one task."""
    path = "/api/v1/task" if tasks == 1 else "/api/v1/tasks"
    body: dict[str, Any] = {"user_id": user_id}
    body |= {"payload": payload or {"n": 1}} if tasks == 1 else {"tasks": [{"payload": {"n": n}} for n in range(tasks)]}
    return {
        "resource": path,
        "path": path,
        "httpMethod": "POST",
        "headers": {"Content-Type": "application/json"},
        "multiValueHeaders": {"Content-Type": ["application/json"]},
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {"resourcePath": path, "httpMethod": "POST", "identity": {"sourceIp": "127.0.0.1"}},
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }


def run_event(user_id: str) -> dict[str, Any]:
    """SQS's event of the one task of that user, who has none before it."""
    now_ms = int(time.time() * 1000)
    task = {
        "v": 1,
        "user_id": user_id,
        "task_id": "01a201c6-2ed8-78ae-98d6-419040bdc8e3",
        "seq": 1,
        "task": "log",
        "planned_at": now_ms,
        "submitted_at": now_ms,
        "payload": {"n": 1},
    }
    record = {
        "messageId": "m",
        "receiptHandle": "r",
        "body": json.dumps(task),
        "attributes": {"MessageGroupId": user_id, "ApproximateReceiveCount": "1", "SentTimestamp": str(now_ms)},
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:paceline-dev.fifo",
        "awsRegion": "us-east-1",
    }
    return {"Records": [record]}


class Context:
    """Lambda's context object; the functions do not look at it."""

    function_name = "bench"
    memory_limit_in_mb = 512
    aws_request_id = "bench"
