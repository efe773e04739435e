"""Builds the API's OpenAPI 3.1 document from one table of operations and the types that validate requests.

Imported on the first request for it, so that submits don't pay for the import.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from chalicelib.api.operations import BODY, COMMON, GUARDED, JSON, UNAVAILABLE, Answer, Operation, ok, text
from chalicelib.api.schema import (
    BulkAnswer,
    BulkRequest,
    EmptiedAnswer,
    ForgottenAnswer,
    GroupRequest,
    HealthAnswer,
    LaneAnswer,
    LanesAnswer,
    LimitsRequest,
    PauseRequest,
    QuotaProblem,
    RedriveAnswer,
    RedriveRequest,
    ScheduleAnswer,
    ScheduleListAnswer,
    ScheduleRequest,
    SubmitRequest,
    TaskAnswer,
    TaskListAnswer,
    UserRedriveRequest,
)
from chalicelib.api.shared_operations import SHARED_OPERATIONS
from chalicelib.core.names import NAME_PATTERN
from chalicelib.core.task import TaskState
from chalicelib.core.users import USER_PATTERN
from chalicelib.submit.submission import SubmittedTask

VERSION = "1.0.0"

Object = dict[str, Any]

PACE_HEADERS = ("RateLimit-Policy", "RateLimit", "Retry-After")
IDEMPOTENT = {409: Answer("The first request with this Idempotency-Key is still running.")}
SUBMIT_PARAMETERS = ("userId", "Prefer", "Idempotency-Key")
NO_TASK = {404: Answer("The user has no task with this id.")}


def submits(accepted: Answer, limited: str, headers: Sequence[str]) -> Mapping[int, Answer]:
    over = Answer(limited, QuotaProblem, headers=tuple(headers))
    return COMMON | BODY | IDEMPOTENT | {202: accepted, 429: over}


SUBMIT_HEADERS = ("Location", *PACE_HEADERS, "Preference-Applied", "Idempotency-Replayed")
SUBMIT_ONE = submits(
    ok(SubmittedTask, "The task is queued: it may start now, or the client asked for 202.", *SUBMIT_HEADERS),
    "Over the limit. `queued` says whether the task is queued all the same; Location is set if it is.",
    SUBMIT_HEADERS,
)
SUBMIT_MANY = submits(
    ok(BulkAnswer, "The tasks are queued.", *SUBMIT_HEADERS[1:]),
    "Over the limit. `queued` says whether the tasks are queued all the same.",
    SUBMIT_HEADERS[1:],
)
SCHEDULE = {200: ok(ScheduleAnswer, "The schedule.")}
NO_SCHEDULE = {404: Answer("The user has no schedule with this name."), 422: Answer("The name is invalid.")}
LANE = {200: ok(LaneAnswer, "The lane's current state.")}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST", "/api/v1/task", "submitTask", "Submit one task", SUBMIT_ONE, SUBMIT_PARAMETERS, SubmitRequest, False
    ),
    Operation(
        "POST", "/task", "submitTaskShort", "Submit one task", SUBMIT_ONE, SUBMIT_PARAMETERS, SubmitRequest, False
    ),
    Operation(
        "POST",
        "/api/v1/tasks",
        "submitTasks",
        "Submit up to 100 tasks of one user, all or none",
        SUBMIT_MANY,
        SUBMIT_PARAMETERS,
        BulkRequest,
    ),
    Operation(
        "GET",
        "/api/v1/users/{user}/tasks/{task_id}",
        "getTask",
        "Get a task's state and position",
        COMMON | NO_TASK | {200: ok(TaskAnswer, "The task.")},
        ("user", "task_id"),
    ),
    Operation(
        "DELETE",
        "/api/v1/users/{user}/tasks/{task_id}",
        "cancelTask",
        "Cancel a task, or ask a running one to stop",
        COMMON
        | NO_TASK
        | {
            200: ok(TaskAnswer, "The task is cancelled, by this request or an earlier one."),
            202: ok(TaskAnswer, "The task is running and is asked to stop; it takes no further attempt."),
            409: Answer("The task has ended otherwise, or the lane has too many open cancellations."),
        },
        ("user", "task_id"),
    ),
    Operation(
        "GET",
        "/api/v1/users/{user}/tasks",
        "listTasks",
        "List a user's tasks, newest first",
        COMMON | {200: ok(TaskListAnswer, "One page."), 422: Answer("A parameter is invalid.")},
        ("user", "state", "limit", "before"),
    ),
    Operation(
        "GET",
        "/api/v1/tasks",
        "listFailedTasks",
        "List the failed tasks of all users, the newest failure first",
        GUARDED
        | UNAVAILABLE
        | {
            200: ok(TaskListAnswer, "One page."),
            400: Answer("A parameter is given twice."),
            422: Answer("A parameter is invalid."),
        },
        ("failed.state", "limit", "before"),
    ),
    Operation(
        "POST",
        "/api/v1/users/{user}/tasks/{task_id}/redrive",
        "redriveTask",
        "Submit a failed task again, once however often this is repeated",
        COMMON
        | NO_TASK
        | {
            202: ok(SubmittedTask, "The task is submitted again, by this request or an earlier one.", *SUBMIT_HEADERS),
            409: Answer("The task has not failed, or can't be submitted again."),
            429: Answer("Over the limit. `queued` says whether it is queued.", QuotaProblem, headers=SUBMIT_HEADERS),
        },
        ("user", "task_id", "Prefer"),
    ),
    Operation(
        "POST",
        "/api/v1/users/{user}/redrive",
        "redriveTasksOfUser",
        "Submit a user's failed tasks again, each once, up to 50 for each request",
        COMMON | BODY | {200: ok(RedriveAnswer, "What was done; `next` if more follow."), 409: IDEMPOTENT[409]},
        ("user", "Prefer"),
        UserRedriveRequest,
        False,
    ),
    Operation(
        "POST",
        "/api/v1/redrive",
        "redriveTasks",
        "Submit the tasks again that failed since a time, each once, up to 50 for each request",
        GUARDED | UNAVAILABLE | BODY | {200: ok(RedriveAnswer, "What was done; `next` if more follow."), **IDEMPOTENT},
        ("Prefer",),
        RedriveRequest,
    ),
    Operation(
        "DELETE",
        "/api/v1/users/{user}/tasks",
        "emptyLane",
        "Cancel all waiting and scheduled tasks of a user, however many; running ones go on",
        COMMON | {200: ok(EmptiedAnswer, "The lane, emptied."), 422: Answer("The parameter is invalid.")},
        ("user", "emptied.state"),
    ),
    Operation(
        "DELETE",
        "/api/v1/users/{user}",
        "forgetUser",
        "Forget a user without work; its seqs and starts stay for its longest window and 14 days",
        COMMON
        | {
            200: ok(ForgottenAnswer, "The user is forgotten."),
            202: ok(ForgottenAnswer, "Records are left: repeat the request."),
            409: Answer("The user has tasks that wait, are scheduled or run."),
        },
        ("user",),
    ),
    Operation("GET", "/api/v1/users/{user}", "getLane", "Get a user's lane", COMMON | LANE, ("user",)),
    Operation(
        "PUT",
        "/api/v1/users/{user}",
        "putUser",
        "Set the user's group, with which it takes turns at shared limits",
        COMMON | BODY | LANE,
        ("user",),
        GroupRequest,
        False,
    ),
    Operation(
        "PUT",
        "/api/v1/users/{user}/limits",
        "putLimits",
        "Set a user's own limits, which apply from the next start on",
        COMMON | BODY | LANE,
        ("user",),
        LimitsRequest,
    ),
    Operation(
        "DELETE",
        "/api/v1/users/{user}/limits",
        "deleteLimits",
        "Remove a user's own limits, so that the deployment's apply",
        COMMON | LANE,
        ("user",),
    ),
    Operation(
        "POST",
        "/api/v1/users/{user}/pause",
        "pauseLane",
        "Pause a lane, optionally until a time; no task starts after the answer",
        COMMON | BODY | LANE,
        ("user",),
        PauseRequest,
        False,
    ),
    Operation("POST", "/api/v1/users/{user}/resume", "resumeLane", "Resume a lane", COMMON | LANE, ("user",)),
    Operation(
        "GET",
        "/api/v1/users/{user}/schedules",
        "listSchedules",
        "List a user's schedules, by name",
        COMMON | {200: ok(ScheduleListAnswer, "One page."), 422: Answer("A parameter is invalid.")},
        ("user", "schedules.limit", "schedules.before"),
    ),
    Operation(
        "PUT",
        "/api/v1/users/{user}/schedules/{name}",
        "putSchedule",
        "Submit a task at each tick, by a cron expression or every n seconds; replaces the schedule of this name",
        COMMON
        | BODY
        | SCHEDULE
        | {
            201: ok(ScheduleAnswer, "The schedule, which is new."),
            409: Answer("The user has as many schedules as allowed."),
        },
        ("user", "name"),
        ScheduleRequest,
    ),
    Operation(
        "GET",
        "/api/v1/users/{user}/schedules/{name}",
        "getSchedule",
        "Get a schedule and its next tick",
        COMMON | SCHEDULE | NO_SCHEDULE,
        ("user", "name"),
    ),
    Operation(
        "DELETE",
        "/api/v1/users/{user}/schedules/{name}",
        "deleteSchedule",
        "Delete a schedule; tasks that it submitted stay",
        COMMON | {200: ok(ScheduleAnswer, "The schedule, as it was.")} | NO_SCHEDULE,
        ("user", "name"),
    ),
    Operation(
        "GET",
        "/api/v1/lanes",
        "listLanes",
        "List all lanes, those with the next start first, and their totals",
        GUARDED
        | UNAVAILABLE
        | {
            200: ok(LanesAnswer, "One page."),
            400: Answer("A parameter is given twice."),
            422: Answer("A parameter is invalid."),
        },
        ("search", "lanes.limit", "lanes.before", "lanes.order"),
    ),
    *SHARED_OPERATIONS,
    Operation("GET", "/health-check", "healthCheck", "Check the API process", {200: text("`OK`")}, is_public=True),
    Operation(
        "GET",
        "/health",
        "health",
        "Check DynamoDB and SQS",
        GUARDED
        | {200: ok(HealthAnswer, "Both are healthy."), 503: ok(HealthAnswer, "A field names the error of each.")},
    ),
    Operation(
        "GET",
        "/kill",
        "kill",
        "End the API process that answers, if ALLOW_KILL=true",
        GUARDED | {404: Answer("ALLOW_KILL is not true."), 503: UNAVAILABLE[503]},
    ),
    Operation(
        "GET",
        "/metrics",
        "metrics",
        "Get the metrics of all processes as OpenMetrics text; on one machine only",
        GUARDED | UNAVAILABLE | {200: text("Counters, histograms and gauges."), 404: Answer("This is Lambda.")},
    ),
    Operation(
        "GET",
        "/openapi.json",
        "openapi",
        "Get this document",
        {200: Answer("OpenAPI 3.1.", dict, JSON)},
        is_public=True,
    ),
)

#: Parameters by name; for a name with a dot, the part after it is the HTTP name.
PARAMETERS: Mapping[str, Object] = {
    "user": {
        "in": "path",
        "required": True,
        "description": "The user id, percent-encoded.",
        "schema": {"type": "string", "pattern": USER_PATTERN},
    },
    "limits.name": {
        "in": "path",
        "required": True,
        "description": "The shared limit's name.",
        "schema": {"type": "string", "pattern": NAME_PATTERN},
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
    "failed.state": {
        "in": "query",
        "required": True,
        "description": "Only `failed` is listed over all users.",
        "schema": {"type": "string", "enum": ["failed"]},
    },
    "emptied.state": {
        "in": "query",
        "required": True,
        "description": "Only `queued`: waiting and scheduled tasks.",
        "schema": {"type": "string", "enum": ["queued"]},
    },
    "limit": {
        "in": "query",
        "description": "Largest number of tasks per page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 50},
    },
    "before": {
        "in": "query",
        "description": "The cursor from `next` of the previous page.",
        "schema": {"type": "string", "pattern": "^[0-9a-f-]{1,64}$"},
    },
    "name": {
        "in": "path",
        "required": True,
        "description": "Name of the schedule, unique for its user.",
        "schema": {"type": "string", "pattern": NAME_PATTERN},
    },
    "schedules.limit": {
        "in": "query",
        "description": "Largest number of schedules per page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 50},
    },
    "schedules.before": {
        "in": "query",
        "description": "The cursor from `next` of the previous page.",
        "schema": {"type": "string", "pattern": NAME_PATTERN},
    },
    "search": {
        "in": "query",
        "description": "Only user ids with this prefix.",
        "schema": {"type": "string", "pattern": "^[!-~]{0,128}$"},
    },
    "lanes.limit": {
        "in": "query",
        "description": "Largest number of lanes per page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 25},
    },
    "lanes.before": {
        "in": "query",
        "description": "The cursor from `next` of the previous page.",
        "schema": {"type": "string", "pattern": "^[!-~]{0,128}$"},
    },
    "lanes.order": {
        "in": "query",
        "description": "By user id, or the busiest of the first 500 lanes on one page.",
        "schema": {"type": "string", "enum": ["user_id", "active"], "default": "user_id"},
    },
    "Prefer": {
        "in": "header",
        "description": "Over the limit, `respond-async` queues and answers 202; `handling=strict` refuses.",
        "schema": {"type": "string", "examples": ["respond-async", "handling=strict"]},
    },
    "Idempotency-Key": {
        "in": "header",
        "description": "A repeat with the same key does not run again; it gets the first answer, for a week.",
        "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    },
}

HEADERS: Mapping[str, Object] = {
    "Location": {"description": "URL of the task.", "schema": {"type": "string", "format": "uri-reference"}},
    "RateLimit-Policy": {
        "description": "The limits in force (draft-ietf-httpapi-ratelimit-headers-10).",
        "schema": {"type": "string", "examples": ['"second";q=1;w=1, "minute-units";q=90000;qu="units";w=60']},
    },
    "RateLimit": {
        "description": "Remaining quota of each limit, and seconds until it grows.",
        "schema": {"type": "string", "examples": ['"second";r=0;t=1, "minute-units";r=88800;t=60']},
    },
    "Retry-After": {"description": "Seconds, rounded up.", "schema": {"type": "integer", "minimum": 0}},
    "Idempotency-Replayed": {
        "description": "The answer is the stored one of the first request with this key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Preference-Applied": {
        "description": "The preference of the request that this answer follows (RFC 7240).",
        "schema": {"type": "string", "enum": ["respond-async", "handling=strict"]},
    },
    "Accept-Encoding": {
        "description": "The accepted Content-Encoding of a body, if that is why it is refused.",
        "schema": {"type": "string", "enum": ["identity"]},
    },
    "WWW-Authenticate": {"description": "The authentication error (RFC 6750).", "schema": {"type": "string"}},
}


@lru_cache(maxsize=4)
def document(base_path: str = "/") -> str:
    """Returns the document as JSON. base_path: path prefix of the API, such as `/` or API Gateway's `/api`."""
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
    return dict(zip(ordered, schemas, strict=True)), {name: _for_clients(schema) for name, schema in components.items()}


def _for_clients(schema: Any) -> Any:
    """The schema in a form from which generators make the types that are meant.

    They take a property with a `default` for one that is always there, also in a request; and an `enum` without a
    `type` for any value.
    """
    if isinstance(schema, list):
        return [_for_clients(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    described = {name: _for_clients(inner) for name, inner in schema.items()}
    if "enum" in described:
        described.setdefault("type", "integer" if all(isinstance(one, int) for one in described["enum"]) else "string")
    default = described.pop("default", None)
    if default is not None:
        described["description"] = f"{described.get('description', '')} Default: `{default}`.".lstrip()
    return described


def _described(operation: Operation, schemas: Mapping[type, Object]) -> Object:
    described: Object = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {str(status): _response(answer, schemas) for status, answer in sorted(operation.answers.items())},
        # Either a token or no authentication, since AUTH=none needs no token.
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
