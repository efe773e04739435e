"""The attributes of a lane's item that only lanes with large limits or units have: tallies, rooms, extra units.

Those of real starts begin with `start`, those of planned starts with `plan`.
"""

from dataclasses import dataclass

from chalicelib.aws.dynamodb_expression import Expression, Item, integer, integers, number, numbers
from chalicelib.core.claim import Start
from chalicelib.core.history import NO_HISTORY, History
from chalicelib.core.limits import Limits, at_once, fingerprint, large_limits, smallest_units_quota
from chalicelib.core.tally import Tally


@dataclass(frozen=True)
class Side:
    """The names of the attributes of real or of planned starts."""

    tallies: str
    tallied: str
    extras: str
    room: str
    unit_room: str
    under: str
    #: the number of all starts
    total: str


STARTS = Side(
    "start_tallies", "starts_tallied", "start_extras", "start_room", "start_unit_room", "starts_under", "started"
)
PLANS = Side("plan_tallies", "plans_tallied", "plan_extras", "plan_room", "plan_unit_room", "planned_under", "admitted")
ROOMED = "starts_roomed"
OUTDATED, EXTRA_UNITS, WAITING_UNITS = "plans_outdated", "extra_units", "waiting_units"
REPORTED_AT, REPORTS = "reported_at", "reports"


def take_room(update: Expression, side: Side, limits: Limits, at: int, units: int) -> None:
    """Requires and takes room for one start in all large limits; in a new lane there is all room.

    The room was found by the last exact write. Less counts with time, so it is never too large.
    """
    large = large_limits(limits)
    kinds = (
        (side.room, 1, [limit.quota for limit in large if not limit.counts_units]),
        (side.unit_room, units, [limit.quota for limit in large if limit.counts_units]),
    )
    there = [f"{update.name(side.under)} = {update.value({'S': fingerprint(limits)})}"] if large else []
    for attribute, taken, quotas in kinds:
        if quotas:
            path, needed, all_room = update.name(attribute), update.value(number(taken)), min(quotas)
            there.append(f"{path} >= {needed}")
            update.sets.append(f"{path} = if_not_exists({path}, {update.value(number(all_room))}) - {needed}")
    if side is STARTS and smallest_units_quota(limits):
        known_at = f"{update.name('running')}.{update.name('used')}[1]"
        update.conditions.append(f"(attribute_not_exists({known_at}) OR {known_at} <= {update.value(number(at))})")
        if at_once(limits) > 1:
            reported = update.name(REPORTED_AT)
            update.conditions.append(f"(attribute_not_exists({reported}) OR {reported} <= {update.value(number(at))})")
    if there and side is STARTS:
        roomed, total, zero = update.name(ROOMED), update.name(side.total), update.value(number(0))
        there.append(f"{roomed} = {total}")
        update.sets.append(f"{roomed} = if_not_exists({total}, {zero}) + {update.value(number(1))}")
        update.set(side.under, {"S": fingerprint(limits)})
    if there:
        update.conditions.append(f"(attribute_not_exists({update.name(side.total)}) OR ({' AND '.join(there)}))")
    if units != 1:
        prepend_extra(update, side, at, units - 1)


def prepend_extra(update: Expression, side: Side, at: int, units: int) -> None:
    pair, none = update.value(numbers((at, units))), update.value({"L": []})
    path = update.name(side.extras)
    update.sets.append(f"{path} = list_append({pair}, if_not_exists({path}, {none}))")


def add(update: Expression, attribute: str, difference: int) -> None:
    if difference:
        update.adds.append(f"{update.name(attribute)} {update.value(number(difference))}")


def set_history(update: Expression, side: Side, history: History, seen: History) -> None:
    """Writes what differs; `under` of planned starts is an attribute of all lanes and written with them."""
    if history.tallies != seen.tallies:
        tallies: Item = {"M": {key: {"S": tally.to_text()} for key, tally in history.tallies.items()}}
        update.set_or_remove(side.tallies, tallies if history.tallies else None)
    if history.tallied != seen.tallied:
        update.set_or_remove(side.tallied, number(history.tallied) if history.tallied else None)
    if history.extras != seen.extras:
        update.set_or_remove(side.extras, numbers(history.extras) if history.extras else None)
    for attribute, room, earlier in (
        (side.room, history.room, seen.room),
        (side.unit_room, history.unit_room, seen.unit_room),
    ):
        if room is not None or earlier is not None:
            update.set_or_remove(attribute, number(room) if room is not None else None)
    if side is STARTS and history.under != seen.under:
        update.set_or_remove(side.under, {"S": history.under} if history.under else None)
    if side is STARTS and history.roomed != seen.roomed:
        update.set_or_remove(ROOMED, number(history.roomed) if history.roomed else None)
    if seen.is_outdated and not history.is_outdated:
        update.remove(OUTDATED)


def correction_expression(start: Start, used_units: int, now_ms: int) -> Expression:
    """Counts the units that the lease's task really used, once.

    More are an entry of their own, from now on. Less are given back where the start counts.
    """
    update, lease, more = Expression(), start.lease, used_units - start.units
    assert lease is not None, "a start has a lease"
    path, token = update.lease_path(lease), update.value({"S": lease.token})
    mark = f"{path}.{update.name('used')}"
    update.conditions += [f"{path}.{update.name('token')} = {token}", f"attribute_not_exists({mark})"]
    update.sets.append(f"{mark} = {update.value(numbers((used_units, now_ms)))}")
    prepend_extra(update, STARTS, now_ms if more > 0 else start.at, more)
    add(update, EXTRA_UNITS, more)
    if lease.in_slot:
        update.set(REPORTED_AT, number(now_ms))
        update.increment(REPORTS)
    if lease.in_slot and more > 0:
        newest = f"{update.name('starts')}[0]"
        update.conditions.append(f"(attribute_not_exists({newest}) OR {newest} < {update.value(number(now_ms))})")
    if any(limit.counts_units for limit in start.limits):
        # Beside others the start may have left the window before the room was found.
        add(update, STARTS.unit_room, min(0, -more) if lease.in_slot else -more)
        add(update, PLANS.unit_room, min(0, -more))
        update.set(OUTDATED, {"BOOL": True})
    return update


def history_of(item: Item, side: Side) -> History:
    is_real = side is STARTS
    if item.keys().isdisjoint((side.tallies, side.extras, side.room, side.unit_room, EXTRA_UNITS, OUTDATED)):
        return NO_HISTORY
    history = History(
        tallies={key: Tally.from_text(text["S"]) for key, text in item.get(side.tallies, {}).get("M", {}).items()},
        tallied=integer(item, side.tallied),
        extras=integers(item, side.extras),
        extra_units=integer(item, EXTRA_UNITS) if is_real else 0,
        room=integer(item, side.room) if side.room in item else None,
        unit_room=integer(item, side.unit_room) if side.unit_room in item else None,
        under=item.get(side.under, {}).get("S", "") if is_real else "",
        roomed=integer(item, ROOMED) if is_real else 0,
        is_outdated=not is_real and OUTDATED in item,
    )
    return NO_HISTORY if history == NO_HISTORY else history
