"""List prices of AWS (us-east-1, on demand), and published prices of other hosted queues."""

from __future__ import annotations

from collections.abc import Mapping

#: Dollars for a million.
API_GATEWAY_REST = 3.50
LAMBDA_INVOCATION = 0.20
WRITE_UNIT = 0.625
SQS_FIFO_REQUEST = 0.50
#: Dollars for a GB-second on x86, and for a GB of ingested logs.
LAMBDA_GB_SECOND = 0.0000166667
LOGS_GB = 0.50

#: Of the functions in `.chalice/config.json`, stage dev.
API_GB, WORKER_GB = 0.5, 0.25
#: Assumed, not measured: the time of an AWS call from Lambda, and the handler's own time at these memory sizes.
CALL_SECONDS = 0.006
HANDLER_SECONDS = {"api": 0.004, "worker": 0.006}
#: Of a completion's line, with Lambda's own START, END and REPORT lines around it.
LOG_BYTES = 1_200

SQS = frozenset(
    {
        "SendMessage",
        "SendMessageBatch",
        "ReceiveMessage",
        "DeleteMessage",
        "DeleteMessageBatch",
        "ChangeMessageVisibility",
    }
)

#: System, dollars for a million tasks or runs, how that is computed.
OTHERS = (
    ("QStash, pay as you go", 10.00, "$1 per 100,000 messages"),
    ("QStash, fixed 1M a day", 6.00, "$180 a month for at most 1M a day, all of them used"),
    ("Inngest, over the plan", 50.00, "$0.00005 per extra execution, beside $75 a month"),
    ("Hatchet Cloud, over the free tier", 10.00, "$10 per million runs, beside the plan"),
)


def cost(
    submit: Mapping[str, float], run: Mapping[str, float], *, requests: float, slept_seconds: float
) -> dict[str, float]:
    """Dollars for a million tasks, by service.

    submit, run: calls of one task by kind, with `write units` and without empty receives. requests: HTTP requests of
    one task. slept_seconds: time for which the worker's invocations wait for the task's start.
    """
    invocations = 1 + run.get("ChangeMessageVisibility", 0)
    api_seconds = requests * HANDLER_SECONDS["api"] + _calls(submit) * CALL_SECONDS
    own_calls = _calls(run) - run.get("ReceiveMessage", 0) - run.get("DeleteMessageBatch", 0)
    worker_seconds = invocations * HANDLER_SECONDS["worker"] + own_calls * CALL_SECONDS
    sqs_requests = sum(calls.get(kind, 0) for calls in (submit, run) for kind in SQS)
    return {
        "API Gateway (REST)": requests * API_GATEWAY_REST,
        "Lambda, API": requests * LAMBDA_INVOCATION + api_seconds * API_GB * LAMBDA_GB_SECOND * 1e6,
        "DynamoDB": (submit["write units"] + run["write units"]) * WRITE_UNIT,
        "SQS": sqs_requests * SQS_FIFO_REQUEST,
        "Lambda, worker": invocations * LAMBDA_INVOCATION + worker_seconds * WORKER_GB * LAMBDA_GB_SECOND * 1e6,
        "Lambda, worker, asleep": slept_seconds * WORKER_GB * LAMBDA_GB_SECOND * 1e6,
        "Logs": LOG_BYTES / 1e9 * LOGS_GB * 1e6,
    }


def _calls(counted: Mapping[str, float]) -> float:
    return sum(count for kind, count in counted.items() if kind[0].isupper())
