"""The port that runs a task's function, and the runner that calls it in this process, as on Lambda.

Whatever leaves a function, exit and interrupt included, becomes a value here: the outcome of that one attempt.
"""

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.core.errors import PayloadError, PermanentError, RetryAfter
from chalicelib.core.task import Json, describe, printable
from chalicelib.tasks.registry import Context, TaskDefinition

#: Bytes of a result as JSON; with the largest payload it stays below the 400 KB of a DynamoDB item.
MAX_RESULT_BYTES = 131_072


class Returned(Struct, frozen=True):
    """The function returned this value, which can be stored as JSON."""

    value: Json
    #: what the function reported by `context.used`; None if it did not
    used_units: int | None = None


class Failed(Struct, frozen=True):
    """The attempt failed."""

    error: str
    #: a retry cannot succeed
    is_permanent: bool = False
    #: as in Returned
    used_units: int | None = None


class Throttled(Struct, frozen=True):
    """The function raised RetryAfter."""

    #: from now
    seconds: float
    reason: str
    #: the exception in one line
    error: str
    #: as in Returned
    used_units: int | None = None
    #: all tasks of the task's shared limit are to wait
    is_shared: bool = False


Ended = Returned | Failed | Throttled


class Call(Struct, frozen=True):
    """One call of a task's function."""

    definition: TaskDefinition
    payload: Json
    context: Context
    #: names the claim, by which the machine's other workers learn that the function still runs
    token: str
    #: milliseconds that the function may take
    deadline_ms: int


class Room(Protocol):
    """The room for one run: this process, or a child process that is reserved for it."""

    @property
    def ends_overdue(self) -> bool:
        """True if `run` returns at the deadline; otherwise the caller has to end the process."""
        ...

    def run(self, call: Call) -> Ended:
        """Calls the function; never raises."""
        ...


class TaskRunner(Protocol):
    def room(self, definition: TaskDefinition, deadline_ms: int) -> AbstractContextManager[Room | None]:
        """Reserves the room for a run before its start is claimed; None if there is none at the moment."""
        ...


class InProcess:
    """Runs functions in the calling thread, which always has room. Implements Room and TaskRunner."""

    ends_overdue = False

    def room(self, _definition: TaskDefinition, _deadline_ms: int) -> AbstractContextManager[Room | None]:
        return nullcontext(self)

    def run(self, call: Call) -> Ended:
        return run_function(call.definition, call.payload, call.context)


def run_function(definition: TaskDefinition, payload: Json, context: Context) -> Ended:
    """Calls the function and checks its result; whatever it raises is its attempt's failure."""
    ended = _ended(definition, payload, context)
    return ended if context.report.used_units is None else replace(ended, used_units=context.report.used_units)


def _ended(definition: TaskDefinition, payload: Json, context: Context) -> Ended:
    try:
        return _checked(definition.run(payload, context))
    except BaseException as error:  # one that passed would block the lane
        is_expected = isinstance(error, RetryAfter | PermanentError | PayloadError) or context.cancelled
        if not definition.is_built_in and not is_expected:
            context.logger.warning("attempt %s of %s failed", context.attempt, context.task_id, exc_info=error)
        return _ended_by(error)


def overdue(deadline_ms: int, is_cancelled: bool = False) -> str:
    """Returns the error of a task that passed its deadline. is_cancelled: it was asked to stop before."""
    error = f"it did not end within {deadline_ms / 1000:g} s"
    return f"{error}, although it was asked to stop" if is_cancelled else error


def _ended_by(error: BaseException) -> Throttled | Failed:
    try:
        if isinstance(error, RetryAfter):
            reason, is_shared = printable(str(error.reason or "")[:200]), bool(error.shared)
            return Throttled(error.seconds, reason, describe(error), is_shared=is_shared)
        return Failed(describe(error), is_permanent=isinstance(error, PayloadError | PermanentError))
    except BaseException:  # noqa: BLE001 - the exception's own methods are the task's code too
        return Failed(f"{type(error).__name__}, whose text can't be read")


def _checked(result: Json) -> Returned | Failed:
    """Returns the result if it can be stored, else the failure."""
    try:
        size = len(json.dumps(result, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, TypeError, RecursionError) as error:
        return Failed(f"the result is not JSON: {describe(error)}", is_permanent=True)
    if size > MAX_RESULT_BYTES:
        return Failed(f"the result has {size} bytes as JSON; allowed: at most {MAX_RESULT_BYTES}", is_permanent=True)
    return Returned(result)
