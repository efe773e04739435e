"""Redrive: submits the tasks in the dead-letter queue again, each user's in order, at the end of its lane.

Callbacks that were not delivered are in that queue too: each is tried for another day, in no order. A task is submitted
once however often this is interrupted and repeated, and leaves the dead-letter queue only after that. A malformed
message stays where it is, and is printed.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from msgspec.structs import replace

from chalicelib.container import Container, container
from chalicelib.core.errors import MessageError, PacelineError
from chalicelib.core.scheduled import Callback, from_message
from chalicelib.core.task import Task
from chalicelib.submit.submission import Refused, Submission, Submitted, TaskRequest
from infra.environment import aws_environment, environment
from infra.stack import StackError, output_variables, stack_outputs
from local.run_settings import LocalSettings

#: Seconds for which a message is ours; those that stay come back into sight after it.
HIDDEN_SECONDS = 60
BATCH = 10


def redrive(parts: Container, user_id: str | None) -> Iterator[str]:
    """Redrives what is there, one line for each message. UnavailableError when AWS fails: repeat it."""
    sqs: Any = parts.sqs
    url, stay, blocked = parts.settings.dead_letter_url, list[str](), set[str]()
    try:
        while messages := _received(sqs, url):
            for message in messages:
                lane, callback = message["Attributes"]["MessageGroupId"], _callback(message["Body"])
                if user_id not in (None, lane) or (lane in blocked and not callback):
                    stay.append(message["ReceiptHandle"])
                    continue
                reason = _resend(parts, callback, lane) if callback else _submit_again(parts, message, lane)
                if reason is None:
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                    yield f"{lane}: {'callback sent again' if callback else 'submitted again'} ({message['MessageId']})"
                else:
                    blocked.add(lane)  # later tasks of its lane wait behind it, which keeps their order
                    stay.append(message["ReceiptHandle"])
                    yield f"{lane}: stays ({message['MessageId']}): {reason}"
    finally:
        for receipt in stay:
            with suppress(BotoCoreError, ClientError):
                sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=0)


def _received(sqs: Any, url: str) -> list[Any]:
    answer = sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=BATCH,
        VisibilityTimeout=HIDDEN_SECONDS,
        MessageSystemAttributeNames=["MessageGroupId"],
        AttributeNames=["MessageGroupId"],
    )
    return list(answer.get("Messages", []))


def _submit_again(parts: Container, message: Any, lane: str) -> str | None:
    """Submits the task anew, once for its message; None when it is queued, else the reason why not."""
    try:
        task = Task.from_message(message["Body"])
    except MessageError as error:
        return str(error)
    if task.user_id != lane:
        return f"it names user {task.user_id!r} in the lane of {lane!r}"
    if task.name not in parts.registry:
        return f"there is no task {task.name!r} in this deployment"
    request = TaskRequest(task.name, task.payload, callback_url=task.callback_url)
    key = f"redrive:{message['MessageId']}"
    submission = Submission(task.user_id, [request], parts.clock.now_ms(), key=key)
    answer = parts.idempotency.run(submission, parts.submitter.submit, _answer)
    return answer.body.get("refused")


def _answer(_submission: Submission, outcome: Submitted | Refused) -> dict[str, Any]:
    if isinstance(outcome, Refused):
        return {"refused": outcome.reason}
    return {"task_id": outcome.tasks[0].task_id}


def _callback(body: str) -> Callback | None:
    """The callback that it is; None when it is anything else."""
    try:
        message = from_message(body)
    except MessageError:
        return None
    return message if isinstance(message, Callback) else None


def _resend(parts: Container, callback: Callback, lane: str) -> str | None:
    """None when it is tried for another day, else why not."""
    if callback.user_id != lane:
        return f"it names user {callback.user_id!r} in the lane of {lane!r}"
    parts.scheduled_queue.send([(replace(callback, begun_at=parts.clock.now_ms()), 0)])
    return None


def print_redrive(user_id: str | None, stage: str | None) -> int:
    """Redrives the dead letters of one user or of all, and prints a line for each.

    Exit code 0, or 1 if AWS failed or has no such stage; a repeat goes on where this one stopped.
    """
    count = 0
    try:
        print(f"The dead letters are those of {_choose_deployment(stage)}", flush=True)
        for line in redrive(container(), user_id):
            count += 1
            print(line, flush=True)
    except (PacelineError, StackError, BotoCoreError, ClientError) as error:
        print(f"redrive: {error}", file=sys.stderr)
        return 1
    print(f"Read {count} dead letters" if count else "There are none")
    return 0


def _choose_deployment(stage: str | None) -> str:
    """Writes the deployment's endpoint and resources to the environment, and returns its description."""
    env = environment()
    stage = stage or env.get("STAGE") or "dev"
    endpoint_url = env.get("AWS_ENDPOINT_URL") or LocalSettings.from_env(env).running_endpoint or ""
    os.environ.update(aws_environment({**env, "STAGE": stage, "AWS_ENDPOINT_URL": endpoint_url}))
    os.environ.update(output_variables(stack_outputs(endpoint_url or None, stage)))
    return f"stage {stage} at {endpoint_url}" if endpoint_url else f"stage {stage} on AWS"
