"""Clears the way for a deployment after a failed one, unless that would delete data.

CloudFormation can't update a stack whose creation failed: it must be deleted first, with its table. A table that
refuses to be deleted also stops CloudFormation itself from rolling back the creation.
"""

from __future__ import annotations

from contextlib import suppress

from infra.deploy.account import Account
from infra.deploy.errors import DeployError
from infra.deploy.package import read_stack_template
from infra.deploy.stages import Stage
from infra.stack import DEAD_STATES, stack_name

_COUNTS = ("", "NotVisible", "Delayed")


def clear_failed(account: Account, stage: Stage, state: str | None) -> None:
    """Lets the stage's table be deleted if the stack's creation failed. state: the stack's, None without a stack.

    DeployError if the table or a queue holds data, and for a failed roll-back, which only the caller can continue.
    """
    name = stack_name(stage.name)
    if state == "UPDATE_ROLLBACK_FAILED":
        remedy = f"continue it: aws cloudformation continue-update-rollback --stack-name {name}; then deploy again"
        raise DeployError(f"the stack {name} could not be rolled back", remedy)
    if state not in DEAD_STATES:
        return
    if kept := holding_data(account, stage):
        confirm = f" DESTROY={stage.name}" if stage.is_guarded else ""
        remedy = f"save the data, delete it with `make destroy STAGE={stage.name}{confirm}`, then deploy again"
        raise DeployError(f"the stack {name} is {state} and can only be deleted, but {kept} holds data", remedy)
    end_protection(account, stage)


def end_protection(account: Account, stage: Stage) -> None:
    """Lets the stage's table be deleted."""
    client = account.client("dynamodb")
    with suppress(client.exceptions.ResourceNotFoundException):
        client.update_table(TableName=stage.full_name, DeletionProtectionEnabled=False)


def holding_data(account: Account, stage: Stage) -> str | None:
    """Returns the name of the first of table and queues that is not empty."""
    table = account.client("dynamodb")
    with suppress(table.exceptions.ResourceNotFoundException):
        if table.scan(TableName=stage.full_name, Limit=1)["Count"]:
            return f"the table {stage.full_name}"
    return next((f"the queue {queue}" for queue in queue_names(stage) if _messages(account, queue)), None)


def queue_names(stage: Stage) -> list[str]:
    """Returns the names of the template's queues."""
    resources = read_stack_template()["Resources"].values()
    queues = (one["Properties"]["QueueName"]["Fn::Sub"] for one in resources if one["Type"] == "AWS::SQS::Queue")
    return [name.replace("${Stage}", stage.name) for name in queues]


def _messages(account: Account, queue: str) -> int:
    client = account.client("sqs")
    names = [f"ApproximateNumberOfMessages{kind}" for kind in _COUNTS]
    with suppress(client.exceptions.QueueDoesNotExist):
        url = client.get_queue_url(QueueName=queue)["QueueUrl"]
        attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(attributes[name]) for name in names)
    return 0
