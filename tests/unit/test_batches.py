"""Batch calls that AWS does in part."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.aws.dynamodb_tasks import DynamoDBTaskStore
from chalicelib.aws.sqs_tasks import SQSTaskQueue
from chalicelib.core.errors import UnavailableError
from tests.factories import make_task, task_id_of

TASKS = [make_task(seq) for seq in range(1, 101)]


class Client:
    """Stands for boto3's: gives these answers, one a call, then that all is done; notes what it was asked."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Callable[..., dict[str, Any]]:
        def call(**parameters: Any) -> dict[str, Any]:
            self.asked.append(json.loads(json.dumps(parameters)))
            return self._answers.pop(0) if self._answers else {}

        return call


def sent(client: Client) -> list[list[str]]:
    return [[entry["MessageDeduplicationId"] for entry in asked["Entries"]] for asked in client.asked]


def noted(client: Client) -> list[list[str]]:
    return [[item["PutRequest"]["Item"]["item"]["S"] for item in asked["RequestItems"]["t"]] for asked in client.asked]


def ids(*seqs: int) -> list[str]:
    return [task_id_of(seq) for seq in seqs]


def failed(*numbers: int) -> dict[str, Any]:
    return {"Failed": [{"Id": str(number), "Code": "InternalError", "SenderFault": False} for number in numbers]}


def unprocessed(*seqs: int) -> dict[str, Any]:
    requests = [{"PutRequest": {"Item": {"item": {"S": task_id}}}} for task_id in ids(*seqs)]
    return {"UnprocessedItems": {"t": requests}}


def test_hundred_tasks_are_sent_in_order_in_ten_calls() -> None:
    client = Client()
    SQSTaskQueue(client, "q", "d").send_many(TASKS)
    assert sent(client) == [ids(*range(begin, begin + 10)) for begin in range(1, 101, 10)]


def test_batch_is_cut_where_its_bytes_are_too_many() -> None:
    client = Client()
    SQSTaskQueue(client, "q", "d").send_many([make_task(seq, payload="x" * 240_000) for seq in range(1, 10)])
    assert [len(batch) for batch in sent(client)] == [4, 4, 1]


def test_what_sqs_did_not_take_is_sent_again_before_what_follows() -> None:
    client = Client(failed(2, 5), failed(5))
    SQSTaskQueue(client, "q", "d").send_many(TASKS[:15])
    assert sent(client) == [ids(*range(1, 11)), ids(3, 6), ids(6), ids(*range(11, 16))]


def test_what_sqs_never_takes_is_an_error_and_nothing_follows() -> None:
    client = Client(*[failed(0)] * 4)
    with pytest.raises(UnavailableError, match="1 of a batch"):
        SQSTaskQueue(client, "q", "d").send_many(TASKS)
    assert len(client.asked) == 4


def test_hundred_tasks_are_noted_in_four_calls() -> None:
    client = Client()
    DynamoDBTaskStore(client, "t").create_many(TASKS)
    assert noted(client) == [ids(*range(begin, begin + 25)) for begin in (1, 26, 51, 76)]


def test_what_dynamodb_left_undone_is_noted_again() -> None:
    client = Client(unprocessed(3, 4), unprocessed(4))
    DynamoDBTaskStore(client, "t").create_many(TASKS[:25])
    assert noted(client)[1:] == [ids(3, 4), ids(4)]


def test_what_dynamodb_never_does_is_an_error() -> None:
    client = Client(*[unprocessed(3)] * 4)
    with pytest.raises(UnavailableError, match="1 were not stored"):
        DynamoDBTaskStore(client, "t").create_many(TASKS)
