"""Values of requests and answers. Times are epoch milliseconds, as in the API.

The fields of answers are those of models.py. Fields that a newer server adds are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from paceline_client import models
from paceline_client.models import AttemptAnswer as Attempt
from paceline_client.models import LimitAnswer as Limit
from paceline_client.models import ProgressAnswer as Progress
from paceline_client.models import State
from paceline_client.models import WaiterAnswer as Waiter
from paceline_client.models import WaitsForAnswer as WaitsFor

__all__ = [
    "Attempt",
    "Emptied",
    "Health",
    "Lane",
    "Limit",
    "Progress",
    "Redriven",
    "Schedule",
    "SharedLimit",
    "State",
    "SubmittedTask",
    "Task",
    "TaskOrder",
    "Waiter",
    "WaitsFor",
]

#: The states that a task never leaves.
FINAL_STATES: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class TaskOrder:
    """One task to be run."""

    #: any JSON value; the task's function gets it
    payload: Any = None
    #: one of the deployment's tasks
    task: str = "log"
    #: when it is to join its lane, epoch milliseconds or a datetime with a time zone; at once with neither this
    run_at: int | datetime | None = None
    #: nor this, seconds from now
    delay_seconds: float | None = None
    #: gets a signed POST when it has ended
    callback_url: str | None = None
    #: what it counts for in limits of units; None for what its definition says, else 1
    units: int | None = None
    #: the shared limit that it counts against; None for what its definition says. Another one needs an admin
    shared: str | None = None


@dataclass(frozen=True)
class Emptied:
    """The tasks that an emptying of a lane cancelled."""

    #: those that waited
    cancelled: int
    #: scheduled ones, counted up to 1,000; one that was cancelled by itself is counted until its time
    cancelled_scheduled: int


class SubmittedTask(models.SubmittedTask):
    """A submitted task, with its position in its lane at that time."""

    @property
    def is_scheduled(self) -> bool:
        """True before its `run_at`: it has not joined its lane."""
        return self.seq == 0


class Task(models.TaskAnswer):
    """A task's state at the time of the answer."""

    @property
    def has_ended(self) -> bool:
        return self.state in FINAL_STATES or self.completed_at is not None

    @property
    def is_scheduled(self) -> bool:
        """True before its `run_at`: it has not joined its lane."""
        return self.seq == 0 and not self.has_ended


class Schedule(models.ScheduleAnswer):
    """A schedule of a user: a task is submitted at each tick."""


@dataclass(frozen=True)
class Redriven:
    """A failed task, and the task as which it is submitted again."""

    user_id: str
    #: of the failed task
    task_id: str
    #: of the new one; None if it was not submitted
    redriven_as: str | None = None
    #: it was submitted by an earlier request; None if it was not submitted
    repeated: bool | None = None
    #: why it was not submitted; None if it was
    reason: str | None = None


class Lane(models.LaneAnswer):
    """A user's lane."""


class SharedLimit(models.SharedLimitAnswer):
    """A limit that tasks of many users count against."""


class Health(models.HealthAnswer):
    """The state of Paceline's services: `ok`, or the error."""

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"
