"""`make chaos [MINUTES=10] [SEED=…] [KIND=several|shared]`: breaks the running system in every way we know."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.chaos.load import Ledger
from tests.chaos.run import Handled, run_chaos
from tests.chaos.shared_judge import SharedVerdict
from tests.chaos.storm import Storm
from tests.chaos.system import LIMITS, SEVERAL_LIMITS, SHARED_LIMITS, SKEW_MS


def main() -> int:
    """0 when every promise was kept, 1 when one was broken; then what the processes left is kept too."""
    parser = argparse.ArgumentParser("chaos", description="Break the running system; exit 1 when it breaks a promise.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--several", action="store_true", help="three tasks of a user at once")
    parser.add_argument("--shared", action="store_true", help="all users' tasks share a limit")
    options = parser.parse_args()
    limits, shared = SEVERAL_LIMITS if options.several else LIMITS, SHARED_LIMITS if options.shared else ""
    console = Console()
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    console.print(f"seed {options.seed}, limits {limits}, shared limit {shared or 'none'}, in {directory}")
    console.print(f"clocks off by up to {SKEW_MS} ms")
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[now]}")
    ) as bar:
        line = bar.add_task("chaos", total=options.minutes * 60, now="starting")

        def show(gone: float, storm: Storm, ledger: Ledger) -> None:
            now = f"{storm.struck.total()} faults, {len(ledger.tasks)} acknowledged"
            bar.update(line, completed=gone, now=now)

        outcome = run_chaos(
            directory,
            options.minutes * 60,
            options.seed,
            skew_ms=SKEW_MS,
            limits=limits,
            shared=shared,
            on_progress=show,
        )
        bar.update(line, completed=options.minutes * 60, now="finished")
    _report(console, outcome)
    return 1 if outcome.breaches else 0


def _report(console: Console, outcome: Handled) -> None:
    verdict = outcome.verdict
    table = Table("what", "count", title="Promises under faults")
    for what, count in (
        ("submitted", verdict.submitted),
        ("acknowledged", verdict.acknowledged),
        ("completed", verdict.completed),
        ("failed", verdict.failed),
        ("of these submitted to crash", verdict.crashed),
        ("innocent failures", len(verdict.innocent_failures)),
        ("cancelled", verdict.cancelled),
        ("lost", len(verdict.lost)),
        ("twice, without a dead worker", len(verdict.twice)),
        ("run twice at once", len(verdict.run_twice_at_once)),
        ("too many at once", len(verdict.too_many)),
        ("run though cancelled", len(verdict.run_though_cancelled)),
        ("early", len(verdict.early)),
        ("order broken", len(verdict.out_of_order)),
        ("wrong answers", len(verdict.wrong_answers)),
        ("run again after a death", verdict.after_a_death),
        ("logged twice", verdict.logged_twice),
        ("worst lateness, ms", verdict.worst_late_ms),
        ("slowest answer, s", f"{verdict.slowest_answer_seconds:.1f}"),
    ):
        table.add_row(what, str(count))
    console.print(table)
    if outcome.shared:
        console.print(_shared_table(outcome.shared))
    survived = Table("fault", "times", title="Faults survived")
    for kind, times in sorted(outcome.struck.items()):
        survived.add_row(kind, str(times))
    console.print(survived)
    calls = Table("call", "effect", "times", title="Calls struck")
    for (call, effect), times in sorted(outcome.calls.items()):
        calls.add_row(call, effect, str(times))
    console.print(calls)
    console.print(f"Answers: {dict(outcome.statuses)}; runner started {outcome.runner_starts} times")
    for kind, found in verdict.breaches.items():
        console.print(f"[red]{kind}[/red]: {found[:10]}")


def _shared_table(verdict: SharedVerdict) -> Table:
    table = Table("what", "count", title="Shared limit")
    for what, count in (
        ("starts of all users", verdict.starts),
        ("windows with too many", len(verdict.over)),
        ("most that ran at once", verdict.most_at_once),
        ("waits that were judged, after the faults", verdict.waits),
        ("most starts of another user during one", verdict.most_passed),
        ("passed over", len(verdict.passed_over)),
        ("starts by user, faults included", list(verdict.starts_by_user.values())),
        ("starved", len(verdict.starved)),
        ("left running at the end", verdict.left),
    ):
        table.add_row(what, str(count))
    return table


if __name__ == "__main__":
    sys.exit(main())
