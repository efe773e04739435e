"""Submits a small task again and again and reports how late each outcome came.

So an alarm notices a stall in which nothing fails. The task takes the way of every task, except for the HTTP API.
"""

from collections.abc import Callable
from typing import Any

from chalicelib.core.errors import UnavailableError
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import Clock, CompletionLog, TaskStore
from chalicelib.core.task import TaskRecord
from chalicelib.lanes.control import Control
from chalicelib.settings import OverLimit
from chalicelib.submit.submission import Refused, Submission, TaskRequest
from chalicelib.submit.submitter import Submitter
from chalicelib.worker.completion_event import METRICS_NAMESPACE

#: The user of the canary's tasks.
CANARY_USER = "paceline-canary"
#: Its own limits: under the deployment's a task each minute might have to wait.
CANARY_LIMITS = parse_limits("1/second")
CANARY_METRIC = "canary_late_ms"


class Canary:
    def __init__(
        self,
        tasks: TaskStore,
        control: Control,
        submitter: Submitter,
        log: CompletionLog,
        clock: Clock,
        new_id: Callable[[], str],
        stage: str,
    ) -> None:
        self._tasks = tasks
        self._control = control
        self._submitter = submitter
        self._log = log
        self._clock = clock
        self._new_id = new_id
        self._stage = stage

    def tick(self) -> None:
        """Submits the next task once the last one has finished, and logs how late the last one's outcome came.

        Only one task is unfinished at a time: its age grows for as long as a stall lasts, and after the stall no
        backlog delays the next. UnavailableError if it could not be submitted; nothing is logged then.
        """
        newest, _ = self._tasks.newest(CANARY_USER, None, 1, None)
        if not newest:
            self._control.set_limits(CANARY_USER, CANARY_LIMITS)
        if not newest or newest[0].outcome:
            self._submit()
        if newest:
            self._log.write(_event(newest[0], self._clock.now_ms(), self._stage))

    def _submit(self) -> None:
        submission = Submission(CANARY_USER, (TaskRequest(),), self._clock.now_ms(), OverLimit.QUEUE)
        answer = self._submitter.submit(submission, [self._new_id()])
        if isinstance(answer, Refused):
            raise UnavailableError(f"the canary's task was refused: {answer.reason}")


def _event(record: TaskRecord, now_ms: int, stage: str) -> dict[str, Any]:
    """A log line with the metric. A task without an outcome is as late as it is old."""
    task, outcome = record.task, record.outcome
    late_ms = (outcome.completed_at if outcome else now_ms) - task.planned_at
    metrics = [{"Name": CANARY_METRIC, "Unit": "Milliseconds"}]
    directive = {"Namespace": METRICS_NAMESPACE, "Dimensions": [["stage"]], "Metrics": metrics}
    return {
        "timestamp": now_ms,
        "event": "canary",
        "task_id": task.task_id,
        "state": record.state.value,
        "stage": stage,
        CANARY_METRIC: late_ms,
        "_aws": {"Timestamp": now_ms, "CloudWatchMetrics": [directive]},
    }
