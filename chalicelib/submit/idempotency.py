"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header): the same request gets the same answer, and runs once.

A record of each request with a key is kept for a week. It decides which process serves the request, and it holds the
first task's id: a repeat after a crash sends the same ids, which SQS and the workers recognise.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.errors import ConflictError, InvalidError, UnavailableError
from chalicelib.core.ports import Clock, RequestRecord, RequestStore
from chalicelib.submit.submission import Refused, Submission, Submitted, TaskRequest

#: Milliseconds after which a request without an answer may be served again: longer than any request lives.
ABANDONED_AFTER_MS = 30_000
#: Milliseconds for which a repeat waits for the first one's answer before it gets a 409.
WAIT_MS = 5_000
POLL_MS = 100

Outcome = Submitted | Refused
#: Serves a submission with these ids; the last argument is true if an earlier try may have queued its tasks.
Serve = Callable[[Submission, Sequence[str], bool], Outcome]
#: The answer to the client, as JSON can hold it.
ToAnswer = Callable[[Submission, Outcome], dict[str, Any]]


class Answer(Struct, frozen=True):
    body: dict[str, Any]
    #: it is the answer that an earlier request with the same key got
    is_replay: bool = False


class Idempotency:
    def __init__(self, requests: RequestStore, clock: Clock, new_id: Callable[[], str]) -> None:
        self._requests = requests
        self._clock = clock
        self._new_id = new_id

    def run(self, submission: Submission, serve: Serve, to_answer: ToAnswer) -> Answer:
        """Serves the submission once for its key, and replays the stored answer to repeats; without a key, serves it.

        Only the answer to queued tasks is stored. After a refusal, or a UnavailableError from `serve`, a repeat is
        served at once: as a new request if nothing can have been queued, else under the same ids.

        InvalidError: the key came with another request. ConflictError: the first one is still being served.
        """
        if submission.key is None:
            return Answer(to_answer(submission, serve(submission, self._ids(submission), False)))
        record = self._begin(submission, submission.key)
        if record.answer is not None:
            return Answer(record.answer, is_replay=True)
        try:
            outcome = serve(submission, ids_from(record.first_id, len(submission.tasks)), record.is_repeat)
        except UnavailableError:
            self._requests.abandon(record)
            raise
        if isinstance(outcome, Refused):
            return Answer(to_answer(submission, self._after_refusal(record, outcome)))
        answer = to_answer(submission, outcome)
        with suppress(UnavailableError):  # the tasks are queued; a repeat would find them by their ids
            self._requests.finish(record, answer)
        return Answer(answer)

    def _begin(self, submission: Submission, key: str) -> RequestRecord:
        """The key's record: this call owns it and serves the request, or it holds the first call's answer."""
        now_ms, owner = submission.now_ms, self._new_id()
        wait_until = now_ms + WAIT_MS
        while True:
            mine = RequestRecord(submission.user_id, _hash(key), fingerprint(submission), self._new_id(), now_ms, owner)
            found = self._requests.begin(mine, now_ms - ABANDONED_AFTER_MS)
            if found.fingerprint != mine.fingerprint:
                detail = "This key came with another request before; take a new key for a new request."
                raise InvalidError("The Idempotency-Key was used before", detail, "Idempotency-Key")
            if found.answer is not None or found.owner == owner:
                return found
            if now_ms >= wait_until or self._clock.sleep(POLL_MS):
                raise ConflictError("The first request is being served", "Try again shortly.", "Idempotency-Key")
            now_ms = self._clock.now_ms()

    def _after_refusal(self, record: RequestRecord, refused: Refused) -> Refused:
        if record.is_repeat:
            self._requests.abandon(record)
            return replace(refused, is_unsure=True)
        self._requests.forget(record)
        return refused

    def _ids(self, submission: Submission) -> list[str]:
        return ids_from(self._new_id(), len(submission.tasks))


def ids_from(first_id: str, count: int) -> list[str]:
    """Ids of `count` tasks, beginning with the given one; they sort in order and are as unique as the first."""
    first = int(first_id.replace("-", ""), 16)
    return [_uuid_text((first + n) % 2**128) for n in range(count)]


def _uuid_text(number: int) -> str:
    """As `str(uuid.UUID(int=number))`, which takes four times as long."""
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def fingerprint(submission: Submission) -> str:
    """A hash of the tasks. Records hold it for a week: the same request must give the same hash in later versions."""
    kind = "many" if submission.is_bulk else ""  # a bulk of one task gets another form of answer than the task alone
    return _hash(kind + json.dumps([_content(task) for task in submission.tasks], sort_keys=True))


def _content(task: TaskRequest) -> list[Any]:
    """An option that is not used is left out, so a new option does not change the hash of older requests."""
    times = {"run_at": task.run_at, "delay_ms": task.delay_ms}
    options = {**times, "callback_url": task.callback_url, "units": task.units, "shared": task.shared}
    used = {name: value for name, value in options.items() if value is not None}
    return [task.task, task.payload, used] if used else [task.task, task.payload]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
