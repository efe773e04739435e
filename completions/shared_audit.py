"""The proof of shared limits: judges the starts of all users together, from the completion log alone."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from chalicelib.core.limits import Limits, most_at_once
from completions.reader import Completion
from completions.report import Breach, LimitRow, NumberAtOnce
from completions.starts import shared_starts
from completions.windows import Busiest, busiest_windows

#: Milliseconds by which the clocks of two workers may differ: an overlap that is shorter is none.
CLOCKS_DIFFER_MS = 500
#: Milliseconds from a start for which no other worker gives its task up. What failed later may have ended long before.
LEASE_MS = 9_000


@dataclass(frozen=True)
class SharedFindings:
    rows: Sequence[LimitRow]
    breaches: Sequence[Breach]
    #: starts whose limits are not known, by the name of the shared limit
    unknown: Mapping[str, int]


def audit_shared(ends: Iterable[Completion], settings: Mapping[str, Limits]) -> SharedFindings:
    """Judges each shared limit over all users. settings: the limits of a start whose line names none, by name."""
    by_name: defaultdict[str, list[Completion]] = defaultdict(list)
    for end in ends:
        if end.shared and end.starts:
            by_name[end.shared].append(end)
    rows, breaches, unknown = list[LimitRow](), list[Breach](), dict[str, int]()
    for name in sorted(by_name.keys() | settings.keys()):
        found = by_name[name]
        if name not in settings and (count := sum(end.all_shared_limits.count(None) for end in found)):
            unknown[name] = count
        made = [*_rates(name, found, settings.get(name, ())), *_at_once(name, found, settings.get(name, ()))]
        rows += [row for row, _ in made]
        breaches += [breach for _, breach in made if breach]
    return SharedFindings(rows, breaches, unknown)


def _rates(name: str, ends: Sequence[Completion], setting: Limits) -> Iterator[tuple[LimitRow, Breach | None]]:
    windows = busiest_windows(shared_starts(ends, setting))
    for limit in (*setting, *sorted(windows.keys() - set(setting))):
        busiest = windows.get(limit)
        if busiest is None:
            yield LimitRow(limit, shared=name), None
            continue
        row = LimitRow(limit, busiest.examined, busiest.most, None, busiest.first_at, busiest.last_at, name)
        counted = f"{busiest.most} {'units' if limit.counts_units else 'starts'}"
        what = f"{limit}: {counted} within {busiest.last_at - busiest.first_at} ms"
        yield row, _breach(name, busiest, what) if busiest.too_early else None


def _breach(name: str, busiest: Busiest, what: str) -> Breach:
    count = f"{busiest.too_early} of {busiest.examined} starts too early"
    return Breach("shared", "", busiest.first_at, f"{what}; {count}", name)


def _at_once(name: str, ends: Sequence[Completion], setting: Limits) -> Iterator[tuple[LimitRow, Breach | None]]:
    """Each number at once that starts were made under, with the most tasks that ran at one of these starts."""
    runs = sorted({_run(end, setting) for end in ends if end.started_at is not None})
    counts = {most for _, _, most in runs} | {most_at_once(setting)}
    for most in sorted(one for one in counts if one is not None):
        beside = [(_running_at(at, runs), at) for at, _, allowed in runs if allowed == most]
        fullest, at = max(beside, default=(0, None))
        row = LimitRow(NumberAtOnce(most), len(beside), fullest, None, at, at, name)
        if fullest <= most or at is None:
            yield row, None
            continue
        over = sum(count > most for count, _ in beside)
        what = f"{NumberAtOnce(most)}: {fullest} tasks ran at one time; {over} of {len(beside)} starts were too many"
        yield row, Breach("shared", "", at, what, name)


def _run(end: Completion, setting: Limits) -> tuple[int, int, int | None]:
    """When its last attempt started, until when it surely ran, and how many were allowed at once at that start."""
    named = end.all_shared_limits[-1]
    started_at = end.started_at or 0
    is_sure = end.word == "completed" or end.completed_at - started_at < LEASE_MS
    until = end.completed_at - CLOCKS_DIFFER_MS if is_sure else started_at
    return started_at, max(until, started_at + 1), most_at_once(setting if named is None else named)


def _running_at(at: int, runs: Sequence[tuple[int, int, int | None]]) -> int:
    return sum(started_at <= at < until for started_at, until, _ in runs)
