"""The tree of exceptions. Expected outcomes (a refusal, a deferral) are values, not exceptions.

PacelineError
├── SettingError            invalid setting of the deployment
│   └── OwnTasksError       own tasks that can't be loaded
├── LimitsError             invalid list of limits
├── RequestError            invalid or refused request; one subclass per HTTP status in problems.PROBLEMS
│   ├── MalformedError
│   ├── UnauthenticatedError
│   ├── ForbiddenError
│   ├── NotFoundError
│   ├── ConflictError
│   ├── TooLargeError
│   ├── MediaTypeError
│   └── InvalidError
├── DestinationError        URL that Paceline may not call
├── MessageError            malformed queue message
│   └── NewerMessageError
├── PayloadError            payload that does not match its task
├── UnitsError              units that can't be computed from a payload
└── UnavailableError        AWS failed; a retry may succeed
"""


class PacelineError(Exception):
    """Base of all exceptions that Paceline raises deliberately."""


class SettingError(PacelineError):
    """A setting is invalid; the text names the variable and the allowed values."""

    def __init__(self, variable: str, reason: str) -> None:
        super().__init__(f"{variable}: {reason}")
        self.variable = variable


class OwnTasksError(SettingError):
    """The tasks of TASKS_DIR can't be loaded; the text is one line, with the file, the reason and the remedy."""

    def __init__(self, reason: str) -> None:
        super().__init__("TASKS_DIR", reason)


class LimitsError(PacelineError, ValueError):
    """A list of limits is invalid; the text names the part and the allowed values."""


class RequestError(PacelineError):
    """A request cannot be served.

    field: JSON pointer or header at fault; None for the request as a whole.
    """

    def __init__(self, title: str, detail: str = "", field: str | None = None) -> None:
        super().__init__(detail or title)
        self.title = title
        self.detail = detail
        self.field = field


class MalformedError(RequestError):
    """400: the request is malformed or lacks a field that every request needs."""


class UnauthenticatedError(RequestError):
    """401: the caller is unknown. token_sent: whether the request carries a token."""

    def __init__(self, title: str, detail: str = "", token_sent: bool = True) -> None:
        super().__init__(title, detail, "Authorization")
        self.token_sent = token_sent


class ForbiddenError(RequestError):
    """403: the caller lacks the right."""


class NotFoundError(RequestError):
    """404: the resource does not exist."""


class ConflictError(RequestError):
    """409: the resource's state does not allow the request."""


class TooLargeError(RequestError):
    """413: the request exceeds a size limit of the deployment."""


class MediaTypeError(RequestError):
    """415: the body is not JSON."""


class InvalidError(RequestError):
    """422: well formed, but a value is invalid."""


class DestinationError(PacelineError):
    """A URL may not be called; the text names the reason."""


class MessageError(PacelineError):
    """A queue message is malformed, so it can never run."""


class NewerMessageError(MessageError):
    """A message has a form that only a newer deployment can read; during a roll-out a newer worker will."""


class UnavailableError(PacelineError):
    """AWS refused or did not answer; nothing was promised, and a retry may succeed."""


class PayloadError(PacelineError):
    """A payload does not match the task. pointer: JSON pointer to the fault."""

    def __init__(self, reason: str, pointer: str) -> None:
        super().__init__(reason)
        self.pointer = pointer


class UnitsError(PacelineError):
    """The units of a task can't be computed from its payload; the text names the reason."""


class RetryAfter(Exception):  # noqa: N818 - a request to wait, named after the HTTP header, rather than an error
    """A task's function raises it when an API throttles it: the lane waits, and the attempt is given back.

    seconds: 0 to 43,200, from now. reason: shown in the view of the lane or the shared limit.
    shared: every task that counts against the same shared limit waits, whoever's it is; only the lane if the task has
    no shared limit.
    """

    def __init__(self, seconds: float, reason: str = "", *, shared: bool = False) -> None:
        super().__init__(reason or f"throttled for {seconds} s")
        self.seconds = min(max(0.0, float(seconds)), 43_200.0)
        self.reason = reason
        self.shared = shared


class PermanentError(Exception):
    """A task's function raises it when a retry cannot help: the task fails at once."""
