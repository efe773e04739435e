"""The judge of `make chaos` finds runs that began too early, whatever became of the other attempts' processes."""

from __future__ import annotations

import pytest

from chalicelib.core.limits import parse_limits
from completions.reader import Completion, LogLine, parse_line
from tests.chaos.judge import Verdict, judge
from tests.chaos.load import Acknowledged, Ledger
from tests.chaos.runs import Run, Runs
from tests.unit.completion_lines import NOW, completion_text

SKEW_MS = 300


def ended(*starts: int, **changed: object) -> Completion:
    *earlier, last = (NOW + start for start in starts)
    entry = parse_line(LogLine("s", completion_text(started_at=last, starts=earlier or None, **changed)))
    assert isinstance(entry, Completion)
    return entry


def judged(ends: list[Completion], begins: dict[int, int], cancelled_at: int | None = None) -> Verdict:
    """begins: when the run of an attempt began, by attempt."""
    runs, ledger = Runs(), Ledger()
    runs.by_task["task-1"] = [Run(100 + attempt, 1, attempt, NOW + at) for attempt, at in begins.items()]
    cancelled = None if cancelled_at is None else float(NOW + cancelled_at)
    ledger.tasks["task-1"] = Acknowledged("user123", "task-1", 1, NOW - 10.0, cancelled_at=cancelled)
    return judge(ledger, ends, runs, SKEW_MS, parse_limits("3/second"))


@pytest.mark.parametrize(
    ("starts", "begins"),
    [
        ((0,), {1: 5}),
        ((0,), {1: -SKEW_MS}),
        ((0, 520), {1: 5, 2: 530}),
        # Its last process was killed before its function began.
        ((0, 520), {1: 5}),
        ((0, 520, 11_000), {2: 600, 3: 11_100}),
        ((0, 520, 11_000), {1: 5, 3: 11_100}),
        ((0, 520), {}),
    ],
)
def test_a_run_at_its_start_or_later_is_on_time_and_a_start_needs_no_run(starts, begins) -> None:
    assert judged([ended(*starts, event="task_failed")], begins).early == []


@pytest.mark.parametrize(
    ("starts", "begins", "what"),
    [
        ((0,), {1: -SKEW_MS - 1}, "attempt 1 begun 301 ms before its start"),
        # As many runs as starts.
        ((0, 1_000), {1: 5, 2: 600}, "attempt 2 begun 400 ms before its start"),
        ((1_000, 2_000), {1: 5, 2: 2_010}, "attempt 1 begun 995 ms before its start"),
        # Fewer, so that the run of an attempt comes after as many starts as there are runs, and yet before its own.
        ((0, 520, 11_000), {1: 5, 3: 600}, "attempt 3 begun 10400 ms before its start"),
        ((0, 11_000), {2: 600}, "attempt 2 begun 10400 ms before its start"),
        # More.
        ((11_000,), {1: 11_010, 2: 5}, "attempt 2 begun without a start"),
    ],
)
def test_a_run_before_its_start_is_found(starts, begins, what) -> None:
    assert judged([ended(*starts)], begins).early == [f"task-1: {what}"]


def test_two_runs_by_one_start_are_found() -> None:
    runs = Runs()
    runs.by_task["task-1"] = [Run(101, 1, 1, NOW + 5), Run(102, 1, 1, NOW + 900)]
    verdict = judge(Ledger(), [ended(0, 800)], runs, SKEW_MS, parse_limits("3/second"))
    assert verdict.early == ["task-1: attempt 1 begun twice"]


def test_a_run_that_is_not_in_the_log_yet_follows_an_outcome_whose_worker_died() -> None:
    assert judged([ended(0)], {1: 5, 2: 11_000}).early == []
    assert judged([ended(0), ended(0, 11_500)], {1: 5, 2: 11_000}).early == [
        "task-1: attempt 2 begun 500 ms before its start"
    ]


def test_starts_that_the_log_lacks_excuse_no_later_run() -> None:
    one = ended(11_000, attempt=2)
    assert judged([one], {2: 11_005}).early == []
    assert judged([one], {2: 600}).early == ["task-1: attempt 2 begun 10400 ms before its start"]


def test_a_task_may_have_run_before_it_was_cancelled_and_not_after_the_answer() -> None:
    one = ended(0, event="task_cancelled", completed_at=NOW + 400)
    assert judged([one], {1: 5}, cancelled_at=300).run_though_cancelled == []
    assert judged([one], {1: 301}, cancelled_at=300).run_though_cancelled == ["task-1"]
    assert judged([ended(0)], {1: 5}, cancelled_at=300).run_though_cancelled == ["task-1"]


def test_runs_of_one_user_beside_each_other_are_counted_by_true_times() -> None:
    runs, ledger = Runs(), Ledger()
    for number, (begun, until) in enumerate([(0, 400), (400, 900), (899, 950)], 1):
        task_id = f"task-{number}"
        ledger.tasks[task_id] = Acknowledged("user123", task_id, number, NOW)
        runs.by_task[task_id] = [Run(1, 1, 1, NOW + begun, "end", NOW + until)]
    found = [judge(ledger, [], runs, SKEW_MS, parse_limits(f"9/second; {most} at once")).too_many for most in (1, 2)]
    assert found == [["user123: 2 ran at once"], []]
