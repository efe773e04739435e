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
    """The account: stacks, log groups and objects by name; `faults` raises the error at the deletion of that name."""

    number = NUMBER
    region = REGION
    endpoint_url: str | None = None

    def __init__(self) -> None:
        self.stacks: set[str] = set()
        self.log_groups: set[str] = set()
        self.objects: set[str] = set()
        self.faults: dict[str, Exception] = {}
        #: called once at the next deletion of a stack
        self.at_deletion: Callable[[], None] | None = None

    def client(self, service: str) -> Any:
        return {"cloudformation": _Stacks, "logs": _Logs, "s3": _Objects}[service](self)

    def __str__(self) -> str:
        return f"AWS account {NUMBER}, {REGION}"

    @property
    def names(self) -> set[str]:
        return self.stacks | self.log_groups | self.objects

    def make_all(self) -> None:
        """Makes all that a run makes at most."""
        self.stacks |= {PREFIX, f"{PREFIX}-probes", f"{PREFIX}-cold"}
        self.log_groups |= {f"/aws/lambda/{PREFIX}", f"/aws/lambda/{PREFIX}-probe-delay"}
        self.objects.add(f"{STAGE}/abc.zip")

    def fail(self, name: str) -> None:
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
        if "destroy" in self._world.faults:
            raise FirstHourError(str(self._world.faults["destroy"]))
        self._world.stacks.discard(PREFIX)
        self._world.objects.clear()


class _Stacks:
    def __init__(self, world: World) -> None:
        self._world = world

    def describe_stacks(self, **request: str) -> dict[str, Any]:
        name = request["StackName"]
        if name not in self._world.stacks:
            raise refused("ValidationError", f"Stack with id {name} does not exist", "DescribeStacks")
        return {"Stacks": [{"StackName": name, "StackStatus": "CREATE_COMPLETE"}]}

    def delete_stack(self, **request: str) -> None:
        if self._world.at_deletion:
            self._world.at_deletion, call = None, self._world.at_deletion
            call()
        self._world.fail(request["StackName"])
        self._world.stacks.discard(request["StackName"])


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
