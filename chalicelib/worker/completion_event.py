"""The completion log's line for a finished task, as a JSON object. Pure."""

from typing import Any

from chalicelib.core.claim import Start
from chalicelib.core.limits import format_limits
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
    starts = start.lane.running.starts if start and start.lane.running else ()
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
        "late_ms": None if first is None or outcome.started_at is None else first - planned_at,
        "attempt": outcome.attempts,
        **_result_or_error(outcome),
        **_earlier_starts(starts, outcome),
        **_own_limits(start),
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


def _earlier_starts(starts: tuple[int, ...], outcome: Outcome) -> dict[str, Any]:
    """The starts of earlier attempts: they count against the limits too."""
    earlier = [at for at in starts if outcome.started_at is None or at < outcome.started_at]
    return {"starts": earlier} if earlier else {}


def _own_limits(start: Start | None) -> dict[str, Any]:
    return {"limits": format_limits(start.lane.limits)} if start and start.lane.limits else {}
