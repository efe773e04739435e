"""List prices of AWS (us-east-1, on demand), and published prices of other hosted queues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Dollars for a million.
API_GATEWAY_REST = 3.50
LAMBDA_INVOCATION = 0.20
WRITE_UNIT = 0.625
SQS_FIFO_REQUEST = 0.50
#: Dollars for a GB-second on arm64, a GB restored from a snapshot, and a GB of ingested logs.
LAMBDA_GB_SECOND = 0.0000133334
RESTORED_GB = 0.0001397998
LOGS_GB = 0.50
#: Dollars for a GB in DynamoDB for a month with its point-in-time recovery, and for a GB sent to the internet.
STORED_GB_MONTH = 0.25 + 0.20
EGRESS_GB = 0.09


@dataclass(frozen=True)
class Sizes:
    """Memory of a stage's functions in GB, as in `.chalice/config.json`."""

    api_gb: float
    worker_gb: float


STAGES = {"dev": Sizes(0.5, 0.25), "prod": Sizes(1.0, 0.5)}
#: Worker of stage dev.
WORKER_GB = STAGES["dev"].worker_gb
#: Assumed, not measured: the time of an AWS call from Lambda, and the handler's own time at these memory sizes.
CALL_SECONDS = 0.006
HANDLER_SECONDS = {"api": 0.004, "worker": 0.006}
#: Of a completion's line, with Lambda's own START, END and REPORT lines around it; of these for a request of the API.
LOG_BYTES = 1_200
API_LOG_BYTES = 500
#: Of an answer; and of a record with its share of the lane, for 30 days.
ANSWER_BYTES = 1_000
STORED_BYTES = 400
#: Share of invocations that start in a new environment.
COLD_SHARE = 0.01

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
    submit: Mapping[str, float], run: Mapping[str, float], sizes: Sizes, *, requests: float, slept_seconds: float
) -> dict[str, float]:
    """Dollars for a million tasks, by service.

    submit, run: calls of one task by kind, with `write units` and without empty receives; each other receive brings one
    message, for an invocation of its own. requests: HTTP requests of
    one task. slept_seconds: time for which the worker's invocations wait for the task's start.
    """
    per_second = LAMBDA_GB_SECOND * 1e6
    invocations = run["ReceiveMessage"]
    api_seconds = requests * HANDLER_SECONDS["api"] + _calls(submit) * CALL_SECONDS
    own_calls = _calls(run) - run.get("ReceiveMessage", 0) - run.get("DeleteMessageBatch", 0)
    worker_seconds = invocations * HANDLER_SECONDS["worker"] + own_calls * CALL_SECONDS
    sqs_requests = sum(calls.get(kind, 0) for calls in (submit, run) for kind in SQS)
    return {
        "API Gateway (REST)": requests * API_GATEWAY_REST,
        "Lambda, API": requests * LAMBDA_INVOCATION + api_seconds * sizes.api_gb * per_second,
        "DynamoDB": (submit["write units"] + run["write units"]) * WRITE_UNIT,
        "SQS": sqs_requests * SQS_FIFO_REQUEST,
        "Lambda, worker": invocations * LAMBDA_INVOCATION + worker_seconds * sizes.worker_gb * per_second,
        "Lambda, worker, asleep": slept_seconds * sizes.worker_gb * per_second,
        "Lambda, snapshots": COLD_SHARE * (requests * sizes.api_gb + invocations * sizes.worker_gb) * RESTORED_GB * 1e6,
        "Logs": (LOG_BYTES + requests * API_LOG_BYTES) / 1e9 * LOGS_GB * 1e6,
        "Storage, egress": (STORED_BYTES * STORED_GB_MONTH + requests * ANSWER_BYTES * EGRESS_GB) / 1e9 * 1e6,
    }


def _calls(counted: Mapping[str, float]) -> float:
    return sum(count for kind, count in counted.items() if kind[0].isupper())
