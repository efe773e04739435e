"""The completion log's line for a finished task, as a JSON object. Pure."""

from typing import Any

from chalicelib.core.claim import NO_SHARED_LIMITS, Start
from chalicelib.core.lane import Lease
from chalicelib.core.task import Outcome, Task, TaskState

METRICS_NAMESPACE = "Paceline"
_EVENTS = {
    TaskState.SUCCEEDED: "task_completed",
    TaskState.FAILED: "task_failed",
    TaskState.CANCELLED: "task_cancelled",
}
_METRIC_UNITS = {"run_ms": "Milliseconds", "late_ms": "Milliseconds"}


def completion_event(task: Task, outcome: Outcome, start: Start | None) -> dict[str, Any]:
    """The line without its metrics. start: the last claim; None if the task never started."""
    planned_at = start.planned_at if start else task.planned_at
    lease = start.lease if start else None
    starts = _taken_starts(lease, outcome)
    first = starts[0] if starts else outcome.started_at
    return {
        "timestamp": outcome.completed_at,
        "event": _EVENTS[outcome.state],
        "user_id": task.user_id,
        "task_id": task.task_id,
        "seq": task.seq,
        "task": task.name,
        "planned_at": planned_at,
        "started_at": outcome.started_at,
        "completed_at": outcome.completed_at,
        "late_ms": None if first is None or outcome.started_at is None else first - _allowed_at(planned_at, lease),
        "attempt": outcome.attempts,
        "units": task.units,
        "shared": task.shared or None,
        **_running_beside(start),
        **({"schedule": task.schedule} if task.schedule else {}),
        **_used(lease, outcome, len(starts)),
        **_result_or_error(outcome),
        **({"starts": list(starts[:-1])} if starts[:-1] else {}),
        **_own_limits(lease, len(starts)),
        **(_shared_limits(lease, len(starts)) if task.shared else {}),
    }


def with_metrics(event: dict[str, Any], stage: str) -> dict[str, Any]:
    """The line with metrics in CloudWatch's embedded metric format, by stage. Never by user: each would cost."""
    values = {event["event"]: 1}
    if event["started_at"] is not None and event["event"] != "task_cancelled":
        values |= {"run_ms": event["completed_at"] - event["started_at"]}
    names = [*values, "late_ms"] if event["late_ms"] is not None else list(values)
    directive = {
        "Namespace": METRICS_NAMESPACE,
        "Dimensions": [["stage"]],
        "Metrics": [{"Name": name, "Unit": _METRIC_UNITS.get(name, "Count")} for name in names],
    }
    aws = {"Timestamp": event["timestamp"], "CloudWatchMetrics": [directive]}
    return {**event, "stage": stage, **values, "_aws": aws}


def _result_or_error(outcome: Outcome) -> dict[str, Any]:
    if outcome.state is TaskState.SUCCEEDED:
        return {"result": outcome.result}
    return {"error": outcome.error} if outcome.error else {}


def _taken_starts(lease: Lease | None, outcome: Outcome) -> tuple[int, ...]:
    """The task's starts, the last attempt's last. A task that is given up has one more in its lease, never taken."""
    last = outcome.started_at
    return tuple(at for at in lease.starts if last is not None and at <= last) if lease else ()


def _running_beside(start: Start | None) -> dict[str, Any]:
    """How many other tasks of the user ran at the start, by their leases; nothing for one that runs alone."""
    return {"running": len(start.lane.in_use(start.at)) - 1} if start and start.slot else {}


def _used(lease: Lease | None, outcome: Outcome, count: int) -> dict[str, Any]:
    """The units that the last start used, and earlier ones that reported some, as far as they count."""
    reports = lease.reports[:count] if lease else ()
    earlier = [report and {"units": report[0], "at": report[1]} for report in reports[:-1]]
    used: dict[str, Any] = {"used_units": outcome.used_units}
    if outcome.used_units is None and reports and reports[-1]:  # its attempt ended before this outcome
        used = {"used_units": reports[-1][0], "used_at": reports[-1][1]}
    return {**used, "starts_used": earlier} if any(earlier) else used


def _allowed_at(planned_at: int, lease: Lease | None) -> int:
    """When the task could start at first, epoch ms: its user's limits and the shared limit allowed it."""
    return max(planned_at, lease.allowed_at) if lease else planned_at


def _shared_limits(lease: Lease | None, count: int) -> dict[str, Any]:
    """The limits of its shared limit at the last start, "" for none, where they are not those of the setting.

    Those at each earlier start too where one was made under others.
    """
    if lease is None or not any(lease.shared_limits[:count]):
        return {}
    texts = [None if not text else "" if text == NO_SHARED_LIMITS else text for text in lease.shared_limits[:count]]
    *earlier, last = texts
    own = {"shared_limits": last} if last is not None else {}
    return own if all(one == last for one in earlier) else {**own, "starts_shared_limits": earlier}


def _own_limits(lease: Lease | None, count: int) -> dict[str, Any]:
    """The own limits at the last start; those at each earlier start too where one was made under others."""
    if lease is None or not any(lease.start_limits[:count]):
        return {}
    *earlier, last = (text or None for text in lease.start_limits[:count])
    own = {"limits": last} if last else {}
    return own if all(one == last for one in earlier) else {**own, "starts_limits": earlier}
