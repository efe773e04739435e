"""The requests of the first hour to API Gateway, each with the answer that the contract promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from operations.first_hour.stage import ORIGIN, Api

PROBLEM = "application/problem+json"
#: Contains all that a path must encode: a slash, a percent sign, a question mark, a hash; and a plus.
ODD_USER = "a/b%c?d#e+f"


@dataclass(frozen=True)
class Check:
    """One request, and the answer that the contract promises."""

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
        # Five tasks wait for seconds, so the next submit is over the limit however slow the answers are.
        Check(
            "a bulk submit",
            "POST",
            "/api/v1/tasks",
            202,
            {"preference-applied": "respond-async"},
            {"user_id": user, "tasks": [{"payload": {"n": n}} for n in range(5)]},
            {"Prefer": "respond-async"},
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
            "an invalid user id",
            "POST",
            "/api/v1/task",
            400,
            {"content-type": PROBLEM},
            {"user_id": "a b"},
            field=("title", "Invalid user ID"),
        ),
        Check(
            "a submit for another user, without the scope",
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
