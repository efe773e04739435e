"""Measures how Lambda's trigger takes messages from a queue: prefetch, delay, and early deletes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from operations.first_hour.findings import Finding, percentile, spread
from operations.first_hour.queues import Probes, Record
from operations.first_hour.sizes import Sizes

#: Seconds that a message may wait between its receive and its invocation without a prefetch being the reason.
_HELD_SECONDS = 1.0
#: Lateness at which the alarm `late-starts` of a stage is raised, in seconds.
_LATE_SECONDS = 5.0

Clock = Callable[[], float]


def prefetch(probes: Probes, sizes: Sizes, run: str, now: Clock) -> list[Finding]:
    """Measures whether the trigger receives messages for which no function is free, with two functions at a time."""
    count, seconds = sizes.prefetch
    samples: list[tuple[float, int]] = []
    begun = now()
    probes.send("prefetch", [(f"group-{n}", {"run": run, "seconds": seconds}) for n in range(count)])
    records = probes.wait(
        run,
        lambda found: len({one["id"] for one in found}) == count,
        seconds=60 + 3 * count * seconds,
        meanwhile=lambda: samples.append((now(), probes.counts("prefetch")[1])),
    )
    if not records:
        raise TimeoutError(f"none of {count} messages was invoked within {now() - begun:.0f} s")
    return _prefetch_findings(records, samples, count)


def _prefetch_findings(records: Sequence[Record], samples: Sequence[tuple[float, int]], sent: int) -> list[Finding]:
    receives = sum(max(one["receives"] for one in group) for group in _by_id(records))
    # The first receive's time is known, a later one's is not.
    held = [one["begun"] - one["first_received"] for one in records if one["receives"] == 1]
    beyond = [in_flight - _running(records, at) for at, in_flight in samples]
    return [
        Finding("messages sent", sent),
        Finding("messages received", receives),
        Finding("invocations", len(records)),
        *spread("seconds from a message's receive to its invocation", held or [0.0])[:1],
        Finding(
            "seconds from a message's receive to its invocation, most",
            round(max(held or [0.0]), 3),
            f"below {_HELD_SECONDS:.0f}: the trigger receives a message when a function is free for it",
            max(held or [0.0]) < _HELD_SECONDS,
        ),
        Finding(
            "messages in flight beyond the running ones, most (SQS's count is approximate)", max(beyond, default=0)
        ),
    ]


def _running(records: Iterable[Record], at: float) -> int:
    return sum(one["begun"] <= at <= one["ended"] for one in records)


def _by_id(records: Iterable[Record]) -> list[list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["id"], []).append(record)
    return list(groups.values())


def delay(probes: Probes, sizes: Sizes, run: str, now: Clock) -> list[Finding]:
    """Measures the time from the end of a deferral to the invocation, with several numbers of lanes at once."""
    findings: list[Finding] = []
    for lanes, ahead in sizes.delays:
        findings += _delay_findings(lanes, _deferred(probes, f"{run}-{lanes}", lanes, now() + ahead))
    return findings


def _deferred(probes: Probes, run: str, lanes: int, until: float) -> list[Record]:
    body = {"run": run, "until": until}
    probes.send("delay", [(f"lane-{n}", body) for n in range(lanes)])

    def is_enough(found: list[Record]) -> bool:
        return sum("visible_at" not in one for one in found) == lanes

    return probes.wait(run, is_enough, seconds=180 + lanes)


def _delay_findings(lanes: int, records: Sequence[Record]) -> list[Finding]:
    # The last deferral counts: Lambda receives a message again that it could not invoke.
    visible = {one["id"]: one["visible_at"] for one in records if "visible_at" in one}
    invoked = {one["id"]: one["begun"] for one in records if "visible_at" not in one}
    delays = [at - visible[message] for message, at in invoked.items() if message in visible]
    label = f"{lanes} {'lane' if lanes == 1 else 'lanes'}: seconds from visible to invoked"
    if not delays:
        raise TimeoutError(f"none of {lanes} deferred messages came again")
    late = round(percentile(delays, 99), 3)
    return [
        Finding(
            f"{lanes} {'lane' if lanes == 1 else 'lanes'}: deferred messages that came again",
            len(delays),
            str(lanes),
            len(delays) == lanes,
        ),
        Finding(f"{label}, least", round(min(delays), 3), "0 or more: never early", min(delays) >= 0),
        Finding(f"{label}, median", round(percentile(delays, 50), 3)),
        Finding(f"{label}, p99", late, f"below {_LATE_SECONDS:.0f}, the alarm late-starts", late < _LATE_SECONDS),
    ]


def early_delete(probes: Probes, sizes: Sizes, run: str, _now: Clock) -> list[Finding]:
    """Measures when a group's second message is invoked, while the first runs on after its delete, and without one."""
    groups, seconds = sizes.early
    for is_early in (False, True):
        name = f"{run}-{'early' if is_early else 'late'}"
        body = {"run": name, "seconds": seconds}
        # The first message of a group deletes itself early or not, the second one never.
        messages = [(f"{name}-{n // 2}", {**body, "early": is_early and n % 2 == 0}) for n in range(2 * groups)]
        probes.send("early", [(group, {**one, "group": group, "n": n % 2}) for n, (group, one) in enumerate(messages)])
        probes.wait(name, lambda found: len(found) >= 2 * groups, seconds=90 + 4 * groups * seconds)
    return _early_findings(probes.records(f"{run}-late"), probes.records(f"{run}-early"))


def _early_findings(late: Sequence[Record], early: Sequence[Record]) -> list[Finding]:
    usual, freed = _gaps(late, "ended"), _gaps(early, "deleted")
    overlaps = sum(gap < 0 for gap in _gaps(early, "ended"))
    return [
        Finding(
            "without a delete: seconds from the first message's end to the next one's invocation, least",
            round(min(usual), 3),
            "0 or more: a group's messages run one after the other",
            min(usual) >= 0,
        ),
        Finding(
            "deleted early: groups whose next message ran beside the first",
            f"{overlaps} of {len(freed)}",
            "all",
            overlaps == len(freed),
        ),
        Finding(
            "deleted early: seconds from the delete to the next message's invocation, median",
            round(percentile(freed, 50), 3),
        ),
    ]


def _gaps(records: Sequence[Record], since: str) -> list[float]:
    """Returns for each group the seconds from the first message's event to the second one's invocation."""
    first = {one["group"]: one[since] for one in records if one["n"] == 0 and one["receives"] == 1}
    second = {one["group"]: one["begun"] for one in records if one["n"] == 1 and one["receives"] == 1}
    gaps = [at - first[group] for group, at in second.items() if group in first]
    if not gaps:
        raise TimeoutError("no group's second message was invoked")
    return gaps
