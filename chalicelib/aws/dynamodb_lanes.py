"""Lanes in DynamoDB. Each expression is built by a function of its name, to be read in one place."""

from typing import Any

from msgspec.structs import replace

from chalicelib.aws.client import Condition, conditional, unavailable
from chalicelib.aws.dynamodb_expression import (
    LANE_ITEM,
    LISTED,
    Expression,
    Item,
    integer,
    integers,
    key,
    number,
    numbers,
)
from chalicelib.aws.dynamodb_histories import (
    EXTRA_UNITS,
    PLANS,
    REPORTED_AT,
    REPORTS,
    STARTS,
    WAITING_UNITS,
    add,
    correction_expression,
    history_of,
    set_history,
    take_room,
)
from chalicelib.core.admission import Admission
from chalicelib.core.claim import Start
from chalicelib.core.lane import BRIEF_MS, FOREVER_MS, MARKED_BY_MS, Lane, Lease, Phase, Turn
from chalicelib.core.limits import (
    Limits,
    at_once,
    fingerprint,
    format_limits,
    large_limits,
    parse_limits,
    smallest_units_quota,
)
from chalicelib.core.ports import (
    Stale,
    Write,
    Written,
    after_newest,
    corrected_at,
    own_admission,
    own_claim,
    own_correction,
)

#: Seconds after its last planned or real start at which a lane expires at the earliest; see `kept_seconds`.
LANE_KEPT_SECONDS = 30 * 24 * 3600

#: The attribute of a lane with a group that stands for each time at which the lane would expire, since only an
#: administrator ends a group: the year 9999, epoch seconds.
GROUP_KEPT = "group_kept_until"
#: Attributes of a lane that was emptied, or whose user was forgotten; each is a number.
MARKS = ("emptied_seq", "emptied_from", "emptied_at", "forgotten_seq", "forgotten_at")

#: The step that an error of a write names.
_WRITING = "writing the lane"


class DynamoDBLaneStore:
    def __init__(self, client: Any, table_name: str) -> None:
        self._client = client
        self._table = table_name

    def get(self, user_id: str) -> Lane:
        with unavailable("reading the lane"):
            answer = self._client.get_item(TableName=self._table, Key=key(user_id, LANE_ITEM), ConsistentRead=True)
        return lane_of(user_id, answer.get("Item"))

    def check(self) -> None:
        """UnavailableError when the table can't be read."""
        with unavailable("DynamoDB"):
            self._client.get_item(TableName=self._table, Key=key("health", LANE_ITEM))

    def try_fast_admit(
        self, user_id: str, limits: Limits, now_ms: int, task_id: str, only_if_free: bool = False, units: int = 1
    ) -> Write:
        write = self._update(user_id, fast_admit_expression(user_id, limits, now_ms, task_id, only_if_free, units))
        return own_admission(write, task_id)

    def admit(self, seen: Lane, admission: Admission) -> Write:
        request = self._request(seen.user_id, admit_expression(seen, admission))
        with conditional(_WRITING) as condition:
            condition.item = self._client.update_item(**request)["Attributes"]
        return own_admission(_write_of(seen.user_id, condition), admission.lane.newest)

    def try_fast_claim(self, start: Start, limits: Limits) -> Write:
        return own_claim(self._update(start.lane.user_id, fast_claim_expression(start, limits)), start)

    def claim(self, seen: Lane, start: Start) -> Write:
        return own_claim(self._update(seen.user_id, claim_expression(seen, start)), start)

    def change(self, seen: Lane, changed: Lane) -> Write:
        return self._update(seen.user_id, change_expression(seen, changed))

    def forget(self, seen: Lane, changed: Lane, expires_at: int) -> Write:
        return self._update(seen.user_id, forget_expression(seen, changed, expires_at))

    def save_head_receipt(self, seen: Lane, receipt: str) -> Write:
        return self._update(seen.user_id, save_head_receipt_expression(seen, receipt))

    def save_turn(self, seen: Lane, turn: Turn) -> Write:
        return self._update(seen.user_id, save_turn_expression(seen, turn))

    def save_next_receipt(self, seen: Lane, receipt: str) -> Write:
        return self._update(seen.user_id, save_next_receipt_expression(seen, receipt))

    def save_slot_receipt(self, seen: Lane, lease: Lease, receipt: str, visible_at: int) -> Write:
        return self._update(seen.user_id, save_slot_receipt_expression(seen, lease, receipt, visible_at))

    def release_slot(self, user_id: str, lease: Lease, took_ms: int) -> Write:
        return self._update(user_id, release_slot_expression(lease, took_ms))

    def throttle(self, user_id: str, lease: Lease, until: int, reason: str) -> Lease | None:
        return _stored_lease(self._update(user_id, throttle_expression(lease, until, reason)), lease)

    def correct_units(self, start: Start, used_units: int, now_ms: int) -> int | None:
        write = self._update(start.lane.user_id, correction_expression(start, used_units, now_ms))
        if later := after_newest(own_correction(write, start), start, now_ms):
            return self.correct_units(start, used_units, later)
        return corrected_at(write, start)

    def renew_lease(self, user_id: str, lease: Lease, until: int) -> Lease | None:
        return _stored_lease(self._update(user_id, renew_lease_expression(lease, until)), lease)

    def release_lease(self, user_id: str, lease: Lease, retry_at: int) -> Lease | None:
        return _stored_lease(self._update(user_id, release_lease_expression(lease, retry_at)), lease)

    def request_cancel(self, user_id: str, lease: Lease, now_ms: int) -> bool:
        return isinstance(self._update(user_id, request_cancel_expression(lease, now_ms)), Written)

    def end_lease(self, user_id: str, lease: Lease, now_ms: int, took_ms: int) -> bool:
        return isinstance(self._update(user_id, end_lease_expression(lease, now_ms, took_ms)), Written)

    def _update(self, user_id: str, expression: Expression) -> Write:
        with conditional(_WRITING) as condition:
            condition.item = self._client.update_item(**self._request(user_id, expression))["Attributes"]
        return _write_of(user_id, condition)

    def _request(self, user_id: str, expression: Expression) -> dict[str, Any]:
        return {
            "TableName": self._table,
            "Key": key(user_id, LANE_ITEM),
            "ReturnValues": "ALL_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **expression.parameters(),
        }


def _write_of(user_id: str, condition: Condition) -> Write:
    lane = lane_of(user_id, condition.item)
    return Written(lane) if condition.holds else Stale(lane)


def _stored_lease(write: Write, lease: Lease) -> Lease | None:
    return write.lane.lease_of(lease.task_id) if isinstance(write, Written) else None


def fast_admit_expression(
    user_id: str, limits: Limits, now_ms: int, task_id: str, only_if_free: bool, units: int = 1
) -> Expression:
    update = Expression()
    update.prepend("planned", now_ms)
    update.set("newest", {"S": task_id})
    update.list_lane(user_id)
    _keep_until(update, now_ms // 1000 + kept_seconds(limits))
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
        _no_task_is_retrying(update)
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


def admit_expression(seen: Lane, admission: Admission) -> Expression:
    update, lane = Expression(), admission.lane
    update.set("planned", numbers(lane.planned))
    update.set("newest", {"S": lane.newest})
    update.list_lane(seen.user_id)
    update.set("admitted", number(lane.admitted))
    if not lane.limits and lane.paused_until is None:
        _keep_until(update, lane.planned[0] // 1000 + kept_seconds(admission.limits))
    if lane.revision != seen.revision:
        _set_new_plans(update, seen, lane)
    elif lane.planned_under != seen.planned_under:
        update.set("planned_under", {"S": lane.planned_under})
    if lane.plans != seen.plans:
        set_history(update, PLANS, lane.plans, seen.plans)
    add(update, WAITING_UNITS, lane.waiting_units - seen.waiting_units)
    update.equals("admitted", seen.admitted)
    update.equals("revision", seen.revision)
    if not seen.retrying:
        _no_task_is_retrying(update)
    return update


def _set_new_plans(update: Expression, seen: Lane, changed: Lane) -> None:
    update.set("replanned_seq", number(changed.replanned_seq))
    update.set("replanned_at", number(changed.replanned_at))
    update.set_or_remove("planned_under", {"S": changed.planned_under} if changed.planned_under else None)
    update.set("revision", number(changed.revision))
    if changed.retries != seen.retries:
        update.set_or_remove("retries", numbers(changed.retries) if changed.retries else None)
    if changed.turn != seen.turn:
        update.set_or_remove("turn", _turn_value(changed.turn) if changed.turn else None)
    update.equals("started", seen.started)
    update.equals("started_seq", seen.started_seq)


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
        _no_task_is_retrying(update)
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
        _remove_throttling(update)
    if lane.cancelled != seen.cancelled or (lane.slots is None) != (seen.slots is None):
        update.set_or_remove("cancelled", _cancelled_value(lane))
    if lane.real != seen.real:
        set_history(update, STARTS, lane.real, seen.real)
        add(update, EXTRA_UNITS, lane.real.extra_units - seen.real.extra_units)
    add(update, WAITING_UNITS, lane.waiting_units - seen.waiting_units)
    update.equals("started", seen.started)
    update.equals("revision", seen.revision)
    _same_lease(update, seen)
    return update


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
            _same_slot(update, known)
        if is_cleared:
            update.removes.append(update.slot(known.task_id))
    if seen.slots is not None and start.slot not in seen.slots:
        update.conditions.append(f"attribute_not_exists({update.slot(start.slot)})")
    if seen.running and not start.lane.running:
        update.remove("running")
    if start.lane.next_receipt != seen.next_receipt:
        update.remove("next_receipt")


def _same_slot(update: Expression, known: Lease) -> None:
    path = update.slot(known.task_id)
    update.conditions += [
        f"{path}.{update.name('token')} = {update.value({'S': known.token})}",
        f"{path}.{update.name('until')} = {update.value(number(known.until))}",
    ]


def _leave_slots(update: Expression, seen: Lane) -> None:
    if seen.slots is not None:
        update.remove("slots")
        update.conditions.append(f"size({update.name('slots')}) = {update.value(number(0))}")


def _remove_head_receipt(update: Expression) -> None:
    """Removes the receipt handle, whose 324 to 432 characters would make each write of a full lane cost two units."""
    update.remove("head_receipt")
    update.remove("parked")


def kept_seconds(limits: Limits) -> int:
    """Seconds after its last start for which a lane is kept: its longest window and 14 days, for a message's life."""
    return max(LANE_KEPT_SECONDS, max((limit.window_seconds for limit in limits), default=0) + 14 * 24 * 3600)


def _outlive_start(update: Expression, start: Start, limits: Limits) -> None:
    """Keeps the lane beyond this start, since its backlog may last for months. Own limits never expire."""
    if not start.lane.limits:
        _keep_until(update, start.at // 1000 + kept_seconds(limits))


def _keep_until(update: Expression, seconds: int) -> None:
    """Keeps the lane until that time, epoch seconds; one with a group for ever, whatever the writer knows of it."""
    update.sets.append(
        f"{update.name('expires_at')} = if_not_exists({update.name(GROUP_KEPT)}, {update.value(number(seconds))})"
    )


def change_expression(seen: Lane, changed: Lane, is_listed: bool = True) -> Expression:
    update = Expression()
    update.set("planned", numbers(changed.planned))
    update.set("started_seq", number(changed.started_seq))
    _set_new_plans(update, seen, changed)
    if is_listed:
        update.list_lane(seen.user_id)
    update.set_or_remove("limits", {"S": format_limits(changed.limits)} if changed.limits else None)
    update.set_or_remove("paused_until", number(changed.paused_until) if changed.paused_until is not None else None)
    update.set_or_remove("cancelled", _cancelled_value(changed))
    if changed.starts != seen.starts:
        update.set("starts", numbers(changed.starts))
    if seen.throttled_until and not changed.throttled_until:
        _remove_throttling(update)
    if changed.running != seen.running:
        update.set("running", lease_value(changed.running))
    if changed.running != seen.running or changed.real != seen.real:
        _same_lease(update, seen)
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


def forget_expression(seen: Lane, changed: Lane, expires_at: int) -> Expression:
    update = change_expression(seen, changed, is_listed=False)
    update.remove(LISTED)
    for attribute in ("head_receipt", "next_receipt", "parked", "took_ms"):
        update.remove(attribute)
    update.set("expires_at", number(expires_at))
    return update


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
        _same_slot(update, known)


def _change_slot(update: Expression, path: str, known: Lease, after: Lease) -> None:
    update.sets.append(f"{path}.{update.name('until')} = {update.value(number(after.until))}")
    if after.token != known.token:
        update.sets.append(f"{path}.{update.name('token')} = {update.value({'S': after.token})}")
    if after.phase is not known.phase:
        update.sets.append(f"{path}.{update.name('phase')} = {update.value(_phase(after.phase))}")
    if after.used != known.used:
        update.sets.append(f"{path}.{update.name('used')} = {update.value(numbers(after.used))}")


def save_head_receipt_expression(seen: Lane, receipt: str) -> Expression:
    update = Expression()
    update.set("head_receipt", {"S": receipt})
    update.remove("parked")
    update.equals("revision", seen.revision)
    if seen.slots is not None:
        update.equals("freed", seen.freed)
    return update


def save_turn_expression(seen: Lane, turn: Turn) -> Expression:
    update = Expression()
    update.set("turn", _turn_value(turn))
    update.equals("revision", seen.revision)
    return update


def _turn_value(turn: Turn) -> Item:
    turn_value = {"name": {"S": turn.name}, "number": number(turn.number), "revision": number(turn.revision)}
    return {"M": {**turn_value, **({"group": {"S": turn.group}} if turn.group else {})}}


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
    _same_slot(update, lease)
    return update


def release_slot_expression(lease: Lease, took_ms: int) -> Expression:
    update = Expression()
    path = update.slot(lease.task_id)
    update.removes.append(path)
    update.increment("freed")
    if took_ms:
        update.set("took_ms", number(took_ms))
    update.conditions.append(f"{path}.{update.name('token')} = {update.value({'S': lease.token})}")
    return update


def renew_lease_expression(lease: Lease, until: int) -> Expression:
    return _lease_expression(lease, until, Phase.RUNNING, lease.token)


def release_lease_expression(lease: Lease, retry_at: int) -> Expression:
    return _lease_expression(lease, retry_at, Phase.RETRY, lease.last_token)


def end_lease_expression(lease: Lease, now_ms: int, took_ms: int) -> Expression:
    update = _lease_expression(lease, now_ms, Phase.STARTED, lease.last_token)
    update.set("took_ms", number(took_ms))
    return update


def request_cancel_expression(lease: Lease, now_ms: int) -> Expression:
    """The new revision refuses each claim that was decided without the request."""
    update = Expression()
    running, token = update.lease_path(lease), update.value({"S": lease.token})
    mark = f"{running}.{update.name('cancel_requested_at')}"
    update.sets.append(f"{mark} = if_not_exists({mark}, {update.value(number(now_ms))})")
    update.increment("revision")
    update.conditions.append(f"{running}.{update.name('token')} = {token}")
    return update


def _lease_expression(lease: Lease, until: int, phase: Phase, token: str) -> Expression:
    """Changes the lease if it is still that one."""
    update = Expression()
    running, name = update.lease_path(lease), update.name("token")
    if lease.in_slot and phase is not Phase.RUNNING:
        update.increment("freed")
    update.sets.append(f"{running}.{update.name('until')} = {update.value(number(until))}")
    if phase is Phase.STARTED:
        update.removes.append(f"{running}.{update.name('phase')}")
    else:
        update.sets.append(f"{running}.{update.name('phase')} = {update.value(_phase(phase))}")
    if token != lease.token:
        update.sets.append(f"{running}.{name} = {update.value({'S': token})}")
    update.conditions.append(f"{running}.{name} = {update.value({'S': lease.token})}")
    return update


def throttle_expression(lease: Lease, until: int, reason: str) -> Expression:
    update = release_lease_expression(lease, until)
    update.sets.append(
        f"{update.lease_path(lease)}.{update.name('attempt')} = {update.value(number(lease.attempt - 1))}"
    )
    update.set("throttled_until", number(until))
    update.set("throttled_reason", {"S": reason})
    update.increment("revision")
    return update


def _no_task_is_retrying(update: Expression) -> None:
    phase = f"{update.name('running')}.{update.name('phase')}"
    update.conditions.append(f"(attribute_not_exists({phase}) OR {phase} <> {update.value(_phase(Phase.RETRY))})")


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


def _phase(phase: Phase) -> Item:
    return {"S": phase.value}


def _remove_throttling(update: Expression) -> None:
    for attribute in ("throttled_until", "throttled_reason", "held_until", "held_reason"):
        update.remove(attribute)


def _same_lease(update: Expression, seen: Lane) -> None:
    """Requires the lease as it was seen, without a report of used units that came since."""
    running = update.name("running")
    if seen.running is None:
        update.absent("running")
    else:
        until = update.value(number(seen.running.until))
        update.conditions.append(f"{running}.{update.name('until')} = {until}")
        token = update.value({"S": seen.running.token})
        update.conditions.append(f"{running}.{update.name('token')} = {token}")
        if not seen.running.is_corrected:
            update.conditions.append(f"attribute_not_exists({running}.{update.name('used')})")


def _cancelled_value(lane: Lane) -> Item | None:
    if not lane.cancelled and lane.slots is None:
        return None
    return {"M": {task_id: number(seq) for task_id, seq in lane.cancelled.items()}}


def lease_value(lease: Lease | None) -> Item:
    assert lease is not None
    return {
        "M": {
            **({} if lease.in_slot else {"task_id": {"S": lease.task_id}}),  # the name of its slot
            "attempt": number(lease.attempt),
            "until": number(lease.until),
            "token": {"S": lease.token},
            "starts": numbers(lease.starts),
            **({"filled_seq": number(lease.filled_seq)} if lease.filled_seq else {}),
            **({"phase": _phase(lease.phase)} if lease.phase is not Phase.STARTED else {}),
            **({"used": numbers(lease.used)} if lease.used else {}),
            **({"earlier_used": numbers(lease.earlier_used)} if lease.earlier_used else {}),
            **({"start_limits": {"L": [{"S": text} for text in lease.start_limits]}} if lease.start_limits else {}),
            **({"cancel_requested_at": number(lease.cancel_requested_at)} if lease.cancel_requested_at else {}),
            **({"shared_limits": {"L": [{"S": text} for text in lease.shared_limits]}} if lease.shared_limits else {}),
            **({"allowed_at": number(lease.allowed_at)} if lease.allowed_at else {}),
        }
    }


#: Attributes of lane items by the names that they had before; both names are read, and refused by the fast writes. Not
#: needed any more 14 days, which is as long as a message lives, after the deployment that brought the new names.
OLD_NAMES = {"throttled_until": "held_until", "throttled_reason": "held_reason", "head_receipt": "parked"}


def lane_of(user_id: str, item: Item | None) -> Lane:
    """Returns the item's lane; an empty lane for None."""
    if not item:
        return Lane(user_id)
    item = {**{name: item[old] for name, old in OLD_NAMES.items() if old in item}, **item}
    return Lane(
        user_id,
        admitted=integer(item, "admitted"),
        planned=integers(item, "planned"),
        newest=item.get("newest", {}).get("S", ""),
        started_seq=integer(item, "started_seq"),
        started=integer(item, "started"),
        starts=integers(item, "starts"),
        retries=integers(item, "retries"),
        running=_lease_of(item["running"]["M"]) if "running" in item else None,
        slots=_slots_of(item["slots"]["M"]) if "slots" in item else None,
        next_receipt=item.get("next_receipt", {}).get("S", ""),
        reported_at=integer(item, REPORTED_AT),
        reports=integer(item, REPORTS),
        freed=integer(item, "freed"),
        took_ms=integer(item, "took_ms"),
        limits=parse_limits(item["limits"]["S"]) if "limits" in item else None,
        paused_until=integer(item, "paused_until") if "paused_until" in item else None,
        cancelled={task_id: int(seq["N"]) for task_id, seq in item.get("cancelled", {}).get("M", {}).items()},
        planned_under=item.get("planned_under", {}).get("S", ""),
        replanned_seq=integer(item, "replanned_seq"),
        replanned_at=integer(item, "replanned_at"),
        throttled_until=integer(item, "throttled_until"),
        throttled_reason=item.get("throttled_reason", {}).get("S", ""),
        head_receipt=item.get("head_receipt", {}).get("S", ""),
        revision=integer(item, "revision"),
        real=history_of(item, STARTS),
        plans=history_of(item, PLANS),
        waiting_units=integer(item, WAITING_UNITS),
        turn=_turn_of(item["turn"]["M"]) if "turn" in item else None,
        group=item.get("group", {}).get("S", ""),
        **{attribute: integer(item, attribute) for attribute in MARKS},
    )


def _turn_of(fields: Item) -> Turn:
    group = fields.get("group", {}).get("S", "")
    return Turn(fields["name"]["S"], integer(fields, "number"), integer(fields, "revision"), group)


def _slots_of(fields: Item) -> dict[str, Lease]:
    leases = {task_id: {**lease["M"], "task_id": {"S": task_id}} for task_id, lease in fields.items()}
    return {task_id: replace(_lease_of(lease), in_slot=True) for task_id, lease in leases.items()}


def _lease_of(fields: Item) -> Lease:
    return Lease(
        fields["task_id"]["S"],
        integer(fields, "attempt"),
        integer(fields, "until"),
        fields["token"]["S"],
        integers(fields, "starts"),
        integer(fields, "filled_seq"),
        Phase(fields.get("phase", {}).get("S", "")),
        tuple(text["S"] for text in fields.get("start_limits", {}).get("L", ())),
        integers(fields, "used"),
        integers(fields, "earlier_used"),
        integer(fields, "cancel_requested_at"),
        fields.get("receipt", {}).get("S", ""),
        integer(fields, "visible_at"),
        shared_limits=tuple(text["S"] for text in fields.get("shared_limits", {}).get("L", ())),
        allowed_at=integer(fields, "allowed_at"),
    )
