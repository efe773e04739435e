"""The commands on shared limits, and the client's calls behind them."""

import json
from dataclasses import fields
from typing import Any

import pytest

from chalicelib.api import shared_schema
from paceline_client import AnswerError, SharedLimit, TaskOrder, Waiter, WaitsFor
from tests.unit.test_cli import alone, run
from tests.unit.test_client import NOW_MS, Server, answer, bulk, client, lane, problem, submitted

__all__ = ["alone"]


def shared(**changes: Any) -> dict[str, Any]:
    policy = {"name": "stripe-second", "quota": 25, "counts": "starts", "window_seconds": 1, "used": 20}
    body = {"name": "stripe", "limits": "25/second; 10 at once", "setting": "25/second; 10 at once", "at_once": 10}
    body |= {"policies": [policy | {"remaining": 5, "reset_seconds": 1}], "running": 4, "waiting": 0, "waiters": []}
    stops = {"paused": False, "paused_until": None, "throttled_until": None, "throttled_reason": None}
    return body | stops | {"next_start_at": NOW_MS, "starts": [], "started": 7, "now": NOW_MS} | changes


WAITERS = [
    {"user_id": "ann", "task_id": "id-1", "turn": 8},
    {"user_id": "bob", "task_id": "id-2", "turn": 9},
]


@pytest.mark.parametrize(
    ("words", "method", "path", "body"),
    [
        (("show", "stripe"), "GET", "/api/v1/limits/stripe", None),
        (("set", "stripe", "5/second; 2 at once"), "PUT", "/api/v1/limits/stripe", {"limits": "5/second; 2 at once"}),
        (("delete", "stripe"), "DELETE", "/api/v1/limits/stripe", None),
        (("pause", "stripe"), "POST", "/api/v1/limits/stripe/pause", {}),
        (("pause", "stripe", "--for", "10m"), "POST", "/api/v1/limits/stripe/pause", {"until": NOW_MS + 600_000}),
        (("resume", "stripe"), "POST", "/api/v1/limits/stripe/resume", {}),
    ],
)
def test_command_makes_its_call(words: tuple[str, ...], method: str, path: str, body: Any) -> None:
    server = Server(answer(shared()))
    result = run(server, "limits", *words)
    assert (result.exit_code, result.stderr) == (0, "")
    [request] = server.requests
    assert (request.method, request.url.path) == (method, path)
    assert (json.loads(request.content) if request.content else None) == body
    assert result.stdout.splitlines()[0].split() == ["shared", "limit", "stripe"]


@pytest.mark.parametrize("words", [(), ("list",), ("--url", "http://far.test"), ("list", "--token", "secret")])
def test_limits_alone_lists_the_shared_limits(words: tuple[str, ...]) -> None:
    found = [shared(), shared(name="openai", limits="5/minute", waiting=12, paused=True)]
    server = Server(answer({"limits": found, "now": NOW_MS}))
    result = run(server, "limits", *words)
    assert server.requests[0].url.path == "/api/v1/limits"
    assert result.stdout.splitlines() == [
        "stripe  25/second; 10 at once",
        "openai  5/minute  12 lanes waiting  paused",
    ]


def test_a_list_as_json_has_a_line_for_each() -> None:
    found = {"limits": [shared(), shared(name="openai")], "now": NOW_MS}
    result = run(Server(answer(found)), "limits", "--json")
    assert [json.loads(line)["name"] for line in result.stdout.splitlines()] == ["stripe", "openai"]
    assert json.loads(result.stdout.splitlines()[0]) == shared()


def test_without_shared_limits_it_says_how_to_have_some() -> None:
    result = run(Server(answer({"limits": [], "now": NOW_MS})), "limits")
    assert result.stdout == "There are no shared limits: SHARED_LIMITS is empty\n"


@pytest.mark.parametrize(
    "words",
    [("ann",), ("user", "ann"), ("user", "list"), ("--url", "http://far.test", "ann"), ("ann", "2/second"), ("set",)],
)
def test_a_word_that_is_no_command_is_a_user(words: tuple[str, ...]) -> None:
    server = Server(answer(lane()))
    result = run(server, "limits", *words)
    is_set = words == ("set",)
    assert result.exit_code == (2 if is_set else 0)
    assert is_set or server.requests[0].url.path.startswith(f"/api/v1/users/{'list' if 'list' in words else 'ann'}")


def test_a_shared_limit_is_shown_with_who_waits() -> None:
    late = {"throttled_until": NOW_MS + 42_000, "throttled_reason": "HTTP 429"}
    body = shared(waiting=2, waiters=WAITERS, limits="5/second; 10 at once", next_start_at=None, **late)
    lines = [
        " ".join(line.split()) for line in run(Server(answer(body)), "limits", "show", "stripe").stdout.splitlines()
    ]
    assert "limits 5/second; 10 at once (set at run time)" in lines
    assert "per stripe-second 5 of 25 left, more in 1.0 s" in lines
    assert "at once 4 of 10 tasks run" in lines
    assert lines[lines.index("next ann") + 1] == "bob"
    assert "next start not known" in lines
    assert any(line.startswith("throttled until") and line.endswith("HTTP 429") for line in lines)


def test_an_unknown_shared_limit_is_said_in_one_line() -> None:
    result = run(problem(404), "limits", "show", "strip")
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)


def test_a_lane_says_what_it_waits_for() -> None:
    waiting = lane(waits_for={"name": "stripe", "before": 12, "start_at": NOW_MS + 480})
    assert (
        "stripe, about 12 before it"
        in run(Server(answer(waiting), answer({"tasks": [], "next": None})), "lane", "ann").stdout
    )
    with client(Server(answer(waiting))) as paceline:
        assert paceline.lane("ann").waits_for == WaitsFor("stripe", 12, NOW_MS + 480)


def test_a_submit_names_its_shared_limit_and_says_that_the_answer_is_a_lower_bound() -> None:
    waiting = submitted(queued=True, position=3, delay_ms=2_000, shared="stripe", lower_bound=True)
    server = Server(answer(waiting, 429))
    result = run(server, "submit", "ann", "--shared", "stripe")
    assert server.bodies[0]["shared"] == "stripe"
    assert "position at least 3, starts in at least 2.0 s" in result.stdout


def test_many_submits_name_their_shared_limits() -> None:
    server = Server(bulk)
    with client(server) as paceline:
        paceline.submit_many("ann", [TaskOrder(shared="stripe"), TaskOrder()])
    assert [task.get("shared") for task in server.bodies[0]["tasks"]] == ["stripe", None]


def test_waiters_are_values() -> None:
    with client(Server(answer(shared(waiters=WAITERS, later="unknown")))) as paceline:
        found = paceline.shared_limit("stripe")
    assert found.waiters == (Waiter("ann", "id-1", 8), Waiter("bob", "id-2", 9))


@pytest.mark.parametrize("body", [{}, {"limits": 5}, shared(policies=None), shared(waiters=[{}])])
def test_another_answer_is_none_of_paceline(body: dict[str, Any]) -> None:
    with client(Server(answer(body))) as paceline:
        with pytest.raises(AnswerError):
            paceline.shared_limit("stripe")
        with pytest.raises(AnswerError):
            paceline.shared_limits()


@pytest.mark.parametrize(
    ("value", "form"), [(SharedLimit, shared_schema.SharedLimitAnswer), (Waiter, shared_schema.WaiterAnswer)]
)
def test_values_have_the_fields_of_the_api(value: Any, form: Any) -> None:
    assert {field.name for field in fields(value)} == set(form.__struct_fields__)


@pytest.mark.parametrize(("words", "body"), [(("acme",), {"group": "acme"}), (("--clear",), {"group": None})])
def test_group_of_a_user_is_set_and_cleared(words: tuple[str, ...], body: Any) -> None:
    server = Server(answer(lane(group=body["group"])))
    result = run(server, "group", "ann", *words)
    assert (result.exit_code, result.stderr) == (0, "")
    [request] = server.requests
    assert (request.method, request.url.path, json.loads(request.content)) == ("PUT", "/api/v1/users/ann", body)
    assert ("group       acme" in result.stdout) is (body["group"] is not None)


def test_group_of_a_user_is_shown() -> None:
    server = Server(answer(lane(group="acme")))
    assert run(server, "group", "ann").stdout == "acme\n"
    assert server.requests[0].method == "GET"


def test_group_is_either_set_or_cleared() -> None:
    assert run(Server(), "group", "ann", "acme", "--clear").exit_code == 2
