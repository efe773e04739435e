"""Brings tasks back from the dead-letter queue, each user's in order: each is submitted anew, at the end of its lane.

`python -m infra.redrive [--user U]`. A task is submitted once however often this is interrupted and repeated, and
leaves the dead-letter queue only after that. A message that is no task stays where it is, and is named.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from chalicelib.bootstrap import Container, container
from chalicelib.errors import MessageError, PacelineError, UnavailableError
from chalicelib.idempotency import Replay, ids_from
from chalicelib.settings import OverLimit
from chalicelib.submit import NewTask, Refused
from chalicelib.tasks import Task

#: Seconds for which a message is ours; those that stay come back into sight after it.
HIDDEN_SECONDS = 60
BATCH = 10


def redrive(parts: Container, user_id: str | None) -> Iterator[str]:
    """Redrives what is there, one line for each message. UnavailableError when AWS fails: repeat it."""
    sqs: Any = parts.sqs
    url, blocked = parts.settings.dead_letter_url, set[str]()
    while messages := _received(sqs, url):
        for message in messages:
            lane = message["Attributes"]["MessageGroupId"]
            if user_id not in (None, lane) or lane in blocked:
                continue
            reason = _submitted_anew(parts, message)
            if reason is None:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                yield f"{lane}: submitted anew ({message['MessageId']})"
            else:
                blocked.add(lane)  # what follows in its lane waits behind it, so that the order is kept
                yield f"{lane}: stays ({message['MessageId']}): {reason}"


def _received(sqs: Any, url: str) -> list[Any]:
    answer = sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=BATCH,
        VisibilityTimeout=HIDDEN_SECONDS,
        MessageSystemAttributeNames=["MessageGroupId"],
        AttributeNames=["MessageGroupId"],
    )
    return list(answer.get("Messages", []))


def _submitted_anew(parts: Container, message: Any) -> str | None:
    """None when the task has a new place in its lane, else why it has none."""
    try:
        task = Task.from_message(message["Body"])
    except MessageError as error:
        return str(error)
    if task.name not in parts.registry:
        return f"there is no task {task.name!r} in this deployment"
    new = [NewTask(task.name, task.payload)]
    begun = parts.idempotency.begin(task.user_id, f"redrive:{message['MessageId']}", new)
    if isinstance(begun, Replay):
        return None
    ids = ids_from(begun.record.first_id, 1)
    outcome = parts.submitter.submit(task.user_id, new, ids, OverLimit.QUEUE, begun.record.is_repeat)
    if isinstance(outcome, Refused):
        parts.idempotency.requests.forget(begun.record)
        return outcome.reason
    parts.idempotency.requests.finish(begun.record, {"task_id": ids[0]})
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="redrive", description="Bring failed tasks back from the dead-letter queue.")
    parser.add_argument("--user", help="only this user's")
    options = parser.parse_args(arguments)
    count = 0
    try:
        for line in redrive(container(), options.user):
            count += 1
            print(line, flush=True)
    except (UnavailableError, PacelineError) as error:
        print(f"redrive: {error}", file=sys.stderr)
        return 1
    print(f"{count} dead letters looked at" if count else "the dead-letter queue is empty")
    return 0


if __name__ == "__main__":
    sys.exit(main())
