"""Creates again the stack's table and queues that are missing although the stack says that they exist."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

Properties = Mapping[str, Any]

#: Properties of a table that CreateTable takes unchanged.
_TABLE_PROPERTIES = ("TableName", "BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")
#: Resources in these states exist, by the stack's word.
_THERE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
_ACTIVE_SECONDS = 60
_POLL_SECONDS = 0.2


class _TemplateLoader(yaml.SafeLoader):
    """Reads `!Sub x` as {"!Sub": x}."""


def _tagged(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {f"!{tag}": loader.construct_scalar(node)}
    return {}  # no table or queue has another form


_TemplateLoader.add_multi_constructor("!", _tagged)


@cache
def _resources(template: str) -> Properties:
    """Reading the template takes 0.1 s."""
    found: Properties = yaml.load(template, _TemplateLoader)["Resources"]  # noqa: S506 - a safe loader
    return found


class Resources:
    """The table and the queues of one stage's template."""

    def __init__(self, dynamodb: DynamoDBClient, sqs: SQSClient, template: str, stage: str) -> None:
        self._dynamodb = dynamodb
        self._sqs = sqs
        self._stage = stage
        self._resources = _resources(template)

    def create_missing(self, cloudformation: CloudFormationClient, stack: str, say: Callable[[str], None]) -> None:
        """Creates, empty, each table and queue that this stack has and that does not exist; leaves the others alone."""
        for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack):
            for summary in page["StackResourceSummaries"]:
                resource = self._resources.get(summary["LogicalResourceId"])
                is_there = summary["ResourceStatus"] in _THERE
                if resource and is_there and self._create_if_missing(resource):
                    say(f"created {summary['LogicalResourceId']} of stack {stack} again: it was missing")

    def _create_if_missing(self, resource: Properties) -> bool:
        if resource["Type"] == "AWS::DynamoDB::Table":
            return self._create_table_if_missing(self._resolved(resource["Properties"]))
        if resource["Type"] == "AWS::SQS::Queue":
            return self._queue_arn(resource["Properties"])[1]
        return False

    def _create_table_if_missing(self, properties: Any) -> bool:
        name = properties["TableName"]
        try:
            self._dynamodb.describe_table(TableName=name)
            return False
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
        self._dynamodb.create_table(**{key: properties[key] for key in _TABLE_PROPERTIES if key in properties})
        self._wait_until_active(name)
        self._dynamodb.update_time_to_live(
            TableName=name, TimeToLiveSpecification=properties["TimeToLiveSpecification"]
        )
        self._dynamodb.update_continuous_backups(
            TableName=name, PointInTimeRecoverySpecification=properties["PointInTimeRecoverySpecification"]
        )
        return True

    def _wait_until_active(self, table: str) -> None:
        deadline = time.monotonic() + _ACTIVE_SECONDS
        while self._dynamodb.describe_table(TableName=table)["Table"]["TableStatus"] != "ACTIVE":
            if time.monotonic() > deadline:
                raise TimeoutError(f"the table {table} is not active after {_ACTIVE_SECONDS} s")
            time.sleep(_POLL_SECONDS)

    def _queue_arn(self, properties: Properties) -> tuple[str, bool]:
        """Creates the queue if it is missing; returns its ARN, and whether it was missing."""
        name = self._resolved(properties["QueueName"])
        is_missing = False
        try:
            url = self._sqs.get_queue_url(QueueName=name)["QueueUrl"]
        except ClientError as error:
            if error.response["Error"]["Code"].rpartition(".")[2] not in ("NonExistentQueue", "QueueDoesNotExist"):
                raise
            is_missing = True
            attributes: Any = {
                key: _text(self._resolved(value)) for key, value in properties.items() if key != "QueueName"
            }
            url = self._sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        answer = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return answer["Attributes"]["QueueArn"], is_missing

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "!Sub" in value:
            return value["!Sub"].replace("${Stage}", self._stage)
        if "!GetAtt" in value:  # only of a dead-letter queue's ARN
            return self._queue_arn(self._resources[value["!GetAtt"].partition(".")[0]]["Properties"])[0]
        return {key: self._resolved(one) for key, one in value.items()}


def _text(value: Any) -> str:
    """An attribute of a queue, which is text."""
    if isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"))
    return str(value).lower() if isinstance(value, bool) else str(value)
