"""Both runners of tasks keep one contract; the child processes of the local one end alone and hold their claim."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from chalicelib.tasks.cancel_request import LocalCancelRequest
from chalicelib.tasks.registry import Context, Registry, ignore_progress
from chalicelib.tasks.runner import Call, Ended, Failed, InProcess, Returned, TaskRunner, Throttled
from local.child_runner import MAX_IDLE, ChildRunner
from local.children import ForkServerClient
from local.presence import MachinePresence
from tests.integration.child_app.app import registered

APP = Path(__file__).with_name("child_app")
ROOT = Path(__file__).parents[2]
Report = Callable[[float, str], object]
#: Milliseconds: the longest that a test may take.
LONG_MS = 30_000


class Children:
    """A runner with child processes that know the tasks of `child_app`."""

    def __init__(self, run_dir: Path, **env: str) -> None:
        self.server = ForkServerClient(APP, {**os.environ, "PYTHONPATH": str(ROOT), "RUN_DIR": str(run_dir), **env})
        self.runner = ChildRunner(self.server)
        self.presence = MachinePresence(run_dir / "serving")

    def close(self) -> None:
        self.runner.end_idle()
        self.server.close()

    def run(self, name: str, payload: Any = None, deadline_ms: int = LONG_MS, token: str = "token") -> Ended:
        return run(self.runner, name, payload, deadline_ms, token)


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    children = Children(tmp_path_factory.mktemp("run"), CHILD_MEMORY_MB="350")
    yield children
    children.close()


@pytest.fixture(params=["in process", "children"])
def runner(request: pytest.FixtureRequest, children: Children) -> TaskRunner:
    return InProcess() if request.param == "in process" else children.runner


def call(
    name: str,
    payload: Any,
    deadline_ms: int,
    token: str,
    request: LocalCancelRequest | None = None,
    report: Report = ignore_progress,
) -> Call:
    own = {"cancel_request": request or LocalCancelRequest(), "report_progress": report}
    context = Context("ann", "0198-0001", name, 7, 2, 1_000, logging.getLogger("test"), **own)  # type: ignore[arg-type]
    return Call(known()[name], payload, context, token, deadline_ms)


def known() -> Registry:
    registry = Registry()
    for name, function in registered.items():
        registry.task(name)(function)
    return registry


def run(
    runner: TaskRunner,
    name: str,
    payload: Any = None,
    deadline_ms: int = LONG_MS,
    token: str = "token",
    request: LocalCancelRequest | None = None,
    report: Report = ignore_progress,
) -> Ended:
    with runner.room(known()[name], deadline_ms) as room:
        assert room is not None
        return room.run(call(name, payload, deadline_ms, token, request, report))


@pytest.mark.parametrize(
    ("name", "payload", "ended"),
    [
        (
            "echo",
            {"a": [1, 2.5, None, True, "ü\ud800"[:1], 10**40]},
            Returned({"a": [1, 2.5, None, True, "ü", 10**40]}),
        ),
        ("echo", "x" * 100_000, Returned("x" * 100_000)),
        ("who", None, Returned(["ann", "0198-0001", "who", 7, 2, 1_000])),
        ("raise", "ValueError", Failed("ValueError: on request")),
        ("raise", "CancelledError", Failed("CancelledError: on request")),
        ("raise", "KeyboardInterrupt", Failed("KeyboardInterrupt: on request")),
        ("raise", "GeneratorExit", Failed("GeneratorExit: on request")),
        ("raise", "SystemExit", Failed("SystemExit: on request")),
        ("raise", "PermanentError", Failed("PermanentError: on request", is_permanent=True)),
        ("raise", "UnreadableError", Failed("UnreadableError, whose text can't be read")),
        ("wait for all", [1, "two", None], Returned([1, "two", None])),
        ("raise later", "ValueError", Failed("ValueError: on request")),
        ("raise later", "CancelledError", Failed("CancelledError: on request")),
        ("raise later", "SystemExit", Failed("SystemExit: on request")),
        ("raise later", "PermanentError", Failed("PermanentError: on request", is_permanent=True)),
        ("slow down", None, Throttled(2.5, "the bank", "RetryAfter: the bank")),
        ("greet", {"name": 1}, Failed("PayloadError: Expected `str`, got `int`", is_permanent=True)),
        ("a set", None, Failed("the result is not JSON: TypeError: Object of type set is not JSON serializable", True)),
        ("spend", {"units": 12}, Returned("spent", used_units=12)),
        ("spend", {"units": 0, "error": True}, Failed("ValueError: after it", used_units=0)),
        ("long", None, Failed("the result has 200002 bytes as JSON; allowed: at most 131072", True)),
    ],
)
def test_whatever_leaves_a_function_is_its_outcome(runner: TaskRunner, name: str, payload: Any, ended: Ended) -> None:
    assert run(runner, name.replace(" ", "-"), payload) == ended


@pytest.mark.parametrize("when", ["before it begins", "while it runs"])
@pytest.mark.parametrize(
    ("name", "ended"),
    [("until-cancelled", Returned("stopped")), ("async-until-cancelled", Failed("CancelledError: "))],
)
def test_a_cancel_request_reaches_the_function(
    runner: TaskRunner, name: str, ended: Ended, when: str, tmp_path: Path
) -> None:
    request = LocalCancelRequest()
    with ThreadPoolExecutor(1) as pool:
        if when == "before it begins":
            request.make()
        running = pool.submit(run, runner, name, str(tmp_path), request=request)
        if when == "while it runs":
            wait_for((tmp_path / "begun").exists)
            request.make()
        assert running.result(LONG_MS / 1000) == ended
    assert name == "until-cancelled" or when == "before it begins" or (tmp_path / "tidy").exists()
    assert run(runner, "echo", 1) == Returned(1)


def test_a_child_that_was_asked_to_stop_gets_no_further_task(children: Children, tmp_path: Path) -> None:
    request = LocalCancelRequest()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, children.runner, "wait", str(tmp_path), request=request)
        wait_for((tmp_path / "begun").exists)
        request.make()
        (tmp_path / "go").touch()
        assert running.result(LONG_MS / 1000) == Returned(None), "it ignores the request"
    asked = int((tmp_path / "begun").read_text())
    assert children.run("pid") != Returned(asked)


def test_a_request_after_the_function_s_end_reaches_nobody(runner: TaskRunner) -> None:
    request = LocalCancelRequest()
    assert run(runner, "echo", 1, request=request) == Returned(1)
    request.make()
    assert run(runner, "echo", 2) == Returned(2)


def reports_of(
    runner: TaskRunner, name: str, payload: Any = None, deadline_ms: int = LONG_MS
) -> tuple[Ended, list[Any]]:
    reports: list[Any] = []
    ended = run(runner, name, payload, deadline_ms, report=lambda *report: reports.append(report))
    return ended, reports


@pytest.mark.parametrize("name", ["report", "report-async", "report-in-threads", "report-often"])
def test_reports_of_progress_reach_the_worker_and_the_last_one_always_does(runner: TaskRunner, name: str) -> None:
    ended, reports = reports_of(runner, name)
    last = {"report-in-threads": (1.0, "all"), "report-often": (0.5, "step 19999")}.get(name, (0.667, "page 2"))
    assert reports[-1] == last
    assert len({type(fraction) for fraction, _ in reports}) == 1
    assert isinstance(ended, Returned)


def test_a_child_that_reported_its_progress_gets_further_tasks(children: Children) -> None:
    ended, _ = reports_of(children.runner, "report-often")
    assert children.run("pid") == ended


def test_reports_after_the_function_s_end_are_ignored_and_disturb_no_answer(children: Children) -> None:
    """In this process the writer of progress ignores them."""
    for _ in range(5):
        ended, _ = reports_of(children.runner, "report-late")
        assert isinstance(ended, Returned)
        assert children.run("echo", 1) == Returned(1)


@pytest.mark.parametrize(
    ("payload", "error"),
    [("die", "its process ended with exit status 3"), ("hang", "it did not end within 0.5 s")],
)
def test_a_report_before_a_crash_or_the_deadline_is_not_lost(children: Children, payload: str, error: str) -> None:
    ended, reports = reports_of(children.runner, "report-and-fail", payload, 500 if payload == "hang" else LONG_MS)
    assert isinstance(ended, Failed)
    assert (ended.error, reports) == (error, [(0.25, "before it")])


def test_a_process_that_the_function_forked_reports_nothing(children: Children) -> None:
    assert reports_of(children.runner, "report-and-fail", "fork") == (Returned(0), [(0.25, "before it")])


@pytest.mark.parametrize("payload", ["1.1", "-0.01", "nan", "inf"])
def test_a_fraction_beyond_0_and_1_fails_its_attempt(runner: TaskRunner, payload: str) -> None:
    ended, reports = reports_of(runner, "report-and-fail", payload)
    assert ended == Failed(f"ValueError: a progress of {float(payload)!r}; allowed: a number from 0 to 1")
    assert reports == [(0.25, "before it")]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("exit", "its process ended with exit status 3"),
        ("kill", "its process was killed by SIGKILL"),
        ("segfault", "its process was killed by SIGSEGV"),
        ("swallow", "MemoryError: "),
        ("close-all", "its process ended with exit status 1"),
    ],
)
def test_a_crash_fails_its_own_attempt_and_the_next_task_runs(children: Children, name: str, error: str) -> None:
    assert children.run(name) == Failed(error)
    assert children.run("echo", 1) == Returned(1)


@pytest.mark.parametrize("name", ["hang", "search"])
def test_a_task_is_ended_at_its_deadline_with_the_processes_that_it_started(
    children: Children, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "pids"
    assert children.run(name, str(path), 500) == Failed("it did not end within 0.5 s", is_permanent=True)
    for pid in map(int, path.read_text().split()):
        wait_for(lambda pid=pid: not is_alive(pid))


def test_a_child_is_reused_but_not_after_a_failure(children: Children) -> None:
    first = children.run("pid")
    assert children.run("pid") == first
    children.run("raise", "ValueError")
    assert children.run("pid") != first


def test_a_child_that_took_much_memory_is_replaced(children: Children) -> None:
    for _ in range(3):
        grown, after = children.run("grow"), children.run("pid")
        assert isinstance(grown, Returned)
        assert isinstance(after, Returned)
        assert after != grown


@pytest.mark.parametrize("what", ["alarm", "thread"])
def test_a_child_is_not_reused_after_a_task_that_left_something_running(children: Children, what: str) -> None:
    left, after = children.run("leave", what), children.run("pid")
    assert isinstance(left, Returned)
    assert isinstance(after, Returned)
    assert after != left


def test_a_copy_of_its_process_that_a_task_leaves_behind_answers_nothing(children: Children) -> None:
    assert children.run("fork") == Returned("forked")
    assert children.run("echo", 5) == Returned(5)


def test_built_in_tasks_stay_in_the_worker_unless_they_could_overrun(children: Children) -> None:
    registry = Registry()
    registry.task("here", is_built_in=True)(os.getpid)
    for deadline_ms, is_here in ((50_000, True), (5_000, False)):
        with children.runner.room(registry["here"], deadline_ms) as room:
            assert isinstance(room, InProcess) is is_here


def test_there_is_no_room_while_all_children_run_and_one_ended_makes_room(children: Children) -> None:
    runner = ChildRunner(children.server, most=2, room_seconds=0)
    with ExitStack() as stack:
        for _ in range(2):
            assert stack.enter_context(runner.room(known()["echo"], LONG_MS)) is not None
        with runner.room(known()["echo"], LONG_MS) as room:
            assert room is None
    with runner.room(known()["exit"], LONG_MS) as room:
        assert room is not None
        room.run(call("exit", None, LONG_MS, "t"))
    assert runner.children == 1
    runner.end_idle()


def test_the_number_of_children_follows_the_load(children: Children) -> None:
    runner = ChildRunner(children.server)
    with ExitStack() as stack:
        rooms = [stack.enter_context(runner.room(known()["pid"], LONG_MS)) for _ in range(MAX_IDLE + 3)]
        pids = {str(room.run(call("pid", None, LONG_MS, "t"))) for room in rooms if room is not None}
        assert len(pids) == MAX_IDLE + 3
    assert runner.children == MAX_IDLE
    runner.end_idle()
    assert runner.children == 0


def test_an_idle_child_that_died_is_replaced_before_a_start_is_claimed(children: Children) -> None:
    pid = children.run("pid")
    assert isinstance(pid, Returned)
    os.kill(pid.value, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid.value))
    assert children.run("echo", 1) == Returned(1)


def test_a_fork_server_that_died_is_replaced(tmp_path: Path) -> None:
    children = Children(tmp_path)
    try:
        first = children.run("parent")
        assert isinstance(first, Returned)
        os.kill(first.value, signal.SIGKILL)
        wait_for(lambda: not is_alive(first.value))
        assert children.run("parent") not in (first, None)
    finally:
        children.close()


def test_a_module_that_starts_a_thread_is_loaded_after_the_fork(tmp_path: Path) -> None:
    children = Children(tmp_path, CHILD_APP_THREAD="true")
    try:
        assert children.run("threads-of-parent") == Returned(1)
    finally:
        children.close()


@pytest.mark.parametrize("end", ["its function returns", "it is killed"])
def test_the_child_itself_holds_the_claim_while_its_function_runs(children: Children, end: str, tmp_path: Path) -> None:
    """So a worker that dies doesn't free it. Here the worker, which is this process, has not locked the claim."""
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(children.run, "wait", str(tmp_path), LONG_MS, "mine")
        wait_for((tmp_path / "begun").exists)
        assert (children.presence.is_served("mine"), children.presence.is_served("other")) == (True, False)
        if end == "it is killed":
            os.kill(int((tmp_path / "begun").read_text()), signal.SIGKILL)
        else:
            (tmp_path / "go").touch()
        assert ended.result() in (Returned(None), Failed("its process was killed by SIGKILL"))
    wait_for(lambda: not children.presence.is_served("mine"))


def test_prints_logs_and_tracebacks_of_a_task_reach_the_output_of_its_worker(
    children: Children, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    children = Children(tmp_path)  # it inherits the captured output
    try:
        children.run("print")
        children.run("raise", "ValueError")
    finally:
        children.close()
    output = "".join(capfd.readouterr())
    for text in ("printed by the task", "logged by the task", "attempt 2 of 0198-0001 failed", "in raise_error"):
        assert text in output


def is_alive(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_MS / 1000
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
