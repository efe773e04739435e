"""One POST that tells of a task's end, signed as the task `http` signs its calls. Does not try again by itself."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from chalicelib.core.errors import PermanentError
from chalicelib.core.scheduled import Callback
from chalicelib.core.task import describe
from chalicelib.outbound.signing import signed_headers

#: Seconds for the whole call.
TIMEOUT_SECONDS = 10.0
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
