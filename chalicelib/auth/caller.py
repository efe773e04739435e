"""Defines a request's caller and its rights. Pure; does not import the token libraries: see jwt_verifier.py."""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from chalicelib.core.errors import ForbiddenError, UnauthenticatedError

#: The token scope that lets its bearer act for every user and change limits.
ADMIN_SCOPE = "admin"
#: Longest bearer token, in characters; API Gateway allows about as much for all headers together.
MAX_TOKEN_LENGTH = 8_192
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class Caller(Struct, frozen=True):
    """The authenticated sender of a request."""

    #: None with AUTH=none: the sender is anonymous
    user_id: str | None
    is_admin: bool

    def may_act_for(self, user_id: str) -> bool:
        return self.is_admin or user_id == self.user_id

    def require_may_act_for(self, user_id: str) -> None:
        """Raises ForbiddenError, also when the user does not exist."""
        if not self.may_act_for(user_id):
            raise ForbiddenError(
                "The token belongs to another user",
                f"It may only be used for its own user; acting for others requires the scope `{ADMIN_SCOPE}`.",
            )

    def require_admin(self) -> None:
        if not self.is_admin:
            raise ForbiddenError("Admin scope required", f"The token lacks the scope `{ADMIN_SCOPE}`.")


#: The caller of every request with AUTH=none.
ANYONE = Caller(None, is_admin=True)


class Authenticator(Protocol):
    def identify(self, authorization: Sequence[str]) -> Caller:
        """Returns the caller named by a request's Authorization headers.

        Raises UnauthenticatedError if they are invalid, UnavailableError if the signing keys cannot be fetched.
        """
        ...


class NoAuthentication:
    """AUTH=none: every caller is an admin."""

    def identify(self, authorization: Sequence[str]) -> Caller:  # noqa: ARG002 - headers are ignored
        return ANYONE


class TokenAuthentication:
    """AUTH=jwt: a bearer token identifies the caller. `verify` turns a token into a caller."""

    def __init__(self, verify: Callable[[str], Caller]) -> None:
        self._verify = verify

    def identify(self, authorization: Sequence[str]) -> Caller:
        return self._verify(bearer_token(authorization))


def bearer_token(authorization: Sequence[str]) -> str:
    """Returns the token from the single Authorization header (RFC 6750, 2.1). The scheme name is case-insensitive."""
    if not authorization:
        raise UnauthenticatedError("A token is required", "Send `Authorization: Bearer <token>`.", False)
    if len(authorization) > 1:
        raise UnauthenticatedError("Two Authorization headers", "Send exactly one Authorization header.")
    scheme, _, token = authorization[0].strip(" ").partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthenticatedError("Not a bearer token", "The Authorization header must be `Bearer <token>`.")
    token = token.lstrip(" ")
    if len(token) > MAX_TOKEN_LENGTH:
        raise UnauthenticatedError("The token is too long", f"At most {MAX_TOKEN_LENGTH} characters are allowed.")
    if not _TOKEN.fullmatch(token):
        raise UnauthenticatedError("The token is malformed", "`Bearer` must be followed by one token.")
    return token
