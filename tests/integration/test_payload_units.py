"""The write units of a task's items by the size of its payload: DynamoDB bills each write by the item's whole KB."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
from moto import mock_aws

from chalicelib.aws.dynamodb_payloads import is_apart, payload_item
from chalicelib.aws.dynamodb_size import write_units
from chalicelib.aws.dynamodb_tasks import DynamoDBTaskStore, queued_items
from chalicelib.core.task import Outcome, Task, TaskState, to_json
from chalicelib.submit.idempotency import ids_from
from tests.factories import NOW, make_task
from tests.integration.aws import boto3_client, make_resources

TASK_ID = "01a201c6-2ed8-78ae-98d6-419040bdc8e3"
USER = "customer-4711@example.com"
OUTCOME = Outcome(TaskState.SUCCEEDED, NOW + 20, NOW + 80, 1)


class Billed:
    """A store, and the calls and write units that its writes take, by moto's items."""

    def __init__(self) -> None:
        dynamodb = boto3_client("dynamodb")
        self.calls: list[str] = []
        self.units = 0
        self._table = make_resources(dynamodb, boto3_client("sqs")).table
        self._reader = boto3_client("dynamodb")
        self.store = DynamoDBTaskStore(self._counted(dynamodb), self._table)

    def _counted(self, dynamodb: Any) -> Any:
        billed = self

        class Counted:
            def __getattr__(self, name: str) -> Callable[..., Any]:
                def call(**asked: Any) -> Any:
                    billed.calls.append(name)
                    before = billed._items(asked)
                    answer = getattr(dynamodb, name)(**asked)
                    if name in ("put_item", "update_item", "batch_write_item"):
                        written = zip(before, billed._items(asked), strict=True)
                        billed.units += sum(max(map(write_units, one)) for one in written)
                    return answer

                return call

        return Counted()

    def _items(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The items that the call names, as they are; an update is billed by the larger of before and after."""
        puts = [one["PutRequest"]["Item"] for some in asked.get("RequestItems", {}).values() for one in some]
        keys = [asked[name] for name in ("Key", "Item") if name in asked] + puts
        found = []
        for key in keys:
            item: dict[str, Any] = {}
            with suppress(KeyError):
                names = {name: key[name] for name in ("user_id", "item")}
                item = self._reader.get_item(TableName=self._table, Key=names)["Item"]
            found.append(item)
        return found


@pytest.fixture
def billed() -> Iterator[Billed]:
    with mock_aws():
        yield Billed()


def task_of(payload_bytes: int, task_id: str = TASK_ID) -> Task:
    return make_task(1, USER, task_id=task_id, payload="x" * (payload_bytes - 2))


#: Bytes of the payload as JSON; units of submit and end while the record held the payload; units today.
UNITS = [(300, 2, 2), (1_024, 4, 4), (2_048, 6, 5), (4_096, 10, 7), (16_384, 34, 19), (65_536, 130, 67)]


@pytest.mark.parametrize(("payload_bytes", "_before", "units"), UNITS)
def test_payload_is_written_once(billed: Billed, payload_bytes: int, _before: int, units: int) -> None:
    task = task_of(payload_bytes)
    billed.store.create_if_absent(task)
    billed.store.finish(task, OUTCOME)
    assert billed.units == units


@pytest.mark.parametrize(("payload_bytes", "_before", "units"), UNITS)
def test_payloads_of_a_bulk_are_written_once(billed: Billed, payload_bytes: int, _before: int, units: int) -> None:
    tasks = [task_of(payload_bytes, task_id) for task_id in ids_from(TASK_ID, 10)]
    billed.store.create_many(tasks)
    for task in tasks:
        billed.store.finish(task, OUTCOME)
    assert billed.units == units * 10


@pytest.mark.parametrize(("payload_bytes", "submit"), [(300, 1), (700, 1), (1_024, 1), (4_096, 2)])
def test_submit_takes_a_second_call_only_for_a_payload_of_its_own_item(
    billed: Billed, payload_bytes: int, submit: int
) -> None:
    task = task_of(payload_bytes)
    billed.store.create_if_absent(task)
    assert billed.calls == ["put_item"] * submit
    billed.store.finish(task, OUTCOME)
    assert billed.calls == [*["put_item"] * submit, "update_item"]


@pytest.mark.parametrize("user_id", ["a", USER, "u" * 128])
def test_payload_has_an_item_of_its_own_where_that_takes_fewer_units(billed: Billed, user_id: str) -> None:
    for payload_bytes in range(300, 5_000, 100):
        task = make_task(1, user_id, task_id=TASK_ID, payload="x" * (payload_bytes - 2))
        billed.store.create_if_absent(task)
        billed.store.finish(task, OUTCOME)
        key = {"user_id": {"S": user_id}, "item": {"S": TASK_ID}}
        finished = billed._reader.delete_item(TableName=billed._table, Key=key, ReturnValues="ALL_OLD")["Attributes"]
        submitted, text = queued_items(task)[-1], {"payload": {"S": to_json(task.payload)}}
        small = [{**item, "payload": {"S": ""}} for item in (submitted, finished)]
        together = sum(write_units(item | text) for item in small)
        apart = sum(map(write_units, [*small, payload_item(task)]))
        assert is_apart(task, to_json(task.payload)) == (apart < together), payload_bytes
