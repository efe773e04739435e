"""The map of what is deployed: every route, and the function that SQS triggers."""

import json
import os
import signal
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from chalice.app import Chalice, CORSConfig, Request, Response, SQSEvent

from chalicelib import answers, http, requests
from chalicelib.bootstrap import container, queue_name
from chalicelib.control import Control
from chalicelib.errors import UnavailableError
from chalicelib.tasks import registry
from chalicelib.worker import Deferred, Delivery

app = Chalice(app_name="paceline")
app.api.cors = CORSConfig(
    allow_origin="*",
    allow_headers=["Content-Type", "Authorization", "Idempotency-Key", "Prefer"],
    expose_headers=["Location", "RateLimit", "RateLimit-Policy", "Retry-After"],
)

#: `app.current_request` is one for the process, and locally a process serves many requests at a time.
_request: ContextVar[Request] = ContextVar("request")
#: Our own check answers in problem+json; Chalice's would not.
ANY_TYPE = ["*/*"]


@app.middleware("http")
def remember_request(request: Request, get_response: Callable[[Request], Response]) -> Response:
    _request.set(request)
    return get_response(request)


@app.route("/api/v1/task", methods=["POST"], content_types=ANY_TYPE)
def submit_task() -> Response:
    return http.answered(_submit_one)


@app.route("/task", methods=["POST"], content_types=ANY_TYPE)
def submit_task_short() -> Response:
    return http.answered(_submit_one)


def _submit_one() -> Response:
    request, parts = _request.get(), container()
    user_id, new = requests.read_submit(request, parts.settings, registry)
    return parts.intake.submit_one(request, requests.required_user(user_id), new)


@app.route("/api/v1/tasks", methods=["POST"], content_types=ANY_TYPE)
def submit_tasks() -> Response:
    return http.answered(_submit_many)


def _submit_many() -> Response:
    request, parts = _request.get(), container()
    user_id, new = requests.read_bulk(request, parts.settings, registry)
    return parts.intake.submit_many(request, requests.required_user(user_id), new)


@app.route("/api/v1/users/{user}/tasks/{task_id}", methods=["GET"])
def get_task(user: str, task_id: str) -> Response:
    return _for(user, lambda user_id, control: answers.task_answer(control.task(user_id, task_id)))


@app.route("/api/v1/users/{user}/tasks/{task_id}", methods=["DELETE"])
def cancel_task(user: str, task_id: str) -> Response:
    return _for(user, lambda user_id, control: answers.task_answer(control.cancel(user_id, task_id)))


@app.route("/api/v1/users/{user}/tasks", methods=["GET"])
def list_tasks(user: str) -> Response:
    return _for(
        user,
        lambda user_id, control: answers.tasks_answer(*control.tasks(user_id, *requests.read_listing(_request.get()))),
    )


@app.route("/api/v1/users/{user}", methods=["GET"])
def get_lane(user: str) -> Response:
    return _for(user, lambda user_id, control: answers.lane_answer(control.lane(user_id)))


@app.route("/api/v1/users/{user}/limits", methods=["PUT"], content_types=ANY_TYPE)
def put_limits(user: str) -> Response:
    return _for(
        user,
        lambda user_id, control: answers.lane_answer(control.set_limits(user_id, requests.read_limits(_request.get()))),
    )


@app.route("/api/v1/users/{user}/limits", methods=["DELETE"])
def delete_limits(user: str) -> Response:
    return _for(user, lambda user_id, control: answers.lane_answer(control.set_limits(user_id, None)))


@app.route("/api/v1/users/{user}/pause", methods=["POST"], content_types=ANY_TYPE)
def pause_lane(user: str) -> Response:
    now_ms = container().clock.now_ms()
    return _for(
        user,
        lambda user_id, control: answers.lane_answer(
            control.pause(user_id, requests.read_pause(_request.get(), now_ms))
        ),
    )


@app.route("/api/v1/users/{user}/resume", methods=["POST"], content_types=ANY_TYPE)
def resume_lane(user: str) -> Response:
    return _for(user, lambda user_id, control: answers.lane_answer(control.resume(user_id)))


def _for(user: str, view: Callable[[str, Control], Response]) -> Response:
    return http.answered(lambda: view(requests.path_user_id(user), container().control))


@app.route("/health-check", methods=["GET"])
def health_check() -> Response:
    return Response("OK", {"Content-Type": "text/plain"})


@app.route("/health", methods=["GET"])
def health() -> Response:
    return answers.health_answer(container().check_health())


@app.route("/kill", methods=["GET"])
def kill() -> Response:
    if not container().settings.allow_kill:
        return http.problem(404, "Not found", "There is nothing here; ALLOW_KILL=true would change that.")
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
