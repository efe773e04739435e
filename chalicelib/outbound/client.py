"""Calls third-party HTTP servers: only hosts that the settings allow, and never private addresses.

Resolves the name itself and connects to the address that it checked, so a DNS record that changes between check and
call has no effect. Each redirect is checked like a new call.
"""

import logging
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
from chalicelib.outbound.addresses import is_public
from chalicelib.outbound.destinations import Destination, destination

MAX_REDIRECTS = 3
#: Bytes of an answer's body that are kept; the rest is not read.
MAX_BODY_BYTES = 16_384
#: Addresses of one host that are tried, one after the other.
MAX_ADDRESSES = 8
TIMED_OUT = "the server did not answer in time"
_REDIRECTS = {301, 302, 303, 307, 308}
#: Headers that a redirect may carry to another origin; any other header may hold a secret.
_HARMLESS = {"accept", "accept-language", "content-type", "user-agent"}
#: Headers that describe the body and are dropped with it.
_ABOUT_BODY = {"content-type", "content-encoding", "content-language"}


class _WithoutUrls(logging.Filter):
    """Drops urllib3's warning about a server's malformed headers: it has the called URL, whose query may be secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "url=" not in str(record.msg)


logging.getLogger("urllib3.connection").addFilter(_WithoutUrls())


class NotAllowedError(PermanentError):
    """The call is forbidden, so a retry cannot help; the text names the reason."""


class CallFailedError(Exception):
    """The server did not answer; a retry may help."""


class Answer(Struct, frozen=True):
    status: int
    #: names are lower case
    headers: Mapping[str, str]
    #: at most MAX_BODY_BYTES bytes, not decoded
    body: bytes
    #: the body exceeded MAX_BODY_BYTES
    is_cut: bool


def _resolve(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Outbound(Struct, frozen=True):
    """Makes checked HTTP calls. allowed_hosts: as in `destinations.destination`.

    allow_private: also call private, loopback and link-local addresses; for one machine and tests only.
    resolve: same contract as `socket.getaddrinfo`. is_public: whether an address may be called.
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
        max_redirects: int = MAX_REDIRECTS,
    ) -> Answer:
        """Makes the call and follows up to `max_redirects` redirects; with 0, a redirect is the answer.

        timeout_seconds: for the whole call except name resolution. Raises NotAllowedError, CallFailedError.
        """
        ends_at = monotonic() + timeout_seconds
        headers = {name.lower(): value for name, value in headers.items()}
        for _ in range(max_redirects + 1):
            parsed = self._check(url)
            answer = self._call_once(method, parsed, headers, body, ends_at)
            target = answer.headers.get("location")
            if answer.status not in _REDIRECTS or target is None or not max_redirects:
                return answer
            if method != "HEAD" and (answer.status == 303 or (answer.status in {301, 302} and method == "POST")):
                method, body, headers = "GET", b"", _without_body(headers)
            url = _joined(url, target)
            if self._check(url).origin != parsed.origin:
                headers = {name: value for name, value in headers.items() if name in _HARMLESS}
        raise NotAllowedError(f"more than {max_redirects} redirects")

    def _check(self, url: str) -> Destination:
        try:
            return destination(url, self.allowed_hosts)
        except DestinationError as error:
            raise NotAllowedError(str(error)) from error

    def _call_once(
        self, method: str, parsed: Destination, headers: Mapping[str, str], body: bytes, ends_at: float
    ) -> Answer:
        connection = _connect(self._addresses(parsed), parsed, ends_at)
        left = max(0.001, ends_at - monotonic())
        with connection, _Deadline(left, connection) as deadline:
            pool = _pool(parsed, connection, left)
            try:
                response = pool.urlopen(
                    method,
                    parsed.target,
                    body=body or None,
                    # Forbid compression: the kept size is bounded, but a few compressed bytes can expand to gigabytes.
                    headers={**headers, "host": parsed.authority, "accept-encoding": "identity"},
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                )
                kept = b""
                while len(kept) <= MAX_BODY_BYTES and (chunk := response.read(MAX_BODY_BYTES + 1 - len(kept))):
                    kept += chunk
                response.close()
            except (HTTPError, HTTPException, OSError, ValueError) as error:
                is_late = deadline.is_over or isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError)
                reason = TIMED_OUT if is_late else f"{type(error).__name__}: {error}"
                raise CallFailedError(reason[:500]) from error
            finally:
                pool.close()
            if deadline.is_over:
                raise CallFailedError(TIMED_OUT)
        lowered = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, lowered, kept[:MAX_BODY_BYTES], len(kept) > MAX_BODY_BYTES)

    def _addresses(self, parsed: Destination) -> Sequence[str]:
        """Returns the host's addresses, at most MAX_ADDRESSES. Raises NotAllowedError unless all may be called."""
        try:
            found = self.resolve(parsed.host, parsed.port)
        except (OSError, UnicodeError) as error:
            raise CallFailedError(f"the host {parsed.host!r} is not found: {error}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self.allow_private and not self.is_public(address):
                raise NotAllowedError(f"the host {parsed.host!r} has the address {address}, which is not public")
        return addresses[:MAX_ADDRESSES]


def _connect(addresses: Sequence[str], parsed: Destination, ends_at: float) -> socket.socket:
    """Connects to the first address that accepts; each gets an equal share of the time that is left.

    Raises CallFailedError with the reason of each address.
    """
    reasons: dict[str, str] = {}
    for tried, address in enumerate(addresses):
        share = (ends_at - monotonic()) / (len(addresses) - tried)
        try:
            connection = socket.create_connection((address, parsed.port), max(0.001, share))
        except TimeoutError:
            reasons[address] = TIMED_OUT
        except OSError as error:
            reasons[address] = (error.strerror or str(error)).lower()
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
    if set(reasons.values()) == {TIMED_OUT}:
        raise CallFailedError(TIMED_OUT)
    listed = "; ".join(f"{address}: {reason}" for address, reason in reasons.items())
    raise CallFailedError(f"the host {parsed.host!r} is not reachable: {listed or 'it has no address'}"[:500])


class _Deadline:
    """Closes the connection at the deadline: a socket's own timeout restarts with each received byte."""

    def __init__(self, seconds: float, connection: socket.socket) -> None:
        self.is_over = False
        self._lock = threading.Lock()
        # Duplicate the handle, since TLS takes over the original one.
        self._watched: socket.socket | None = connection.dup()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> "_Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            if self._watched:
                self._watched.close()
            self._watched = None

    def _cut(self) -> None:
        with self._lock:
            self.is_over = True
            if self._watched:
                with suppress(OSError):
                    self._watched.shutdown(socket.SHUT_RDWR)


def _pool(
    parsed: Destination, connection: socket.socket, timeout_seconds: float
) -> urllib3.connectionpool.HTTPConnectionPool:
    """Returns a connection pool that has only this connection."""
    connection.settimeout(timeout_seconds)

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return connection

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return connection

    options: dict[str, Any] = {"timeout": urllib3.Timeout(total=timeout_seconds), "maxsize": 1}
    if parsed.scheme == "http":
        plain = urllib3.HTTPConnectionPool(parsed.host, parsed.port, **options)
        plain.ConnectionCls = Plain
        return plain
    secure = urllib3.HTTPSConnectionPool(
        parsed.host,
        parsed.port,
        server_hostname=parsed.host,
        assert_hostname=parsed.host,
        cert_reqs=ssl.CERT_REQUIRED,
        **options,
    )
    secure.ConnectionCls = Secure
    return secure


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise NotAllowedError(f"the redirect to {target[:200]!r} is not a valid URL: {error}") from error


def _without_body(headers: Mapping[str, str]) -> dict[str, str]:
    """Drops the headers that describe or sign the body."""
    return {
        name: value for name, value in headers.items() if name not in _ABOUT_BODY and not name.startswith("webhook-")
    }
