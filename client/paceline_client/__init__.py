"""A client for Paceline: submit tasks, wait for them, and look after their lanes."""

from paceline_client.client import Paceline
from paceline_client.errors import (
    AnswerError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    PacelineError,
    ProblemError,
    Refused,
    UnauthenticatedError,
    UnavailableError,
    WaitTimeoutError,
)
from paceline_client.sender import Clock
from paceline_client.shared_limits import SharedLimit, Waiter
from paceline_client.values import Health, Lane, Limit, State, SubmittedTask, Task, TaskOrder, WaitsFor
from paceline_client.version import __version__

__all__ = [
    "AnswerError",
    "Clock",
    "ConflictError",
    "ForbiddenError",
    "Health",
    "InvalidError",
    "Lane",
    "Limit",
    "NotFoundError",
    "Paceline",
    "PacelineError",
    "SubmittedTask",
    "ProblemError",
    "Refused",
    "SharedLimit",
    "State",
    "Task",
    "TaskOrder",
    "UnauthenticatedError",
    "UnavailableError",
    "WaitTimeoutError",
    "Waiter",
    "WaitsFor",
    "__version__",
]
