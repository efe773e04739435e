"""A lane whose messages SQS lost, by a purge or after 14 days, goes on from its records with the next submit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import RetryAfter
from chalicelib.core.task import Json
from tests.factories import NOW
from tests.unit.workshop import Workshop

MINUTE_MS = 60_000
DAY_MS = 86_400_000


class Losing(Workshop):
    """A lane whose tasks end as their payloads say: one of the words for each attempt, then success."""

    def __init__(self) -> None:
        super().__init__(LIMITS="1/second; 20/minute", BACKOFF="10s", MAX_ATTEMPTS="3")
        self._attempts: dict[int, int] = {}
        self.register("obey", self._obey)

    def _obey(self, payload: Json) -> Json:
        done = self._attempts[payload["n"]] = self._attempts.get(payload["n"], 0) + 1
        words = payload["words"]
        if done <= len(words) and words[done - 1] == "throttle":
            raise RetryAfter(30)
        if done <= len(words):
            raise ValueError("not this time")
        return done

    def submit_obeying(self, number: int, *words: str) -> None:
        self.submit(payload={"n": number, "words": words}, name="obey")

    def lose_messages(self) -> None:
        self.queue._groups.clear()

    def ends(self) -> list[tuple[int, str, int]]:
        return [(event["seq"], event["event"], event["attempt"]) for event in self.events]


words = st.lists(st.sampled_from(("fail", "throttle")), max_size=2)


@given(st.lists(words, min_size=1, max_size=5), st.integers(0, 90_000), st.integers(0, 90_000))
def test_each_task_ends_once_in_order_whenever_the_messages_are_lost(tasks, lost_after_ms, silent_ms):
    shop = Losing()
    for number, ends in enumerate(tasks):
        shop.submit_obeying(number, *ends)
    shop.run(until_ms=lost_after_ms)
    shop.clock.sleep_until(NOW + lost_after_ms)
    shop.lose_messages()
    shop.clock.sleep_until(NOW + lost_after_ms + silent_ms)
    shop.submit_obeying(len(tasks))
    shop.run()
    attempts = [1 + ends.count("fail") for ends in (*tasks, [])]
    assert shop.ends() == [(seq, "task_completed", attempt) for seq, attempt in enumerate(attempts, 1)]


@pytest.mark.parametrize("word", ["fail", "throttle"])
def test_a_task_whose_message_was_lost_between_two_attempts_runs_before_the_next_submit(word):
    shop = Losing()
    shop.submit_obeying(1, word)
    shop.run(until_ms=5_000)
    shop.lose_messages()
    shop.clock.sleep_until(NOW + MINUTE_MS)
    shop.replace_worker()
    shop.submit_obeying(2)
    shop.run()
    attempts = 2 if word == "fail" else 1
    assert shop.ends() == [(1, "task_completed", attempts), (2, "task_completed", 1)]


@pytest.mark.parametrize("word", ["fail", "throttle"])
def test_a_pause_of_over_14_days_loses_no_task_although_sqs_loses_the_messages(word):
    shop = Losing()
    for number, words in enumerate(([word], [], [word])):
        shop.submit_obeying(number, *words)
    shop.run(until_ms=5_000)
    shop.control.pause("ann", None)
    shop.run(until_ms=15 * DAY_MS)
    shop.clock.sleep_until(NOW + 15 * DAY_MS)
    assert len(shop.queue) == 0
    shop.control.resume("ann")
    shop.submit_obeying(3)
    shop.run()
    assert [seq for seq, event, _ in shop.ends() if event == "task_completed"] == [1, 2, 3, 4]
