"""Compares the answers of API Gateway and of the app behind it with the contract, and measures the stage's pace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from operations.first_hour.findings import Finding, percentile
from operations.first_hour.sizes import Sizes
from operations.first_hour.stage import ORIGIN, Answer, Api

#: Why LocalStack shows nothing about answers that API Gateway itself makes.
ONLY_AWS = "LocalStack ignores gateway responses, authorizers and remapped headers"
PROBLEM = "application/problem+json"
#: Contains all that a path must encode: a slash, a percent sign, a question mark, a hash, a plus.
ODD_USER = "a/b%c?d#e+f"


@dataclass(frozen=True)
class Check:
    """One request, and what the contract says of its answer."""

    label: str
    method: str
    path: str
    status: int
    #: headers by lower-case name, each with a text that its value contains; None if it must be absent
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: Any = None
    sent: Mapping[str, str] = field(default_factory=dict)
    #: a field of the answer's JSON, and its value
    field: tuple[str, Any] | None = None
    #: API Gateway makes or changes the answer
    is_gateways: bool = False


def checks(api: Api, run: str) -> tuple[Check, ...]:
    """Returns the checks, in order; run: tells this run's users from those of others."""
    user, odd = f"gateway-{run}", f"{ODD_USER}-{run}"
    preflight = {"Access-Control-Request-Method": "POST", "Authorization": "", "Content-Type": ""}
    unscoped = {"Authorization": f"Bearer {api.signer.token(user)}"}
    allowed = {"access-control-allow-origin": ORIGIN}
    return (
        Check("an unknown route", "GET", "/no-such-path", 404, {"content-type": PROBLEM}, is_gateways=True),
        Check("another method of a route", "PATCH", "/health-check", 404, {"content-type": PROBLEM}, is_gateways=True),
        Check(
            "an error of the gateway, for an allowed origin",
            "GET",
            "/no-such-path",
            404,
            allowed,
            sent={"Origin": ORIGIN},
            is_gateways=True,
        ),
        Check(
            "without a token",
            "GET",
            "/api/v1/lanes",
            401,
            {"www-authenticate": "Bearer", "content-type": PROBLEM},
            sent={"Authorization": ""},
            is_gateways=True,
        ),
        Check(
            "with a wrong token",
            "GET",
            "/api/v1/lanes",
            401,
            {"www-authenticate": "Bearer", "content-type": PROBLEM},
            sent={"Authorization": "Bearer x.y.z"},
            is_gateways=True,
        ),
        Check(
            "a token without the scope",
            "GET",
            "/api/v1/lanes",
            403,
            {"x-amzn-remapped-www-authenticate": "insufficient_scope"},
            sent=unscoped,
            is_gateways=True,
        ),
        Check("a token without the scope: body", "GET", "/api/v1/lanes", 403, {"content-type": PROBLEM}, sent=unscoped),
        Check(
            "a submit within the limits",
            "POST",
            "/api/v1/task",
            202,
            {
                "ratelimit": '"second";r=',
                "ratelimit-policy": '"second";q=1;w=1',
                "location": f"/api/v1/users/{user}/tasks/",
            },
            {"user_id": user},
            field=("position", 0),
        ),
        Check(
            "a submit over the limit",
            "POST",
            "/api/v1/task",
            429,
            {"retry-after": "", "content-type": PROBLEM},
            {"user_id": user},
            field=("queued", True),
        ),
        Check(
            "the same with Prefer: respond-async",
            "POST",
            "/api/v1/task",
            202,
            {"preference-applied": "respond-async"},
            {"user_id": user},
            {"Prefer": "respond-async"},
        ),
        Check("a body that is not JSON", "POST", "/api/v1/task", 400, {"content-type": PROBLEM}, "{"),
        Check(
            "a body of another type",
            "POST",
            "/api/v1/task",
            415,
            {"content-type": PROBLEM},
            "x",
            {"Content-Type": "text/plain"},
        ),
        Check(
            "a user that is none",
            "POST",
            "/api/v1/task",
            400,
            {"content-type": PROBLEM},
            {"user_id": "a b"},
            field=("title", "Invalid user ID"),
        ),
        Check(
            "another user, without the scope",
            "POST",
            "/api/v1/task",
            403,
            {"content-type": PROBLEM},
            {"user_id": "other"},
            unscoped,
        ),
        Check(
            f"the user {ODD_USER} in a path",
            "GET",
            f"/api/v1/users/{quote(odd, safe='')}",
            200,
            {},
            field=("user_id", odd),
        ),
        Check("the user a+b, not encoded", "GET", f"/api/v1/users/a+b-{run}", 200, {}, field=("user_id", f"a+b-{run}")),
        Check(
            "preflight from an allowed origin",
            "OPTIONS",
            "/api/v1/task",
            204,
            {**allowed, "access-control-allow-methods": "POST", "access-control-allow-headers": "Idempotency-Key"},
            sent={**preflight, "Origin": ORIGIN},
        ),
        Check(
            "preflight from another origin",
            "OPTIONS",
            "/api/v1/task",
            204,
            {"access-control-allow-origin": None},
            sent={**preflight, "Origin": "https://other.example"},
        ),
        Check(
            "an answer to an allowed origin",
            "GET",
            "/health-check",
            200,
            {**allowed, "access-control-expose-headers": "Retry-After", "vary": "Origin"},
            sent={"Origin": ORIGIN},
        ),
        Check(
            "headers of every answer",
            "GET",
            "/health-check",
            200,
            {"cache-control": "no-store", "x-content-type-options": "nosniff", "content-type": "text/plain"},
        ),
        Check("the dashboard", "GET", "/", 200, {"content-type": "text/html", "content-security-policy": ""}),
    )


def gateway(api: Api, run: str, *, is_aws: bool) -> list[Finding]:
    """Makes each check's request and compares the answer."""
    findings = []
    for check in checks(api, run):
        answer = api.call(check.method, check.path, check.body, check.sent)
        found = compared(check, answer)
        findings.append(found.elsewhere(ONLY_AWS) if check.is_gateways and not is_aws else found)
    return findings


def compared(check: Check, answer: Answer) -> Finding:
    """Returns the finding of one answer: the whole expectation, and each part that differs."""
    differences = [] if answer.status == check.status else [f"status {answer.status}"]
    for name, part in check.headers.items():
        value = answer.headers.get(name)
        if (value is not None) if part is None else (value is None or part not in value):
            differences.append(f"{name}: {value}")
    if check.field and (found := _field(answer, check.field[0])) != check.field[1]:
        differences.append(f"{check.field[0]} {found!r}")
    value = "; ".join(differences) or f"{answer.status}, as the contract says"
    return Finding(check.label, value, _expectation(check), not differences)


def _field(answer: Answer, name: str) -> Any:
    try:
        return answer.body.get(name)
    except ValueError:
        return answer.text[:60]


def _expectation(check: Check) -> str:
    headers = [f"{name}: {'absent' if part is None else part or 'any'}" for name, part in check.headers.items()]
    fields = [f"{check.field[0]} {check.field[1]!r}"] if check.field else []
    return "; ".join([str(check.status), *headers, *fields])


def pace(api: Api, sizes: Sizes, run: str, now: Callable[[], float], sleep: Callable[[float], None]) -> list[Finding]:
    """Submits tasks of several users to the stage, and measures how late they start and how far apart."""
    count, tasks = sizes.paced
    users = [f"paced-{n}-{run}" for n in range(count)]
    for user in users:
        body = {"user_id": user, "tasks": [{"payload": {"n": n}} for n in range(tasks)]}
        answer = api.call("POST", "/api/v1/tasks", body, {"Prefer": "respond-async"})
        if answer.status != 202:
            raise RuntimeError(f"a bulk submit was answered {answer.status}: {answer.text[:200]}")
    deadline = now() + 60 + 10 * tasks
    ended = {user: _ended(api, user, tasks, now, deadline, sleep) for user in users}
    return _pace_findings(ended, count * tasks)


def _ended(
    api: Api, user: str, count: int, now: Callable[[], float], deadline: float, sleep: Callable[[float], None]
) -> list[dict[str, Any]]:
    """Returns the user's tasks that have ended, in their order, once all have or the time is over."""
    while True:
        listed = api.call("GET", f"/api/v1/users/{user}/tasks").body["tasks"]
        ended = sorted((one for one in listed if one["state"] == "succeeded"), key=lambda one: int(one["seq"]))
        if len(ended) == count or now() > deadline:
            return ended
        sleep(1)


def _pace_findings(ended: Mapping[str, list[dict[str, Any]]], count: int) -> list[Finding]:
    late = [one["started_at"] - one["planned_at"] for tasks in ended.values() for one in tasks]
    gaps = [after["started_at"] - before["started_at"] for tasks in ended.values() for before, after in pairwise(tasks)]
    if not late:
        raise TimeoutError("no task of the stage succeeded")
    return [
        Finding("stage: tasks that succeeded", len(late), str(count), len(late) == count),
        Finding(
            "stage: ms between two starts of a user at 1/second, least", min(gaps), "1000 or more", min(gaps) >= 1000
        ),
        Finding("stage: ms from planned start to start, median", percentile(late, 50)),
        Finding(
            "stage: ms from planned start to start, p99",
            percentile(late, 99),
            "below 5000, the alarm late-starts",
            percentile(late, 99) < 5000,
        ),
    ]
