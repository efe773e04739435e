"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header): the same request gets the same answer, and runs once.

A record of the request, kept for days, decides who serves it; the tasks' ids are in it, so that serving it again after
a crash sends nothing that SQS or the worker would take for new.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from chalicelib.core.errors import ConflictError, InvalidError, UnavailableError
from chalicelib.core.ports import Clock, RequestRecord, RequestStore
from chalicelib.settings import OverLimit
from chalicelib.submit.submitter import NewTask, Refused, Submitted, Submitter

#: Milliseconds after which a request that was never answered may be served again: longer than any request lives.
ABANDONED_AFTER_MS = 30_000
#: How long a repeat waits for the first one's answer before it gets a 409.
WAIT_MS = 5_000
POLL_MS = 100


class Serve(Struct, frozen=True):
    """The request is to be served now, with these ids."""

    record: RequestRecord


class Replay(Struct, frozen=True):
    """The request was served; this was the answer."""

    answer: dict[str, Any]


class Idempotency:
    def __init__(self, requests: RequestStore, clock: Clock, new_id: Callable[[], str]) -> None:
        self.requests = requests
        self._clock = clock
        self._new_id = new_id

    def begin(self, user_id: str, key: str, new: Sequence[NewTask], kind: str = "") -> Serve | Replay:
        """Whether to serve the request, or to repeat its answer. kind: requests of another kind are others.

        InvalidError when the key came with another request, ConflictError when the first one takes long.
        """
        patience = self._clock.now_ms() + WAIT_MS
        while True:
            now_ms = self._clock.now_ms()
            mine = RequestRecord(user_id, _hash(key), _fingerprint(new, kind), self._new_id(), now_ms, self._new_id())
            found = self.requests.begin(mine, now_ms - ABANDONED_AFTER_MS)
            if found.fingerprint != mine.fingerprint:
                detail = "This key came with another request before; take a new key for a new request."
                raise InvalidError("The Idempotency-Key was used before", detail, "Idempotency-Key")
            if found.answer is not None:
                return Replay(found.answer)
            if found.owner == mine.owner:
                return Serve(found)
            if now_ms >= patience or self._clock.sleep(POLL_MS):
                raise ConflictError("The first request is being served", "Try again shortly.", "Idempotency-Key")

    def submit(
        self, submitter: Submitter, record: RequestRecord, new: Sequence[NewTask], over_limit: OverLimit
    ) -> Submitted | Refused:
        """Submits what was begun, under its ids; the answer to it is still to be kept. UnavailableError when AWS fails.

        When nothing comes of it, it can be repeated at once: under the same ids if its tasks may have been sent.
        """
        ids, is_repeat = ids_from(record.first_id, len(new)), record.is_repeat
        forget = lambda: self.requests.forget(record)  # noqa: E731
        try:
            outcome = submitter.submit(record.user_id, new, ids, over_limit, is_repeat, forget)
        except UnavailableError:
            self.requests.abandon(record)
            raise
        if isinstance(outcome, Refused) and is_repeat:
            self.requests.abandon(record)
        elif isinstance(outcome, Refused):
            self.requests.forget(record)
        return outcome


def ids_from(first_id: str, count: int) -> list[str]:
    """Ids of so many tasks, the first one given; they sort in order and are as unique as the first."""
    first = int(first_id.replace("-", ""), 16)
    return [_uuid_text((first + n) % 2**128) for n in range(count)]


def _uuid_text(number: int) -> str:
    """As `str(uuid.UUID(int=number))`, which takes four times as long."""
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _fingerprint(new: Sequence[NewTask], kind: str) -> str:
    return _hash(kind + json.dumps([_asked(task) for task in new], sort_keys=True))


def _asked(task: NewTask) -> list[Any]:
    """What was asked for; without what is not used, as it was before there was such a thing."""
    options = {"run_at": task.run_at, "delay_ms": task.delay_ms, "callback_url": task.callback_url}
    used = {name: value for name, value in options.items() if value is not None}
    return [task.name, task.payload, used] if used else [task.name, task.payload]
