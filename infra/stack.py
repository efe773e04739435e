"""The CloudFormation stack: creates or updates what `infra/template.yaml` describes, on AWS or on an emulator.

`make stack` calls `main`; the local run, the deployment and redrive call the rest.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from infra.environment import aws_environment, emulator_defaults, environment
from infra.resources import Resources

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackEventTypeDef, StackTypeDef

TEMPLATE = Path(__file__).with_name("template.yaml")

#: The environment variables that name the stack's resources, each with the stack's output that holds its value.
OUTPUT_VARIABLES = {
    "TABLE_NAME": "TableName",
    "QUEUE_URL": "QueueUrl",
    "QUEUE_ARN": "QueueArn",
    "DEAD_LETTER_URL": "DeadLetterUrl",
    "SCHEDULED_QUEUE_URL": "ScheduledQueueUrl",
    "SCHEDULED_QUEUE_ARN": "ScheduledQueueArn",
    "SCHEDULED_DEAD_LETTER_URL": "ScheduledDeadLetterUrl",
}

Value = TypeVar("Value")

#: Logical id of a resource that only a deployed stage has: the API's function.
DEPLOYED = "APIHandler"

#: Called with one line for each event of the stack.
Progress = Callable[[str], None]

#: Stacks in these states can only be deleted before they are created anew. The last one has a change set that was never
#: executed, and nothing else.
DEAD_STATES = frozenset(
    {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED", "REVIEW_IN_PROGRESS"}
)
_GOOD_STATES = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE"})
_POLL_SECONDS = 0.1
_POLL_SECONDS_LIMIT = 3.0


class StackError(Exception):
    """The stack could not be created or updated; the message has the first cause."""


def stack_name(stage: str) -> str:
    return f"paceline-{stage}"


def output_variables(outputs: Mapping[str, Value]) -> dict[str, Value]:
    """The stack's outputs as environment variables. Raises StackError if the stack is older than the template."""
    missing = [output for output in OUTPUT_VARIABLES.values() if output not in outputs]
    if missing:
        raise StackError(f"the stack lacks {', '.join(missing)}, since an earlier version deployed it: deploy it again")
    return {variable: outputs[output] for variable, output in OUTPUT_VARIABLES.items()}


def ensure_stack(endpoint_url: str | None, stage: str, progress: Progress | None = None) -> dict[str, str]:
    """Bring the stack of this stage up to the template and return its outputs by name.

    Does nothing if it is up to date. A table or queue that is missing although the stack says that it exists is
    created again first. Queue URLs name the endpoint given here: an emulator that kept its state still answers with the
    port it had when the queue was made. A stack with functions, as `make deploy` makes it, is left as it is. Raises
    StackError.
    """
    name, template = stack_name(stage), {"TemplateBody": TEMPLATE.read_text()}
    with _stack_errors(endpoint_url):
        client = _client("cloudformation", endpoint_url)
        if DEPLOYED in stack_resources(client, name):
            return stack_outputs(endpoint_url, stage)
        _create_missing(client, endpoint_url, stage, progress)
        outputs = deploy_stack(client, name, template, {"Stage": stage}, progress=progress)
    return at_endpoint(outputs, endpoint_url) if endpoint_url else outputs


def restore_resources(endpoint_url: str | None, stage: str, progress: Progress | None = None) -> None:
    """Create again, empty, the table or queues that are missing, or the whole stack. Raises StackError."""
    with _stack_errors(endpoint_url):
        is_there = _create_missing(_client("cloudformation", endpoint_url), endpoint_url, stage, progress)
    if not is_there:
        ensure_stack(endpoint_url, stage, progress)


def _create_missing(
    client: CloudFormationClient, endpoint_url: str | None, stage: str, progress: Progress | None
) -> bool:
    """Return false if there is no usable stack, so that CloudFormation is to create everything."""
    name = stack_name(stage)
    stack = _find(client, name)
    if stack is None or stack["StackStatus"] in DEAD_STATES:
        return False
    if stack["StackStatus"].endswith("_IN_PROGRESS"):
        return True
    clients = _client("dynamodb", endpoint_url), _client("sqs", endpoint_url)
    Resources(*clients, TEMPLATE.read_text(), stage).create_missing(client, name, progress or _say_nothing)
    return True


@contextmanager
def _stack_errors(endpoint_url: str | None) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError, TimeoutError) as error:
        raise StackError(f"{endpoint_url or 'AWS'}: {error}") from error


def stack_outputs(endpoint_url: str | None, stage: str) -> dict[str, str]:
    """The outputs by name of the stage's stack as it is. Raises StackError if the stage has none."""
    with _stack_errors(endpoint_url):
        outputs = _outputs(_find(_client("cloudformation", endpoint_url), stack_name(stage)))
    if not outputs:
        raise StackError(f"the stack {stack_name(stage)} does not exist at {endpoint_url or 'AWS'}")
    return at_endpoint(outputs, endpoint_url) if endpoint_url else outputs


def deploy_stack(
    client: CloudFormationClient,
    name: str,
    template: Mapping[str, str],
    parameters: Mapping[str, str],
    *,
    capabilities: Iterable[str] = (),
    progress: Progress | None = None,
    timeout_seconds: float = 900,
) -> dict[str, str]:
    """Create the stack, or update it, wait until that is done, and return its outputs by name.

    template: TemplateBody or TemplateURL. A stack that needs no change is left alone; one whose creation failed before
    is deleted first. Raises StackError with the first failed resource's reason, and whatever boto3 raises for a refused
    call.
    """
    say = progress or _say_nothing
    request: dict[str, Any] = {
        "StackName": name,
        **template,
        "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        "Capabilities": list(capabilities),
    }
    if _submit(client, name, request, say, timeout_seconds):
        _wait(client, name, say, timeout_seconds)
    return _outputs(_find(client, name))


def stack_resources(client: CloudFormationClient, name: str) -> set[str]:
    """The logical ids of the stack's resources; empty if it does not exist."""
    if _find(client, name) is None:
        return set()
    pages = client.get_paginator("list_stack_resources").paginate(StackName=name)
    return {resource["LogicalResourceId"] for page in pages for resource in page["StackResourceSummaries"]}


def stack_state(client: CloudFormationClient, name: str) -> str | None:
    """The stack's state; None if it does not exist."""
    stack = _find(client, name)
    return None if stack is None else stack["StackStatus"]


def _say_nothing(_line: str) -> None:
    pass


def delete_stack(client: CloudFormationClient, name: str, timeout_seconds: float = 900) -> None:
    """Delete the stack and wait until it is gone. Does nothing if it does not exist."""
    if _find(client, name) is None:
        return
    client.delete_stack(StackName=name)
    state = _poll(client, name, timeout_seconds)
    if state is not None:
        raise StackError(f"stack {name} could not be deleted: {_first_failure(client, name) or state}")


def at_endpoint(outputs: Mapping[str, str], endpoint_url: str) -> dict[str, str]:
    """The same outputs, with every queue URL at this endpoint."""
    base = endpoint_url.rstrip("/")
    return {
        key: base + urlsplit(value).path if value.startswith(("http://", "https://")) else value
        for key, value in outputs.items()
    }


def _client(service: Any, endpoint_url: str | None) -> Any:
    return _emulator_client(service, endpoint_url) if endpoint_url else _new_client(service, None)


@cache
def _emulator_client(service: Any, endpoint_url: str) -> Any:
    """A client costs some 30 ms, and a local run looks for missing resources every few seconds."""
    return _new_client(service, endpoint_url)


def prepare(endpoint_url: str) -> None:
    """Makes the clients with which `ensure_stack` calls this endpoint, which need not answer yet."""
    for service in ("cloudformation", "dynamodb", "sqs"):
        _emulator_client(service, endpoint_url)


def _new_client(service: Any, endpoint_url: str | None) -> Any:
    import boto3  # noqa: PLC0415 - `make run` imports it while the emulator starts
    from botocore.config import Config  # noqa: PLC0415

    config = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 3})
    defaults = emulator_defaults(os.environ) if endpoint_url else {}
    return boto3.client(
        service,
        endpoint_url=endpoint_url,
        config=config,
        region_name=defaults.get("AWS_DEFAULT_REGION"),
        aws_access_key_id=defaults.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=defaults.get("AWS_SECRET_ACCESS_KEY"),
    )


def _submit(
    client: CloudFormationClient, name: str, request: dict[str, Any], say: Progress, timeout_seconds: float
) -> bool:
    """Request the creation or the update; False if the stack is up to date."""
    stack = _find(client, name)
    if stack is not None and stack["StackStatus"] in DEAD_STATES:
        say(f"deleting stack {name}, which is {stack['StackStatus']}")
        delete_stack(client, name, timeout_seconds)
        stack = None
    if stack is None:
        say(f"creating stack {name}")
        client.create_stack(**request)
        return True
    if stack["StackStatus"].endswith("_IN_PROGRESS"):
        _poll(client, name, timeout_seconds)
    return _update(client, request, say)


def _update(client: CloudFormationClient, request: dict[str, Any], say: Progress) -> bool:
    try:
        client.update_stack(**request)
    except ClientError as error:
        if "No updates are to be performed" in error.response["Error"]["Message"]:
            return False
        raise
    say(f"updating stack {request['StackName']}")
    return True


def _wait(client: CloudFormationClient, name: str, say: Progress, timeout_seconds: float) -> None:
    state = _poll(client, name, timeout_seconds)
    if state not in _GOOD_STATES:
        raise StackError(f"stack {name} is {state}: {_first_failure(client, name) or 'no reason given'}")
    say(f"stack {name} is {state}")


def _poll(client: CloudFormationClient, name: str, timeout_seconds: float) -> str | None:
    """Wait for the stack's final state; None if it was deleted."""
    deadline = time.monotonic() + timeout_seconds
    pause = _POLL_SECONDS
    while True:
        stack = _find(client, name)
        if stack is None or not stack["StackStatus"].endswith("_IN_PROGRESS"):
            return None if stack is None else stack["StackStatus"]
        if time.monotonic() > deadline:
            raise StackError(f"stack {name} is still {stack['StackStatus']} after {timeout_seconds:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, _POLL_SECONDS_LIMIT)


def _find(client: CloudFormationClient, name: str) -> StackTypeDef | None:
    try:
        stacks = client.describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        # AWS has no error code of its own for a missing stack.
        if error.response["Error"]["Code"] == "ValidationError" and "does not exist" in str(error):
            return None
        raise
    alive = [stack for stack in stacks if stack["StackStatus"] != "DELETE_COMPLETE"]
    return alive[0] if alive else None


def _first_failure(client: CloudFormationClient, name: str) -> str | None:
    """The first failure in the events, which causes the others."""
    events = client.describe_stack_events(StackName=name)["StackEvents"]
    failed = [event for event in events if event.get("ResourceStatus", "").endswith("_FAILED")]
    return _describe(min(failed, key=lambda event: event["Timestamp"])) if failed else None


def _describe(event: StackEventTypeDef) -> str:
    return f"{event.get('LogicalResourceId')} {event.get('ResourceStatus')}: {event.get('ResourceStatusReason')}"


def _outputs(stack: StackTypeDef | None) -> dict[str, str]:
    outputs = stack.get("Outputs", []) if stack else []
    return {output["OutputKey"]: output["OutputValue"] for output in outputs}


def main() -> int:
    """Exit code 0 if the stack is up to date, else 1."""
    env = aws_environment(environment())
    stage = env.get("STAGE") or "dev"
    try:
        outputs = ensure_stack(env.get("AWS_ENDPOINT_URL"), stage, lambda line: print(line, flush=True))
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    for key, value in outputs.items():
        print(f"{key}={value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
