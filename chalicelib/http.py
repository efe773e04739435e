"""Requests in, answers and headers out, and the one table of errors. Knows Chalice's request and response only."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

from chalice.app import Request, Response

from chalicelib.errors import (
    ConflictError,
    InvalidError,
    MalformedError,
    MediaTypeError,
    NotFoundError,
    RequestError,
    TooLargeError,
    UnavailableError,
)
from chalicelib.limits import Limit, Limits, used
from chalicelib.settings import OverLimit, Settings
from chalicelib.submit import NewTask, Refused, Submitted, TaskView, next_within_limits
from chalicelib.tasks import DEFAULT_TASK, Registry

PROBLEM = "application/problem+json"
Headers = dict[str, str | list[str]]
JSON: Headers = {"Content-Type": "application/json"}
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
#: Characters of a user id: those that SQS allows in a message group id.
USER_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
)
#: What a body may hold beside the payload.
ENVELOPE_BYTES = 4_096
#: Seconds after which a client may come again when AWS was not available.
RETRY_UNAVAILABLE = "1"

#: The status of each error. The first class that fits decides.
PROBLEMS: tuple[tuple[type[Exception], int], ...] = (
    (MalformedError, 400),
    (NotFoundError, 404),
    (ConflictError, 409),
    (TooLargeError, 413),
    (MediaTypeError, 415),
    (InvalidError, 422),
    (UnavailableError, 503),
)

Body = dict[str, Any]


def problem(status: int, title: str, detail: str = "", field: str | None = None, **headers: str) -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail or title}
    if field is not None:
        body["field"] = field
    return _problem_response(body, {name.replace("_", "-"): value for name, value in headers.items()})


def _problem_response(body: Body, headers: Mapping[str, str]) -> Response:
    # A body of text, since Chalice would write a dict with spaces and leave its content type to chance.
    return Response(json.dumps(body), {"Content-Type": PROBLEM, **headers}, body["status"])


def problem_of(error: Exception) -> Response:
    """The answer to an error of ours; any other error is raised again, as the defect that it is."""
    for kind, status in PROBLEMS:
        if isinstance(error, kind):
            if isinstance(error, RequestError):
                return problem(status, error.title, error.detail, error.field)
            detail = "A service behind Paceline did not answer. Nothing was promised; try again."
            return problem(status, "Service unavailable", detail, Retry_After=RETRY_UNAVAILABLE)
    raise error


def answered(view: Callable[[], Response]) -> Response:
    """The view's answer, or the problem that it ran into."""
    try:
        return view()
    except tuple(kind for kind, _ in PROBLEMS) as error:
        return problem_of(error)


def read_submit(request: Request, settings: Settings, registry: Registry) -> NewTask:
    """The task that a request asks for. A RequestError says what is wrong, in which field, and what is allowed."""
    body = _json_object(request, settings.max_payload + ENVELOPE_BYTES)
    user_id = _user_id(request, body)
    name = body.get("task", DEFAULT_TASK)
    if not isinstance(name, str):
        raise MalformedError("The task's name is not text", "`task` has to be the name of a task.", "/task")
    if name not in registry:
        known = ", ".join(registry.names)
        raise InvalidError("No such task", f"There is no task {name[:64]!r}; there are: {known}.", "/task")
    payload = body.get("payload")
    size = len(json.dumps(payload, ensure_ascii=False).encode())
    if size > settings.max_payload:
        raise TooLargeError(
            "The payload is too large",
            f"The payload has {size} bytes as JSON; at most {settings.max_payload} are allowed.",
            "/payload",
        )
    return NewTask(user_id, name, payload)


def _json_object(request: Request, most_bytes: int) -> Body:
    raw = request.raw_body or b""
    if len(raw) > most_bytes:
        raise TooLargeError(
            "The body is too large", f"The body has {len(raw)} bytes; at most {most_bytes} are allowed."
        )
    if not raw.strip():
        return {}
    media_type = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise MediaTypeError(
            "The body has to be JSON", f"{media_type!r} is not read; send application/json.", "Content-Type"
        )
    try:
        body = json.loads(raw, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedError("The body is no JSON", f"{error}"[:300]) from error
    if not isinstance(body, dict):
        raise MalformedError("The body is no JSON object", 'It has to be an object such as {"user_id": "ann"}.')
    return body


def _unique(pairs: list[tuple[str, Any]]) -> Body:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _user_id(request: Request, body: Body) -> str:
    query = dict(request.query_params or {}).get("userId")
    user_id = body.get("user_id", query)
    if user_id is None or user_id == "":
        raise MalformedError("User ID is required", "Name the user as `user_id` in the JSON body.", "/user_id")
    if query is not None and query != user_id:
        raise MalformedError("Two user IDs", "`user_id` in the body and `userId` in the query differ.", "/user_id")
    return checked_user_id(user_id)


def checked_user_id(user_id: Any) -> str:
    """The user id if it is one; MalformedError says what is allowed."""
    if not isinstance(user_id, str) or not 1 <= len(user_id) <= 128 or not USER_CHARACTERS.issuperset(user_id):
        raise MalformedError(
            "Invalid user ID",
            "A user id is 1 to 128 characters: letters, digits and !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
            "/user_id",
        )
    return user_id


def preferences(request: Request, default: OverLimit) -> OverLimit:
    """What to do over the limit, by the Prefer header (RFC 7240); what it does not say is the deployment's choice."""
    prefer = {
        part.split(";")[0].strip().replace(" ", "").lower() for part in request.headers.get("prefer", "").split(",")
    }
    if "handling=strict" in prefer:
        return OverLimit.REJECT
    if "respond-async" in prefer:
        return OverLimit.ACCEPT
    return default


def submit_response(outcome: Submitted | Refused, over_limit: OverLimit) -> Response:
    return _refused(outcome) if isinstance(outcome, Refused) else _submitted(outcome, over_limit)


def _submitted(submitted: Submitted, over_limit: OverLimit) -> Response:
    task = submitted.task
    body: Body = {
        "task_id": task.task_id,
        "user_id": task.user_id,
        "seq": task.seq,
        "position": submitted.position,
        "planned_at": task.planned_at,
        "delay_ms": submitted.delay_ms,
        "queued": submitted.queued,
        "state": "queued",
    }
    before = submitted.planned[1:] if submitted.queued else submitted.planned
    headers = rate_limit_headers(submitted.limits, submitted.planned, before, task.submitted_at)
    headers["Location"] = f"/api/v1/users/{quote(task.user_id, safe='')}/tasks/{task.task_id}"
    if not submitted.queued:
        ready_at = next_within_limits(submitted.limits, submitted.planned, task.submitted_at)
        headers["Retry-After"] = _seconds(ready_at - task.submitted_at)
        return Response(json.dumps(body), {**JSON, **headers}, 202)
    headers["Retry-After"] = _seconds(submitted.delay_ms)
    if over_limit is OverLimit.ACCEPT:
        return Response(json.dumps(body), {**JSON, **headers}, 202)
    violated = _violated(submitted.limits, before, task.submitted_at)
    return _problem_response(
        {
            "type": QUOTA_EXCEEDED,
            "title": "Rate limit exceeded. Task has been queued.",
            "status": 429,
            "detail": f"It is task {submitted.position} in line and starts in about {submitted.delay_ms} ms.",
            "violated-policies": violated,
            **body,
        },
        headers,
    )


def _refused(refused: Refused) -> Response:
    headers = rate_limit_headers(refused.limits, refused.planned, refused.planned, refused.now_ms)
    headers["Retry-After"] = _seconds(max(1, refused.retry_at - refused.now_ms))
    return _problem_response(
        {
            "type": QUOTA_EXCEEDED,
            "title": "Rate limit exceeded. Nothing has been queued.",
            "status": 429,
            "detail": refused.reason,
            "violated-policies": _violated(refused.limits, refused.planned, refused.now_ms),
            "user_id": refused.user_id,
            "queued": False,
        },
        headers,
    )


def rate_limit_headers(
    limits: Limits, planned: tuple[int, ...], before: tuple[int, ...], now_ms: int
) -> dict[str, str]:
    """The RateLimit fields of draft-ietf-httpapi-ratelimit-headers-10.

    planned: newest first, what was just admitted among them. before: the same without a task that has to wait: `t` says
    when the policy lets that task start, so that Retry-After is never before it.
    """
    policies, states = [], []
    for limit in limits:
        policies.append(f'"{limit.name}";q={limit.quota};w={limit.window_seconds}')
        left = limit.quota - used(planned, limit, now_ms)
        states.append(f'"{limit.name}";r={left};t={_reset_seconds(limit, before, now_ms)}')
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


def _reset_seconds(limit: Limit, planned: tuple[int, ...], now_ms: int) -> str:
    """Whole seconds until the policy has more to give, rounded up."""
    taken = used(planned, limit, now_ms)
    return _seconds(planned[taken - 1] + limit.window_ms - now_ms) if taken else "0"


def _violated(limits: Limits, planned: tuple[int, ...], now_ms: int) -> list[str]:
    return [limit.name for limit in limits if used(planned, limit, now_ms) >= limit.quota]


def _seconds(milliseconds: int) -> str:
    return str(max(0, math.ceil(milliseconds / 1000)))


def task_response(view: TaskView) -> Response:
    task, ended = view.record.task, view.record.ended
    body: Body = {
        "task_id": task.task_id,
        "user_id": task.user_id,
        "seq": task.seq,
        "task": task.name,
        "state": view.state.value,
        "position": view.position,
        "planned_at": task.planned_at,
        "estimated_at": view.estimated_at,
        "submitted_at": task.submitted_at,
        "started_at": view.started_at,
        "completed_at": ended.completed_at if ended else None,
        "attempts": view.attempts,
        "result": ended.result if ended else None,
        "error": ended.error if ended else view.record.error,
    }
    return Response(json.dumps(body), JSON, 200)


def path_user_id(user: str) -> str:
    """The user id that a path names; a path carries it percent-encoded."""
    return checked_user_id(unquote(user))


def health_response(services: Iterable[tuple[str, str | None]]) -> Response:
    """200 when all is well, else 503; each service by name with `ok` or what is wrong."""
    states = {name: wrong or "ok" for name, wrong in services}
    status = 200 if all(state == "ok" for state in states.values()) else 503
    return Response(json.dumps({"status": "ok" if status == 200 else "unavailable", **states}), JSON, status)
