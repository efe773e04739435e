"""Answers out: what the use cases gave, as bodies and headers."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from chalice.app import Response

from chalicelib.api.problems import JSON, PROBLEM, Headers, problem
from chalicelib.api.schema import (
    BulkAnswer,
    CompletionAnswer,
    HealthAnswer,
    LaneAnswer,
    LanesAnswer,
    LimitAnswer,
    PlaceAnswer,
    TaskAnswer,
    TaskListAnswer,
    TotalsAnswer,
)
from chalicelib.core.lane import FOREVER_MS, opens_at
from chalicelib.core.limits import Limit, Limits, format_limits, used
from chalicelib.core.task import TaskRecord
from chalicelib.core.users import to_path
from chalicelib.lanes.control import LaneView, TaskView
from chalicelib.lanes.overview import LanePage
from chalicelib.settings import OverLimit
from chalicelib.submit.submitter import Place, Refused, Submitted, next_within_limits

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


def answer(body: Any, status: int = 200, headers: Headers | None = None) -> Response:
    return Response(msgspec.json.encode(body).decode(), JSON | (headers or {}), status)


def submit_answer(outcome: Submitted | Refused, over_limit: OverLimit) -> Response:
    """202 when the task may start now, else 429 with its place in line, or 202 with it where that was asked for."""
    if isinstance(outcome, Refused):
        return _refused(outcome)
    place = outcome.places[0]
    headers = _submit_headers(outcome)
    headers["Location"] = f"/api/v1/users/{to_path(place.task.user_id)}/tasks/{place.task.task_id}"
    return _submitted(outcome, _place_answer(place), over_limit, headers)


def bulk_answer(outcome: Submitted | Refused, over_limit: OverLimit) -> Response:
    """As for one task: 202 when all may start now."""
    if isinstance(outcome, Refused):
        return _refused(outcome)
    user_id = outcome.places[0].task.user_id
    body = BulkAnswer(user_id, outcome.queued, [_place_answer(place) for place in outcome.places])
    return _submitted(outcome, body, over_limit, _submit_headers(outcome))


def _place_answer(place: Place) -> PlaceAnswer:
    task = place.task
    return PlaceAnswer(
        task_id=task.task_id,
        user_id=task.user_id,
        seq=task.seq,
        position=place.position,
        planned_at=task.planned_at,
        delay_ms=place.delay_ms,
        queued=place.queued,
        state="queued",
    )


def _submitted(outcome: Submitted, body: PlaceAnswer | BulkAnswer, over_limit: OverLimit, headers: Headers) -> Response:
    last = outcome.last
    if last is None or not outcome.is_over_limit or over_limit is OverLimit.ACCEPT:
        return answer(body, 202, headers)
    many = isinstance(body, BulkAnswer)
    title = "Rate limit exceeded. Tasks have been queued." if many else "Rate limit exceeded. Task has been queued."
    detail = f"The last of them starts in about {last.delay_ms} ms." if many else _place_in_line(last)
    if outcome.is_pause_endless:
        detail = "The lane is paused: it goes on when it is resumed."
    elif outcome.is_paused:
        detail = f"The lane is paused for a time. {detail}"
    violated = _violated(outcome.limits, outcome.planned[1:], last.task.submitted_at)
    return _quota_problem(title, detail, violated, msgspec.to_builtins(body), headers)


def _place_in_line(place: Place) -> str:
    return f"It is number {place.position} in line and starts in about {place.delay_ms} ms."


def _submit_headers(outcome: Submitted) -> Headers:
    """`t` says when the policy lets the last task start, so that Retry-After is never before it."""
    last, now_ms = outcome.last, outcome.now_ms
    if last and outcome.is_over_limit:
        headers = rate_limit_headers(outcome.limits, outcome.planned, outcome.planned[1:], now_ms)
        # Nobody knows the end of a pause without one: it may be over by the next second.
        return headers | {"Retry-After": str(max(1, _seconds(last.delay_ms)))}
    ready_at = next_within_limits(outcome.limits, outcome.planned, now_ms)
    headers = rate_limit_headers(outcome.limits, outcome.planned, outcome.planned, now_ms)
    return headers | {"Retry-After": str(_seconds(ready_at - now_ms))}


def _refused(refused: Refused) -> Response:
    headers = rate_limit_headers(refused.limits, refused.planned, refused.planned, refused.now_ms)
    headers["Retry-After"] = str(_seconds(max(1, refused.retry_at - refused.now_ms)))
    violated = _violated(refused.limits, refused.planned, refused.now_ms)
    title = "Rate limit exceeded. Nothing has been queued."
    return _quota_problem(title, refused.reason, violated, {"user_id": refused.user_id, "queued": False}, headers)


def unsure_answer(refused: Refused) -> Response:
    """A repeat was refused, of a request whose first try may have queued its tasks: nobody knows."""
    detail = (
        f"This try was refused: {refused.reason} An earlier one was never answered and may have been queued. "
        "Repeat the request with the same key to learn its place."
    )
    seconds = _seconds(max(1, refused.retry_at - refused.now_ms))
    return problem(503, "Not known whether it is queued", detail, Retry_After=str(seconds))


def _quota_problem(title: str, detail: str, violated: list[str], body: dict[str, Any], headers: Headers) -> Response:
    problem = {"type": QUOTA_EXCEEDED, "title": title, "status": 429, "detail": detail, "violated-policies": violated}
    return answer(problem | body, 429, {**headers, "Content-Type": PROBLEM})


def rate_limit_headers(limits: Limits, planned: Sequence[int], before: Sequence[int], now_ms: int) -> Headers:
    """The RateLimit fields of draft-ietf-httpapi-ratelimit-headers-10.

    planned: newest first, what was just admitted among them; `r` is what that leaves.
    before: the planned starts that decide when there is more, for `t`.
    """
    policies = [f'"{limit.name}";q={limit.quota};w={limit.window_seconds}' for limit in limits]
    states = [
        f'"{limit.name}";r={limit.quota - used(planned, limit, now_ms)};t={_reset_seconds(limit, before, now_ms)}'
        for limit in limits
    ]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


def _reset_seconds(limit: Limit, planned: Sequence[int], now_ms: int) -> int:
    """Whole seconds until the policy has more to give, rounded up."""
    taken = used(planned, limit, now_ms)
    return _seconds(planned[taken - 1] + limit.window_ms - now_ms) if taken else 0


def _violated(limits: Limits, planned: Sequence[int], now_ms: int) -> list[str]:
    return [limit.name for limit in limits if used(planned, limit, now_ms) >= limit.quota]


def _seconds(milliseconds: int) -> int:
    return max(0, math.ceil(milliseconds / 1000))


def task_answer(view: TaskView) -> Response:
    return answer(_task_answer(view))


def tasks_answer(views: Iterable[TaskView], further: str | None) -> Response:
    return answer(TaskListAnswer([_task_answer(view) for view in views], further))


def _task_answer(view: TaskView) -> TaskAnswer:
    task, outcome = view.record.task, view.record.outcome
    return TaskAnswer(
        task_id=task.task_id,
        user_id=task.user_id,
        seq=task.seq,
        task=task.name,
        state=view.state.value,
        position=view.position,
        planned_at=task.planned_at,
        estimated_at=view.estimated_at,
        submitted_at=task.submitted_at,
        started_at=view.started_at,
        completed_at=outcome.completed_at if outcome else None,
        attempts=view.attempts,
        result=outcome.result if outcome else None,
        error=outcome.error if outcome else view.record.error,
        run_at=task.run_at,
        callback_url=task.callback_url,
    )


def lane_answer(view: LaneView) -> Response:
    return answer(_lane_answer(view))


def lanes_answer(page: LanePage) -> Response:
    lanes = [_lane_answer(view) for view in page.lanes]
    completions = [_completion_answer(one.record, one.late_ms) for one in page.completions]
    totals = msgspec.convert(page.totals, TotalsAnswer, from_attributes=True)
    return answer(LanesAnswer(lanes, totals, completions, page.next_cursor, page.now_ms))


def _completion_answer(record: TaskRecord, late_ms: int | None) -> CompletionAnswer:
    task, outcome = record.task, record.outcome
    assert outcome is not None
    return CompletionAnswer(
        user_id=task.user_id,
        task_id=task.task_id,
        seq=task.seq,
        task=task.name,
        state=outcome.state.value,
        started_at=outcome.started_at,
        completed_at=outcome.completed_at,
        late_ms=late_ms,
        error=outcome.error,
    )


def _lane_answer(view: LaneView) -> LaneAnswer:
    lane, now_ms = view.lane, view.now_ms
    is_paused, is_endless = lane.is_paused(now_ms), lane.paused_until == FOREVER_MS
    return LaneAnswer(
        user_id=lane.user_id,
        limits=format_limits(view.limits),
        own_limits=lane.limits is not None,
        policies=[_limit_answer(limit, lane.planned, now_ms) for limit in view.limits],
        backlog=lane.waiting,
        running=view.running,
        next_start_at=view.next_start_at,
        next_starts=list(view.next_starts),
        open_at=None if is_endless else next_within_limits(view.limits, lane.planned, opens_at(lane, now_ms)),
        paused=is_paused,
        paused_until=lane.paused_until if is_paused and not is_endless else None,
        throttled_until=lane.throttled_until if lane.throttled_until > now_ms else None,
        throttled_reason=lane.throttled_reason if lane.throttled_until > now_ms else None,
        starts=list(lane.starts),
        admitted=lane.admitted,
        started=lane.started,
        now=now_ms,
    )


def _limit_answer(limit: Limit, planned: Sequence[int], now_ms: int) -> LimitAnswer:
    remaining = limit.quota - used(planned, limit, now_ms)
    return LimitAnswer(limit.name, limit.quota, limit.window_seconds, remaining, _reset_seconds(limit, planned, now_ms))


def health_answer(services: Iterable[tuple[str, str | None]]) -> Response:
    """200 when all is well, else 503; each service by name with `ok` or what is wrong."""
    states = {name: wrong or "ok" for name, wrong in services}
    is_well = all(state == "ok" for state in states.values())
    return answer(HealthAnswer("ok" if is_well else "unavailable", **states), 200 if is_well else 503)
