"""Who sends a request, and what they may do. Pure, and without the libraries that tokens need: see tokens.py."""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from chalicelib.core.errors import ForbiddenError, UnauthenticatedError

#: The scope that lets its holder act for every user and change limits.
ADMIN_SCOPE = "admin"
#: Characters; API Gateway takes about as much in all headers together.
TOKEN_LIMIT = 8_192
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class Caller(Struct, frozen=True):
    """Whoever sends a request."""

    #: None with AUTH=none, where nobody says who they are
    user_id: str | None
    is_admin: bool

    def may_act_for(self, user_id: str) -> bool:
        return self.is_admin or user_id == self.user_id

    def require_may_act_for(self, user_id: str) -> None:
        """ForbiddenError, whether there is such a user or not."""
        if not self.may_act_for(user_id):
            raise ForbiddenError(
                "This is another user's lane",
                f"The token is one user's own; another's needs the scope `{ADMIN_SCOPE}`.",
            )

    def require_admin(self) -> None:
        if not self.is_admin:
            raise ForbiddenError("This is for admins", f"The token lacks the scope `{ADMIN_SCOPE}`.")


#: With AUTH=none.
ANYONE = Caller(None, is_admin=True)


class Authenticator(Protocol):
    def identify(self, authorization: Sequence[str]) -> Caller:
        """The caller, from all Authorization headers of a request.

        UnauthenticatedError says what is wrong with them; UnavailableError that nobody can tell at present.
        """
        ...


class NoAuthentication:
    """AUTH=none: everyone may do everything."""

    def identify(self, authorization: Sequence[str]) -> Caller:  # noqa: ARG002 - whatever it says
        return ANYONE


class TokenAuthentication:
    """AUTH=jwt: callers are who their bearer token says. `verify` turns a token into a caller."""

    def __init__(self, verify: Callable[[str], Caller]) -> None:
        self._verify = verify

    def identify(self, authorization: Sequence[str]) -> Caller:
        return self._verify(bearer_token(authorization))


def bearer_token(authorization: Sequence[str]) -> str:
    """The token in the one Authorization header (RFC 6750, 2.1). The name of the scheme has no case."""
    if not authorization:
        raise UnauthenticatedError("A token is required", "Send it as `Authorization: Bearer` and the token.", False)
    if len(authorization) > 1:
        raise UnauthenticatedError("Two Authorization headers", "Which one counts nobody could say; send one.")
    scheme, _, token = authorization[0].strip(" ").partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthenticatedError("Not a bearer token", "The Authorization header has to be `Bearer` and a token.")
    token = token.lstrip(" ")
    if len(token) > TOKEN_LIMIT:
        raise UnauthenticatedError("The token is too long", f"At most {TOKEN_LIMIT} characters are allowed.")
    if not _TOKEN.fullmatch(token):
        raise UnauthenticatedError("The token is malformed", "What follows `Bearer` has to be one token.")
    return token
