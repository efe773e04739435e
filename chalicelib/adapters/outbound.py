"""Calls to other people's HTTP servers: only to hosts that the settings allow, and never to a private address.

The name is resolved here and the connection goes to the very address that was checked, so a name that changes its
address between check and call gains nothing. Redirects are not followed by themselves: each is a new, checked call.
"""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from chalicelib.registry import PermanentError

MOST_REDIRECTS = 3
#: Bytes of an answer that are kept; the rest is not read.
MOST_KEPT = 16_384
_REDIRECTS = {301, 302, 303, 307, 308}
_DEFAULT_PORTS = {"http": 80, "https": 443}


class NotAllowedError(PermanentError):
    """The call may not be made; trying again is of no use. The text says why."""


class CallFailedError(Exception):
    """There was no answer; trying again may help."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    #: at most MOST_KEPT bytes
    body: bytes
    #: the body was longer
    is_cut: bool


@dataclass(frozen=True)
class Outbound:
    """allowed_hosts: host names, `*.example.com` for all below one, each with or without a port; `*` for all.

    allow_private: also addresses that are private, loopback or link-local: for one machine and tests only.
    """

    allowed_hosts: tuple[str, ...]
    allow_private: bool = False

    def call(self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_seconds: float) -> Answer:
        """Makes the call and follows up to MOST_REDIRECTS redirects. NotAllowedError, CallFailedError."""
        for _ in range(MOST_REDIRECTS + 1):
            answer = self._call_once(method, url, headers, body, timeout_seconds)
            target = answer.headers.get("location")
            if answer.status not in _REDIRECTS or target is None:
                return answer
            if answer.status == 303 or (answer.status in {301, 302} and method == "POST"):
                method, body = "GET", b""
            url, headers = urljoin(url, target), _for_other_host(url, urljoin(url, target), headers)
        raise NotAllowedError(f"more than {MOST_REDIRECTS} redirects")

    def check(self, url: str) -> SplitResult:
        """The parts of a URL that may be called as far as its text tells. NotAllowedError says why not."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise NotAllowedError(f"{url[:200]!r} is no address: {error}") from error
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username or parts.password:
            raise NotAllowedError("only http and https addresses with a host and without a password are called")
        host = parts.hostname.lower().rstrip(".")
        if not any(_matches(host, port, allowed) for allowed in self.allowed_hosts):
            raise NotAllowedError(f"the host {host!r} is not among those that HTTP_ALLOWED_HOSTS names")
        return parts

    def _call_once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_seconds: float
    ) -> Answer:
        parts = self.check(url)
        assert parts.hostname
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        pool = self._pool(parts.scheme, parts.hostname, self._address(parts.hostname, port), port, timeout_seconds)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.netloc.rpartition("@")[2]
        try:
            response = pool.urlopen(
                method,
                target,
                body=body,
                headers={"Host": host, **headers},
                redirect=False,
                retries=False,
                preload_content=False,
            )
            kept = response.read(MOST_KEPT + 1, decode_content=True)
            response.close()
        except HTTPError as error:
            raise CallFailedError(f"{type(error).__name__}: {error}"[:500]) from error
        finally:
            pool.close()
        lowered = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, lowered, kept[:MOST_KEPT], len(kept) > MOST_KEPT)

    @staticmethod
    def _pool(
        scheme: str, host: str, address: str, port: int, timeout_seconds: float
    ) -> urllib3.connectionpool.HTTPConnectionPool:
        timeout = urllib3.Timeout(total=timeout_seconds)
        if scheme == "http":
            return urllib3.HTTPConnectionPool(address, port, timeout=timeout, maxsize=1)
        return urllib3.HTTPSConnectionPool(
            address, port, timeout=timeout, maxsize=1, server_hostname=host, assert_hostname=host
        )

    def _address(self, host: str, port: int) -> str:
        """The first address of the host, if all of them may be called."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise CallFailedError(f"the host {host!r} is not found: {error}") from error
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            if not self.allow_private and not _is_public(address):
                raise NotAllowedError(f"the host {host!r} has the address {address}, which is not public")
        return addresses[0]


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_global and not (mapped or ip).is_multicast


def _matches(host: str, port: int | None, allowed: str) -> bool:
    name, _, allowed_port = allowed.lower().partition(":")
    if allowed_port and str(port) != allowed_port:
        return False
    return name in {"*", host} or (name.startswith("*.") and host.endswith(name[1:]))


def _for_other_host(url: str, target: str, headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers that a redirect may take along: to another host none that might be a secret."""
    if urlsplit(url).netloc == urlsplit(target).netloc:
        return headers
    return {name: value for name, value in headers.items() if name.lower() not in {"authorization", "cookie"}}
