"""The writes that admit tasks to a lane."""

from chalicelib.aws.dynamodb_expression import Expression, number, numbers
from chalicelib.aws.dynamodb_histories import PLANS, WAITING_UNITS, add, set_history, take_room
from chalicelib.aws.dynamodb_lane_parts import keep_until, kept_seconds, no_task_is_retrying, set_new_plans
from chalicelib.core.admission import Admission
from chalicelib.core.lane import BRIEF_MS, MARKED_BY_MS, Lane
from chalicelib.core.limits import Limits, at_once, fingerprint, large_limits, smallest_units_quota


def fast_admit_expression(
    user_id: str, limits: Limits, now_ms: int, task_id: str, only_if_free: bool, units: int = 1
) -> Expression:
    update = Expression()
    update.prepend("planned", now_ms)
    update.set("newest", {"S": task_id})
    update.list_lane(user_id)
    keep_until(update, now_ms // 1000 + kept_seconds(limits))
    update.set("planned_under", {"S": fingerprint(limits)})
    update.increment("admitted")
    update.absent("limits")
    update.absent("paused_until")
    update.absent("throttled_until")
    update.absent("held_until")
    if only_if_free and at_once(limits) > 1:
        _is_slot_free(update, limits, now_ms)
    elif only_if_free:
        update.conditions.append(f"attribute_not_exists({update.name('running')}.{update.name('phase')})")
        update.conditions.append(_no_task_ahead_takes_long(update, now_ms))
    else:
        no_task_is_retrying(update)
    if large_limits(limits):
        update.absent("retries")  # the next exact admission counts them
    else:
        retries, begin = update.name("retries"), update.value(number(now_ms - max(limit.window_ms for limit in limits)))
        update.conditions.append(f"(attribute_not_exists({retries}) OR {retries}[0] <= {begin})")
    update.within("planned", "admitted", limits, now_ms)
    if large_limits(limits):
        take_room(update, PLANS, limits, now_ms, units if smallest_units_quota(limits) else 1)
    add(update, WAITING_UNITS, units - 1)
    return update


def _no_task_ahead_takes_long(update: Expression, now_ms: int) -> str:
    """Requires brief tasks, or no waiting task and a newest start so old that its task, if it runs, is marked."""
    took, brief = update.name("took_ms"), update.value(number(BRIEF_MS))
    none_waits = f"{update.name('admitted')} = {update.name('started_seq')}"
    newest = f"{update.name('starts')}[0] <= {update.value(number(now_ms - MARKED_BY_MS))}"
    return f"(attribute_not_exists({took}) OR {took} < {brief} OR ({none_waits} AND {newest}))"


def _is_slot_free(update: Expression, limits: Limits, now_ms: int) -> None:
    """Requires that no task waits and fewer run than may, as far as the lane's slots show it at once."""
    slots, running = update.name("slots"), f"{update.name('running')}.{update.name('until')}"
    admitted, started_seq = update.name("admitted"), update.name("started_seq")
    update.conditions += [
        f"(attribute_not_exists({admitted}) OR {admitted} = {started_seq})",
        f"(attribute_not_exists({slots}) OR size({slots}) < {update.value(number(at_once(limits)))})",
        f"(attribute_not_exists({running}) OR {running} <= {update.value(number(now_ms))})",
    ]


def admit_expression(seen: Lane, admission: Admission) -> Expression:
    update, lane = Expression(), admission.lane
    update.set("planned", numbers(lane.planned))
    update.set("newest", {"S": lane.newest})
    update.list_lane(seen.user_id)
    update.set("admitted", number(lane.admitted))
    if not lane.limits and lane.paused_until is None:
        keep_until(update, lane.planned[0] // 1000 + kept_seconds(admission.limits))
    if lane.revision != seen.revision:
        set_new_plans(update, seen, lane)
    elif lane.planned_under != seen.planned_under:
        update.set("planned_under", {"S": lane.planned_under})
    if lane.plans != seen.plans:
        set_history(update, PLANS, lane.plans, seen.plans)
    add(update, WAITING_UNITS, lane.waiting_units - seen.waiting_units)
    update.equals("admitted", seen.admitted)
    update.equals("revision", seen.revision)
    if not seen.retrying:
        no_task_is_retrying(update)
    return update
