"""Parts that several writes of a lane have in common: what they require of it, and how long it is kept."""

from chalicelib.aws.dynamodb_expression import Expression, number, numbers
from chalicelib.aws.dynamodb_lane_items import phase_value, turn_value
from chalicelib.core.lane import Lane, Lease, Phase
from chalicelib.core.limits import Limits

#: Seconds after its last planned or real start at which a lane expires at the earliest; see `kept_seconds`.
LANE_KEPT_SECONDS = 30 * 24 * 3600
#: The attribute of a lane with a group that stands for each time at which the lane would expire, since only an
#: administrator ends a group: the year 9999, epoch seconds.
GROUP_KEPT = "group_kept_until"


def kept_seconds(limits: Limits) -> int:
    """Seconds after its last start for which a lane is kept: its longest window and 14 days, for a message's life."""
    return max(LANE_KEPT_SECONDS, max((limit.window_seconds for limit in limits), default=0) + 14 * 24 * 3600)


def keep_until(update: Expression, seconds: int) -> None:
    """Keeps the lane until that time, epoch seconds; one with a group for ever, whatever the writer knows of it."""
    update.sets.append(
        f"{update.name('expires_at')} = if_not_exists({update.name(GROUP_KEPT)}, {update.value(number(seconds))})"
    )


def no_task_is_retrying(update: Expression) -> None:
    phase = f"{update.name('running')}.{update.name('phase')}"
    update.conditions.append(f"(attribute_not_exists({phase}) OR {phase} <> {update.value(phase_value(Phase.RETRY))})")


def same_lease(update: Expression, seen: Lane) -> None:
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


def same_slot(update: Expression, known: Lease) -> None:
    path = update.slot(known.task_id)
    update.conditions += [
        f"{path}.{update.name('token')} = {update.value({'S': known.token})}",
        f"{path}.{update.name('until')} = {update.value(number(known.until))}",
    ]


def remove_throttling(update: Expression) -> None:
    for attribute in ("throttled_until", "throttled_reason", "held_until", "held_reason"):
        update.remove(attribute)


def set_new_plans(update: Expression, seen: Lane, changed: Lane) -> None:
    update.set("replanned_seq", number(changed.replanned_seq))
    update.set("replanned_at", number(changed.replanned_at))
    update.set_or_remove("planned_under", {"S": changed.planned_under} if changed.planned_under else None)
    update.set("revision", number(changed.revision))
    if changed.retries != seen.retries:
        update.set_or_remove("retries", numbers(changed.retries) if changed.retries else None)
    if changed.turn != seen.turn:
        update.set_or_remove("turn", turn_value(changed.turn) if changed.turn else None)
    update.equals("started", seen.started)
    update.equals("started_seq", seen.started_seq)
