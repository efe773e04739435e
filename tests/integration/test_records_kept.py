"""How long DynamoDB keeps the record of a task."""

from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws
from msgspec.structs import replace

from chalicelib.aws.client import client
from chalicelib.aws.dynamodb_tasks import DynamoDBTaskStore
from chalicelib.core.task import Outcome, Task, TaskState
from tests.factories import NOW, task_id_of
from tests.integration.aws import make_resources

DAY_MS = 86_400_000
WAITING = Task("ann", task_id_of(1), 1, "log", None, planned_at=NOW + DAY_MS, submitted_at=NOW)
SCHEDULED = replace(WAITING, seq=0, run_at=NOW + DAY_MS)
#: of a lane that an operator forgot to resume
LONGEST_PAUSE_MS = 365 * DAY_MS


class Records:
    def __init__(self, dynamodb: Any, table: str) -> None:
        self._dynamodb, self._table = dynamodb, table
        self.store = DynamoDBTaskStore(dynamodb, table)

    @property
    def expires_ms(self) -> int:
        key = {"user_id": {"S": WAITING.user_id}, "item": {"S": WAITING.task_id}}
        item = self._dynamodb.get_item(TableName=self._table, Key=key)["Item"]
        return int(item["expires_at"]["N"]) * 1000


@pytest.fixture
def records() -> Iterator[Records]:
    with mock_aws():
        dynamodb = client("dynamodb", None)
        yield Records(dynamodb, make_resources(dynamodb, client("sqs", None)).table)


def test_record_of_a_waiting_task_outlives_a_long_pause(records: Records) -> None:
    records.store.create_if_absent(WAITING)
    assert records.expires_ms > NOW + LONGEST_PAUSE_MS


def test_record_of_a_bulk_s_task_outlives_a_long_pause(records: Records) -> None:
    records.store.create_many([WAITING])
    assert records.expires_ms > NOW + LONGEST_PAUSE_MS


def test_record_of_a_scheduled_task_outlives_a_pause_that_begins_after_its_admission(records: Records) -> None:
    records.store.create_if_absent(SCHEDULED)
    records.store.mark_admitted(WAITING)
    assert records.expires_ms > NOW + LONGEST_PAUSE_MS


def test_record_of_a_finished_task_is_kept_for_30_days(records: Records) -> None:
    records.store.create_if_absent(WAITING)
    records.store.finish(WAITING, Outcome(TaskState.SUCCEEDED, NOW, NOW + 5_000, 1))
    assert records.expires_ms // 1000 == (NOW + 5_000 + 30 * DAY_MS) // 1000
