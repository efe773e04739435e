"""What of a stage is there: read from LocalStack or AWS each time, never from a file that another clone would lack."""

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

#: A trigger takes up to a minute or so to be made or changed.
_TRIGGER_SECONDS = 180


@dataclass(frozen=True)
class Account:
    """Where the deployment goes to."""

    number: str
    partition: str
    region: str
    #: None for AWS itself.
    endpoint_url: str | None

    def client(self, service: str) -> Any:
        """A client of that service there."""
        return boto3.client(service, endpoint_url=self.endpoint_url, region_name=self.region)  # type: ignore[call-overload]

    def names(self, stage: str) -> dict[str, str]:
        """What stands for `${...}` in the policies."""
        return {
            "AWS::AccountId": self.number,
            "AWS::Partition": self.partition,
            "AWS::Region": self.region,
            "Stage": stage,
        }

    def __str__(self) -> str:
        where = f"LocalStack at {self.endpoint_url}" if self.endpoint_url else f"AWS account {self.number}"
        return f"{where}, {self.region}"


def find_account(endpoint_url: str | None) -> Account:
    """The account and region of the credentials at hand."""
    client = boto3.client("sts", endpoint_url=endpoint_url)
    identity = client.get_caller_identity()
    return Account(identity["Account"], identity["Arn"].split(":")[1], client.meta.region_name, endpoint_url)


def chalice_state(account: Account, stage: Stage) -> dict[str, Any]:
    """What is deployed, as Chalice's own state file would say it.

    Without it Chalice would make a second API and a second trigger, and delete nothing.
    """
    lambda_client = account.client("lambda")
    resources: list[dict[str, Any]] = []
    for name in stage.functions:
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
    """Return once every queue's trigger is at work. DeployError when one is not, or would lose what is deferred."""
    client = account.client("lambda")
    for trigger in (r for r in deployed["resources"] if r["resource_type"] == "sqs_event"):
        mapping = _settled_mapping(client, trigger["event_uuid"])
        command = f"aws lambda update-event-source-mapping --uuid {mapping['UUID']}"
        if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", ()):
            remedy = f"{command} --function-response-types ReportBatchItemFailures"
            raise DeployError("the trigger would delete what the worker defers", remedy)
        if mapping["State"] != "Enabled":
            raise DeployError(f"the queue's trigger is {mapping['State']}", f"{command} --enabled starts it")


def _settled_mapping(client: Any, uuid: str) -> dict[str, Any]:
    deadline = time.monotonic() + _TRIGGER_SECONDS
    while True:
        mapping: dict[str, Any] = client.get_event_source_mapping(UUID=uuid)
        if not mapping["State"].endswith("ing") or time.monotonic() > deadline:
            return mapping
        time.sleep(1)


def rest_api_ids(account: Account, stage: Stage) -> list[str]:
    """The REST APIs that may call the stage's API function; every stage's has the same name, `paceline`."""
    answer = _found(account.client("lambda").get_policy, FunctionName=stage.function_name(API))
    allowed = set(re.findall(r"arn:[^:]+:execute-api:[^:]+:[^:]+:([a-z0-9]+)/", answer["Policy"])) if answer else set()
    return [api["id"] for api in _pages(account.client("apigateway"), "get_rest_apis", "items") if api["id"] in allowed]


def _role(name: str, role: dict[str, str]) -> dict[str, Any]:
    return _resource(f"{name}_role", "iam_role", role_arn=role["Arn"], role_name=role["RoleName"])


def _triggers(client: Any, name: str, function_arn: str) -> Iterator[dict[str, Any]]:
    for mapping in _pages(client, "list_event_source_mappings", "EventSourceMappings", FunctionName=function_arn):
        # LocalStack also lists those of functions whose name merely begins like this one's.
        if mapping["FunctionArn"] != function_arn or not _mapping_lives(mapping):
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
    """Everything that is there and bears the stage's name, each as `kind name`. Empty after `make destroy`."""
    return [f"{kind} {name}" for kind, names in _KINDS.items() for name in names(account, stage)]


def sweep(account: Account, stage: Stage) -> list[str]:
    """Delete the alarms and log groups that the stack left behind, as LocalStack's does after an update."""
    alarms, groups = _alarms(account, stage), _log_groups(account, stage)
    if alarms:
        account.client("cloudwatch").delete_alarms(AlarmNames=alarms)
    for group in groups:
        account.client("logs").delete_log_group(logGroupName=group)
    return alarms + groups


def _stacks(account: Account, stage: Stage) -> list[str]:
    stacks = _pages(account.client("cloudformation"), "list_stacks", "StackSummaries")
    return [s["StackName"] for s in stacks if s["StackName"] == stage.full_name and _lives(s)]


def _lives(stack: dict[str, Any]) -> bool:
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
    return [m["UUID"] for m in mappings if m["EventSourceArn"].endswith(queues) and _mapping_lives(m)]


def _mapping_lives(mapping: dict[str, Any]) -> bool:
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
    """Not those of a stage whose name merely begins with this one's."""
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
    """All items of a listing, page after page."""
    return [item for page in client.get_paginator(operation).paginate(**request) for item in page.get(key) or ()]


def _found(call: Callable[..., Any], **request: Any) -> Any:
    """What the call answers, None when AWS says that there is no such thing."""
    try:
        return call(**request)
    except ClientError as error:
        if error.response["Error"]["Code"] in _MISSING_CODES:
            return None
        raise


def state_json(state: dict[str, Any]) -> str:
    """As Chalice writes it, for `chalice url` and `chalice logs`."""
    return json.dumps(state, indent=2, sort_keys=True) + "\n"
