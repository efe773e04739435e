"""Redrive: submits the tasks in the dead-letter queue again, each user's in order, at the end of its lane.

A failed task is submitted once, under a new id, however often this is interrupted, repeated or run twice at a time. SQS
also moves a message there that it delivered 1,000 times: its task is not finished, and may run from its record at any
time, so it is sent again under its own id, by which workers know it. Callbacks that were not delivered are in that
queue too: each is tried for another day, in no order. A malformed message stays where it is, and is printed.

The second dead-letter queue has messages of the queue for scheduled tasks and callbacks, which go back as they are.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct
from msgspec.structs import replace

from chalicelib.container import Container, container
from chalicelib.core.errors import MessageError, PacelineError
from chalicelib.core.recovery import is_open
from chalicelib.core.scheduled import Callback, from_message
from chalicelib.core.task import Task, TaskRecord, TaskState
from chalicelib.submit.redriver import Stays
from chalicelib.submit.submission import Submission
from infra.environment import aws_environment, environment
from infra.stack import StackError, output_variables, stack_outputs
from local.run_settings import LocalSettings
from operations.scheduled_redrive import BATCH, HIDDEN_SECONDS, ScheduledRedrive, show_again

#: Seconds of a receive: it then asks all servers of the queue.
WAIT_SECONDS = 1


def redrive(parts: Container, user_id: str | None, wait_seconds: int = 0) -> Iterator[str]:
    """Redrives the dead letters of now, one line for each. UnavailableError when AWS fails: repeat it.

    Those that come while it works, such as its own tasks' failures, stay for the next time. wait_seconds: of each
    receive; with 0 AWS asks some of its servers only, and may find nothing in a queue that has few messages.
    """
    yield from _Redrive(parts, user_id, wait_seconds).run()
    yield from ScheduledRedrive(parts, user_id, wait_seconds).run()


class _Stays(Struct, frozen=True):
    """The dead letter stays in its queue, for this reason."""

    reason: str


class _Redrive:
    """One run: each dead letter is handled once, and those that stay are visible again at its end."""

    def __init__(self, parts: Container, user_id: str | None, wait_seconds: int) -> None:
        self._parts = parts
        self._user_id = user_id
        self._wait_seconds = wait_seconds
        self._sqs: Any = parts.sqs
        self._url = parts.settings.dead_letter_url
        #: epoch ms by the clock of SQS, in whole seconds, after which a dead letter is too new; None before its answer
        self._until: int | None = None
        #: receipts of those that stay, by message ids
        self._stay = dict[str, str]()
        #: lanes in which a task stays: later ones wait behind it, which keeps their order
        self._blocked = set[str]()
        #: ids of the tasks and callbacks that this run has sent: their own failures are for the next run
        self._sent = set[str]()

    def run(self) -> Iterator[str]:
        try:
            while messages := self._received():
                for message in messages:
                    if line := self._handle(message):
                        yield line
        finally:
            show_again(self._sqs, self._url, self._stay.values())

    def _received(self) -> list[Any]:
        answer = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=BATCH,
            VisibilityTimeout=HIDDEN_SECONDS,
            WaitTimeSeconds=self._wait_seconds,
            MessageSystemAttributeNames=["MessageGroupId", "SentTimestamp"],
            AttributeNames=["MessageGroupId", "SentTimestamp"],
            MessageAttributeNames=["reason"],
        )
        if self._until is None:
            self._until = _answered_at(answer) + 1_000
        return list(answer.get("Messages", []))

    def _handle(self, message: Any) -> str | None:
        """The line about it; None if it is not for this run."""
        lane, is_known = message["Attributes"]["MessageGroupId"], message["MessageId"] in self._stay
        done = None if is_known or not self._is_wanted(message, lane) else self._send_again(message, lane)
        if isinstance(done, str):
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
            return f"{lane}: {done} ({message['MessageId']})"
        self._stay[message["MessageId"]] = message["ReceiptHandle"]
        if done is None:
            return None
        self._blocked.add(lane)
        return f"{lane}: stays ({message['MessageId']}): {done.reason}"

    def _is_wanted(self, message: Any, lane: str) -> bool:
        callback = _callback(message["Body"])
        if self._user_id not in (None, lane) or (lane in self._blocked and not callback):
            return False
        is_new = int(message["Attributes"].get("SentTimestamp", 0)) > (self._until or 0)
        return not is_new and _sent_as(message["Body"]) not in self._sent

    def _send_again(self, message: Any, lane: str) -> str | _Stays:
        """Says how it ended. A task is submitted anew, once for its message."""
        if callback := _callback(message["Body"]):
            return self._resend(callback, lane)
        try:
            task = Task.from_message(message["Body"])
        except MessageError as error:
            return _Stays(str(error))
        if task.user_id != lane:
            return _Stays(f"it names user {task.user_id!r} in the lane of {lane!r}")
        record = self._parts.tasks.get(task.user_id, task.task_id)
        if record is None and not task.has_payload:
            return _Stays("its payload is no longer stored")
        if record is None or is_open(record, self._parts.lanes.get(task.user_id)):
            return self._send_unfinished(task, message)
        if record.state is not TaskState.FAILED:
            return f"left out, since it is {record.state.value}"
        if task.has_payload:
            record = replace(record, task=replace(record.task, payload=task.payload, has_payload=True))
        return self._submit(record)

    def _send_unfinished(self, task: Task, message: Any) -> str | _Stays:
        """Sends it under its own id, unless a worker wrote this letter, which is needed once that worker is done."""
        if "reason" in message.get("MessageAttributes", {}):
            return _Stays("its failure is not stored yet; repeat this in a few minutes")
        self._parts.queue.send_again(task, self._parts.clock.now_ms())
        self._sent.add(task.task_id)
        return "sent again, since it is not finished"

    def _submit(self, failed: TaskRecord) -> str | _Stays:
        """Once for its task, which may have several dead letters, and may be redriven through the API too."""
        wish = Submission(failed.task.user_id, [], self._parts.clock.now_ms())
        outcome = self._parts.redriver.redrive_record(failed, wish)
        if isinstance(outcome, Stays):
            return _Stays(outcome.reason)
        self._sent.add(outcome.task.task_id)
        return "submitted again"

    def _resend(self, callback: Callback, lane: str) -> str | _Stays:
        """The callback is tried for another day."""
        if callback.user_id != lane:
            return _Stays(f"it names user {callback.user_id!r} in the lane of {lane!r}")
        self._sent.add(_callback_name(callback))
        self._parts.scheduled_queue.send([(replace(callback, begun_at=self._parts.clock.now_ms()), 0)])
        return "callback sent again"


def _answered_at(answer: Any) -> int:
    """The whole second in which SQS answered, epoch ms: by its clock, which dates the dead letters too."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return int(parsedate_to_datetime(date).timestamp() if date else time.time()) * 1000


def _sent_as(body: str) -> str | None:
    """The id under which a run remembers that it sent the dead letter's task or callback; None if it is malformed."""
    if callback := _callback(body):
        return _callback_name(callback)
    with suppress(MessageError):
        return Task.from_message(body).task_id
    return None


def _callback_name(callback: Callback) -> str:
    return f"callback of {callback.task_id}"


def _callback(body: str) -> Callback | None:
    """The callback that it is; None when it is anything else."""
    try:
        message = from_message(body)
    except MessageError:
        return None
    return message if isinstance(message, Callback) else None


def print_redrive(user_id: str | None, stage: str | None) -> int:
    """Redrives the dead letters of one user or of all, and prints a line for each.

    Exit code 0, or 1 if AWS failed or has no such stage; a repeat goes on where this one stopped.
    """
    count = 0
    try:
        print(f"The dead letters are those of {_choose_deployment(stage)}", flush=True)
        for line in redrive(container(), user_id, WAIT_SECONDS):
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
