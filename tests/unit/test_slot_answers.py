"""The answers to submits while all of a user's slots are taken."""

import json

import pytest

from chalicelib.api.responses import submit_answer
from chalicelib.settings import OverLimit
from chalicelib.submit.submission import Refused, Submission, Submitted, TaskRequest
from tests.factories import task_id_of
from tests.unit.workshop import Workshop


@pytest.mark.parametrize("brief", [0, 1])
@pytest.mark.parametrize("elapsed_ms", [500, 1_500])
def test_a_strict_submit_is_refused_while_all_slots_are_taken(brief: int, elapsed_ms: int) -> None:
    """Whatever the user's tasks took before, and before the first renewal too."""
    shop = Workshop(LIMITS="10/second; 2 at once")
    answers: list[tuple[Submission, Submitted | Refused]] = []
    for _ in range(brief):
        shop.submit()
        shop.run()

    def call(payload: object) -> None:
        if payload == "first":
            shop.submit(payload="second", name="call")
            while messages := shop.queue.receive():
                shop.deliver(messages[0])
        else:
            shop.clock.sleep_until(shop.clock.now_ms() + elapsed_ms)
            shop.renewer.renew_due()
            for number, over_limit in enumerate((OverLimit.REJECT, OverLimit.QUEUE), 98):
                new = Submission("ann", (TaskRequest("log", None),), shop.clock.now_ms(), over_limit)
                answers.append((new, shop.submitter.submit(new, [task_id_of(number)])))

    shop.register("call", call)
    shop.submit(payload="first", name="call")
    shop.run()
    refused, queued = [submit_answer(*answer) for answer in answers]
    ahead = "2 tasks of this user are running, as many as may run at once"
    assert (refused["status"], json.loads(refused["body"])["detail"]) == (429, f"{ahead}, and waiting was not wanted.")
    body = json.loads(queued["body"])
    assert (queued["status"], body["position"], body["queued"]) == (429, 2, True)
    assert body["detail"] == f"{ahead}. It is number 2 in line and starts in at least 1000 ms."
    assert "at once" not in str([queued["headers"][name] for name in ("RateLimit-Policy", "RateLimit")])
