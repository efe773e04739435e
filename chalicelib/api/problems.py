"""Problem responses (RFC 9457): the one table of errors and their statuses; and the caller of a request.

The 429 over a limit is an answer, not an error: responses.py writes it.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from chalice.app import AuthResponse, Request, Response

from chalicelib.api.headers import values
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
#: Seconds after which a client may retry when AWS was not available.
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

#: The errors that have a status.
ANSWERED = tuple(kind for kind, _ in PROBLEMS)

Body = dict[str, Any]


def problem(status: int, title: str, detail: str = "", field: str | None = None, **headers: str) -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail or title}
    if field is not None:
        body["field"] = field
    return _problem_response(body, {name.replace("_", "-"): value for name, value in headers.items()})


def _problem_response(body: Body, headers: Mapping[str, str]) -> Response:
    # A body of text, since Chalice would write a dict with spaces and leave its content type to chance.
    return Response(json.dumps(body, separators=(",", ":")), {"Content-Type": PROBLEM, **headers}, body["status"])


def as_problem(response: Response) -> Response:
    """The response, as a problem if it is an error of Chalice's own: only these have a body that is not text."""
    if not isinstance(response.body, dict) or response.status_code < 400:
        return response
    title = HTTPStatus(response.status_code).phrase
    error = problem(response.status_code, title, str(response.body.get("Message") or title))
    error.headers = {**response.headers, **error.headers}
    return error


def problem_of(error: Exception) -> Response:
    """The response to an error of PROBLEMS; raises any other error again."""
    for kind, status in PROBLEMS:
        if isinstance(error, kind):
            if isinstance(error, RequestError):
                return problem(status, error.title, error.detail, error.field, **_headers_of(error))
            if isinstance(error, SettingError):
                return problem(status, "Not set up", f"The setting {error.variable} is missing or wrong.")
            detail = "A service behind Paceline did not answer. Nothing was promised; try again."
            return problem(status, "Service unavailable", detail, Retry_After=RETRY_UNAVAILABLE)
    raise error


def _headers_of(error: RequestError) -> dict[str, str]:
    """The header that RFC 6750, 3, requires with 401 and 403, and RFC 9110, 15.5.16, with 415.

    API Gateway puts `x-amzn-Remapped-` before the name `WWW-Authenticate`.
    """
    if isinstance(error, MediaTypeError) and error.field == "Content-Encoding":
        return {"Accept_Encoding": "identity"}
    if isinstance(error, ForbiddenError):
        return {"WWW_Authenticate": f'Bearer error="insufficient_scope", scope="{ADMIN_SCOPE}"'}
    if isinstance(error, UnauthenticatedError):
        description = error.title.replace('"', "'")
        sent = f' error="invalid_token", error_description="{description}"' if error.token_sent else ""
        return {"WWW_Authenticate": f"Bearer{sent}"}
    return {}


def identify(request: Request, authenticator: Authenticator) -> Caller:
    """The caller. UnauthenticatedError for a bad token, UnavailableError if it can't be verified at present."""
    return authenticator.identify(values(request, "authorization"))


def authorizer_answer(token: str, authenticator: Authenticator) -> AuthResponse | Body | None:
    """The answer of API Gateway's authorizer to an Authorization header: allow or deny, the same for all routes.

    A gateway response can show the title as `$context.authorizer.title`. None if the token can't be verified at
    present: API Gateway then answers 500 and does not cache it.
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
