"""The tasks and starts that a test reads. Times are seconds since the MemoryPaceline was made."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SubmittedTask:
    """A submitted task, with its position in its lane at that time."""

    task_id: str
    user_id: str
    #: its number among all tasks of the user, from 1; 0 as long as it is scheduled
    seq: int
    #: 0 if it may start now or is scheduled; otherwise 1 + the tasks ahead of it
    position: int
    #: the earliest start that the limits allow, or the time at which it joins its lane
    planned_at: float
    #: it is over the limit or scheduled
    queued: bool


@dataclass(frozen=True)
class Start:
    """One start of a task: each attempt has one."""

    #: when it was
    at: float
    user_id: str
    task_id: str
    #: the name of its function
    task: str
    payload: Any
    #: the number of the attempt, from 1
    attempt: int


@dataclass(frozen=True)
class Task:
    """A task's state."""

    task_id: str
    user_id: str
    seq: int
    task: str
    #: queued, running, succeeded, failed, or cancelled
    state: str
    #: 0 if it may start now, is scheduled or has started; otherwise 1 + the tasks ahead of it
    position: int
    #: None until it starts
    started_at: float | None
    #: None until it ends
    completed_at: float | None
    attempts: int
    #: its function's result; None until it succeeded
    result: Any
    #: why it failed; None otherwise
    error: str | None
    #: fraction and text that its function reported last; None without a report
    progress: tuple[float, str] | None = None
