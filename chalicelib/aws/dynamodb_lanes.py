"""Lanes in DynamoDB. Each expression is built by a function of its name, in the module of its kind."""

from typing import Any

from chalicelib.aws.client import Condition, conditional, unavailable
from chalicelib.aws.dynamodb_expression import LANE_ITEM, Expression, key
from chalicelib.aws.dynamodb_histories import correction_expression
from chalicelib.aws.dynamodb_lane_admissions import admit_expression, fast_admit_expression
from chalicelib.aws.dynamodb_lane_changes import (
    change_expression,
    forget_expression,
    save_head_receipt_expression,
    save_next_receipt_expression,
    save_slot_receipt_expression,
    save_turn_expression,
)
from chalicelib.aws.dynamodb_lane_claims import claim_expression, fast_claim_expression
from chalicelib.aws.dynamodb_lane_items import lane_of
from chalicelib.aws.dynamodb_lane_leases import (
    end_lease_expression,
    release_lease_expression,
    release_slot_expression,
    renew_lease_expression,
    request_cancel_expression,
    throttle_expression,
)
from chalicelib.core.admission import Admission
from chalicelib.core.claim import Start
from chalicelib.core.lane import Lane, Lease, Turn
from chalicelib.core.limits import Limits
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
