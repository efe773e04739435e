"""A small client for the hot calls of DynamoDB and SQS: a tenth of boto3's CPU, and no import of it.

It takes and returns what boto3's client does, raises botocore's errors, and leaves every other operation to boto3.
Both services speak JSON 1.0 over POST /, so one function makes all calls. Source: the services' API references, "JSON
protocol", and Signature Version 4 (docs.aws.amazon.com/IAM, "Create a signed AWS API request").
"""

import hashlib
import hmac
import random
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)
from msgspec import Struct

#: The operations that it knows, by service: the prefix of their target, and their names in Python and on the wire.
TARGETS = {"dynamodb": "DynamoDB_20120810", "sqs": "AmazonSQS"}
OPERATIONS = {
    "dynamodb": ("update_item", "put_item", "get_item", "delete_item", "query", "batch_write_item", "batch_get_item"),
    "sqs": (
        *("send_message", "send_message_batch", "change_message_visibility", "change_message_visibility_batch"),
        *("receive_message", "delete_message", "delete_message_batch", "get_queue_attributes"),
    ),
}
#: Statuses and error codes after which botocore's standard mode tries again.
TRANSIENT_STATUSES = {500, 502, 503, 504}
TRANSIENT_ERRORS = {
    *("RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete", "Throttling", "ThrottlingException"),
    *("ThrottledException", "RequestThrottledException", "TooManyRequestsException", "RequestThrottled", "SlowDown"),
    *("ProvisionedThroughputExceededException", "TransactionInProgressException", "RequestLimitExceeded"),
    *("BandwidthLimitExceeded", "LimitExceededException", "EC2ThrottledException"),
}
#: Tokens of botocore's standard mode: an outage spends them, and then no call is tried again until some succeed.
RETRY_TOKENS, RETRY_COST, TIMEOUT_COST = 500, 5, 10
#: Longest head of an answer, bytes.
MAX_HEAD = 65_536


def operation_name(method: str) -> str:
    """Returns the operation's name on the wire: `UpdateItem` for `update_item`."""
    return "".join(part.capitalize() for part in method.split("_"))


class Credentials(Struct, frozen=True):
    access_key: str
    secret_key: str
    #: of temporary credentials; empty for none
    token: str = ""


class SignedClient:
    """Thread-safe. Connections are kept for reuse; more are opened when needed."""

    def __init__(
        self,
        service: str,
        region: str,
        endpoint_url: str,
        credentials: Credentials,
        make_boto3: Callable[[], Any],
        before_try: Callable[[str, int], None] = lambda _operation, _attempt: None,
        *,
        tries: int,
        connect_timeout: float,
        read_timeout: float,
        kept: int,
    ) -> None:
        """make_boto3: a client for all other operations. before_try: may raise. Time-outs in seconds."""
        self.service, self._make_boto3, self._before_try, self._tries = service, make_boto3, before_try, tries
        self._connections = Connections(endpoint_url, connect_timeout, read_timeout, kept)
        self._signer = Signer(service, region, credentials)
        self._quota = RetryQuota()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in OPERATIONS[self.service]:
            call = self._operation(operation_name(name))
            setattr(self, name, call)
            return call
        if "_boto3" not in self.__dict__:
            self._boto3 = self._make_boto3()
        return getattr(self._boto3, name)

    def _operation(self, operation: str) -> Callable[..., dict[str, Any]]:
        target = f"{TARGETS[self.service]}.{operation}"

        def call(**parameters: Any) -> dict[str, Any]:
            return self._call(operation, target, msgspec.json.encode(parameters))

        return call

    def _call(self, operation: str, target: str, body: bytes) -> dict[str, Any]:
        for attempt in range(1, self._tries + 1):
            self._before_try(operation, attempt)
            try:
                answer = self._answer(operation, target, body)
            except (HTTPClientError, ClientError) as error:
                if attempt == self._tries or not _is_transient(error) or not self._quota.take(error):
                    raise
                time.sleep(random.random() * 2 ** (attempt - 1))
            else:
                self._quota.give_back(attempt)
                return answer
        raise AssertionError("unreachable")

    def _answer(self, operation: str, target: str, body: bytes) -> dict[str, Any]:
        head = self._signer.head(self._connections.authority, target, body, time.time())
        status, headers, content = self._connections.exchange(head, body)
        try:
            value = msgspec.json.decode(content, type=dict[str, Any]) if content else {}
        except ValueError as error:
            if status < 300:  # it is not known to come from the service
                raise ConnectionClosedError(endpoint_url=self._connections.url, error=error, request=None) from error
            value = {"message": content[:200].decode(errors="replace")}
        metadata = {"HTTPStatusCode": status, "RequestId": headers.get("x-amzn-requestid", ""), "HTTPHeaders": headers}
        if status < 300:
            return {**value, "ResponseMetadata": metadata}
        raise ClientError(_error(value, headers, status, metadata), operation)


def _error(value: dict[str, Any], headers: Mapping[str, str], status: int, metadata: dict[str, Any]) -> Any:
    """The error as botocore gives it: for SQS by its older code, which a header has."""
    code = str(value.pop("__type", "") or status).rpartition("#")[2]
    code = headers.get("x-amzn-query-error", code).partition(";")[0]
    message = value.pop("message", "") or value.pop("Message", "")
    return {**value, "Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}


def _is_transient(error: HTTPClientError | ClientError) -> bool:
    if isinstance(error, HTTPClientError):
        return True
    code = error.response["Error"]["Code"].rpartition(".")[2]
    return code in TRANSIENT_ERRORS or error.response["ResponseMetadata"]["HTTPStatusCode"] in TRANSIENT_STATUSES


class RetryQuota:
    """Limits second tries while most calls fail. Thread-safe."""

    def __init__(self) -> None:
        self._tokens, self._lock = RETRY_TOKENS, threading.Lock()

    def take(self, error: Exception) -> bool:
        cost = TIMEOUT_COST if isinstance(error, ReadTimeoutError | ConnectTimeoutError) else RETRY_COST
        with self._lock:
            if self._tokens < cost:
                return False
            self._tokens -= cost
            return True

    def give_back(self, attempt: int) -> None:
        if self._tokens < RETRY_TOKENS:
            with self._lock:
                self._tokens = min(RETRY_TOKENS, self._tokens + (1 if attempt == 1 else RETRY_COST))


class Signer:
    """Makes the head of a request with its signature (Version 4). The day's key is computed once."""

    def __init__(self, service: str, region: str, credentials: Credentials) -> None:
        self._service, self._region, self._credentials = service, region, credentials
        self._key: tuple[str, bytes] = ("", b"")
        # Lets SQS answer the error codes of its older protocol too, as botocore asks it to.
        self._extra = "x-amzn-query-mode: true\r\n" if service == "sqs" else ""

    def head(self, authority: str, target: str, body: bytes, now: float) -> bytes:
        """Returns the request line and headers of POST /. now: epoch seconds."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        headers = {"content-type": "application/x-amz-json-1.0", "host": authority, "x-amz-date": stamp}
        if self._credentials.token:
            headers["x-amz-security-token"] = self._credentials.token
        headers["x-amz-target"] = target
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        authorization = self.authorization("POST", "/", headers, body)
        end = f"{lines}{self._extra}authorization: {authorization}\r\ncontent-length: {len(body)}\r\n"
        return f"POST / HTTP/1.1\r\n{end}user-agent: paceline\r\naccept-encoding: identity\r\n\r\n".encode()

    def authorization(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> str:
        """Returns the header's value. headers: those to be signed, with lower-case names in order."""
        stamp, names = headers["x-amz-date"], ";".join(headers)
        fields = "".join(f"{name}:{' '.join(value.split())}\n" for name, value in headers.items())
        request = f"{method}\n{path}\n\n{fields}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        scope = f"{stamp[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.new(self._key_of(stamp[:8]), text.encode(), "sha256").hexdigest()
        by = f"Credential={self._credentials.access_key}/{scope}"
        return f"AWS4-HMAC-SHA256 {by}, SignedHeaders={names}, Signature={signature}"

    def _key_of(self, day: str) -> bytes:
        known_day, key = self._key
        if known_day != day:
            key = f"AWS4{self._credentials.secret_key}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.new(key, part.encode(), "sha256").digest()
            self._key = (day, key)
        return key


class Connections:
    """The kept connections to one endpoint. Thread-safe."""

    def __init__(self, endpoint_url: str, connect_timeout: float, read_timeout: float, kept: int) -> None:
        parts = urlsplit(endpoint_url)
        self.url, self._tls = endpoint_url, _tls() if parts.scheme == "https" else None
        self._address = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self.authority = parts.netloc.rpartition("@")[2]
        self._connect_timeout, self._read_timeout = connect_timeout, read_timeout
        self._idle: deque[socket.socket] = deque()
        self._kept = kept
        weakref.finalize(self, _close, self._idle)

    def exchange(self, head: bytes, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Sends a request; returns the answer's status, headers (names in lower case) and body."""
        connection = self._take()
        try:
            connection.sendall(head + body)
            status, headers, content, is_kept = _read(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, TimeoutError):
                raise ReadTimeoutError(endpoint_url=self.url, error=error) from error
            if isinstance(error, OSError | ValueError):
                raise ConnectionClosedError(endpoint_url=self.url, error=error, request=None) from error
            raise
        if is_kept and len(self._idle) < self._kept:
            self._idle.append(connection)
        else:
            connection.close()
        return status, headers, content

    def _take(self) -> socket.socket:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if not _is_readable(connection):
                return connection
            connection.close()  # the server has closed it
        return self._connect()

    def _connect(self) -> socket.socket:
        try:
            connection = socket.create_connection(self._address, self._connect_timeout)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_hostname=self._address[0])
        except TimeoutError as error:
            raise ConnectTimeoutError(endpoint_url=self.url, error=error) from error
        except OSError as error:
            raise EndpointConnectionError(endpoint_url=self.url, error=error) from error
        connection.settimeout(self._read_timeout)
        return connection


def _close(idle: deque[socket.socket]) -> None:
    for connection in idle:
        connection.close()


def _tls() -> Any:
    import os  # noqa: PLC0415
    import ssl  # noqa: PLC0415 - emulators speak plain HTTP

    return ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)


def _is_readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _read(connection: socket.socket) -> tuple[int, dict[str, str], bytes, bool]:
    """Reads one answer; also says whether the connection may be used again. ValueError if it is not HTTP/1.1."""
    data = _more(connection, b"")
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > MAX_HEAD:
            raise ValueError("the head of the answer has no end")
        data = _more(connection, data)
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    version, status, *_ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    data = data[end + 4 :]
    if headers.get("transfer-encoding", "").lower() == "chunked":
        content = _chunks(connection, data)
    elif "content-length" not in headers:
        raise ValueError("the answer has no length")
    else:
        length = int(headers["content-length"])
        while len(data) < length:
            data = _more(connection, data)
        content = data[:length]
    is_kept = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return int(status), headers, content, is_kept


def _chunks(connection: socket.socket, data: bytes) -> bytes:
    content = b""
    while True:
        while (end := data.find(b"\r\n")) < 0:
            data = _more(connection, data)
        size = int(data[:end].partition(b";")[0], 16)
        while len(data) < end + 2 + size + 2:
            data = _more(connection, data)
        content, data = content + data[end + 2 : end + 2 + size], data[end + 2 + size + 2 :]
        if size == 0:
            return content


def _more(connection: socket.socket, data: bytes) -> bytes:
    received = connection.recv(65_536)
    if not received:
        raise ConnectionResetError("the server closed the connection")
    return data + received
