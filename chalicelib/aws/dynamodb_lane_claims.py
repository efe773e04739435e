"""The writes that claim the next task's start."""

from chalicelib.aws.dynamodb_expression import Expression, number, numbers
from chalicelib.aws.dynamodb_histories import EXTRA_UNITS, REPORTS, STARTS, WAITING_UNITS, add, set_history, take_room
from chalicelib.aws.dynamodb_lane_items import cancelled_value, lease_value
from chalicelib.aws.dynamodb_lane_parts import (
    keep_until,
    kept_seconds,
    no_task_is_retrying,
    remove_throttling,
    same_lease,
    same_slot,
)
from chalicelib.core.claim import Start
from chalicelib.core.lane import Lane, Phase
from chalicelib.core.limits import Limits, at_once, format_limits, large_limits


def fast_claim_expression(start: Start, limits: Limits) -> Expression:
    update, lane = Expression(), start.lane
    update.prepend("starts", start.at)
    update.set("started_seq", number(lane.started_seq))
    if start.slot:
        _take_slot_quickly(update, start, limits)
    else:
        update.set("running", lease_value(lane.running))
        _remove_head_receipt(update)
    _outlive_start(update, start, limits)
    if start.shared:
        update.remove("turn")
    update.increment("started")
    if lane.took_ms:
        update.set("took_ms", number(lane.took_ms))
    update.equals("started_seq", lane.started_seq - 1)
    update.absent("paused_until")
    update.absent("throttled_until")
    update.absent("held_until")
    if not start.slot:
        update.absent("cancelled")
        update.conditions.append(f"attribute_not_exists({update.name('running')}.{update.name('filled_seq')})")
        no_task_is_retrying(update)
    if lane.limits:
        update.conditions.append(f"{update.name('limits')} = {update.value({'S': format_limits(lane.limits)})}")
    else:
        update.absent("limits")
    update.within("starts", "started", limits, start.at)
    if large_limits(limits) or start.units != 1:
        take_room(update, STARTS, limits, start.at, start.units)
        add(update, EXTRA_UNITS, start.units - 1)
        add(update, WAITING_UNITS, 1 - start.units)
    return update


def claim_expression(seen: Lane, start: Start) -> Expression:
    update, lane = Expression(), start.lane
    update.set("starts", numbers(lane.starts))
    update.set("started", number(lane.started))
    update.set("started_seq", number(lane.started_seq))
    if start.slot:
        _take_slot(update, seen, start)
        update.equals(REPORTS, seen.reports)
    else:
        update.set("running", lease_value(lane.running))
        _remove_head_receipt(update)
        _leave_slots(update, seen)
    _outlive_start(update, start, start.limits)
    if start.shared:
        update.remove("turn")
    if lane.took_ms:
        update.set("took_ms", number(lane.took_ms))
    if lane.retries != seen.retries:
        update.set("retries", numbers(lane.retries))
    if lane.admitted != seen.admitted:
        update.set("admitted", number(lane.admitted))
        update.equals("admitted", seen.admitted)
    if seen.paused_until is not None:
        update.remove("paused_until")  # it is over, or nothing would start
    if seen.throttled_until:
        remove_throttling(update)
    if lane.cancelled != seen.cancelled or (lane.slots is None) != (seen.slots is None):
        update.set_or_remove("cancelled", cancelled_value(lane))
    if lane.real != seen.real:
        set_history(update, STARTS, lane.real, seen.real)
        add(update, EXTRA_UNITS, lane.real.extra_units - seen.real.extra_units)
    add(update, WAITING_UNITS, lane.waiting_units - seen.waiting_units)
    update.equals("started", seen.started)
    update.equals("revision", seen.revision)
    same_lease(update, seen)
    return update


def _outlive_start(update: Expression, start: Start, limits: Limits) -> None:
    """Keeps the lane beyond this start, since its backlog may last for months. Own limits never expire."""
    if not start.lane.limits:
        keep_until(update, start.at // 1000 + kept_seconds(limits))


def _remove_head_receipt(update: Expression) -> None:
    """Removes the receipt handle, whose 324 to 432 characters would make each write of a full lane cost two units."""
    update.remove("head_receipt")
    update.remove("parked")


def _take_slot_quickly(update: Expression, start: Start, limits: Limits) -> None:
    """Takes a slot of a lane that has fewer leases in its slots than may run at once."""
    path, slots, cancelled = update.slot(start.slot), update.name("slots"), update.name("cancelled")
    running, at = f"{update.name('running')}.{update.name('until')}", update.value(number(start.at))
    update.sets.append(f"{path} = {update.value(lease_value(start.lease))}")
    update.remove("next_receipt")
    update.conditions += [
        f"attribute_exists({slots})",
        f"size({slots}) < {update.value(number(at_once(limits)))}",
        f"attribute_not_exists({path})",
        f"(attribute_not_exists({running}) OR {running} <= {at})",
        f"(attribute_not_exists({cancelled}) OR size({cancelled}) = {update.value(number(0))})",
    ]


def _take_slot(update: Expression, seen: Lane, start: Start) -> None:
    """Takes a slot, or takes it over from the task's last attempt, if each lease that counts as over still is that one.

    The first slot comes with a map of cancelled tasks, an empty one too: it refuses the quick claims of one task alone.
    """
    lease = lease_value(start.lease)
    if seen.slots is None:
        update.set("slots", {"M": {start.slot: lease}})
        update.absent("slots")
    else:
        update.sets.append(f"{update.slot(start.slot)} = {update.value(lease)}")
        update.conditions.append(f"attribute_exists({update.name('slots')})")
    for known in (seen.slots or {}).values():
        is_over = known.until <= start.at and known.phase is not Phase.RETRY
        is_cleared = known.task_id not in (start.lane.slots or {})
        if is_over or is_cleared or known.task_id == start.slot:
            same_slot(update, known)
        if is_cleared:
            update.removes.append(update.slot(known.task_id))
    if seen.slots is not None and start.slot not in seen.slots:
        update.conditions.append(f"attribute_not_exists({update.slot(start.slot)})")
    if seen.running and not start.lane.running:
        update.remove("running")
    if start.lane.next_receipt != seen.next_receipt:
        update.remove("next_receipt")


def _leave_slots(update: Expression, seen: Lane) -> None:
    if seen.slots is not None:
        update.remove("slots")
        update.conditions.append(f"size({update.name('slots')}) = {update.value(number(0))}")
