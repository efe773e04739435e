"""A client for Paceline: submit tasks, wait for them, and look after their lanes."""

from paceline_client.async_client import AsyncClock, AsyncPaceline, AsyncToken
from paceline_client.client import Clock, Paceline, Token
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
from paceline_client.values import (
    Health,
    Lane,
    Limit,
    Progress,
    SharedLimit,
    State,
    SubmittedTask,
    Task,
    TaskOrder,
    Waiter,
    WaitsFor,
)
from paceline_client.version import __version__

__all__ = [
    "AnswerError",
    "AsyncClock",
    "AsyncPaceline",
    "AsyncToken",
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
    "Progress",
    "SubmittedTask",
    "ProblemError",
    "Refused",
    "SharedLimit",
    "State",
    "Task",
    "TaskOrder",
    "Token",
    "UnauthenticatedError",
    "UnavailableError",
    "WaitTimeoutError",
    "Waiter",
    "WaitsFor",
    "__version__",
]
