"""Finds and removes the stacks, log groups and uploaded objects of a first hour.

All of it has names that begin with `paceline-firsthour`, so a later start finds those of a killed one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from infra.deploy.account import Account
from infra.stack import StackError, delete_stack, stack_name
from operations.first_hour.cold_start import COLD_STACK
from operations.first_hour.errors import FirstHourError, explain
from operations.first_hour.probe_stack import PREFIX, PROBE_STACK, STAGE

_LOGS = f"/aws/lambda/{PREFIX}"
#: Tries of a step, and seconds between two of them: AWS refuses to delete a trigger, for example, that still changes.
_TRIES, _PAUSE_SECONDS = 3, 5
#: Seconds for which a stack that is being made may go on.
_MADE_WITHIN = 900
#: Errors that must not stop a removal.
_FAILURES = (BotoCoreError, ClientError, StackError, FirstHourError)


class Commands(Protocol):
    """The stage's deployment; StageCommands has it."""

    def deploy(self) -> str:
        """Deploys the stage and returns its URL."""

    def destroy(self) -> None:
        """Deletes the stage."""


class Removal:
    """Removes all that a first hour makes. Every step is safe to repeat."""

    def __init__(
        self,
        account: Account,
        commands: Commands,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._account = account
        self._commands = commands
        self._say = say
        self._sleep = sleep

    def leftovers(self) -> list[str]:
        """Returns the stacks, log groups and objects of a first hour that exist, each with its kind."""
        return [*self._stacks(), *(f"log group {name}" for name in self._log_groups()), *self._objects()]

    def remove(self) -> list[str]:
        """Removes everything; a step that fails does not keep back the others. Returns one line for each failure."""
        failures = [
            failure
            for step, action in (
                (f"deleting stack {COLD_STACK}", lambda: self._delete_stack(COLD_STACK)),
                (f"deleting stack {PROBE_STACK}", lambda: self._delete_stack(PROBE_STACK)),
                (f"destroying stage {STAGE}", self._destroy),
                ("deleting log groups", self._delete_log_groups),
            )
            if (failure := self._failure(step, action))
        ]
        return failures + self._remaining()

    def _failure(self, step: str, action: Callable[[], None]) -> str | None:
        self._say(f"  {step}")
        failure = None
        for number in range(_TRIES):
            if number:
                self._sleep(_PAUSE_SECONDS)
            try:
                action()
                return None
            except _FAILURES as error:
                failure = str(explain(step, error, self._account))
        return failure

    def _remaining(self) -> list[str]:
        try:
            return [f"{name} still exists" for name in self.leftovers()]
        except _FAILURES as error:
            return [str(explain("looking for leftovers", error, self._account))]

    def _stacks(self) -> Iterator[str]:
        client = self._account.client("cloudformation")
        for name in (COLD_STACK, PROBE_STACK, stack_name(STAGE)):
            if _state(client, name):
                yield f"stack {name}"

    def _destroy(self) -> None:
        self._await_creation(stack_name(STAGE))
        self._commands.destroy()

    def _await_creation(self, name: str) -> None:
        """AWS ends a creation when its stack is deleted; LocalStack would go on and leave resources behind."""
        client = self._account.client("cloudformation")
        for _ in range(_MADE_WITHIN if self._account.endpoint_url else 0):
            if not (_state(client, name) or "").startswith(("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS")):
                return
            self._sleep(1)

    def _delete_stack(self, name: str) -> None:
        self._await_creation(name)
        delete_stack(self._account.client("cloudformation"), name)

    def _log_groups(self) -> list[str]:
        pages = self._account.client("logs").get_paginator("describe_log_groups").paginate(logGroupNamePrefix=_LOGS)
        names = [group["logGroupName"] for page in pages for group in page["logGroups"]]
        return [name for name in names if name == _LOGS or name.startswith(f"{_LOGS}-")]

    def _delete_log_groups(self) -> None:
        for name in self._log_groups():
            self._account.client("logs").delete_log_group(logGroupName=name)

    def _objects(self) -> list[str]:
        bucket = f"paceline-{self._account.number}-{self._account.region}"
        try:
            listed = self._account.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{STAGE}/")
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchBucket":
                return []
            raise
        return [f"object s3://{bucket}/{one['Key']}" for one in listed.get("Contents", [])]


def _state(client: Any, name: str) -> str | None:
    """Returns the stack's state; None if it does not exist."""
    try:
        stacks = client.describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return next((one["StackStatus"] for one in stacks if one["StackStatus"] != "DELETE_COMPLETE"), None)
