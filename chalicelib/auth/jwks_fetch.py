"""Fetches an issuer's JWK set over HTTP."""

from http.client import HTTPException
from urllib.request import HTTPRedirectHandler, Request, build_opener

from chalicelib.core.errors import UnavailableError

#: Timeout of a fetch, in seconds.
TIMEOUT_SECONDS = 3
#: Largest accepted JWK set, in bytes.
MAX_JWKS_BYTES = 262_144


class _NoRedirects(HTTPRedirectHandler):
    """Does not follow redirects, which could lead from https to http: a 3xx answer raises HTTPError."""

    def redirect_request(self, *_: object) -> None:
        return None


_opener = build_opener(_NoRedirects)


def fetch_jwks(url: str) -> str:
    """Returns the text at the URL (https, or http on this machine). Raises UnavailableError if it cannot be fetched."""
    try:
        request = Request(url, headers={"Accept": "application/json"})  # noqa: S310 - Settings checked the URL
        with _opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            body = answer.read(MAX_JWKS_BYTES + 1)
        if len(body) > MAX_JWKS_BYTES:
            raise UnavailableError(f"JWT_JWKS_URL: the answer exceeds {MAX_JWKS_BYTES} bytes")
        return str(body, "utf-8")
    except (OSError, HTTPException, ValueError) as error:
        raise UnavailableError(f"JWT_JWKS_URL: {type(error).__name__}: {error}") from error
