"""The errors of a call, as one tree. A task that waits or failed is a value, not an error.

PacelineError
├── ProblemError            Paceline answered, and said no
│   ├── InvalidError            400, 413, 415, 422: the request is wrong; `field` names where
│   ├── UnauthenticatedError    401
│   ├── ForbiddenError          403
│   ├── NotFoundError           404
│   ├── ConflictError           409: the task's state does not allow it
│   └── Refused                 429, and nothing was queued
├── UnavailableError        no connection, or no answer in the time that the call had
├── AnswerError             an answer that is none of Paceline's
└── WaitTimeoutError        the task has not ended in the time that `wait` had
"""

from __future__ import annotations

from paceline_client.values import SubmittedTask, Task


class PacelineError(Exception):
    """Base of this package's errors. Invalid arguments raise ValueError instead."""

    #: The failed submit's key, with which it can be repeated safely; None for other calls.
    idempotency_key: str | None = None
    #: From `submit_many`: the tasks that were submitted before the error.
    accepted: tuple[SubmittedTask, ...] = ()


class ProblemError(PacelineError):
    """Paceline refused the request. A repeat helps only if `retry_after` is given."""

    def __init__(
        self, status: int, title: str, detail: str = "", field: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{status} {title}" + (f" ({field})" if field else "") + (f": {detail}" if detail else ""))
        #: the HTTP status
        self.status = status
        self.title = title
        #: the fault, and the allowed values
        self.detail = detail
        #: the JSON pointer, header or parameter at fault; None for the request as a whole
        self.field = field
        #: seconds after which to retry; None if the answer has no Retry-After
        self.retry_after = retry_after


class InvalidError(ProblemError):
    """The request is wrong."""


class UnauthenticatedError(ProblemError):
    """The token is missing, invalid or expired."""


class ForbiddenError(ProblemError):
    """The token does not allow this."""


class NotFoundError(ProblemError):
    """The task or user does not exist."""


class ConflictError(ProblemError):
    """The task is in a state that does not allow this."""


class Refused(ProblemError):  # noqa: N818 - the word that Paceline has for it
    """The limit was reached and nothing was queued; `retry_after` tells when to submit again."""


class UnavailableError(PacelineError):
    """No answer in the time that the call had, all tries included.

    Whether a submit was taken is not known if it `was_sent`: submit the same again with the error's `idempotency_key`.
    """

    def __init__(self, reason: str, tries: int, status: int | None = None, was_sent: bool = True) -> None:
        super().__init__(f"{reason}; gave up after {tries} {'try' if tries == 1 else 'tries'}")
        self.tries = tries
        #: the last answer's HTTP status; None when there was none
        self.status = status
        #: False if the server can't have read the request: then nothing was submitted
        self.was_sent = was_sent


class AnswerError(PacelineError):
    """The answer is not Paceline's, or of another version."""


class WaitTimeoutError(PacelineError, TimeoutError):
    """The task did not finish within the timeout. It stays queued or running."""

    def __init__(self, task: Task | None, reason: str = "") -> None:
        known = f"task {task.task_id} is {task.state}" if task else "nothing is known of the task"
        super().__init__(f"{known}; {reason}" if reason else known)
        #: the task as polled last; None if no poll succeeded
        self.task = task
