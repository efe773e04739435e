"""paceline.testing: tasks start by the limits, in virtual time, as users of it can assert."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.core.errors import SettingError
from chalicelib.tasks.registry import registry
from paceline import Context, PayloadError, PermanentError, RetryAfter, task
from paceline.testing import MemoryPaceline, RefusedError
from tests.memory.container import PORTS


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """The tasks of these tests, and no others."""
    before = dict(registry._definitions)

    @task("charge", attempts=3, backoff_seconds=2)
    def charge(cents: int, *, context: Context) -> str:
        if cents < 0:
            raise PermanentError("no such amount")
        if cents == 0 and context.attempt < 3:
            raise RuntimeError("the bank is away")
        if cents == 429 and not seen.get(context.task_id):
            seen[context.task_id] = True
            raise RetryAfter(30, "the bank asked for a pause")
        if context.cancelled:
            raise InterruptedError
        return f"{cents} in attempt {context.attempt}"

    @task("later")
    async def later(payload: Any) -> Any:
        return payload

    seen: dict[str, bool] = {}
    yield
    registry._definitions.clear()
    registry._definitions.update(before)


def test_three_of_a_burst_start_within_two_seconds() -> None:
    paceline = MemoryPaceline(LIMITS="1/second")
    for _ in range(10):
        paceline.submit("ann", {"cents": 5}, "charge")
    paceline.advance(2)
    assert paceline.starts_of("ann") == [0, 1, 2]
    assert paceline.now == 2


def test_the_default_limits_are_those_of_paceline() -> None:
    paceline = MemoryPaceline()
    for _ in range(41):
        paceline.submit("ann")
    paceline.run()
    assert paceline.starts_of("ann") == [*range(20), *range(60, 80), 120]


def test_users_do_not_wait_for_one_another() -> None:
    paceline = MemoryPaceline(LIMITS="1/second", takes={"log": 0.4})
    for n in range(6):
        paceline.submit(("ann", "bob", "cid")[n % 3])
    paceline.submit("ann", {"cents": 1}, "charge")
    paceline.advance(0.5)
    paceline.submit("dan")
    paceline.run()
    assert {user: paceline.starts_of(user) for user in ("ann", "bob", "cid", "dan")} == {
        "ann": [0, 1, 2],
        "bob": [0, 1],
        "cid": [0, 1],
        "dan": [0.5],
    }


def test_a_submit_answers_with_position_and_planned_start() -> None:
    paceline = MemoryPaceline(LIMITS="1/second")
    first, second = paceline.submit("ann"), paceline.submit("ann")
    assert (first.position, first.queued, first.planned_at) == (0, False, 0)
    assert (second.position, second.queued, second.planned_at) == (1, True, 1)
    with pytest.raises(RefusedError) as refused:
        paceline.submit("ann", strict=True)
    assert refused.value.retry_at == 2


def test_a_task_that_takes_long_delays_the_next_of_its_user() -> None:
    paceline = MemoryPaceline(LIMITS="1/second", takes={"charge": 130}, DEADLINE="200s")
    first = paceline.submit("ann", {"cents": 5}, "charge")
    paceline.submit("ann")
    paceline.advance(60)
    assert paceline.task(first).state == "running"
    paceline.run()
    assert paceline.starts_of("ann") == [0, 130]
    ended = paceline.task(first)
    assert (ended.state, ended.result, ended.completed_at) == ("succeeded", "5 in attempt 1", 130)


def test_failures_are_retried_after_their_backoff_and_count_as_starts() -> None:
    paceline = MemoryPaceline(LIMITS="1/second")
    flaky = paceline.submit("ann", {"cents": 0}, "charge")
    paceline.submit("ann")
    paceline.run()
    assert [(start.at, start.attempt) for start in paceline.starts] == [(0, 1), (2, 2), (6, 3), (7, 1)]
    ended = paceline.task(flaky)
    assert (ended.state, ended.attempts, ended.result) == ("succeeded", 3, "0 in attempt 3")


def test_a_permanent_error_fails_at_once() -> None:
    paceline = MemoryPaceline()
    failed = paceline.submit("ann", {"cents": -1}, "charge")
    paceline.run()
    assert paceline.task(failed).state == "failed"
    assert paceline.task(failed).error == "PermanentError: no such amount"
    assert paceline.task(failed).attempts == 1


def test_retry_after_throttles_the_lane() -> None:
    paceline = MemoryPaceline(LIMITS="1/second")
    paceline.submit("ann", {"cents": 429}, "charge")
    paceline.submit("ann")
    paceline.submit("bob")
    paceline.run()
    assert (paceline.starts_of("ann"), paceline.starts_of("bob")) == ([0, 30, 31], [0])


def test_a_task_that_passes_its_deadline_fails_and_its_lane_goes_on() -> None:
    paceline = MemoryPaceline(LIMITS="1/second", DEADLINE="5s", takes={"charge": 60})
    late = paceline.submit("ann", {"cents": 5}, "charge")
    after = paceline.submit("ann")
    paceline.run()
    assert (paceline.task(late).state, paceline.task(late).error) == ("failed", "it did not end within 5 s")
    assert paceline.task(after).state == "succeeded"
    assert paceline.starts_of("ann")[1] < 60


def test_scheduled_tasks_join_their_lane_at_their_time() -> None:
    paceline = MemoryPaceline(LIMITS="1/minute")
    scheduled = paceline.submit("ann", delay_seconds=3_600)
    assert (scheduled.seq, scheduled.planned_at) == (0, 3_600)
    paceline.submit("ann")
    paceline.run()
    assert paceline.starts_of("ann") == [0, 3_600]


def test_limits_pauses_and_cancels_act_as_they_do_at_an_operator_s_hand() -> None:
    paceline = MemoryPaceline(LIMITS="1/second")
    paceline.set_limits("ann", "1/minute")
    tasks = [paceline.submit("ann") for _ in range(4)]
    paceline.advance(1)
    assert paceline.cancel(tasks[1]).state == "cancelled"
    paceline.pause("ann", 300)
    paceline.advance(299)
    assert paceline.starts_of("ann") == [0]
    paceline.advance(2)
    assert paceline.starts_of("ann") == [0, 301]
    paceline.pause("ann")
    with pytest.raises(TimeoutError, match="a lane may be paused"):
        paceline.run(3_600)
    paceline.resume("ann")
    paceline.run()
    assert len(paceline.starts_of("ann")) == 3


def test_a_running_task_that_is_cancelled_learns_it() -> None:
    paceline = MemoryPaceline(takes={"charge": 20})
    running = paceline.submit("ann", {"cents": 5}, "charge")
    paceline.advance(5)
    assert paceline.cancel(running).state == "running"
    paceline.run()
    assert paceline.task(running).state == "cancelled"


def test_units_are_counted() -> None:
    paceline = MemoryPaceline(LIMITS="100 units/minute")
    for _ in range(3):
        paceline.submit("ann", units=50)
    paceline.run()
    assert paceline.starts_of("ann")[:2] == [0, 0]
    assert 60 <= paceline.starts_of("ann")[2] <= 60.6


def test_code_that_a_task_calls_can_sleep_in_virtual_time() -> None:
    paceline = MemoryPaceline(LIMITS="1/second")

    @task("slow")
    def slow() -> None:
        paceline.sleep(10)

    paceline.submit("ann", task="slow")
    paceline.submit("bob", task="slow")
    paceline.submit("ann")
    paceline.run()
    assert (paceline.starts_of("ann"), paceline.starts_of("bob")) == ([0, 10], [0])


def test_asynchronous_functions_run() -> None:
    paceline = MemoryPaceline()
    submitted = paceline.submit("ann", {"n": 1}, "later")
    paceline.run()
    assert paceline.task(submitted).result == {"n": 1}


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda paceline: paceline.submit("ann", {"cents": "5"}, "charge"), PayloadError, "Expected `int`"),
        (lambda paceline: paceline.submit("ann", None, "chrage"), ValueError, "no task 'chrage'; there are: charge"),
        (lambda paceline: MemoryPaceline(LIMITS="1/secnd"), SettingError, "LIMITS"),
        (lambda paceline: MemoryPaceline(takes={"chrage": 1}), ValueError, "no task 'chrage'"),
        (lambda paceline: MemoryPaceline(LIMIT="1/second"), ValueError, "LIMIT is not a setting"),
        (lambda paceline: paceline.sleep(1), RuntimeError, "a test calls `advance`"),
    ],
)
def test_mistakes_are_named(call: Callable[[MemoryPaceline], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(MemoryPaceline())


def test_an_hour_of_a_thousand_tasks_leaves_no_thread() -> None:
    paceline, before = MemoryPaceline(LIMITS="1/second", MAX_DELAY="12h"), set(threading.enumerate())
    for n in range(1_000):
        paceline.submit(f"user-{n % 20}")
    paceline.run()
    assert len(paceline.starts) == 1_000
    assert set(threading.enumerate()) <= before


def test_every_port_of_the_tests_over_memory_is_in_the_shipped_package() -> None:
    """A port that Paceline gained needs its adapter in paceline.testing.memory, and its name in parts.py."""
    parts = MemoryPaceline()._parts
    homes = {name: type(vars(parts).get(name)).__module__ for name in PORTS}
    assert {name: home for name, home in homes.items() if not home.startswith("paceline.testing.memory.")} == {}


def test_a_folder_of_tasks_is_loaded_as_a_running_paceline_loads_it(tmp_path: Path) -> None:
    (tmp_path / "paint_tasks.py").write_text("from paceline import task\n\n@task('paint')\ndef paint() -> None: ...\n")
    paceline = MemoryPaceline(TASKS_DIR=str(tmp_path / "paint_tasks.py"))
    paceline.submit("ann", task="paint")
    paceline.run()
    assert [start.task for start in paceline.starts] == ["paint"]
    with pytest.raises(SettingError, match=r"TASKS_DIR: .*/nowhere does not exist"):
        MemoryPaceline(TASKS_DIR=str(tmp_path / "nowhere"))


def test_as_many_tasks_run_at_once_as_the_limits_say() -> None:
    paceline = MemoryPaceline(LIMITS="1/second; 3 at once", takes={"log": 10})
    for _ in range(7):
        paceline.submit("ann")
    paceline.run()
    assert paceline.starts_of("ann") == [0, 1, 2, 10, 11, 12, 20]


def test_a_missing_package_is_explained() -> None:
    program = "import sys; sys.modules['uuid6'] = None; import paceline.testing"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'sdk'}"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, check=False, capture_output=True, text=True)
    assert ran.stderr.splitlines()[-1].endswith("needs further packages: pip install 'paceline[testing]'")


def test_users_share_a_limit_by_turns_and_all_wait_when_the_api_asks_one_to() -> None:
    asked = list[str]()

    @task("call", shared="api")
    def call(*, context: Context) -> None:
        asked.append(context.user_id)
        if len(asked) == 3:
            raise RetryAfter(20, "slow down", shared=True)

    paceline = MemoryPaceline(LIMITS="100/second", SHARED_LIMITS="api: 2/second")
    for _ in range(3):
        paceline.submit("ann", task="call")
    paceline.submit("bob", task="call")
    paceline.run()
    assert [start.user_id for start in paceline.starts[:4]].count("bob") == 1
    times = [start.at for start in paceline.starts]
    assert len(times) == 5  # the attempt of the one that was asked to wait is given back
    assert [at for at in times if times[2] < at < times[2] + 20] == []


def test_the_last_progress_of_a_task_can_be_asserted() -> None:
    @task("pages")
    def pages(payload: Any, context: Context) -> None:
        for page in range(3):
            context.progress(page / 4, f"page {page}")

    paceline = MemoryPaceline()
    submitted, silent = paceline.submit("ann", None, "pages"), paceline.submit("bob", {"cents": 1}, "charge")
    paceline.run()
    assert paceline.task(submitted).progress == (0.5, "page 2")
    assert paceline.task(silent).progress is None
