"""The measurements in their order: the question of each, and why an emulator's values don't answer it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from operations.first_hour import cold_start, gateway, measure_findings, measure_queues, pace, usage
from operations.first_hour.dollars import Usage, snapshots
from operations.first_hour.findings import Finding
from operations.first_hour.queues import Probes
from operations.first_hour.sizes import Sizes
from operations.first_hour.stage import Api

_POLLERS = "LocalStack receives messages with a poller of its own, not Lambda's"
_GUARD = "LocalStack has no recursion guard"
_QUEUE = "LocalStack has a queue and a poller of its own"


@dataclass
class Parts:
    """The parts that measurements use; the probes are deployed, and the stage if a measurement needs it."""

    account: Any
    sizes: Sizes
    run: str
    api: Api
    probes: Probes
    begun: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    say: Callable[[str], None] = print

    @property
    def is_aws(self) -> bool:
        return not self.account.endpoint_url


@dataclass(frozen=True)
class Measurement:
    name: str
    question: str
    measure: Callable[[Parts], list[Finding]]
    #: it needs the stage, and not the probes alone
    needs_stage: bool = False


def _on_probes(
    measure: Callable[[Probes, Sizes, str, Callable[[], float]], list[Finding]], name: str, reason: str
) -> Callable[[Parts], list[Finding]]:
    def measured(parts: Parts) -> list[Finding]:
        found = measure(parts.probes, parts.sizes, f"{parts.run}-{name}", parts.now)
        return found if parts.is_aws else [finding.elsewhere(reason) for finding in found]

    return measured


def _delay(parts: Parts) -> list[Finding]:
    limit = parts.account.client("lambda").get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
    found = [
        Finding("the account's functions at a time (more lanes than these wait for Lambda, not for SQS)", limit),
        *measure_queues.delay(parts.probes, parts.sizes, f"{parts.run}-delay", parts.now),
        *pace.pace(parts.api, parts.sizes, parts.run, parts.now, parts.sleep),
    ]
    return found if parts.is_aws else [finding.elsewhere(_POLLERS) for finding in found]


def _cold(parts: Parts) -> list[Finding]:
    cold_start.deploy_copies(parts.account, parts.say)
    token = parts.api.signer.admin_token()
    return cold_start.cold_starts(parts.account.client("lambda"), token, parts.sizes.cold, is_aws=parts.is_aws)


def _dollars(parts: Parts) -> list[Finding]:
    lines = usage.log_lines(parts.account.client("logs"), int(parts.begun.timestamp() * 1000))
    hours = -(-(parts.now() - parts.begun.timestamp()) // 3600)
    counts = usage.OwnCounts(
        parts.api.requests, parts.probes.records_seen, parts.api.tasks, parts.account.requests["sqs"]
    )
    own = usage.own_usage(counts, lines, Usage(**snapshots(parts.sizes.cold), hours=hours))
    parts.say("    waiting for CloudWatch's metrics")
    wait = parts.sizes.metrics if parts.is_aws else 0
    metrics = usage.awaited_metrics(parts.account, parts.begun, own.invocations, wait, parts.sleep)
    return usage.usage_findings(own, metrics, is_aws=parts.is_aws)


MEASUREMENTS = (
    Measurement(
        "prefetch",
        "Does a trigger with BatchSize 1 receive messages for which no function is free? Two functions at a time.",
        _on_probes(measure_queues.prefetch, "prefetch", _POLLERS),
    ),
    Measurement(
        "delay",
        "How long after the end of a deferral is a lane's message invoked, with how many lanes at once?",
        _delay,
        needs_stage=True,
    ),
    Measurement(
        "early-delete",
        "Does deleting a message while its function runs let the group's next message be delivered?",
        _on_probes(measure_queues.early_delete, "early", _POLLERS),
    ),
    Measurement(
        "cold-start", "How long is a cold start of the API function, and what does SnapStart save?", _cold, True
    ),
    Measurement(
        "gateway",
        "Are API Gateway's answers and headers those of the contract?",
        lambda parts: gateway.gateway(parts.api, parts.run, is_aws=parts.is_aws),
        needs_stage=True,
    ),
    Measurement(
        "chain",
        "Finding 1: does Lambda stop a function that sends to its own queue, and does RecursiveLoop: Allow prevent it?",
        _on_probes(measure_findings.chain, "chain", _GUARD),
    ),
    Measurement(
        "failure",
        "Finding 2: how long do a message's receives last while each of them fails?",
        _on_probes(measure_findings.failure, "failure", _QUEUE),
    ),
    Measurement("dollars", "What did this run cost?", _dollars),
)
NAMES = tuple(one.name for one in MEASUREMENTS)
