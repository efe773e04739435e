"""Fetches the JWK set of an issuer."""

from http.client import HTTPException
from urllib.request import HTTPRedirectHandler, Request, build_opener

from chalicelib.core.errors import UnavailableError

#: Seconds.
TIMEOUT = 3
#: Bytes.
SIZE_LIMIT = 262_144


class _NoRedirects(HTTPRedirectHandler):
    """A redirect could lead from https to http; it ends as the HTTPError that an answer of 3xx is without it."""

    def redirect_request(self, *_: object) -> None:
        return None


_opener = build_opener(_NoRedirects)


def fetch_jwks(url: str) -> str:
    """The text at the URL, which is https or this machine. UnavailableError when it can't be had."""
    try:
        request = Request(url, headers={"Accept": "application/json"})  # noqa: S310 - the setting was checked
        with _opener.open(request, timeout=TIMEOUT) as answer:
            body = answer.read(SIZE_LIMIT + 1)
        if len(body) > SIZE_LIMIT:
            raise UnavailableError(f"JWT_JWKS_URL: it has more than {SIZE_LIMIT} bytes")
        return str(body, "utf-8")
    except (OSError, HTTPException, ValueError) as error:
        raise UnavailableError(f"JWT_JWKS_URL: {type(error).__name__}: {error}") from error
