"""The rules of the client: each test runs with the synchronous client, and again with the asynchronous one."""

from __future__ import annotations

import asyncio
import inspect
import json
import ssl
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from email.utils import formatdate
from typing import Any, Literal

import httpx
import pytest

from chalicelib.submit import submission
from operations import client_models
from paceline_client import (
    AnswerError,
    AsyncPaceline,
    ConflictError,
    InvalidError,
    NotFoundError,
    Paceline,
    PacelineError,
    ProblemError,
    Progress,
    Refused,
    TaskOrder,
    UnauthenticatedError,
    UnavailableError,
    WaitTimeoutError,
)
from paceline_client.answers import read_answer

#: Epoch seconds at which the virtual clock begins.
NOW = 1_800_000_000.0
NOW_MS = int(NOW * 1000)
BEING_SERVED = {
    "title": "The first request is being served",
    "detail": "Try again shortly.",
    "field": "Idempotency-Key",
}

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class VirtualClock:
    """Time passes only in sleeps."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.seconds = 0.0

    def now(self) -> float:
        return NOW + self.seconds

    def monotonic(self) -> float:
        return 500.0 + self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


class AsyncVirtualClock:
    """The same time, for the asynchronous client."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.now, self.monotonic = clock.now, clock.monotonic

    async def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)


class Blocking:
    """Calls the asynchronous client's methods as if they were synchronous."""

    def __init__(self, client: AsyncPaceline, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = getattr(self._client, name)(*arguments, **options)
            return self._pulled(result) if name in ("tasks", "schedules") else self._loop.run_until_complete(result)

        return call

    def _pulled(self, listed: Any) -> Iterator[Any]:
        while (one := self._loop.run_until_complete(anext(listed, None))) is not None:
            yield one


#: The event loop of the asynchronous client while a test runs with it, else None.
_loop: asyncio.AbstractEventLoop | None = None


@pytest.fixture(params=["sync", "async"], autouse=True)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    global _loop  # noqa: PLW0603 - `client` is called by tests of the command line, too
    if request.param == "async":
        _loop = asyncio.new_event_loop()
        yield "async"
        _loop.close()
        _loop = None
    else:
        yield "sync"


class Server:
    """Gives the answers in order, the last one again and again, and keeps what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.clock = VirtualClock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
        return answer(request)

    @property
    def keys(self) -> list[str]:
        return [request.headers["Idempotency-Key"] for request in self.requests]

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]


def client(server: Server, base_url: str = "http://paceline.test", **options: Any) -> Paceline:
    transport = httpx.MockTransport(server)
    options = {"random": lambda: 1.0, "new_key": lambda: "made"} | options
    if _loop is None:
        return Paceline(base_url, transport=transport, clock=server.clock, **options)
    clock = AsyncVirtualClock(server.clock)
    return Blocking(AsyncPaceline(base_url, transport=transport, clock=clock, **options), _loop)  # type: ignore[return-value]


def submitted(seq: int = 1, **changes: Any) -> dict[str, Any]:
    body = {"task_id": f"id-{seq}", "user_id": "ann", "seq": seq, "position": 0, "planned_at": NOW_MS, "delay_ms": 0}
    return body | {"queued": False, "state": "queued"} | changes


def task(state: str = "queued", estimated_at: int | None = None, **changes: Any) -> dict[str, Any]:
    body = {"task_id": "id-1", "user_id": "ann", "seq": 1, "task": "log", "state": state, "position": 0}
    times = {"planned_at": NOW_MS, "estimated_at": estimated_at, "submitted_at": NOW_MS, "started_at": None}
    options = {"run_at": None, "callback_url": None, "units": 1}
    options |= {"payload": None, "payload_omitted": False, "attempt_history": [], "redriven_as": None}
    return body | times | options | {"completed_at": None, "attempts": 0, "result": None, "error": None} | changes


def lane(**changes: Any) -> dict[str, Any]:
    limit = {"name": "1s", "quota": 1, "counts": "starts", "window_seconds": 1, "used": 0}
    limit |= {"remaining": 1, "reset_seconds": 0}
    body = {"user_id": "ann", "limits": "1/second", "own_limits": False, "policies": [limit], "backlog": 0}
    times = {
        "running": None,
        "at_once": 1,
        "slots_in_use": 0,
        "next_start_at": None,
        "open_at": NOW_MS,
        "paused": False,
        "paused_until": None,
    }
    return (
        body
        | times
        | {
            "throttled_until": None,
            "throttled_reason": None,
            "next_starts": [],
            "starts": [NOW_MS],
            "start_ahead_at": None,
            "started": 1,
            "admitted": 1,
        }
        | {"now": NOW_MS}
        | {"waits_for": None, "group": None}
        | changes
    )


def answer(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def problem(status: int, title: str = "No", **rest: Any) -> httpx.Response:
    return answer({"type": "about:blank", "title": title, "status": status, **rest}, status)


def bulk(request: httpx.Request) -> httpx.Response:
    orders = json.loads(request.content)["tasks"]
    return answer({"user_id": "ann", "queued": False, "tasks": [submitted(n + 1) for n in range(len(orders))]}, 202)


TAKEN = answer(submitted(), 202)
LOST = httpx.ReadError("connection reset")


# Submits.


def test_a_submit_returns_the_submitted_task() -> None:
    server = Server(TAKEN)
    assert client(server).submit("ann", {"n": 1}, "log").task_id == "id-1"
    assert server.bodies == [{"user_id": "ann", "task": "log", "payload": {"n": 1}}]
    assert server.requests[0].url == "http://paceline.test/api/v1/task"
    assert server.keys == ['"made"']
    assert "Authorization" not in server.requests[0].headers
    assert "Prefer" not in server.requests[0].headers


def test_time_and_callback_go_along_only_when_they_are_given() -> None:
    server = Server(answer(submitted(seq=0, delay_ms=5_000, queued=True), 202))
    at = datetime(2026, 11, 23, tzinfo=timezone.utc)
    assert client(server).submit("ann", run_at=at, callback_url="https://hooks.test/e", units=9).is_scheduled
    client(server).submit("ann", delay_seconds=2.5)
    plain = {"user_id": "ann", "task": "log", "payload": None}
    assert server.bodies == [
        {**plain, "run_at": 1_795_392_000_000, "callback_url": "https://hooks.test/e", "units": 9},
        {**plain, "delay_seconds": 2.5},
    ]


def test_each_of_many_may_have_its_time() -> None:
    server = Server(bulk)
    client(server).submit_many("ann", [TaskOrder(1), TaskOrder(2, run_at=7, units=5), TaskOrder(3, delay_seconds=1)])
    assert [set(body) - {"task", "payload"} for body in server.bodies[0]["tasks"]] == [
        set(),
        {"run_at", "units"},
        {"delay_seconds"},
    ]


def test_a_time_without_a_zone_is_refused() -> None:
    server = Server(TAKEN)
    with pytest.raises(ValueError, match="run_at"):
        client(server).submit("ann", run_at=datetime(2026, 11, 23))
    assert not server.requests


def test_a_task_that_waits_is_no_error() -> None:
    queued = answer({"title": "Rate limit exceeded."} | submitted(5, queued=True, position=4, delay_ms=4000), 429)
    found = client(Server(queued)).submit("ann")
    assert (found.queued, found.position, found.delay_ms) == (True, 4, 4000)


def test_a_refusal_says_when_to_come_again_and_is_not_retried() -> None:
    body = {"title": "Rate limit exceeded. Nothing has been queued.", "detail": "Full.", "queued": False}
    server = Server(answer(body, 429, Retry_After="17"))
    with pytest.raises(Refused, match="Full") as caught:
        client(server).submit("ann", strict=True, idempotency_key="mine")
    assert (caught.value.retry_after, caught.value.idempotency_key, len(server.requests)) == (17, "mine", 1)
    assert server.requests[0].headers["Prefer"] == "handling=strict"


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut off"),
        LOST,
        problem(502),
        problem(503),
        problem(504),
        httpx.Response(503, text="<html>"),
        problem(409, **BEING_SERVED),
    ],
    ids=repr,
)
def test_a_lost_answer_is_asked_for_again_with_the_same_key_and_bytes(failure: Answer) -> None:
    server = Server(failure, failure, TAKEN)
    assert client(server).submit("ann", {"n": 1}).task_id == "id-1"
    assert server.keys == ['"made"'] * 3
    assert len({request.content for request in server.requests}) == 1
    assert server.clock.slept == [0.2, 0.4]


NO_CONNECTION = [httpx.ConnectError("refused"), httpx.ConnectTimeout("nobody there")]


@pytest.mark.parametrize("failure", NO_CONNECTION, ids=repr)
def test_a_server_that_takes_no_connection_fails_at_once_and_has_nothing(failure: Exception) -> None:
    server = Server(failure)
    with pytest.raises(UnavailableError, match="gave up after 1 try") as caught:
        client(server).submit("ann")
    assert (server.clock.slept, caught.value.was_sent, caught.value.idempotency_key) == ([], False, "made")
    with pytest.raises(UnavailableError):
        client(server).wait(("ann", "id-1"), timeout=5)
    assert server.clock.slept == []


@pytest.mark.parametrize("failure", NO_CONNECTION, ids=repr)
def test_a_connection_is_tried_again_where_that_is_asked_for(failure: Exception) -> None:
    server = Server(failure, failure, TAKEN)
    assert client(server, fail_fast=False).submit("ann").task_id == "id-1"
    assert server.clock.slept == [0.2, 0.4]


def test_a_submit_whose_answer_was_lost_is_tried_again_through_connection_errors() -> None:
    server = Server(LOST, httpx.ConnectError("refused"), httpx.ConnectError("refused"), TAKEN)
    assert client(server).submit("ann").task_id == "id-1"
    with pytest.raises(UnavailableError) as caught:
        client(Server(LOST, httpx.ConnectError("refused"))).submit("ann")
    assert caught.value.was_sent


def test_a_call_that_has_reached_paceline_goes_on_through_a_restart() -> None:
    refused = httpx.ConnectError("refused")
    _, state = waited(answer(task("running")), refused, refused, answer(task("succeeded")))
    assert state == "succeeded"
    assert len(client(Server(bulk, refused, bulk)).submit_many("ann", orders(150))) == 150


def test_by_default_a_call_takes_20_s_and_a_connection_2() -> None:
    server = Server(LOST)
    with pytest.raises(UnavailableError):
        client(server).submit("ann")
    assert 15 < server.clock.seconds <= 20
    timeout = server.requests[0].extensions["timeout"]
    assert (timeout["connect"], timeout["read"]) == (2, 10)


def test_pauses_between_tries_vary_by_chance_and_stop_growing() -> None:
    server = Server(*[LOST] * 8, TAKEN)
    client(server, random=lambda: 0.5, total_seconds=60).submit("ann")
    assert server.clock.slept == pytest.approx([0.15, 0.3, 0.6, 1.2, 2.4, 3.75, 3.75, 3.75])


@pytest.mark.parametrize("retry_after", ["7", formatdate(NOW + 7, usegmt=True)])
def test_a_503_is_given_the_time_it_asks_for(retry_after: str) -> None:
    server = Server(answer({}, 503, Retry_After=retry_after), TAKEN)
    client(server).submit("ann")
    assert server.clock.slept == pytest.approx([7.2])


@pytest.mark.parametrize("retry_after", ["soon", "-1", "²", ""])
def test_a_retry_after_that_is_none_is_ignored(retry_after: str) -> None:
    server = Server(httpx.Response(503, headers={b"Retry-After": retry_after.encode()}), TAKEN)
    client(server).submit("ann")
    assert server.clock.slept == [0.2]


def test_a_submit_gives_up_in_time_and_names_its_key() -> None:
    server = Server(LOST)
    with pytest.raises(UnavailableError, match="ReadError: connection reset; gave up after") as caught:
        client(server, total_seconds=20).submit("ann")
    assert server.clock.seconds <= 20
    assert caught.value.idempotency_key == "made"
    assert caught.value.tries == len(server.requests) == 8
    assert isinstance(caught.value.__cause__, httpx.ReadError)


def test_a_wait_longer_than_the_call_may_last_is_not_begun() -> None:
    server = Server(answer({"title": "Down"}, 503, Retry_After="3600"))
    with pytest.raises(UnavailableError, match="503 Down; gave up after 1 try") as caught:
        client(server).submit("ann")
    assert (server.clock.slept, caught.value.status) == ([], 503)


def test_a_certificate_that_does_not_fit_is_tried_once() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no") from ssl.SSLCertVerificationError("self-signed")

    server = Server(refuse)
    with pytest.raises(UnavailableError):
        client(server).submit("ann")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidError),
        (401, UnauthenticatedError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, InvalidError),
        (418, ProblemError),
        (422, InvalidError),
        (500, ProblemError),
    ],
)
def test_a_problem_is_raised_at_once_with_its_field_and_detail(status: int, kind: type[ProblemError]) -> None:
    server = Server(problem(status, "No", detail="say yes", field="/task"))
    with pytest.raises(kind) as caught:
        client(server).submit("ann")
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.detail, caught.value.field) == (status, "say yes", "/task")
    assert str(caught.value) == f"{status} No (/task): say yes"
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"message": "Too Many Requests"}'])
def test_a_429_from_something_in_between_is_a_refusal(body: bytes) -> None:
    with pytest.raises(Refused):
        client(Server(httpx.Response(429, content=body))).submit("ann")


@pytest.mark.parametrize("body", ["<html>Welcome", "[]", '{"task_id": "1"}'])
def test_an_answer_that_is_none_of_pacelines_is_named_so(body: str) -> None:
    with pytest.raises(AnswerError, match="is this a Paceline"):
        client(Server(httpx.Response(200, text=body))).submit("ann")


def test_an_answer_that_cannot_be_read_names_the_key_of_the_submit() -> None:
    server = Server(httpx.DecodingError("bad gzip"))
    with pytest.raises(AnswerError, match="bad gzip") as caught:
        client(server).submit("ann")
    assert (caught.value.idempotency_key, len(server.requests)) == ("made", 1)


def test_fields_of_a_newer_server_are_ignored() -> None:
    assert client(Server(answer(submitted(mood="good"), 202))).submit("ann").seq == 1
    newer = answer(lane(mood="good", policies=[lane()["policies"][0] | {"mood": "good"}]))
    assert client(Server(newer)).lane("ann").policies[0].quota == 1


@pytest.mark.parametrize(
    "wrong", [{"seq": "1"}, {"seq": None}, {"queued": 1}, {"seq": True}, {"task_id": None}], ids=repr
)
def test_a_field_of_another_type_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(AnswerError, match=f"`{next(iter(wrong))}` is "):
        client(Server(answer(submitted(**wrong), 202))).submit("ann")


def test_a_field_that_an_older_server_lacks_is_none_where_it_may_be() -> None:
    older = {name: value for name, value in task().items() if name != "callback_url"}
    assert client(Server(answer(older))).task("ann", "id-1").callback_url is None
    with pytest.raises(AnswerError, match="`planned_at`"):
        client(Server(answer({name: value for name, value in older.items() if name != "planned_at"}))).task("ann", "1")


@dataclass(frozen=True)
class Inner:
    name: str


@dataclass(frozen=True)
class Outer:
    """Every form of field that the models may have."""

    inner: Inner
    many: tuple[Inner, ...]
    maybe: Inner | None
    word: Literal["a", "b"] | None
    share: float
    options: dict[str, Any]


def test_answers_are_read_to_their_depth() -> None:
    body = {"inner": {"name": "x", "new": 1}, "many": [{"name": "y"}], "maybe": None, "word": "c", "share": 1}
    assert read_answer(Outer, body | {"options": {}}) == Outer(Inner("x"), (Inner("y"),), None, "c", 1, {})  # type: ignore[arg-type]
    for wrong in ({"inner": "x"}, {"many": [{"name": 1}]}, {"many": {}}, {"word": 1}, {"share": "1"}, {"options": []}):
        with pytest.raises(AnswerError, match="is this a Paceline"):
            read_answer(Outer, body | {"options": {}} | wrong)


def test_models_are_as_the_schema_says() -> None:
    assert client_models.PATH.read_text() == client_models.source(), "run `make client-models`"


def test_a_task_order_has_the_fields_of_a_request() -> None:
    assert {field.name for field in fields(TaskOrder)} == set(submission.TaskRequest.__struct_fields__)


def public(client: type) -> dict[str, list[tuple[str, Any]]]:
    """The parameters of each method, with their defaults."""
    methods = {name: one for name, one in vars(client).items() if not name.startswith("_")}
    signatures = {name: inspect.signature(one) for name, one in methods.items()}
    return {name: [(one.name, one.default) for one in each.parameters.values()] for name, each in signatures.items()}


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    assert public(Paceline) == public(AsyncPaceline)
    arguments = [list(inspect.signature(one).parameters) for one in (Paceline, AsyncPaceline)]
    assert arguments[0] == arguments[1]


@pytest.mark.parametrize("key", ["", "k" * 256, "ключ", "a\nb"])
def test_a_key_that_no_header_can_hold_is_refused_here(key: str) -> None:
    server = Server(TAKEN)
    with pytest.raises(ValueError, match="idempotency_key"):
        client(server).submit("ann", idempotency_key=key)
    assert not server.requests


def test_a_key_is_sent_as_a_quoted_string() -> None:
    server = Server(TAKEN)
    client(server).submit("ann", idempotency_key='a "b" \\ c')
    assert server.keys == ['"a \\"b\\" \\\\ c"']


def test_a_payload_that_is_no_json_is_refused_here() -> None:
    server = Server(TAKEN)
    with pytest.raises(ValueError, match="JSON"):
        client(server).submit("ann", float("nan"))
    assert not server.requests


@pytest.mark.parametrize("token", ["secret", lambda: "secret"])
def test_the_token_is_sent_and_shown_to_no_one(token: Any) -> None:
    server = Server(TAKEN)
    paceline = client(server, token=token)
    paceline.submit("ann")
    assert server.requests[0].headers["Authorization"] == "Bearer secret"
    assert "secret" not in repr(paceline)


def test_a_token_may_come_from_an_async_function() -> None:
    async def token() -> str:
        return "fresh"

    async def submit() -> None:
        async with AsyncPaceline("http://paceline.test", token, transport=httpx.MockTransport(server)) as paceline:
            await paceline.submit("ann")

    server = Server(TAKEN)
    asyncio.run(submit())
    assert server.requests[0].headers["Authorization"] == "Bearer fresh"


def test_a_cancelled_call_sends_nothing_further() -> None:
    async def cancelled() -> None:
        async with AsyncPaceline("http://paceline.test", transport=httpx.MockTransport(server)) as paceline:
            call = asyncio.create_task(paceline.wait(("ann", "id-1")))
            while not server.requests:
                await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    server = Server(answer(task("running")))
    asyncio.run(cancelled())
    assert len(server.requests) == 1


def test_a_redirect_is_not_followed() -> None:
    server = Server(httpx.Response(308, headers={"Location": "http://elsewhere.test/"}))
    with pytest.raises(ProblemError, match="308"):
        client(server, token="secret").submit("ann")
    assert len(server.requests) == 1


def test_a_url_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="http://"):
        Paceline("localhost:8000")


# Many.


def orders(count: int) -> list[TaskOrder]:
    return [TaskOrder({"n": n}) for n in range(count)]


def test_many_go_in_hundreds_each_with_a_key_of_its_own() -> None:
    server, seen = Server(bulk), []
    submitted_tasks = client(server).submit_many("ann", iter(orders(250)), progress=lambda *sofar: seen.append(sofar))
    assert len(submitted_tasks) == 250
    assert server.keys == ['"made:0"', '"made:100"', '"made:200"']
    assert [one["payload"]["n"] for body in server.bodies for one in body["tasks"]] == list(range(250))
    assert seen == [(100, 250), (200, 250), (250, 250)]


def test_many_large_ones_go_in_parts_that_the_api_takes() -> None:
    server = Server(bulk)
    client(server).submit_many("ann", [TaskOrder("ü" * 32_000)] * 100)
    assert [len(body["tasks"]) for body in server.bodies] == [60, 40]
    assert all(len(request.content) < 4_000_000 for request in server.requests)


def test_many_that_wait_are_no_error() -> None:
    queued = answer(
        {"title": "Rate limit exceeded.", "queued": True, "tasks": [submitted(), submitted(2, queued=True)]}, 429
    )
    assert [one.queued for one in client(Server(queued)).submit_many("ann", orders(2))] == [False, True]


def test_none_at_all_is_no_request() -> None:
    server = Server(bulk)
    assert client(server).submit_many("ann", []) == []
    assert not server.requests


def test_what_was_taken_before_a_failure_is_named_and_goes_on_with_the_key() -> None:
    server = Server(bulk, problem(422, "A field is wrong", field="/tasks/7/task"), bulk)
    paceline = client(server)
    with pytest.raises(InvalidError) as caught:
        paceline.submit_many("ann", orders(150))
    assert len(caught.value.accepted) == 100
    assert caught.value.field == "/tasks/107/task"
    paceline.submit_many("ann", orders(150), idempotency_key=caught.value.idempotency_key)
    assert server.keys == ['"made:0"', '"made:100"'] * 2


def test_nothing_is_sent_when_one_of_many_is_no_json() -> None:
    server = Server(bulk)
    with pytest.raises(TypeError):
        client(server).submit_many("ann", [*orders(150), TaskOrder({1, 2})])
    assert not server.requests


# Waiting.


def waited(*answers: Answer, timeout: float | None = None, **options: Any) -> tuple[Server, str]:
    server = Server(*answers)
    return server, client(server, **options).wait(("ann", "id-1"), timeout).state


def test_a_wait_sleeps_until_the_estimated_start_and_then_looks() -> None:
    server, state = waited(answer(task(estimated_at=NOW_MS + 40_000)), answer(task("succeeded")))
    assert state == "succeeded"
    assert server.clock.slept == pytest.approx([40.125])
    assert len(server.requests) == 2


def test_a_long_wait_looks_once_a_minute() -> None:
    server, _ = waited(*[answer(task(estimated_at=NOW_MS + 3_600_000))] * 60, answer(task("cancelled")))
    assert set(server.clock.slept) == {60.0}


def test_a_task_that_is_late_is_looked_at_more_and_more_seldom() -> None:
    server, state = waited(*[answer(task("running"))] * 15, answer(task("failed", error="no")))
    assert state == "failed"
    assert server.clock.slept[:4] == pytest.approx([0.125, 0.1875, 0.28125, 0.421875])
    assert server.clock.slept[-1] == pytest.approx(6.25)
    assert server.clock.slept == sorted(server.clock.slept)


@pytest.mark.parametrize(("ahead", "sleep"), [(1.0, 41.125), (-1.0, 39.125), (3600.0, 40.125), (-3600.0, 40.125)])
def test_clocks_that_differ_by_more_than_the_date_tells_are_made_up_for(ahead: float, sleep: float) -> None:
    there = NOW + ahead
    queued = answer(task(estimated_at=int((there + 40) * 1000)), Date=formatdate(there, usegmt=True))
    server, _ = waited(queued, answer(task("succeeded")))
    assert server.clock.slept == pytest.approx([sleep])


def test_a_wait_ends_at_its_time_with_one_last_look() -> None:
    server = Server(answer(task(estimated_at=NOW_MS + 40_000)))
    with pytest.raises(WaitTimeoutError, match="task id-1 is queued") as caught:
        client(server).wait(("ann", "id-1"), timeout=5)
    assert server.clock.slept == [5]
    assert len(server.requests) == 2
    assert caught.value.task is not None
    assert isinstance(caught.value, TimeoutError)


def test_a_wait_goes_on_through_lost_answers() -> None:
    server, state = waited(LOST, answer(task("running")), problem(503), answer(task("succeeded")), timeout=30)
    assert state == "succeeded"
    assert len(server.requests) == 4


def test_a_wait_gives_up_in_time_when_nothing_answers() -> None:
    server = Server(LOST)
    with pytest.raises(WaitTimeoutError, match="nothing is known of the task; ReadError"):
        client(server).wait(("ann", "id-1"), timeout=5)
    assert server.clock.seconds <= 5
    with pytest.raises(UnavailableError):
        client(server).wait(("ann", "id-1"))


def test_what_a_submit_gave_can_be_waited_for() -> None:
    server = Server(TAKEN, answer(task()), answer(task("succeeded", result=[1])))
    paceline = client(server)
    outcome = paceline.wait(paceline.submit("ann"))
    assert outcome.result == [1]
    assert paceline.wait(outcome) == outcome
    assert server.requests[-1].url.path == "/api/v1/users/ann/tasks/id-1"


# The rest.


def test_pages_are_fetched_as_they_are_needed() -> None:
    server = Server(answer({"tasks": [task(), task()], "next": "id-9"}), answer({"tasks": [task()], "next": None}))
    tasks = client(server).tasks("ann", state="queued", page_size=2)
    next(tasks)
    assert len(server.requests) == 1
    assert len(list(tasks)) == 2
    queries = [dict(request.url.params) for request in server.requests]
    assert queries == [{"limit": "2", "state": "queued"}, {"limit": "2", "state": "queued", "before": "id-9"}]


@pytest.mark.parametrize(
    ("do", "method", "path", "body"),
    [
        (lambda paceline: paceline.lane("ann"), "GET", "/api/v1/users/ann", None),
        (
            lambda paceline: paceline.set_limits("ann", "5/second"),
            "PUT",
            "/api/v1/users/ann/limits",
            {"limits": "5/second"},
        ),
        (lambda paceline: paceline.clear_limits("ann"), "DELETE", "/api/v1/users/ann/limits", None),
        (lambda paceline: paceline.set_group("ann", "acme"), "PUT", "/api/v1/users/ann", {"group": "acme"}),
        (lambda paceline: paceline.set_group("ann", None), "PUT", "/api/v1/users/ann", {"group": None}),
        (lambda paceline: paceline.pause("ann"), "POST", "/api/v1/users/ann/pause", {}),
        (lambda paceline: paceline.pause("ann", NOW_MS), "POST", "/api/v1/users/ann/pause", {"until": NOW_MS}),
        (
            lambda paceline: paceline.pause("ann", datetime.fromtimestamp(NOW, timezone.utc)),
            "POST",
            "/api/v1/users/ann/pause",
            {"until": NOW_MS},
        ),
        (lambda paceline: paceline.resume("ann"), "POST", "/api/v1/users/ann/resume", {}),
    ],
)
def test_a_lane_is_looked_after(do: Callable[[Paceline], Any], method: str, path: str, body: Any) -> None:
    server = Server(problem(503), answer(lane()))
    found = do(client(server))
    assert found.policies[0].window_seconds == 1
    assert found.starts == (NOW_MS,)
    assert {(request.method, request.url.path) for request in server.requests} == {(method, path)}
    assert [json.loads(request.content or b"null") for request in server.requests] == [body] * 2


def test_a_pause_until_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        client(Server(answer(lane()))).pause("ann", datetime(2030, 1, 1))


def test_a_running_task_that_is_cancelled_still_runs() -> None:
    server = Server(answer(task("running", cancel_requested_at=NOW_MS), 202))
    asked = client(server).cancel("ann", "id-1")
    assert (asked.state, asked.cancel_requested_at, asked.has_ended) == ("running", NOW_MS, False)


def test_the_progress_of_a_running_task_is_read() -> None:
    progress = {"fraction": 0.4, "text": "page 3", "at": NOW_MS, "of a newer server": 1}
    found = client(Server(answer(task("running", progress=progress)))).task("ann", "id-1")
    assert found.progress == Progress(0.4, "page 3", NOW_MS)
    assert client(Server(answer(task("running", progress=None)))).task("ann", "id-1").progress is None


def test_a_cancel_that_comes_too_late_says_so() -> None:
    server = Server(problem(409, "The task has started", detail="It is succeeded; only waiting tasks end so."))
    with pytest.raises(ConflictError, match="succeeded"):
        client(server).cancel("ann", "id-1")
    assert [request.method for request in server.requests] == ["DELETE"]


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ("a/b?c#d%41", "/api/v1/users/a%2Fb%3Fc%23d%2541"),
        ("..", "/api/v1/users/%20.."),
        ("a.b", "/api/v1/users/a.b"),
    ],
)
def test_a_user_id_stays_one_part_of_the_path(user: str, path: str) -> None:
    server = Server(answer(lane()))
    client(server, base_url="https://id.execute-api.test/api/").lane(user)
    assert server.requests[0].url.raw_path.decode() == f"/api{path}"


def test_health_is_told_also_when_it_is_bad() -> None:
    server = Server(answer({"status": "unavailable", "dynamodb": "ok", "sqs": "it does not answer"}, 503))
    health = client(server).health()
    assert (health.is_ok, health.sqs, len(server.requests)) == (False, "it does not answer", 1)


@pytest.mark.parametrize(("failure", "kind"), [(LOST, UnavailableError), (httpx.Response(503), ProblemError)])
def test_health_of_what_does_not_answer_is_an_error(failure: Answer, kind: type[PacelineError]) -> None:
    with pytest.raises(kind):
        client(Server(failure)).health()


def test_threads_share_a_client() -> None:
    server = Server(lambda request: answer(submitted(json.loads(request.content)["payload"]), 202))
    paceline = Paceline("http://paceline.test", transport=httpx.MockTransport(server))
    with ThreadPoolExecutor(16) as pool:
        submitted_tasks: Sequence[Any] = list(pool.map(lambda n: paceline.submit("ann", n), range(200)))
    assert [one.seq for one in submitted_tasks] == list(range(200))


def test_calls_of_one_loop_share_a_client() -> None:
    async def submit_all() -> Sequence[Any]:
        async with AsyncPaceline("http://paceline.test", transport=httpx.MockTransport(server)) as paceline:
            return await asyncio.gather(*(paceline.submit("ann", n) for n in range(200)))

    server = Server(lambda request: answer(submitted(json.loads(request.content)["payload"]), 202))
    assert [one.seq for one in asyncio.run(submit_all())] == list(range(200))
