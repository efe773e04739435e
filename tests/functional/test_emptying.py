"""A lane is emptied in one call, and a user is forgotten: what answers, log and later tasks see of it."""

from typing import Any

import pytest

from chalicelib.container import container
from chalicelib.core.limits import parse_limits
from chalicelib.submit.submission import Submission, Submitted, TaskRequest
from tests.functional.conftest import Deploy, Paceline
from tests.functional.test_failures import work
from tests.windows import assert_pace_kept

DAY_MS = 86_400_000


@pytest.fixture
def paceline(deploy: Deploy) -> Paceline:
    return deploy(LIMITS="1/second; 20/minute", MAX_DELAY="12d")


def submit(paceline: Paceline, user: str, count: int, **task: Any) -> list[str]:
    ids = list[str]()
    for start in range(0, count, 100):
        tasks = [task] * min(100, count - start)
        answer = paceline.request("POST", "/api/v1/tasks", {"user_id": user, "tasks": tasks})
        ids += [one["task_id"] for one in answer.json_body["tasks"]]
    return ids


def empty(paceline: Paceline, user: str) -> Any:
    answer = paceline.request("DELETE", f"/api/v1/users/{user}/tasks?state=queued")
    assert answer.status_code == 200, answer.json_body
    return answer.json_body


def forget(paceline: Paceline, user: str) -> Any:
    return paceline.request("DELETE", f"/api/v1/users/{user}")


def run_one(paceline: Paceline) -> None:
    for record in paceline.queues.receive(1):
        if not paceline.work(record):
            paceline.delete(record)


def run_scheduled(paceline: Paceline) -> None:
    for record in paceline.receive_scheduled():
        if not paceline.dispatch(record):
            paceline.delete(record)


def lane_of(paceline: Paceline, user: str) -> Any:
    return paceline.get(f"/api/v1/users/{user}").json_body


def task_of(paceline: Paceline, user: str, task_id: str) -> Any:
    return paceline.get(f"/api/v1/users/{user}/tasks/{task_id}").json_body


def lines(paceline: Paceline, user: str, event: str) -> list[str]:
    return [line["task_id"] for line in paceline.events if line["user_id"] == user and line["event"] == event]


def started(paceline: Paceline, user: str) -> list[int]:
    return [line["started_at"] for line in paceline.events if line["user_id"] == user and line["started_at"]]


def test_answers_are_right_as_soon_as_the_lane_is_emptied(paceline: Paceline, user: str) -> None:
    ids = submit(paceline, user, 250)
    run_one(paceline)
    answer = empty(paceline, user)
    assert (answer["cancelled"], answer["backlog"], answer["next_starts"]) == (249, 0, [])
    assert lane_of(paceline, user)["backlog"] == 0
    task = task_of(paceline, user, ids[100])
    assert (task["state"], task["position"], task["estimated_at"]) == ("cancelled", 0, None)
    assert task["completed_at"] is not None
    assert paceline.get(f"/api/v1/users/{user}/tasks?state=queued").json_body["tasks"] == []
    cancelled = paceline.get(f"/api/v1/users/{user}/tasks?state=cancelled&limit=100").json_body
    assert [one["task_id"] for one in cancelled["tasks"]] == ids[:149:-1]
    assert task_of(paceline, user, ids[0])["state"] == "succeeded"


def test_each_emptied_task_is_logged_once_and_none_runs(paceline: Paceline, user: str) -> None:
    ids = submit(paceline, user, 250)
    run_one(paceline)
    empty(paceline, user)
    work(paceline)
    assert lines(paceline, user, "task_cancelled") == ids[1:]
    assert lines(paceline, user, "task_completed") == ids[:1]
    assert {task_of(paceline, user, task_id)["state"] for task_id in ids[1:]} == {"cancelled"}


def test_task_submitted_after_the_emptying_starts_when_the_limits_allow_it(paceline: Paceline, user: str) -> None:
    submit(paceline, user, 250)
    run_one(paceline)
    emptied_at = paceline.clock.now_ms()
    empty(paceline, user)
    paceline.clock.advance(1_000)
    answer = paceline.submit(user)
    assert (answer.status_code, answer.json_body["position"]) == (202, 0)
    for _ in range(3):  # the messages of 249 cancelled tasks stand before its own
        run_one(paceline)
    assert lines(paceline, user, "task_completed")[1:] == [answer.json_body["task_id"]]
    assert started(paceline, user)[1] <= emptied_at + 1_100
    more = submit(paceline, user, 5)
    work(paceline)
    assert lines(paceline, user, "task_completed")[2:] == more
    assert len(lines(paceline, user, "task_cancelled")) == len(set(lines(paceline, user, "task_cancelled"))) == 249
    assert_pace_kept(started(paceline, user), parse_limits("1/second; 20/minute"))


def test_scheduled_task_that_is_in_the_lane_before_its_record_says_so_does_not_overtake(
    paceline: Paceline, user: str
) -> None:
    submit(paceline, user, 3)
    empty(paceline, user)
    paceline.clock.advance(1_000)
    [scheduled] = submit(paceline, user, 1, delay_seconds=60)
    paceline.clock.advance(60_000)
    container().submitter.reserve(user, scheduled, paceline.clock.now_ms())
    run_one(paceline)
    assert (len(lines(paceline, user, "task_cancelled")), started(paceline, user)) == (1, [])


def test_paused_lane_is_emptied_and_its_cancellations_are_logged_at_once(paceline: Paceline, user: str) -> None:
    ids = submit(paceline, user, 5)
    container().control.pause(user, None)
    run_one(paceline)  # it is hidden for an hour
    empty(paceline, user)
    for _ in ids:
        run_one(paceline)
    assert lines(paceline, user, "task_cancelled") == ids
    assert lane_of(paceline, user)["paused"]


def test_task_between_two_attempts_is_cancelled_and_a_running_one_goes_on(paceline: Paceline, user: str) -> None:
    def emptying(payload: Any) -> str:
        empty(paceline, user)
        raise RuntimeError("no")

    container().registry.task("emptying", attempts=3, backoff_seconds=60)(emptying)
    first, *others = submit(paceline, user, 3, task="emptying")
    run_one(paceline)
    assert (task_of(paceline, user, first)["state"], lane_of(paceline, user)["backlog"]) == ("queued", 0)
    later = paceline.submit(user).json_body["task_id"]
    assert empty(paceline, user)["cancelled"] == 2
    work(paceline)
    assert sorted(lines(paceline, user, "task_cancelled")) == sorted([first, *others, later])
    assert len(started(paceline, user)) == 1


def test_running_task_may_be_retried_after_the_emptying_and_the_next_one_follows(paceline: Paceline, user: str) -> None:
    attempts = list[int]()

    def emptying(payload: Any) -> str:
        attempts.append(paceline.clock.now_ms())
        if len(attempts) == 1:
            empty(paceline, user)
            raise RuntimeError("no")
        return "done"

    container().registry.task("emptying", attempts=3, backoff_seconds=10)(emptying)
    first, *others = submit(paceline, user, 3, task="emptying")
    run_one(paceline)
    later = submit(paceline, user, 2)
    work(paceline)
    assert lines(paceline, user, "task_completed") == [first, *later]
    assert sorted(lines(paceline, user, "task_cancelled")) == sorted(others)
    assert len(attempts) == 2


def test_tasks_cancelled_by_themselves_before_are_logged_once_too(paceline: Paceline, user: str) -> None:
    ids = submit(paceline, user, 8)
    run_one(paceline)
    for task_id in (ids[3], ids[5]):
        assert paceline.request("DELETE", f"/api/v1/users/{user}/tasks/{task_id}").status_code == 200
    assert empty(paceline, user)["cancelled"] == 5
    for task_id in (ids[3], ids[4]):  # again
        assert paceline.request("DELETE", f"/api/v1/users/{user}/tasks/{task_id}").status_code == 200
    later = submit(paceline, user, 3)
    work(paceline)
    assert sorted(lines(paceline, user, "task_cancelled")) == ids[1:]
    assert lines(paceline, user, "task_completed") == [ids[0], *later]


def test_scheduled_tasks_are_cancelled_and_logged_and_later_ones_run(paceline: Paceline, user: str) -> None:
    ids = submit(paceline, user, 120, delay_seconds=7_200)
    answer = empty(paceline, user)
    assert (answer["cancelled"], answer["cancelled_scheduled"]) == (0, 120)
    later = submit(paceline, user, 2, delay_seconds=3_600)
    assert task_of(paceline, user, ids[7])["state"] == "cancelled"
    queued = paceline.get(f"/api/v1/users/{user}/tasks?state=queued").json_body["tasks"]
    assert [one["task_id"] for one in queued] == later[::-1]
    assert paceline.request("DELETE", f"/api/v1/users/{user}/tasks/{ids[8]}").json_body["state"] == "cancelled"
    run_scheduled(paceline)
    assert sorted(lines(paceline, user, "task_cancelled")) == ids
    paceline.clock.advance(3_600_000)
    for _ in range(30):
        run_scheduled(paceline)
        run_one(paceline)
        paceline.clock.advance(600_000)
    assert lines(paceline, user, "task_completed") == later
    assert sorted(lines(paceline, user, "task_cancelled")) == ids


def test_scheduled_task_that_is_due_before_its_cancellation_is_logged_does_not_run(
    paceline: Paceline, user: str
) -> None:
    [task_id] = submit(paceline, user, 1, delay_seconds=60)
    empty(paceline, user)
    paceline.clock.advance(60_000)
    records = paceline.receive_scheduled()
    admitting = [record for record in records if "empty_schedule" not in record["body"]]
    assert paceline.dispatch(*admitting) == []
    assert lines(paceline, user, "task_cancelled") == [task_id]
    later = paceline.submit(user).json_body["task_id"]
    work(paceline)
    assert lines(paceline, user, "task_completed") == [later]


def test_an_emptied_lane_is_emptied_again(paceline: Paceline, user: str) -> None:
    ids = submit(paceline, user, 10)
    run_one(paceline)
    assert [empty(paceline, user)["cancelled"] for _ in range(2)] == [9, 0]
    run_one(paceline)
    more = submit(paceline, user, 10)
    assert empty(paceline, user)["cancelled"] == 10
    last = submit(paceline, user, 2)
    work(paceline)
    assert sorted(lines(paceline, user, "task_cancelled")) == sorted([*ids[1:], *more])
    assert lines(paceline, user, "task_completed") == [ids[0], *last]


def test_messages_of_emptied_tasks_that_the_queue_lost_come_again_when_it_is_emptied_again(
    paceline: Paceline, user: str
) -> None:
    ids = submit(paceline, user, 4)
    empty(paceline, user)
    for record in paceline.queues.receive(10):
        paceline.delete(record)
    paceline.clock.advance(120_000)
    empty(paceline, user)
    work(paceline)
    assert sorted(lines(paceline, user, "task_cancelled")) == ids


def test_lane_with_units_has_all_of_them_again(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="100 units/minute", MAX_DELAY="12d")
    submit(paceline, user, 40, units=50)
    empty(paceline, user)
    assert lane_of(paceline, user)["policies"][0]["remaining"] == 100
    answers = [paceline.request("POST", "/api/v1/task", {"user_id": user, "units": 50}) for _ in range(2)]
    assert [answer.json_body["position"] for answer in answers] == [0, 0]
    work(paceline)
    assert len(started(paceline, user)) == 2


def test_submit_is_repeated_after_the_lane_was_emptied_of_its_first_try(deploy: Deploy, user: str) -> None:
    """The first try died after its admission; the lane, which never had a start, then has no planned starts left."""
    paceline = deploy(LIMITS="5000/hour", MAX_DELAY="12d")
    submitter, now_ms = container().submitter, paceline.clock.now_ms()
    submitter.reserve(user, "0198-first", now_ms)
    empty(paceline, user)
    submission = Submission(user, [TaskRequest()], now_ms + 10)
    assert isinstance(submitter.submit(submission, ["0198-first"], True), Submitted)
    later = paceline.submit(user).json_body["task_id"]
    work(paceline)
    assert lines(paceline, user, "task_cancelled") == ["0198-first"]
    assert lines(paceline, user, "task_completed") == [later]


def test_empty_lane_of_an_unknown_user_is_emptied(paceline: Paceline, user: str) -> None:
    assert empty(paceline, user)["cancelled"] == 0


@pytest.mark.parametrize("query", ["", "?state=failed", "?state=running", "?state=queued&state=queued"])
def test_only_queued_tasks_are_cancelled_as_a_whole(paceline: Paceline, user: str, query: str) -> None:
    assert paceline.request("DELETE", f"/api/v1/users/{user}/tasks{query}").status_code in (400, 422)


def test_user_with_work_is_not_forgotten(paceline: Paceline, user: str) -> None:
    ids = submit(paceline, user, 2)
    run_one(paceline)
    assert forget(paceline, user).status_code == 409
    empty(paceline, user)
    assert forget(paceline, user).status_code == 409  # its cancellation is not logged
    work(paceline)
    assert forget(paceline, user).json_body == {"user_id": user, "deleted": 2, "done": True}
    assert paceline.get(f"/api/v1/users/{user}/tasks/{ids[0]}").status_code == 404
    submit(paceline, user, 1, delay_seconds=60)
    assert forget(paceline, user).status_code == 409


def test_forgotten_user_has_no_records_and_no_limits_and_is_not_listed(paceline: Paceline, user: str) -> None:
    ids = submit(paceline, user, 3, payload="x" * 5_000)
    container().control.set_limits(user, None)
    paceline.request("PUT", f"/api/v1/users/{user}/limits", {"limits": "5/second"})
    work(paceline)
    assert forget(paceline, user).status_code == 200
    assert paceline.get(f"/api/v1/users/{user}/tasks").json_body == {"tasks": [], "next": None}
    lane = lane_of(paceline, user)
    assert (lane["own_limits"], lane["admitted"]) == (False, 3)
    assert paceline.get(f"/api/v1/lanes?search={user}").json_body["lanes"] == []
    assert forget(paceline, user).json_body["deleted"] == 0
    later = paceline.submit(user).json_body
    assert later["seq"] == 4
    assert [one["user_id"] for one in paceline.get(f"/api/v1/lanes?search={user}").json_body["lanes"]] == [user]
    work(paceline)
    assert lines(paceline, user, "task_completed") == [*ids, later["task_id"]]


def test_forgotten_user_stays_within_the_limit(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="3/hour", MAX_DELAY="12d")
    submit(paceline, user, 3)
    work(paceline)
    assert forget(paceline, user).status_code == 200
    assert paceline.submit(user).status_code == 429
    work(paceline)
    assert_pace_kept(started(paceline, user), parse_limits("3/hour"))


def test_seqs_and_starts_of_a_forgotten_user_stay_for_the_longest_window_and_14_days(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="1/second; 1000/day")
    submit(paceline, user, 1)
    paceline.request("PUT", f"/api/v1/users/{user}/limits", {"limits": "3000/30 days"})
    work(paceline)
    assert forget(paceline, user).status_code == 200
    now_s = paceline.clock.now_ms() // 1000
    assert container().lanes.expires_at[user] == pytest.approx(now_s + 44 * 86_400, abs=60)  # type: ignore[attr-defined]


def test_message_that_comes_late_does_not_run_a_forgotten_users_task_again(paceline: Paceline, user: str) -> None:
    submit(paceline, user, 1)
    submit(paceline, user, 1, delay_seconds=30)
    [record] = paceline.queues.receive(10)
    assert paceline.work(record) == []
    paceline.delete(record)
    paceline.clock.advance(60_000)
    [scheduled] = paceline.receive_scheduled()
    assert paceline.dispatch(scheduled) == []
    [admitted] = paceline.queues.receive(10)
    assert paceline.work(admitted) == []
    before = lines(paceline, user, "task_completed")
    assert len(before) == 2
    assert forget(paceline, user).status_code == 200
    assert paceline.work(record, admitted) == []
    assert paceline.dispatch(scheduled) == []
    for again in paceline.queues.receive(10):
        paceline.work(again)
    assert lines(paceline, user, "task_completed") == before


def test_unknown_user_is_forgotten(paceline: Paceline, user: str) -> None:
    assert forget(paceline, user).json_body == {"user_id": user, "deleted": 0, "done": True}


def test_many_records_are_deleted_by_several_requests(paceline: Paceline, user: str) -> None:
    submit(paceline, user, 1_200)
    empty(paceline, user)
    work(paceline)
    first, second = forget(paceline, user), forget(paceline, user)
    assert (first.status_code, first.json_body["deleted"], first.json_body["done"]) == (202, 1_000, False)
    assert (second.status_code, second.json_body["deleted"], second.json_body["done"]) == (200, 200, True)


def test_lane_with_several_at_once_is_emptied_and_later_tasks_overtake(deploy: Deploy, user: str) -> None:
    paceline = deploy(LIMITS="5/second; 3 at once", MAX_DELAY="12d")
    ids = submit(paceline, user, 100)
    assert empty(paceline, user)["cancelled"] == 100
    later = paceline.submit(user).json_body
    assert later["position"] == 0
    run_one(paceline)  # the message of a cancelled task sends that of the later one ahead
    records = paceline.queues.receive(200)
    [forwarded] = [record for record in records if record["attributes"]["MessageGroupId"] != user]
    assert paceline.work(forwarded) == []
    assert lines(paceline, user, "task_completed") == [later["task_id"]]
    for record in records:
        assert paceline.work(record) == []
    assert sorted(lines(paceline, user, "task_cancelled")) == ids
    assert lines(paceline, user, "task_completed") == [later["task_id"]]
