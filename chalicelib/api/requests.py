"""Reads HTTP requests, checks them and turns them into the use cases' arguments.

An error names the field and the allowed values.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from chalice.app import Request
from msgspec import UNSET, Struct, UnsetType

from chalicelib.api.headers import preferred, values
from chalicelib.api.schema import (
    BulkRequest,
    GroupRequest,
    LimitsRequest,
    PauseRequest,
    RedriveRequest,
    ScheduleRequest,
    SubmitRequest,
    UserRedriveRequest,
)
from chalicelib.auth.caller import ADMIN_SCOPE, Caller
from chalicelib.core.errors import (
    DestinationError,
    ForbiddenError,
    InvalidError,
    LimitsError,
    MalformedError,
    MediaTypeError,
    NotFoundError,
    PayloadError,
    TooLargeError,
    UnitsError,
)
from chalicelib.core.limits import Limits, parse_limits
from chalicelib.core.names import NAME_RULE, is_name
from chalicelib.core.schedule import Order
from chalicelib.core.scheduled import MAX_AHEAD_MS
from chalicelib.core.task import TaskState, as_integer
from chalicelib.core.ticks import UTC_NAME, Timing, TimingError, check_timing
from chalicelib.core.users import from_path, is_user_id
from chalicelib.outbound.destinations import destination
from chalicelib.settings import Settings
from chalicelib.submit.submission import MAX_TASKS, Submission, TaskRequest
from chalicelib.tasks.registry import Registry, TaskDefinition

#: Bytes that a body may have beside its payloads.
ENVELOPE_BYTES = 8_192
#: Bytes of a bulk's body; API Gateway takes 10 MB and Lambda 6 MB.
BULK_BYTES = 4_000_000
#: Levels of arrays and objects in a payload.
MAX_LEVELS = 32
#: Tasks on one page of a list.
MAX_LISTED = 100
#: The field of an error about the body as a whole.
BODY = "body"
#: Lanes on one page of the overview.
MAX_LANES_LISTED = 100

#: Schedules on one page of a list.
MAX_SCHEDULES_LISTED = 100

Form = TypeVar("Form", bound=Struct)
_TASK_ID = re.compile(r"[0-9a-f-]{1,64}")


def read_submit(
    request: Request, caller: Caller, settings: Settings, registry: Registry, now_ms: int, traceparent: str = ""
) -> Submission:
    """A submit of one task, checked; the caller may act for its user."""
    form = read_form(request, SubmitRequest, _body_bytes(settings))
    user_id = _user_to_act_for(request, form.user_id, caller)
    checked = [_check_task(form, "", settings, registry, now_ms, caller)]
    return _submission(request, user_id, (form,), checked, settings, now_ms, traceparent, is_bulk=False)


def read_bulk(
    request: Request, caller: Caller, settings: Settings, registry: Registry, now_ms: int, traceparent: str = ""
) -> Submission:
    """A submit of several tasks, checked; the caller may act for their user."""
    form = read_form(request, BulkRequest, min(BULK_BYTES, MAX_TASKS * _body_bytes(settings)))
    user_id = _user_to_act_for(request, form.user_id, caller)
    checked = [
        _check_task(task, f"/tasks/{n}", settings, registry, now_ms, caller) for n, task in enumerate(form.tasks)
    ]
    return _submission(request, user_id, form.tasks, checked, settings, now_ms, traceparent, is_bulk=True)


def _submission(
    request: Request,
    user_id: str,
    tasks: Sequence[TaskRequest],
    checked: Sequence[tuple[int, str]],
    settings: Settings,
    now_ms: int,
    traceparent: str,
    is_bulk: bool,
) -> Submission:
    choice = preferred(request)
    return Submission(
        user_id,
        tasks,
        now_ms,
        over_limit=choice or settings.over_limit,
        is_preferred=choice is not None,
        key=read_idempotency_key(request),
        is_bulk=is_bulk,
        base_path=_base_path(request),
        units=[units for units, _ in checked],
        shared=[shared for _, shared in checked],
        traceparent=traceparent,
    )


def _base_path(request: Request) -> str:
    """The path before this route's in the address that the client asked: behind API Gateway, the stage."""
    asked, path = str(request.context.get("path", "")), str(request.path)
    return asked.removesuffix(path) if asked.endswith(path) else ""


def read_limits(request: Request) -> Limits:
    text = read_form(request, LimitsRequest, ENVELOPE_BYTES).limits
    try:
        return parse_limits(text)
    except LimitsError as error:
        raise InvalidError("Invalid limits", str(error), "/limits") from error


def read_group(request: Request) -> str:
    """The user's group; "" for none."""
    return read_form(request, GroupRequest, ENVELOPE_BYTES).group or ""


def read_pause(request: Request, now_ms: int) -> int | None:
    """The end of the pause, epoch ms; None for a pause without an end."""
    until = read_form(request, PauseRequest, ENVELOPE_BYTES).until
    if until is not None and until <= now_ms:
        raise InvalidError("The pause is over already", f"`until` has to be later than now, {now_ms}.", "/until")
    return until


def read_schedule(
    request: Request, caller: Caller, settings: Settings, registry: Registry, now_ms: int
) -> tuple[Order, Timing, bool]:
    """The task that the schedule submits, its timing, and whether it is paused."""
    form = read_form(request, ScheduleRequest, _body_bytes(settings))
    task = TaskRequest(form.task, form.payload, callback_url=form.callback_url, units=form.units, shared=form.shared)
    counted_units, counted_shared = _check_task(task, "", settings, registry, now_ms, caller)
    timing = Timing(form.cron, form.timezone or (UTC_NAME if form.cron else None), form.every_seconds)
    try:
        check_timing(timing, now_ms)
    except TimingError as error:
        raise InvalidError("Invalid schedule", str(error), f"/{error.field}") from error
    order = Order(form.task, form.payload, form.units, form.callback_url, counted_units, form.shared, counted_shared)
    return order, timing, form.paused


def read_schedules(request: Request) -> tuple[str, int]:
    """The name after which the page begins, empty for the first; and the most schedules on it."""
    query = _query(request)
    after, limit = query.get("before", ""), query.get("limit", "50")
    if after and not is_name(after):
        raise InvalidError("Invalid cursor", "`before` has to be the value of `next` in the previous page.", "before")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= MAX_SCHEDULES_LISTED:
        raise InvalidError("Invalid limit", f"`limit` is a number from 1 to {MAX_SCHEDULES_LISTED}.", "limit")
    return after, int(limit)


def path_schedule_name(name: str) -> str:
    """The name that a path gives; a path carries it percent-encoded."""
    decoded = from_path(name)
    if not is_name(decoded):
        detail = f"{decoded[:64]!r} is not a name of a schedule, which is {NAME_RULE}."
        raise InvalidError("Invalid schedule name", detail, "name")
    return decoded


def read_wish(request: Request, settings: Settings, now_ms: int) -> Submission:
    """The preferences of a request that submits tasks again, as a submission without user and tasks."""
    return _submission(request, "", (), (), settings, now_ms, "", is_bulk=False)


def read_redrive(request: Request) -> tuple[int, str | None]:
    """From when on failed tasks are submitted again, epoch ms, and the cursor after which to go on."""
    form = read_form(request, RedriveRequest, ENVELOPE_BYTES)
    return form.since, form.before


def read_user_redrive(request: Request) -> tuple[int, str | None]:
    """As `read_redrive`; 0 for all of the user's failed tasks."""
    form = read_form(request, UserRedriveRequest, ENVELOPE_BYTES)
    return form.since or 0, form.before


def check_emptying(request: Request) -> None:
    """InvalidError unless the request says which tasks it cancels."""
    if _query(request).get("state") != TaskState.QUEUED.value:
        raise InvalidError("Invalid state", "Only `state=queued` can be cancelled as a whole.", "state")


def read_failed(request: Request) -> tuple[int, str | None]:
    """The most failed tasks on the page, and the cursor before which it begins."""
    state, most, before = read_listing(request)
    if state is not TaskState.FAILED:
        raise InvalidError("Invalid state", "Over all users, only `state=failed` is listed.", "state")
    return most, before


def read_listing(request: Request) -> tuple[TaskState | None, int, str | None]:
    """The state to list, None for all; the most tasks on the page; and the id before which it begins."""
    query = _query(request)
    state, most, before = query.get("state"), query.get("limit", "50"), query.get("before")
    states = [one.value for one in TaskState]
    if state is not None and state not in states:
        raise InvalidError("Invalid state", f"{state[:64]!r} is none of {', '.join(states)}.", "state")
    if not re.fullmatch(r"[0-9]{1,3}", most) or not 1 <= int(most) <= MAX_LISTED:
        raise InvalidError("Invalid limit", f"{most[:64]!r} is not a number from 1 to {MAX_LISTED}.", "limit")
    if before is not None and not _TASK_ID.fullmatch(before):
        raise InvalidError("Invalid cursor", "`before` has to be the value of `next` in the previous page.", "before")
    return TaskState(state) if state else None, int(most), before


def read_lanes(request: Request) -> tuple[str, int, str, bool]:
    """The beginning of the user ids, the limit, the user id after which the page begins, and whether to rank lanes."""
    query = _query(request)
    search, limit = query.get("search", ""), query.get("limit", "25")
    after, order = query.get("before", ""), query.get("order", "user_id")
    if search and not is_user_id(search):
        raise InvalidError(
            "Invalid search", "`search` has to be the beginning of a user id: visible ASCII characters.", "search"
        )
    if order not in ("user_id", "active"):
        raise InvalidError("Invalid order", "`order` is `user_id` or `active`.", "order")
    if after and (order == "active" or not is_user_id(after)):
        raise InvalidError("Invalid cursor", "`before` is `next` of the previous page by user id.", "before")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= MAX_LANES_LISTED:
        raise InvalidError("Invalid limit", f"`limit` is a number from 1 to {MAX_LANES_LISTED}.", "limit")
    return search, int(limit), after, order == "active"


def _query(request: Request) -> dict[str, str]:
    """The parameters of the query. MalformedError if one is given twice, also with the same value."""
    given = request.query_params
    for name in given or ():
        if given and len(given.getlist(name)) > 1:
            raise MalformedError("A parameter is given twice", "Give each parameter of the query once.", name[:100])
    return dict(given or {})


def path_user_id(user: str) -> str:
    """The user id that a path names; a path carries it percent-encoded."""
    return checked_user_id(from_path(user))


def path_task_id(task_id: str) -> str:
    """The task id that a path names; NotFoundError if it can't be a task id."""
    if not _TASK_ID.fullmatch(task_id):
        raise NotFoundError("No such task", f"{task_id[:64]!r} is not a task id.", "task_id")
    return task_id


def checked_user_id(user_id: Any) -> str:
    """The value, if it is a user id; MalformedError names the allowed characters."""
    if not is_user_id(user_id):
        raise MalformedError(
            "Invalid user ID",
            "A user id is 1 to 128 characters: letters, digits and !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
            "/user_id",
        )
    return str(user_id)


def read_idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key (draft-ietf-httpapi-idempotency-key-header), quoted or not; None without the header."""
    header = request.headers.get("idempotency-key")
    if header is None:
        return None
    key = str(header).strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = re.sub(r"\\(.)", r"\1", key[1:-1])
    if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise MalformedError("Invalid Idempotency-Key", "A key is 1 to 255 printable characters.", "Idempotency-Key")
    return key


def _body_bytes(settings: Settings) -> int:
    """Most bytes of a body with one payload: spaces between JSON tokens count in the body, not in the payload."""
    return 2 * settings.max_payload + ENVELOPE_BYTES


def read_form(request: Request, form: type[Form], most_bytes: int) -> Form:
    """The JSON body as this form, an empty one if there is none. InvalidError names the field at fault."""
    body = _json_object(request, most_bytes)
    if body.get("user_id") in ("", None):  # the same as an absent one
        body.pop("user_id", None)
    elif form in (SubmitRequest, BulkRequest):
        checked_user_id(body["user_id"])  # its message is clearer than the pattern's
    try:
        return msgspec.convert(_with_integers(body), form)
    except UnicodeEncodeError as error:
        raise InvalidError("The body is not valid text", "It has half of a surrogate pair.", BODY) from error
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        pointer = _pointer(path.rstrip("`"))
        if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL):
            allowed = (TaskRequest if pointer else form).__struct_fields__
            text, pointer = f"{text[:200]}; allowed: {', '.join(allowed)}", f"{pointer}/{unknown[1][:100]}"
        elif missing := re.fullmatch(r"Object missing required field `(.*)`", text, re.DOTALL):
            pointer = f"{pointer}/{missing[1]}"
        raise InvalidError("A field is wrong", text, pointer or BODY) from error


def _with_integers(body: dict[str, Any]) -> dict[str, Any]:
    """Converts whole floats such as 2.0 in the body to integers; leaves each payload as the client sent it."""
    read = {name: value if name == "payload" else as_integer(value) for name, value in body.items()}
    if isinstance(tasks := body.get("tasks"), list):
        read["tasks"] = [_with_integers(task) if isinstance(task, dict) else task for task in tasks]
    return read


def _pointer(path: str) -> str:
    """`.tasks[3].task` as a JSON pointer."""
    return re.sub(r"\[(\d+)\]", r"/\1", path).replace(".", "/")


def _json_object(request: Request, most_bytes: int) -> dict[str, Any]:
    raw = request.raw_body or b""
    raw = raw.encode() if isinstance(raw, str) else raw
    if not raw:
        return {}
    _check_coding(request)
    if len(raw) > most_bytes:
        raise TooLargeError(
            "The body is too large", f"It has {len(raw)} bytes; at most {most_bytes} are allowed.", BODY
        )
    if not raw.strip():
        return {}
    media_type = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if media_type != "application/json":
        detail = f"{media_type[:100]!r} is not read; send application/json."
        raise MediaTypeError("The body has to be JSON", detail, "Content-Type")
    try:
        body = json.loads(
            raw.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise MalformedError("The body is not JSON", str(error)[:300] or "it is nested too deep", BODY) from error
    if not isinstance(body, dict):
        raise MalformedError(
            "The body is not a JSON object", 'It has to be an object such as {"user_id": "ann"}.', BODY
        )
    return body


def _check_coding(request: Request) -> None:
    """Raises MediaTypeError for a compressed body: a few bytes could expand to gigabytes."""
    codings = [coding.strip() for coding in ",".join(values(request, "content-encoding")).split(",")]
    for coding in codings:
        if coding.lower() not in ("", "identity"):
            detail = f"The Content-Encoding {coding[:100]!r} is not read; send the body without one."
            raise MediaTypeError("The body is encoded", detail, "Content-Encoding")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has the same name twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:30]} is too large a number")
    return number


def _user_to_act_for(request: Request, named: str | UnsetType, caller: Caller) -> str:
    """The user that the body or the query names, else the caller. ForbiddenError if the caller may not act for it."""
    user_id = _named_user(request, named) or caller.user_id
    if user_id is None:
        raise MalformedError("User ID is required", "Name the user as `user_id` in the JSON body.", "/user_id")
    caller.require_may_act_for(checked_user_id(user_id))
    return user_id


def _named_user(request: Request, named: str | UnsetType) -> str | None:
    query = _query(request).get("userId") or None
    body = None if named is UNSET else str(named)
    if query is not None:
        checked_user_id(query)
    if body is not None and query is not None and body != query:
        raise MalformedError("Two user IDs", "`user_id` in the body and `userId` in the query differ.", "/user_id")
    return body or query


def _check_task(
    task: TaskRequest, pointer: str, settings: Settings, registry: Registry, now_ms: int, caller: Caller
) -> tuple[int, str]:
    """Checks that the deployment has the task and accepts its values; returns its units and its shared limit.

    pointer: JSON pointer of the task.
    """
    if task.task not in registry:
        known = ", ".join(registry.names)
        raise InvalidError(
            "Unknown task", f"This deployment has no task {task.task!r}; it has: {known}.", f"{pointer}/task"
        )
    if _is_deeper(task.payload, MAX_LEVELS):
        raise InvalidError("The payload is nested too deep", f"{MAX_LEVELS} levels are allowed.", f"{pointer}/payload")
    try:
        size = len(msgspec.json.encode(task.payload))
    except UnicodeEncodeError as error:
        raise InvalidError(
            "The payload is not valid text", "It has half of a surrogate pair.", f"{pointer}/payload"
        ) from error
    if size > settings.max_payload:
        raise TooLargeError(
            "The payload is too large",
            f"The payload has {size} bytes as compact JSON; at most {settings.max_payload} are allowed.",
            f"{pointer}/payload",
        )
    _check_time(task, pointer, now_ms)
    _check_callback(task, pointer, settings)
    return _counted(task, pointer, registry[task.task], caller)


def _counted(task: TaskRequest, pointer: str, definition: TaskDefinition, caller: Caller) -> tuple[int, str]:
    """Checks the payload against the definition; returns what limits count.

    These are the units and the shared limit of the request, else those of the definition.
    """
    try:
        arguments = definition.arguments(task.payload)
        shared = _shared(task, pointer, definition.shared_of(arguments), caller)
        return task.units or definition.units_of(arguments), shared
    except PayloadError as error:
        title = f"The payload does not fit the task {task.task!r}"
        raise InvalidError(title, str(error), f"{pointer}/payload{error.pointer}") from error
    except UnitsError as error:
        title = f"The units of the task {task.task!r} can't be computed"
        detail = f"The task {task.task!r} has no units for this payload: {error}."
        raise InvalidError(title, detail, f"{pointer}/payload") from error


def _shared(task: TaskRequest, pointer: str, defined: str, caller: Caller) -> str:
    """The task's shared limit, empty for none. ForbiddenError if only an admin may name the requested one.

    defined: that of the definition. That the requested one exists is checked where its state is read.
    """
    if task.shared is None or (task.shared and task.shared == defined):
        return defined
    if not is_name(task.shared):
        detail = f"{task.shared!r} is not a name of a shared limit, which is {NAME_RULE}."
        raise InvalidError("Invalid shared limit", detail, f"{pointer}/shared")
    if not caller.is_admin:
        counts = f"counts against {defined!r}" if defined else "counts against none"
        detail = f"The task {task.task!r} {counts}; another shared limit requires the scope `{ADMIN_SCOPE}`."
        raise ForbiddenError("This shared limit is not allowed", detail, f"{pointer}/shared")
    return task.shared


def _check_time(task: TaskRequest, pointer: str, now_ms: int) -> None:
    if task.run_at is not None and task.delay_seconds is not None:
        detail = "Give `run_at` or `delay_seconds`, not both."
        raise InvalidError("Two times for one task", detail, f"{pointer}/delay_seconds")
    if task.run_at is not None and task.run_at > now_ms + MAX_AHEAD_MS:
        detail = f"`run_at` may be at most 13 days ahead: {now_ms + MAX_AHEAD_MS} now."
        raise InvalidError("Too far ahead", detail, f"{pointer}/run_at")


def _check_callback(task: TaskRequest, pointer: str, settings: Settings) -> None:
    if task.callback_url is None:
        return
    try:
        destination(task.callback_url, settings.http_allowed_hosts)
    except DestinationError as error:
        raise InvalidError("Invalid callback URL", str(error), f"{pointer}/callback_url") from error


def _is_deeper(value: Any, levels: int) -> bool:
    inner: Sequence[Any] = ()
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list):
        inner = value
    else:
        return False
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)
