"""Problems over HTTP (RFC 9457): the one table of errors and their statuses."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from chalice.app import Response

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

PROBLEM = "application/problem+json"
Headers = dict[str, str | list[str]]
JSON: Headers = {"Content-Type": "application/json"}
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
