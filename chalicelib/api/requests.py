"""Requests in: read, checked, turned into what the use cases take. An error names the field and what is allowed."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from chalice.app import Request

from chalicelib.api.schema import BulkRequest, LimitsRequest, PauseRequest, SubmitRequest, TaskOrder
from chalicelib.core.errors import (
    DestinationError,
    InvalidError,
    LimitsError,
    MalformedError,
    MediaTypeError,
    NotFoundError,
    PayloadError,
    TooLargeError,
)
from chalicelib.core.limits import Limits, parse_limits
from chalicelib.core.scheduled import MAX_AHEAD_MS
from chalicelib.core.task import TaskState
from chalicelib.core.users import from_path, is_user_id
from chalicelib.outbound.destinations import destination
from chalicelib.settings import OverLimit, Settings
from chalicelib.submit.submitter import MAX_TASKS, NewTask
from chalicelib.tasks.registry import Registry

#: What a body may hold beside its payloads.
ENVELOPE_BYTES = 8_192
#: Bytes of a bulk's body; API Gateway takes 10 MB and Lambda 6 MB.
BULK_BYTES = 4_000_000
#: Levels of arrays and objects in a payload.
MAX_LEVELS = 32
#: Tasks on one page of a list.
MAX_LISTED = 100
#: Names the body as a whole where it is what is wrong.
BODY = "body"
#: Lanes on one page of the overview.
MAX_LANES_LISTED = 100

Form = TypeVar("Form", SubmitRequest, BulkRequest, LimitsRequest, PauseRequest)
_TASK_ID = re.compile(r"[0-9a-f-]{1,64}")


def read_submit(
    request: Request, settings: Settings, registry: Registry, now_ms: int
) -> tuple[str | None, list[NewTask]]:
    """The user that the request names, None when it names none, and the one task."""
    form = _form(request, SubmitRequest, _body_bytes(settings))
    order = TaskOrder(form.task, form.payload, form.run_at, form.delay_seconds, form.callback_url)
    return _user_id(request, form.user_id), [_new_task(order, "", settings, registry, now_ms)]


def read_bulk(
    request: Request, settings: Settings, registry: Registry, now_ms: int
) -> tuple[str | None, list[NewTask]]:
    """The user that the request names, None when it names none, and the tasks in order."""
    most_bytes = min(BULK_BYTES, MAX_TASKS * _body_bytes(settings))
    form = _form(request, BulkRequest, most_bytes)
    tasks = [_new_task(order, f"/tasks/{n}", settings, registry, now_ms) for n, order in enumerate(form.tasks)]
    return _user_id(request, form.user_id), tasks


def read_limits(request: Request) -> Limits:
    text = _form(request, LimitsRequest, ENVELOPE_BYTES).limits
    try:
        return parse_limits(text)
    except LimitsError as error:
        raise InvalidError("These are no limits", str(error), "/limits") from error


def read_pause(request: Request, now_ms: int) -> int | None:
    """Until when, epoch ms; None for no end."""
    until = _form(request, PauseRequest, ENVELOPE_BYTES).until
    if until is not None and until <= now_ms:
        raise InvalidError("The pause is over already", f"`until` has to be later than now, {now_ms}.", "/until")
    return until


def read_listing(request: Request) -> tuple[TaskState | None, int, str | None]:
    """The state to list, None for all; how many at most; and the id before which the page begins."""
    query = dict(request.query_params or {})
    state, most, before = query.get("state"), query.get("limit", "50"), query.get("before")
    states = [one.value for one in TaskState]
    if state is not None and state not in states:
        raise InvalidError("No such state", f"{state[:64]!r} is none of {', '.join(states)}.", "state")
    if not re.fullmatch(r"[0-9]{1,3}", most) or not 1 <= int(most) <= MAX_LISTED:
        raise InvalidError("No such limit", f"{most[:64]!r} is not a number from 1 to {MAX_LISTED}.", "limit")
    if before is not None and not _TASK_ID.fullmatch(before):
        raise InvalidError("No such page", "`before` has to be what `next` of the page before said.", "before")
    return TaskState(state) if state else None, int(most), before


def read_lanes(request: Request) -> tuple[str, int, str, bool]:
    """The beginning of the user ids, the limit, the user id after which the page begins, and whether to rank lanes."""
    query = dict(request.query_params or {})
    search, limit = query.get("search", ""), query.get("limit", "25")
    after, order = query.get("before", ""), query.get("order", "user_id")
    if search and not is_user_id(search):
        raise InvalidError("No such search", "It has to be what a user id begins with.", "search")
    if order not in ("user_id", "active"):
        raise InvalidError("Invalid order", "`order` is `user_id` or `active`.", "order")
    if after and (order == "active" or not is_user_id(after)):
        raise InvalidError("Invalid cursor", "`before` is `next` of the previous page by user id.", "before")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= MAX_LANES_LISTED:
        raise InvalidError("Invalid limit", f"`limit` is a number from 1 to {MAX_LANES_LISTED}.", "limit")
    return search, int(limit), after, order == "active"


def path_user_id(user: str) -> str:
    """The user id that a path names; a path carries it percent-encoded."""
    return checked_user_id(from_path(user))


def path_task_id(task_id: str) -> str:
    """The task id that a path names; NotFoundError when there can be no such task."""
    if not _TASK_ID.fullmatch(task_id):
        raise NotFoundError("No such task", f"{task_id[:64]!r} is no task id.", "task_id")
    return task_id


def checked_user_id(user_id: Any) -> str:
    """The user id if it is one; MalformedError says what is allowed."""
    if not is_user_id(user_id):
        raise MalformedError(
            "Invalid user ID",
            "A user id is 1 to 128 characters: letters, digits and !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
            "/user_id",
        )
    return str(user_id)


def preferences(request: Request, default: OverLimit) -> OverLimit:
    """What to do over the limit, by the Prefer header (RFC 7240); what it does not say is the deployment's choice."""
    header = request.headers.get("prefer", "").lower()
    prefer = {part.split(";")[0].replace(" ", "").replace('"', "") for part in header.split(",")}
    if "handling=strict" in prefer:
        return OverLimit.REJECT
    return OverLimit.ACCEPT if "respond-async" in prefer else default


def read_idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key (draft-ietf-httpapi-idempotency-key-header), quoted or not; None when there is none."""
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
    """What a body with one payload may have: most write JSON with spaces, which count in no payload."""
    return 2 * settings.max_payload + ENVELOPE_BYTES


def _form(request: Request, form: type[Form], most_bytes: int) -> Form:
    body = _json_object(request, most_bytes)
    if body.get("user_id") in ("", None):  # as good as none
        body.pop("user_id", None)
    elif form in (SubmitRequest, BulkRequest):
        checked_user_id(body["user_id"])  # says more than the pattern would
    try:
        return msgspec.convert(body, form)
    except UnicodeEncodeError as error:
        raise InvalidError("The body is no text", "It has half of a surrogate pair.", BODY) from error
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        pointer = _pointer(path.rstrip("`"))
        if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL):
            allowed = (TaskOrder if pointer else form).__struct_fields__
            text, pointer = f"{text[:200]}; allowed: {', '.join(allowed)}", f"{pointer}/{unknown[1][:100]}"
        elif missing := re.fullmatch(r"Object missing required field `(.*)`", text, re.DOTALL):
            pointer = f"{pointer}/{missing[1]}"
        raise InvalidError("A field is wrong", text, pointer or BODY) from error


def _pointer(path: str) -> str:
    """`.tasks[3].task` as a JSON pointer."""
    return re.sub(r"\[(\d+)\]", r"/\1", path).replace(".", "/")


def _json_object(request: Request, most_bytes: int) -> dict[str, Any]:
    raw = request.raw_body or b""
    raw = raw.encode() if isinstance(raw, str) else raw
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
        raise MalformedError("The body is no JSON", str(error)[:300] or "it is nested too deep", BODY) from error
    if not isinstance(body, dict):
        raise MalformedError("The body is no JSON object", 'It has to be an object such as {"user_id": "ann"}.', BODY)
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:30]} is too large a number")
    return number


def _user_id(request: Request, named: Any) -> str | None:
    """The user that body and query name, None when neither does."""
    query = str(dict(request.query_params or {}).get("userId") or "") or None
    body = None if named is msgspec.UNSET else str(named)
    if query is not None:
        checked_user_id(query)
    if body is not None and query is not None and body != query:
        raise MalformedError("Two user IDs", "`user_id` in the body and `userId` in the query differ.", "/user_id")
    return body or query


def _new_task(order: TaskOrder, place: str, settings: Settings, registry: Registry, now_ms: int) -> NewTask:
    if order.task not in registry:
        known = ", ".join(registry.names)
        raise InvalidError("No such task", f"There is no task {order.task!r}; there are: {known}.", f"{place}/task")
    if _is_deeper(order.payload, MAX_LEVELS):
        raise InvalidError("The payload is nested too deep", f"{MAX_LEVELS} levels are allowed.", f"{place}/payload")
    try:
        size = len(msgspec.json.encode(order.payload))
    except UnicodeEncodeError as error:
        raise InvalidError("The payload is no text", "It has half of a surrogate pair.", f"{place}/payload") from error
    if size > settings.max_payload:
        raise TooLargeError(
            "The payload is too large",
            f"The payload has {size} bytes as compact JSON; at most {settings.max_payload} are allowed.",
            f"{place}/payload",
        )
    try:
        registry[order.task].arguments(order.payload)
    except PayloadError as error:
        title = f"The payload does not fit the task {order.task!r}"
        raise InvalidError(title, str(error), f"{place}/payload{error.pointer}") from error
    _check_time(order, place, now_ms)
    _check_callback(order, place, settings)
    delay_ms = None if order.delay_seconds is None else round(order.delay_seconds * 1000)
    return NewTask(order.task, order.payload, order.run_at, delay_ms, order.callback_url)


def _check_time(order: TaskOrder, place: str, now_ms: int) -> None:
    if order.run_at is not None and order.delay_seconds is not None:
        detail = "Give `run_at` or `delay_seconds`, not both."
        raise InvalidError("Two times for one task", detail, f"{place}/delay_seconds")
    if order.run_at is not None and order.run_at > now_ms + MAX_AHEAD_MS:
        detail = f"`run_at` may be at most 13 days ahead: {now_ms + MAX_AHEAD_MS} now."
        raise InvalidError("Too far ahead", detail, f"{place}/run_at")


def _check_callback(order: TaskOrder, place: str, settings: Settings) -> None:
    if order.callback_url is None:
        return
    try:
        destination(order.callback_url, settings.http_allowed_hosts)
    except DestinationError as error:
        raise InvalidError("No such callback", str(error), f"{place}/callback_url") from error


def _is_deeper(value: Any, levels: int) -> bool:
    inner: Sequence[Any] = ()
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list):
        inner = value
    else:
        return False
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)


def required_user(user_id: str | None) -> str:
    """The user that was named; MalformedError when none was."""
    if user_id is None:
        raise MalformedError("User ID is required", "Name the user as `user_id` in the JSON body.", "/user_id")
    return user_id
