"""Turns errors into one line and an exit code for scripts. Prints nothing."""

from __future__ import annotations

from urllib.parse import urlsplit

from paceline_client import (
    AnswerError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    PacelineError,
    Refused,
    UnauthenticatedError,
    UnavailableError,
)

FAILED, USAGE, NOT_REACHABLE, REFUSED = 1, 2, 3, 4

_CODES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int], ...] = (
    ((UnavailableError, AnswerError), NOT_REACHABLE),
    ((Refused, ConflictError, ForbiddenError, UnauthenticatedError), REFUSED),
    (InvalidError, USAGE),
)


class NotReachableError(Exception):
    """The API did not answer, or answered something that is not HTTP."""

    def __init__(self, url: str, reason: str) -> None:
        is_local = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
        super().__init__(f"Paceline does not answer at {url}: {'start it with make run' if is_local else reason}")


def exit_code(error: Exception) -> int:
    """Returns the exit code documented for this error; 1 for all others."""
    if isinstance(error, NotReachableError):
        return NOT_REACHABLE
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), FAILED)


def line(error: Exception) -> str:
    """Formats the error as one line, with a remedy if one is known."""
    return " ".join([*str(error).split(), *_remedy(error)])


def _remedy(error: Exception) -> list[str]:
    if isinstance(error, Refused) and error.retry_after is not None:
        return [f"(there is room in {error.retry_after:g} s)"]
    if isinstance(error, UnauthenticatedError):
        return ["(give a token with --token or PACELINE_TOKEN)"]
    if isinstance(error, UnavailableError) and error.idempotency_key:
        return [f"(it may have been taken: the same again with --key {error.idempotency_key} is safe)"]
    if isinstance(error, PacelineError) and error.accepted:
        return [f"({len(error.accepted)} were taken before; go on with --key {error.idempotency_key})"]
    return []
