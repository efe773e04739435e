"""Promise 4 in the model of Lambda: nobody waits for tasks of somebody else that take long."""

from bench.lambda_model import Design, LambdaModel, Usage
from chalicelib.settings import Settings

#: Milliseconds: as long as an invocation may take, and a brief task.
LONG_MS, BRIEF_MS = 600_000, 50
#: The workers of stage dev.
WORKERS = 20


def with_long_tasks(users: int, workers: int) -> Usage:
    """Users with 100 long tasks each, and one with a brief task each second."""
    submits = [(0, f"long-{number}", 100) for number in range(users)]
    submits += [(5_000 + 1_000 * number, "brief", 1) for number in range(60)]
    task_ms = lambda user: BRIEF_MS if user == "brief" else LONG_MS  # noqa: E731
    return LambdaModel(Settings.from_env({}), Design("dev", concurrency=workers), task_ms).run(iter(submits))


def test_a_user_with_brief_tasks_waits_for_none_of_ten_users_with_a_hundred_long_ones_each() -> None:
    late = with_long_tasks(10, WORKERS).late_of
    assert len(late["brief"]) == 60
    assert max(late["brief"]) < 500
    assert {len(late[f"long-{number}"]) for number in range(10)} == {100}


def test_the_model_shows_a_user_who_waits_because_all_workers_run_long_tasks() -> None:
    assert max(with_long_tasks(WORKERS, WORKERS).late_of["brief"]) > LONG_MS // 2
