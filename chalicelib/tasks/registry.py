"""Registers functions as tasks and checks payloads against their parameters. Pure.

Parameter names are the payload's fields. Their types are checked at submit with the types that the run uses, so an
invalid payload is rejected at once instead of failing later.
"""

import copy
import inspect
import logging
import re
import time
import typing
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from chalicelib.core.errors import PayloadError, UnitsError
from chalicelib.core.limits import MAX_QUOTA
from chalicelib.core.names import NAME_RULE, is_name
from chalicelib.core.task import DEFAULT_TASK, Json, printable, with_integers
from chalicelib.tasks.cancel_request import CancelRequest, LocalCancelRequest

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Json])

#: Name of the single parameter that receives the whole payload, whatever JSON it is.
PAYLOAD_PARAMETER = "payload"
#: Name of the parameter that receives the Context.
CONTEXT_PARAMETER = "context"
#: Upper bounds of a task's own options, in attempts and seconds.
MAX_ATTEMPTS, MAX_BACKOFF_SECONDS, MAX_DEADLINE_SECONDS = 100, 3_600, 11 * 3_600
#: Largest number of units that a function may report: far beyond any quota, so that a wrong report can be seen.
MAX_USED_UNITS = 1_000_000_000
#: Largest number of units of a task, the largest quota.
MAX_UNITS = MAX_QUOTA
#: Characters of a progress text that are stored.
MAX_PROGRESS_TEXT = 200
#: Milliseconds that a task's `units` function may take; it runs in the API, so a longer one is logged.
UNITS_WITHIN_MS = 50
#: How msgspec's errors end that name a parameter's pattern, which clients need not be able to read.
_REGULAR_EXPRESSION = re.compile(r"matching regex '.*'$", re.DOTALL)
_TASK_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def ignore_progress(_fraction: float, _text: str) -> None:
    """Passes a report on to nobody: for contexts without a worker."""


def checked_progress(fraction: object, text: object) -> tuple[float, str]:
    """Returns a report as it is stored. Raises ValueError."""
    is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    if not is_number or not 0 <= (rounded := round(fraction, 3)) <= 1:  # type: ignore[call-overload]
        raise ValueError(f"a progress of {fraction!r:.40}; allowed: a number from 0 to 1")
    if not isinstance(text, str):
        raise ValueError(f"a progress text of type {type(text).__name__}; allowed: a text")
    return float(rounded), printable(text[:MAX_PROGRESS_TEXT])


class Report(msgspec.Struct):
    """Holds the units that a running function reported, so that the runner can read them after it."""

    used_units: int | None = None


class Context(msgspec.Struct, frozen=True):
    """A running task's metadata, passed to its function. Times are epoch milliseconds."""

    user_id: str
    task_id: str
    #: name under which the task is registered
    name: str
    seq: int
    #: number of this attempt; the first is 1
    attempt: int
    #: time at which the worker gives up on the function
    deadline_at: int
    logger: logging.Logger
    #: by which calls to other services continue this task's trace (W3C Trace Context); empty for none
    traceparent: str = ""
    report: Report = msgspec.field(default_factory=Report)
    cancel_request: CancelRequest = msgspec.field(default_factory=LocalCancelRequest)
    #: passes on each report of the function's progress, a fraction and a text
    report_progress: Callable[[float, str], object] = ignore_progress

    @property
    def cancelled(self) -> bool:
        """True once a client has cancelled this task. Costs microseconds, so a loop can ask in each turn.

        To stop, raise any exception: the task then ends as cancelled. A function that returns all the same has
        succeeded. An `async` function gets an asyncio.CancelledError.
        """
        return self.cancel_request.is_made

    def progress(self, fraction: float, text: str = "") -> None:
        """Reports how far the task is, 0 to 1, for its view; from any thread of the function, as often as you like.

        The view has the newest report within about a second, and the last one in any case. Stored are thousandths, and
        the first MAX_PROGRESS_TEXT characters of the text. Raises ValueError for anything but a number from 0 to 1 and
        a text.
        """
        self.report_progress(*checked_progress(fraction, text))

    def used(self, units: int) -> None:
        """Reports the units that this attempt really used in all; the last call counts.

        When the attempt ends, also by an exception, units beyond the task's own count against the limits from then on,
        and units that were not used are given back. Without a report the task's own units stand. Raises ValueError
        unless units is a whole number from 0 to MAX_USED_UNITS.
        """
        if type(units) is not int or not 0 <= units <= MAX_USED_UNITS:
            raise ValueError(f"used units of {units!r:.40}; allowed: a whole number from 0 to {MAX_USED_UNITS}")
        self.report.used_units = units


class TaskDefinition(msgspec.Struct, frozen=True):
    """A registered function and its options; an option of None uses the deployment's setting."""

    name: str
    function: Callable[..., Json]
    #: type of the payload
    payload_type: Any
    takes_whole: bool
    takes_context: bool
    max_attempts: int | None
    backoff_ms: int | None
    deadline_ms: int | None
    check: Callable[[Mapping[str, Any]], None] | None = None
    #: part of Paceline: it can't crash or hang its process
    is_built_in: bool = False
    #: the task's units, or a function of its payload that returns them
    units: int | Callable[[Any], int] = 1
    #: the shared limit that it counts against, empty for none; or a function of its arguments that names it
    shared: str | Callable[[Mapping[str, Any]], str] = ""

    def arguments(self, payload: Json) -> Mapping[str, Any]:
        """Returns the payload as keyword arguments. Raises PayloadError if it does not match the function's types."""
        try:
            value = self._converted({} if payload is None and not self.takes_whole else payload)
        except msgspec.ValidationError as error:
            text, _, path = str(error).partition(" - at `")
            text = _REGULAR_EXPRESSION.sub("in the form that the task requires", text)
            raise PayloadError(text, _pointer(path.rstrip("`").partition("$")[2])) from error
        arguments = {PAYLOAD_PARAMETER: value} if self.takes_whole else msgspec.structs.asdict(value)
        if self.check:
            self.check(arguments)
        return arguments

    def units_of(self, arguments: Mapping[str, Any], seconds: Callable[[], float] = time.perf_counter) -> int:
        """Returns the units of a task with these arguments, which `arguments` returned.

        Raises UnitsError if the task's function `units` raises, or returns anything but an integer from 1 to MAX_UNITS.
        seconds: a clock.
        """
        if not callable(self.units):
            return self.units
        begun = seconds()
        try:
            # A copy, so that what the function does to it does not reach the task.
            units = self.units(copy.deepcopy(arguments[PAYLOAD_PARAMETER] if self.takes_whole else dict(arguments)))
        except BaseException as error:  # the API process outlives whatever a project's own code raises
            log.warning("the units of the task %s failed", self.name, exc_info=error)
            raise UnitsError(f"its function `units` raised {type(error).__name__}") from error
        if (took_ms := (seconds() - begun) * 1000) > UNITS_WITHIN_MS:
            log.warning("the units of the task %s took %.0f ms; allowed: %s", self.name, took_ms, UNITS_WITHIN_MS)
        if type(units) is not int or not 1 <= units <= MAX_UNITS:
            returned = str(units)[:40] if type(units) is int else type(units).__name__
            raise UnitsError(f"its function `units` returned {returned}; allowed: an integer from 1 to {MAX_UNITS}")
        return units

    def shared_of(self, arguments: Mapping[str, Any]) -> str:
        """The shared limit of a task with these arguments, which `arguments` returned; empty for none."""
        return self.shared(arguments) if callable(self.shared) else self.shared

    def _converted(self, payload: Json) -> Any:
        try:
            return msgspec.convert(payload, self.payload_type)
        except msgspec.ValidationError as error:
            # A function that takes an integer also takes 2.0; one that takes any JSON value gets what was sent.
            with suppress(msgspec.ValidationError):
                return msgspec.convert(with_integers(payload), self.payload_type)
            raise error

    def run(self, payload: Json, context: Context) -> Json:
        """Calls the function with a copy of the payload and returns its result.

        Raises PayloadError if the payload does not match the function's types.
        """
        arguments = self.arguments(copy.deepcopy(payload))
        result = self.function(**arguments, **({CONTEXT_PARAMETER: context} if self.takes_context else {}))
        return _awaited(result, context.cancel_request) if inspect.iscoroutine(result) else result


def _awaited(coroutine: Coroutine[Any, Any, Json], cancel_request: CancelRequest) -> Json:
    """Runs an asynchronous function to its end, in an event loop of its own; a cancel request cancels it once."""
    import asyncio  # noqa: PLC0415 - a cold start would pay for it

    async def cancellable() -> Json:
        loop, running = asyncio.get_running_loop(), asyncio.current_task()
        assert running is not None, "a coroutine runs in a task of its loop"
        with cancel_request.calling(lambda: loop.call_soon_threadsafe(running.cancel)):
            return await coroutine

    return asyncio.run(cancellable())


class Registry:
    """The registered tasks, by name."""

    def __init__(self, others: "Registry | None" = None) -> None:
        self._definitions: dict[str, TaskDefinition] = dict(others._definitions) if others else {}

    def task(
        self,
        name: str,
        *,
        attempts: int | None = None,
        backoff_seconds: float | None = None,
        deadline_seconds: float | None = None,
        units: int | Callable[[Any], int] = 1,
        shared: str | Callable[[Mapping[str, Any]], str] = "",
        check: Callable[[Mapping[str, Any]], None] | None = None,
        is_built_in: bool = False,
    ) -> Callable[[Function], Function]:
        """Registers the decorated function as the task `name`.

        The function's parameters and their types define the payload's fields. A single parameter `payload` takes the
        whole payload; a parameter `context` takes a Context. The return value, JSON, is the task's result; an exception
        fails the attempt. An `async` function runs in an event loop of its own. A function can run again if its
        worker died, so make it idempotent.

        attempts, backoff_seconds, deadline_seconds: None uses the deployment's setting.
        units: what a task counts for in limits of units if its submit does not say; a number or a function of the
        payload. That function gets the payload as the task's function does: whole, or a dict with the parameters' types
        and defaults. It runs in the API at each submit, so it must be quick.
        shared: the shared limit, one of SHARED_LIMITS, that its tasks count against. A function of the arguments is for
        Paceline's own tasks.
        check: validates what types cannot express; it gets the arguments at submit and before each run, and raises
        PayloadError. is_built_in: for Paceline's own tasks.
        Raises ValueError for a name that is taken or is not 1 to 64 letters, digits, `.`, `_` and `-`,
        for an option out of range, for a generator, and for parameters that JSON cannot supply.
        """
        if not _TASK_NAME.fullmatch(name):
            raise ValueError(f"invalid task name {name!r}; allowed: 1 to 64 letters, digits, '.', '_' and '-'")
        _check_options(name, attempts, backoff_seconds, deadline_seconds)
        _check_units(name, units)
        _check_shared(name, shared)

        def register(function: Function) -> Function:
            if name in self._definitions:
                raise ValueError(f"the task name {name!r} is taken by {_described(self._definitions[name].function)}")
            payload_type, takes_whole, takes_context = _payload_type(name, function)
            self._definitions[name] = TaskDefinition(
                name,
                function,
                payload_type,
                takes_whole,
                takes_context,
                attempts,
                None if backoff_seconds is None else round(backoff_seconds * 1000),
                None if deadline_seconds is None else round(deadline_seconds * 1000),
                check,
                is_built_in,
                units,
                shared,
            )
            return function

        return register

    def __contains__(self, name: str) -> bool:
        return name in self._definitions

    def get(self, name: str) -> TaskDefinition | None:
        return self._definitions.get(name)

    def __getitem__(self, name: str) -> TaskDefinition:
        return self._definitions[name]

    @property
    def names(self) -> list[str]:
        return sorted(self._definitions)

    def unknown_shared(self, known: Collection[str]) -> str | None:
        """Says which task counts against a shared limit that is not among the known ones; None if none does."""
        for name in self.names:
            shared = self._definitions[name].shared
            if isinstance(shared, str) and shared and shared not in known:
                allowed = ", ".join(known) or "none, it is empty"
                return f"it has no limit {shared!r}, which the task {name!r} counts against; allowed: {allowed}"
        return None

    def forget(self, names: Iterable[str]) -> None:
        """Removes the tasks with these names."""
        for name in names:
            del self._definitions[name]


def _described(function: Callable[..., Json]) -> str:
    """Returns where the function is defined, as `tasks.orders.charge`."""
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"


def _pointer(path: str) -> str:
    """Converts msgspec's path `.headers[3].name` to a JSON pointer; mapping keys (`[...]`) are left out of both."""
    return re.sub(r"\[(\d+)\]", r"/\1", path.replace("[...]", "")).replace(".", "/")


def _check_options(name: str, attempts: int | None, backoff: float | None, deadline: float | None) -> None:
    if attempts is not None and not 1 <= attempts <= MAX_ATTEMPTS:
        raise ValueError(f"the task {name!r} has {attempts} attempts; allowed: 1 to {MAX_ATTEMPTS}")
    if backoff is not None and not 0 <= backoff <= MAX_BACKOFF_SECONDS:
        raise ValueError(f"the task {name!r} has a backoff of {backoff} s; allowed: 0 to {MAX_BACKOFF_SECONDS}")
    if deadline is not None and not 1 <= deadline <= MAX_DEADLINE_SECONDS:
        raise ValueError(f"the task {name!r} has a deadline of {deadline} s; allowed: 1 to {MAX_DEADLINE_SECONDS}")


def _check_units(name: str, units: int | Callable[[Any], int]) -> None:
    if callable(units) and not inspect.iscoroutinefunction(units):
        return
    if type(units) is not int or not 1 <= units <= MAX_UNITS:
        raise ValueError(f"the task {name!r} has units of {units!r}; allowed: 1 to {MAX_UNITS}, or a plain function")


def _check_shared(name: str, shared: str | Callable[[Mapping[str, Any]], str]) -> None:
    if not callable(shared) and shared != "" and not is_name(shared):
        raise ValueError(f"the task {name!r} has a shared limit {shared!r:.80}; allowed: {NAME_RULE}")


def _payload_type(name: str, function: Callable[..., Json]) -> tuple[Any, bool, bool]:
    """Returns the payload's type, whether the function takes it whole, and whether it takes a context."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError(f"the task {name!r} is a generator; allowed: a function that returns its result")
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = dict(inspect.signature(function).parameters)
    takes_context = parameters.pop(CONTEXT_PARAMETER, None) is not None
    if list(parameters) == [PAYLOAD_PARAMETER]:
        return _checked_type(name, hints.get(PAYLOAD_PARAMETER, Any)), True, takes_context
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"the task {name!r} has a parameter {parameter.name!r} that JSON cannot name")
        payload_type = hints.get(parameter.name, Any)
        is_required = parameter.default is parameter.empty
        fields.append(
            (parameter.name, payload_type) if is_required else (parameter.name, payload_type, parameter.default)
        )
    try:
        struct = msgspec.defstruct("Payload", fields, forbid_unknown_fields=True, kw_only=True)
    except TypeError as error:
        raise ValueError(f"the task {name!r} has parameters that JSON cannot supply: {error}") from error
    return _checked_type(name, struct), False, takes_context


def _checked_type(name: str, payload_type: Any) -> Any:
    """Returns the type if msgspec can validate it. Raises ValueError at registration, before the first submit."""
    try:
        msgspec.json.schema(payload_type)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the task {name!r} has a type that JSON cannot supply: {error}") from error
    return payload_type


#: The deployment's tasks; `@task("name")` adds to it.
registry = Registry()
task = registry.task


@task(DEFAULT_TASK, is_built_in=True)
def log_completion(payload: Json) -> None:
    """Does nothing: the worker logs its completion, as for every task."""
