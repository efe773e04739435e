"""Reads a stage's deployed resources from LocalStack or AWS, so that every clone sees the same state."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import ClientError

from infra.deploy.errors import DeployError
from infra.deploy.stages import API, Stage

_MISSING_CODES = frozenset({"NoSuchEntity", "NotFoundException", "ResourceNotFoundException", "404"})

#: Seconds to wait for a trigger; creating or changing one takes up to about a minute.
_TRIGGER_SECONDS = 180
#: Functions of earlier versions. They are in the state, so that Chalice deletes those still deployed, with their roles
#: and triggers: an old trigger would compete for the queue with the new one.
FORMER_FUNCTIONS = ("later",)


@dataclass(frozen=True)
class Account:
    """The account and region to deploy to."""

    number: str
    partition: str
    region: str
    #: None for AWS
    endpoint_url: str | None

    def client(self, service: str) -> Any:
        """Returns a boto3 client of the service for this account."""
        return boto3.client(service, endpoint_url=self.endpoint_url, region_name=self.region)  # type: ignore[call-overload]

    def names(self, stage: str) -> dict[str, str]:
        """Returns the values for `${...}` in the policies."""
        return {
            "AWS::AccountId": self.number,
            "AWS::Partition": self.partition,
            "AWS::Region": self.region,
            "Stage": stage,
        }

    def __str__(self) -> str:
        target = f"LocalStack at {self.endpoint_url}" if self.endpoint_url else f"AWS account {self.number}"
        return f"{target}, {self.region}"


def find_account(endpoint_url: str | None) -> Account:
    """Returns the account and region of the current credentials."""
    client = boto3.client("sts", endpoint_url=endpoint_url)
    identity = client.get_caller_identity()
    return Account(identity["Account"], identity["Arn"].split(":")[1], client.meta.region_name, endpoint_url)


def chalice_state(account: Account, stage: Stage) -> dict[str, Any]:
    """Returns the deployed resources in the form of Chalice's state file.

    Without it Chalice would create a second API and a second trigger, and delete nothing.
    """
    lambda_client = account.client("lambda")
    resources: list[dict[str, Any]] = []
    for name in (*stage.functions, *FORMER_FUNCTIONS):
        role = _found(account.client("iam").get_role, RoleName=stage.role_name(name))
        if role:
            resources.append(_role(name, role["Role"]))
        function = _found(lambda_client.get_function_configuration, FunctionName=stage.function_name(name))
        if function:
            resources.append(_resource(name, "lambda_function", lambda_arn=function["FunctionArn"]))
            resources += _triggers(lambda_client, name, function["FunctionArn"])
    resources += [_rest_api(account, stage, api_id) for api_id in rest_api_ids(account, stage)[:1]]
    return {"resources": resources, "schema_version": "2.0", "backend": "api"}


def wait_for_triggers(account: Account, deployed: dict[str, Any]) -> None:
    """Waits until every trigger is enabled. Raises DeployError if one is not, or would delete deferred messages."""
    client = account.client("lambda")
    for trigger in (r for r in deployed["resources"] if r["resource_type"] == "sqs_event"):
        mapping = _stable_mapping(client, trigger["event_uuid"])
        command = f"aws lambda update-event-source-mapping --uuid {mapping['UUID']}"
        if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", ()):
            remedy = f"{command} --function-response-types ReportBatchItemFailures"
            raise DeployError("the trigger would delete deferred messages", remedy)
        if mapping["State"] != "Enabled":
            raise DeployError(f"the queue's trigger is {mapping['State']}", f"enable it with {command} --enabled")


def _stable_mapping(client: Any, uuid: str) -> dict[str, Any]:
    deadline = time.monotonic() + _TRIGGER_SECONDS
    while True:
        mapping: dict[str, Any] = client.get_event_source_mapping(UUID=uuid)
        if not mapping["State"].endswith("ing") or time.monotonic() > deadline:
            return mapping
        time.sleep(1)


def rest_api_ids(account: Account, stage: Stage) -> list[str]:
    """Returns the ids of the REST APIs that may invoke the stage's function; all stages name theirs `paceline`."""
    answer = _found(account.client("lambda").get_policy, FunctionName=stage.function_name(API))
    allowed = set(re.findall(r"arn:[^:]+:execute-api:[^:]+:[^:]+:([a-z0-9]+)/", answer["Policy"])) if answer else set()
    return [api["id"] for api in _pages(account.client("apigateway"), "get_rest_apis", "items") if api["id"] in allowed]


def _role(name: str, role: dict[str, str]) -> dict[str, Any]:
    return _resource(f"{name}_role", "iam_role", role_arn=role["Arn"], role_name=role["RoleName"])


def _triggers(client: Any, name: str, function_arn: str) -> Iterator[dict[str, Any]]:
    for mapping in _pages(client, "list_event_source_mappings", "EventSourceMappings", FunctionName=function_arn):
        # LocalStack also lists mappings of functions whose name has this name as a prefix.
        if mapping["FunctionArn"] != function_arn or not _mapping_exists(mapping):
            continue
        queue_arn = mapping["EventSourceArn"]
        yield _resource(
            f"{name}-sqs-event-source",
            "sqs_event",
            queue_arn=queue_arn,
            event_uuid=mapping["UUID"],
            queue=queue_arn.rpartition(":")[2],
            lambda_arn=function_arn,
        )


def _rest_api(account: Account, stage: Stage, api_id: str) -> dict[str, Any]:
    url = f"https://{api_id}.execute-api.{account.region}.amazonaws.com/{stage.api_gateway_stage}/"
    return _resource("rest_api", "rest_api", rest_api_id=api_id, rest_api_url=url)


def _resource(name: str, resource_type: str, **values: str) -> dict[str, Any]:
    return {"name": name, "resource_type": resource_type, **values}


def leftovers(account: Account, stage: Stage) -> list[str]:
    """Lists all resources named after the stage, each as `kind name`. Empty after `make destroy`."""
    return [f"{kind} {name}" for kind, names in _KINDS.items() for name in names(account, stage)]


def sweep(account: Account, stage: Stage) -> list[str]:
    """Deletes alarms and log groups that the stack left behind; LocalStack's does after an update."""
    alarms, groups = _alarms(account, stage), _log_groups(account, stage)
    if alarms:
        account.client("cloudwatch").delete_alarms(AlarmNames=alarms)
    for group in groups:
        account.client("logs").delete_log_group(logGroupName=group)
    return alarms + groups


def _stacks(account: Account, stage: Stage) -> list[str]:
    stacks = _pages(account.client("cloudformation"), "list_stacks", "StackSummaries")
    return [s["StackName"] for s in stacks if s["StackName"] == stage.full_name and _exists(s)]


def _exists(stack: dict[str, Any]) -> bool:
    return bool(stack["StackStatus"] != "DELETE_COMPLETE")


def _tables(account: Account, stage: Stage) -> list[str]:
    return [name for name in _pages(account.client("dynamodb"), "list_tables", "TableNames") if _ours(name, stage)]


def _queues(account: Account, stage: Stage) -> list[str]:
    urls = _pages(account.client("sqs"), "list_queues", "QueueUrls", QueueNamePrefix=stage.full_name)
    return [name for name in (url.rpartition("/")[2] for url in urls) if _ours(name.removesuffix(".fifo"), stage)]


def _functions(account: Account, stage: Stage) -> list[str]:
    functions = _pages(account.client("lambda"), "list_functions", "Functions")
    return [f["FunctionName"] for f in functions if _ours(f["FunctionName"], stage)]


def _mappings(account: Account, stage: Stage) -> list[str]:
    mappings = _pages(account.client("lambda"), "list_event_source_mappings", "EventSourceMappings")
    queues = (f":{stage.full_name}.fifo", f":{stage.full_name}-later")
    return [m["UUID"] for m in mappings if m["EventSourceArn"].endswith(queues) and _mapping_exists(m)]


def _mapping_exists(mapping: dict[str, Any]) -> bool:
    return bool(mapping.get("State") != "Deleting")


def _roles(account: Account, stage: Stage) -> list[str]:
    roles = _pages(account.client("iam"), "list_roles", "Roles")
    return [role["RoleName"] for role in roles if role["RoleName"] in map(stage.role_name, stage.functions)]


def _log_groups(account: Account, stage: Stage) -> list[str]:
    prefix = f"/aws/lambda/{stage.full_name}"
    groups = _pages(account.client("logs"), "describe_log_groups", "logGroups", logGroupNamePrefix=prefix)
    return [g["logGroupName"] for g in groups if _ours(g["logGroupName"].removeprefix("/aws/lambda/"), stage)]


def _alarms(account: Account, stage: Stage) -> list[str]:
    prefix = f"{stage.full_name}-"
    return [
        alarm["AlarmName"]
        for alarm in _pages(account.client("cloudwatch"), "describe_alarms", "MetricAlarms", AlarmNamePrefix=prefix)
    ]


def _dashboards(account: Account, stage: Stage) -> list[str]:
    dashboards = _pages(account.client("cloudwatch"), "list_dashboards", "DashboardEntries")
    return [d["DashboardName"] for d in dashboards if d["DashboardName"] == stage.full_name]


def _ours(name: str, stage: Stage) -> bool:
    """Excludes stages whose name has this stage's name as a prefix."""
    return name in (f"{stage.full_name}-dead", *map(stage.function_name, stage.functions))


_KINDS: dict[str, Callable[[Account, Stage], list[str]]] = {
    "API": rest_api_ids,
    "function": _functions,
    "trigger": _mappings,
    "role": _roles,
    "stack": _stacks,
    "table": _tables,
    "queue": _queues,
    "log group": _log_groups,
    "alarm": _alarms,
    "dashboard": _dashboards,
}


def _pages(client: Any, operation: str, key: str, **request: Any) -> list[Any]:
    """Returns all items of a paginated listing."""
    return [item for page in client.get_paginator(operation).paginate(**request) for item in page.get(key) or ()]


def _found(call: Callable[..., Any], **request: Any) -> Any:
    """Returns the call's answer, or None if the resource does not exist."""
    try:
        return call(**request)
    except ClientError as error:
        if error.response["Error"]["Code"] in _MISSING_CODES:
            return None
        raise


def state_json(state: dict[str, Any]) -> str:
    """Formats the state like Chalice's own file, for `chalice url` and `chalice logs`."""
    return json.dumps(state, indent=2, sort_keys=True) + "\n"
