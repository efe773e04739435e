"""The API's description, OpenAPI 3.1: one table of operations, with bodies from the types that check requests.

Imported by the first request for it, so that submits don't pay for it.
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
    Problem,
    QuotaProblem,
    SubmitRequest,
    TaskAnswer,
    TaskListAnswer,
)
from chalicelib.core.task import TaskState
from chalicelib.core.users import USER_PATTERN
from chalicelib.submit.submission import SubmittedTask

VERSION = "1.0.0"
JSON = "application/json"
PROBLEM = "application/problem+json"

Object = dict[str, Any]


class Answer(msgspec.Struct, frozen=True):
    """The answer with one status. form: None for a body other than JSON."""

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
    #: without a token, also with AUTH=jwt
    is_public: bool = False


def ok(form: type, description: str, *headers: str) -> Answer:
    return Answer(description, form, JSON, headers)


def text(description: str, media_type: str = "text/plain") -> Answer:
    return Answer(description, None, media_type)


PACE_HEADERS = ("RateLimit-Policy", "RateLimit", "Retry-After")
UNAVAILABLE = {503: Answer("AWS is not available; nothing was promised.", headers=("Retry-After",))}
GUARDED = {
    401: Answer("With AUTH=jwt: the token is missing or not accepted.", headers=("WWW-Authenticate",)),
    403: Answer("With AUTH=jwt: the token does not allow this.", headers=("WWW-Authenticate",)),
}
#: Answers that every request about one user can get.
COMMON = GUARDED | UNAVAILABLE | {400: Answer("The user id is not valid.")}
#: Answers that every request with a body can get.
BODY = {
    400: Answer("The request can't be read, or does not name a user."),
    413: Answer("The body or the payload is too large."),
    415: Answer("The body is not JSON."),
    422: Answer("A value is not allowed."),
}
IDEMPOTENT = {409: Answer("The first request with this Idempotency-Key is still being served.")}
SUBMIT_PARAMETERS = ("userId", "Prefer", "Idempotency-Key")
NO_TASK = {404: Answer("The user does not have this task.")}


def submits(accepted: Answer, limited: str, headers: Sequence[str]) -> Mapping[int, Answer]:
    over = Answer(limited, QuotaProblem, headers=tuple(headers))
    return COMMON | BODY | IDEMPOTENT | {202: accepted, 429: over}


SUBMIT_HEADERS = ("Location", *PACE_HEADERS, "Idempotency-Replayed")
SUBMIT_ONE = submits(
    ok(
        SubmittedTask,
        "The task is queued and may start now, or waits and the client asked for 202.",
        *SUBMIT_HEADERS,
    ),
    "Over the limit. `queued` is true if the task waits in line, and then Location names it.",
    SUBMIT_HEADERS,
)
SUBMIT_MANY = submits(
    ok(BulkAnswer, "The tasks are queued.", *SUBMIT_HEADERS[1:]),
    "Over the limit. `queued` is true if the tasks wait in line.",
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
        "Get a task",
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
            409: Answer("The task has started or ended, or too many cancelled tasks wait to be skipped."),
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
        "Pause a lane, or pause it until a time; after the answer nothing starts",
        COMMON | BODY | LANE,
        ("user",),
        PauseRequest,
        False,
    ),
    Operation("POST", "/api/v1/users/{user}/resume", "resumeLane", "Resume a lane", COMMON | LANE, ("user",)),
    Operation(
        "GET",
        "/api/v1/lanes",
        "listLanes",
        "List lanes, active ones first, and their sums",
        GUARDED | UNAVAILABLE | {200: ok(LanesAnswer, "One page."), 422: Answer("A parameter is not allowed.")},
        ("search", "lanes.limit", "lanes.before"),
    ),
    Operation("GET", "/health-check", "healthCheck", "Check that a process runs", {200: text("`OK`")}, is_public=True),
    Operation(
        "GET",
        "/health",
        "health",
        "Check DynamoDB and SQS",
        GUARDED
        | {
            200: ok(HealthAnswer, "Both services answer."),
            503: ok(HealthAnswer, "A service fails; its field has the error."),
        },
    ),
    Operation(
        "GET",
        "/kill",
        "kill",
        "Kill the process that answers; needs ALLOW_KILL=true",
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

#: By name. `lanes.limit` is a parameter `limit` with a description of its own.
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
        "description": "The most tasks on a page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 50},
    },
    "before": {
        "in": "query",
        "description": "The value of `next` of the page before.",
        "schema": {"type": "string", "pattern": "^[0-9a-f-]{1,64}$"},
    },
    "search": {
        "in": "query",
        "description": "The beginning of the user ids.",
        "schema": {"type": "string", "pattern": "^[!-~]{0,128}$"},
    },
    "lanes.limit": {
        "in": "query",
        "description": "The most lanes on a page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 50, "default": 25},
    },
    "lanes.before": {
        "in": "query",
        "description": "The value of `next` of the page before.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,6}$"},
    },
    "Prefer": {
        "in": "header",
        "description": "Over the limit: `respond-async` queues and answers 202, `handling=strict` refuses.",
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
        "description": "Starts left of each limit, and the seconds until there are more.",
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
    """The description as JSON text. base_path: path of the API, such as `/` or API Gateway's `/api`."""
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
        # The empty alternative stands for AUTH=none.
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
