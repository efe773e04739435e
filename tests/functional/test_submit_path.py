"""The way of a submit through our own functions is short, and stays so."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import app
from chalicelib.aws.dynamodb_lanes import DynamoDBLaneStore
from chalicelib.core.errors import UnavailableError
from chalicelib.settings import OverLimit
from chalicelib.submit.idempotency import fingerprint
from chalicelib.submit.submission import Submission, TaskRequest
from tests.functional.conftest import Paceline
from tests.in_process import Deploy

OURS = Path(app.__file__).parent
ONE, MANY = {"payload": 1}, {"tasks": [{"payload": 1}, {"payload": 2}]}


class Watching:
    """A DynamoDB client that records the functions on the stack of each update, and refuses it."""

    def __init__(self) -> None:
        self.stacks: list[list[str]] = []

    def update_item(self, **_: Any) -> Any:
        self.stacks.append(list(_our_functions()))
        if len(self.stacks) == 1:
            raise ClientError({"Error": {"Code": "ConditionalCheckFailedException"}}, "UpdateItem")
        raise UnavailableError("the test has seen enough")


def _our_functions() -> Iterator[str]:
    """From the function that calls boto3 up to the first one that Chalice calls with the route; not the middleware."""
    frame = sys._getframe(2)
    while frame:
        if Path(frame.f_code.co_filename).is_relative_to(OURS) and ".venv" not in frame.f_code.co_filename:
            yield frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name
        if frame.f_code.co_name == "answered":
            return
        assert frame.f_back
        frame = frame.f_back


@pytest.mark.parametrize("key", [None, "k-1"])
@pytest.mark.parametrize(("path", "body"), [("/api/v1/task", ONE), ("/api/v1/tasks", MANY)])
def test_at_most_six_functions_lead_to_each_conditional_write(
    paceline: Paceline, user: str, path: str, body: dict[str, Any], key: str | None
) -> None:
    """The fast write comes first for a single task; a bulk has exact writes only."""
    client = Watching()
    paceline.parts.__dict__["lanes"] = DynamoDBLaneStore(client, "table")
    headers = {"Idempotency_Key": key} if key else {}
    assert paceline.request("POST", path, {"user_id": user, **body}, **headers).status_code == 503
    assert len(client.stacks) == 2
    for stack in client.stacks:
        assert len(stack) <= 6, stack


@pytest.mark.parametrize(
    ("tasks", "is_bulk", "stored"),
    [
        (
            [TaskRequest("log", {"b": "ü", "a": [1, 2.5, None]})],
            False,
            "9bff5ad99ccae58360d20450712af2bbd734f790994163e92a1b386273171550",
        ),
        (
            [
                TaskRequest("http", {"url": "https://a.test"}, delay_seconds=2.5, callback_url="https://b.test"),
                TaskRequest("log", 1, run_at=1_700_000_000_000),
            ],
            True,
            "38f883eb811aeb0a9b5aece6de8a61bc3a0ea4ee1568ecd022d344aed8a761ad",
        ),
    ],
)
def test_request_has_the_fingerprint_that_records_of_earlier_versions_hold(
    tasks: list[TaskRequest], is_bulk: bool, stored: str
) -> None:
    """Another hash would refuse repeats of requests from the week before the deployment."""
    assert fingerprint(Submission("ann", tasks, now_ms=5, over_limit=OverLimit.REJECT, is_bulk=is_bulk)) == stored


def test_answer_stored_by_an_earlier_version_is_replayed(deploy: Deploy, user: str) -> None:
    paceline = deploy()
    first = paceline.submit(user, 1, Idempotency_Key="k-1")
    requests = paceline.parts.idempotency._requests
    [record] = [one for one in requests._records.values() if one.user_id == user]  # type: ignore[attr-defined]
    assert set(record.answer) == {"status", "headers", "body"}
    old = {"status": 429, "headers": {"Content-Type": "application/problem+json"}, "body": '{"task_id": "old"}'}
    requests.finish(record, old)
    again = paceline.submit(user, 1, Idempotency_Key="k-1")
    assert first.json_body["task_id"] != "old"
    assert (again.status_code, again.json_body) == (429, {"task_id": "old"})
    assert again.headers["Idempotency-Replayed"] == "true"
