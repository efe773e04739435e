"""Deletes what remains of a stage after CloudFormation has deleted its stack.

A function that is still running may create its log group again, and LocalStack keeps alarms of an updated stack.
"""

from __future__ import annotations

from typing import Any

from infra.deploy.access_log import access_log_group
from infra.deploy.account import Account
from infra.deploy.stages import Stage


def delete_leftovers(account: Account, stage: Stage) -> list[str]:
    """Deletes the stage's alarms and log groups; returns their names."""
    alarms, groups = _alarms(account, stage), _log_groups(account, stage)
    if alarms:
        account.client("cloudwatch").delete_alarms(AlarmNames=alarms)
    for group in groups:
        account.client("logs").delete_log_group(logGroupName=group)
    return alarms + groups


def _alarms(account: Account, stage: Stage) -> list[str]:
    found = _pages(account.client("cloudwatch"), "describe_alarms", "MetricAlarms", AlarmNamePrefix=stage.full_name)
    return [alarm["AlarmName"] for alarm in found if alarm["AlarmName"].startswith(f"{stage.full_name}-")]


def _log_groups(account: Account, stage: Stage) -> list[str]:
    names = {f"/aws/lambda/{stage.function_name(function)}" for function in stage.functions}
    names.add(access_log_group(stage))
    groups = [
        group
        for prefix in (f"/aws/lambda/{stage.full_name}", access_log_group(stage))
        for group in _pages(account.client("logs"), "describe_log_groups", "logGroups", logGroupNamePrefix=prefix)
    ]
    return [group["logGroupName"] for group in groups if group["logGroupName"] in names]


def _pages(client: Any, operation: str, key: str, **request: Any) -> list[Any]:
    """Returns all items of a paginated listing."""
    return [item for page in client.get_paginator(operation).paginate(**request) for item in page.get(key) or ()]
