"""One POST that tells of a task's end, signed as the task `http` signs its calls. Does not try again by itself.

A user has at most CALLBACKS_AT_ONCE of them running: receivers that hang would keep every process from the callbacks
and scheduled tasks of all other users.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from msgspec import Struct

from chalicelib.core.errors import PermanentError, UnavailableError
from chalicelib.core.ports import CallbackSlots, Clock
from chalicelib.core.scheduled import Callback
from chalicelib.core.task import describe
from chalicelib.outbound.signing import signed_headers

#: Seconds for the whole call.
TIMEOUT_SECONDS = 10.0
#: Callbacks of one user that run at once, over all processes.
CALLBACKS_AT_ONCE = 4
#: Milliseconds after which a slot is free again if its process died: a Lambda function lives no longer.
SLOT_MS = 60_000
#: A callback without a slot waits for a random time, at most as long as it is old, within these bounds, in seconds. The
#: 1,000 receives, after which SQS dead-letters a message, then last for three days.
MIN_WAIT_SECONDS, MAX_WAIT_SECONDS = 5, 600
#: The receiver says that it wants to hear nothing more.
GONE = 410


class Answered(Protocol):
    @property
    def status(self) -> int: ...


class DeliveryFailure(Struct, frozen=True):
    """The callback was not delivered."""

    reason: str
    #: trying again is of no use
    is_final: bool


class Busy(Struct, frozen=True):
    """The user's other callbacks are still running; this one was not tried."""

    #: seconds to wait before it is tried
    wait_seconds: int


#: method, URL, headers, body, time-out in seconds, redirects to follow
Call = Callable[[str, str, Mapping[str, str], bytes, float, int], Answered]


class CallbackSender(Struct, frozen=True):
    """call: raises PermanentError when it is not allowed. key: signs each call; None signs none. now: epoch seconds."""

    call: Call
    key: bytes | None
    now: Callable[[], float] = time.time

    def __call__(self, callback: Callback) -> DeliveryFailure | None:
        """None if the receiver answered 2xx. A redirect is a failure: it would turn the POST into a GET."""
        body = json.dumps(callback.event, separators=(",", ":")).encode()
        try:
            answer = self.call("POST", callback.url, self._headers(callback, body), body, TIMEOUT_SECONDS, 0)
        except PermanentError as error:
            return DeliveryFailure(describe(error), is_final=True)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, it was not delivered
            return DeliveryFailure(describe(error), is_final=False)
        if 200 <= answer.status < 300:
            return None
        return DeliveryFailure(f"HTTP {answer.status}", is_final=answer.status == GONE)

    def _headers(self, callback: Callback, body: bytes) -> dict[str, str]:
        headers = {"content-type": "application/json", "user-agent": "Paceline"}
        if self.key is None:
            return headers
        # Not the task's id alone: with that the task `http` signs its own calls, and ids tell receivers of repeats.
        return headers | dict(signed_headers(self.key, f"{callback.task_id}-end", int(self.now()), body))


class BoundedCallbackSender:
    """send: sends one callback. chance: random numbers from 0 to 1, so that callbacks don't all come back at once."""

    def __init__(
        self,
        send: Callable[[Callback], DeliveryFailure | None],
        slots: CallbackSlots,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._send = send
        self._slots = slots
        self._clock = clock
        self._chance = chance

    def __call__(self, callback: Callback) -> DeliveryFailure | Busy | None:
        """As `send`; Busy if the user has as many callbacks running as may. UnavailableError if that is not known."""
        now_ms = self._clock.now_ms()
        until_ms = now_ms + SLOT_MS
        slot = self._slots.take(callback.user_id, now_ms, until_ms, CALLBACKS_AT_ONCE)
        if slot is None:
            return Busy(self._wait_seconds((now_ms - callback.begun_at) / 1000))
        try:
            return self._send(callback)
        finally:
            with suppress(UnavailableError):  # it is free again when its time has passed
                self._slots.give_back(callback.user_id, slot, until_ms)

    def _wait_seconds(self, age_seconds: float) -> int:
        longest = min(max(age_seconds, MIN_WAIT_SECONDS), MAX_WAIT_SECONDS)
        return 1 + int(self._chance() * longest)
