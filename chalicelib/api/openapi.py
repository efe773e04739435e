"""The API's own description, OpenAPI 3.1: one table of operations, their bodies from the types that check requests.

Imported when somebody first asks for it, so that no submit pays for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from chalicelib.api.schema import (
    BulkAnswer,
    BulkRequest,
    HealthAnswer,
    LaneAnswer,
    LanesAnswer,
    LimitsRequest,
    PauseRequest,
    PlaceAnswer,
    Problem,
    QuotaProblem,
    SubmitRequest,
    TaskAnswer,
    TaskListAnswer,
)
from chalicelib.core.task import TaskState
from chalicelib.core.users import USER_PATTERN

VERSION = "1.0.0"
JSON = "application/json"
PROBLEM = "application/problem+json"

Object = dict[str, Any]


class Answer(msgspec.Struct, frozen=True):
    """What one status means. form: None for a body that is no JSON."""

    description: str
    form: type | None = Problem
    media_type: str = PROBLEM
    headers: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True):
    method: str
    path: str
    #: its operationId
    name: str
    summary: str
    answers: Mapping[int, Answer]
    parameters: tuple[str, ...] = ()
    request: type | None = None
    request_required: bool = True
    #: anybody may ask, whatever AUTH says
    is_public: bool = False


def ok(form: type, description: str, *headers: str) -> Answer:
    return Answer(description, form, JSON, headers)


def text(description: str, media_type: str = "text/plain") -> Answer:
    return Answer(description, None, media_type)


PACE_HEADERS = ("RateLimit-Policy", "RateLimit", "Retry-After")
UNAVAILABLE = {503: Answer("AWS is not available; nothing was promised.", headers=("Retry-After",))}
GUARDED = {
    401: Answer("With AUTH=jwt: no token, or one that is not accepted.", headers=("WWW-Authenticate",)),
    403: Answer("With AUTH=jwt: this token may not do that.", headers=("WWW-Authenticate",)),
}
#: What every request about one user may get.
COMMON = GUARDED | UNAVAILABLE | {400: Answer("The user id is none.")}
#: What every request with a body may get.
BODY = {
    400: Answer("The request can't be read, or names no user."),
    413: Answer("The body or the payload is too large."),
    415: Answer("The body is not JSON."),
    422: Answer("A value is not allowed."),
}
IDEMPOTENT = {409: Answer("The first request with this Idempotency-Key is still being served.")}
SUBMIT_PARAMETERS = ("userId", "Prefer", "Idempotency-Key")
NO_TASK = {404: Answer("This user has no such task.")}


def submits(accepted: Answer, limited: str, headers: Sequence[str]) -> Mapping[int, Answer]:
    over = Answer(limited, QuotaProblem, headers=tuple(headers))
    return COMMON | BODY | IDEMPOTENT | {202: accepted, 429: over}


SUBMIT_HEADERS = ("Location", *PACE_HEADERS, "Idempotency-Replayed")
SUBMIT_ONE = submits(
    ok(PlaceAnswer, "The task has its place and may start now, or waits and that was asked for.", *SUBMIT_HEADERS),
    "Over the limit. `queued` says whether the task waits in line all the same; Location is there if it does.",
    SUBMIT_HEADERS,
)
SUBMIT_MANY = submits(
    ok(BulkAnswer, "The tasks have their places.", *SUBMIT_HEADERS[1:]),
    "Over the limit. `queued` says whether the tasks wait in line all the same.",
    SUBMIT_HEADERS[1:],
)
LANE = {200: ok(LaneAnswer, "The lane as it is now.")}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST", "/api/v1/task", "submitTask", "Submit one task", SUBMIT_ONE, SUBMIT_PARAMETERS, SubmitRequest, False
    ),
    Operation(
        "POST", "/task", "submitTaskShort", "The same, shorter", SUBMIT_ONE, SUBMIT_PARAMETERS, SubmitRequest, False
    ),
    Operation(
        "POST",
        "/api/v1/tasks",
        "submitTasks",
        "Submit many tasks of one user, all or none",
        SUBMIT_MANY,
        SUBMIT_PARAMETERS,
        BulkRequest,
    ),
    Operation(
        "GET",
        "/api/v1/users/{user}/tasks/{task_id}",
        "getTask",
        "Where a task stands",
        COMMON | NO_TASK | {200: ok(TaskAnswer, "The task.")},
        ("user", "task_id"),
    ),
    Operation(
        "DELETE",
        "/api/v1/users/{user}/tasks/{task_id}",
        "cancelTask",
        "Cancel a task that has not started",
        COMMON
        | NO_TASK
        | {
            200: ok(TaskAnswer, "The task, cancelled now or before."),
            409: Answer("The task has started or ended, or too many cancelled tasks wait to be passed over."),
        },
        ("user", "task_id"),
    ),
    Operation(
        "GET",
        "/api/v1/users/{user}/tasks",
        "listTasks",
        "A user's tasks, newest first",
        COMMON | {200: ok(TaskListAnswer, "One page."), 422: Answer("A parameter is not allowed.")},
        ("user", "state", "limit", "before"),
    ),
    Operation("GET", "/api/v1/users/{user}", "getLane", "A user's lane", COMMON | LANE, ("user",)),
    Operation(
        "PUT",
        "/api/v1/users/{user}/limits",
        "putLimits",
        "Give a user limits of its own, in force from the next start on",
        COMMON | BODY | LANE,
        ("user",),
        LimitsRequest,
    ),
    Operation(
        "DELETE",
        "/api/v1/users/{user}/limits",
        "deleteLimits",
        "Give a user the deployment's limits again",
        COMMON | LANE,
        ("user",),
    ),
    Operation(
        "POST",
        "/api/v1/users/{user}/pause",
        "pauseLane",
        "Hold a lane, or hold it until a time; nothing starts once this is answered",
        COMMON | BODY | LANE,
        ("user",),
        PauseRequest,
        False,
    ),
    Operation("POST", "/api/v1/users/{user}/resume", "resumeLane", "Let a lane go on", COMMON | LANE, ("user",)),
    Operation(
        "GET",
        "/api/v1/lanes",
        "listLanes",
        "All lanes, those that move first, and what they add up to",
        GUARDED | UNAVAILABLE | {200: ok(LanesAnswer, "One page."), 422: Answer("A parameter is not allowed.")},
        ("search", "lanes.limit", "lanes.before"),
    ),
    Operation("GET", "/health-check", "healthCheck", "Whether a process answers", {200: text("`OK`")}, is_public=True),
    Operation(
        "GET",
        "/health",
        "health",
        "How DynamoDB and SQS are",
        GUARDED
        | {200: ok(HealthAnswer, "All is well."), 503: ok(HealthAnswer, "Something is not; its field says what.")},
    ),
    Operation(
        "GET",
        "/kill",
        "kill",
        "End the process that answers, where ALLOW_KILL=true",
        GUARDED | {404: Answer("ALLOW_KILL is not true."), 503: UNAVAILABLE[503]},
    ),
    Operation(
        "GET",
        "/openapi.json",
        "openapi",
        "This description",
        {200: Answer("OpenAPI 3.1.", dict, JSON)},
        is_public=True,
    ),
)

#: By name; of those with a dot, the name is what follows it.
PARAMETERS: Mapping[str, Object] = {
    "user": {
        "in": "path",
        "required": True,
        "description": "The user id, percent-encoded.",
        "schema": {"type": "string", "pattern": USER_PATTERN},
    },
    "task_id": {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
    "userId": {
        "in": "query",
        "description": "The user, instead of `user_id` in the body.",
        "schema": {"type": "string", "pattern": USER_PATTERN},
    },
    "state": {
        "in": "query",
        "description": "Only tasks in this state.",
        "schema": {"type": "string", "enum": [state.value for state in TaskState]},
    },
    "limit": {
        "in": "query",
        "description": "How many tasks at most.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 50},
    },
    "before": {
        "in": "query",
        "description": "What `next` of the page before said.",
        "schema": {"type": "string", "pattern": "^[0-9a-f-]{1,64}$"},
    },
    "search": {
        "in": "query",
        "description": "What the user ids are to begin with.",
        "schema": {"type": "string", "pattern": "^[!-~]{0,128}$"},
    },
    "lanes.limit": {
        "in": "query",
        "description": "How many lanes at most.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 50, "default": 25},
    },
    "lanes.before": {
        "in": "query",
        "description": "What `next` of the page before said.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,6}$"},
    },
    "Prefer": {
        "in": "header",
        "description": "What to do over the limit: `respond-async` queues and answers 202, `handling=strict` refuses.",
        "schema": {"type": "string", "examples": ["respond-async", "handling=strict"]},
    },
    "Idempotency-Key": {
        "in": "header",
        "description": "The same request with the same key runs once and gets the same answer for a week.",
        "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    },
}

HEADERS: Mapping[str, Object] = {
    "Location": {"description": "The task.", "schema": {"type": "string", "format": "uri-reference"}},
    "RateLimit-Policy": {
        "description": "The limits in force, as draft-ietf-httpapi-ratelimit-headers-10 has it.",
        "schema": {"type": "string", "examples": ['"second";q=1;w=1, "minute";q=20;w=60']},
    },
    "RateLimit": {
        "description": "What is left of each limit, and the seconds until there is more.",
        "schema": {"type": "string", "examples": ['"second";r=0;t=1, "minute";r=19;t=60']},
    },
    "Retry-After": {"description": "Seconds, rounded up.", "schema": {"type": "integer", "minimum": 0}},
    "Idempotency-Replayed": {
        "description": "This is the answer that the first request with this key got.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}},
}


@lru_cache(maxsize=4)
def document(base_path: str = "/") -> str:
    """The description as JSON text. base_path: where the API is, such as `/` or API Gateway's `/api`."""
    schemas, components = _schemas({form for operation in OPERATIONS for form in _forms(operation)})
    paths: dict[str, Object] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schemas)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Paceline",
                "version": VERSION,
                "description": "A task queue that keeps every user to a pace. Times are epoch milliseconds.",
            },
            "servers": [{"url": base_path}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            },
        }
    ).decode()


def _forms(operation: Operation) -> Iterable[type]:
    if operation.request:
        yield operation.request
    yield from (answer.form for answer in operation.answers.values() if answer.form)


def _schemas(forms: Iterable[type]) -> tuple[Mapping[type, Object], Object]:
    ordered = sorted(forms, key=lambda form: form.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    return dict(zip(ordered, schemas, strict=True)), components


def _described(operation: Operation, schemas: Mapping[type, Object]) -> Object:
    described: Object = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {str(status): _response(answer, schemas) for status, answer in sorted(operation.answers.items())},
        # A token, or none: AUTH=none asks for none.
        "security": [] if operation.is_public else [{}, {"token": []}],
    }
    if operation.parameters:
        described["parameters"] = [
            {"name": name.rpartition(".")[2], **PARAMETERS[name]} for name in operation.parameters
        ]
    if operation.request:
        content = {JSON: {"schema": schemas[operation.request]}}
        described["requestBody"] = {"required": operation.request_required, "content": content}
    return described


def _response(answer: Answer, schemas: Mapping[type, Object]) -> Object:
    schema = schemas[answer.form] if answer.form else {"type": "string"}
    described: Object = {"description": answer.description, "content": {answer.media_type: {"schema": schema}}}
    if answer.headers:
        described["headers"] = {name: HEADERS[name] for name in answer.headers}
    return described
