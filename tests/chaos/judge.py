"""Compares the answers that clients got with the completion log and the tasks' own reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chalicelib.core.limits import Limits, at_once
from completions.beside import too_many
from completions.reader import Completion, completions_folder, folder_lines, read_completions
from completions.windows import Start, busiest_windows
from tests.chaos.load import Acknowledged, Ledger
from tests.chaos.runs import Run, Runs


@dataclass(frozen=True)
class Verdict:
    submitted: int
    acknowledged: int
    completed: int
    failed: int
    cancelled: int
    #: acknowledged tasks without an outcome in the log
    lost: list[str]
    #: tasks run again although none of their processes died
    twice: list[str]
    run_twice_at_once: list[str]
    #: tasks that ran, or ended otherwise, after the answer that they are cancelled
    run_though_cancelled: list[str]
    #: windows with more starts than the limits allow, and runs begun before the logged start
    early: list[str]
    out_of_order: list[str]
    #: starts beside as many tasks of the user as may run
    too_many: list[str]
    #: failed tasks that were not submitted to fail
    innocent_failures: list[str]
    #: failed tasks that were
    crashed: int
    after_a_death: int
    #: outcomes logged twice: a worker died or AWS failed between log and store
    logged_twice: int
    worst_late_ms: int
    slowest_answer_seconds: float
    wrong_answers: list[str]

    @property
    def breaches(self) -> dict[str, list[str]]:
        kinds = {
            "lost": self.lost,
            "twice": self.twice,
            "run twice at once": self.run_twice_at_once,
            "run though cancelled": self.run_though_cancelled,
            "early": self.early,
            "order broken": self.out_of_order,
            "too many at once": self.too_many,
            "innocent failures": self.innocent_failures,
            "wrong answers": self.wrong_answers,
        }
        return {kind: found for kind, found in kinds.items() if found}


def ends_in(log_dir: Path) -> list[Completion]:
    entries = read_completions(folder_lines(completions_folder(log_dir, "dev")))
    return [entry for entry in entries if isinstance(entry, Completion)]


def judge(ledger: Ledger, ends: Sequence[Completion], runs: Runs, skew_ms: int, limits: Limits) -> Verdict:
    by_task: defaultdict[str, list[Completion]] = defaultdict(list)
    for end in ends:
        by_task[end.task_id].append(end)
    words = [end.word for task_id, (end, *_) in by_task.items() if task_id in ledger.tasks]
    failed = [end for task_id, (end, *_) in by_task.items() if task_id in ledger.tasks and end.word == "failed"]
    late = [end.late_ms for end in ends if end.late_ms is not None and end.attempt == 1]
    return Verdict(
        submitted=ledger.submitted,
        acknowledged=len(ledger.tasks),
        completed=words.count("completed"),
        failed=words.count("failed"),
        cancelled=words.count("cancelled"),
        lost=[task_id for task_id in ledger.tasks if task_id not in by_task],
        twice=runs.twice,
        run_twice_at_once=runs.run_twice_at_once,
        run_though_cancelled=_run_though_cancelled(ledger, by_task, runs),
        early=[*_too_fast(ends, limits), *_before_their_start(by_task, runs, skew_ms)],
        out_of_order=_out_of_order(ledger, _begun(runs) if at_once(limits) == 1 else _started(ends)),
        too_many=[*_too_many(ends, limits), *_too_many_by_reports(ledger, ends, runs, skew_ms, at_once(limits))],
        innocent_failures=[end.task_id for end in failed if not ledger.tasks[end.task_id].crashes],
        crashed=sum(ledger.tasks[end.task_id].crashes for end in failed),
        after_a_death=len(runs.after_a_death),
        logged_twice=sum(len(known) > 1 for known in by_task.values()),
        worst_late_ms=max(late, default=0),
        slowest_answer_seconds=ledger.slowest_seconds,
        wrong_answers=ledger.wrong,
    )


def _too_many(ends: Sequence[Completion], limits: Limits) -> list[str]:
    users = {end.user_id for end in ends}
    return [found.what for user in users for found in too_many([e for e in ends if e.user_id == user], limits)]


def _too_many_by_reports(
    ledger: Ledger, ends: Sequence[Completion], runs: Runs, skew_ms: int, allowed: int
) -> Iterator[str]:
    by_user: defaultdict[str, dict[str, list[Run]]] = defaultdict(dict)
    for task_id, of_task in runs.by_task.items():
        if task := ledger.tasks.get(task_id):
            by_user[task.user_id][task_id] = of_task
    for user, by_task in by_user.items():
        if (most := most_at_one_time(by_task, ends, skew_ms)) > allowed:
            yield f"{user}: {most} ran at once"


def most_at_one_time(by_task: Mapping[str, Sequence[Run]], ends: Iterable[Completion], skew_ms: int) -> int:
    """The most runs at one time, as far as they surely lasted: one whose process died, until its end was logged."""
    logged = {end.task_id: end.completed_at - 2 * skew_ms for end in ends}
    changes = list[tuple[int, int]]()
    for task_id, of_task in by_task.items():
        for run in of_task:
            until = run.ended_at or (logged.get(task_id, 0) if run is of_task[-1] else 0)
            changes += [(run.begun_at, 1), (max(until, run.begun_at), -1)]
    most = now = 0
    for _, change in sorted(changes):  # at one time ends come first
        now += change
        most = max(most, now)
    return most


def _too_fast(ends: Sequence[Completion], limits: Limits) -> list[str]:
    starts: defaultdict[str, set[Start]] = defaultdict(set)
    for end in ends:
        starts[end.user_id] |= {Start(at, end.seq, limits) for at in end.starts}
    return [
        f"{user}: {busiest.most} starts in {limit}"
        for user, of_user in starts.items()
        for limit, busiest in busiest_windows(of_user).items()
        if busiest.too_early
    ]


def _run_though_cancelled(ledger: Ledger, by_task: Mapping[str, list[Completion]], runs: Runs) -> list[str]:
    """A task may be cancelled between two attempts: then it ran before."""
    return [
        task_id
        for task_id, task in ledger.tasks.items()
        if (at := task.cancelled_at) is not None
        and (
            any(run.begun_at > at for run in runs.by_task.get(task_id, ()))
            or any(end.word != "cancelled" for end in by_task.get(task_id, ()))
        )
    ]


def _before_their_start(by_task: Mapping[str, list[Completion]], runs: Runs, skew_ms: int) -> Iterator[str]:
    """Runs of an attempt before its start, without a start, or by a start that another run used.

    A start may have no run: its process was killed before the function began. Skewed clocks disagree with ours by as
    much as skew_ms.
    """
    for task_id, ends in by_task.items():
        starts, logged_at = _starts_by_attempt(ends), max(end.completed_at for end in ends)
        used = set[int]()
        for run in runs.by_task.get(task_id, ()):
            at = starts.get(run.attempt)
            if at is not None and run.begun_at < at - skew_ms:
                yield f"{task_id}: attempt {run.attempt} begun {at - run.begun_at} ms before its start"
            if at is None and run.begun_at < logged_at - skew_ms:  # a later one may be missing in the log as yet
                yield f"{task_id}: attempt {run.attempt} begun without a start"
            if run.attempt in used:
                yield f"{task_id}: attempt {run.attempt} begun twice"
            used.add(run.attempt)


def _starts_by_attempt(ends: Sequence[Completion]) -> dict[int, int]:
    """The logged starts by attempt. The first ones are missing if their lease was lost."""
    return {end.attempt - back: at for end in ends for back, at in enumerate(reversed(end.starts))}


def _begun(runs: Runs) -> dict[str, int]:
    """When each task's function began first, by the true time."""
    return {task_id: of_task[0].begun_at for task_id, of_task in runs.by_task.items() if of_task}


def _started(ends: Sequence[Completion]) -> dict[str, int]:
    """When each task was started first: several start at one time, and their functions begin in any order."""
    return {end.task_id: min(end.starts) for end in ends if end.starts}


def _out_of_order(ledger: Ledger, begun: dict[str, int]) -> list[str]:
    """A task with a higher seq started before one with a lower seq that had been answered by then."""
    by_user: defaultdict[str, list[Acknowledged]] = defaultdict(list)
    for task in ledger.tasks.values():
        by_user[task.user_id].append(task)
    found = []
    for tasks in by_user.values():
        began = {task.seq: begun[task.task_id] for task in tasks if task.task_id in begun}
        highest = 0
        for task in sorted((task for task in tasks if task.seq in began), key=lambda task: began[task.seq]):
            waiting = [one for one in tasks if one.seq in began and task.seq < one.seq <= highest]
            overtaken = [one for one in waiting if task.answered_at < began[one.seq] < began[task.seq]]
            found += [f"{task.task_id} ({task.seq}) after {one.seq}" for one in overtaken]
            highest = max(highest, task.seq)
    return found
