"""Provokes findings 1 and 2 of the review against AWS: a chain of sends, and receives under failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from operations.first_hour.findings import Finding, percentile
from operations.first_hour.queues import Probes, Record
from operations.first_hour.sizes import Sizes

#: Invocations after which Lambda's recursion guard stops a chain, by AWS's documents.
GUARD = 16
#: Receives that a stage's queue allows, and the longest wait between two of them while AWS fails.
_RECEIVES, _LONGEST_SECONDS = 1_000, 60

Clock = Callable[[], float]


def chain(probes: Probes, sizes: Sizes, run: str, _now: Clock) -> list[Finding]:
    """Lets a function send message after message to the queue that triggers it, guarded by Lambda and allowed."""
    lengths = {}
    for probe in ("chain", "allowed"):
        name = f"{run}-{probe}"
        probes.send(probe, [("", {"run": name, "n": 1, "last": sizes.chain})])
        records = probes.wait(
            name, lambda found: any(one["n"] == sizes.chain for one in found), seconds=300, quiet=sizes.quiet
        )
        lengths[probe] = max((one["n"] for one in records), default=0)
    return _chain_findings(lengths, sizes.chain, probes.counts("chain"), probes.counts("chain", dead=True))


def _chain_findings(
    lengths: dict[str, int], last: int, waiting: tuple[int, int], dead: tuple[int, int]
) -> list[Finding]:
    stopped = lengths["chain"]
    return [
        Finding(
            f"a chain of {last} sends: invocations before Lambda stopped it",
            stopped if stopped < last else f"{stopped}, not stopped",
            f"about {GUARD}",
            abs(stopped - GUARD) <= 1,
        ),
        Finding("the stopped message: in the dead-letter queue", sum(dead)),
        Finding("the stopped message: still in its queue", sum(waiting)),
        Finding(
            "the same chain with RecursiveLoop: Allow, as the stage's function `scheduled` has it: invocations",
            lengths["allowed"],
            f"{last}: not stopped",
            lengths["allowed"] == last,
        ),
    ]


def failure(probes: Probes, sizes: Sizes, run: str, now: Clock) -> list[Finding]:
    """Lets a function fail each message, hidden for 1 s each time or ever longer, until SQS makes it a dead letter."""
    receives, longest = sizes.failure
    bodies = {"constant": {"run": run, "most": 1}, "backoff": {"run": run, "most": longest}}
    probes.send("failure", [(group, {**body, "group": group}) for group, body in bodies.items()])
    asked = sum(min(2**n, longest) for n in range(receives))
    until = now() + 60 + 3 * asked
    records = probes.wait(run, lambda found: len(found) >= 2 * receives, seconds=60 + 3 * asked)
    # The last receive hides the message once more; SQS moves it when it would be received again.
    probes.wait(run, lambda _: now() > until or sum(probes.counts("failure", dead=True)) >= 2, seconds=60 + 2 * longest)
    return _failure_findings(records, receives, sum(probes.counts("failure", dead=True)))


def _failure_findings(records: Sequence[Record], receives: int, dead: int) -> list[Finding]:
    by_group = {group: [one for one in records if one["group"] == group] for group in ("constant", "backoff")}
    late = [after["begun"] - one["visible_at"] for group in by_group.values() for one, after in _pairs(group)]
    if not late:
        raise TimeoutError("no failed message came again")
    more = percentile(late, 50)
    return [
        *(_counted(group, found, receives) for group, found in by_group.items()),
        Finding("dead letters", dead, "2: each message after its last receive", dead == 2),
        Finding("seconds by which a receive comes later than asked, median", round(more, 3)),
        *(_lasted(group, found) for group, found in by_group.items()),
        Finding(
            f"computed: hours until {_RECEIVES:,} receives are used up, with waits of up to {_LONGEST_SECONDS} s",
            round(_RECEIVES * (_LONGEST_SECONDS + more) / 3600, 1),
            "16 or more",
            _RECEIVES * (_LONGEST_SECONDS + more) / 3600 >= 16,
        ),
        Finding(
            f"computed: minutes until {_RECEIVES:,} receives are used up, with waits of 5 s",
            round(_RECEIVES * (5 + more) / 60),
        ),
    ]


def _counted(group: str, records: Sequence[Record], receives: int) -> Finding:
    counts = [one["receives"] for one in records]
    expected = list(range(1, receives + 1))
    return Finding(f"{group}: ApproximateReceiveCount", _listed(counts), f"1 to {receives}", counts == expected)


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts))


def _lasted(group: str, records: Sequence[Record]) -> Finding:
    seconds = records[-1]["visible_at"] - records[0]["begun"] if records else 0.0
    return Finding(f"{group}: seconds from the first receive to the dead letter", round(seconds, 1))


def _pairs(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    return list(pairwise(records))
