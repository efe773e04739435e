from typing import Any

import pytest
from chalice.test import HTTPResponse

from chalicelib.core.errors import UnavailableError
from chalicelib.submit.idempotency import ABANDONED_AFTER_MS
from tests.functional.conftest import Paceline
from tests.unit.workshop import Failing

FIVE = [{"payload": n} for n in range(5)]


class Died(BaseException):
    """The process died."""


def submit(paceline: Paceline, user: str, payload: Any = 1, key: str = '"k-1"', **headers: str) -> HTTPResponse:
    return paceline.submit(user, payload, Idempotency_Key=key, **headers)


def submit_five(paceline: Paceline, user: str, key: str = "k-1") -> HTTPResponse:
    return paceline.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": FIVE}, Idempotency_Key=key)


def run_all(paceline: Paceline, user: str, *records: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs what the lane has to give, each again until it is done; the log's lines about the user.

    records: what was received before. a received message stays hidden.
    """
    for record in (*records, *paceline.receive(user)):
        for _ in range(10):
            if not paceline.work(record):
                break
            paceline.clock.advance(60_000)
        else:
            raise AssertionError(f"never done: {record['body']}")
    return [event for event in paceline.events if event["user_id"] == user]


def failing(paceline: Paceline, port: str, call: str, after: bool, times: int = 1, died: bool = False) -> None:
    stand_in = Failing(getattr(paceline.parts, port), Died() if died else UnavailableError("AWS is away"))  # type: ignore[arg-type]
    stand_in.fail(call, times=times, after=after)
    setattr(paceline.parts, port, stand_in)
    for part in ("idempotency", "submitter"):
        paceline.parts.__dict__.pop(part, None)


def test_same_request_with_the_same_key_gets_the_same_answer_and_one_task(paceline: Paceline, user: str) -> None:
    first = submit(paceline, user)
    again = submit(paceline, user)
    assert (again.status_code, again.body) == (first.status_code, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert {**again.headers, "Idempotency-Replayed": None} == {**first.headers, "Idempotency-Replayed": None}
    assert len(paceline.receive(user)) == 1
    assert paceline.parts.lanes.get(user).admitted == 1


def test_answer_over_the_limit_is_repeated_too(paceline: Paceline, user: str) -> None:
    paceline.submit(user)
    first, again = submit(paceline, user), submit(paceline, user)
    assert (first.status_code, again.status_code) == (429, 429)
    assert again.json_body["task_id"] == first.json_body["task_id"]


def test_bulk_is_repeated_as_a_whole(paceline: Paceline, user: str) -> None:
    first, again = submit_five(paceline, user), submit_five(paceline, user)
    assert again.body == first.body
    assert paceline.parts.lanes.get(user).admitted == 5


@pytest.mark.parametrize("same", ["k-1", '"k-1"', ' "k-1" ', " k-1", '"k\\-1"'])
def test_key_may_be_quoted_or_not(paceline: Paceline, user: str, same: str) -> None:
    assert submit(paceline, user).body == submit(paceline, user, key=same).body


def test_order_of_names_makes_no_other_request(paceline: Paceline, user: str) -> None:
    first = submit(paceline, user, {"a": 1, "b": 2})
    assert submit(paceline, user, {"b": 2, "a": 1}).body == first.body


@pytest.mark.parametrize("other", [2, "1", 1.0, True, [1], None])
def test_other_payload_with_the_same_key_is_refused(paceline: Paceline, user: str, other: Any) -> None:
    submit(paceline, user)
    response = submit(paceline, user, other)
    assert (response.status_code, response.json_body["field"]) == (422, "Idempotency-Key")
    assert paceline.parts.lanes.get(user).admitted == 1


def test_bulk_of_one_is_another_request_than_a_single_task(paceline: Paceline, user: str) -> None:
    submit(paceline, user, 1, "k-1")
    body = {"user_id": user, "tasks": [{"payload": 1}]}
    assert paceline.request("POST", "/api/v1/tasks", body, Idempotency_Key="k-1").status_code == 422


def test_keys_of_users_and_other_keys_of_one_are_apart(paceline: Paceline, user: str) -> None:
    answers = [submit(paceline, name, key=key) for name in (user, f"{user}-2") for key in ("k-1", "k-2", "K-1")]
    assert len({answer.json_body["task_id"] for answer in answers}) == 6
    assert not any("Idempotency-Replayed" in answer.headers for answer in answers)


def test_repeat_is_recognised_long_after_sqs_has_forgotten_it(paceline: Paceline, user: str) -> None:
    first = submit(paceline, user)
    paceline.clock.advance(6 * 24 * 3_600_000)
    assert submit(paceline, user).body == first.body
    assert len(paceline.receive(user)) == 1


def test_refusal_is_not_kept(paceline: Paceline, user: str) -> None:
    paceline.submit(user)
    assert submit(paceline, user, Prefer="handling=strict").status_code == 429
    paceline.clock.advance(1_000)
    assert submit(paceline, user, Prefer="handling=strict").status_code == 202


def test_refused_repeat_does_not_say_that_nothing_is_queued(paceline: Paceline, user: str) -> None:
    """Its first try was sent, and AWS failed the answer to that."""
    failing(paceline, "queue", "send", after=True)
    assert submit(paceline, user).status_code == 503
    paceline.submit(user)
    again = submit(paceline, user, Prefer="handling=strict")
    assert (again.status_code, again.json_body["title"]) == (503, "Not known whether it is queued")
    assert "queued" not in again.json_body
    paceline.clock.advance(int(again.headers["Retry-After"]) * 1000)
    assert submit(paceline, user, Prefer="handling=strict").status_code == 202


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("port", "call"), [("lanes", "try_fast_admit"), ("queue", "send"), ("tasks", "create_if_absent")]
)
def test_request_that_aws_failed_can_be_repeated_at_once_and_runs_once(
    paceline: Paceline, user: str, port: str, call: str, after: bool
) -> None:
    failing(paceline, port, call, after)
    assert submit(paceline, user).status_code == 503
    again = submit(paceline, user)
    assert (again.status_code, again.json_body["position"]) == (202, 0)
    [event] = run_all(paceline, user)
    assert (event["event"], event["task_id"]) == ("task_completed", again.json_body["task_id"])
    assert submit(paceline, user).body == again.body


def test_repeat_after_a_lost_reservation_is_told_the_place_that_was_reserved(paceline: Paceline, user: str) -> None:
    begun_at = paceline.clock.now_ms()
    for _ in range(5):
        paceline.submit(user)
    failing(paceline, "lanes", "admit", after=True)
    assert submit(paceline, user).status_code == 503
    paceline.clock.advance(500)
    again = submit(paceline, user)
    assert (again.status_code, again.json_body["position"]) == (429, 5)
    assert (again.json_body["seq"], again.json_body["planned_at"]) == (6, begun_at + 5_000)


def test_bulk_repeated_after_a_lost_reservation_is_told_the_places_that_were_reserved(
    paceline: Paceline, user: str
) -> None:
    begun_at = paceline.clock.now_ms()
    for _ in range(25):
        paceline.submit(user)
    failing(paceline, "tasks", "create_many", after=False, died=True)
    with pytest.raises(Died):
        submit_five(paceline, user)
    paceline.clock.advance(ABANDONED_AFTER_MS)
    tasks = submit_five(paceline, user).json_body["tasks"]
    assert [task["seq"] for task in tasks] == [26, 27, 28, 29, 30]
    assert [task["planned_at"] - begun_at for task in tasks] == [65_000, 66_000, 67_000, 68_000, 69_000]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("port", "call"), [("tasks", "create_many"), ("queue", "send_many")])
def test_bulk_that_aws_failed_can_be_repeated_and_runs_once(
    paceline: Paceline, user: str, port: str, call: str, after: bool
) -> None:
    failing(paceline, port, call, after)
    assert submit_five(paceline, user).status_code == 503
    again = submit_five(paceline, user)
    assert again.status_code == 429
    completed = [event for event in run_all(paceline, user) if event["event"] == "task_completed"]
    assert [event["task_id"] for event in completed] == [task["task_id"] for task in again.json_body["tasks"]]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("port", "call"), [("tasks", "create_many"), ("queue", "send_many")])
def test_bulk_that_failed_and_is_not_repeated_runs_each_task_once_at_most_and_blocks_nothing(
    paceline: Paceline, user: str, port: str, call: str, after: bool
) -> None:
    failing(paceline, port, call, after)
    assert submit_five(paceline, user).status_code == 503
    later = paceline.submit(user).json_body
    completed = [event["task_id"] for event in run_all(paceline, user) if event["event"] == "task_completed"]
    assert completed[-1] == later["task_id"]
    assert len(set(completed)) == len(completed)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("port", "call"), [("queue", "send"), ("tasks", "create_if_absent")])
def test_request_of_a_process_that_died_is_taken_over_later_and_runs_once(
    paceline: Paceline, user: str, port: str, call: str, after: bool
) -> None:
    failing(paceline, port, call, after, died=True)
    with pytest.raises(Died):
        submit(paceline, user)
    assert submit(paceline, user).status_code == 409
    paceline.clock.advance(ABANDONED_AFTER_MS)
    assert submit(paceline, user).status_code in (202, 429)
    assert [event["event"] for event in run_all(paceline, user)] == ["task_completed"]


def test_bulk_of_a_process_that_died_is_taken_over_while_it_runs_and_runs_once(paceline: Paceline, user: str) -> None:
    failing(paceline, "queue", "send_many", after=True, died=True)
    with pytest.raises(Died):
        submit_five(paceline, user)
    first, second, *others = paceline.receive(user)
    assert paceline.work(first) == []
    paceline.clock.advance(1_000)
    assert paceline.work(second) == []
    paceline.clock.advance(ABANDONED_AFTER_MS)
    again = submit_five(paceline, user)
    assert again.status_code in (202, 429)
    events = run_all(paceline, user, *others)
    assert [event["event"] for event in events] == ["task_completed"] * 5
    ids = [task["task_id"] for task in again.json_body["tasks"]]
    assert sorted(event["task_id"] for event in events) == ids
    states = {paceline.get(f"/api/v1/users/{user}/tasks/{task_id}").json_body["state"] for task_id in ids}
    assert states == {"succeeded"}


def test_answer_that_can_not_be_kept_is_given_all_the_same(paceline: Paceline, user: str) -> None:
    idempotency = paceline.parts.idempotency
    requests = Failing(idempotency._requests)
    requests.fail("finish")
    idempotency._requests = requests  # type: ignore[assignment]
    assert submit(paceline, user).status_code == 202
