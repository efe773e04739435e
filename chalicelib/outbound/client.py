"""Calls to other people's HTTP servers: only to hosts that the settings allow, and never to a private address.

The name is resolved here and the connection goes to the very address that was checked, so a name that changes its
address between check and call gains nothing. Redirects are not followed by themselves: each is a new, checked call.
"""

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from time import monotonic
from typing import Any
from urllib.parse import urljoin

import urllib3
from msgspec import Struct
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from chalicelib.core.errors import DestinationError, PermanentError
from chalicelib.outbound.destinations import Destination, destination

MAX_REDIRECTS = 3
#: Bytes of an answer that are kept; the rest is not read.
MAX_KEPT = 16_384
TOO_LATE = "there was no whole answer in time"
_REDIRECTS = {301, 302, 303, 307, 308}
#: What a redirect may take along to another origin: anything else might be a secret.
_HARMLESS = {"accept", "accept-language", "content-type", "user-agent"}
#: What is said about a body, and goes with it.
_ABOUT_BODY = {"content-type", "content-encoding", "content-language"}
#: IPv6 addresses that are public, and those of them that carry an IPv4 address within (6to4, Teredo).
_IPV6_PUBLIC = ipaddress.IPv6Network("2000::/3")
_IPV6_TUNNELS = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))
#: Stands for an IPv4 address behind a translator, as DNS64 gives it (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class NotAllowedError(PermanentError):
    """The call may not be made; trying again is of no use. The text says why."""


class CallFailedError(Exception):
    """There was no answer; trying again may help."""


class Answer(Struct, frozen=True):
    status: int
    #: names in lower case
    headers: Mapping[str, str]
    #: at most MAX_KEPT bytes, as they came
    body: bytes
    #: the body was longer
    is_cut: bool


def is_public(address: str) -> bool:
    """Whether the address is somebody's on the internet, and not a way to one that is not."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip not in _IPV6_PUBLIC or any(ip in tunnel for tunnel in _IPV6_TUNNELS):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _resolve(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Outbound(Struct, frozen=True):
    """allowed_hosts: as `destinations.destination` takes them.

    allow_private: also addresses that are private, loopback or link-local: for one machine and tests only.
    resolve: host and port to what `socket.getaddrinfo` gives. is_public: whether an address may be called.
    """

    allowed_hosts: tuple[str, ...]
    allow_private: bool = False
    resolve: Callable[[str, int], Sequence[tuple[Any, ...]]] = _resolve
    is_public: Callable[[str], bool] = is_public

    def call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout_seconds: float,
        most_redirects: int = MAX_REDIRECTS,
    ) -> Answer:
        """Makes the call and follows so many redirects; with 0, a redirect is the answer.

        timeout_seconds: for all of it, but for the look-up of names. NotAllowedError, CallFailedError.
        """
        ends_at = monotonic() + timeout_seconds
        headers = {name.lower(): value for name, value in headers.items()}
        for _ in range(most_redirects + 1):
            place = self._check(url)
            answer = self._call_once(method, place, headers, body, ends_at)
            target = answer.headers.get("location")
            if answer.status not in _REDIRECTS or target is None or not most_redirects:
                return answer
            if method != "HEAD" and (answer.status == 303 or (answer.status in {301, 302} and method == "POST")):
                method, body, headers = "GET", b"", _without_body(headers)
            url = _joined(url, target)
            if self._check(url).origin != place.origin:
                headers = {name: value for name, value in headers.items() if name in _HARMLESS}
        raise NotAllowedError(f"more than {most_redirects} redirects")

    def _check(self, url: str) -> Destination:
        try:
            return destination(url, self.allowed_hosts)
        except DestinationError as error:
            raise NotAllowedError(str(error)) from error

    def _call_once(
        self, method: str, place: Destination, headers: Mapping[str, str], body: bytes, ends_at: float
    ) -> Answer:
        address = self._address(place)
        left = ends_at - monotonic()
        if left <= 0:
            raise CallFailedError(TOO_LATE)
        with _Deadline(left) as deadline:
            pool = _pool(place, address, left, deadline)
            try:
                response = pool.urlopen(
                    method,
                    place.target,
                    body=body or None,
                    # Not compressed: what is kept is bounded, and a few bytes may unpack to gigabytes.
                    headers={**headers, "host": place.authority, "accept-encoding": "identity"},
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                )
                kept = b""
                while len(kept) <= MAX_KEPT and (chunk := response.read(MAX_KEPT + 1 - len(kept))):
                    kept += chunk
                response.close()
            except (HTTPError, HTTPException, OSError, ValueError) as error:
                is_late = deadline.is_over or isinstance(error, urllib3.exceptions.TimeoutError)
                why = TOO_LATE if is_late else f"{type(error).__name__}: {error}"
                raise CallFailedError(why[:500]) from error
            finally:
                pool.close()
            if deadline.is_over:
                raise CallFailedError(TOO_LATE)
        lowered = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, lowered, kept[:MAX_KEPT], len(kept) > MAX_KEPT)

    def _address(self, place: Destination) -> str:
        """The first address of the host, if all of them may be called."""
        try:
            found = self.resolve(place.host, place.port)
        except (OSError, UnicodeError) as error:
            raise CallFailedError(f"the host {place.host!r} is not found: {error}") from error
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            if not self.allow_private and not self.is_public(address):
                raise NotAllowedError(f"the host {place.host!r} has the address {address}, which is not public")
        return addresses[0]


class _Deadline:
    """Cuts a connection off when the time is over: a socket's own time-out begins anew with each byte."""

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> "_Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for watched in self._watched:
                watched.close()
            self._watched.clear()

    def watch(self, connection: socket.socket) -> None:
        # A second handle on the same connection: TLS takes the first one over.
        with self._lock:
            self._watched.append(connection.dup())

    def _cut(self) -> None:
        with self._lock:
            self.is_over = True
            for watched in self._watched:
                with suppress(OSError):
                    watched.shutdown(socket.SHUT_RDWR)


def _pool(
    place: Destination, address: str, timeout_seconds: float, deadline: _Deadline
) -> urllib3.connectionpool.HTTPConnectionPool:
    """Connections to this address and no other, watched by the deadline."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            deadline.watch(connection)
            return connection

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            deadline.watch(connection)
            return connection

    options: dict[str, Any] = {"timeout": urllib3.Timeout(total=timeout_seconds), "maxsize": 1}
    if place.scheme == "http":
        plain = urllib3.HTTPConnectionPool(address, place.port, **options)
        plain.ConnectionCls = Plain
        return plain
    secure = urllib3.HTTPSConnectionPool(
        address,
        place.port,
        server_hostname=place.host,
        assert_hostname=place.host,
        cert_reqs=ssl.CERT_REQUIRED,
        **options,
    )
    secure.ConnectionCls = Secure
    return secure


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise NotAllowedError(f"the redirect to {target[:200]!r} leads nowhere: {error}") from error


def _without_body(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a call that has lost its body, and with it what was signed."""
    return {
        name: value for name, value in headers.items() if name not in _ABOUT_BODY and not name.startswith("webhook-")
    }
