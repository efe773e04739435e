"""A lane whose messages SQS lost, by a purge or after 14 days, goes on from its records with the next submit."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.aws.dynamodb_payloads import PAYLOAD_KEPT_SECONDS
from chalicelib.core.errors import RetryAfter, UnavailableError
from chalicelib.core.task import Json
from chalicelib.submit.submission import TaskRequest
from tests.factories import NOW, make_settings, task_id_of
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

    def submit_obeying(self, number: int, *words: str, text: str = "") -> None:
        self.submit(payload={"n": number, "words": words, "text": text}, name="obey")

    def lose_messages(self) -> None:
        self.queue._groups.clear()

    def deploy(self, **env: str) -> None:
        """The settings change, and with them the worker."""
        self.settings = make_settings(BACKOFF="10s", MAX_ATTEMPTS="3", **env)
        self.replace_worker()

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


LARGE = "x" * 5_000


def test_tasks_that_run_from_their_records_get_payloads_that_lists_leave_out():
    shop = Losing()
    for number in range(3):
        shop.submit_obeying(number, text=LARGE)
    shop.lose_messages()
    shop.submit_obeying(3, text=LARGE)
    shop.run()
    assert shop.ends() == [(seq, "task_completed", 1) for seq in (1, 2, 3, 4)]
    assert [payload["text"] for _, payload in shop.ran] == [LARGE] * 4


def test_a_resume_sends_the_last_waiting_task_although_lists_leave_out_its_payload():
    shop = Losing()
    shop.control.pause("ann", None)
    for number in range(3):
        shop.submit_obeying(number, text=LARGE)
    shop.control.cancel("ann", task_id_of(3))
    shop.lose_messages()
    shop.clock.sleep_until(NOW + 10 * MINUTE_MS)
    shop.control.resume("ann")
    shop.run()
    assert [payload["text"] for _, payload in shop.ran] == [LARGE] * 2


def test_payloads_of_a_lane_that_is_paused_for_months_are_kept_before_they_expire():
    shop = Losing()
    shop.submit_obeying(1, text=LARGE)
    shop.control.pause("ann", None)
    shop.run(until_ms=90 * DAY_MS)
    kept = [NOW, *(at for user_id, at in shop.tasks.payloads_kept if user_id == "ann"), NOW + 90 * DAY_MS]
    days = [(later - earlier) / DAY_MS for earlier, later in pairwise(kept)]
    assert max(days) < PAYLOAD_KEPT_SECONDS / 86_400 / 2


def test_a_lane_whose_payloads_can_not_be_kept_still_outlives_its_messages():
    """A lane may have more payloads than a worker can look through before its function times out."""
    shop = Losing()
    shop.submit_obeying(1, text=LARGE)
    shop.control.pause("ann", NOW + 20 * DAY_MS)
    shop.tasks.fail("keep_payloads", times=100_000)
    shop.run()
    assert shop.ends() == [(1, "task_completed", 1)]
    assert list(shop.queue.dead_letters) == [], "it used up no receives"


def test_a_task_whose_payload_is_gone_fails_and_says_so():
    shop = Losing()
    shop.submit_obeying(1, text=LARGE)
    shop.tasks.lose_payload("ann", task_id_of(1))
    shop.lose_messages()
    shop.submit_obeying(2)
    shop.run()
    assert shop.ends() == [(1, "task_failed", 1), (2, "task_completed", 1)]
    assert shop.events[0]["error"] == "the payload is no longer stored"
    assert [payload["n"] for _, payload in shop.ran] == [2]


@pytest.mark.parametrize("word", ["fail", "throttle"])
def test_a_pause_of_over_14_days_loses_no_task(word):
    shop = Losing()
    for number, words in enumerate(([word], [], [word])):
        shop.submit_obeying(number, *words)
    shop.run(until_ms=5_000)
    shop.control.pause("ann", None)
    shop.run(until_ms=15 * DAY_MS)
    shop.clock.sleep_until(NOW + 15 * DAY_MS)
    assert len(shop.queue) <= 20
    shop.control.resume("ann")
    shop.submit_obeying(3)
    shop.run()
    assert [seq for seq, event, _ in shop.ends() if event == "task_completed"] == [1, 2, 3, 4]


def test_a_resume_brings_a_lane_on_whose_newest_task_is_cancelled():
    shop = Losing()
    shop.control.pause("ann", None)
    for number in range(3):
        shop.submit_obeying(number)
    shop.control.cancel("ann", task_id_of(3))
    shop.lose_messages()
    shop.clock.sleep_until(NOW + 10 * MINUTE_MS)
    shop.control.resume("ann")
    shop.run()
    assert [seq for seq, event, _ in shop.ends() if event == "task_completed"] == [1, 2]


def test_the_cancellation_of_a_task_whose_message_was_lost_is_logged_by_a_resume():
    shop = Losing()
    shop.control.pause("ann", None)
    shop.submit_obeying(0)
    shop.control.cancel("ann", task_id_of(1))
    shop.lose_messages()
    shop.clock.sleep_until(NOW + 10 * MINUTE_MS)
    shop.control.resume("ann")
    shop.run()
    assert shop.ends() == [(1, "task_cancelled", 0)]


def test_a_resume_brings_back_a_task_whose_worker_died_and_whose_message_was_lost():
    shop = Losing()
    shop.submit_obeying(1)
    shop.lanes.fail("try_fast_claim", after=True)
    with pytest.raises(UnavailableError):
        shop.handle_next()
    shop.lose_messages()
    shop.clock.sleep_until(NOW + 10 * MINUTE_MS)
    shop.replace_worker()
    shop.control.resume("ann")
    shop.run()
    assert shop.ends() == [(1, "task_completed", 2)]


def test_a_lane_that_waits_for_months_loses_nothing_without_a_submit_or_a_resume():
    """A new LIMITS setting can plan a backlog beyond the life of its messages, and no request tells."""
    shop = Losing()
    for number in range(6):
        shop.submit_obeying(number)
    shop.handle_next()
    shop.deploy(LIMITS="1/7 days")
    shop.run()
    week = 7 * DAY_MS
    starts = [event["started_at"] - NOW for event in shop.events]
    assert [event["seq"] for event in shop.events] == [1, 2, 3, 4, 5, 6]
    assert starts == [week * number for number in range(6)]


def test_a_lane_that_is_paused_for_months_keeps_a_message():
    shop = Losing()
    for number in range(3):
        shop.submit_obeying(number)
    shop.control.pause("ann", NOW + 100 * DAY_MS)
    shop.run()
    assert [(event["seq"], event["started_at"] - NOW) for event in shop.events] == [
        (1 + number, 100 * DAY_MS + 1_000 * number) for number in range(3)
    ]


def schedule_many(shop: Losing, count: int, delay_seconds: int) -> None:
    for _ in range(count // 100):
        shop.try_submit_many("ann", *[TaskRequest("log", None, delay_seconds=delay_seconds) for _ in range(100)])


def test_waiting_tasks_are_found_behind_any_number_of_scheduled_ones():
    shop = Losing()
    shop.control.pause("ann", None)
    for number in range(3):
        shop.submit_obeying(number)
    schedule_many(shop, 400, 13 * 86_400 - 60)
    shop.run(until_ms=20 * DAY_MS)
    shop.clock.sleep_until(NOW + 20 * DAY_MS)
    shop.control.resume("ann")
    shop.run()
    assert shop.ends() == [(seq, "task_completed", 1) for seq in (1, 2, 3)]


def test_resume_soon_after_the_submit_sends_a_lost_message_again():
    """SQS drops a second message of a task for five minutes, if it has the same deduplication id."""
    shop = Losing()
    shop.control.pause("ann", None)
    shop.submit_obeying(1)
    shop.lose_messages()
    shop.clock.sleep_until(NOW + 2 * MINUTE_MS)
    shop.control.resume("ann")
    shop.run()
    assert shop.ends() == [(1, "task_completed", 1)]


def test_task_that_was_cancelled_between_two_attempts_and_lost_its_message_is_logged_by_the_next_submit():
    shop = Losing()
    shop.submit_obeying(1, "fail")
    shop.run(until_ms=5_000)
    shop.lose_messages()
    shop.control.cancel("ann", task_id_of(1))
    shop.clock.sleep_until(NOW + 10 * MINUTE_MS)
    shop.replace_worker()
    shop.submit_obeying(2)
    shop.run()
    assert sorted(shop.ends()) == [(1, "task_cancelled", 1), (2, "task_completed", 1)]
    assert not shop.lanes.get("ann").cancelled


def test_lane_whose_task_has_used_up_fewer_attempts_goes_on_and_the_error_is_its_own():
    """MAX_ATTEMPTS is lowered while the task waits between two attempts."""
    shop = Losing()
    shop.submit_obeying(1, "fail", "fail", "fail")
    shop.run(until_ms=12_000)
    shop.settings = make_settings(BACKOFF="10s", MAX_ATTEMPTS="2", LIMITS="1/second; 20/minute")
    shop.replace_worker()
    shop.run()
    assert shop.ends() == [(1, "task_failed", 2)]
    assert shop.events[-1]["error"] == "ValueError: not this time"
    assert shop.lanes.get("ann").retrying is None
    assert shop.control.lane("ann").next_start_at is None


@pytest.mark.parametrize("word", ["fail", "throttle"])
def test_planned_starts_count_the_tasks_that_wait_behind_a_backoff(word):
    shop = Losing()
    for number in range(5):
        shop.submit_obeying(number, *([word] if number == 0 else []))
    shop.run(until_ms=1_500)
    added = shop.submit(payload={"n": 9, "words": ()}, name="obey")
    shop.run()
    started = {event["seq"]: event["started_at"] for event in shop.events}
    assert added.planned_at == started[6]
    assert shop.event_of(added)["late_ms"] == 0
