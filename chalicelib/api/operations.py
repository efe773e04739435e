"""Values of the OpenAPI document's operations, and the answers that many of them share."""

from collections.abc import Mapping

import msgspec

from chalicelib.api.schema import Problem

JSON = "application/json"
PROBLEM = "application/problem+json"


class Answer(msgspec.Struct, frozen=True):
    """One status of an operation. form: type of the JSON body; None for any other body."""

    description: str
    form: type | None = Problem
    media_type: str = PROBLEM
    headers: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True):
    method: str
    path: str
    #: the OpenAPI operationId
    name: str
    summary: str
    answers: Mapping[int, Answer]
    parameters: tuple[str, ...] = ()
    request: type | None = None
    request_required: bool = True
    #: needs no token, even with AUTH=jwt
    is_public: bool = False


def ok(form: type, description: str, *headers: str) -> Answer:
    return Answer(description, form, JSON, headers)


def text(description: str, media_type: str = "text/plain") -> Answer:
    return Answer(description, None, media_type)


UNAVAILABLE = {503: Answer("AWS is unavailable. Retry.", headers=("Retry-After",))}
GUARDED = {
    401: Answer("With AUTH=jwt: the token is missing or invalid.", headers=("WWW-Authenticate",)),
    403: Answer("With AUTH=jwt: the token does not grant this.", headers=("WWW-Authenticate",)),
}
#: Error statuses of every operation on one user.
COMMON = GUARDED | UNAVAILABLE | {400: Answer("The user id is invalid.")}
#: Error statuses of every operation with a body.
BODY = {
    400: Answer("The request is malformed or has no user id."),
    413: Answer("The body or the payload is too large."),
    415: Answer("The body is not JSON, or is compressed.", headers=("Accept-Encoding",)),
    422: Answer("A value is invalid."),
}
