"""Which addresses Paceline may call on somebody's behalf, as far as their text tells. Pure."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from chalicelib.core.errors import DestinationError

MAX_URL = 2_048
DEFAULT_PORTS = {"http": 80, "https": 443}


class Destination(Struct, frozen=True):
    """An address taken apart. host: in lower case, an IPv6 address without its brackets."""

    scheme: str
    host: str
    port: int
    #: path and query, as they go into the request
    target: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port


def destination(url: str, allowed_hosts: Sequence[str]) -> Destination:
    """The address taken apart, if it may be called. DestinationError says why not.

    allowed_hosts: host names, `*.example.com` for all below one, each with or without a port; `*` for all.

    >>> destination("https://api.example.com/v1?a=b", ["*.example.com:443"])
    Destination(scheme='https', host='api.example.com', port=443, target='/v1?a=b')
    """
    found = _taken_apart(url)
    if not any(_matches(found, allowed) for allowed in allowed_hosts):
        where = f"{found.host}:{found.port}"
        raise DestinationError(f"the host {where!r} is not among those that HTTP_ALLOWED_HOSTS names")
    return found


def _taken_apart(url: str) -> Destination:
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise DestinationError(
            f"an address has at most {MAX_URL} characters, all of them ASCII and none of them a space"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DestinationError(f"{url[:200]!r} is no address: {error}") from error
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc or port == 0:
        raise DestinationError("only http and https addresses with a host and without a user or password are called")
    host = parts.hostname.rstrip(".")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], target)


def _matches(found: Destination, allowed: str) -> bool:
    name, _, port = allowed.lower().partition(":")
    if port and str(found.port) != port:
        return False
    return name in {"*", found.host} or (name.startswith("*.") and found.host.endswith(name[1:]))
