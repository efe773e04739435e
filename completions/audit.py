"""The proof of the pace: judges the completion log alone, and trusts nothing that the workers computed.

`audit` reads and judges, `completions.audit_table` prints the report. It must not know the lane,
the store or the worker: what it shares with them is only what a limit is.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from chalicelib.core.limits import Limit, Limits, parse_limits
from chalicelib.core.shared_names import parse_shared
from chalicelib.settings import DEFAULT_LIMITS
from completions.audit_table import as_json, as_table
from completions.beside import most_at_once, too_many
from completions.reader import Completion, Foreign, folder_lines, read_completions
from completions.report import Breach, Lateness, LimitRow, Report
from completions.shared_audit import audit_shared
from completions.starts import own_starts
from completions.windows import Busiest, busiest_windows

#: Milliseconds from a start for which no other worker gives its task up: 10 s, less one by which clocks may differ.
LEASE_MS = 9_000
#: Milliseconds for which an idle lane is kept at least.
LANE_KEPT_MS = 14 * 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class _Pace:
    """The fullest windows of one user."""

    user_id: str
    by_limit: dict[Limit, Busiest]


def audit(
    entries: Iterable[Completion | Foreign], default_limits: Limits, shared_limits: Mapping[str, Limits] | None = None
) -> Report:
    """Judge every user in the log, and every shared limit, each start by the limits that were in force for it.

    default_limits: the limits of a start whose line names none. shared_limits: the same of shared limits, by name.
    """
    skipped: Counter[str] = Counter()
    by_user: defaultdict[str, list[Completion]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, Completion):
            by_user[entry.user_id].append(entry)
        else:
            skipped["torn" if entry.torn else entry.reason] += 1
    paces = [_Pace(user, busiest_windows(own_starts(ends, default_limits))) for user, ends in by_user.items()]
    return _report(list(by_user.values()), paces, default_limits, shared_limits or {}, skipped)


def _report(
    users: Sequence[list[Completion]],
    paces: list[_Pace],
    limits: Limits,
    shared_limits: Mapping[str, Limits],
    skipped: Counter[str],
) -> Report:
    ends = [end for user in users for end in user]
    shared = audit_shared(ends, shared_limits)
    breaches = [*_too_fast(paces), *shared.breaches, *(breach for user in users for breach in _broken_tasks(user))]
    breaches += [breach for user in users for breach in too_many(user, limits)]
    most = [found for user in users if (found := most_at_once(user[0].user_id, user))]
    return Report(
        users=len(users),
        events=dict(Counter(end.word for end in ends)),
        starts=sum(len(own_starts(user, limits)) for user in users),
        limits=[*_limit_rows(paces, limits), *shared.rows],
        # A second attempt waits its backoff, which is not lateness.
        lateness=_lateness([end.late_ms for end in ends if end.late_ms is not None and end.attempt == 1]),
        breaches=sorted(breaches, key=lambda breach: (breach.at, breach.user_id)),
        at_once=max(most, key=lambda found: found.most, default=None),
        unknown_starts=sum(max(0, end.attempt - len(end.starts)) for end in ends),
        throttled_starts=sum(max(0, len(end.starts) - end.attempt) for end in ends),
        repeated_ends=sum(len(user) - len({end.task_id for end in user}) for user in users),
        missing_ends=sum(_missing_ends(lane) for user in users for lane in _lanes(user)),
        unknown_shared=shared.unknown,
        skipped=dict(skipped),
    )


def _limit_rows(paces: list[_Pace], default_limits: Limits) -> list[LimitRow]:
    used = {limit for pace in paces for limit in pace.by_limit} - set(default_limits)
    own = sorted(used, key=lambda limit: (limit.window_ms, limit.counts_units, limit.quota))
    return [_limit_row(limit, paces) for limit in (*default_limits, *own)]


def _limit_row(limit: Limit, paces: list[_Pace]) -> LimitRow:
    found = [(pace.user_id, pace.by_limit[limit]) for pace in paces if limit in pace.by_limit]
    if not found:
        return LimitRow(limit)
    user_id, fullest = max(found, key=lambda user: user[1].most)
    starts = sum(busiest.examined for _, busiest in found)
    return LimitRow(limit, starts, fullest.most, user_id, fullest.first_at, fullest.last_at)


def _too_fast(paces: Iterable[_Pace]) -> Iterator[Breach]:
    for pace in paces:
        for limit, busiest in pace.by_limit.items():
            if busiest.too_early:
                counted = f"{busiest.most} {'units' if limit.counts_units else 'starts'}"
                what = f"{limit}: {counted} within {busiest.last_at - busiest.first_at} ms"
                count = f"{busiest.too_early} of {busiest.examined} starts too early"
                yield Breach("pace", pace.user_id, busiest.first_at, f"{what}; {count}")


def _broken_tasks(ends: list[Completion]) -> Iterator[Breach]:
    """The breaches of one user's tasks, except those of the pace."""
    for lane in _lanes(ends):
        yield from _out_of_order(lane)
    yield from _ended_again(ends)
    for end in ends:
        yield from _wrong_attempts(end)
        yield from _before_planned(end)


def _lanes(ends: Iterable[Completion]) -> Iterator[list[Completion]]:
    """The outcomes of one user between breaks in which the lane may have been forgotten: its seqs then begin anew."""
    lane: list[Completion] = []
    for end in sorted(ends, key=_began_at):
        if lane and _began_at(end) - lane[-1].completed_at > LANE_KEPT_MS:
            yield lane
            lane = []
        lane.append(end)
    yield lane


def _began_at(end: Completion) -> int:
    return min(end.starts, default=end.completed_at)


def _out_of_order(ends: Iterable[Completion]) -> Iterator[Breach]:
    tasks = {end.task_id: end for end in ends if end.starts}
    ordered = sorted(tasks.values(), key=lambda end: end.seq)
    for before, after in pairwise(ordered):
        if before.seq == after.seq:
            yield _breach("order", after, f"has seq {after.seq}, and so has task {before.task_id}")
        elif min(after.starts) < min(before.starts):
            early = min(before.starts) - min(after.starts)
            yield _breach("order", after, f"with seq {after.seq} started {early} ms before seq {before.seq}")


def _ended_again(ends: Iterable[Completion]) -> Iterator[Breach]:
    """A task that ended twice, unless its worker died between logging the first outcome and storing it."""
    last: dict[str, Completion] = {}
    for end in sorted(ends, key=lambda end: (end.completed_at, end.attempt)):
        known = last.get(end.task_id)
        last[end.task_id] = end
        if known and not _is_repeated_end(known, end):
            yield Breach(
                "ended", end.user_id, end.completed_at, f"task {end.task_id} {end.word}, but had {known.word} before"
            )


def _is_repeated_end(known: Completion, end: Completion) -> bool:
    """A cancellation, a failure without a start or a line that was logged again, a further attempt, or the failure of a
    task without one left.

    A worker gives a task up, or ends one that was cancelled while it ran, once the lease of its last attempt has run
    out. The worker of that attempt may be dead, with its outcome logged and not stored, or cut off from DynamoDB, and
    log it later.
    """
    has_no_run = not known.starts and not end.starts and known.word == end.word == "failed"
    if has_no_run or known.word == end.word == "cancelled" or replace(known, stream=end.stream) == end:
        return True
    is_given_up = any(one.word != "completed" and _outlived_its_lease(one) for one in (known, end))
    is_same_run = bool(end.starts) and end.starts == known.starts
    return end.attempt > known.attempt or (is_given_up and is_same_run)


def _outlived_its_lease(end: Completion) -> bool:
    return end.started_at is not None and end.completed_at - end.started_at >= LEASE_MS


def _wrong_attempts(end: Completion) -> Iterator[Breach]:
    """Attempts that can't be. A start uses none if an API throttled it, so there may be more starts than attempts."""
    if end.word == "completed" and end.started_at is None:
        yield _breach("attempts", end, "completed without a start")
    if end.word != "cancelled" and end.starts and end.attempt < 1:
        yield _breach("attempts", end, f"{end.word} after {len(end.starts)} starts and no attempt")
    if any(later < earlier for earlier, later in pairwise(end.starts)):
        yield _breach("attempts", end, "has an attempt that started before the one before it")


def _before_planned(end: Completion) -> Iterator[Breach]:
    if end.planned_at is not None and end.starts and min(end.starts) < end.planned_at:
        yield _breach("early", end, f"started {end.planned_at - min(end.starts)} ms before its planned start")


def _breach(kind: str, end: Completion, what: str) -> Breach:
    return Breach(kind, end.user_id, min(end.starts, default=end.completed_at), f"task {end.task_id} {what}")


def _missing_ends(ends: Iterable[Completion]) -> int:
    """Seqs between a user's first and last outcome in the log that have no outcome of their own."""
    seqs = {end.seq for end in ends if end.seq}  # a task that is cancelled before it is admitted has none
    return max(seqs) - min(seqs) + 1 - len(seqs) if seqs else 0


def _lateness(late_ms: list[int]) -> Lateness | None:
    """Percentiles by nearest rank: each is a lateness that did occur. None without starts."""
    if not late_ms:
        return None
    ordered = sorted(late_ms)
    return Lateness(_ranked(ordered, 50), _ranked(ordered, 99), ordered[-1])


def _ranked(ordered: Sequence[int], percent: int) -> int:
    return ordered[-(-len(ordered) * percent // 100) - 1]


def default_limits(text: str | None) -> Limits:
    """The limits in the text, else Paceline's default. Raises LimitsError."""
    return parse_limits(text or DEFAULT_LIMITS)


def default_shared_limits(text: str | None) -> Mapping[str, Limits]:
    """The shared limits in the text, by name. Raises LimitsError or ValueError."""
    return parse_shared(text or "")


def print_audit(
    folder: Path, user_id: str | None, limits: Limits, is_json: bool, shared_limits: Mapping[str, Limits] | None = None
) -> bool:
    """Audits the log in the folder, of one user or of all, and prints the report; True if it is clean or empty."""
    report = audit(only_user(read_completions(folder_lines(folder)), user_id), limits, shared_limits)
    print(json.dumps(as_json(report), indent=2) if is_json else as_table(report, str(folder)))
    return report.clean


def only_user(entries: Iterable[Completion | Foreign], user_id: str | None) -> Iterator[Completion | Foreign]:
    """The entries of one user, or of all for None; foreign lines belong to none and stay."""
    return (e for e in entries if user_id is None or isinstance(e, Foreign) or e.user_id == user_id)
