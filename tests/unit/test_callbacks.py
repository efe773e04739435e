"""One telling of an end, to a receiver that checks the signature with the library of Standard Webhooks."""

import base64
import json
from collections.abc import Iterator

import pytest
from standardwebhooks.webhooks import Webhook

from chalicelib.core.scheduled import Callback
from chalicelib.outbound.client import Outbound
from chalicelib.outbound.signing import secret_bytes, signed_headers
from chalicelib.scheduled.callbacks import GONE, CallbackSender
from tests.factories import NOW
from tests.receiver import Receiver, Reply

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
EVENT = {"event": "task_failed", "task_id": "0198-0001", "error": "ValueError: ä\n"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def callback(url: str) -> Callback:
    return Callback("ann", "0198-0001", url, EVENT, NOW)


def teller(secret: str | None = SECRET, hosts: tuple[str, ...] = ("*",), allow_private: bool = True) -> CallbackSender:
    return CallbackSender(Outbound(hosts, allow_private).call, secret_bytes(secret) if secret else None)


def test_receiver_gets_the_event_signed(receiver: Receiver) -> None:
    assert teller()(callback(receiver.url("/ends?of=ann"))) is None
    [got] = receiver.got
    assert (got.method, got.path, got.headers["content-type"]) == ("POST", "/ends?of=ann", "application/json")
    assert Webhook(SECRET).verify(got.body, dict(got.headers)) == EVENT


def test_each_telling_has_the_same_id_and_not_that_of_the_tasks_own_calls(receiver: Receiver) -> None:
    for _ in range(2):
        teller()(callback(receiver.url()))
    ids = {got.headers["webhook-id"] for got in receiver.got}
    assert ids == {"0198-0001-end"}
    assert signed_headers(b"", "0198-0001", 0, b"")["webhook-id"] not in ids


def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    assert teller(None)(callback(receiver.url())) is None
    [got] = receiver.got
    assert not [name for name in got.headers if name.startswith("webhook-")]
    assert json.loads(got.body) == EVENT


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_well_received(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda got: Reply(status)
    assert teller()(callback(receiver.url())) is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed_and_no_answer(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda got: Reply(status, {"Location": receiver.url("/elsewhere")})
    failure = teller()(callback(receiver.url()))
    assert failure
    assert (failure.reason, failure.is_final) == (f"HTTP {status}", False)
    assert [got.path for got in receiver.got] == ["/"]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 411, 429, 500, 503])
def test_any_other_status_may_be_another_one_later(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda got: Reply(status)
    failure = teller()(callback(receiver.url()))
    assert failure
    assert (failure.reason, failure.is_final) == (f"HTTP {status}", False)


def test_who_is_gone_is_told_no_more(receiver: Receiver) -> None:
    receiver.answer = lambda got: Reply(GONE)
    failure = teller()(callback(receiver.url()))
    assert failure
    assert (failure.reason, failure.is_final) == ("HTTP 410", True)


def test_nobody_there_may_be_somebody_later() -> None:
    with Receiver() as receiver:
        url = receiver.url()
    failure = teller()(callback(url))
    assert failure
    assert not failure.is_final


@pytest.mark.parametrize(("hosts", "allow_private"), [(("hooks.example.com",), True), (("*",), False)])
def test_address_that_is_not_allowed_any_more_is_not_called(
    receiver: Receiver, hosts: tuple[str, ...], allow_private: bool
) -> None:
    failure = teller(hosts=hosts, allow_private=allow_private)(callback(receiver.url()))
    assert failure
    assert failure.is_final
    assert receiver.got == []
