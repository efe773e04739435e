"""The meaning of AWS's errors, and the time that calls may take."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.aws import client as aws
from chalicelib.core.errors import UnavailableError
from tests.factories import VirtualClock


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


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


def test_a_call_to_a_service_that_is_silent_ends(silent: str, emulated: None) -> None:
    client = aws.client("sqs", silent, read_timeout=0.2)
    begun = time.monotonic()
    with pytest.raises(UnavailableError), aws.unavailable("sending"):
        client.send_message(QueueUrl=f"{silent}/q", MessageBody="x")
    assert time.monotonic() - begun < aws.TRIES * 1.2 + 1.5


def call(client: Any, silent: str) -> str:
    """Sends to the silent service; returns the error's text."""
    with pytest.raises(UnavailableError) as caught, aws.unavailable("sending"):
        client.send_message(QueueUrl=f"{silent}/q", MessageBody="x")
    return str(caught.value)


def test_when_a_requests_time_is_spent_no_call_begins(silent: str, emulated: None, clock: VirtualClock) -> None:
    client = aws.client("sqs", silent, read_timeout=0.1)
    tries: list[str] = []

    def last_for_a_second(**_: Any) -> None:
        tries.append("try")
        clock.advance(1_000)

    client.meta.events.register_last("before-send", last_for_a_second)
    with aws.time_budget(0.5, 5, lambda: clock.now_ms() / 1000):
        assert "time is spent" in call(client, silent)
    assert len(tries) == 1, "not even a second try"


def test_what_a_failed_request_cleans_up_has_time_of_its_own(silent: str, emulated: None, clock: VirtualClock) -> None:
    client = aws.client("sqs", silent, read_timeout=0.1)
    with aws.time_budget(-1, 2.5, lambda: clock.now_ms() / 1000):
        assert "time is spent" in call(client, silent)
        assert "time is spent" not in call(client, silent)
        clock.advance(2_501)
        assert "time is spent" in call(client, silent)
    assert "time is spent" not in call(client, silent)


def test_time_on_the_wall_spends_nothing_of_a_virtual_budget(silent: str, emulated: None, clock: VirtualClock) -> None:
    client = aws.client("sqs", silent, read_timeout=0.1)
    with aws.time_budget(0.001, 0.001, lambda: clock.now_ms() / 1000):
        assert "time is spent" not in call(client, silent)
        assert "time is spent" not in call(client, silent)


def test_the_longest_request_is_answered_before_api_gateway_gives_up() -> None:
    last_call = aws.CONNECT_TIMEOUT + aws.READ_TIMEOUT
    assert aws.BUDGET_SECONDS + last_call + aws.CLEANUP_SECONDS + last_call < 29
