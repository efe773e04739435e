"""The writes of a task's way are usual ones: MiniStack's own functions are not asked, and would answer the same."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.aws.dynamodb_lanes import DynamoDBLaneStore
from chalicelib.aws.dynamodb_tasks import DynamoDBTaskStore
from chalicelib.core.admission import admit
from chalicelib.core.claim import Candidate, Start, claim
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import Stale, Written
from chalicelib.core.task import Outcome, TaskState
from local.ministack_items import Partitions
from local.ministack_writes import tune_writes
from tests.factories import NOW, make_task
from tests.integration.test_ministack_tuning import TABLE, module


class Database:
    """Two copies of MiniStack's module, of which one has the usual writes alone, as boto3's client."""

    def __init__(self) -> None:
        self.plain, self.tuned = module("dynamodb"), module("dynamodb")
        self.tuned._update_item = self.tuned._put_item = self._refuse
        tune_writes(self.tuned)
        names = {"user_id": "HASH", "item": "RANGE"}
        table = {
            "TableName": TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in names],
            "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in names.items()],
        }
        for dynamodb in (self.plain, self.tuned):
            dynamodb._create_table(table)
        self.tuned._tables[TABLE]["items"] = Partitions()
        self.refused = 0

    def update_item(self, **call: Any) -> Any:
        return self._write("_update_item", call)

    def put_item(self, **call: Any) -> Any:
        return self._write("_put_item", call)

    def _write(self, name: str, call: Any) -> Any:
        answers = [getattr(dynamodb, name)(json.loads(json.dumps(call))) for dynamodb in (self.plain, self.tuned)]
        (status, _, body), (_, _, tuned) = answers
        answer = json.loads(body)
        assert [one[0] for one in answers] == [status, status]
        assert json.loads(tuned) == answer
        if status == 200:
            return answer
        self.refused += 1
        raise ClientError({"Error": {"Code": answer["__type"]}, "Item": answer.get("Item")}, name)

    def _refuse(self, call: Any) -> Any:
        raise AssertionError(f"unusual: {call}")


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.mark.parametrize("text", ["1/second; 20/minute", "1/second; 5000/hour", "20/minute; 5 at once"])
def test_writes_of_tasks_are_usual(database: Database, text: str) -> None:
    limits = parse_limits(text)
    lanes, tasks = DynamoDBLaneStore(database, TABLE), DynamoDBTaskStore(database, TABLE)
    for n in range(25):
        now, task = NOW + 1_000 * n, make_task(n + 1, task_id=f"t{n}")
        write = lanes.try_fast_admit("ann", limits, now - 100, task.task_id)
        while isinstance(write, Stale):
            write = lanes.admit(write.lane, admit(write.lane, limits, now - 100, task.task_id))
        tasks.create_if_absent(task)
        tasks.create_if_absent(task)
        candidate, start_at = Candidate(task.task_id, n + 1, 0), now + 3_600_000 * n + 100
        start = claim(write.lane, candidate, limits, start_at, 10_000, f"token-{n}")
        assert isinstance(start, Start)
        if isinstance(claimed := lanes.try_fast_claim(start, limits), Stale):
            start = claim(claimed.lane, candidate, limits, start_at, 10_000, f"token-{n}")
            assert isinstance(start, Start)
            assert isinstance(lanes.claim(claimed.lane, start), Written)
        tasks.finish(task, Outcome(TaskState.SUCCEEDED, now, now + 5, 1, {"é": None}))
    assert database.refused >= 25
