"""A few seconds of what `make chaos` does for minutes."""

from pathlib import Path

from tests.chaos.run import run_chaos
from tests.chaos.storm import QUICK
from tests.chaos.system import SEVERAL_LIMITS, SHARED_LIMITS, SKEW_MS


def test_nothing_is_lost_early_twice_or_out_of_order_under_faults(tmp_path: Path) -> None:
    outcome = run_chaos(tmp_path, 9, seed=1, kinds=QUICK, users=5, pause_seconds=0.5, strike_seconds=(1.2, 2.2))
    assert outcome.breaches == {}
    assert outcome.verdict.completed >= 10
    assert outcome.verdict.crashed >= 1
    assert outcome.struck.total() >= 4


def test_several_tasks_at_once_keep_the_promises_under_faults(tmp_path: Path) -> None:
    kinds, strikes = ("kill worker-1", "answer lost", "throttled"), (1.2, 2.2)
    outcome = run_chaos(
        tmp_path, 12, seed=3, kinds=kinds, users=5, pause_seconds=0.4, strike_seconds=strikes, limits=SEVERAL_LIMITS
    )
    assert outcome.breaches == {}
    assert outcome.verdict.completed >= 10
    assert outcome.struck["kill worker-1"] >= 1


def test_kills_of_the_emulator_lose_nothing_and_keep_pace_and_order(tmp_path: Path) -> None:
    kinds = ("emulator killed",)
    outcome = run_chaos(tmp_path, 12, seed=2, kinds=kinds, users=5, pause_seconds=0.3, strike_seconds=(0.5, 2.0))
    assert outcome.breaches == {}
    assert outcome.verdict.completed >= 10
    assert outcome.struck["emulator killed"] >= 3


def test_a_shared_limit_is_kept_over_all_users_and_users_take_turns_under_faults(tmp_path: Path) -> None:
    kinds = ("kill worker-1", "emulator killed", "answer lost", "kill api-1")
    outcome = run_chaos(
        tmp_path,
        10,
        seed=4,
        kinds=kinds,
        users=5,
        pause_seconds=1.0,
        strike_seconds=(1.2, 2.2),
        skew_ms=SKEW_MS,
        shared=SHARED_LIMITS,
    )
    assert outcome.breaches == {}
    assert outcome.shared is not None
    assert outcome.shared.starts >= 60
    assert outcome.shared.waits >= 10
    assert outcome.struck.total() >= 3
