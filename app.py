"""The map of what is deployed: every route, and the function that SQS triggers."""

import json
import os
import signal
from collections.abc import Callable
from contextvars import ContextVar
from importlib import import_module
from typing import Any

from chalice.app import AuthRequest, AuthResponse, Chalice, CORSConfig, Request, Response, SQSEvent

from chalicelib.api import dashboard as dashboard_files
from chalicelib.api import problems, requests, responses
from chalicelib.auth.caller import Caller
from chalicelib.aws.client import time_budget
from chalicelib.container import authenticates, container, queue_name, scheduled_queue_name, use
from chalicelib.core.errors import SettingError, UnauthenticatedError, UnavailableError
from chalicelib.lanes.control import Control
from chalicelib.scheduled.dispatcher import ScheduledDelivery
from chalicelib.worker.worker import Deferred, Delivery

if "AWS_LAMBDA_FUNCTION_NAME" not in os.environ and not os.environ.get("TABLE_NAME"):
    # `chalice local` by itself. Chalice also imports this file to package it, where there is no `local`.
    use(lambda: import_module("local.standalone").make_container())

app = Chalice(app_name="paceline")
CORS = CORSConfig(
    allow_origin="*",
    allow_headers=["Content-Type", "Authorization", "Idempotency-Key", "Prefer"],
    expose_headers=["Location", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"],
)
app.api.cors = CORS

#: `app.current_request` is one for the process, and locally a process serves many requests at a time.
_request: ContextVar[Request] = ContextVar("request")
#: Our own check answers in problem+json; Chalice's would not.
ANY_TYPE = ["*/*"]
#: Who asks, on every route that is not public.
_caller: ContextVar[Caller] = ContextVar("caller")
#: With AUTH=jwt all other routes need a token, those still to come included.
PUBLIC = frozenset({"/", "/web/{name}", "/health-check", "/openapi.json"})


@app.middleware("http")
def know_caller(request: Request, get_response: Callable[[Request], Response]) -> Response:
    """The view relies on this, not on the authorizer: that one only keeps requests away from it."""
    _request.set(request)
    if request.path in PUBLIC:
        return get_response(request)
    try:
        _caller.set(problems.identify(request, container().authenticator))
    except (UnauthenticatedError, UnavailableError, SettingError) as error:
        response = problems.problem_of(error)
        response.headers.update(CORS.get_access_control_headers())  # which Chalice gives to views only
        return response
    with time_budget(now=container().monotonic):
        return get_response(request)


@app.route("/api/v1/task", methods=["POST"], content_types=ANY_TYPE)
def submit_task() -> Response:
    return problems.answered(_submit_one)


@app.route("/task", methods=["POST"], content_types=ANY_TYPE)
def submit_task_short() -> Response:
    return problems.answered(_submit_one)


def _submit_one() -> Response:
    request, parts = _request.get(), container()
    user_id, new = requests.read_submit(request, parts.settings, parts.registry, parts.clock.now_ms())
    return parts.submit_handler.submit_one(request, _user_to_act_for(user_id), new)


@app.route("/api/v1/tasks", methods=["POST"], content_types=ANY_TYPE)
def submit_tasks() -> Response:
    return problems.answered(_submit_many)


def _submit_many() -> Response:
    request, parts = _request.get(), container()
    user_id, new = requests.read_bulk(request, parts.settings, parts.registry, parts.clock.now_ms())
    return parts.submit_handler.submit_many(request, _user_to_act_for(user_id), new)


def _user_to_act_for(named: str | None) -> str:
    """Whom the request names, else who sends it."""
    caller = _caller.get()
    user_id = requests.required_user(named or caller.user_id)
    caller.require_may_act_for(user_id)
    return user_id


@app.route("/api/v1/users/{user}/tasks/{task_id}", methods=["GET"])
def get_task(user: str, task_id: str) -> Response:
    return _for(
        user, lambda user_id, control: responses.task_answer(control.task(user_id, requests.path_task_id(task_id)))
    )


@app.route("/api/v1/users/{user}/tasks/{task_id}", methods=["DELETE"])
def cancel_task(user: str, task_id: str) -> Response:
    return _for(
        user, lambda user_id, control: responses.task_answer(control.cancel(user_id, requests.path_task_id(task_id)))
    )


@app.route("/api/v1/users/{user}/tasks", methods=["GET"])
def list_tasks(user: str) -> Response:
    return _for(
        user,
        lambda user_id, control: responses.tasks_answer(
            *control.tasks(user_id, *requests.read_listing(_request.get()))
        ),
    )


@app.route("/api/v1/users/{user}", methods=["GET"])
def get_lane(user: str) -> Response:
    return _for(user, lambda user_id, control: responses.lane_answer(control.lane(user_id)))


@app.route("/api/v1/users/{user}/limits", methods=["PUT"], content_types=ANY_TYPE)
def put_limits(user: str) -> Response:
    return _for_admin(
        user,
        lambda user_id, control: responses.lane_answer(
            control.set_limits(user_id, requests.read_limits(_request.get()))
        ),
    )


@app.route("/api/v1/users/{user}/limits", methods=["DELETE"])
def delete_limits(user: str) -> Response:
    return _for_admin(user, lambda user_id, control: responses.lane_answer(control.set_limits(user_id, None)))


@app.route("/api/v1/users/{user}/pause", methods=["POST"], content_types=ANY_TYPE)
def pause_lane(user: str) -> Response:
    now_ms = container().clock.now_ms()
    return _for_admin(
        user,
        lambda user_id, control: responses.lane_answer(
            control.pause(user_id, requests.read_pause(_request.get(), now_ms))
        ),
    )


@app.route("/api/v1/users/{user}/resume", methods=["POST"], content_types=ANY_TYPE)
def resume_lane(user: str) -> Response:
    return _for_admin(user, lambda user_id, control: responses.lane_answer(control.resume(user_id)))


def _for(user: str, view: Callable[[str, Control], Response]) -> Response:
    def answer() -> Response:
        user_id = requests.path_user_id(user)
        _caller.get().require_may_act_for(user_id)
        return view(user_id, container().control)

    return problems.answered(answer)


def _for_admin(user: str, view: Callable[[str, Control], Response]) -> Response:
    return _to_admin(lambda: _for(user, view))


def _to_admin(view: Callable[[], Response]) -> Response:
    def answer() -> Response:
        _caller.get().require_admin()
        return view()

    return problems.answered(answer)


@app.route("/api/v1/lanes", methods=["GET"])
def list_lanes() -> Response:
    return problems.answered(_list_lanes)


def _list_lanes() -> Response:
    _caller.get().require_admin()
    return responses.lanes_answer(container().overview.page(*requests.read_lanes(_request.get())))


@app.route("/", methods=["GET"])
def dashboard() -> Response:
    return dashboard_files.file_response(_request.get(), dashboard_files.INDEX)


@app.route("/web/{name}", methods=["GET"])
def dashboard_file(name: str) -> Response:
    return problems.answered(lambda: dashboard_files.file_response(_request.get(), name))


@app.route("/health-check", methods=["GET"])
def health_check() -> Response:
    return Response("OK", {"Content-Type": "text/plain"})


@app.route("/health", methods=["GET"])
def health() -> Response:
    return _to_admin(lambda: responses.health_answer(container().check_health()))


@app.route("/openapi.json", methods=["GET"])
def openapi() -> Response:
    from chalicelib.api.openapi import document  # noqa: PLC0415 - no submit has to wait for it

    context = _request.get().context
    base_path = str(context.get("path") or "").removesuffix("/openapi.json") or "/"
    return Response(document(base_path), {"Content-Type": "application/json"})


@app.route("/kill", methods=["GET"])
def kill() -> Response:
    return problems.answered(_kill)


def _kill() -> Response:
    # First of all: where it is not allowed, it is not there for anybody.
    if not container().settings.allow_kill:
        return problems.problem(404, "Not found", "There is nothing here; ALLOW_KILL=true would change that.")
    _caller.get().require_admin()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


@app.on_sqs_message(queue=queue_name(), batch_size=1, name="worker")
def worker(event: SQSEvent) -> dict[str, list[dict[str, str]]]:
    """Runs messages at their time; those that wait, and those that AWS kept from it, are reported as not done."""
    failures, stuck = [], set()
    for record in event.to_dict()["Records"]:
        user_id = record["attributes"]["MessageGroupId"]
        if user_id in stuck or not _handled(record, user_id):
            stuck.add(user_id)  # what comes after it in its lane waits behind it
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}


def _handled(record: dict[str, Any], user_id: str) -> bool:
    delivery = Delivery(record["body"], record["receiptHandle"], user_id, record["messageId"])
    try:
        return not isinstance(container().worker.handle(delivery), Deferred)
    except UnavailableError as error:
        print(json.dumps({"event": "task_unavailable", "user_id": user_id, "error": str(error)}), flush=True)
        return False


@app.on_sqs_message(queue=scheduled_queue_name(), batch_size=1, name="scheduled")
def scheduled(event: SQSEvent) -> dict[str, list[dict[str, str]]]:
    """Does what was put off: admits scheduled tasks at their time, tells of ends."""
    records = event.to_dict()["Records"]
    failed = [record["messageId"] for record in records if not _ran_scheduled_message(record)]
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def _ran_scheduled_message(record: dict[str, Any]) -> bool:
    delivery = ScheduledDelivery(record["body"], record["receiptHandle"], record["messageId"])
    try:
        return container().dispatcher.handle(delivery)
    except UnavailableError as error:
        print(json.dumps({"event": "scheduled_message_unavailable", "error": str(error)}), flush=True)
        return False


if authenticates():

    @app.authorizer(ttl_seconds=60)
    def authorizer(request: AuthRequest) -> AuthResponse | dict[str, Any] | None:
        """Asked by API Gateway, which itself refuses requests without a token; so it is there with AUTH=jwt only."""
        try:
            authenticator = container().authenticator
        except (UnavailableError, SettingError) as error:
            print(json.dumps({"event": "authorizer_unavailable", "error": str(error)}), flush=True)
            return None  # on which API Gateway answers 500, and does not remember it
        return problems.authorizer_answer(request.token, authenticator)

    for path in app.routes.keys() - PUBLIC:
        for route in app.routes[path].values():
            route.authorizer = authorizer
