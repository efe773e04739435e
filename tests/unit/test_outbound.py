"""Calls to other people's servers, and everything that must not be called. Real sockets, on loopback only."""

import gzip
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from chalicelib.core.errors import DestinationError
from chalicelib.outbound.addresses import is_public
from chalicelib.outbound.client import (
    MAX_ADDRESSES,
    MAX_BODY_BYTES,
    MAX_REDIRECTS,
    TIMED_OUT,
    CallFailedError,
    NotAllowedError,
    Outbound,
)
from chalicelib.outbound.destinations import MAX_URL_LENGTH, destination
from tests.receiver import Got, Receiver, Reply, raw_server

ANYWHERE = Outbound(("*",), allow_private=True)
GUARDED = Outbound(("*",))


def answering(addresses: Sequence[str]) -> Callable[[str, int], Sequence[tuple[Any, ...]]]:
    """A name service that knows these addresses for every name."""
    return lambda host, port: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]


def get(outbound: Outbound, url: str, timeout: float = 5.0, **headers: str) -> Any:
    return outbound.call("GET", url, headers, b"", timeout)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


# Which addresses are public.


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1"),
        *("169.254.169.254", "169.254.170.2", "100.64.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.9"),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1"),
        *("fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "100::1", "2001:db8::1"),
        *("2002:7f00:1::1", "2002:a9fe:a9fe::", "2001:0:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("64:ff9b:1::1", "5f00::1"),
        # The rest of IANA's special-purpose registries, first and last address of each range.
        *("0.255.255.255", "10.255.255.255", "100.127.255.255", "169.254.255.255", "172.31.255.255"),
        *("192.0.0.0", "192.0.0.8", "192.0.0.9", "192.0.0.10", "192.0.0.170", "192.0.0.255"),
        *("192.31.196.0", "192.31.196.255", "192.52.193.0", "192.52.193.255", "192.88.99.0", "192.88.99.2"),
        *("192.88.99.255", "192.168.255.255", "192.175.48.0", "192.175.48.255", "198.19.255.255"),
        *("198.51.100.0", "198.51.100.255", "203.0.113.255", "239.255.255.255", "255.255.255.254"),
        *("::ffff:192.88.99.1", "64:ff9b::c000:9", "100:0:0:1::1", "2001::", "2001:1::1", "2001:1::2", "2001:1::3"),
        *("2001:2::1", "2001:3::1", "2001:4:112::1", "2001:10::1", "2001:20::1", "2001:30::1"),
        *("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8:ffff::1", "2002::", "2620:4f:8000::1", "3ffe::1"),
        *("3fff::", "3fff::1", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::1", "1fff::1"),
    ],
)
def test_address_that_is_not_public_is_known_as_such(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"),
        # Neighbours of special ranges.
        *("1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"),
        *("169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0"),
        *("192.0.3.0", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0", "198.17.255.255"),
        *("198.20.0.0", "223.255.255.255", "2001:200::1", "2001:4860:4860::8888", "2003::1", "2620:4f:8001::1"),
        *("3fff:1000::1", "2a00::1"),
    ],
)
def test_public_address_is_known_as_such(address: str) -> None:
    assert is_public(address)


# Addresses that may not be called.


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "127.0.0.1", "2130706433", "017700000001", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::]", "LOCALHOST", "localhost."),
        *("169.254.169.254", "2852039166", "0xa9fea9fe", "[fe80::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::1]"),
    ],
)
def test_no_way_of_writing_a_private_address_gets_through(receiver: Receiver, host: str) -> None:
    with pytest.raises((NotAllowedError, CallFailedError)) as refused:
        get(GUARDED, f"http://{host}:{receiver.port}/")
    # A spelling that this system's resolver does not know is refused too.
    assert "not public" in str(refused.value) or "not found" in str(refused.value)
    assert receiver.got == []


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::ffff:10.0.0.1"], ["fd00::1"]])
def test_name_that_leads_to_a_private_address_is_not_called(addresses: list[str]) -> None:
    outbound = Outbound(("api.example.com",), resolve=answering(addresses))
    with pytest.raises(NotAllowedError, match="not public"):
        get(outbound, "http://api.example.com/")


def test_the_checked_address_is_the_one_that_is_called(receiver: Receiver) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> Sequence[tuple[Any, ...]]:
        asked.append(host)
        return answering(["127.0.0.1" if len(asked) == 1 else "127.0.0.2"])(host, port)

    outbound = Outbound(("rebinding.example",), resolve=resolve, is_public=lambda address: address == "127.0.0.1")
    answer = get(outbound, f"http://rebinding.example:{receiver.port}/")
    assert (answer.status, asked) == (200, ["rebinding.example"])
    assert receiver.got[0].headers["host"] == f"rebinding.example:{receiver.port}"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://api.example.com/",
            "file:///etc/passwd",
            "gopher://api.example.com/",
            "//api.example.com/",
            "",
            "http:",
        ),
        *("http://", "http:///path", "http://user@api.example.com/", "http://user:word@api.example.com/"),
        *("http://@api.example.com/", "http://api.example.com@evil.example/", "http://evil.example/"),
        *("http://api.example.com.evil.example/", "http://evilapi.example.com.evil/", "http://xapi.example.com/"),
        *("http://api.example.com\\@evil.example/", "http://evil.example\\.api.example.com/"),
        *("http://api.example.com:0/", "http://api.example.com:99999/", "http://api.example.com:x/", "http://[::1/"),
        *(
            "http://api.example.com/a b",
            "http://api.example.com/\r\nX: y",
            "http://api.example.com/\n",
            "http://äpi.de/",
        ),
        *(
            "http://api.example.com/" + "x" * MAX_URL_LENGTH,
            "http://ⓐpi.example.com/",
            "http://api.example.com%00.evil/",
        ),
    ],
)
def test_address_that_is_not_allowed_is_refused_by_its_text(url: str) -> None:
    with pytest.raises(DestinationError):
        destination(url, ["api.example.com"])


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://api.example.com/", "api.example.com"),
        ("https://API.example.com./", "api.example.com"),
        ("https://api.example.com/", "api.example.com:443"),
        ("https://api.example.com:443/", "API.EXAMPLE.COM:443"),
        ("http://api.example.com:8080/", "api.example.com"),
        ("https://a.b.example.com/", "*.example.com"),
        ("https://anything.test:81/", "*"),
        ("http://[::1]:81/", "*:81"),
    ],
)
def test_allowed_hosts_are_names_below_names_and_ports(url: str, allowed: str) -> None:
    assert destination(url, [allowed]).target == "/"


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://api.example.com/", "api.example.com:443"),
        ("https://api.example.com:8443/", "api.example.com:443"),
        ("https://example.com/", "*.example.com"),
        ("https://badexample.com/", "*.example.com"),
        ("https://api.example.com/", ""),
    ],
)
def test_other_hosts_and_ports_are_not_allowed(url: str, allowed: str) -> None:
    with pytest.raises(DestinationError, match="HTTP_ALLOWED_HOSTS"):
        destination(url, [allowed])


def test_nothing_is_allowed_by_itself(receiver: Receiver) -> None:
    with pytest.raises(NotAllowedError):
        get(Outbound((), allow_private=True), receiver.url())
    assert receiver.got == []


# Redirects.


def to(url: str, status: int = 302) -> Callable[[Got], Reply]:
    return lambda got: Reply(status, {"Location": url})


def test_redirect_to_a_private_address_is_not_followed() -> None:
    with Receiver(host="127.0.0.2") as inner, Receiver(to(inner.url("/secret"))) as outer:
        outbound = Outbound(("*",), is_public=lambda address: address == "127.0.0.1")
        with pytest.raises(NotAllowedError, match="not public"):
            get(outbound, outer.url())
        assert (len(outer.got), inner.got) == (1, [])


def test_redirect_to_a_name_that_leads_to_a_private_address_is_not_followed() -> None:
    with Receiver() as receiver:
        receiver.answer = to(f"http://inner.example:{receiver.port}/")

        def resolve(host: str, port: int) -> Sequence[tuple[Any, ...]]:
            return answering(["127.0.0.2" if host == "inner.example" else "127.0.0.1"])(host, port)

        outbound = Outbound(("*",), resolve=resolve, is_public=lambda address: address == "127.0.0.1")
        with pytest.raises(NotAllowedError, match=r"inner\.example.* not public"):
            get(outbound, receiver.url())


@pytest.mark.parametrize("target", ["http://evil.example/", "file:///etc/passwd", "http://user:word@{host}/", "//["])
def test_redirect_to_what_is_not_allowed_is_not_followed(receiver: Receiver, target: str) -> None:
    receiver.answer = to(target.format(host=receiver.authority))
    with pytest.raises(NotAllowedError):
        get(Outbound((receiver.authority,), allow_private=True), receiver.url())
    assert len(receiver.got) == 1


def test_redirects_come_to_an_end(receiver: Receiver) -> None:
    receiver.answer = to("/again")
    with pytest.raises(NotAllowedError, match="redirects"):
        get(ANYWHERE, receiver.url())
    assert len(receiver.got) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [(301, "POST", "GET"), (302, "POST", "GET"), (303, "PUT", "GET"), (307, "POST", "POST"), (308, "PUT", "PUT")],
)
def test_redirect_takes_the_method_along_as_its_status_says(status: int, method: str, then: str) -> None:
    with Receiver(lambda got: Reply() if got.path == "/there" else Reply(status, {"Location": "/there"})) as receiver:
        sent = {"content-type": "text/plain", "webhook-signature": "v1,x", "authorization": "a", "x-api-key": "k"}
        assert ANYWHERE.call(method, receiver.url(), sent, b"body", 5).status == 200
        second = receiver.got[1]
    assert (second.method, second.body) == (then, b"body" if then == method else b"")
    assert ("content-type" in second.headers) == ("webhook-signature" in second.headers) == (then == method)
    assert (second.headers["authorization"], second.headers["x-api-key"]) == ("a", "k")


def test_redirect_takes_no_secret_to_another_origin() -> None:
    with Receiver() as other, Receiver(to(other.url("/there"), 307)) as receiver:
        secrets = {"Authorization": "a", "Cookie": "c", "X-Api-Key": "k", "webhook-signature": "v1,x"}
        assert ANYWHERE.call("POST", receiver.url(), {**secrets, "Accept": "text/plain"}, b"body", 5).status == 200
        [got] = other.got
    assert not {name.lower() for name in secrets} & got.headers.keys()
    assert (got.headers["accept"], got.body) == ("text/plain", b"body")


def test_redirect_can_be_the_answer(receiver: Receiver) -> None:
    receiver.answer = to("/there")
    assert ANYWHERE.call("POST", receiver.url(), {}, b"", 5, 0).status == 302
    assert len(receiver.got) == 1


# Answers.


def test_answer_is_kept_up_to_a_length(receiver: Receiver) -> None:
    receiver.answer = lambda got: Reply(body=b"x" * (MAX_BODY_BYTES + int(got.path[1:])))
    whole, cut = get(ANYWHERE, receiver.url("/0")), get(ANYWHERE, receiver.url("/1000000"))
    assert (len(whole.body), whole.is_cut) == (MAX_BODY_BYTES, False)
    assert (len(cut.body), cut.is_cut) == (MAX_BODY_BYTES, True)


def test_answer_is_not_unpacked(receiver: Receiver) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    receiver.answer = lambda got: Reply(headers={"Content-Encoding": "gzip"}, body=bomb)
    assert get(ANYWHERE, receiver.url()).body == bomb[:MAX_BODY_BYTES]
    assert receiver.got[0].headers["accept-encoding"] == "identity"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([HEAD, *[b"x"] * 100], id="body"),
        pytest.param([b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n"] * 100], id="headers"),
        pytest.param([*(bytes([byte]) for byte in b"HTTP/1.1 200 OK and so on, and on, and on")], id="status line"),
        pytest.param([b""] * 100, id="nothing"),
    ],
)
def test_answer_that_drips_is_cut_off_in_time(chunks: list[bytes]) -> None:
    with raw_server(*chunks, pause_seconds=0.1) as port:
        begun = time.monotonic()
        with pytest.raises(CallFailedError, match="in time"):
            get(ANYWHERE, f"http://127.0.0.1:{port}/", timeout=0.6)
        assert time.monotonic() - begun < 3


def test_redirects_share_one_time(receiver: Receiver) -> None:
    def slowly(got: Got) -> Reply:
        time.sleep(0.4)
        return Reply(302, {"Location": "/again"})

    receiver.answer = slowly
    begun = time.monotonic()
    with pytest.raises(CallFailedError, match="in time"):
        get(ANYWHERE, receiver.url(), timeout=0.7)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("sent", [b"", b"nonsense\r\n\r\n", HEAD + b"half", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200])
def test_answer_that_is_none_is_a_failure(sent: bytes) -> None:
    with raw_server(sent) as port, pytest.raises(CallFailedError):
        get(ANYWHERE, f"http://127.0.0.1:{port}/")


def test_nobody_there_is_a_failure() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(CallFailedError):
        get(ANYWHERE, f"http://127.0.0.1:{port}/")
    with pytest.raises(CallFailedError, match="not found"):
        get(ANYWHERE, "http://no-such-host.invalid/")


def at(addresses: Sequence[str]) -> Outbound:
    """A client of hosts that have these addresses, all public."""
    return Outbound(("*",), resolve=answering(addresses), is_public=lambda address: True)


@pytest.mark.parametrize("others", [1, 3, MAX_ADDRESSES - 1])
def test_every_address_of_a_host_is_tried(receiver: Receiver, others: int) -> None:
    addresses = [f"127.0.1.{n}" for n in range(1, others + 1)] + [receiver.host]
    assert get(at(addresses), f"http://many.example:{receiver.port}/").status == 200
    assert [got.headers["host"] for got in receiver.got] == [f"many.example:{receiver.port}"]


def test_addresses_are_not_tried_without_end(receiver: Receiver) -> None:
    addresses = [f"127.0.1.{n}" for n in range(1, MAX_ADDRESSES + 1)] + [receiver.host]
    with pytest.raises(CallFailedError, match="not reachable"):
        get(at(addresses), f"http://many.example:{receiver.port}/")


def test_address_that_never_answers_leaves_time_for_the_next_one(receiver: Receiver) -> None:
    with silent_address("127.0.0.3", receiver.port):
        assert get(at(["127.0.0.3", receiver.host]), f"http://two.example:{receiver.port}/", timeout=4).status == 200


def test_addresses_that_never_answer_share_one_time() -> None:
    with silent_address("127.0.0.3") as port, silent_address("127.0.0.4", port):
        begun = time.monotonic()
        with pytest.raises(CallFailedError, match=f"^{TIMED_OUT}$"):
            get(at(["127.0.0.3", "127.0.0.4"]), f"http://two.example:{port}/", timeout=0.6)
        assert time.monotonic() - begun < 3


def test_request_that_was_sent_is_not_sent_to_the_next_address(receiver: Receiver) -> None:
    receiver.answer = lambda got: Reply(500)
    assert get(at([receiver.host, "127.0.0.3"]), f"http://two.example:{receiver.port}/").status == 500
    assert len(receiver.got) == 1


def test_refused_connection_is_called_that(receiver: Receiver) -> None:
    with pytest.raises(CallFailedError) as refused:
        get(at(["127.0.0.3", "127.0.0.4"]), f"http://two.example:{receiver.port}/")
    reasons = "127.0.0.3: connection refused; 127.0.0.4: connection refused"
    assert str(refused.value) == f"the host 'two.example' is not reachable: {reasons}"


def test_host_without_an_address_is_a_failure() -> None:
    with pytest.raises(CallFailedError, match="it has no address"):
        get(at([]), "http://none.example/")


@contextmanager
def silent_address(host: str, port: int = 0) -> Iterator[int]:
    """An address that drops every attempt to connect: its queue of connections is full."""
    with ExitStack() as opened:
        listening = opened.enter_context(socket.socket())
        listening.bind((host, port))
        listening.listen(0)
        port = listening.getsockname()[1]
        for _ in range(4):
            filling = opened.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex((host, port))
        yield port


@pytest.mark.parametrize("headers", [b"X-A: b\r\nnonsense\r\n", b"nonsense\r\nX-A: b\r\n"])
def test_called_url_is_not_logged(headers: bytes, caplog: pytest.LogCaptureFixture) -> None:
    sent = b"HTTP/1.1 200 OK\r\n" + headers + b"Content-Length: 2\r\n\r\nOK"
    with raw_server(sent) as port, suppress(CallFailedError):
        get(ANYWHERE, f"http://127.0.0.1:{port}/path?token=the-secret")
    assert "the-secret" not in caplog.text


def test_https_server_with_a_strange_certificate_is_not_talked_to(receiver: Receiver) -> None:
    with pytest.raises(CallFailedError, match="SSL"):
        get(ANYWHERE, f"https://127.0.0.1:{receiver.port}/")
    assert receiver.got == []


@pytest.mark.parametrize(("name", "value"), [("x-a", "b\r\nx-c: d"), ("x-a", "b\nx-c: d"), ("x-a:", "b")])
def test_header_can_not_smuggle_in_another(receiver: Receiver, name: str, value: str) -> None:
    with pytest.raises(CallFailedError):
        ANYWHERE.call("GET", receiver.url(), {name: value}, b"", 5)
    assert all("x-c" not in got.headers for got in receiver.got)


def test_what_is_sent_arrives_as_it_was(receiver: Receiver) -> None:
    answer = ANYWHERE.call("PATCH", receiver.url("/a%20b;c?d=%2F&e"), {"X-A": "b"}, "ä".encode(), 5)
    [got] = receiver.got
    assert (answer.status, got.method, got.path, got.body) == (200, "PATCH", "/a%20b;c?d=%2F&e", "ä".encode())
    assert got.headers["x-a"] == "b"
    assert got.headers["host"] == receiver.authority
