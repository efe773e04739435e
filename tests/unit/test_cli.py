from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from typer.main import get_command

from local.run_settings import local_url
from operations.main import app
from paceline_cli.connection import World
from paceline_cli.rendering import duration
from paceline_cli.watching import Watching, begun
from paceline_client import Paceline, SubmittedTask, Task
from tests.unit import test_client
from tests.unit.completion_lines import NOW, completion_text, write_stream
from tests.unit.test_client import NOW_MS, Answer, Server, answer, bulk, lane, problem, submitted

#: Built once: typer takes a twentieth of a second for it.
PROGRAM = get_command(app)
REFUSED = httpx.ConnectError("[Errno 111] Connection refused")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the machine's environment nor its `.env` has a say."""
    for name in ("PACELINE_URL", "PACELINE_TOKEN", "HOST", "PORT", "LIMITS", "LOG_DIR", "STAGE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def run(server: Server | Answer, *words: str, stdin: str | None = None) -> Result:
    server = server if isinstance(server, Server) else Server(server)
    world = World(httpx.MockTransport(server), server.clock, local_url())
    return CliRunner().invoke(
        PROGRAM, list(words), obj=world, input=stdin, prog_name="paceline", catch_exceptions=False
    )


def task(state: str = "queued", **changes: Any) -> dict[str, Any]:
    return {field.name: None for field in fields(Task)} | test_client.task(state, **changes)


# Where it is, and what goes wrong.


@pytest.mark.parametrize("words", [("lane", "ann"), ("submit", "ann"), ("status", "ann", "id-1"), ("pause", "ann")])
def test_what_is_not_running_is_said_in_one_line(words: tuple[str, ...]) -> None:
    result = run(REFUSED, *words)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "Paceline does not answer at http://127.0.0.1:8000: start it with make run\n"


def test_a_far_away_paceline_is_not_to_be_started_here() -> None:
    result = run(REFUSED, "lane", "ann", "--url", "https://far.test/api")
    assert result.exit_code == 3
    assert result.stderr.startswith("Paceline does not answer at https://far.test/api: [Errno 111]")


def test_what_answered_once_is_waited_for() -> None:
    server = Server(answer(task("queued")), REFUSED, answer(task("succeeded")))
    assert run(server, "status", "ann", "id-1", "--wait").exit_code == 0
    assert len(server.requests) == 3


def test_the_address_comes_from_option_environment_and_file(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(answer(lane()))
    Path(".env").write_text("PORT=8123\n")
    run(server, "limits", "ann")
    monkeypatch.setenv("PACELINE_URL", "http://env.test")
    monkeypatch.setenv("PACELINE_TOKEN", "secret")
    run(server, "limits", "ann")
    run(server, "limits", "ann", "--url", "http://option.test/", "--token", "other")
    assert [request.url.copy_with(path="/") for request in server.requests] == [
        httpx.URL(f"http://{host}/") for host in ("127.0.0.1:8123", "env.test", "option.test")
    ]
    assert [request.headers.get("Authorization") for request in server.requests] == [
        None,
        "Bearer secret",
        "Bearer other",
    ]


@pytest.mark.parametrize(
    ("answered", "code"),
    [
        (problem(400), 2),
        (problem(401), 4),
        (problem(403), 4),
        (problem(404), 1),
        (problem(409), 4),
        (problem(429), 4),
        (problem(500), 1),
        (problem(503), 3),
        (httpx.Response(200, text="<html>"), 3),
        (answer({"title": "something else"}), 3),
        (httpx.ReadTimeout("slow"), 3),
    ],
)
def test_each_refusal_has_its_exit_code_and_one_line(answered: Answer, code: int) -> None:
    result = run(answered, "lane", "ann")
    assert (result.exit_code, result.stdout) == (code, "")
    assert len(result.stderr.splitlines()) == 1


def test_a_submit_that_may_have_been_taken_says_how_to_repeat_it() -> None:
    result = run(problem(503), "submit", "ann", "--key", "mine")
    assert result.exit_code == 3
    assert "the same again with --key mine is safe" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("lane",),
        ("lane", "white space"),
        ("lane", "ann", "--url", "127.0.0.1"),
        ("lane", "ann", "--token", "white\nspace"),
        ("submit", "ann", "--payload", "{no json"),
        ("submit", "ann", "--payload", "@missing.json"),
        ("submit", "ann", "--count", "0"),
        ("submit", "ann", "--key", ""),
        ("limits", "white space"),
        ("limits", "ann", "5/second", "--clear"),
        ("submit", "ann", "--delay", "soon"),
        ("submit", "ann", "--delay", "0s"),
        ("submit", "ann", "--delay", "2026-11-23Z"),
        ("submit", "ann", "--at", "tomorrow"),
        ("submit", "ann", "--at", "2026-11-23T09:30Z", "--delay", "1m"),
        ("pause", "ann", "--for", "tomorrow"),
        ("logs", "--format", "yaml"),
        ("logs", "--since", "yesterday"),
        ("audit", "--log-dir", "missing"),
    ],
)
def test_wrong_usage_is_2_and_sends_nothing(words: tuple[str, ...]) -> None:
    server = Server(answer(lane()))
    result = run(server, *words)
    assert (result.exit_code, result.stdout, server.requests) == (2, "", [])
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_ctrl_c_is_quiet() -> None:
    def interrupt(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    result = run(interrupt, "lane", "ann")
    assert (result.exit_code, result.output) == (130, "")


# Submit.


def test_a_submit_says_its_place_with_the_id_first() -> None:
    server = Server(answer(submitted(seq=4, position=3, delay_ms=2600, queued=True), 429))
    result = run(server, "submit", "ann", "--task", "log", "--payload", '{"n": 1}')
    assert (result.exit_code, result.stdout) == (0, "id-4  seq 4  position 3, starts in 2.6 s\n")
    assert server.bodies == [{"user_id": "ann", "task": "log", "payload": {"n": 1}}]


def test_a_payload_comes_from_a_file_or_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(answer(submitted(), 202))
    monkeypatch.setenv("PACELINE_FROM", str(tmp_path / "folder"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "order.json").write_text('["file"]')
    run(server, "submit", "ann", "--payload", "@order.json")
    run(server, "submit", "ann", "--payload", "-", stdin='"typed"')
    assert [body["payload"] for body in server.bodies] == [["file"], "typed"]


def test_many_are_submitted_at_once_and_each_is_a_line_of_json() -> None:
    server = Server(bulk)
    result = run(server, "submit", "ann", "--count", "120", "--json")
    assert [json.loads(line)["task_id"] for line in result.stdout.splitlines()][:2] == ["id-1", "id-2"]
    assert [len(body["tasks"]) for body in server.bodies] == [100, 20]


def test_strict_asks_for_a_refusal() -> None:
    server = Server(problem(429, "Rate limit exceeded", queued=False))
    result = run(server, "submit", "ann", "--strict")
    assert (result.exit_code, server.requests[0].headers["Prefer"]) == (4, "handling=strict")


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (("--delay", "10m"), {"delay_seconds": 600.0}),
        (("--at", "2026-11-23T09:30:00Z"), {"run_at": 1_795_426_200_000}),
        (("--at", "2026-11-23T09:30:00+01:00"), {"run_at": 1_795_422_600_000}),
        (("--callback-url", "https://hooks.test/e"), {"callback_url": "https://hooks.test/e"}),
        (("--units", "1200"), {"units": 1200}),
    ],
)
def test_a_task_can_be_parked_and_its_end_be_told(words: tuple[str, ...], sent: dict[str, Any]) -> None:
    server = Server(answer(submitted(seq=0, delay_ms=600_000, queued=True, task_id="id-9"), 202))
    result = run(server, "submit", "ann", *words)
    assert (result.exit_code, result.stdout) == (0, "id-9  scheduled, joins its lane in 10 min\n")
    assert server.bodies == [{"user_id": "ann", "task": "log", "payload": None, **sent}]


def test_a_time_without_a_zone_is_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(answer(submitted(), 202))
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    try:
        run(server, "submit", "ann", "--at", "2026-11-23T09:30", "-n", "1")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert server.bodies[0]["run_at"] == 1_795_426_200_000 + 5 * 3_600_000


def watched(*states: str, **last: Any) -> Callable[[httpx.Request], httpx.Response]:
    """Three tasks, whose last one is looked at until it has ended in the last of the states."""
    looks = list(states)

    def respond(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return bulk(request)
        if request.url.path.endswith("/tasks"):
            tasks = [task("succeeded", task_id=f"id-{seq}", seq=seq) for seq in (2, 1)]
            return answer({"tasks": [task(states[-1], task_id="id-3", seq=3, **last), *tasks], "next": None})
        state = looks.pop(0)
        waits = {"estimated_at": NOW_MS + 60_000, "position": 1} if state == "queued" else {}
        return answer(task(state, task_id="id-3", seq=3, **{**waits, **last}))

    return respond


def test_watch_waits_for_all_and_a_pipe_gets_no_bar() -> None:
    server = Server(watched("queued", "queued", "running", "succeeded"))
    result = run(server, "submit", "ann", "--count", "3", "--watch")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [f"id-{seq}  seq {seq}  succeeded" for seq in (1, 2, 3)]
    assert server.clock.slept == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("state", "seq", "position", "done"),
    [
        ("queued", 9, 3, 2),
        ("queued", 9, 1, 4),
        ("queued", 9, 0, 4),
        ("queued", 9, 8, 0),
        ("running", 9, 0, 4),
        ("queued", 0, 0, 0),
    ],
)
def test_watch_counts_what_left_the_line(state: str, seq: int, position: int, done: int) -> None:
    assert begun(Task(**task(state, seq=seq, position=position)), 5) == done


def test_watch_is_1_when_a_task_failed() -> None:
    result = run(watched("running", "failed", error="boom"), "submit", "ann", "--count", "3", "--watch")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "id-3  seq 3  failed  boom"


def test_watch_goes_on_when_the_last_was_cancelled_before_the_others() -> None:
    lists = [("cancelled", "queued"), ("cancelled", "succeeded")]

    def respond(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return bulk(request)
        if request.url.path.endswith("/tasks"):
            tasks = [task(state, task_id=f"id-{2 - n}", seq=2 - n) for n, state in enumerate(lists.pop(0))]
            return answer({"tasks": tasks, "next": None})
        return answer(task("cancelled" if request.url.path.endswith("id-2") else "succeeded"))

    result = run(respond, "submit", "ann", "--count", "2", "--watch")
    assert [line.split()[-1] for line in result.stdout.splitlines()] == ["succeeded", "cancelled"]
    assert not lists


def test_watch_asks_for_a_parked_task_seldom_until_its_time() -> None:
    states = [("queued", 0), ("queued", 0), ("queued", 0), ("queued", 1), ("succeeded", 1)]
    looks = iter(
        [task(state, seq=seq, planned_at=NOW_MS + 14_000, estimated_at=NOW_MS + 14_000) for state, seq in states]
    )

    def respond(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return answer(submitted(seq=0, delay_ms=14_000, queued=True), 202)
        return answer(next(looks, task("succeeded", seq=1)))

    server = Server(respond)
    result = run(server, "submit", "ann", "--delay", "14s", "--watch")
    assert (result.exit_code, result.stdout) == (0, "id-1  seq 1  succeeded\n")
    assert server.clock.slept == [10.0, 4.0, 0.5, 0.5]


def test_watch_is_1_when_a_parked_task_was_cancelled() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return answer(submitted(seq=0, delay_ms=14_000, queued=True), 202)
        return answer(task("cancelled", seq=0))

    result = run(respond, "submit", "ann", "--delay", "14s", "--watch")
    assert (result.exit_code, result.stdout) == (1, "id-1  scheduled  cancelled\n")


def test_watch_finds_its_tasks_behind_others_that_are_scheduled() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return bulk(request)
        if request.url.path.endswith("/tasks"):
            scheduled = task("queued", task_id="id-8", seq=0)
            return answer({"tasks": [scheduled, *(task("succeeded", task_id=f"id-{n}", seq=n) for n in (2, 1))]})
        return answer(task("succeeded", task_id="id-2", seq=2))

    result = run(respond, "submit", "ann", "--count", "2", "--watch")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["id-1", "id-2"]


def test_a_terminal_gets_a_bar_with_the_time_left() -> None:
    server = Server(watched("queued", "succeeded"))
    out = Console(force_terminal=True, width=80, record=True)
    client = Paceline("http://paceline.test", transport=httpx.MockTransport(server), clock=server.clock)
    submitted_tasks = [
        SubmittedTask(f"id-{seq}", "ann", seq, seq - 1, NOW_MS, 0, seq > 1, "queued") for seq in (1, 2, 3)
    ]
    assert [one.seq for one in Watching(client, server.clock, out).ended(submitted_tasks)] == [1, 2, 3]
    shown = out.export_text()
    assert "ann" in shown
    assert "3/3" in shown


# Status, cancel, lanes.


@pytest.mark.parametrize(("state", "code"), [("queued", 0), ("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_status_is_1_for_a_task_that_failed_or_was_cancelled(state: str, code: int) -> None:
    result = run(answer(task(state)), "status", "ann", "id-1")
    assert result.exit_code == code
    assert ["state", state] in [line.split() for line in result.stdout.splitlines()]


def test_cancel_says_what_became_of_the_task() -> None:
    server = Server(answer(task("cancelled")))
    assert json.loads(run(server, "cancel", "ann", "id-1", "--json").stdout)["state"] == "cancelled"
    assert server.requests[0].method == "DELETE"


def test_cancel_of_a_running_task_says_since_when_it_is_asked_to_stop() -> None:
    result = run(answer(task("running", cancel_requested_at=NOW_MS), 202), "cancel", "ann", "id-1")
    lines = {line.partition("  ")[0]: line for line in result.stdout.splitlines()}
    assert (result.exit_code, lines["state"].split()[1]) == (0, "running")
    assert "asked to stop" in lines


@pytest.mark.parametrize(("text", "shown"), [("page 3", "40 %, page 3, at "), ("", "40 %, at ")])
def test_status_shows_how_far_a_running_task_is(text: str, shown: str) -> None:
    running = task("running", progress={"fraction": 0.4, "text": text, "at": NOW_MS - 2_000})
    lines = run(answer(running), "status", "ann", "id-1").stdout.splitlines()
    [line] = [line for line in lines if line.startswith("progress")]
    assert line.split("  ")[-1].strip().startswith(shown)
    assert line.endswith(" s ago)")


def test_a_scheduled_task_is_shown_without_a_position() -> None:
    scheduled = task(seq=0, run_at=NOW_MS + 60_000, estimated_at=NOW_MS + 60_000, callback_url="https://hooks.test/e")
    lines = run(answer(scheduled), "status", "ann", "id-1").stdout.splitlines()
    fields = dict(line.split("  ", 1) for line in lines)
    assert fields["position"].strip() == "none while it is scheduled"
    assert fields["scheduled for"].endswith("(in 1 min)")
    assert fields["callback"].strip() == "https://hooks.test/e"
    assert "planned" not in fields


@pytest.mark.parametrize(
    ("fields", "shown"),
    [({}, None), ({"units": 1200}, "1,200"), ({"units": 1200, "used_units": 0}, "1,200, used 0")],
)
def test_a_task_shows_its_units_unless_it_is_one(fields: dict[str, Any], shown: str | None) -> None:
    lines = run(answer(task(**fields)), "status", "ann", "id-1").stdout.splitlines()
    assert [line.split("  ", 1)[1].strip() for line in lines if line.startswith("units")] == ([shown] if shown else [])


def test_a_limit_of_units_says_so() -> None:
    limit = {"name": "minute-units", "quota": 90_000, "window_seconds": 60, "used": 89_995, "remaining": 5}
    found = lane(policies=[limit | {"counts": "units", "reset_seconds": 7}])
    [line] = [line for line in run(with_waiting(found), "lane", "ann").stdout.splitlines() if "minute-units" in line]
    assert line.endswith("5 of 90000 units left, more in 7.0 s")


def with_waiting(found: dict[str, Any], *tasks: dict[str, Any]) -> Callable[[httpx.Request], httpx.Response]:
    """A lane, and the tasks that wait for it or in it."""

    def respond(request: httpx.Request) -> httpx.Response:
        return answer({"tasks": list(tasks)} if request.url.path.endswith("/tasks") else found)

    return respond


def test_a_lane_lists_what_is_parked_soonest_first() -> None:
    scheduled = [task(task_id=f"id-{n}", seq=0, planned_at=NOW_MS + (13 - n) * 60_000) for n in range(12)]
    result = run(with_waiting(lane(), task(task_id="id-99"), *scheduled), "lane", "ann")
    lines = [line for line in result.stdout.splitlines() if "scheduled" in line]
    assert [line.split()[0] for line in lines] == [*(f"id-{n}" for n in range(11, 1, -1)), "and"]
    assert lines[0].endswith("(in 2 min)")
    assert lines[-1] == "and 2 more that are scheduled"


def test_a_lane_is_shown_in_plain_words_when_piped() -> None:
    waits = {"backlog": 3, "next_start_at": NOW_MS + 4200, "throttled_until": NOW_MS + 5000, "throttled_reason": "429"}
    result = run(with_waiting(lane(**waits)), "lane", "ann")
    fields = dict(line.split(maxsplit=1) for line in result.stdout.replace("next start", "next").splitlines())
    assert fields["waiting"] == "3 tasks"
    assert fields["next"].endswith("(in 4.2 s)")
    assert fields["throttled"].endswith(": 429")
    assert result.stdout.isascii(), "neither colours nor bars"


def test_a_lane_as_json_is_the_whole_answer() -> None:
    body = lane()
    assert json.loads(run(answer(body), "lane", "ann", "--json").stdout) == body


def test_limits_are_shown_set_and_cleared() -> None:
    server = Server(answer(lane()))
    assert run(server, "limits", "ann").stdout == "1/second\n"
    assert run(server, "limits", "ann", "5/second").exit_code == 0
    assert run(server, "limits", "ann", "--clear").exit_code == 0
    assert [request.method for request in server.requests] == ["GET", "PUT", "DELETE"]


def test_a_lane_is_paused_for_a_while_and_resumed() -> None:
    server = Server(answer(lane(paused=True)))
    run(server, "pause", "ann", "--for", "10m")
    run(server, "pause", "ann")
    run(server, "resume", "ann")
    assert server.bodies == [{"until": NOW_MS + 600_000}, {}, {}]


# Commands that make has too.


def test_logs_and_audit_read_the_log_that_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "logs" / "paceline" / "dev" / "completions"
    write_stream(folder, completion_text(1), completion_text(2, NOW + 1000))
    logged = run(REFUSED, "logs", "--no-follow", "--since", "2020-01-01", "--log-dir", str(tmp_path / "logs"))
    assert logged.stdout.splitlines()[0] == f"user123-task completed at-{NOW + 5}"
    assert run(REFUSED, "audit").exit_code == 0
    write_stream(folder, completion_text(3, NOW + 1001))
    broken = run(REFUSED, "audit", "--json")
    assert (broken.exit_code, json.loads(broken.stdout)["clean"]) == (1, False)


def test_help_names_every_command_and_an_example() -> None:
    commands = ("run", "submit", "status", "lane", "limits", "pause", "resume", "cancel", "logs", "audit", "demo")
    shown = run(REFUSED, "--help").stdout
    commands += ("tasks", "lanes", "failed", "redrive", "empty", "forget", "dead-letters")
    for command in (*commands, "deploy", "destroy", "token"):
        assert f" {command} " in shown
        assert f"paceline {command}" in run(REFUSED, command, "--help").stdout


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (-5, "0.0 s"),
        (840, "0.8 s"),
        (9_949, "9.9 s"),
        (9_950, "10 s"),
        (185_000, "3 min 5 s"),
        (600_000, "10 min"),
        (7_800_000, "2 h 10 min"),
        (10_800_000, "3 h"),
    ],
)
def test_durations_are_as_long_as_they_need_to_be(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


# Lists, redrive, emptying, forgetting.


def page(name: str, *values: Any, following: str | None = None) -> httpx.Response:
    return answer({name: list(values), "next": following})


@pytest.mark.parametrize(
    ("words", "name", "path"),
    [
        (("tasks", "ann"), "tasks", "/api/v1/users/ann/tasks"),
        (("failed",), "tasks", "/api/v1/tasks"),
        (("lanes",), "lanes", "/api/v1/lanes"),
    ],
)
def test_every_list_fetches_its_pages_as_it_needs_them(words: tuple[str, ...], name: str, path: str) -> None:
    values = [lane(user_id=f"u-{n}") if name == "lanes" else task(task_id=f"id-{n}") for n in range(5)]
    server = Server(page(name, *values[:2], following="c1"), page(name, *values[2:4], following="c2"))
    result = run(server, *words, "--limit", "3", "--json")
    assert result.exit_code == 0
    key = "user_id" if name == "lanes" else "task_id"
    assert [json.loads(line)[key] for line in result.stdout.splitlines()] == [one[key] for one in values[:3]]
    assert [request.url.path for request in server.requests] == [path] * 2
    assert [request.url.params.get("before") for request in server.requests] == [None, "c1"]
    server = Server(page(name, *values))
    assert len(run(server, *words).stdout.splitlines()) == 5


def test_failed_tasks_are_listed_with_user_time_and_reason() -> None:
    failed = task("failed", completed_at=NOW_MS + 7, error="ValueError: no", redriven_as="id-9")
    line = run(page("tasks", failed), "failed").stdout
    assert line == "ann  id-1  seq 1  failed  2027-01-15T08:00:00.007Z  log  ValueError: no  redriven as id-9\n"


def test_tasks_are_listed_by_state() -> None:
    server = Server(page("tasks"))
    assert run(server, "tasks", "ann", "--state", "failed").stdout == ""
    assert server.requests[0].url.params["state"] == "failed"
    assert run(server, "tasks", "ann", "--state", "no").exit_code == 2


def test_a_task_is_shown_with_payload_attempts_and_times_in_two_forms() -> None:
    attempt = {"attempt": 1, "started_at": NOW_MS, "ended_at": NOW_MS + 1_500, "error": "ValueError: no"}
    shown = run(answer(task("failed", payload={"n": 1}, attempt_history=[attempt])), "status", "ann", "id-1").stdout
    assert "2027-01-15T08:00:00.000Z  1800000000000  " in shown
    assert '{"n": 1}' in shown
    assert "2027-01-15T08:00:00.000Z  took 1.5 s  ValueError: no" in shown


ID = "01a201c6-2ed8-78ae-98d6-419040bdc8e3"


def test_a_failed_task_is_redriven_by_user_and_id_or_by_id_alone() -> None:
    server = Server(answer(submitted(7), 202))
    assert run(server, "redrive", "bob", ID).stdout.startswith("id-7  seq 7")
    assert server.requests[0].url.path == f"/api/v1/users/bob/tasks/{ID}/redrive"
    server = Server(page("tasks", task(task_id="other"), task(task_id=ID, user_id="bob")), answer(submitted(7), 202))
    assert run(server, "redrive", ID, "--json").exit_code == 0
    assert server.requests[1].url.path == f"/api/v1/users/bob/tasks/{ID}/redrive"


def test_all_of_a_user_or_since_a_time_are_redriven_page_by_page() -> None:
    redriven = {"user_id": "ann", "task_id": "id-1", "redriven_as": "id-2", "repeated": False}
    stays = {"user_id": "ann", "task_id": "id-3", "reason": "no room"}
    first = answer({"tasks": [redriven], "stays": [], "next": "c1"})
    server = Server(first, answer({"tasks": [], "stays": [stays], "next": None}))
    result = run(server, "redrive", "ann")
    assert (result.exit_code, result.stdout) == (
        4,
        "ann  id-1  submitted again as id-2\nann  id-3  stays: no room\n",
    )
    assert server.bodies == [{}, {"before": "c1"}]
    server = Server(answer({"tasks": [redriven], "stays": [], "next": None}))
    assert run(server, "redrive", "--since", "2h").exit_code == 0
    assert (server.requests[0].url.path, server.bodies) == ("/api/v1/redrive", [{"since": NOW_MS - 7_200_000}])
    for words in (("redrive",), ("redrive", "ann", ID, "--since", "1h"), ("redrive", "--since", "soon")):
        assert run(server, *words).exit_code == 2
    assert "2h or 1d, or an ISO 8601 time" in run(server, "redrive", "--since", "soon").output


def test_redrive_that_finds_no_failed_task_says_so() -> None:
    nothing = run(Server(answer({"tasks": [], "stays": [], "next": None})), "redrive", "ann")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "no failed task was found\n")


def test_a_lane_is_emptied_and_a_user_forgotten() -> None:
    emptied = answer(lane() | {"cancelled": 3_000, "cancelled_scheduled": 1})
    server = Server(emptied, emptied)
    assert run(server, "empty", "ann").stdout == "3,000 waiting tasks and 1 scheduled task of ann cancelled\n"
    assert str(server.requests[0].url).endswith("/api/v1/users/ann/tasks?state=queued")
    shown = json.loads(run(server, "empty", "ann", "--json").stdout)
    assert shown == {"user_id": "ann", "cancelled": 3_000, "cancelled_scheduled": 1}
    parts = [answer({"user_id": "ann", "deleted": n, "done": n == 5}, status) for n, status in ((1_000, 202), (5, 200))]
    server = Server(*parts)
    assert run(server, "forget", "ann", "--json").stdout == '{"user_id": "ann", "deleted": 1005}\n'
    assert [request.method for request in server.requests] == ["DELETE"] * 2
    assert run(problem(409), "forget", "ann").exit_code == 4


def test_version_is_printed() -> None:
    assert run(REFUSED, "--version").stdout == "paceline 1.0.0\n"


def test_task_names_complete_in_the_shell() -> None:
    server = Server(page("tasks", task(task="llm-chat"), task(task="mail")))
    world = World(httpx.MockTransport(server), server.clock, local_url(), lambda: ["local-one"])
    env = {"_PACELINE_COMPLETE": "complete_bash", "COMP_WORDS": "paceline submit ann --task l", "COMP_CWORD": "4"}
    result = CliRunner().invoke(PROGRAM, [], obj=world, prog_name="paceline", env=env)
    assert set(result.stdout.split()) == {"llm-chat", "local-one", "log"}
    env["COMP_WORDS"] = "paceline submit ann --task h"
    world = World(httpx.MockTransport(Server(REFUSED)), server.clock, local_url())
    assert CliRunner().invoke(PROGRAM, [], obj=world, prog_name="paceline", env=env).stdout.split() == ["http"]
