"""The meaning of AWS's errors, and the time that calls may take."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.aws import client as aws
from chalicelib.core.errors import UnavailableError
from tests.factories import VirtualClock


class Silent:
    """Takes connections and never answers."""

    def __init__(self, server: socket.socket) -> None:
        server.setblocking(False)
        self._server = server
        self.url = f"http://127.0.0.1:{server.getsockname()[1]}"

    def connections(self) -> int:
        """How many were made since the last call."""
        count = 0
        with suppress(BlockingIOError):
            while True:
                self._server.accept()[0].close()
                count += 1
        return count


@pytest.fixture
def silent() -> Iterator[Silent]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Silent(server)


@pytest.fixture(params=["signed", "boto3"])
def make_client(request: pytest.FixtureRequest, silent: Silent, emulated: None) -> Callable[..., Any]:
    """Makes a client of the silent service, of either kind."""
    is_boto3 = request.param == "boto3"
    return lambda **options: aws.client("sqs", silent.url, aws.ClientOptions(**options), is_boto3)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)


def client_error(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Call")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    "code",
    [
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestThrottled",
        "AWS.SimpleQueueService.RequestThrottled",
        "AWS.SimpleQueueService.NonExistentQueue",
        "KmsThrottled",
        "ResourceNotFoundException",
    ],
)
def test_what_may_pass_is_unavailable(code: str) -> None:
    with pytest.raises(UnavailableError, match="sending"), aws.unavailable("sending"):
        raise client_error(code)


def test_every_5xx_is_unavailable_and_what_is_our_fault_is_not() -> None:
    with pytest.raises(UnavailableError), aws.unavailable("sending"):
        raise client_error("Whatever", 502)
    with pytest.raises(ClientError), aws.unavailable("sending"):
        raise client_error("ValidationException")


def test_a_call_to_a_service_that_is_silent_ends(silent: Silent, make_client: Callable[..., Any]) -> None:
    begun = time.monotonic()
    assert "sending" in call(make_client(read_timeout=0.2))
    assert time.monotonic() - begun < aws.TRIES * 1.2 + 1.5
    assert silent.connections() == aws.TRIES


def call(client: Any) -> str:
    """Sends to the silent service; returns the error's text."""
    with pytest.raises(UnavailableError) as caught, aws.unavailable("sending"):
        client.send_message(QueueUrl="http://127.0.0.1/q", MessageBody="x")
    return str(caught.value)


def test_when_a_requests_time_is_spent_no_call_begins(silent: Silent, make_client: Callable[..., Any]) -> None:
    client, seconds = make_client(read_timeout=0.1), itertools.count()
    with aws.time_budget(1.5, 5, lambda: next(seconds)):
        assert "time is spent" in call(client)
    assert silent.connections() == 1, "not even a second try"


def test_what_a_failed_request_cleans_up_has_time_of_its_own(
    make_client: Callable[..., Any], clock: VirtualClock
) -> None:
    client = make_client(read_timeout=0.1)
    with aws.time_budget(-1, 2.5, lambda: clock.now_ms() / 1000):
        assert "time is spent" in call(client)
        assert "time is spent" not in call(client)
        clock.advance(2_501)
        assert "time is spent" in call(client)
    assert "time is spent" not in call(client)


def test_time_on_the_wall_spends_nothing_of_a_virtual_budget(
    make_client: Callable[..., Any], clock: VirtualClock
) -> None:
    client = make_client(read_timeout=0.1)
    with aws.time_budget(0.001, 0.001, lambda: clock.now_ms() / 1000):
        assert "time is spent" not in call(client)
        assert "time is spent" not in call(client)


def test_the_longest_request_is_answered_before_api_gateway_gives_up() -> None:
    last_call = aws.CONNECT_TIMEOUT + aws.READ_TIMEOUT
    assert aws.BUDGET_SECONDS + last_call + aws.CLEANUP_SECONDS + last_call < 29
