"""An audit's report for people (a plain table) and for scripts (JSON). Judges nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import Any

from completions.report import Breach, LimitRow, Report

#: Breaches that are printed; the JSON has them all.
BREACHES_SHOWN = 20

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def utc(at_ms: int) -> datetime:
    """The moment of an epoch ms, exactly; a float of seconds would be off by microseconds."""
    return _EPOCH + timedelta(milliseconds=at_ms)


def as_json(report: Report) -> dict[str, Any]:
    """The whole report in plain values, limits as their text, with the verdict in `clean`."""
    fields = asdict(report)
    fields["limits"] = [{**asdict(row), "limit": str(row.limit), "allowed": row.limit.quota} for row in report.limits]
    return {"clean": report.clean, **fields}


def as_table(report: Report, source: str) -> str:
    """The report in lines, the verdict last. source: what was read, for a log that is empty."""
    if report.empty:
        return "\n".join([*_skipped(report.skipped), f"audit: nothing to audit in {source}"])
    return "\n".join([*_summary(report), "", *_columns(_rows(report.limits)), "", *_notes(report), *_verdict(report)])


def _summary(report: Report) -> Iterator[str]:
    ends = ", ".join(f"{count} {word}" for word, count in sorted(report.events.items()))
    yield f"{ends}; {_count(report.starts, 'start')} of {_count(report.users, 'user')}"


def _rows(rows: Sequence[LimitRow]) -> Iterator[tuple[str, ...]]:
    yield "limit", "starts", "most in a window", "user", "from", "to"
    for row in rows:
        most = f"{row.most} of {row.limit.quota}{'' if row.most <= row.limit.quota else '  BROKEN'}"
        limit = f"{row.shared}: {row.limit}" if row.shared else str(row.limit)
        users = "all" if row.shared else row.user_id or "-"
        yield limit, str(row.starts), most, users, _moment(row.first_at), _moment(row.last_at)


def _columns(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _notes(report: Report) -> Iterator[str]:
    if report.lateness:
        late = report.lateness
        yield f"late: p50 {late.p50_ms} ms, p99 {late.p99_ms} ms, most {late.max_ms} ms"
    if report.at_once and report.at_once.most > 1:
        most = report.at_once
        yield f"at once: at most {most.most} tasks of one user, {most.user_id} at {_moment(most.at)}"
    if report.unknown_starts:
        yield f"not in the log: {_count(report.unknown_starts, 'start')} of attempts whose worker died"
    if report.throttled_starts:
        yield f"used no attempt: {_count(report.throttled_starts, 'start')} that an API throttled"
    if report.repeated_ends:
        yield f"logged again: {_count(report.repeated_ends, 'outcome')}, not stored the first time"
    if report.missing_ends:
        yield f"not in the log: {_count(report.missing_ends, 'end')} between others of the same user"
    for name, count in sorted(report.unknown_shared.items()):
        yield f"not judged: {_count(count, 'start')} under the shared limit {name}, which SHARED_LIMITS does not have"
    yield from _skipped(report.skipped)


def _skipped(skipped: Mapping[str, int]) -> Iterator[str]:
    for reason, count in sorted(skipped.items()):
        yield f"skipped: {_count(count, 'line')}, {reason}"


def _verdict(report: Report) -> Iterator[str]:
    for breach in report.breaches[:BREACHES_SHOWN]:
        yield _breach(breach)
    if len(report.breaches) > BREACHES_SHOWN:
        yield f"broken: {len(report.breaches) - BREACHES_SHOWN} more (--json has them all)"
    yield "audit: clean" if report.clean else f"audit: broken, {_count(len(report.breaches), 'finding')}"


def _breach(breach: Breach) -> str:
    whose = f"the shared limit {breach.shared}" if breach.shared else f"user {breach.user_id}"
    return f"broken: {breach.kind}: {whose} at {_moment(breach.at)} ({breach.at}): {breach.what}"


def _moment(at_ms: int | None) -> str:
    return "-" if at_ms is None else utc(at_ms).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
