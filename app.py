"""Defines every route, and the functions that SQS triggers. This file and `chalicelib/` are all that is deployed."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from enum import Enum
from functools import wraps
from importlib import import_module
from typing import Any

from chalice.app import AuthRequest, AuthResponse, Chalice, CloudWatchEvent, Request, Response, SQSEvent

from chalicelib.api import dashboard as dashboard_files
from chalicelib.api import function_url as function_urls
from chalicelib.api import headers, origins, problems, requests, responses, shared_limits
from chalicelib.auth.caller import Caller
from chalicelib.aws.client import time_budget
from chalicelib.container import (
    authenticates,
    container,
    has_canary,
    page_origins,
    queue_name,
    scheduled_queue_name,
    use,
)
from chalicelib.core.errors import SettingError, UnauthenticatedError, UnavailableError
from chalicelib.scheduled.dispatcher import ScheduledDelivery
from chalicelib.submit.submission import Submission
from chalicelib.worker.messages import Deferred, Delivery

if "AWS_LAMBDA_FUNCTION_NAME" not in os.environ and not os.environ.get("TABLE_NAME"):
    # `chalice local` by itself. Chalice also imports this file to package it, where there is no `local`.
    use(lambda: import_module("local.standalone").make_container())

app = Chalice(app_name="paceline")

#: `app.current_request` is one for the process, and locally a process serves many requests at a time.
_request: ContextVar[Request] = ContextVar("request")
#: The caller, on every route that is not public.
_caller: ContextVar[Caller] = ContextVar("caller")
#: Paths of the public routes. With AUTH=jwt all others need a token.
PUBLIC: set[str] = set()


class Access(Enum):
    """The callers that may use a route."""

    PUBLIC = "all callers, also without a token"
    CALLER = "callers with a token; under /users/{user}, that user and admins"
    ADMIN = "admins"


View = Callable[..., Response]


def route(path: str, method: str, access: Access = Access.CALLER) -> Callable[[View], View]:
    """Registers a view with Chalice. It gets the path's parameters, with `{user}` decoded, checked and authorised.

    An error that has a status, from the checks or the view, is answered as problem+json.
    """
    # Chalice refuses other content types with a body of its own, so routes with a body check theirs themselves.
    content_types = {"content_types": ["*/*"]} if method in ("POST", "PUT") else {}
    if access is Access.PUBLIC:
        PUBLIC.add(path)

    def register(view: View) -> View:
        @wraps(view)
        def answered(**parameters: str) -> Response:
            try:
                return view(**_authorised(access, parameters))
            except problems.ANSWERED as error:
                return problems.problem_of(error)

        app.route(path, methods=[method], **content_types)(answered)
        return view

    return register


def _authorised(access: Access, parameters: dict[str, str]) -> dict[str, str]:
    """The path's parameters, checked. ForbiddenError if the caller may not use the route."""
    if access is Access.ADMIN:
        _caller.get().require_admin()
    if "user" not in parameters:
        return parameters
    user_id = requests.path_user_id(parameters["user"])
    _caller.get().require_may_act_for(user_id)
    return {**parameters, "user": user_id}


@app.middleware("http")
def identify_caller(request: Request, get_response: Callable[[Request], Response]) -> Response:
    """Refuses or identifies the caller before Chalice looks at method and content type, and completes every answer.

    Views rely on this, not on the authorizer.
    """
    _request.set(request)
    allowed = page_origins()
    response = allowed.refusal(request.headers, request.path in PUBLIC) or _unidentified(request)
    if response is None:
        with time_budget(now=container().monotonic) if request.path not in PUBLIC else nullcontext():
            response = problems.as_problem(get_response(request))
    for name, value in (origins.UNSTORED | allowed.response_headers(request.headers.get("origin"))).items():
        response.headers.setdefault(name, value)
    return response


def _unidentified(request: Request) -> Response | None:
    """The answer to a caller that can't be identified; None if the route is public, or after it is identified."""
    if request.path in PUBLIC or request.method == "OPTIONS":
        return None
    try:
        _caller.set(problems.identify(request, container().authenticator))
    except (UnauthenticatedError, UnavailableError, SettingError) as error:
        return problems.problem_of(error)
    return None


@route("/api/v1/task", "POST")
@route("/task", "POST")
def submit_task() -> Response:
    parts, request = container(), _request.get()
    with parts.submitting(headers.traceparent(request)) as traceparent:
        given = _caller.get(), parts.settings, parts.registry, parts.clock.now_ms(), traceparent
        submission = requests.read_submit(request, *given)
        answer = parts.idempotency.run(submission, parts.submitter.submit, responses.submit_answer)
        return responses.submit_response(answer)


@route("/api/v1/tasks", "POST")
def submit_tasks() -> Response:
    parts, request = container(), _request.get()
    with parts.submitting(headers.traceparent(request)) as traceparent:
        given = _caller.get(), parts.settings, parts.registry, parts.clock.now_ms(), traceparent
        submission = requests.read_bulk(request, *given)
        answer = parts.idempotency.run(submission, parts.submitter.submit_bulk, responses.submit_answer)
        return responses.submit_response(answer)


@route("/api/v1/tasks", "GET", Access.ADMIN)
def list_failed_tasks() -> Response:
    return responses.failed_answer(*container().failed_tasks.newest(*requests.read_failed(_request.get())))


@route("/api/v1/task-names", "GET")
def list_task_names() -> Response:
    return responses.task_names_answer(container().registry.names)


@route("/api/v1/users/{user}/tasks/{task_id}/redrive", "POST")
def redrive_task(user: str, task_id: str) -> Response:
    outcome = container().redriver.redrive(user, requests.path_task_id(task_id), _wish())
    return responses.redriven_answer(outcome)


@route("/api/v1/users/{user}/redrive", "POST")
def redrive_tasks_of_user(user: str) -> Response:
    since, after = requests.read_user_redrive(_request.get())
    return responses.redrive_answer(container().redriver.redrive_of_user(user, since, after, _wish()))


@route("/api/v1/redrive", "POST", Access.ADMIN)
def redrive_tasks() -> Response:
    since, after = requests.read_redrive(_request.get())
    return responses.redrive_answer(container().redriver.redrive_all(since, after, _wish()))


def _wish() -> Submission:
    parts = container()
    return requests.read_wish(_request.get(), parts.settings, parts.clock.now_ms())


@route("/api/v1/users/{user}/tasks/{task_id}", "GET")
def get_task(user: str, task_id: str) -> Response:
    return responses.task_answer(container().control.task(user, requests.path_task_id(task_id)))


@route("/api/v1/users/{user}/tasks/{task_id}", "DELETE")
def cancel_task(user: str, task_id: str) -> Response:
    return responses.cancel_answer(container().control.cancel(user, requests.path_task_id(task_id)))


@route("/api/v1/users/{user}/tasks", "GET")
def list_tasks(user: str) -> Response:
    control, request = container().control, _request.get()
    if most := requests.read_next(request):
        return responses.tasks_answer(control.next_tasks(user, most), None)
    return responses.tasks_answer(*control.tasks(user, *requests.read_listing(request)))


@route("/api/v1/users/{user}/tasks", "DELETE")
def empty_lane(user: str) -> Response:
    requests.check_emptying(_request.get())
    emptied = container().clearance.empty(user)
    return responses.emptied_answer(container().control.lane(user), emptied)


@route("/api/v1/users/{user}", "DELETE", Access.ADMIN)
def forget_user(user: str) -> Response:
    return responses.forgotten_answer(user, container().clearance.forget(user))


@route("/api/v1/users/{user}", "GET")
def get_lane(user: str) -> Response:
    return responses.lane_answer(container().control.lane(user))


@route("/api/v1/users/{user}", "PUT", Access.ADMIN)
def put_user(user: str) -> Response:
    return responses.lane_answer(container().control.set_group(user, requests.read_group(_request.get())))


@route("/api/v1/users/{user}/limits", "PUT", Access.ADMIN)
def put_limits(user: str) -> Response:
    return responses.lane_answer(container().control.set_limits(user, requests.read_limits(_request.get())))


@route("/api/v1/users/{user}/limits", "DELETE", Access.ADMIN)
def delete_limits(user: str) -> Response:
    return responses.lane_answer(container().control.set_limits(user, None))


@route("/api/v1/users/{user}/pause", "POST", Access.ADMIN)
def pause_lane(user: str) -> Response:
    parts = container()
    return responses.lane_answer(parts.control.pause(user, requests.read_pause(_request.get(), parts.clock.now_ms())))


@route("/api/v1/users/{user}/resume", "POST", Access.ADMIN)
def resume_lane(user: str) -> Response:
    return responses.lane_answer(container().control.resume(user))


@route("/api/v1/users/{user}/schedules", "GET")
def list_schedules(user: str) -> Response:
    return responses.schedules_answer(
        *container().schedule_control.page(user, *requests.read_schedules(_request.get()))
    )


@route("/api/v1/users/{user}/schedules/{name}", "PUT")
def put_schedule(user: str, name: str) -> Response:
    parts, known = container(), requests.path_schedule_name(name)
    given = _caller.get(), parts.settings, parts.registry, parts.clock.now_ms()
    values = requests.read_schedule(_request.get(), *given)
    return responses.schedule_answer(*parts.schedule_control.put(user, known, *values))


@route("/api/v1/users/{user}/schedules/{name}", "GET")
def get_schedule(user: str, name: str) -> Response:
    return responses.schedule_answer(container().schedule_control.get(user, requests.path_schedule_name(name)))


@route("/api/v1/users/{user}/schedules/{name}", "DELETE")
def delete_schedule(user: str, name: str) -> Response:
    return responses.schedule_answer(container().schedule_control.delete(user, requests.path_schedule_name(name)))


@route("/api/v1/lanes", "GET", Access.ADMIN)
def list_lanes() -> Response:
    return responses.lanes_answer(container().overview.page(*requests.read_lanes(_request.get())))


@route("/api/v1/limits", "GET", Access.ADMIN)
def list_shared_limits() -> Response:
    parts = container()
    return shared_limits.shared_list_answer(parts.shared_control.all(), parts.clock.now_ms())


@route("/api/v1/limits/{name}", "GET", Access.ADMIN)
def get_shared_limit(name: str) -> Response:
    return shared_limits.shared_answer(container().shared_control.one(shared_limits.path_name(name)))


@route("/api/v1/limits/{name}", "PUT", Access.ADMIN)
def put_shared_limit(name: str) -> Response:
    name, limits = shared_limits.path_name(name), shared_limits.read_shared_limits(_request.get())
    return shared_limits.shared_answer(container().shared_control.set_limits(name, limits))


@route("/api/v1/limits/{name}", "DELETE", Access.ADMIN)
def delete_shared_limit(name: str) -> Response:
    return shared_limits.shared_answer(container().shared_control.delete(shared_limits.path_name(name)))


@route("/api/v1/limits/{name}/pause", "POST", Access.ADMIN)
def pause_shared_limit(name: str) -> Response:
    parts, name = container(), shared_limits.path_name(name)
    until = requests.read_pause(_request.get(), parts.clock.now_ms())
    return shared_limits.shared_answer(parts.shared_control.pause(name, until))


@route("/api/v1/limits/{name}/resume", "POST", Access.ADMIN)
def resume_shared_limit(name: str) -> Response:
    return shared_limits.shared_answer(container().shared_control.resume(shared_limits.path_name(name)))


@route("/", "GET", Access.PUBLIC)
def dashboard() -> Response:
    return dashboard_files.page_response(_request.get())


@route("/web/{name}", "GET", Access.PUBLIC)
def dashboard_file(name: str) -> Response:
    return dashboard_files.file_response(_request.get(), name)


@route("/health-check", "GET", Access.PUBLIC)
def health_check() -> Response:
    return Response("OK", {"Content-Type": "text/plain"})


@route("/health", "GET", Access.ADMIN)
def health() -> Response:
    return responses.health_answer(container().check_health())


@route("/metrics", "GET")
def metrics() -> Response:
    metrics = container().metrics
    # Before the check for admins: where there are none, they do not exist for anybody.
    if metrics is None:
        return problems.problem(404, "Not found", "On Lambda the metrics are in CloudWatch, namespace Paceline.")
    _caller.get().require_admin()
    return Response(metrics.text(), {"Content-Type": "application/openmetrics-text; version=1.0.0; charset=utf-8"})


@route("/openapi.json", "GET", Access.PUBLIC)
def openapi() -> Response:
    from chalicelib.api.openapi import document  # noqa: PLC0415 - submits need not wait for this import

    context = _request.get().context
    base_path = str(context.get("path") or "").removesuffix("/openapi.json") or "/"
    return Response(document(base_path), {"Content-Type": "application/json"})


@route("/kill", "GET")
def kill() -> Response:
    # Before the check for admins: where it is not allowed, it does not exist for anybody.
    if not container().settings.allow_kill:
        return problems.problem(404, "Not found", "There is nothing here; ALLOW_KILL=true would change that.")
    _caller.get().require_admin()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


@app.on_sqs_message(queue=queue_name(), batch_size=1, name="worker")
def worker(event: SQSEvent) -> dict[str, list[dict[str, str]]]:
    """Runs messages at their time; reports those that are deferred, or that an AWS failure stopped, as failed items."""
    failures, stuck = [], set()
    for record in event.to_dict()["Records"]:
        user_id = record["attributes"]["MessageGroupId"]
        if user_id in stuck or not _handled(record, user_id):
            stuck.add(user_id)  # later messages of its lane wait behind it
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}


def _handled(record: dict[str, Any], user_id: str) -> bool:
    delivery = Delivery(
        record["body"], record["receiptHandle"], user_id, record["messageId"], *_sent_and_received(record)
    )
    try:
        return not isinstance(container().worker.handle(delivery), Deferred)
    except UnavailableError as error:
        print(json.dumps({"event": "task_unavailable", "user_id": user_id, "error": str(error)}), flush=True)
        return False


@app.on_sqs_message(queue=scheduled_queue_name(), batch_size=1, name="scheduled")
def scheduled(event: SQSEvent) -> dict[str, list[dict[str, str]]]:
    """Admits scheduled tasks at their time, and sends callbacks."""
    records = event.to_dict()["Records"]
    failed = [record["messageId"] for record in records if not _ran_scheduled_message(record)]
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def _ran_scheduled_message(record: dict[str, Any]) -> bool:
    sent_at, receives = _sent_and_received(record)
    delivery = ScheduledDelivery(record["body"], record["receiptHandle"], record["messageId"], sent_at, receives)
    try:
        return container().dispatcher.handle(delivery)
    except UnavailableError as error:
        print(json.dumps({"event": "scheduled_message_unavailable", "error": str(error)}), flush=True)
        return False


def _sent_and_received(record: dict[str, Any]) -> tuple[int, int]:
    """When the message was sent, epoch ms, and how often SQS delivered it, this time included."""
    attributes = record["attributes"]
    return int(attributes["SentTimestamp"]), int(attributes["ApproximateReceiveCount"])


if has_canary():

    @app.schedule("rate(1 minute)", name="canary")
    def canary(_event: CloudWatchEvent) -> None:
        """Submits a task and reports the last one's lateness; an error counts in the function's own metric."""
        container().canary.tick()


if authenticates():

    @app.authorizer(ttl_seconds=60)
    def authorizer(request: AuthRequest) -> AuthResponse | dict[str, Any] | None:
        """Called by API Gateway, which itself refuses requests without a token; so it exists with AUTH=jwt only."""
        try:
            authenticator = container().authenticator
        except (UnavailableError, SettingError) as error:
            print(json.dumps({"event": "authorizer_unavailable", "error": str(error)}), flush=True)
            return None  # API Gateway then answers 500 and does not cache it
        return problems.authorizer_answer(request.token, authenticator)

    for path in app.routes.keys() - PUBLIC:
        for entry in app.routes[path].values():
            entry.authorizer = authorizer


def function_url(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The API function's handler where the stage has a Lambda Function URL instead of API Gateway."""
    return function_urls.answer(app, event, context, page_origins())


def _serve_preflight(path: str, methods: list[str]) -> None:
    def preflight(**_: str) -> Response:
        return origins.preflight(methods)

    app.route(path, methods=["OPTIONS"])(preflight)


if page_origins().allowed:
    # Not by Chalice's own CORS, which can name one origin only.
    for path, entries in list(app.routes.items()):
        _serve_preflight(path, list(entries))
