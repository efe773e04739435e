"""One telling of an end, to a receiver that checks the signature with the library of Standard Webhooks."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice

import pytest
from standardwebhooks.webhooks import Webhook

from chalicelib.core.errors import UnavailableError
from chalicelib.core.scheduled import Callback
from chalicelib.outbound.client import Outbound
from chalicelib.outbound.signing import secret_bytes, signed_headers
from chalicelib.scheduled.callbacks import (
    CALLBACKS_AT_ONCE,
    GONE,
    MAX_WAIT_SECONDS,
    MIN_WAIT_SECONDS,
    SLOT_MS,
    BoundedCallbackSender,
    Busy,
    CallbackSender,
    DeliveryFailure,
)
from tests.factories import NOW, VirtualClock
from tests.memory.stores import MemoryCallbackSlots
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


# How many of one user run at once.


class Hanging:
    """A receiver that answers ann's callbacks when it is let go, and all others at once."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()
        self._answer = threading.Event()

    def __call__(self, callback: Callback) -> DeliveryFailure | None:
        if callback.user_id != "ann":
            return None
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self._answer.wait(30)
        with self._lock:
            self.running -= 1
        return DeliveryFailure("HTTP 503", is_final=False)

    def let_go(self) -> None:
        self._answer.set()


def of(user_id: str, begun_at: int = NOW) -> Callback:
    return Callback(user_id, "0198-0001", "https://hooks.example.com/", EVENT, begun_at)


def bounded(
    send: Callable[[Callback], DeliveryFailure | None],
    slots: MemoryCallbackSlots | None = None,
    clock: VirtualClock | None = None,
    chance: float = 0.5,
) -> BoundedCallbackSender:
    return BoundedCallbackSender(send, slots or MemoryCallbackSlots(), clock or VirtualClock(), lambda: chance)


def test_callbacks_of_one_user_that_hang_hold_up_nobody_else() -> None:
    """20 processes, as the trigger of stage dev allows, and 100 callbacks of ann before those of the others."""
    receiver, processes = Hanging(), ThreadPoolExecutor(20)
    send = bounded(receiver)
    try:
        anns = [processes.submit(send, of("ann")) for _ in range(100)]
        others = [processes.submit(send, of(f"user-{n}")) for n in range(50)]
        assert [one.result(timeout=20) for one in others] == [None] * 50
        put_off = list(islice(as_completed(anns, timeout=20), 100 - CALLBACKS_AT_ONCE))
        assert all(isinstance(one.result(), Busy) for one in put_off)
        assert (receiver.running, receiver.most) == (CALLBACKS_AT_ONCE, CALLBACKS_AT_ONCE)
    finally:
        receiver.let_go()
        processes.shutdown()
    assert receiver.running == 0
    assert isinstance(send(of("ann")), DeliveryFailure), "a slot was not given back"


def test_each_end_of_a_callback_gives_its_slot_back() -> None:
    def breaks(callback: Callback) -> DeliveryFailure | None:
        raise ValueError("a defect")

    slots = MemoryCallbackSlots()
    for _ in range(3 * CALLBACKS_AT_ONCE):
        assert bounded(lambda callback: None, slots)(of("ann")) is None
        with pytest.raises(ValueError, match="a defect"):
            bounded(breaks, slots)(of("ann"))


def test_slot_of_a_process_that_died_is_free_after_a_minute() -> None:
    slots, clock = MemoryCallbackSlots(), VirtualClock()
    for _ in range(CALLBACKS_AT_ONCE):
        assert slots.take("ann", NOW, NOW + SLOT_MS, CALLBACKS_AT_ONCE) is not None
    send = bounded(lambda callback: None, slots, clock)
    assert isinstance(send(of("ann")), Busy)
    clock.advance(SLOT_MS)
    assert send(of("ann")) is None


@pytest.mark.parametrize(
    ("age_seconds", "chance", "expected"),
    [
        (0, 0.0, 1),
        (0, 0.999, MIN_WAIT_SECONDS),
        (30, 0.5, 16),
        (30, 0.999, 30),
        (3_600, 0.999, MAX_WAIT_SECONDS),
        (3_600, 0.0, 1),
        (-10, 0.999, MIN_WAIT_SECONDS),
    ],
)
def test_callback_without_a_slot_waits_for_longer_the_older_it_is(
    age_seconds: int, chance: float, expected: int
) -> None:
    slots = MemoryCallbackSlots()
    for _ in range(CALLBACKS_AT_ONCE):
        slots.take("ann", NOW, NOW + SLOT_MS, CALLBACKS_AT_ONCE)
    send = bounded(lambda callback: None, slots, chance=chance)
    assert send(of("ann", NOW - age_seconds * 1000)) == Busy(expected)


def test_store_that_fails_when_the_slot_is_given_back_costs_no_second_call() -> None:
    class Failing(MemoryCallbackSlots):
        def give_back(self, user_id: str, slot: int, until_ms: int) -> None:
            raise UnavailableError("down")

    assert bounded(lambda callback: None, Failing())(of("ann")) is None
