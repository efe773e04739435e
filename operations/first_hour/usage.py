"""Counts a run's usage: by its own counts and Lambda's REPORT lines, and by CloudWatch's metrics."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from botocore.exceptions import ClientError

from completions.reader import cloudwatch_lines
from infra.deploy.account import Account
from operations.first_hour.dollars import LABELS, RECORD_SQS, TASK_SQS, TASK_WRITES, Usage, amounts, dollars
from operations.first_hour.findings import Finding
from operations.first_hour.probe_stack import PREFIX

ONLY_AWS = "LocalStack bills nothing, and has these metrics in part"
_REPORT = re.compile(r"Billed Duration: (\d+) ms\s+Memory Size: (\d+) MB")
_POLL_SECONDS = 15


@dataclass(frozen=True)
class OwnCounts:
    """The run's own counts."""

    api_requests: int
    #: records of the probes, and tasks of the stage
    records: int
    tasks: int
    #: the script's own requests to SQS
    sqs_requests: int


class CountingAccount:
    """Makes an account's clients, and counts the requests of each service."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.number, self.region, self.endpoint_url = account.number, account.region, account.endpoint_url
        self.requests: Counter[str] = Counter()

    def client(self, service: str) -> Any:
        client = self._account.client(service)
        client.meta.events.register("provide-client-params", lambda **_: self.requests.update([service]))
        return client

    def __str__(self) -> str:
        return str(self._account)


def own_usage(counts: OwnCounts, lines: Sequence[str], more: Usage) -> Usage:
    """Returns the usage by the run's counts and the functions' log lines. more: amounts that follow from neither."""
    reports = [(int(found[1]), int(found[2])) for line in lines if (found := _REPORT.search(line))]
    return Usage(
        api_requests=counts.api_requests,
        invocations=len(reports) or None,
        gb_seconds=sum(ms / 1000 * megabytes / 1024 for ms, megabytes in reports) if reports else None,
        write_units=counts.tasks * TASK_WRITES,
        sqs_requests=counts.sqs_requests + counts.records * RECORD_SQS + counts.tasks * TASK_SQS,
        log_gb=sum(len(line.encode()) + 26 for line in lines) / 1e9,
        snapshot_gb_seconds=more.snapshot_gb_seconds,
        restored_gb=more.restored_gb,
        hours=more.hours,
    )


def log_lines(logs: Any, since_ms: int) -> list[str]:
    """Returns the lines of all functions of the run."""
    prefix = f"/aws/lambda/{PREFIX}"
    pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
    groups = [group["logGroupName"] for page in pages for group in page["logGroups"]]
    return [line.text for group in groups for line in cloudwatch_lines(logs, group, since_ms)]


class Metrics:
    """CloudWatch's metrics of the run's functions, queues, table and API since it began."""

    def __init__(self, cloudwatch: Any, begun: datetime) -> None:
        self._cloudwatch = cloudwatch
        self._begun = begun.replace(second=0, microsecond=0)

    def usage(self, memory_mb: dict[str, int], queues: Sequence[str], logs: Sequence[str]) -> Usage:
        """Returns the usage. memory_mb: the functions by name; queues, logs: names of queues and log groups."""
        seconds = {name: self._lambda("Duration", name) for name in memory_mb}
        sqs = ("NumberOfMessagesSent", "NumberOfMessagesReceived", "NumberOfMessagesDeleted", "NumberOfEmptyReceives")
        table = [("TableName", PREFIX)]
        return Usage(
            api_requests=self._sum("AWS/ApiGateway", "Count", [("ApiName", "paceline"), ("Stage", "api")]),
            invocations=_total(self._lambda("Invocations", name) for name in memory_mb),
            gb_seconds=_total(
                None if found is None else found / 1000 * memory_mb[name] / 1024 for name, found in seconds.items()
            ),
            write_units=self._sum("AWS/DynamoDB", "ConsumedWriteCapacityUnits", table),
            read_units=self._sum("AWS/DynamoDB", "ConsumedReadCapacityUnits", table),
            sqs_requests=_total(self._sum("AWS/SQS", name, [("QueueName", queue)]) for name in sqs for queue in queues),
            log_gb=_in_gb(_total(self._sum("AWS/Logs", "IncomingBytes", [("LogGroupName", group)]) for group in logs)),
        )

    def _lambda(self, metric: str, name: str) -> float | None:
        return self._sum("AWS/Lambda", metric, [("FunctionName", name)])

    def _sum(self, namespace: str, metric: str, dimensions: Sequence[tuple[str, str]]) -> float | None:
        """Returns the metric's sum; None if CloudWatch has no value."""
        points = self._cloudwatch.get_metric_statistics(
            Namespace=namespace,
            MetricName=metric,
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions],
            StartTime=self._begun,
            EndTime=datetime.now(timezone.utc) + timedelta(minutes=1),
            Period=60,
            Statistics=["Sum"],
        )["Datapoints"]
        return sum(point["Sum"] for point in points) if points else None


def _total(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _in_gb(number: float | None) -> float | None:
    return None if number is None else number / 1e9


def resources(account: Any) -> tuple[dict[str, int], list[str], list[str]]:
    """Returns the resources that have metrics: functions with their memory in MB, queues, log groups."""
    pages = account.client("lambda").get_paginator("list_functions").paginate()
    functions = {one["FunctionName"]: one["MemorySize"] for page in pages for one in page["Functions"]}
    urls = account.client("sqs").list_queues(QueueNamePrefix=PREFIX).get("QueueUrls", [])
    groups = (
        account.client("logs").get_paginator("describe_log_groups").paginate(logGroupNamePrefix=f"/aws/lambda/{PREFIX}")
    )
    return (
        {name: memory for name, memory in functions.items() if name == PREFIX or name.startswith(f"{PREFIX}-")},
        [url.rpartition("/")[2] for url in urls],
        [group["logGroupName"] for page in groups for group in page["logGroups"]],
    )


def awaited_metrics(
    account: Any, begun: datetime, enough: float | None, seconds: float, sleep: Callable[[float], None]
) -> Usage:
    """Returns the metrics' usage once they show as many invocations as the logs, at the latest after `seconds`."""
    metrics, named = Metrics(account.client("cloudwatch"), begun), resources(account)
    waited = 0.0
    while True:
        found = _measured(metrics, named)
        if waited >= seconds or (enough is not None and (found.invocations or 0) >= enough):
            return found
        sleep(_POLL_SECONDS)
        waited += _POLL_SECONDS


def _measured(metrics: Metrics, named: tuple[dict[str, int], list[str], list[str]]) -> Usage:
    try:
        return metrics.usage(*named)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("InternalFailure", "NotImplemented"):
            return Usage()
        raise


def usage_findings(own: Usage, metrics: Usage, *, is_aws: bool) -> list[Finding]:
    """Returns amounts and dollars by both counts."""
    findings = []
    for label, usage in (("own count", own), ("CloudWatch", metrics)):
        known = amounts(usage)
        for name, text in LABELS.items():
            if name in known or label == "own count":
                found = Finding(f"{text}, by {label}", _rounded(known.get(name)), not_measured=_reason(name in known))
                findings.append(found)
        total = sum(dollars(usage).values())
        findings.append(Finding(f"dollars at list prices, by {label}", round(total, 4)))
    return findings if is_aws else [finding.elsewhere(ONLY_AWS) for finding in findings]


def _reason(is_known: bool) -> str:
    return "" if is_known else "the run does not count it; see CloudWatch's"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
