"""The writes that change a lane from what was read to what is computed from it, and those of receipts and turns."""

from chalicelib.aws.dynamodb_expression import LISTED, Expression, number, numbers
from chalicelib.aws.dynamodb_histories import PLANS, REPORTED_AT, REPORTS, STARTS, WAITING_UNITS, add, set_history
from chalicelib.aws.dynamodb_lane_items import MARKS, cancelled_value, lease_value, phase_value, turn_value
from chalicelib.aws.dynamodb_lane_parts import GROUP_KEPT, remove_throttling, same_lease, same_slot, set_new_plans
from chalicelib.core.lane import FOREVER_MS, Lane, Lease, Turn
from chalicelib.core.limits import format_limits


def change_expression(seen: Lane, changed: Lane, is_listed: bool = True) -> Expression:
    update = Expression()
    update.set("planned", numbers(changed.planned))
    update.set("started_seq", number(changed.started_seq))
    set_new_plans(update, seen, changed)
    if is_listed:
        update.list_lane(seen.user_id)
    update.set_or_remove("limits", {"S": format_limits(changed.limits)} if changed.limits else None)
    update.set_or_remove("paused_until", number(changed.paused_until) if changed.paused_until is not None else None)
    update.set_or_remove("cancelled", cancelled_value(changed))
    if changed.starts != seen.starts:
        update.set("starts", numbers(changed.starts))
    if seen.throttled_until and not changed.throttled_until:
        remove_throttling(update)
    if changed.running != seen.running:
        update.set("running", lease_value(changed.running))
    if changed.running != seen.running or changed.real != seen.real:
        same_lease(update, seen)
    if changed.slots != seen.slots:
        _change_slots(update, seen, changed)
    if changed.reported_at != seen.reported_at:
        update.set(REPORTED_AT, number(changed.reported_at))
    if changed.reported_at != seen.reported_at or (seen.slots is not None and changed.real != seen.real):
        update.equals(REPORTS, seen.reports)
    if changed.real != seen.real:
        set_history(update, STARTS, changed.real, seen.real)
    if changed.plans != seen.plans:
        set_history(update, PLANS, changed.plans, seen.plans)
    add(update, WAITING_UNITS, changed.waiting_units - seen.waiting_units)
    if changed.group != seen.group:
        update.set_or_remove("group", {"S": changed.group} if changed.group else None)
        update.set_or_remove(GROUP_KEPT, number(FOREVER_MS // 1000) if changed.group else None)
    if changed.limits or changed.paused_until is not None or changed.group:
        update.remove("expires_at")  # only an administrator ends those
    _set_marks(update, seen, changed)
    update.equals("admitted", seen.admitted)
    update.equals("revision", seen.revision)
    return update


def _set_marks(update: Expression, seen: Lane, changed: Lane) -> None:
    for attribute in MARKS:
        if getattr(changed, attribute) != getattr(seen, attribute):
            update.set(attribute, number(getattr(changed, attribute)))


def _change_slots(update: Expression, seen: Lane, changed: Lane) -> None:
    """Frees the slots that the change took out, and changes the others; each only if it is as it was seen."""
    for task_id, known in (seen.slots or {}).items():
        after = (changed.slots or {}).get(task_id)
        if after == known:
            continue
        path = update.slot(task_id)
        if after is None:
            update.removes.append(path)
        else:
            _change_slot(update, path, known, after)
        same_slot(update, known)


def _change_slot(update: Expression, path: str, known: Lease, after: Lease) -> None:
    update.sets.append(f"{path}.{update.name('until')} = {update.value(number(after.until))}")
    if after.token != known.token:
        update.sets.append(f"{path}.{update.name('token')} = {update.value({'S': after.token})}")
    if after.phase is not known.phase:
        update.sets.append(f"{path}.{update.name('phase')} = {update.value(phase_value(after.phase))}")
    if after.used != known.used:
        update.sets.append(f"{path}.{update.name('used')} = {update.value(numbers(after.used))}")


def forget_expression(seen: Lane, changed: Lane, expires_at: int) -> Expression:
    update = change_expression(seen, changed, is_listed=False)
    update.remove(LISTED)
    for attribute in ("head_receipt", "next_receipt", "parked", "took_ms"):
        update.remove(attribute)
    update.set("expires_at", number(expires_at))
    return update


def save_head_receipt_expression(seen: Lane, receipt: str) -> Expression:
    update = Expression()
    update.set("head_receipt", {"S": receipt})
    update.remove("parked")
    update.equals("revision", seen.revision)
    if seen.slots is not None:
        update.equals("freed", seen.freed)
    return update


def save_next_receipt_expression(seen: Lane, receipt: str) -> Expression:
    update = Expression()
    update.set("next_receipt", {"S": receipt})
    for attribute, value in (("revision", seen.revision), ("freed", seen.freed), ("started", seen.started)):
        update.equals(attribute, value)
    return update


def save_slot_receipt_expression(seen: Lane, lease: Lease, receipt: str, visible_at: int) -> Expression:
    update = Expression()
    path = update.slot(lease.task_id)
    update.sets.append(f"{path}.{update.name('receipt')} = {update.value({'S': receipt})}")
    update.sets.append(f"{path}.{update.name('visible_at')} = {update.value(number(visible_at))}")
    update.equals("revision", seen.revision)
    update.equals("freed", seen.freed)
    same_slot(update, lease)
    return update


def save_turn_expression(seen: Lane, turn: Turn) -> Expression:
    update = Expression()
    update.set("turn", turn_value(turn))
    update.equals("revision", seen.revision)
    return update
