"""The resources of `infra/template.yaml`, created through a client."""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from chalicelib.aws.client import client
from infra.stack import TEMPLATE
from tests.in_process import Record, make_record


def boto3_client(service: str) -> Any:
    """For moto, which stands behind boto3 only."""
    return client(service, None, is_boto3=True)


@dataclass(frozen=True)
class Aws:
    """A client, and the table and queues made for one run of the tests; all within AWS itself without an endpoint."""

    sqs: Any
    table: str
    queue_url: str
    dead_letter_url: str
    endpoint_url: str = ""
    later_url: str = ""
    later_dead_url: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that name them."""
        return {
            "TABLE_NAME": self.table,
            "QUEUE_URL": self.queue_url,
            "DEAD_LETTER_URL": self.dead_letter_url,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_CLIENT": "signed" if self.endpoint_url else "boto3",  # moto stands behind boto3 only
            "SCHEDULED_QUEUE_URL": self.later_url,
            "SCHEDULED_DEAD_LETTER_URL": self.later_dead_url,
        }


class AwsQueues:
    """The queues as `Queues` of tests/in_process.py."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws

    def receive(self, most: int = 10) -> list[Record]:
        return [_as_record(message) for message in self._receive(self.aws.queue_url, most)]

    def receive_scheduled(self) -> list[Record]:
        return [_as_record(message) for message in self._receive(self.aws.later_url, 10)]

    def delete(self, record: Record) -> None:
        for url in (self.aws.queue_url, self.aws.later_url):
            with suppress(self.aws.sqs.exceptions.ReceiptHandleIsInvalid):
                self.aws.sqs.delete_message(QueueUrl=url, ReceiptHandle=record["receiptHandle"])

    def dead_letters(self) -> list[str]:
        return [message["Body"] for message in self._receive(self.aws.dead_letter_url, 10)]

    def _receive(self, url: str, most: int) -> list[Any]:
        answer = self.aws.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=most, AttributeNames=["All"], WaitTimeSeconds=0
        )
        return list(answer.get("Messages", ()))


def _as_record(message: Any) -> Record:
    return make_record(message["Body"], message["ReceiptHandle"], message["MessageId"], message["Attributes"])


#: in the account that moto makes up
DEAD_LETTER_ARNS = {
    "DeadLetterQueue.Arn": "arn:aws:sqs:us-east-1:123456789012:paceline-test-dead.fifo",
    "LaterDeadLetterQueue.Arn": "arn:aws:sqs:us-east-1:123456789012:paceline-test-later-dead",
}


class _TemplateLoader(yaml.SafeLoader):
    pass


_TemplateLoader.add_multi_constructor("!", lambda loader, suffix, node: None)
_TemplateLoader.add_constructor("!Sub", lambda loader, node: loader.construct_scalar(node).replace("${Stage}", "test"))
_TemplateLoader.add_constructor("!GetAtt", lambda loader, node: DEAD_LETTER_ARNS.get(node.value, ""))
_TemplateLoader.add_constructor("!Ref", lambda loader, node: loader.construct_scalar(node))


#: Properties of the table that CreateTable takes unchanged.
TABLE_PROPERTIES = ("TableName", "BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")


def make_resources(dynamodb: Any, sqs: Any) -> Aws:
    """The template's table and queues by direct calls: moto's CloudFormation wants a heavy extra of its own."""
    resources = yaml.load(TEMPLATE.read_text(), _TemplateLoader)["Resources"]
    table = {name: value for name, value in resources["Table"]["Properties"].items() if name in TABLE_PROPERTIES}
    dynamodb.create_table(**table)
    names = ("DeadLetterQueue", "LaterDeadLetterQueue", "Queue", "LaterQueue")
    dead, later_dead, queue_url, later_url = (_make_queue(sqs, resources[name]["Properties"]) for name in names)
    return Aws(sqs, table["TableName"], queue_url, dead, later_url=later_url, later_dead_url=later_dead)


def _make_queue(sqs: Any, properties: dict[str, Any]) -> str:
    attributes = {name: _text(value) for name, value in properties.items() if name not in ("QueueName", "Tags")}
    return str(sqs.create_queue(QueueName=properties["QueueName"], Attributes=attributes)["QueueUrl"])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
