"""The first hour's usage by CloudWatch's metrics, which appear minutes after the invocations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from infra.deploy.account import Account as AwsAccount
from operations.first_hour.probe_stack import PREFIX
from operations.first_hour.usage import CountingAccount, awaited_metrics
from tests.unit.first_hour_world import refused

#: Sums of the metrics, by name and the first dimension's value.
SUMS = {
    ("Invocations", PREFIX): 10.0,
    ("Invocations", f"{PREFIX}-worker"): 20.0,
    ("Duration", PREFIX): 4_000.0,
    ("Duration", f"{PREFIX}-worker"): 8_000.0,
    ("ConsumedWriteCapacityUnits", PREFIX): 40.0,
    ("NumberOfMessagesSent", f"{PREFIX}.fifo"): 5.0,
    ("NumberOfEmptyReceives", f"{PREFIX}.fifo"): 100.0,
    ("IncomingBytes", f"/aws/lambda/{PREFIX}"): 2e9,
}


class Account:
    """An account whose metrics appear after so many seconds of sleep."""

    def __init__(self, appear_after: float = 0, error: ClientError | None = None) -> None:
        self._appear_after = appear_after
        self._error = error
        self.slept = 0.0

    def client(self, _service: str) -> Any:
        return self

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def get_paginator(self, operation: str) -> Any:
        return getattr(self, operation)

    @property
    def list_functions(self) -> Any:
        sizes = {PREFIX: 512, f"{PREFIX}-worker": 256, "paceline-dev": 512, f"{PREFIX}x": 512}
        return _Pages({"Functions": [{"FunctionName": name, "MemorySize": size} for name, size in sizes.items()]})

    @property
    def describe_log_groups(self) -> Any:
        return _Pages({"logGroups": [{"logGroupName": f"/aws/lambda/{PREFIX}"}]})

    def list_queues(self, **_: str) -> dict[str, Any]:
        return {"QueueUrls": [f"https://sqs.example/1/{PREFIX}.fifo"]}

    def get_metric_statistics(self, **request: Any) -> dict[str, Any]:
        if self._error:
            raise self._error
        total = SUMS.get((request["MetricName"], request["Dimensions"][0]["Value"]))
        if total is None or self.slept < self._appear_after:
            return {"Datapoints": []}
        return {"Datapoints": [{"Sum": total / 2}, {"Sum": total / 2}]}


class _Pages:
    def __init__(self, page: dict[str, Any]) -> None:
        self._page = page

    def paginate(self, **_: str) -> Iterator[dict[str, Any]]:
        yield self._page


BEGUN = datetime(2026, 11, 28, tzinfo=timezone.utc)


def test_the_metrics_of_the_runs_own_resources_are_summed() -> None:
    usage = awaited_metrics(account := Account(), BEGUN, 30, 300, account.sleep)
    assert (usage.invocations, usage.write_units, usage.sqs_requests, usage.log_gb) == (30, 40, 105, 2)
    assert usage.gb_seconds == 4 * 0.5 + 8 * 0.25
    assert (usage.api_requests, usage.read_units) == (None, None)
    assert account.slept == 0


def test_the_run_waits_until_the_metrics_show_its_invocations() -> None:
    account = Account(appear_after=100)
    assert awaited_metrics(account, BEGUN, 30, 300, account.sleep).invocations == 30
    assert 100 <= account.slept < 130


def test_the_run_does_not_wait_for_ever() -> None:
    account = Account()
    assert awaited_metrics(account, BEGUN, 31, 300, account.sleep).invocations == 30
    assert account.slept == 300


def test_an_emulator_without_metrics_gives_none() -> None:
    account = Account(error=refused("InternalFailure", "not implemented", "GetMetricStatistics"))
    assert awaited_metrics(account, BEGUN, None, 0, account.sleep).invocations is None
    denied = Account(error=refused("AccessDenied", "no", "GetMetricStatistics"))
    with pytest.raises(ClientError):
        awaited_metrics(denied, BEGUN, None, 0, denied.sleep)


def test_the_scripts_own_requests_are_counted_by_service() -> None:
    counting = CountingAccount(AwsAccount("1", "us-east-1", None))
    client = counting.client("sqs")
    with Stubber(client) as stubber:
        for _ in range(2):
            stubber.add_response("list_queues", {})
            client.list_queues()
    assert counting.requests == {"sqs": 2}
