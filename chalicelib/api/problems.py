"""Problems over HTTP (RFC 9457): the one table of errors and their statuses; and who it is that asks."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from chalice.app import AuthResponse, Request, Response

from chalicelib.auth.caller import ADMIN_SCOPE, Authenticator, Caller
from chalicelib.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    MediaTypeError,
    NotFoundError,
    RequestError,
    SettingError,
    TooLargeError,
    UnauthenticatedError,
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
    (UnauthenticatedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (TooLargeError, 413),
    (MediaTypeError, 415),
    (InvalidError, 422),
    (UnavailableError, 503),
    (SettingError, 503),
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
                return problem(status, error.title, error.detail, error.field, **_challenge(error))
            if isinstance(error, SettingError):
                return problem(status, "Not set up", f"The setting {error.variable} is missing or wrong.")
            detail = "A service behind Paceline did not answer. Nothing was promised; try again."
            return problem(status, "Service unavailable", detail, Retry_After=RETRY_UNAVAILABLE)
    raise error


def _challenge(error: RequestError) -> dict[str, str]:
    """What RFC 6750, 3, wants beside a 401 and a 403; API Gateway passes it on as x-amzn-Remapped-WWW-Authenticate."""
    if isinstance(error, ForbiddenError):
        return {"WWW_Authenticate": f'Bearer error="insufficient_scope", scope="{ADMIN_SCOPE}"'}
    if isinstance(error, UnauthenticatedError):
        description = error.title.replace('"', "'")
        sent = f' error="invalid_token", error_description="{description}"' if error.token_sent else ""
        return {"WWW_Authenticate": f"Bearer{sent}"}
    return {}


def located(request: Request, response: Response) -> Response:
    """The answer with its Location as the client has to ask for it: behind API Gateway, paths begin with the stage."""
    location, asked, path = response.headers.get("Location"), str(request.context.get("path", "")), str(request.path)
    if isinstance(location, str) and asked.endswith(path):
        response.headers["Location"] = asked.removesuffix(path) + location
    return response


def answered(view: Callable[[], Response]) -> Response:
    """The view's answer, or the problem that it ran into."""
    try:
        return view()
    except tuple(kind for kind, _ in PROBLEMS) as error:
        return problem_of(error)


def identify(request: Request, authenticator: Authenticator) -> Caller:
    """Who sends the request. UnauthenticatedError, or UnavailableError when nobody can tell at present."""
    # Of a header that came twice, API Gateway has only the last one in `headers`.
    every: Mapping[str, list[str]] = request.to_original_event().get("multiValueHeaders") or {}
    values = [value for name, several in every.items() if name.lower() == "authorization" for value in several]
    one = request.headers.get("authorization")
    return authenticator.identify(values or ([] if one is None else [one]))


def authorizer_answer(token: str, authenticator: Authenticator) -> AuthResponse | Body | None:
    """What API Gateway's authorizer says of an Authorization header: whether it is good, for whatever route.

    A gateway response can show the title as `$context.authorizer.title`. None, on which API Gateway answers 500 and
    does not remember it, when nobody can tell at present.
    """
    try:
        caller = authenticator.identify([token])
    except UnauthenticatedError as error:
        denied = {"Action": "execute-api:Invoke", "Effect": "Deny", "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [denied]}
        return {"principalId": "nobody", "policyDocument": policy, "context": {"title": error.title}}
    except UnavailableError:
        return None
    return AuthResponse(routes=["*"], principal_id=caller.user_id or "anyone")
