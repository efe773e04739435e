"""Schedules by both Python clients and by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from paceline_client import AnswerError, NotFoundError, Schedule
from tests.unit.test_cli import run
from tests.unit.test_client import NOW_MS, Server, answer, client, kind, problem

BODY = {"task": "log", "payload": None, "cron": "30 7 * * *", "timezone": "Europe/Zurich", "paused": False}

#: Each test runs with the synchronous client, and again with the asynchronous one.
__all__ = ["kind"]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PACELINE_URL", "PACELINE_TOKEN", "HOST", "PORT", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def schedule(name: str = "report", **changes: Any) -> dict[str, Any]:
    body = {
        "user_id": "ann",
        "name": name,
        **BODY,
        "units": None,
        "shared": None,
        "callback_url": None,
        "every_seconds": None,
    }
    times = {"next_at": NOW_MS + 60_000, "last_at": None, "last_task_id": None, "created_at": NOW_MS}
    return body | times | {"refused": 0, "refused_at": None, "refused_reason": None} | changes


def test_a_schedule_is_put_with_what_is_given_only() -> None:
    server = Server(answer(schedule(), 201))
    stored = client(server).put_schedule("ann", "report", {"n": 1}, cron="30 7 * * *", timezone="Europe/Zurich")
    assert isinstance(stored, Schedule)
    assert (stored.name, stored.next_at) == ("report", NOW_MS + 60_000)
    assert (server.requests[0].method, server.requests[0].url.path) == ("PUT", "/api/v1/users/ann/schedules/report")
    assert server.bodies == [
        {"task": "log", "payload": {"n": 1}, "paused": False, "cron": "30 7 * * *", "timezone": "Europe/Zurich"}
    ]


def test_schedules_are_listed_over_pages() -> None:
    pages = [{"schedules": [schedule("a")], "next": "a"}, {"schedules": [schedule("b")], "next": None}]
    server = Server(*map(answer, pages))
    assert [one.name for one in client(server).schedules("ann")] == ["a", "b"]
    assert [request.url.params.get("before") for request in server.requests] == [None, "a"]


def test_another_answer_is_no_list() -> None:
    with pytest.raises(AnswerError, match="no list of schedules"):
        list(client(Server(answer({"tasks": []}))).schedules("ann"))


@pytest.mark.parametrize(("paused", "every"), [(True, None), (False, 60)])
def test_a_pause_keeps_all_else(paused: bool, every: int | None) -> None:
    timing: dict[str, Any] = {"cron": None, "timezone": None, "every_seconds": every} if every else {}
    others = {"units": 3, "shared": "stripe", "callback_url": "https://hooks.example.com/"}
    before = schedule(payload={"n": 1}, **others, **timing)
    server = Server(answer(before), answer({**before, "paused": paused}))
    assert client(server).pause_schedule("ann", "report", paused).paused is paused
    sent = json.loads(server.requests[1].content)
    fields = ("task", "payload", *others, "cron", "timezone", "every_seconds")
    assert sent == {name: before[name] for name in fields if before[name] is not None} | {"paused": paused}


def test_a_missing_schedule_is_an_error() -> None:
    with pytest.raises(NotFoundError):
        client(Server(problem(404, "No such schedule"))).delete_schedule("ann", "report")


def test_the_list_shows_when_each_ticks() -> None:
    shown = [schedule(), schedule("poll", cron=None, timezone=None, every_seconds=90, next_at=None, paused=True)]
    shown.append(schedule("hot", refused=2))
    shown.append(schedule("quick", cron=None, timezone=None, every_seconds=2, next_at=None, paused=True))
    result = run(Server(answer({"schedules": shown, "next": None})), "schedules", "list", "ann")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("report  30 7 * * * Europe/Zurich  log  next ")
    assert lines[0].endswith("(in 1 min)")
    assert lines[1] == "poll  every 1 min 30 s  log  paused"
    assert lines[2].endswith("2 ticks refused")
    assert lines[3] == "quick  every 2 s  log  paused"


def test_a_user_alone_lists_the_schedules() -> None:
    server = Server(answer({"schedules": [schedule()], "next": None}))
    assert run(server, "schedules", "ann").stdout.startswith("report")
    assert server.requests[0].url.path == "/api/v1/users/ann/schedules"


def test_json_is_one_schedule_a_line() -> None:
    shown = {"schedules": [schedule("a"), schedule("b")], "next": None}
    result = run(Server(answer(shown)), "schedules", "list", "ann", "--json")
    assert [json.loads(line)["name"] for line in result.stdout.splitlines()] == ["a", "b"]


def test_put_sends_the_options() -> None:
    server = Server(answer(schedule(), 201))
    words = (
        "--every",
        "10m",
        "--task",
        "mail",
        "--payload",
        '{"n": 1}',
        "--units",
        "3",
        "--shared",
        "mail",
        "--paused",
    )
    result = run(server, "schedules", "put", "ann", "report", *words)
    assert result.exit_code == 0
    order = {"task": "mail", "payload": {"n": 1}, "units": 3, "shared": "mail"}
    assert server.bodies == [{**order, "paused": True, "every_seconds": 600}]


@pytest.mark.parametrize("words", [(), ("--cron", "0 8 * * *", "--every", "1h"), ("--every", "soon")])
def test_put_needs_one_timing(words: tuple[str, ...]) -> None:
    assert run(Server(answer(schedule())), "schedules", "put", "ann", "report", *words).exit_code == 2


@pytest.mark.parametrize(("command", "methods"), [("pause", "GET PUT"), ("resume", "GET PUT"), ("delete", "DELETE")])
def test_a_schedule_is_paused_resumed_and_deleted(command: str, methods: str) -> None:
    server = Server(answer(schedule()))
    assert run(server, "schedules", command, "ann", "report").exit_code == 0
    assert [request.method for request in server.requests] == methods.split()


@pytest.mark.parametrize(
    ("server", "code"), [(problem(404, "No such schedule"), 1), (httpx.ConnectError("refused"), 3)]
)
def test_errors_are_one_line(server: Any, code: int) -> None:
    result = run(server, "schedules", "delete", "ann", "report")
    assert (result.exit_code, result.stdout) == (code, "")
    assert len(result.stderr.splitlines()) == 1
