"""Writes HTTP responses: turns the use cases' results into statuses, headers and bodies."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from chalice.app import Response
from msgspec import structs

from chalicelib.api.headers import preference_applied
from chalicelib.api.problems import JSON, PROBLEM, Headers, problem
from chalicelib.api.schema import (
    AttemptAnswer,
    BulkAnswer,
    CompletionAnswer,
    EmptiedAnswer,
    ForgottenAnswer,
    HealthAnswer,
    LaneAnswer,
    LanesAnswer,
    LimitAnswer,
    ProgressAnswer,
    RedriveAnswer,
    RedrivenTask,
    ScheduleAnswer,
    ScheduleListAnswer,
    StayingTask,
    TaskAnswer,
    TaskListAnswer,
    TaskNamesAnswer,
    TotalsAnswer,
    WaitsForAnswer,
)
from chalicelib.api.shared_headers import (
    policy_item,
    seconds,
    shared_policies,
    shared_ready_at,
    state_item,
    stop_of_uses,
    violated_by,
    waits_for,
)
from chalicelib.core.estimates import open_at, started_units, usage
from chalicelib.core.lane import FOREVER_MS, Lane
from chalicelib.core.lane_changes import start_ahead
from chalicelib.core.limits import Limit, Limits, at_once, format_limits
from chalicelib.core.schedule import Schedule
from chalicelib.core.task import Progress, TaskRecord, TaskState
from chalicelib.core.users import to_path
from chalicelib.core.views import LaneView, TaskView, view_of_task
from chalicelib.lanes.clearance import Emptied, Forgotten
from chalicelib.lanes.overview import LanePage
from chalicelib.settings import OverLimit
from chalicelib.submit.idempotency import Answer
from chalicelib.submit.redriver import Redriven, RedrivePage, Stays
from chalicelib.submit.submission import (
    Refused,
    SharedUse,
    Submission,
    Submitted,
    SubmittedTask,
    stop_of,
    task_ahead,
)

#: Bytes of a payload, as JSON, that a task's view shows, and that a list shows of each task.
MAX_SHOWN_PAYLOAD = 16_384
MAX_LISTED_PAYLOAD = 1_024
OVER_LIMIT_TITLE = "Rate limit exceeded."
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


def answer(body: Any, status: int = 200, headers: Headers | None = None) -> Response:
    return Response(msgspec.json.encode(body).decode(), JSON | (headers or {}), status)


def submit_response(answer: Answer) -> Response:
    replayed: Headers = {"Idempotency-Replayed": "true"} if answer.is_replay else {}
    stored = answer.body
    return Response(stored["body"], {**stored["headers"], **replayed}, stored["status"])


def submit_answer(submission: Submission, outcome: Submitted | Refused) -> dict[str, Any]:
    """The answer's status, headers and body, as they are stored for repeats.

    202 when all tasks may start now or waiting was asked for, 429 when one waits or nothing was queued, 503 when it is
    not known whether something was queued.
    """
    response = _refused(submission, outcome) if isinstance(outcome, Refused) else _submitted(submission, outcome)
    headers = {**response.headers, **_applied(submission, response.status_code)}
    return {"status": response.status_code, "headers": headers, "body": response.body}


def _applied(submission: Submission, status: int) -> Headers:
    """A 202 applies `respond-async`, and a 202 or 429 `handling=strict`; scheduled tasks ignore both."""
    is_scheduled = all(task.due_at(submission.now_ms) for task in submission.tasks)
    is_applied = status == 202 if submission.over_limit is OverLimit.ACCEPT else status in (202, 429)
    if not submission.is_preferred or is_scheduled or not is_applied:
        return {}
    return {**preference_applied(submission.over_limit)}


def _submitted(submission: Submission, outcome: Submitted) -> Response:
    body: SubmittedTask | BulkAnswer = outcome.tasks[0]
    headers = _submit_headers(outcome)
    if submission.is_bulk:
        body = BulkAnswer(submission.user_id, outcome.queued, outcome.tasks)
    else:
        task_id = outcome.tasks[0].task_id
        headers["Location"] = f"{submission.base_path}/api/v1/users/{to_path(submission.user_id)}/tasks/{task_id}"
    if not outcome.is_over_limit or submission.over_limit is OverLimit.ACCEPT:
        return answer(body, 202, headers)
    return _queued_over_limit(submission.is_bulk, outcome, msgspec.to_builtins(body), headers)


def _queued_over_limit(is_bulk: bool, outcome: Submitted, body: dict[str, Any], headers: Headers) -> Response:
    last = outcome.last_admitted
    assert last is not None, "a scheduled task is not over the limit"
    reason = stop_of(outcome.lane, outcome.now_ms) or stop_of_uses(outcome.shared, outcome.now_ms) or OVER_LIMIT_TITLE
    title = f"{reason} {'Tasks have' if is_bulk else 'Task has'} been queued."
    violated = _violated(outcome.limits, outcome.lane, outcome.now_ms)
    violated += violated_by(outcome.shared, outcome.now_ms)
    return _quota_problem(title, _waiting_detail(is_bulk, outcome, last), violated, body, headers)


def _waiting_detail(is_bulk: bool, outcome: Submitted, last: SubmittedTask) -> str:
    ahead = task_ahead(outcome.lane, outcome.limits, outcome.now_ms)
    is_least = ahead or last.lower_bound is True
    start = f"starts in {'at least' if is_least else 'about'} {last.delay_ms} ms."
    detail = f"The last of them {start}" if is_bulk else f"It is number {last.position} in line and {start}"
    if outcome.is_pause_endless:
        return "The lane is paused: it goes on when it is resumed."
    if outcome.is_paused:
        return f"The lane is paused for a time. {detail}"
    if ahead and at_once(outcome.limits) == 1:
        ahead += ", and a lane runs one task at a time"
    return f"{ahead}. {detail}" if ahead else f"{waits_for(outcome.shared, outcome.now_ms)}{detail}"


def _submit_headers(outcome: Submitted) -> Headers:
    """`t` counts to the time at which the policy lets the last task start, so Retry-After is never before it."""
    last, limits, lane, now_ms = outcome.last_admitted, outcome.limits, outcome.lane, outcome.now_ms
    if last and outcome.is_over_limit:
        headers = rate_limit_headers(limits, lane, now_ms, last.planned_at, outcome.shared)
        starts_at = max(now_ms + last.delay_ms, last.estimated_at or 0)
        # At least 1: the end of a pause without one is unknown, and may come within the next second.
        return headers | {"Retry-After": str(max(1, seconds(starts_at - now_ms)))}
    ready_at = max(open_at(lane, limits, now_ms), outcome.ready_at, shared_ready_at(outcome.shared, now_ms))
    headers = rate_limit_headers(limits, lane, now_ms, shared=outcome.shared)
    return headers | {"Retry-After": str(seconds(ready_at - now_ms))}


def _refused(submission: Submission, refused: Refused) -> Response:
    retry_after = str(seconds(max(1, refused.retry_at - refused.now_ms)))
    if refused.is_unsure:
        detail = (
            f"This try was refused: {refused.reason} An earlier one got no answer and may have been queued. "
            "Repeat the request with the same key to get its answer."
        )
        return problem(503, "Not known whether it is queued", detail, Retry_After=retry_after)
    if refused.too_large is not None:
        return problem(422, "Too many units", refused.reason, _units_pointer(submission, refused.too_large))
    if refused.unknown_shared is not None:
        field = f"/tasks/{refused.unknown_shared}/shared" if submission.is_bulk else "/shared"
        return problem(422, "Unknown shared limit", f"{refused.reason}; GET /api/v1/limits lists them.", field)
    headers = rate_limit_headers(refused.limits, refused.lane, refused.now_ms, shared=refused.shared)
    headers["Retry-After"] = retry_after
    starts, units = refused.starts, refused.units
    violated = _violated(refused.limits, refused.lane, refused.now_ms, starts, units) if starts else []
    violated += violated_by(refused.shared, refused.now_ms)
    stop = stop_of(refused.lane, refused.now_ms) if refused.is_planned_late else ""
    stop = stop or stop_of_uses(refused.shared, refused.now_ms)
    title = f"{stop or OVER_LIMIT_TITLE} Nothing has been queued."
    return _quota_problem(title, refused.reason, violated, {"user_id": refused.user_id, "queued": False}, headers)


def _units_pointer(submission: Submission, index: int) -> str:
    """JSON pointer to the field that a task's units come from."""
    field = "payload" if submission.tasks[index].units is None else "units"
    return f"/tasks/{index}/{field}" if submission.is_bulk else f"/{field}"


def _quota_problem(title: str, detail: str, violated: list[str], body: dict[str, Any], headers: Headers) -> Response:
    problem = {"type": QUOTA_EXCEEDED, "title": title, "status": 429, "detail": detail, "violated-policies": violated}
    return answer(problem | body, 429, {**headers, "Content-Type": PROBLEM})


def rate_limit_headers(
    limits: Limits, lane: Lane, now_ms: int, last_at: int | None = None, shared: Sequence[SharedUse] = ()
) -> Headers:
    """The RateLimit fields of draft-ietf-httpapi-ratelimit-headers-10.

    last_at: the planned start of the lane's last task, if that one waits; `t` then counts to the time at which the
    policy lets it start. shared: the shared limits that the submit's tasks want.
    """
    policies = [policy_item(limit, limit.name) for limit in limits]
    states = [
        f'"{limit.name}";r={_remaining(limit, lane, now_ms)};t={_reset_seconds(limit, lane, now_ms, last_at)}'
        for limit in limits
    ]
    policies += [policy_item(limit, name) for _, limit, _, name in shared_policies(shared)]
    states += [state_item(use, part, name, now_ms) for use, _, part, name in shared_policies(shared)]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


def _remaining(limit: Limit, lane: Lane, now_ms: int) -> int:
    return max(0, limit.quota - usage(lane, limit, now_ms).used)


def _reset_seconds(limit: Limit, lane: Lane, now_ms: int, last_at: int | None = None) -> int:
    """Whole seconds until the policy allows more, rounded up."""
    resets_at = usage(lane, limit, now_ms).resets_at
    return seconds((resets_at if last_at is None else min(resets_at, last_at)) - now_ms)


def _violated(limits: Limits, lane: Lane, now_ms: int, starts: int = 0, units: int = 0) -> list[str]:
    """Names of the limits whose windows hold too much. starts, units: of tasks that were not admitted."""
    return [
        limit.name
        for limit in limits
        if usage(lane, limit, now_ms).used + (units if limit.counts_units else starts) > limit.quota
    ]


def redriven_answer(outcome: Redriven | Stays) -> Response:
    """As the answer to a submit; a repeat answers with the task as it is now."""
    submission = outcome.submission
    assert submission is not None, "a task that can't be submitted at all is an error"
    if isinstance(outcome, Stays):
        assert outcome.refused is not None, "its submit was refused"
        response = _refused(submission, outcome.refused)
    else:
        response = _submitted(submission, outcome.submitted)
        if outcome.is_repeat:
            response.headers["Idempotency-Replayed"] = "true"
    response.headers.update(_applied(submission, response.status_code))
    return response


def redrive_answer(page: RedrivePage) -> Response:
    tasks = [_redriven_task(one) for one in page.outcomes if isinstance(one, Redriven)]
    stays = [
        StayingTask(one.failed.user_id, one.failed.task_id, one.reason)
        for one in page.outcomes
        if isinstance(one, Stays)
    ]
    return answer(RedriveAnswer(tasks, stays, page.next_cursor))


def _redriven_task(one: Redriven) -> RedrivenTask:
    return RedrivenTask(
        user_id=one.failed.user_id,
        task_id=one.failed.task_id,
        redriven_as=one.task.task_id,
        repeated=one.is_repeat,
        seq=one.task.seq,
        position=one.task.position,
        planned_at=one.task.planned_at,
        state=one.task.state,
    )


def task_answer(view: TaskView) -> Response:
    return answer(_task_answer(view, MAX_SHOWN_PAYLOAD))


def cancel_answer(view: TaskView) -> Response:
    """200 for a cancelled task, 202 for a running one that is asked to stop."""
    return answer(_task_answer(view, MAX_SHOWN_PAYLOAD), 200 if view.state is TaskState.CANCELLED else 202)


def tasks_answer(views: Iterable[TaskView], next_cursor: str | None) -> Response:
    return answer(TaskListAnswer([_task_answer(view, MAX_LISTED_PAYLOAD) for view in views], next_cursor))


def failed_answer(records: Iterable[TaskRecord], next_cursor: str | None) -> Response:
    """A list of finished tasks, whose records hold the whole view."""
    return tasks_answer((view_of_task(record, None, (), 0) for record in records), next_cursor)


def _task_answer(view: TaskView, most_payload: int) -> TaskAnswer:
    """most_payload: bytes of a payload that the answer shows, as JSON."""
    task, outcome = view.record.task, view.record.outcome
    is_shown = task.has_payload and len(msgspec.json.encode(task.payload)) <= most_payload
    return TaskAnswer(
        payload=task.payload if is_shown else None,
        payload_omitted=not is_shown,
        attempt_history=_attempts(view),
        redriven_as=view.record.redriven_as,
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
        units=task.units,
        used_units=outcome.used_units if outcome else None,
        cancel_requested_at=view.record.cancel_requested_at,
        schedule=task.schedule or None,
        shared=task.shared or None,
        progress=_progress_answer(view.progress),
    )


def schedule_answer(schedule: Schedule, is_new: bool = False) -> Response:
    return answer(_schedule_answer(schedule), 201 if is_new else 200)


def schedules_answer(schedules: Iterable[Schedule], next_cursor: str | None) -> Response:
    return answer(ScheduleListAnswer([_schedule_answer(one) for one in schedules], next_cursor))


def _schedule_answer(schedule: Schedule) -> ScheduleAnswer:
    order, timing, refusal = schedule.order, schedule.timing, schedule.refusal
    return ScheduleAnswer(
        user_id=schedule.user_id,
        name=schedule.name,
        task=order.task,
        payload=order.payload,
        units=order.units,
        shared=order.shared,
        callback_url=order.callback_url,
        cron=timing.cron,
        timezone=timing.timezone,
        every_seconds=timing.every_seconds,
        paused=schedule.paused,
        next_at=schedule.next_at,
        last_at=schedule.last_at,
        last_task_id=schedule.last_task_id,
        refused=schedule.refused,
        refused_at=refusal.at if refusal else None,
        refused_reason=refusal.reason if refusal else None,
        created_at=schedule.created_at,
    )


def _progress_answer(progress: Progress | None) -> ProgressAnswer | None:
    return ProgressAnswer(progress.fraction, progress.text, progress.at) if progress else None


def _attempts(view: TaskView) -> list[AttemptAnswer]:
    """The failed attempts that the record has, then the last one or the one that runs."""
    found = [AttemptAnswer(one.number, one.started_at, one.ended_at, one.error) for one in view.record.failed_attempts]
    if view.started_at is None or any(one.attempt == view.attempts for one in found):
        return found
    outcome = view.record.outcome
    ended_at, error = (outcome.completed_at, outcome.error) if outcome else (None, None)
    return [*found, AttemptAnswer(view.attempts, view.started_at, ended_at, error)]


def lane_answer(view: LaneView) -> Response:
    return answer(_lane_answer(view))


def emptied_answer(view: LaneView, emptied: Emptied) -> Response:
    lane = structs.asdict(_lane_answer(view))
    return answer(EmptiedAnswer(**lane, cancelled=emptied.waiting, cancelled_scheduled=emptied.scheduled))


def forgotten_answer(user_id: str, forgotten: Forgotten) -> Response:
    """200 when nothing is left of the user but its seqs and starts; 202 while a repeat has to go on."""
    return answer(ForgottenAnswer(user_id, forgotten.deleted, forgotten.is_done), 200 if forgotten.is_done else 202)


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
    waits = view.waits_for
    return LaneAnswer(
        user_id=lane.user_id,
        limits=format_limits(view.limits),
        own_limits=lane.limits is not None,
        policies=[_limit_answer(limit, lane, now_ms) for limit in view.limits],
        backlog=lane.waiting,
        running=view.running,
        at_once=at_once(view.limits),
        slots_in_use=view.slots_in_use,
        next_start_at=view.next_start_at,
        next_starts=list(view.next_starts),
        open_at=None if is_endless else open_at(lane, view.limits, now_ms),
        paused=is_paused,
        paused_until=lane.paused_until if is_paused and not is_endless else None,
        throttled_until=lane.throttled_until if lane.throttled_until > now_ms else None,
        throttled_reason=lane.throttled_reason if lane.throttled_until > now_ms else None,
        starts=list(lane.starts),
        start_ahead_at=start_ahead(lane, now_ms),
        admitted=lane.admitted,
        started=lane.started,
        now=now_ms,
        waits_for=WaitsForAnswer(waits.name, waits.before, waits.start_at) if waits else None,
        group=lane.group or None,
    )


def _limit_answer(limit: Limit, lane: Lane, now_ms: int) -> LimitAnswer:
    return LimitAnswer(
        name=limit.name,
        quota=limit.quota,
        counts="units" if limit.counts_units else "starts",
        window_seconds=limit.window_seconds,
        used=started_units(lane, limit, now_ms),
        remaining=_remaining(limit, lane, now_ms),
        reset_seconds=_reset_seconds(limit, lane, now_ms),
    )


def task_names_answer(names: list[str]) -> Response:
    return answer(TaskNamesAnswer(names))


def health_answer(services: Iterable[tuple[str, str | None]]) -> Response:
    """200 when all services answer, else 503. services: each name with its error, None when it answers."""
    states = {name: wrong or "ok" for name, wrong in services}
    is_well = all(state == "ok" for state in states.values())
    return answer(HealthAnswer("ok" if is_well else "unavailable", **states), 200 if is_well else 503)
