"""A million users, simulated: the resources that a day and its busiest minutes take, and which quota is full first.

The day is simulated for one user in a hundred and scaled: lanes share nothing but the quotas, so below them sums scale
exactly, and peaks are at most overstated by the sample's own noise. The busiest minutes are simulated with all users.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from bench.figures import Results, quantile
from bench.lambda_model import Design, LambdaModel, Usage
from bench.prices import LAMBDA_GB_SECOND, LAMBDA_INVOCATION, SQS_FIFO_REQUEST, WORKER_GB, WRITE_UNIT
from chalicelib.settings import Settings

USERS = 1_000_000
TASKS_A_DAY = 10
#: Share of a day's load in each hour, in hundredths; for ten minutes at noon it is three times that of its hour.
HOURS = (3, 2, 2, 1, 1, 2, 3, 4, 5, 5, 5, 5, 6, 6, 5, 5, 5, 6, 7, 8, 8, 7, 6, 4)
PEAK_FACTOR, PEAK_MINUTES = 3, 10
#: Tasks of a submit, and the percentage of such submits.
BURSTS = ((1, 60), (5, 30), (25, 10))
SAMPLE = 0.01
#: Seconds of the busiest minutes that are simulated with all users, and the first of them, which only fill the lanes.
PEAK_SECONDS, WARM_UP_SECONDS = 150, 60

#: Name, quota, and the measured quantity that uses it.
QUOTAS = (
    ("Lambda: concurrency of an account, by default", 1_000, "environments"),
    ("Lambda: invocations of one event source at a time", 1_250, "environments"),
    ("SQS: messages in flight, one queue", 120_000, "in flight"),
    ("SQS: messages looked at for free lanes, one queue", 120_000, "messages"),
    ("DynamoDB: write units a second, one table, by default", 40_000, "writes"),
    ("API Gateway: requests a second, one account", 10_000, "requests"),
)
DESIGNS = (
    Design("as it is: one lane in an invocation"),
    Design("10 lanes in an invocation", lanes_per_invocation=10),
    Design("LATE_UP_TO=1s", always_defers=True),
    Design("as it is, at most 500 at a time (prod's setting)", concurrency=500),
    Design("10 lanes in an invocation, at most 500 at a time", lanes_per_invocation=10, concurrency=500),
)


def measure(*, quick: bool) -> Results:
    results, settings = Results(), Settings.from_env({})
    day = _day(results, settings, 0.0005 if quick else SAMPLE)
    peaks = {design.name: _peak(results, settings, design, 0.02 if quick else 1.0) for design in DESIGNS}
    _quotas(results, peaks[DESIGNS[0].name], day)
    _burst(results, settings)
    return results


def _burst(results: Results, settings: Settings) -> None:
    """1,000 users submit 20 tasks each at once, half as many workers may run: twenty seconds of work at the pace."""
    for design in (Design("sleeping", concurrency=500), Design("LATE_UP_TO=1s", concurrency=500, always_defers=True)):
        submits = ((user // 100, f"user-{user}", 20) for user in range(1_000))
        usage = LambdaModel(settings, design).run(iter(submits))
        name = f"1,000 users with 20 tasks at once, at most 500 workers, {design.name}"
        results.add(f"{name}: all started after", [usage.levels[-1][0] / 1000], "s")
        results.add(f"{name}: late, p99", [quantile(usage.late_ms, 0.99)], "ms")


def _day(results: Results, settings: Settings, sample: float) -> dict[str, float]:
    submits = list(_submits(Random(1), _rates(), sample))
    usage = LambdaModel(settings, Design("a day")).run(iter(submits))
    tasks, scale = len(usage.late_ms) / sample, 1 / sample
    by_minute = _by_minute(usage)
    series = {name: [[minute, level * scale] for minute, level in levels] for name, levels in by_minute.items()}
    results.series["day"] = series
    results.add("a day: tasks", [tasks])
    results.add("a day: late, p99", [quantile(usage.late_ms, 0.99)], "ms")
    results.add("a day: environments, busiest minute's mean", [max(level for _, level in series["environments"])])
    results.add("a day: in flight, busiest minute's mean", [max(level for _, level in series["in flight"])])
    results.add("a day: messages in the queue, busiest minute's mean", [max(level for _, level in series["messages"])])
    worker = _worker_dollars(usage, scale)
    results.add("a day: worker's Lambda, SQS and DynamoDB", [worker], "$")
    results.add("a day: of it environments asleep", [usage.slept_ms / 1000 * WORKER_GB * LAMBDA_GB_SECOND * scale], "$")
    results.add("a day: deferrals per task", [usage.deferrals / len(usage.late_ms)])
    return {"messages": max(level for _, level in series["messages"])}


def _peak(results: Results, settings: Settings, design: Design, share: float) -> dict[str, float]:
    rate = max(_rates()) * PEAK_FACTOR * share
    submits = _submits(Random(2), [rate] * PEAK_SECONDS, 1.0)
    capped = replace(design, concurrency=design.concurrency and int(design.concurrency * share))
    usage = LambdaModel(settings, capped).run(submits)
    window = [level for level in usage.levels if WARM_UP_SECONDS * 1000 <= level[0] < PEAK_SECONDS * 1000]
    busy = [level[1] / share for level in window]
    name = f"busiest minutes, {design.name}"
    results.add(f"{name}: environments, p50", [quantile(busy, 0.5)])
    results.add(f"{name}: environments, max", [max(busy)])
    results.add(f"{name}: late, p50", [quantile(usage.late_ms, 0.5)], "ms")
    results.add(f"{name}: late, p99", [quantile(usage.late_ms, 0.99)], "ms")
    cost = usage.busy_ms / 1000 * WORKER_GB * LAMBDA_GB_SECOND + usage.invocations * LAMBDA_INVOCATION / 1e6
    cost += (2 * usage.invocations + usage.deferrals) * SQS_FIFO_REQUEST / 1e6
    results.add(f"{name}: Lambda and SQS for a million runs", [cost / len(usage.late_ms) * 1e6], "$")
    results.add(f"{name}: deferrals per task", [usage.deferrals / len(usage.late_ms)])
    return {
        "environments": max(busy),
        "in flight": max(level[2] for level in window) / share,
        "messages": max(level[3] for level in window) / share,
        "writes": max(usage.writes_at.values()) / share,
        "requests": usage.submits / PEAK_SECONDS / share,
    }


def _quotas(results: Results, peak: dict[str, float], day: dict[str, float]) -> None:
    """Computes the users that fill each quota in the busiest minutes: each quantity is proportional to the users."""
    peak["messages"] = max(peak["messages"], day["messages"])
    for name, quota, of in QUOTAS:
        results.add(f"{name} ({quota:,}): used by a million users", [peak[of]])
        results.add(f"{name} ({quota:,}): users that fill it", [USERS * quota / peak[of]])


def _worker_dollars(usage: Usage, scale: float) -> float:
    lambda_ = usage.busy_ms / 1000 * WORKER_GB * LAMBDA_GB_SECOND + usage.invocations * LAMBDA_INVOCATION / 1e6
    sqs = (2 * usage.invocations + usage.deferrals + usage.submits) * SQS_FIFO_REQUEST / 1e6
    return (lambda_ + sqs + usage.write_units * WRITE_UNIT / 1e6) * scale


def _rates() -> list[float]:
    """Submits a second of all users, for each second of the day, without the peak at noon."""
    tasks_per_submit = sum(tasks * share for tasks, share in BURSTS) / 100
    a_day = USERS * TASKS_A_DAY / tasks_per_submit
    return [a_day * HOURS[second // 3600] / sum(HOURS) / 3600 for second in range(86_400)]


def _submits(random: Random, rates: list[float], sample: float) -> Iterator[tuple[int, str, int]]:
    """Yields time in ms, user and number of tasks, in order of time. Times and users are random, by the rates."""
    users, noon = int(USERS * sample), 12 * 3600
    for second, rate in enumerate(rates):
        is_peak = len(rates) == 86_400 and noon <= second < noon + PEAK_MINUTES * 60
        expected = rate * sample * (PEAK_FACTOR if is_peak else 1)
        times: list[int] = []
        at = random.expovariate(expected)
        while at < 1:
            heapq.heappush(times, int(at * 1000))
            at += random.expovariate(expected)
        for time in times:
            tasks = random.choices([one for one, _ in BURSTS], [share for _, share in BURSTS])[0]
            yield second * 1000 + time, f"user-{random.randrange(users)}", tasks


def _by_minute(usage: Usage) -> dict[str, list[tuple[int, float]]]:
    """Mean of each level in each minute."""
    sums: dict[int, list[float]] = {}
    for (at, *levels), (until, *_) in zip(usage.levels, usage.levels[1:], strict=False):
        held = sums.setdefault(at // 60_000, [0, 0, 0, 0])
        held[0] += until - at
        for n, level in enumerate(levels):
            held[n + 1] += level * (until - at)
    names = ("environments", "in flight", "messages")
    return {
        name: [(minute, held[n + 1] / held[0]) for minute, held in sorted(sums.items()) if held[0]]
        for n, name in enumerate(names)
    }
