"""Dead letters are submitted again: at the end of their user's lane, in order, once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.container import container
from chalicelib.core.errors import UnavailableError
from chalicelib.core.scheduled import Callback, ScheduledTask, to_message
from chalicelib.core.task import Outcome, Task, TaskState
from chalicelib.outbound.client import Answer
from chalicelib.scheduled.callbacks import CallbackSender
from chalicelib.scheduled.dispatcher import TRIED_FOR_MS
from chalicelib.tasks.registry import registry
from operations.redrive import print_redrive, redrive
from tests.in_process import Deploy, Paceline
from tests.unit.workshop import Failing

OUT_OF_ORDER: list[bool] = []


@pytest.fixture(autouse=True, scope="module")
def broken_task() -> Iterator[None]:
    def broken(payload: Any) -> Any:
        if OUT_OF_ORDER:
            raise RuntimeError("out of order")
        return payload

    registry.task("broken", attempts=1)(broken)
    yield
    del registry._definitions["broken"]


@pytest.fixture
def failing(deploy: Deploy) -> Iterator[Paceline]:
    OUT_OF_ORDER.append(True)
    yield deploy(LIMITS="50/second")
    OUT_OF_ORDER.clear()


def fail(paceline: Paceline, user: str, *numbers: int) -> None:
    for n in numbers:
        body = {"user_id": user, "task": "broken", "payload": n}
        assert paceline.request("POST", "/api/v1/task", body).status_code in (202, 429)
    work(paceline, user)


def work(paceline: Paceline, user: str) -> list[object]:
    """Results of what the user's lane had to give, in order."""
    for record in paceline.receive(user):
        assert paceline.work(record) == []
        paceline.delete(record)
    return [line.get("result", line.get("error")) for line in paceline.events if line["user_id"] == user]


def test_dead_letters_run_again_in_their_users_order(failing: Paceline, user: str) -> None:
    fail(failing, user, 1, 2, 3)
    assert len(set(work(failing, user))) == 1
    OUT_OF_ORDER.clear()
    assert [line.split(" (")[0] for line in redrive(container(), None)] == [f"{user}: submitted again"] * 3
    failing.clock.advance(60_000)
    assert work(failing, user)[3:] == [1, 2, 3]
    assert list(redrive(container(), None)) == []


def test_task_that_runs_again_counts_for_as_many_units(failing: Paceline, user: str) -> None:
    body = {"user_id": user, "task": "broken", "payload": 1, "units": 40}
    assert failing.request("POST", "/api/v1/task", body).status_code == 202
    work(failing, user)
    OUT_OF_ORDER.clear()
    assert len(list(redrive(container(), None))) == 1
    failing.clock.advance(60_000)
    work(failing, user)
    assert [event["units"] for event in failing.events if event["user_id"] == user] == [40, 40]


def test_task_that_runs_again_counts_against_the_same_shared_limit(deploy: Deploy, user: str) -> None:
    failing = deploy(LIMITS="50/second", SHARED_LIMITS="stripe: 50/second")
    OUT_OF_ORDER.append(True)
    body = {"user_id": user, "task": "broken", "payload": 1, "shared": "stripe"}
    assert failing.request("POST", "/api/v1/task", body).status_code == 202
    work(failing, user)
    OUT_OF_ORDER.clear()
    assert len(list(redrive(container(), None))) == 1
    failing.clock.advance(60_000)
    work(failing, user)
    assert [event["shared"] for event in failing.events if event["user_id"] == user] == ["stripe", "stripe"]


def test_only_the_named_users_dead_letters_come_back_and_the_others_stay_in_sight(failing: Paceline, user: str) -> None:
    fail(failing, user, 1)
    fail(failing, f"{user}-other", 2)
    assert len(list(redrive(container(), user))) == 1
    assert [line.split(":")[0] for line in redrive(container(), None)] == [f"{user}-other"]


def test_failures_of_its_own_tasks_are_left_for_the_next_redrive(failing: Paceline, user: str) -> None:
    fail(failing, user, 1, 2, 3)
    lines = list[str]()
    for line in redrive(container(), user):
        lines.append(line.split(" (")[0])
        work(failing, user)  # it fails at once, while the redrive goes on
        assert len(lines) <= 3
    assert lines == [f"{user}: submitted again"] * 3
    OUT_OF_ORDER.clear()
    assert len(list(redrive(container(), user))) == 3
    failing.clock.advance(60_000)
    assert sorted(filter(lambda ended: isinstance(ended, int), work(failing, user))) == [1, 2, 3]


def test_task_that_has_succeeded_meanwhile_is_left_out(failing: Paceline, user: str) -> None:
    """SQS moves a message that it has delivered 1,000 times; its task may run from its record all the same."""
    OUT_OF_ORDER.clear()
    fail(failing, user, 1)
    [listed] = failing.get(f"/api/v1/users/{user}/tasks").json_body["tasks"]
    record = container().tasks.get(user, listed["task_id"])
    assert record
    container().queue.send_dead(user, record.task.task_id, record.task.to_message(), "moved by SQS")
    (line,) = redrive(container(), user)
    assert line.startswith(f"{user}: left out, since it is succeeded")
    assert list(redrive(container(), user)) == []
    assert work(failing, user) == [1]


def submit(paceline: Paceline, user: str, payload: int, **options: Any) -> str:
    body = {"user_id": user, "task": "broken", "payload": payload, **options}
    return str(paceline.request("POST", "/api/v1/task", body).json_body["task_id"])


def move_to_dead_letters(paceline: Paceline, user: str, task_id: str) -> None:
    """As SQS moves a message that it has delivered 1,000 times: without a reason, and the task goes on."""
    record = container().tasks.get(user, task_id)
    assert record
    paceline.queues.aws.sqs.send_message(
        QueueUrl=paceline.queues.aws.dead_letter_url,
        MessageBody=record.task.to_message(),
        MessageGroupId=user,
        MessageDeduplicationId=f"moved-{task_id}",
    )


def test_task_that_is_not_finished_is_sent_again_and_runs_once(failing: Paceline, user: str) -> None:
    """A later task's worker may run it from its record before or after the redrive."""
    OUT_OF_ORDER.clear()
    task_id = submit(failing, user, 7)
    [message] = failing.receive(user)
    failing.delete(message)
    move_to_dead_letters(failing, user, task_id)
    assert [line.split(" (")[0] for line in redrive(container(), None)] == [
        f"{user}: sent again, since it is not finished"
    ]
    submit(failing, user, 8)
    failing.clock.advance(60_000)
    assert work(failing, user) == [7, 8]
    assert len(failing.get(f"/api/v1/users/{user}/tasks").json_body["tasks"]) == 2
    assert list(redrive(container(), None)) == []


def test_task_that_ran_from_its_record_while_it_was_sent_again_runs_once(failing: Paceline, user: str) -> None:
    OUT_OF_ORDER.clear()
    task_id = submit(failing, user, 7)
    [message] = failing.receive(user)
    move_to_dead_letters(failing, user, task_id)
    assert len(list(redrive(container(), None))) == 1
    assert failing.work(message) == []
    failing.delete(message)
    failing.clock.advance(60_000)
    assert work(failing, user) == [7]


def test_failed_task_with_two_dead_letters_is_submitted_once(failing: Paceline, user: str) -> None:
    """The worker wrote one and died before it stored the outcome; its successor wrote the second one."""
    fail(failing, user, 1)
    [listed] = failing.get(f"/api/v1/users/{user}/tasks").json_body["tasks"]
    move_to_dead_letters(failing, user, listed["task_id"])
    assert len(list(redrive(container(), None))) == 2
    OUT_OF_ORDER.clear()
    failing.clock.advance(60_000)
    assert work(failing, user)[1:] == [1]


def test_letter_of_a_failure_that_is_not_stored_yet_stays_until_it_is(failing: Paceline, user: str) -> None:
    """Without the letter the task could not be redriven: SQS drops a second one of the same task for five minutes."""
    task_id = submit(failing, user, 7)
    record = container().tasks.get(user, task_id)
    assert record
    container().queue.send_dead(user, task_id, record.task.to_message(), "out of order")  # its worker goes on, or dies
    (line,) = redrive(container(), None)
    assert f"{user}: stays" in line
    assert line.endswith("its failure is not stored yet; repeat this in a few minutes")
    assert len(work(failing, user)) == 1
    assert "submitted again" in next(redrive(container(), None))


def test_scheduled_message_that_sqs_moved_goes_back_to_its_queue(failing: Paceline, user: str) -> None:
    OUT_OF_ORDER.clear()
    stored = container().tasks.get(user, submit(failing, user, 9, delay_seconds=60))
    assert stored
    for body in (to_message(ScheduledTask(stored.task)), "hello"):
        failing.queues.aws.sqs.send_message(QueueUrl=failing.queues.aws.later_dead_url, MessageBody=body)
    assert next(redrive(container(), f"{user}-other")).startswith("stays (")
    lines = [line.split(" (")[0] for line in redrive(container(), None)]
    assert set(lines) == {"stays", f"{user}: scheduled message sent again"}
    failing.clock.advance(60_000)
    [record] = failing.receive_scheduled()
    assert failing.dispatch(record) == []
    assert work(failing, user) == [9]


class Forgetful:
    """SQS that loses the first delete."""

    def __init__(self, sqs: Any) -> None:
        self._sqs = sqs
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sqs, name)

    def delete_message(self, **request: Any) -> Any:
        if self._lost:
            return self._sqs.delete_message(**request)
        self._lost = True
        self._sqs.change_message_visibility(**request, VisibilityTimeout=0)
        raise UnavailableError("AWS is away")


class Sampled:
    """SQS as AWS has it: a receive that does not wait asks some of the servers only, here those without messages."""

    def __init__(self, sqs: Any) -> None:
        self._sqs = sqs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sqs, name)

    def receive_message(self, **request: Any) -> Any:
        answer = self._sqs.receive_message(**request)
        return answer if request.get("WaitTimeSeconds") else {**answer, "Messages": []}


def test_redrive_finds_the_few_messages_of_a_queue_on_many_servers(
    failing: Paceline, user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(failing, user, 1)
    failing.queues.aws.sqs.send_message(QueueUrl=failing.queues.aws.later_dead_url, MessageBody="hello")
    container().__dict__["sqs"] = Sampled(failing.queues.aws.sqs)
    monkeypatch.setattr("operations.redrive._choose_deployment", str)
    assert print_redrive(None, None) == 0
    assert "Read 2 dead letters" in capsys.readouterr().out


def test_interrupted_redrive_submits_once(failing: Paceline, user: str) -> None:
    fail(failing, user, 1)
    container().__dict__["sqs"] = Forgetful(failing.queues.aws.sqs)
    with pytest.raises(UnavailableError):
        list(redrive(container(), None))
    assert len(list(redrive(container(), None))) == 1
    OUT_OF_ORDER.clear()
    failing.clock.advance(60_000)
    assert work(failing, user)[1:] == [1]


class Visible:
    """SQS that hides nothing that was received."""

    def __init__(self, sqs: Any) -> None:
        self._sqs = sqs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sqs, name)

    def receive_message(self, **request: Any) -> Any:
        return self._sqs.receive_message(**{**request, "VisibilityTimeout": 0})


def test_redrive_whose_repeat_is_refused_submits_once(failing: Paceline, user: str) -> None:
    """The first try was sent and not answered, and the lane had no room for the second."""
    fail(failing, user, 1)
    parts = container()
    parts.__dict__["sqs"] = Visible(failing.queues.aws.sqs)
    queue = Failing(parts.queue)
    parts.__dict__["queue"] = queue
    parts.__dict__.pop("submitter", None)
    queue.fail("send", after=True)
    with pytest.raises(UnavailableError):
        next(redrive(parts, user))
    assert failing.submit(user).status_code in (202, 429)
    parts.control.pause(user, failing.clock.now_ms() + 2 * 3_600_000)
    assert "longer than the" in next(redrive(parts, user))
    parts.control.resume(user)
    assert "submitted again" in next(redrive(parts, user))
    OUT_OF_ORDER.clear()
    failing.clock.advance(60_000)
    assert work(failing, user)[1:] == [1, None]


URL = "https://hooks.example.com/ends"


def failure(paceline: Paceline, user: str, url: str = URL) -> None:
    """The dead letter of a callback that was not delivered for a day."""
    event = {"event": "task_completed", "task_id": f"{user}-1"}
    callback = Callback(user, f"{user}-1", url, event, paceline.clock.now_ms() - TRIED_FOR_MS)
    container().queue.send_dead(user, f"{user}-1-end", to_message(callback), f"callback to {url}: HTTP 503")


def sent(paceline: Paceline, monkeypatch: pytest.MonkeyPatch, status: int, user: str) -> list[bytes]:
    """The bodies of the user's callbacks, sent to a receiver that answers with the status."""
    bodies: list[bytes] = []

    def call(method: str, url: str, headers: Any, body: bytes, *_: Any) -> Answer:
        bodies.append(body)
        return Answer(status, {}, b"", False)

    monkeypatch.setitem(container().dispatcher.__dict__, "_send_callback", CallbackSender(call, None))
    for record in paceline.receive_scheduled():
        if f'"{user}"' in record["body"] and not paceline.dispatch(record):
            paceline.delete(record)
    return bodies


def test_callback_that_nobody_took_is_told_again(failing: Paceline, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failure(failing, user)
    assert [line.split(" (")[0] for line in redrive(container(), None)] == [f"{user}: callback sent again"]
    assert list(redrive(container(), None)) == []
    [body] = sent(failing, monkeypatch, 200, user)
    assert json.loads(body)["task_id"] == f"{user}-1"
    assert sent(failing, monkeypatch, 200, user) == []


def test_callback_that_comes_back_has_a_day_again(
    failing: Paceline, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure(failing, user)
    assert len(list(redrive(container(), user))) == 1
    assert len(sent(failing, monkeypatch, 503, user)) == 1
    assert list(redrive(container(), None)) == [], "it waits for its next try, and is not a dead letter"


def test_callback_of_another_user_than_its_lane_stays(failing: Paceline, user: str) -> None:
    callback = Callback("eve", "t", URL, {}, 0)
    container().queue.send_dead(user, "t-end", to_message(callback), "forged")
    (line,) = redrive(container(), None)
    assert line.endswith(f"it names user 'eve' in the lane of {user!r}")


def test_callback_does_not_wait_behind_what_stays(failing: Paceline, user: str) -> None:
    container().queue.send_dead(user, "x", "hello", "no task")
    failure(failing, user)
    assert [line.split(" (")[0] for line in redrive(container(), None)] == [
        f"{user}: stays",
        f"{user}: callback sent again",
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("hello", "malformed task message"),
        ('{"v": 99}', "unsupported message version 99"),
        (
            '{"v": 1, "user_id": "eve", "task_id": "t", "seq": 1, "task": "broken", "planned_at": 1, '
            '"submitted_at": 1, "payload": 1}',
            "it names user 'eve' in the lane of",
        ),
    ],
)
def test_what_is_no_task_of_this_lane_stays_and_is_named(failing: Paceline, user: str, body: str, reason: str) -> None:
    failing.queues.aws.sqs.send_message(
        QueueUrl=failing.queues.aws.dead_letter_url, MessageBody=body, MessageGroupId=user, MessageDeduplicationId=user
    )
    (line,) = redrive(container(), None)
    assert f"{user}: stays" in line
    assert reason in line
    (again,) = redrive(container(), None)
    assert again == line, "it is in sight again at once"


def test_dead_letter_without_its_payload_gets_the_stored_one_or_stays(failing: Paceline, user: str) -> None:
    """A worker that found no payload for a task's record leaves such a letter."""
    OUT_OF_ORDER.clear()
    stored = Task(user, "0198-0001", 1, "broken", "x" * 5_000, planned_at=1, submitted_at=1)
    container().tasks.create_if_absent(stored)
    error = "the payload is no longer stored"
    for task in (stored, replace(stored, task_id="0198-0002")):
        letter = replace(task, payload=None, has_payload=False)
        container().tasks.finish(letter, Outcome(TaskState.FAILED, 1, 2, 1, error=error))
        container().queue.send_dead(user, task.task_id, letter.to_message(), error)
    submitted, stays = redrive(container(), None)
    assert f"{user}: submitted again" in submitted
    assert "its payload is no longer stored" in stays
    assert work(failing, user) == [stored.payload]


def test_dead_letter_without_payload_or_record_stays(failing: Paceline, user: str) -> None:
    letter = Task(user, "0198-0003", 1, "broken", None, planned_at=1, submitted_at=1, has_payload=False)
    container().queue.send_dead(user, letter.task_id, letter.to_message(), "")
    [stays] = redrive(container(), None)
    assert "its payload is no longer stored" in stays
