"""HTTP in and out of the routes on shared limits."""

from collections.abc import Iterable

from chalice.app import Request, Response

from chalicelib.api.requests import ENVELOPE_BYTES, read_form
from chalicelib.api.responses import answer
from chalicelib.api.schema import LimitAnswer
from chalicelib.api.shared_headers import seconds
from chalicelib.api.shared_schema import (
    SharedLimitAnswer,
    SharedLimitListAnswer,
    SharedLimitsRequest,
    WaiterAnswer,
)
from chalicelib.core.errors import InvalidError, LimitsError, MalformedError
from chalicelib.core.lane import FOREVER_MS
from chalicelib.core.limits import Limit, Limits, format_limits, most_at_once, parse_shared_limits
from chalicelib.core.names import NAME_RULE, is_name
from chalicelib.core.shared_estimates import policy_name
from chalicelib.core.users import from_path
from chalicelib.lanes.shared import SharedUsage, SharedView


def path_name(segment: str) -> str:
    """The name of a shared limit that a path names. MalformedError if it can't be one."""
    name = from_path(segment)
    if not is_name(name):
        detail = f"{name[:64]!r} is not a name of a shared limit, which is {NAME_RULE}."
        raise MalformedError("Invalid name of a shared limit", detail, "name")
    return name


def read_shared_limits(request: Request) -> Limits:
    text = read_form(request, SharedLimitsRequest, ENVELOPE_BYTES).limits
    try:
        return parse_shared_limits(text)
    except LimitsError as error:
        raise InvalidError("Invalid limits", str(error), "/limits") from error


def shared_answer(view: SharedView) -> Response:
    return answer(_shared_answer(view))


def shared_list_answer(views: Iterable[SharedView], now_ms: int) -> Response:
    return answer(SharedLimitListAnswer([_shared_answer(view) for view in views], now_ms))


def _shared_answer(view: SharedView) -> SharedLimitAnswer:
    shared, limits, now_ms = view.state.shared, view.state.limits, view.now_ms
    is_paused, is_throttled = shared.is_paused(now_ms), shared.is_throttled(now_ms)
    is_endless = shared.paused_until == FOREVER_MS
    return SharedLimitAnswer(
        name=shared.name,
        limits=format_limits(limits),
        setting=None if view.setting is None else format_limits(view.setting),
        policies=[_policy(view, limit, usage) for limit, usage in view.usage],
        at_once=most_at_once(limits),
        running=len(shared.holders or {}),
        waiting=view.waiting,
        waiters=[WaiterAnswer(one.user_id, one.task_id, one.turn) for one in view.waiters],
        next_start_at=view.next_start_at,
        paused=is_paused,
        paused_until=shared.paused_until if is_paused and not is_endless else None,
        throttled_until=shared.throttled_until if is_throttled else None,
        throttled_reason=shared.throttled_reason if is_throttled else None,
        starts=list(view.starts),
        started=view.started,
        now=now_ms,
    )


def _policy(view: SharedView, limit: Limit, usage: SharedUsage) -> LimitAnswer:
    return LimitAnswer(
        name=policy_name(view.state.name, limit),
        quota=limit.quota,
        counts="units" if limit.counts_units else "starts",
        window_seconds=limit.window_seconds,
        used=usage.used,
        remaining=usage.left,
        reset_seconds=seconds(usage.resets_at - view.now_ms),
    )
