"""A task that can never succeed fails with a reason and is dead-lettered; its lane and others go on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.stack import stack_outputs
from local.run_settings import LocalSettings
from tests.e2e.running import APP, Paceline, running


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paceline]:
    with running(tmp_path_factory.mktemp("poison"), LIMITS="20/second", BACKOFF="100ms") as paceline:
        yield paceline


class Queue:
    """The running system's queue, reached as one who has its credentials may."""

    def __init__(self, paceline: Paceline) -> None:
        self.endpoint = LocalSettings.from_env(paceline.env).running_endpoint
        assert self.endpoint
        self._outputs = stack_outputs(self.endpoint, "dev")
        self._sqs = boto3.client("sqs", endpoint_url=self.endpoint)

    def send(self, user: str, body: str) -> None:
        self._sqs.send_message(
            QueueUrl=self._outputs["QueueUrl"], MessageBody=body, MessageGroupId=user, MessageDeduplicationId=user
        )

    def reasons(self) -> dict[str, str]:
        """Why there are dead letters, by lane."""
        found, receipts = {}, []
        request = {"QueueUrl": self._outputs["DeadLetterUrl"], "MaxNumberOfMessages": 10, "VisibilityTimeout": 20}
        while messages := self._sqs.receive_message(
            **request, AttributeNames=["All"], MessageAttributeNames=["All"]
        ).get("Messages"):
            for message in messages:
                found[message["Attributes"]["MessageGroupId"]] = message["MessageAttributes"]["reason"]["StringValue"]
                receipts.append(message["ReceiptHandle"])
        for receipt in receipts:
            self._sqs.change_message_visibility(
                QueueUrl=self._outputs["DeadLetterUrl"], ReceiptHandle=receipt, VisibilityTimeout=0
            )
        return found


def state_of(paceline: Paceline, location: str) -> Any:
    return paceline.request("GET", location).body


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("die", "its process was killed by SIGKILL"),
        ("hang", "it did not end within 2 s"),
        ("odd", "the result is not JSON: TypeError: Object of type set is not JSON serializable"),
    ],
)
def test_a_poisonous_task_fails_and_its_lane_and_others_go_on(poisoned: Paceline, task: str, reason: str) -> None:
    user, other = f"poison-{task}", f"beside-{task}"
    location = poisoned.submit(user, task=task).headers["Location"]
    after, beside = poisoned.submit(user), poisoned.submit(other)
    assert {after.status, beside.status} <= {202, 429}
    poisoned.wait_for_completions(1, other, timeout_seconds=20)
    ends = poisoned.wait_for_completions(2, user, timeout_seconds=60)
    assert [(end["event"], end.get("error")) for end in ends] == [("task_failed", reason), ("task_completed", None)]
    assert (state_of(poisoned, location)["state"], state_of(poisoned, location)["error"]) == ("failed", reason)
    assert Queue(poisoned).reasons()[user] == reason


def test_a_task_whose_function_is_gone_fails_and_its_lane_goes_on(poisoned: Paceline) -> None:
    message = {
        "v": 1,
        "user_id": "gone",
        "task_id": "018f0000-0000-7000-8000-000000000001",
        "seq": 1,
        "task": "renamed",
    }
    Queue(poisoned).send("gone", json.dumps(message | {"planned_at": 1, "submitted_at": 1, "payload": {}}))
    (end,) = poisoned.wait_for_completions(1, "gone")
    assert end["error"] == "there is no task 'renamed' in this deployment"
    assert Queue(poisoned).reasons()["gone"] == end["error"]


def test_a_message_that_is_no_task_gets_out_of_the_way(poisoned: Paceline) -> None:
    queue = Queue(poisoned)
    queue.send("stranger", "<xml/>")
    poisoned.submit("stranger")
    poisoned.wait_for_completions(1, "stranger")
    assert queue.reasons()["stranger"].startswith("malformed task message: ")


def test_redrive_brings_the_running_systems_dead_letters_back_in_order(poisoned: Paceline, tmp_path: Path) -> None:
    there = tmp_path / "there"
    for _ in range(3):
        poisoned.submit("back", {"path": str(there)}, task="when-there")
    poisoned.wait_for_completions(3, "back")
    there.write_text("at last")
    # The tests' app has tasks of its own, so it is loaded first.
    program = "import app; from operations.main import main; main()"
    command = [sys.executable, "-c", program, "dead-letters", "--user", "back"]
    done = subprocess.run(command, cwd=APP, env=poisoned.env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith("The dead letters are those of stage dev at http://127.0.0.1:")
    ends = poisoned.wait_for_completions(6, "back")
    assert [end["event"] for end in ends] == ["task_failed"] * 3 + ["task_completed"] * 3
    assert [end["seq"] for end in ends] == [1, 2, 3, 4, 5, 6]
    assert "back" not in Queue(poisoned).reasons()


def test_what_users_sent_is_for_the_owner_of_the_state_alone(poisoned: Paceline) -> None:
    assert Path(poisoned.env["STATE_DIR"]).stat().st_mode & 0o077 == 0
