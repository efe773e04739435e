"""Lanes as DynamoDB's items: each attribute's form, and the lane that an item is."""

from msgspec.structs import replace

from chalicelib.aws.dynamodb_expression import Item, integer, integers, number, numbers
from chalicelib.aws.dynamodb_histories import PLANS, REPORTED_AT, REPORTS, STARTS, WAITING_UNITS, history_of
from chalicelib.core.lane import Lane, Lease, Phase, Turn
from chalicelib.core.limits import parse_limits

#: Attributes of a lane that was emptied, or whose user was forgotten; each is a number.
MARKS = ("emptied_seq", "emptied_from", "emptied_at", "forgotten_seq", "forgotten_at")
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
            **({"phase": phase_value(lease.phase)} if lease.phase is not Phase.STARTED else {}),
            **({"used": numbers(lease.used)} if lease.used else {}),
            **({"earlier_used": numbers(lease.earlier_used)} if lease.earlier_used else {}),
            **({"start_limits": {"L": [{"S": text} for text in lease.start_limits]}} if lease.start_limits else {}),
            **({"cancel_requested_at": number(lease.cancel_requested_at)} if lease.cancel_requested_at else {}),
            **({"shared_limits": {"L": [{"S": text} for text in lease.shared_limits]}} if lease.shared_limits else {}),
            **({"allowed_at": number(lease.allowed_at)} if lease.allowed_at else {}),
        }
    }


def phase_value(phase: Phase) -> Item:
    return {"S": phase.value}


def turn_value(turn: Turn) -> Item:
    turn_value = {"name": {"S": turn.name}, "number": number(turn.number), "revision": number(turn.revision)}
    return {"M": {**turn_value, **({"group": {"S": turn.group}} if turn.group else {})}}


def cancelled_value(lane: Lane) -> Item | None:
    if not lane.cancelled and lane.slots is None:
        return None
    return {"M": {task_id: number(seq) for task_id, seq in lane.cancelled.items()}}
