"""How long DynamoDB keeps the record of a task, and a lane."""

from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws
from msgspec.structs import replace

from chalicelib.aws.dynamodb_lane_parts import kept_seconds
from chalicelib.aws.dynamodb_lanes import DynamoDBLaneStore
from chalicelib.aws.dynamodb_tasks import DynamoDBTaskStore
from chalicelib.container import Container
from chalicelib.core.admission import admit
from chalicelib.core.claim import Candidate, Start, claim
from chalicelib.core.lane import FOREVER_MS, Lane
from chalicelib.core.lane_changes import forgotten, with_group, with_limits
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import Written
from chalicelib.core.task import Outcome, Task, TaskState
from chalicelib.settings import Settings
from chalicelib.worker.completion_log import StandardOutputLog
from tests.factories import NOW, task_id_of
from tests.integration.aws import boto3_client, make_resources

DAY_MS = 86_400_000
WAITING = Task("ann", task_id_of(1), 1, "log", None, planned_at=NOW + DAY_MS, submitted_at=NOW)
SCHEDULED = replace(WAITING, seq=0, run_at=NOW + DAY_MS)
#: of a lane that an operator forgot to resume
LONGEST_PAUSE_MS = 365 * DAY_MS


class Records:
    def __init__(self, dynamodb: Any, table: str) -> None:
        self._dynamodb, self._table = dynamodb, table
        self.lanes = DynamoDBLaneStore(dynamodb, table)
        self.store = DynamoDBTaskStore(dynamodb, table)

    @property
    def expires_ms(self) -> int:
        return int(self.item(WAITING.task_id)["expires_at"]["N"]) * 1000

    def kept_for(self, **settings: str) -> DynamoDBTaskStore:
        """The store of a deployment with these settings."""
        env = {**settings, "TABLE_NAME": self._table, "AWS_CLIENT": "boto3"}
        return Container(Settings.from_env(env), StandardOutputLog()).tasks  # type: ignore[return-value]

    def item(self, name: str) -> dict[str, Any]:
        key = {"user_id": {"S": WAITING.user_id}, "item": {"S": name}}
        return dict(self._dynamodb.get_item(TableName=self._table, Key=key)["Item"])


@pytest.fixture
def records() -> Iterator[Records]:
    with mock_aws():
        dynamodb = boto3_client("dynamodb")
        yield Records(dynamodb, make_resources(dynamodb, boto3_client("sqs")).table)


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


@pytest.mark.parametrize(("text", "days"), [("1/second", 30), ("5000/16 days", 30), ("10000/31 days", 45)])
def test_lane_is_kept_for_its_longest_window_and_14_days_and_never_less_than_30(text: str, days: int) -> None:
    assert kept_seconds(parse_limits(text)) == days * 86_400


def test_record_of_a_finished_task_is_kept_for_30_days(records: Records) -> None:
    records.store.create_if_absent(WAITING)
    records.store.finish(WAITING, Outcome(TaskState.SUCCEEDED, NOW, NOW + 5_000, 1))
    assert records.expires_ms // 1000 == (NOW + 5_000 + 30 * DAY_MS) // 1000


LARGE = replace(WAITING, payload="x" * 5_000)


def payload_expires_ms(records: Records) -> int:
    return int(records.item(f"payload#{LARGE.task_id}")["expires_at"]["N"]) * 1000


def test_payload_of_its_own_item_is_kept_as_long_as_the_record_of_a_finished_task(records: Records) -> None:
    records.store.create_if_absent(LARGE)
    records.store.finish(LARGE, Outcome(TaskState.SUCCEEDED, NOW + DAY_MS, NOW + DAY_MS, 1))
    assert payload_expires_ms(records) // 1000 == (NOW + 36 * DAY_MS) // 1000
    assert payload_expires_ms(records) >= records.expires_ms


def test_payload_of_a_task_that_waits_for_weeks_is_kept_on(records: Records) -> None:
    records.store.create_if_absent(LARGE)
    records.store.keep_payloads("ann", NOW + 5 * DAY_MS)
    assert payload_expires_ms(records) // 1000 == (NOW + 36 * DAY_MS) // 1000, "there is time"
    records.store.keep_payloads("ann", NOW + 12 * DAY_MS)
    assert payload_expires_ms(records) // 1000 == (NOW + 47 * DAY_MS) // 1000
    records.store.keep_payloads("ann", NOW + 26 * DAY_MS)
    assert payload_expires_ms(records) // 1000 == (NOW + 61 * DAY_MS) // 1000
    found = records.store.get("ann", LARGE.task_id)
    assert found
    assert found.task == LARGE


def test_payload_of_a_finished_task_is_kept_no_longer(records: Records) -> None:
    records.store.create_if_absent(LARGE)
    records.store.finish(LARGE, Outcome(TaskState.SUCCEEDED, NOW, NOW + 5_000, 1))
    records.store.keep_payloads("ann", NOW + 12 * DAY_MS)
    assert payload_expires_ms(records) // 1000 == (NOW + 36 * DAY_MS) // 1000


LIMITS = parse_limits("1/7 days")


def take_start(records: Records, is_fast: bool, at: int) -> None:
    """A start in the lane, in which two tasks were admitted a month before."""
    lane = records.lanes.get("ann")
    start = claim(lane, Candidate("t1", 1, at), lane.limits_or(LIMITS), at, 10_000, "token")
    assert isinstance(start, Start)
    limits = lane.limits_or(LIMITS)
    write = records.lanes.try_fast_claim(start, limits) if is_fast else records.lanes.claim(lane, start)
    assert isinstance(write, Written)


@pytest.mark.parametrize("is_fast", [True, False])
def test_lane_with_a_backlog_of_months_is_kept_as_long_as_its_tasks_start(records: Records, is_fast: bool) -> None:
    records.lanes.try_fast_admit("ann", LIMITS, NOW, "t1")
    take_start(records, is_fast, NOW + 29 * DAY_MS)
    assert int(records.item("lane")["expires_at"]["N"]) == (NOW + 59 * DAY_MS) // 1000


@pytest.mark.parametrize("is_fast", [True, False])
def test_start_gives_no_end_to_own_limits(records: Records, is_fast: bool) -> None:
    seen = Lane("ann")
    records.lanes.change(seen, with_limits(seen, LIMITS, LIMITS, NOW))
    take_start(records, is_fast, NOW)
    assert "expires_at" not in records.item("lane")


def join(records: Records, group: str) -> None:
    seen = records.lanes.get("ann")
    records.lanes.change(seen, with_group(seen, group))


@pytest.mark.parametrize("is_fast", [True, False])
def test_submit_and_start_give_no_end_to_a_group(records: Records, is_fast: bool) -> None:
    join(records, "acme")
    assert "expires_at" not in records.item("lane")
    if is_fast:
        records.lanes.try_fast_admit("ann", LIMITS, NOW, "t1")
    else:
        seen = records.lanes.get("ann")
        records.lanes.admit(seen, admit(seen, LIMITS, NOW, "t1"))
    take_start(records, is_fast, NOW)
    assert int(records.item("lane")["expires_at"]["N"]) == FOREVER_MS // 1000
    assert records.lanes.get("ann").group == "acme"


def test_lane_that_left_its_group_expires_like_any_other(records: Records) -> None:
    join(records, "acme")
    join(records, "")
    take_start(records, True, NOW)
    assert int(records.item("lane")["expires_at"]["N"]) == (NOW + 30 * DAY_MS) // 1000
    assert records.lanes.get("ann").group == ""


def test_forgotten_user_is_in_no_group_and_its_lane_expires(records: Records) -> None:
    join(records, "acme")
    seen = records.lanes.get("ann")
    records.lanes.forget(seen, forgotten(seen, LIMITS, NOW), 2_000_000_000)
    assert int(records.item("lane")["expires_at"]["N"]) == 2_000_000_000
    assert records.lanes.get("ann").group == ""
    take_start(records, True, NOW)
    assert int(records.item("lane")["expires_at"]["N"]) == (NOW + 30 * DAY_MS) // 1000


@pytest.mark.parametrize(("settings", "days"), [({}, 30), ({"KEEP_FINISHED": "7d"}, 7)])
def test_record_of_a_finished_task_stays_as_long_as_keep_finished_says(
    records: Records, settings: dict[str, str], days: int
) -> None:
    records.kept_for(**settings).finish(WAITING, Outcome(TaskState.SUCCEEDED, NOW, NOW, 1))
    assert records.expires_ms == NOW // 1000 * 1000 + days * DAY_MS


def test_record_of_a_cancelled_scheduled_task_stays_as_long_as_keep_finished_says(records: Records) -> None:
    records.store.create_if_absent(SCHEDULED)
    store = records.kept_for(KEEP_FINISHED="7d")
    assert store.cancel_scheduled(SCHEDULED, Outcome(TaskState.CANCELLED, None, NOW, 0))
    assert records.expires_ms == NOW // 1000 * 1000 + 7 * DAY_MS
