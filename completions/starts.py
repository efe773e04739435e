"""The starts that log lines tell of, each with the limits that it was made under."""

from collections.abc import Collection, Iterable

from chalicelib.core.limits import Limits
from completions.reader import Completion
from completions.windows import Start, Used


def own_starts(ends: Iterable[Completion], default: Limits) -> Collection[Start]:
    """Every start of one user under the user's limits. default: the limits of a start whose line names none."""
    return _starts((end, end.all_limits, end.used, default) for end in ends)


def shared_starts(ends: Iterable[Completion], setting: Limits) -> Collection[Start]:
    """Every start of one shared limit, under its limits. setting: those of a start whose line names none."""
    return _starts((end, end.all_shared_limits, end.used, setting) for end in ends)


def _starts(
    ends: Iterable[tuple[Completion, tuple[Limits | None, ...], tuple[Used | None, ...], Limits]],
) -> Collection[Start]:
    """A task that was logged twice did not start twice."""
    found: dict[tuple[str, str, int, int], Start] = {}
    for end, limits, reports, default in ends:
        for place, (at, named, used) in enumerate(zip(end.starts, limits, reports, strict=False)):
            key = (end.user_id, end.task_id, at, end.starts[:place].count(at))
            # Of two lines, the one without a report was written by a worker that did not know of it.
            known = used or (found[key].used if key in found else None)
            found[key] = Start(at, end.seq, default if named is None else named, end.units, known)
    return found.values()
