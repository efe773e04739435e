import urllib.error
import urllib.request

import pytest
from msgspec.structs import replace

from chalicelib.container import Container
from chalicelib.core.limits import parse_limits
from chalicelib.core.task import FailedAttempt, Outcome, Progress, Task, TaskRecord, TaskState
from tests.factories import NOW, make_settings, make_task, task_id_of
from tests.integration.aws import Aws
from tests.integration.ports import Ports
from tests.receiver import Got, NoReplyError, Receiver, Reply


def failed_attempt(number: int, error: str) -> FailedAttempt:
    return FailedAttempt(number, NOW + 1_000 * number, NOW + 1_000 * number + 500, error)


PAYLOAD = {
    "text": "Grüße \u2028\n\x00 😀",
    "numbers": [1, -2.5, 1e300, 12345678901234567890],
    "none": None,
    "deep": [[[]]],
}


def succeeded(**changed: object) -> Outcome:
    fields: dict[str, object] = {
        "state": TaskState.SUCCEEDED,
        "started_at": NOW + 1,
        "completed_at": NOW + 9,
        "attempts": 1,
        "result": {"sum": 3},
    }
    return Outcome(**{**fields, **changed})  # type: ignore[arg-type]


FAILED = Outcome(TaskState.FAILED, NOW + 1, NOW + 9, 3, error="ValueError: no")
CANCELLED = Outcome(TaskState.CANCELLED, None, NOW + 9, 0)


def test_unknown_task_is_none(ports: Ports, user: str) -> None:
    assert ports.tasks.get(user, task_id_of(1)) is None


def test_lane_is_no_task(ports: Ports, user: str) -> None:
    ports.lanes.try_fast_admit(user, parse_limits("1/second"), NOW, task_id_of(1))
    assert ports.tasks.get(user, "lane") is None


def test_noted_task_reads_back_the_same(ports: Ports, user: str) -> None:
    task = make_task(3, user, payload=PAYLOAD)
    ports.tasks.create_if_absent(task)
    assert ports.tasks.get(user, task.task_id) == TaskRecord(task)


def test_task_is_its_own_user_s_only(ports: Ports, user: str) -> None:
    ports.tasks.create_if_absent(make_task(1, user))
    assert ports.tasks.get(f"{user}-2", task_id_of(1)) is None


@pytest.mark.parametrize(
    "outcome", [succeeded(), succeeded(result=None), FAILED, CANCELLED], ids=lambda e: e.state.value
)
def test_end_reads_back_the_same(ports: Ports, user: str, outcome: Outcome) -> None:
    task = make_task(1, user, payload=PAYLOAD)
    ports.tasks.create_if_absent(task)
    ports.tasks.finish(task, outcome)
    assert ports.tasks.get(user, task.task_id) == TaskRecord(
        task, outcome.state, outcome, outcome.attempts, outcome.error
    )


def test_end_of_a_task_that_was_never_noted_notes_it(ports: Ports, user: str) -> None:
    task = make_task(1, user, payload=PAYLOAD)
    ports.tasks.finish(task, succeeded())
    record = ports.tasks.get(user, task.task_id)
    assert record
    assert (record.task, record.outcome) == (task, succeeded())


@pytest.mark.parametrize("kind", ["signed", "boto3"])
@pytest.mark.parametrize("was_done", [True, False], ids=["answer lost", "request lost"])
def test_many_whose_answer_is_lost_undo_no_outcome(ministack: Aws, user: str, was_done: bool, kind: str) -> None:
    """A client that sent the batch again would overwrite the outcome that a worker stored meanwhile."""
    tasks, sent = [make_task(seq, user) for seq in range(1, 31)], list[str]()

    def lose_the_first(got: Got) -> Reply:
        sent.append(got.headers["x-amz-target"].rpartition(".")[2])
        if sent != ["BatchWriteItem"]:
            return passed_on(got, ministack.endpoint_url)
        if was_done:
            passed_on(got, ministack.endpoint_url)
        at_hand.tasks.finish(tasks[1], succeeded())
        raise NoReplyError

    at_hand = Container(make_settings(**ministack.environment))
    with Receiver(lose_the_first) as between:
        env = {**ministack.environment, "AWS_ENDPOINT_URL": between.url(""), "AWS_CLIENT": kind}
        Container(make_settings(**env)).tasks.create_many(tasks)
    assert [record.task for record in at_hand.tasks.between(user, 1, 30, 30)] == tasks
    record = at_hand.tasks.get(user, tasks[1].task_id)
    assert record
    assert record.outcome == succeeded()
    assert sent.count("BatchWriteItem") == 2, "of 25 and of 5 tasks"


def passed_on(got: Got, url: str) -> Reply:
    """The answer of whoever is at that URL."""
    request = urllib.request.Request(url, got.body, dict(got.headers), method=got.method)
    try:
        with urllib.request.urlopen(request) as answer:
            return Reply(answer.status, {"Content-Type": answer.headers["Content-Type"]}, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, {"Content-Type": error.headers["Content-Type"]}, error.read())


def test_late_note_does_not_undo_the_end(ports: Ports, user: str) -> None:
    task = make_task(1, user)
    ports.tasks.finish(task, succeeded())
    ports.tasks.create_if_absent(task)
    ports.tasks.attempt_failed(task, failed_attempt(1, "too late"))
    ports.tasks.finish(task, FAILED)
    record = ports.tasks.get(user, task.task_id)
    assert record
    assert (record.state, record.outcome, record.error) == (TaskState.SUCCEEDED, succeeded(), None)


@pytest.mark.parametrize("stored", [True, False], ids=["stored before", "not stored before"])
def test_failed_attempt_leaves_the_task_queued_with_its_error(ports: Ports, user: str, stored: bool) -> None:
    task = make_task(1, user)
    if stored:
        ports.tasks.create_if_absent(task)
    failed = failed_attempt(2, "ValueError: no")
    ports.tasks.attempt_failed(task, failed)
    assert ports.tasks.get(user, task.task_id) == TaskRecord(
        task, TaskState.QUEUED, None, 2, "ValueError: no", failed_attempts=(failed,)
    )


def test_record_has_the_newest_ten_failed_attempts_once_each(ports: Ports, user: str) -> None:
    task = make_task(1, user)
    attempts = [failed_attempt(number, f"no {number} {'x' * 400}") for number in range(1, 14)]
    for attempt in attempts:
        ports.tasks.attempt_failed(task, attempt)
    ports.tasks.attempt_failed(task, attempts[-1])
    ports.tasks.finish(task, succeeded(attempts=14))
    record = ports.tasks.get(user, task.task_id)
    assert record
    assert record.failed_attempts == tuple(replace(one, error=one.error[:300]) for one in attempts[3:])


def test_cancel_request_is_stored_once_and_stays_whatever_follows(ports: Ports, user: str) -> None:
    task = make_task(1, user)
    ports.tasks.create_if_absent(task)
    for at in (NOW + 5_000, NOW + 6_000):
        ports.tasks.request_cancel(task, at)
    ports.tasks.attempt_failed(task, failed_attempt(1, "ValueError: no"))
    ports.tasks.finish(task, succeeded(attempts=2))
    record = ports.tasks.get(user, task.task_id)
    assert record
    assert (record.state, record.cancel_requested_at) == (TaskState.SUCCEEDED, NOW + 5_000)


def test_cancel_request_changes_nothing_of_a_finished_task(ports: Ports, user: str) -> None:
    task = make_task(1, user)
    ports.tasks.finish(task, succeeded())
    before = ports.tasks.get(user, task.task_id)
    ports.tasks.request_cancel(task, NOW + 5_000)
    assert ports.tasks.get(user, task.task_id) == before


def test_progress_is_stored_unless_a_later_one_is(ports: Ports, user: str) -> None:
    task, later = make_task(1, user, payload=PAYLOAD), Progress(0.125, "Seite 3 \u2028 😀", NOW + 2_000)
    ports.tasks.create_if_absent(task)
    for progress in (Progress(0, "", NOW), later, Progress(0.1, "late", NOW + 1_999)):
        assert ports.tasks.report_progress(task, progress)
    assert ports.tasks.get(user, task.task_id) == TaskRecord(task, progress=later)
    ports.tasks.attempt_failed(task, failed_attempt(1, "ValueError: no"))
    record = ports.tasks.get(user, task.task_id)
    assert record
    assert (record.attempts, record.progress) == (1, later)


@pytest.mark.parametrize("with_last", [True, False], ids=["with the last report", "without a report"])
def test_end_keeps_the_last_progress_and_no_later_one_changes_it(ports: Ports, user: str, with_last: bool) -> None:
    task, stored, last = make_task(1, user), Progress(0.5, "half", NOW), Progress(1, "done", NOW + 9)
    ports.tasks.create_if_absent(task)
    ports.tasks.report_progress(task, stored)
    ports.tasks.finish(task, succeeded(progress=last if with_last else None))
    assert ports.tasks.report_progress(task, Progress(0.9, "too late", NOW + 10))
    kept = last if with_last else stored
    record = TaskRecord(task, TaskState.SUCCEEDED, succeeded(progress=kept), 1, progress=kept)
    assert ports.tasks.get(user, task.task_id) == record


def test_progress_of_a_task_that_is_not_stored_yet_stores_nothing(ports: Ports, user: str) -> None:
    """It would keep the submit from storing the payload."""
    task = make_task(1, user, payload=PAYLOAD)
    assert not ports.tasks.report_progress(task, Progress(0.5, "", NOW))
    assert ports.tasks.get(user, task.task_id) is None
    ports.tasks.create_if_absent(task)
    assert ports.tasks.get(user, task.task_id) == TaskRecord(task)


def test_success_after_a_failed_attempt_has_no_error(ports: Ports, user: str) -> None:
    task = make_task(1, user)
    failed = failed_attempt(1, "ValueError: no")
    ports.tasks.attempt_failed(task, failed)
    ports.tasks.finish(task, succeeded(attempts=2))
    assert ports.tasks.get(user, task.task_id) == TaskRecord(
        task, TaskState.SUCCEEDED, succeeded(attempts=2), attempts=2, error=None, failed_attempts=(failed,)
    )


def test_between_gives_the_user_s_tasks_of_these_numbers_in_order(ports: Ports, user: str) -> None:
    tasks = [make_task(seq, user) for seq in (5, 2, 4, 1, 3)]
    for task in (*tasks, make_task(3, f"{user}-2")):
        ports.tasks.create_if_absent(task)
    ports.tasks.finish(tasks[1], succeeded())
    ports.lanes.try_fast_admit(user, parse_limits("1/second"), NOW, task_id_of(9))
    found = ports.tasks.between(user, 2, 4, 5)
    assert [(record.task.seq, record.state) for record in found] == [
        (2, TaskState.SUCCEEDED),
        (3, TaskState.QUEUED),
        (4, TaskState.QUEUED),
    ]
    assert {record.task.user_id for record in found} == {user}


def test_between_searches_the_whole_backlog_and_a_few_hundred_older_tasks(ports: Ports, user: str) -> None:
    ports.tasks.create_many([make_task(seq, user) for seq in range(1, 321)])
    assert [record.task.seq for record in ports.tasks.between(user, 310, 312, 320)] == [310, 311, 312]
    assert [record.task.seq for record in ports.tasks.between(user, 1, 2, 320)] == [1, 2]
    assert ports.tasks.between(user, 1, 2, 2) == []


def test_following_gives_the_tasks_of_these_numbers_that_are_stored_after_an_id(ports: Ports, user: str) -> None:
    ports.tasks.create_many([make_task(seq, user) for seq in range(1, 401)])
    ports.tasks.create_if_absent(make_task(3, f"{user}-2"))
    ports.lanes.try_fast_admit(user, parse_limits("1/second"), NOW, task_id_of(401))
    seqs = [record.task.seq for record in ports.tasks.following(user, task_id_of(2), 2, 4)]
    assert seqs == [2, 3, 4]
    assert ports.tasks.following(user, task_id_of(4), 2, 3) == []
    assert [record.task.seq for record in ports.tasks.following(user, task_id_of(1), 302, 303)] == [302]


def test_between_looks_as_far_where_payloads_are_large(ports: Ports, user: str) -> None:
    """A page of DynamoDB ends at 1 MB, whatever of it is given."""
    for seq in range(1, 41):
        ports.tasks.create_if_absent(make_task(seq, user, payload="x" * 65_000))
    assert [record.task.seq for record in ports.tasks.between(user, 2, 3, 40)] == [2, 3]
    assert [record.task.seq for record in ports.tasks.between(user, 1, 40, 40)] == list(range(1, 41))
    assert ports.tasks.between(user, 41, 41, 41) == []


def test_task_reads_back_as_what_its_message_says(ports: Ports, user: str) -> None:
    task = make_task(1, user, payload=PAYLOAD)
    ports.tasks.create_if_absent(task)
    record = ports.tasks.get(user, task.task_id)
    assert record
    assert Task.from_message(task.to_message()) == record.task


def test_tasks_noted_at_once_read_back_the_same(ports: Ports, user: str) -> None:
    tasks = [make_task(seq, user, payload=PAYLOAD) for seq in range(1, 61)]
    ports.tasks.create_many(tasks)
    assert [record.task for record in ports.tasks.between(user, 1, 60, 60)] == tasks


LARGE = {"text": "Grüße 😀 " * 500, "none": None}


@pytest.mark.parametrize("payload", ["x" * size for size in (600, 700, 800, 900, 1_000, 2_000, 70_000)] + [LARGE])
def test_task_with_a_larger_payload_reads_back_the_same_before_and_after_its_end(
    ports: Ports, user: str, payload: object
) -> None:
    one, *many = tasks = [make_task(seq, user, payload=payload) for seq in range(1, 4)]
    ports.tasks.create_if_absent(one)
    ports.tasks.create_many(many)
    assert [ports.tasks.get(user, task.task_id) for task in tasks] == [TaskRecord(task) for task in tasks]
    for task in tasks:
        ports.tasks.finish(task, succeeded())
        record = ports.tasks.get(user, task.task_id)
        assert record
        assert (record.task, record.outcome) == (task, succeeded())


def test_lists_leave_out_a_large_payload_or_have_all_of_it(ports: Ports, user: str) -> None:
    large, small = make_task(1, user, payload=LARGE), make_task(2, user, payload=PAYLOAD)
    ports.tasks.create_many([large, small])
    for found in (
        ports.tasks.between(user, 1, 2, 2),
        ports.tasks.newest(user, None, 2, None)[0][::-1],
        ports.directory.newest_tasks(user, None, 2)[::-1],
    ):
        listed, other = [record.task for record in found]
        assert listed in (large, replace(large, payload=None, has_payload=False))
        assert other == small


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored before", "not stored before"])
def test_large_payload_of_a_task_that_will_still_run_is_kept(ports: Ports, user: str, is_stored: bool) -> None:
    """Its submit may die before it stores the task; whoever stores it then runs it from its record one day."""
    tried, scheduled = make_task(1, user, payload=LARGE), make_task(0, user, payload=LARGE, run_at=NOW)
    if is_stored:
        ports.tasks.create_many([tried, scheduled])
    failed = failed_attempt(1, "no")
    ports.tasks.attempt_failed(tried, failed)
    admitted = replace(scheduled, seq=2)
    assert ports.tasks.mark_admitted(admitted)
    assert ports.tasks.get(user, tried.task_id) == TaskRecord(tried, attempts=1, error="no", failed_attempts=(failed,))
    assert ports.tasks.get(user, scheduled.task_id) == TaskRecord(admitted)


def test_task_that_came_without_its_payload_leaves_the_stored_one(ports: Ports, user: str) -> None:
    task = make_task(1, user, payload=LARGE)
    ports.tasks.create_if_absent(task)
    ports.tasks.attempt_failed(replace(task, payload=None, has_payload=False), failed_attempt(1, "no"))
    ports.tasks.finish(replace(task, payload=None, has_payload=False), succeeded(attempts=2))
    record = ports.tasks.get(user, task.task_id)
    assert record
    assert (record.task, record.outcome) == (task, succeeded(attempts=2))


def test_task_whose_payload_was_never_stored_has_none(ports: Ports, user: str) -> None:
    lost = make_task(1, user, has_payload=False)
    ports.tasks.create_if_absent(lost)
    assert ports.tasks.get(user, lost.task_id) == TaskRecord(lost)


def test_payloads_that_are_kept_for_longer_stay_the_same(ports: Ports, user: str) -> None:
    tasks = [make_task(seq, user, payload=LARGE) for seq in range(1, 4)]
    ports.tasks.create_many(tasks)
    ports.tasks.finish(tasks[0], succeeded())
    ports.tasks.keep_payloads(user, NOW + 30 * 86_400_000)
    ports.tasks.keep_payloads(f"{user}-2", NOW)
    found = [ports.tasks.get(user, task.task_id) for task in tasks]
    assert [record and record.task for record in found] == tasks


def pages(ports: Ports, user: str, state: TaskState | None, most: int) -> list[list[int]]:
    """The numbers of the tasks of each page, up to the last page."""
    found, before = [], None
    for _ in range(50):
        records, before = ports.tasks.newest(user, state, most, before)
        found.append([record.task.seq for record in records])
        if before is None:
            break
    return found


def test_newest_tasks_come_first_in_pages(ports: Ports, user: str) -> None:
    ports.tasks.create_many([make_task(seq, user) for seq in range(1, 8)])
    ports.lanes.try_fast_admit(user, parse_limits("1/second"), NOW, task_id_of(9))
    found = [page for page in pages(ports, user, None, 3) if page]
    assert found == [[7, 6, 5], [4, 3, 2], [1]]


def test_tasks_in_one_state_are_found_page_by_page(ports: Ports, user: str) -> None:
    for seq in range(1, 11):
        ports.tasks.create_if_absent(make_task(seq, user))
        if seq % 2:
            ports.tasks.finish(make_task(seq, user), succeeded())
    assert [page for page in pages(ports, user, TaskState.SUCCEEDED, 2) if page] == [[9, 7], [5, 3], [1]]
    assert [page for page in pages(ports, user, TaskState.FAILED, 2) if page] == []


def test_user_without_tasks_has_one_empty_page(ports: Ports, user: str) -> None:
    assert ports.tasks.newest(user, None, 3, None) == ([], None)
