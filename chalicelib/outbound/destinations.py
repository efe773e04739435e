"""Decides from a URL's text whether Paceline may call it for a user. Pure; addresses are checked in client.py."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from chalicelib.core.errors import DestinationError
from chalicelib.core.shared_names import SharedHost

MAX_URL_LENGTH = 2_048
DEFAULT_PORTS = {"http": 80, "https": 443}


class Destination(Struct, frozen=True):
    """A parsed URL. host: lower case; an IPv6 address has no brackets."""

    scheme: str
    host: str
    port: int
    #: path and query, as sent in the request line
    target: str

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port


def destination(url: str, allowed_hosts: Sequence[str]) -> Destination:
    """Parses a URL and checks it against the allow list. Raises DestinationError, which names the reason.

    allowed_hosts: host names, or `*.example.com` for all subdomains, each with an optional port; `*` allows every host.

    >>> destination("https://api.example.com/v1?a=b", ["*.example.com:443"])
    Destination(scheme='https', host='api.example.com', port=443, target='/v1?a=b')
    """
    found = _parse(url)
    if not any(_matches(found, allowed) for allowed in allowed_hosts):
        authority = f"{found.host}:{found.port}"
        raise DestinationError(f"the host {authority!r} is not in HTTP_ALLOWED_HOSTS")
    return found


def shared_limit_of(url: str, hosts: Sequence[SharedHost]) -> str:
    """The name of the first host that fits the URL; empty if none does, or if the URL may not be called at all.

    >>> shared_limit_of("https://API.stripe.com/v1", [SharedHost("*.stripe.com", "stripe")])
    'stripe'
    """
    try:
        found = _parse(url)
    except DestinationError:
        return ""
    return next((one.name for one in hosts if _matches(found, one.host)), "")


def _parse(url: str) -> Destination:
    if len(url) > MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise DestinationError(
            f"a URL may have at most {MAX_URL_LENGTH} characters, all printable ASCII, without spaces or backslashes"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DestinationError(f"{url[:200]!r} is not a valid URL: {error}") from error
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc or port == 0:
        raise DestinationError("only http and https URLs with a host and without user or password are allowed")
    host = parts.hostname.rstrip(".")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], target)


def _matches(found: Destination, allowed: str) -> bool:
    name, _, port = allowed.lower().partition(":")
    if port and str(found.port) != port:
        return False
    return name in {"*", found.host} or (name.startswith("*.") and found.host.endswith(name[1:]))
