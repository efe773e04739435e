"""What can go wrong, as one tree. Expected outcomes (a refusal, a deferral) are values, not errors.

PacelineError
├── SettingError            a setting of the deployment is wrong
├── LimitsError             a text is no list of limits
├── RequestError            a request that can't be served; one for each HTTP status in http.PROBLEMS
│   ├── MalformedError
│   ├── UnauthenticatedError
│   ├── ForbiddenError
│   ├── NotFoundError
│   ├── ConflictError
│   ├── TooLargeError
│   ├── MediaTypeError
│   └── InvalidError
├── DestinationError        an address that Paceline may not call
├── MessageError            a queue message that is no task of ours
│   └── NewerMessageError
└── UnavailableError        AWS did not do what was asked, and may later
"""


class PacelineError(Exception):
    """The root of all that Paceline raises on purpose."""


class SettingError(PacelineError):
    """A setting is wrong; the text names the variable and what is allowed."""

    def __init__(self, variable: str, reason: str) -> None:
        super().__init__(f"{variable}: {reason}")
        self.variable = variable


class LimitsError(PacelineError, ValueError):
    """A text is no list of limits; the text says which part and what is allowed."""


class RequestError(PacelineError):
    """A request that can't be served as it is.

    field: the JSON pointer or header that is wrong, None when it is the request as a whole.
    """

    def __init__(self, title: str, detail: str = "", field: str | None = None) -> None:
        super().__init__(detail or title)
        self.title = title
        self.detail = detail
        self.field = field


class MalformedError(RequestError):
    """400: what was sent can't be read, or lacks what every request needs."""


class UnauthenticatedError(RequestError):
    """401: nothing in the request shows who sends it. token_sent: whether it tried to."""

    def __init__(self, title: str, detail: str = "", token_sent: bool = True) -> None:
        super().__init__(title, detail, "Authorization")
        self.token_sent = token_sent


class ForbiddenError(RequestError):
    """403: who sends the request may not do this."""


class NotFoundError(RequestError):
    """404: there is no such thing."""


class ConflictError(RequestError):
    """409: the thing is in a state that does not allow this."""


class TooLargeError(RequestError):
    """413: more than the deployment takes."""


class MediaTypeError(RequestError):
    """415: the body is not JSON."""


class InvalidError(RequestError):
    """422: well formed, but a value is not allowed."""


class DestinationError(PacelineError):
    """An address may not be called, whoever asks for it; the text says why."""


class MessageError(PacelineError):
    """A queue message that is no task of ours; it can never run."""


class NewerMessageError(MessageError):
    """A message in a form that only a newer deployment knows: during a roll-out, some worker soon will."""


class UnavailableError(PacelineError):
    """AWS refused or did not answer; nothing was promised, trying later may work."""


class PayloadError(PacelineError):
    """A payload does not fit the task. pointer: where in it, as a JSON pointer."""

    def __init__(self, reason: str, pointer: str) -> None:
        super().__init__(reason)
        self.pointer = pointer


class RetryAfter(Exception):  # noqa: N818 - what it asks for, as in HTTP, rather than an error
    """Raised by a task that was told to slow down: its whole lane waits so long, and no attempt is used up.

    seconds: from now, 0 to 43,200. reason: shown in the lane.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(reason or f"told to wait {seconds} s")
        self.seconds = min(max(0.0, float(seconds)), 43_200.0)
        self.reason = reason


class PermanentError(Exception):
    """Raised by a task that can't succeed however often it is tried: it fails at once."""
