"""A submit from request to answer: who, which tasks, whether it was served before, and the answer kept for repeats."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from chalice.app import Request, Response

from chalicelib.api.problems import located
from chalicelib.api.requests import preferences, read_idempotency_key
from chalicelib.api.responses import bulk_answer, submit_answer, unsure_answer
from chalicelib.core.errors import UnavailableError
from chalicelib.core.ports import RequestRecord
from chalicelib.settings import OverLimit
from chalicelib.submit.idempotency import Idempotency, Replay, ids_from
from chalicelib.submit.submitter import NewTask, Refused, Submitted, Submitter

ToAnswer = Callable[[Submitted | Refused, OverLimit], Response]


class SubmitHandler:
    def __init__(
        self, submitter: Submitter, idempotency: Idempotency, new_id: Callable[[], str], over_limit: OverLimit
    ) -> None:
        self._submitter = submitter
        self._idempotency = idempotency
        self._new_id = new_id
        self._over_limit = over_limit

    def submit_one(self, request: Request, user_id: str, new: Sequence[NewTask]) -> Response:
        return located(request, self._serve(request, user_id, new, submit_answer))

    def submit_many(self, request: Request, user_id: str, new: Sequence[NewTask]) -> Response:
        return self._serve(request, user_id, new, bulk_answer)

    def _serve(self, request: Request, user_id: str, new: Sequence[NewTask], to_answer: ToAnswer) -> Response:
        over_limit = preferences(request, self._over_limit)
        key = read_idempotency_key(request)
        if key is None:
            ids = ids_from(self._new_id(), len(new))
            return to_answer(self._submitter.submit(user_id, new, ids, over_limit), over_limit)
        kind = "many" if to_answer is bulk_answer else ""  # one task alone is answered in another form
        begun = self._idempotency.begin(user_id, key, new, kind)
        if isinstance(begun, Replay):
            return _replayed(begun)
        return self._serve_once(begun.record, new, over_limit, to_answer)

    def _serve_once(
        self, record: RequestRecord, new: Sequence[NewTask], over_limit: OverLimit, to_answer: ToAnswer
    ) -> Response:
        outcome = self._idempotency.submit(self._submitter, record, new, over_limit)
        response = to_answer(outcome, over_limit)
        if isinstance(outcome, Submitted):
            kept = {"status": response.status_code, "headers": response.headers, "body": response.body}
            with suppress(UnavailableError):  # the tasks are queued, whatever becomes of this
                self._idempotency.requests.finish(record, kept)
        elif record.is_repeat:
            response = unsure_answer(outcome)  # its tasks may have been sent
        return response


def _replayed(replay: Replay) -> Response:
    kept = replay.answer
    return Response(kept["body"], {**kept["headers"], "Idempotency-Replayed": "true"}, kept["status"])
