"""Reports of used units, whatever fails between the function's end and the stored outcome: each counts once."""

import json
from typing import Any

import pytest

from chalicelib.core.claim import Candidate, claim
from chalicelib.core.errors import UnavailableError
from chalicelib.core.lane import LEASE_MS
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import Written
from chalicelib.core.shared_limit import claim_shared
from chalicelib.submit.submission import Submitted, TaskRequest
from chalicelib.tasks import Context, PermanentError, RetryAfter
from completions.audit import audit
from completions.reader import LogLine, parse_line
from tests.factories import NOW
from tests.unit.workshop import WorkerDiedError, Workshop

LIMITS = "100 units/10 minutes"
ENDS: dict[str, BaseException] = {
    "fail": ValueError("not yet"),
    "give up": PermanentError("never"),
    "slow down": RetryAfter(2, "429"),
    "die": WorkerDiedError(),
}


class Spending(Workshop):
    """A shop whose task `spend` counts for 60 units, takes 500 ms, and ends each attempt as its payload says."""

    def __init__(self, **env: str) -> None:
        super().__init__(**{"LIMITS": LIMITS, "BACKOFF": "1s", **env})
        self.registry.task("spend")(self._spend)
        self._attempts = 0

    def order(self, *attempts: tuple[int | None, str], units: int = 60) -> None:
        """attempts: the units that each one reports, and how it ends."""
        self.try_submit_many("ann", TaskRequest("spend", list(attempts), units=units))

    def _spend(self, payload: list[Any], context: Context) -> str:
        used, end = payload[self._attempts]
        self._attempts += 1
        self.clock.advance(500)
        if used is not None:
            context.used(used)
        if end == "is taken over":
            self._take_over(context)
        if end in ENDS:
            raise ENDS[end]
        return "done"

    def _take_over(self, context: Context) -> None:
        """Another worker claims the task once its lease has run out."""
        self.clock.advance(LEASE_MS)
        lane, now_ms = self.lanes.get("ann"), self.clock.now_ms()
        task = Candidate(context.task_id, context.seq, NOW, units=40)
        start = claim(lane, task, self.settings.limits, now_ms, LEASE_MS, "another")
        assert isinstance(self.lanes.claim(lane, start), Written)

    def wait_of(self, units: int) -> int:
        """Milliseconds that a task with these units would have to wait now."""
        submitted = self.try_submit_many("ann", TaskRequest("log", units=units))
        assert isinstance(submitted, Submitted)
        return max(0, submitted.tasks[0].planned_at - self.clock.now_ms())

    @property
    def used(self) -> tuple[object, object]:
        """What the log says that the last start and the earlier ones used."""
        [event] = self.events
        return event["used_units"], event.get("starts_used")

    @property
    def is_clean(self) -> bool:
        lines = [LogLine("stream", json.dumps(event)) for event in self.events]
        return audit(map(parse_line, lines), parse_limits(LIMITS)).clean


@pytest.mark.parametrize(("used", "left"), [(None, 40), (60, 40), (10, 90), (0, 100), (95, 5)])
@pytest.mark.parametrize("end", ["succeed", "give up"])
def test_report_counts_however_the_task_ends(used: int | None, left: int, end: str) -> None:
    shop = Spending()
    shop.order((used, end))
    shop.run()
    assert shop.used == (used, None)
    assert shop.wait_of(left) == 0
    assert shop.wait_of(1) > 0


@pytest.mark.parametrize(("word", "later_ms"), [("fail", 1_500), ("slow down", 2_500)])
def test_each_attempt_reports_for_itself(word: str, later_ms: int) -> None:
    shop = Spending()
    shop.order((5, word), (10, "succeed"))
    shop.run()
    assert [event["started_at"] - NOW for event in shop.events] == [later_ms]
    assert shop.used == (10, [{"units": 5, "at": NOW + 500}])
    assert shop.wait_of(85) == 0
    assert shop.wait_of(1) > 0
    shop.run()
    assert shop.is_clean


@pytest.mark.parametrize("after", [False, True], ids=["call lost", "answer lost"])
@pytest.mark.parametrize("used", [10, 95])
def test_correction_that_fails_is_tried_again_and_counts_once(after: bool, used: int) -> None:
    shop = Spending()
    shop.order((used, "succeed"))
    shop.lanes.fail("correct_units", times=3, after=after)
    shop.run()
    assert shop.used == (used, None)
    assert shop.wait_of(100 - used) == 0
    assert shop.wait_of(1) > 0
    shop.run()
    assert shop.is_clean


def test_outcome_is_not_logged_before_its_correction_counts() -> None:
    shop = Spending()
    shop.order((95, "succeed"))
    shop.lanes.fail("correct_units", times=99)
    shop.run(until_ms=5_000)
    assert shop.events == []


def test_report_of_a_worker_that_died_before_it_logged_is_in_the_line_of_the_next_attempt() -> None:
    shop = Spending()
    shop.order((20, "succeed"), (30, "succeed"))
    shop.log.fail("write", times=10)
    with pytest.raises(UnavailableError):
        shop.handle_next()
    assert shop.events == []
    shop.replace_worker()
    shop.run()
    assert shop.used == (30, [{"units": 20, "at": NOW + 500}])
    assert shop.wait_of(50) == 0
    assert shop.wait_of(1) > 0
    shop.run()
    assert shop.is_clean


def test_attempt_whose_worker_died_counts_as_estimated() -> None:
    shop = Spending()
    shop.order((0, "die"), (0, "succeed"), units=40)
    with pytest.raises(WorkerDiedError):
        shop.run()
    shop.replace_worker()
    shop.run()
    assert shop.used == (0, None)
    assert shop.wait_of(60) == 0
    assert shop.wait_of(1) > 0


def test_task_that_is_given_up_keeps_the_report_of_its_last_start() -> None:
    shop = Spending(MAX_ATTEMPTS="1")
    shop.order((20, "succeed"))
    shop.log.fail("write", times=10)
    with pytest.raises(UnavailableError):
        shop.handle_next()
    shop.replace_worker()
    shop.run()
    [event] = shop.events
    assert (event["event"], event["used_units"], event["used_at"]) == ("task_failed", 20, NOW + 500)
    assert shop.wait_of(80) == 0
    shop.run()
    assert shop.is_clean


def test_task_that_is_cancelled_between_two_attempts_keeps_the_report_of_its_last_start() -> None:
    shop = Spending()
    shop.order((20, "fail"))
    shop.handle_next()
    [record], _ = shop.tasks.newest("ann", None, 1, None)
    shop.control.cancel("ann", record.task.task_id)
    shop.run()
    [event] = shop.events
    assert (event["event"], event["used_units"], event["used_at"]) == ("task_cancelled", 20, NOW + 500)
    assert shop.wait_of(80) == 0


def test_report_of_a_worker_that_lost_its_lease_does_not_count_and_is_not_logged() -> None:
    shop = Spending()
    shop.order((0, "is taken over"), units=40)
    shop.handle_next()
    assert shop.used == (None, None)
    assert shop.wait_of(20) == 0
    assert shop.wait_of(1) > 0


# --- shared limits

SHARED = "model: 100 units/10 minutes"


class SharedSpending(Spending):
    """The same shop: a lane may use more than the shared limit of units, which `spend` counts against."""

    def __init__(self) -> None:
        super().__init__(SHARED_LIMITS=SHARED, LIMITS="10000 units/second")

    def order(self, *attempts: tuple[int | None, str], units: int = 60) -> None:
        self.try_submit_many("ann", TaskRequest("spend", list(attempts), units=units), shared="model", units=units)

    @property
    def left(self) -> int:
        """The units that the shared limit allows now."""
        shared, now_ms = self.shared_limits.get("model"), self.clock.now_ms()
        limits = self.settings.shared_limits["model"]
        return sum(claim_shared(shared, limits, now_ms, now_ms, units).at == now_ms for units in range(1, 101))

    @property
    def is_clean(self) -> bool:
        lines = [LogLine("stream", json.dumps(event)) for event in self.events]
        found = audit(map(parse_line, lines), self.settings.limits, self.settings.shared_limits)
        return found.clean


@pytest.mark.parametrize(("used", "left"), [(None, 40), (60, 40), (10, 90), (0, 100), (95, 5), (130, 0)])
@pytest.mark.parametrize("end", ["succeed", "give up"])
def test_report_counts_in_the_shared_limit_as_in_the_user_s_own(used: int | None, left: int, end: str) -> None:
    shop = SharedSpending()
    shop.order((used, end))
    shop.run()
    assert (shop.used, shop.left) == ((used, None), left)


def test_each_attempt_is_corrected_in_the_shared_limit() -> None:
    shop = SharedSpending()
    shop.order((5, "fail"), (30, "succeed"))
    shop.run()
    assert shop.left == 65
    assert shop.is_clean


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("used", "left"), [(90, 10), (10, 90)])
def test_report_is_counted_once_although_the_shared_limit_fails(used: int, left: int, after: bool) -> None:
    shop = SharedSpending()
    shop.shared_limits.fail("correct_units", after=after)
    shop.order((used, "succeed"))
    shop.run()
    assert shop.used == (used, None)
    assert shop.left == (left if used > 60 or after else 40)  # what failed to be given back counts as it was claimed


def test_worker_that_lost_its_task_gives_no_units_back() -> None:
    shop = SharedSpending()
    shop.order((10, "is taken over"))
    shop.run()
    assert shop.left == 40
    assert shop.is_clean


def test_tasks_that_use_more_keep_the_shared_limit_by_the_log() -> None:
    shop = SharedSpending()
    for used in (30, 80, 10, 55):
        shop.order((used, "succeed"), units=40)
        shop._attempts = 0
        shop.run()
    assert len(shop.events) == 4
    assert shop.is_clean


def test_shared_limit_without_units_is_not_written_for_them() -> None:
    shop = Spending(SHARED_LIMITS="model: 3/second")
    shop.shared_limits.fail("correct_units", times=99)
    shop.try_submit_many("ann", TaskRequest("spend", [(70, "succeed")], units=60), shared="model", units=60)
    shop.run()
    assert shop.used == (70, None)
