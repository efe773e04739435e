"""An AWS account in memory, as far as the first hour makes and removes things in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from operations.first_hour.errors import FirstHourError
from operations.first_hour.probe_stack import PREFIX, STAGE

REGION = "eu-west-1"
NUMBER = "123456789012"


def refused(code: str, message: str, operation: str = "DeleteStack") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


class World:
    """The account: stacks, log groups and objects by name.

    faults: errors at each deletion of that name; the key `once NAME` means the first one alone. creating: seconds until
    the stack of that name is made; if it is deleted before, it is made all the same, as on LocalStack.
    """

    number = NUMBER
    region = REGION
    endpoint_url: str | None = None

    def __init__(self) -> None:
        self.stacks: set[str] = set()
        self.log_groups: set[str] = set()
        self.objects: set[str] = set()
        self.faults: dict[str, Exception] = {}
        self.creating: dict[str, int] = {}
        self.made_after_deletion: set[str] = set()
        #: called once at the next deletion of a stack
        self.at_deletion: Callable[[], None] | None = None

    def client(self, service: str) -> Any:
        return {"cloudformation": _Stacks, "logs": _Logs, "s3": _Objects}[service](self)

    def __str__(self) -> str:
        return f"AWS account {NUMBER}, {REGION}"

    @property
    def names(self) -> set[str]:
        return self.stacks | self.made_after_deletion | self.log_groups | self.objects

    def delete_stack(self, name: str) -> None:
        self.stacks.discard(name)
        if name in self.creating:
            self.made_after_deletion.add(name)

    def make_all(self) -> None:
        """Makes all that a run makes at most."""
        self.stacks |= {PREFIX, f"{PREFIX}-probes", f"{PREFIX}-cold"}
        self.log_groups |= {f"/aws/lambda/{PREFIX}", f"/aws/lambda/{PREFIX}-probe-delay"}
        self.objects.add(f"{STAGE}/abc.zip")

    def sleep(self, seconds: float) -> None:
        self.creating = {name: left - int(seconds) for name, left in self.creating.items() if left > seconds}

    def fail(self, name: str) -> None:
        if error := self.faults.pop(f"once {name}", None):
            raise error
        if name in self.faults:
            raise self.faults[name]


class Commands:
    """`./paceline deploy` and `destroy` in that account."""

    def __init__(self, world: World) -> None:
        self._world = world

    def deploy(self) -> str:
        self._world.fail("deploy")
        self._world.stacks.add(PREFIX)
        return "https://api.example"

    def destroy(self) -> None:
        try:
            self._world.fail("destroy")
        except ClientError as error:
            raise FirstHourError(str(error)) from error
        self._world.delete_stack(PREFIX)
        self._world.objects.clear()


class _Stacks:
    def __init__(self, world: World) -> None:
        self._world = world

    def describe_stacks(self, **request: str) -> dict[str, Any]:
        name = request["StackName"]
        if name not in self._world.stacks:
            raise refused("ValidationError", f"Stack with id {name} does not exist", "DescribeStacks")
        state = "CREATE_IN_PROGRESS" if name in self._world.creating else "CREATE_COMPLETE"
        return {"Stacks": [{"StackName": name, "StackStatus": state}]}

    def delete_stack(self, **request: str) -> None:
        if self._world.at_deletion:
            self._world.at_deletion, call = None, self._world.at_deletion
            call()
        self._world.fail(request["StackName"])
        self._world.delete_stack(request["StackName"])


class _Logs:
    def __init__(self, world: World) -> None:
        self._world = world

    def get_paginator(self, _operation: str) -> _Logs:
        return self

    def paginate(self, **request: str) -> Iterator[dict[str, Any]]:
        names = sorted(name for name in self._world.log_groups if name.startswith(request["logGroupNamePrefix"]))
        yield {"logGroups": [{"logGroupName": name} for name in names]}

    def delete_log_group(self, **request: str) -> None:
        self._world.fail(request["logGroupName"])
        self._world.log_groups.discard(request["logGroupName"])


class _Objects:
    def __init__(self, world: World) -> None:
        self._world = world

    def list_objects_v2(self, **request: str) -> dict[str, Any]:
        if not self._world.objects:
            raise refused("NoSuchBucket", "The specified bucket does not exist", "ListObjectsV2")
        assert request["Bucket"] == f"paceline-{NUMBER}-{REGION}"
        return {"Contents": [{"Key": key} for key in sorted(self._world.objects) if key.startswith(request["Prefix"])]}
