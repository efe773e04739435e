"""Task functions: how a plain function becomes a task, and what it is told. Pure.

A function's parameters are the names of its payload. Their types are checked at submit, by the same types by which the
function gets them, so a bad payload is refused at once rather than failing when its turn comes.
"""

import copy
import inspect
import logging
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from chalicelib.core.errors import PayloadError
from chalicelib.core.task import DEFAULT_TASK, Json

Function = TypeVar("Function", bound=Callable[..., Json])

#: The one parameter of a function that takes its payload whole, whatever JSON it is.
WHOLE = "payload"
#: The parameter by which a function asks to be told about its task.
CONTEXT = "context"
#: What a task may ask for in place of the deployment's settings; seconds.
MAX_ATTEMPTS, MAX_BACKOFF_SECONDS, MAX_DEADLINE_SECONDS = 100, 3_600, 900
_TASK_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Context(msgspec.Struct, frozen=True):
    """What a task function may know of its task. Times are epoch milliseconds."""

    user_id: str
    task_id: str
    #: the task's name
    name: str
    seq: int
    #: 1 for the first
    attempt: int
    #: when the worker stops waiting for the function
    deadline_at: int
    logger: logging.Logger


class TaskDefinition(msgspec.Struct, frozen=True):
    """A registered function and how it is to be run; None where the deployment's settings decide."""

    name: str
    function: Callable[..., Json]
    #: the type of the payload
    form: Any
    takes_whole: bool
    takes_context: bool
    max_attempts: int | None
    backoff_ms: int | None
    deadline_ms: int | None
    check: Callable[[Mapping[str, Any]], None] | None = None

    def arguments(self, payload: Json) -> Mapping[str, Any]:
        """The payload as the function's arguments. PayloadError when it does not fit."""
        try:
            value = msgspec.convert({} if payload is None and not self.takes_whole else payload, self.form)
        except msgspec.ValidationError as error:
            text, _, path = str(error).partition(" - at `")
            raise PayloadError(text, _pointer(path.rstrip("`").partition("$")[2])) from error
        arguments = {WHOLE: value} if self.takes_whole else msgspec.structs.asdict(value)
        if self.check:
            self.check(arguments)
        return arguments

    def run(self, payload: Json, context: Context) -> Json:
        """Calls the function; what it gives is its result. PayloadError when the payload does not fit.

        The function gets a copy, since what it makes of it is nobody else's.
        """
        arguments = self.arguments(copy.deepcopy(payload))
        return self.function(**arguments, **({CONTEXT: context} if self.takes_context else {}))


class Registry:
    """The deployment's tasks, by name."""

    def __init__(self, others: "Registry | None" = None) -> None:
        self._definitions: dict[str, TaskDefinition] = dict(others._definitions) if others else {}

    def task(
        self,
        name: str,
        *,
        attempts: int | None = None,
        backoff_seconds: float | None = None,
        deadline_seconds: float | None = None,
        check: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Callable[[Function], Function]:
        """Registers the function below as the task `name`.

        The function's parameters are the payload's names, with their types; a single parameter `payload` takes it
        whole, and `context` is a Context. What it returns, JSON, is the result; raising is a failed attempt. It may
        run again when its worker died, so it should be safe to repeat.

        attempts, backoff_seconds, deadline_seconds: the deployment's when None.
        check: what the types can't say; gets the arguments at submit and before each run, raises PayloadError.
        ValueError when the name is taken or is not 1 to 64 letters, digits, `.`, `_` and `-`, when an option makes no
        sense, and on a function that is asynchronous or whose parameters JSON can't give.
        """
        if not _TASK_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no task name: 1 to 64 letters, digits, '.', '_' and '-'")
        _check_options(name, attempts, backoff_seconds, deadline_seconds)

        def register(function: Function) -> Function:
            if name in self._definitions:
                raise ValueError(f"there is a task {name!r} already")
            form, takes_whole, takes_context = _form_of(name, function)
            self._definitions[name] = TaskDefinition(
                name,
                function,
                form,
                takes_whole,
                takes_context,
                attempts,
                None if backoff_seconds is None else round(backoff_seconds * 1000),
                None if deadline_seconds is None else round(deadline_seconds * 1000),
                check,
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


def _pointer(path: str) -> str:
    """msgspec's `.headers[3].name` as a JSON pointer; it names no key of a mapping (`[...]`), so neither does this."""
    return re.sub(r"\[(\d+)\]", r"/\1", path.replace("[...]", "")).replace(".", "/")


def _check_options(name: str, attempts: int | None, backoff: float | None, deadline: float | None) -> None:
    if attempts is not None and not 1 <= attempts <= MAX_ATTEMPTS:
        raise ValueError(f"the task {name!r} has {attempts} attempts; allowed: 1 to {MAX_ATTEMPTS}")
    if backoff is not None and not 0 <= backoff <= MAX_BACKOFF_SECONDS:
        raise ValueError(f"the task {name!r} has a backoff of {backoff} s; allowed: 0 to {MAX_BACKOFF_SECONDS}")
    if deadline is not None and not 1 <= deadline <= MAX_DEADLINE_SECONDS:
        raise ValueError(f"the task {name!r} has a deadline of {deadline} s; allowed: 1 to {MAX_DEADLINE_SECONDS}")


def _form_of(name: str, function: Callable[..., Json]) -> tuple[Any, bool, bool]:
    """The payload's type, whether the function takes it whole, and whether it takes a context."""
    if inspect.iscoroutinefunction(function):
        raise ValueError(f"the task {name!r} is asynchronous; make it a plain function")
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = dict(inspect.signature(function).parameters)
    takes_context = parameters.pop(CONTEXT, None) is not None
    if list(parameters) == [WHOLE]:
        return _usable(name, hints.get(WHOLE, Any)), True, takes_context
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"the task {name!r} has a parameter {parameter.name!r} that can't be named in JSON")
        form = hints.get(parameter.name, Any)
        is_required = parameter.default is parameter.empty
        fields.append((parameter.name, form) if is_required else (parameter.name, form, parameter.default))
    try:
        struct = msgspec.defstruct("Payload", fields, forbid_unknown_fields=True, kw_only=True)
    except TypeError as error:
        raise ValueError(f"the task {name!r} has parameters that JSON can't give: {error}") from error
    return _usable(name, struct), False, takes_context


def _usable(name: str, form: Any) -> Any:
    """The type, if payloads can be held against it: better known now than at the first submit."""
    try:
        msgspec.json.schema(form)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the task {name!r} has a type that JSON can't give: {error}") from error
    return form


#: The deployment's tasks: `@task("name")` above a function adds one.
registry = Registry()
task = registry.task


@task(DEFAULT_TASK)
def log_completion(payload: Json) -> None:
    """Does nothing of its own: that it completed is logged, as for every task."""
