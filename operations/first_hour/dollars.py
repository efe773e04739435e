"""List prices (us-east-1, on demand, without the free tier) of a run's usage, as counted or as estimated."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil

from bench import prices
from operations.first_hour.cold_start import SIZES_MB
from operations.first_hour.sizes import Sizes

#: Dollars for a million read units, and for a million GB-seconds of kept snapshots.
_READ_UNIT, _SNAPSHOT_GB_SECOND = 0.125, 1.5046
#: Lambda bills a snapshot for at least three hours.
_SNAPSHOT_SECONDS = 3 * 3600
#: GB of the stage's published functions, which have snapshots too.
_STAGE_GB = 0.5 + 3 * 0.25
#: Dollars for the alarms and the dashboard, billed by the hour: some 20 of $0.10 and one of $3 a month.
_WATCHING_HOUR = (20 * 0.10 + 3.00) / 730
#: The triggers' pollers (five each of six probes and two queues of the stage), each a request of 20 s.
_POLLERS = 5 * 8
_POLL_SECONDS = 20
#: Write units and SQS requests of a task from submit to end, deferrals included; of one record of a probe.
TASK_WRITES, TASK_SQS, RECORD_SQS = 4, 5, 4
#: GB of a probe's function and seconds of its shortest run, of a task's two functions together.
_PROBE_GB, _SHORT_SECONDS = 0.25, 0.1


@dataclass(frozen=True)
class Usage:
    """The billed amounts; None for an unknown one."""

    api_requests: float | None = None
    invocations: float | None = None
    gb_seconds: float | None = None
    write_units: float | None = None
    read_units: float | None = None
    sqs_requests: float | None = None
    log_gb: float | None = None
    snapshot_gb_seconds: float | None = None
    restored_gb: float | None = None
    hours: float | None = None


#: Dollars for one of each. SQS: the dearer FIFO price for all. Lambda: arm64, as the stage has it.
PRICES = Usage(
    api_requests=prices.API_GATEWAY_REST / 1e6,
    invocations=prices.LAMBDA_INVOCATION / 1e6,
    gb_seconds=prices.LAMBDA_GB_SECOND,
    write_units=prices.WRITE_UNIT / 1e6,
    read_units=_READ_UNIT / 1e6,
    sqs_requests=prices.SQS_FIFO_REQUEST / 1e6,
    log_gb=prices.LOGS_GB,
    snapshot_gb_seconds=_SNAPSHOT_GB_SECOND / 1e6,
    restored_gb=prices.RESTORED_GB,
    hours=_WATCHING_HOUR,
)
LABELS = {
    "api_requests": "API Gateway requests",
    "invocations": "Lambda invocations",
    "gb_seconds": "Lambda GB-seconds",
    "write_units": "DynamoDB write units",
    "read_units": "DynamoDB read units",
    "sqs_requests": "SQS requests",
    "log_gb": "GB of logs",
    "snapshot_gb_seconds": "GB-seconds of SnapStart's snapshots",
    "restored_gb": "GB of restored snapshots",
    "hours": "hours of alarms and dashboard, begun",
}


def amounts(usage: Usage) -> dict[str, float]:
    """Returns the known amounts by the names of Usage's fields."""
    found = {one.name: getattr(usage, one.name) for one in fields(Usage)}
    return {name: float(value) for name, value in found.items() if value is not None}


def dollars(usage: Usage) -> dict[str, float]:
    """Returns the dollars of each known amount."""
    each = amounts(PRICES)
    return {name: amount * each[name] for name, amount in amounts(usage).items()}


def minutes_ahead(sizes: Sizes) -> int:
    """Returns about how many minutes a run takes: deployment, measurements, CloudWatch's delay and removal."""
    messages, seconds = sizes.prefetch
    measured: float = messages * seconds / 2 + sum(ahead + 15 for _, ahead in sizes.delays) + 4 * sizes.early[1]
    longest: int = sum(min(2**n, sizes.failure[1]) for n in range(sizes.failure[0])) + sizes.failure[1]
    deployed = 12 * 60 if sizes.metrics else 2 * 60
    return ceil((deployed + measured + longest + 2 * sizes.quiet + sizes.metrics + 60) / 60)


def usage_ahead(sizes: Sizes) -> Usage:
    """Estimates a run's usage by its sizes, on AWS."""
    seconds = 60 * minutes_ahead(sizes)
    records = sizes.prefetch[0] + sum(2 * lanes for lanes, _ in sizes.delays) + 4 * sizes.early[0]
    records += 2 * sizes.chain + 2 * sizes.failure[0]
    tasks = sizes.paced[0] * sizes.paced[1] + 3
    waited = sizes.prefetch[0] * sizes.prefetch[1] + 4 * sizes.early[0] * sizes.early[1]
    cold = 4 * (sizes.cold + 1)
    return Usage(
        api_requests=30 + sizes.paced[0] * (1 + 2 * sizes.paced[1]),
        invocations=records + 2 * tasks + cold + 60,
        gb_seconds=_PROBE_GB * (waited + records * _SHORT_SECONDS) + (tasks + cold + 60) * 0.5,
        write_units=TASK_WRITES * tasks,
        read_units=10 * sizes.paced[0] * sizes.paced[1],
        sqs_requests=RECORD_SQS * records + TASK_SQS * tasks + _POLLERS * seconds / _POLL_SECONDS + seconds,
        log_gb=(records + tasks) * prices.LOG_BYTES / 1e9,
        **snapshots(sizes.cold),
        hours=ceil(seconds / 3600),
    )


def snapshots(cold: int) -> dict[str, float]:
    """Returns the amounts of SnapStart for the stage's functions and the copies, for the least time that is billed."""
    copies = sum(SIZES_MB) / 1024
    return {
        "snapshot_gb_seconds": (_STAGE_GB + copies) * _SNAPSHOT_SECONDS,
        "restored_gb": copies * (cold + 1) + 20 * _STAGE_GB,
    }
