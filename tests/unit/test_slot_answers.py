"""The answers to submits while all of a user's slots are taken."""

import pytest

from chalicelib.settings import OverLimit
from chalicelib.submit.submission import Refused, Submission, Submitted, TaskRequest
from tests.factories import task_id_of
from tests.unit.workshop import Workshop


@pytest.mark.parametrize("brief", [0, 1])
@pytest.mark.parametrize("elapsed_ms", [500, 1_500])
def test_a_strict_submit_is_refused_while_all_slots_are_taken(brief: int, elapsed_ms: int) -> None:
    """Whatever the user's tasks took before, and before the first renewal too."""
    shop = Workshop(LIMITS="10/second; 2 at once")
    answers: list[Submitted | Refused] = []
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
            new = (TaskRequest("log", None),)
            strict = Submission("ann", new, shop.clock.now_ms(), OverLimit.REJECT)
            answers.append(shop.submitter.submit(strict, [task_id_of(99)]))
            answers.append(shop.try_submit())

    shop.register("call", call)
    shop.submit(payload="first", name="call")
    begun_at = shop.clock.now_ms()
    shop.run()
    refused, queued = answers
    assert isinstance(refused, Refused)
    assert refused.retry_at >= begun_at + elapsed_ms + 1_000
    assert isinstance(queued, Submitted)
    assert queued.tasks[0].position == 2
