"""Decides which web pages may call the API: CORS for those that may, a refusal for others where no token is needed.

A browser sends a page's simple requests without asking first, so CORS alone hides answers but stops no submit.
"""

from collections.abc import Collection, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from chalice.app import Response
from msgspec import Struct

from chalicelib.api.problems import Headers, problem
from chalicelib.settings import ANY_ORIGIN, Auth, auth_of, cors_origins_of

#: Request headers that a page may set, and response headers that its scripts may read.
ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, If-None-Match, Prefer"
EXPOSED_HEADERS = (
    "Accept-Encoding, Allow, ETag, Idempotency-Replayed, Location, Preference-Applied, RateLimit, RateLimit-Policy, "
    "Retry-After, WWW-Authenticate"
)
#: Seconds for which a browser may keep the answer to a preflight request: the most that Chromium takes.
PREFLIGHT_SECONDS = 7_200
#: Default headers of every answer. Only the dashboard's files, which browsers check by ETag, may be cached.
UNSTORED: Headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Origins(Struct, frozen=True):
    #: as browsers write them in `Origin`, or ANY_ORIGIN alone
    allowed: tuple[str, ...]
    #: requests need a token, which no page of another origin has by itself
    has_tokens: bool

    def allows(self, origin: str | None) -> bool:
        return ANY_ORIGIN in self.allowed or origin in self.allowed

    def refusal(self, headers: Mapping[str, str], is_public: bool) -> Response | None:
        """Returns the answer to a request from a page of another origin that may not call; None for all others.

        headers: by lower-case name. is_public: the route only shows what everybody may see, so links may lead to it.
        """
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "").lower()
        if self.has_tokens or self.allows(origin) or site == "same-origin":
            return None
        if origin is None:
            # Images, links and forms with GET; `site` is empty for programs and `none` for what the user typed.
            return _refusal("Sec-Fetch-Site") if site in ("cross-site", "same-site") and not is_public else None
        return None if _host(origin) == headers.get("host", "").lower() else _refusal("Origin")

    def response_headers(self, origin: str | None) -> Headers:
        """Returns the CORS headers of every answer, errors included."""
        if not self.allowed:
            return {}
        if ANY_ORIGIN in self.allowed:
            return {"Access-Control-Allow-Origin": ANY_ORIGIN, "Access-Control-Expose-Headers": EXPOSED_HEADERS}
        varies: Headers = {"Vary": "Origin"}
        if origin is None or not self.allows(origin):
            return varies
        return varies | {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED_HEADERS}


def _host(origin: str) -> str:
    """Returns host and port, the empty string for an origin without, such as `null`."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _refusal(field: str) -> Response:
    detail = "With AUTH=none only this API's own pages may call it, and those of the origins in CORS_ORIGINS."
    return problem(403, "Request from another origin", detail, field)


@lru_cache(maxsize=8)
def origins(auth: str, cors_origins: str) -> Origins:
    """Returns the origins by the settings AUTH and CORS_ORIGINS. Raises SettingError."""
    env = {"AUTH": auth, "CORS_ORIGINS": cors_origins}
    return Origins(cors_origins_of(env), auth_of(env) is Auth.JWT)


def preflight(methods: Collection[str]) -> Response:
    """Returns the answer to a preflight request (OPTIONS), apart from `response_headers`."""
    headers: Headers = {
        "Access-Control-Allow-Methods": ", ".join(sorted({*methods, "OPTIONS"})),
        "Access-Control-Allow-Headers": ALLOWED_HEADERS,
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }
    return Response("", headers, 204)
