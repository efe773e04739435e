"""The judge of `make chaos --shared` finds each way to break a limit that all users share."""

from __future__ import annotations

from chalicelib.core.limits import parse_limits, parse_shared_limits
from completions.reader import Completion, LogLine, parse_line
from tests.chaos.load import Acknowledged, Ledger
from tests.chaos.runs import Run, Runs
from tests.chaos.shared_judge import SharedVerdict, judge_shared
from tests.unit.completion_lines import NOW, completion_text

OWN = parse_limits("3/second; 12/5 seconds")
USERS = ("ann", "bob", "eve")


class Log:
    """Tasks of users that all were answered at NOW, with their starts and runs."""

    def __init__(self) -> None:
        self.ends: list[Completion] = []
        self.runs = Runs()
        self.ledger = Ledger()

    def ran(self, user: str, at: int, milliseconds: int = 5, has_ended: bool = True) -> None:
        seq = 1 + sum(task.user_id == user for task in self.ledger.tasks.values())
        task_id, begun, ended = f"{user}-{seq}", NOW + at, NOW + at + milliseconds
        self.ledger.tasks[task_id] = Acknowledged(user, task_id, seq, NOW)
        run = Run(1, 1, 1, begun, "end", ended) if has_ended else Run(1, 1, 1, begun)
        self.runs.by_task[task_id] = [run]
        text = completion_text(seq, begun, user_id=user, task_id=task_id, shared="bank", completed_at=ended)
        entry = parse_line(LogLine("s", text))
        assert isinstance(entry, Completion)
        self.ends.append(entry)

    def judged(self, limits: str, left: int = 0, quiet_at: int = -1) -> SharedVerdict:
        parsed = parse_shared_limits(limits)
        return judge_shared("bank", parsed, OWN, self.ledger, self.ends, self.runs, 300, NOW + quiet_at, left)


def in_turn(rounds: int, gap_ms: int = 200) -> Log:
    log = Log()
    for number in range(rounds * len(USERS)):
        log.ran(USERS[number % len(USERS)], number * gap_ms)
    return log


def test_users_in_turn_within_the_limit_break_nothing() -> None:
    verdict = in_turn(8).judged("5/second; 1 at once")
    assert verdict.breaches == {}
    assert (verdict.starts, verdict.waits, verdict.most_passed, verdict.most_at_once) == (24, 24, 1, 1)
    assert verdict.starts_by_user == {"ann": 8, "bob": 8, "eve": 8}


def test_a_window_over_all_users_that_holds_one_start_too_many_is_found() -> None:
    log = in_turn(8, 199)
    assert log.judged("5/second").breaches["over the shared limit"][0] == "5/second: 6 starts"
    assert log.judged("6/second").breaches == {}


def test_runs_at_once_of_different_users_are_counted_until_their_ends() -> None:
    log = Log()
    for at, user in enumerate(USERS):
        log.ran(user, 500 * at, 1_001 - 500 * at)
    log.ran("ann", 1_001)
    assert log.judged("9/second; 3 at once").breaches == {}
    assert log.judged("9/second; 2 at once").too_many == ["3 ran at once"]


def test_a_run_whose_process_died_counts_as_long_as_it_surely_lasted() -> None:
    log = Log()
    log.ran("ann", 0, 2_000, has_ended=False)
    log.ran("bob", 1_400)
    assert log.judged("9/second; 1 at once").too_many == []
    log.ran("eve", 1_390)
    assert log.judged("9/second; 1 at once").too_many == ["2 ran at once"]


def test_a_lane_beside_which_another_user_starts_again_and_again_was_passed_over() -> None:
    log = Log()
    for number in range(10):
        log.ran("ann", 500 * number)
    log.ran("bob", 4_600)
    (found,) = log.judged("9/second").passed_over
    assert found == "bob waited for 4600 ms; ann started 9 times"


def test_a_lane_that_waited_for_its_own_limits_or_task_was_not_passed_over() -> None:
    log = Log()
    for number in range(12):
        log.ran("bob", 334 * number)
    for number in range(6):
        log.ran("ann", 3_700 + 210 * number)
    log.ran("bob", 5_000, 2_000)
    for number in range(6):
        log.ran("ann", 5_100 + 310 * number)
    log.ran("bob", 7_010)
    verdict = log.judged("9/second")
    assert [what for what in verdict.passed_over if what.startswith("bob")] == []
    assert len(verdict.passed_over) == 1  # ann's first task, while bob used up his own limits


def test_a_lane_that_waits_for_longer_than_it_takes_to_look_again_starved() -> None:
    log = Log()
    log.ran("ann", 80_000)
    log.ran("bob", 76_000)
    assert log.judged("9/second").starved == ["ann waited for 80000 ms; bob started 1 times"]


def test_waits_that_faults_explain_are_not_judged() -> None:
    log = Log()
    for number in range(10):
        log.ran("ann", 500 * number)
    log.ran("bob", 4_600)
    assert log.judged("9/second", quiet_at=4_000).breaches == {}


def test_a_task_that_the_shared_limit_takes_for_running_at_the_end_is_found() -> None:
    assert in_turn(1).judged("9/second", left=2).breaches == {"left in the shared limit": ["2 tasks"]}
