"""The writes of a lease: renewed, released for a retry, ended, asked to cancel."""

from chalicelib.aws.dynamodb_expression import Expression, number
from chalicelib.aws.dynamodb_lane_items import phase_value
from chalicelib.core.lane import Lease, Phase


def renew_lease_expression(lease: Lease, until: int) -> Expression:
    return _lease_expression(lease, until, Phase.RUNNING, lease.token)


def release_lease_expression(lease: Lease, retry_at: int) -> Expression:
    return _lease_expression(lease, retry_at, Phase.RETRY, lease.last_token)


def end_lease_expression(lease: Lease, now_ms: int, took_ms: int) -> Expression:
    update = _lease_expression(lease, now_ms, Phase.STARTED, lease.last_token)
    update.set("took_ms", number(took_ms))
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
        update.sets.append(f"{running}.{update.name('phase')} = {update.value(phase_value(phase))}")
    if token != lease.token:
        update.sets.append(f"{running}.{name} = {update.value({'S': token})}")
    update.conditions.append(f"{running}.{name} = {update.value({'S': lease.token})}")
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
