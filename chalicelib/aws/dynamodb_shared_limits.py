"""Shared limits in DynamoDB. Each expression is built by a function of its name, to be read in one place.

A shared limit has a partition of its own. Its key holds a space, which no user id may hold.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from chalicelib.aws.client import Condition, conditional, tried_once, unavailable
from chalicelib.aws.dynamodb_expression import TRIM_SLACK, Expression, Item, integer, integers, key, number, numbers
from chalicelib.aws.dynamodb_histories import (
    EXTRA_UNITS,
    STARTS,
    add,
    history_of,
    prepend_extra,
    set_history,
    take_room,
)
from chalicelib.aws.server_time import ServerTime
from chalicelib.core.limits import format_limits, large_limits, most_at_once, parse_shared_limits, smallest_units_quota
from chalicelib.core.ports import (
    Correction,
    SharedClaim,
    SharedStale,
    SharedWrite,
    SharedWritten,
    is_corrected,
    own_shared_claim,
)
from chalicelib.core.shared_limit import Holder, SharedLimit, Taken, Waiter
from chalicelib.core.shared_shards import index_of

#: The partition that lists the shared limits that were changed at run time, each an item by its name.
NAMES_KEY = "shared limits"
STATE_ITEM = "limit"
WAITER_PREFIX = "wait#"
#: Entries by which the list of starts may outgrow the need before it has to be trimmed: many claims come at one moment.
SHARED_SLACK = 64
#: Seconds after the estimate of its turn at which a waiter's item expires.
WAITER_KEPT_SECONDS = 86_400

_WRITING = "writing the shared limit"


def partition(name: str) -> str:
    return f"shared {name}"


class DynamoDBSharedLimitStore:
    def __init__(self, client: Any, table_name: str, server_time: ServerTime) -> None:
        """server_time: compares this machine's clock with the answers."""
        self._client = client
        self._table = table_name
        self._server_time = server_time

    def get(self, name: str) -> SharedLimit:
        with unavailable("reading the shared limit"), self._server_time.comparing() as compare:
            answer = self._client.get_item(TableName=self._table, Key=_key(name), ConsistentRead=True)
            compare(answer)
        return shared_limit_of(name, answer.get("Item"))

    def names(self) -> list[str]:
        return [item["item"]["S"] for item in self._query(NAMES_KEY, "", 1_000)]

    def try_claim(self, claim: SharedClaim) -> SharedWrite:
        return own_shared_claim(self._update(claim.name, fast_claim_expression(claim)), claim.token)

    def claim(self, seen: SharedLimit, taken: Taken) -> SharedWrite:
        return own_shared_claim(self._update(seen.name, claim_expression(seen, taken)), taken.after.newest)

    def trim(self, seen: SharedLimit, kept: int) -> None:
        self._update(seen.name, trim_expression(seen, kept))

    def change(self, seen: SharedLimit, changed: SharedLimit) -> SharedWrite:
        if not index_of(seen.name):
            self._list(seen.name)
        return self._update(seen.name, change_expression(seen, changed))

    def _list(self, name: str) -> None:
        listed = Expression()
        listed.set("listed_by", {"S": "name"})
        with unavailable("listing the shared limit"):
            self._client.update_item(TableName=self._table, Key=key(NAMES_KEY, name), **listed.parameters())

    def ask(self, name: str) -> SharedLimit:
        update = Expression()
        update.increment("asked")
        return self._update(name, update).shared

    def withdraw(self, name: str, turn: int) -> None:
        update = Expression()
        update.set("asked", number(turn - 1))
        update.equals("asked", turn)
        _require_unused(update, turn)
        with tried_once("withdrawing a turn"):  # by then another lane may have got this number
            self._update(name, update)

    def save_group_turn(self, queue: SharedLimit, served: int, turn: int, turn_from: int) -> SharedWrite:
        update = Expression()
        for attribute, value in (("served", served), ("turn", turn), ("turn_from", turn_from)):
            update.set(attribute, number(value))
        update.equals("turn", queue.turn)
        update.equals("served", queue.served)
        return self._update(queue.name, update)

    def correct_units(self, correction: Correction, now_ms: int) -> SharedWrite:
        # The list of corrections may be too short to show an earlier try: units given back twice would break the limit.
        with tried_once("correcting units") if correction.more < 0 else nullcontext():
            write = self._update(correction.name, correction_expression(correction, now_ms))
        return SharedWritten(write.shared) if is_corrected(write.shared, correction) else write

    def throttle(self, name: str, until: int, reason: str) -> SharedLimit:
        return self._update(name, throttle_expression(until, reason)).shared

    def release(self, name: str, task_id: str, at: int) -> SharedLimit:
        return self._update(name, release_expression(task_id, at)).shared

    def add_waiter(self, name: str, waiter: Waiter, until: int) -> None:
        update = Expression()
        update.set("waiting_user", {"S": waiter.user_id})
        update.set("task_id", {"S": waiter.task_id})
        if waiter.group:
            update.set("user_group", {"S": waiter.group})
        update.set("expires_at", number(until // 1000 + WAITER_KEPT_SECONDS))
        with unavailable("listing the lane that waits"):
            self._client.update_item(
                TableName=self._table, Key=key(partition(name), _waiter_item(waiter.turn)), **update.parameters()
            )

    def waiters(self, name: str, after_turn: int, most: int) -> list[Waiter]:
        items = self._query(partition(name), _waiter_item(after_turn + 1), most)
        return [_waiter_of(item) for item in items]

    def _query(self, hash_key: str, first: str, most: int) -> list[Item]:
        query: Item = {
            "TableName": self._table,
            "KeyConditionExpression": "user_id = :key",
            "ExpressionAttributeValues": {":key": {"S": hash_key}},
            "Limit": most,
            "ConsistentRead": True,
        }
        if first:
            query["KeyConditionExpression"] += " AND #item >= :first"
            query["ExpressionAttributeNames"] = {"#item": "item"}
            query["ExpressionAttributeValues"][":first"] = {"S": first}
        with unavailable("listing shared limits"):
            return list(self._client.query(**query)["Items"])

    def _update(self, name: str, expression: Expression) -> SharedWrite:
        with conditional(_WRITING) as condition, self._server_time.comparing() as compare:
            answer = self._client.update_item(
                TableName=self._table,
                Key=_key(name),
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **expression.parameters(),
            )
            compare(answer)
            condition.item = answer["Attributes"]
        return _write_of(name, condition)


def _write_of(name: str, condition: Condition) -> SharedWrite:
    shared = shared_limit_of(name, condition.item)
    return SharedWritten(shared) if condition.holds else SharedStale(shared)


def _key(name: str) -> Item:
    return key(partition(name), STATE_ITEM)


def _waiter_item(turn: int) -> str:
    return f"{WAITER_PREFIX}{turn:012}"


def _waiter_of(item: Item) -> Waiter:
    turn, group = int(item["item"]["S"].removeprefix(WAITER_PREFIX)), item.get("user_group", {}).get("S", "")
    return Waiter(turn, item["waiting_user"]["S"], item["task_id"]["S"], group)


def fast_claim_expression(claim: SharedClaim) -> Expression:
    update, most = Expression(), most_at_once(claim.limits)
    update.prepend("starts", claim.at)
    update.increment("started")
    update.set("newest", {"S": claim.token})
    newest = update.name("newest")
    update.conditions.append(f"(attribute_not_exists({newest}) OR {newest} <> {update.value({'S': claim.token})})")
    update.absent("paused_until")
    update.absent("throttled_until")
    _require_shards(update, claim.shards)
    if claim.own is None:
        update.absent("limits")
    else:
        update.conditions.append(f"{update.name('limits')} = {update.value({'S': format_limits(claim.own)})}")
    _take_turn(update, claim)
    if claim.asks_again:
        update.increment("asked")
    slack = TRIM_SLACK if large_limits(claim.limits) else SHARED_SLACK
    update.within("starts", "started", claim.limits, claim.at, slack)
    if smallest_units_quota(claim.limits):
        reported = update.name("reported_at")
        update.conditions.append(
            f"(attribute_not_exists({reported}) OR {reported} <= {update.value(number(claim.at))})"
        )
    if large_limits(claim.limits) or claim.units != 1:
        take_room(update, STARTS, claim.limits, claim.at, claim.units)
        add(update, EXTRA_UNITS, claim.units - 1)
    if most is not None:
        _add_holder(update, claim.task_id, Holder(claim.user_id, claim.at), most)
    return update


def _require_shards(update: Expression, shards: int) -> None:
    if shards == 1:
        update.absent("shards")
    else:
        update.equals("shards", shards)


def _add_holder(update: Expression, task_id: str, holder: Holder, most: int) -> None:
    holders, mine = update.name("holders"), update.entry("holders", task_id)
    update.sets.append(f"{mine} = {update.value(_holder_value(holder))}")
    update.conditions.append(
        f"attribute_exists({holders}) AND (size({holders}) < {update.value(number(most))} OR attribute_exists({mine}))"
    )


def _take_turn(update: Expression, claim: SharedClaim) -> None:
    if claim.is_newest_turn:
        _require_unused(update, claim.turn)
        update.add_to_set("used", claim.turn)
    elif not claim.turn:
        asked, served = update.name("asked"), update.name("served")
        update.conditions.append(f"(attribute_not_exists({asked}) OR {asked} <= {served})")
        update.absent("used")


def _require_unused(update: Expression, turn: int) -> None:
    """Requires that no claim has used the turn."""
    served, used, value = update.name("served"), update.name("used"), update.value(number(turn))
    update.conditions.append(f"(attribute_not_exists({served}) OR {served} < {value})")
    update.conditions.append(f"NOT contains({used}, {value})")


def claim_expression(seen: SharedLimit, taken: Taken) -> Expression:
    update, after = Expression(), taken.after
    update.set("starts", numbers(after.starts))
    update.set("started", number(after.started))
    update.set("newest", {"S": after.newest})
    if after.served != seen.served or seen.used:
        update.set("served", number(after.served))
    if seen.used:
        update.remove("used")
    if after.asked != seen.asked:
        update.increment("asked")
    if seen.paused_until is not None:
        update.remove("paused_until")  # it is over, or nothing would start
    if seen.throttled_until:
        _remove_throttling(update)
    if after.real != seen.real:
        set_history(update, STARTS, after.real, seen.real)
        add(update, EXTRA_UNITS, after.real.extra_units - seen.real.extra_units)
    if (most := most_at_once(taken.limits)) is not None and after.holders:
        if seen.holders is None:
            update.set("holders", {"M": {task_id: _holder_value(one) for task_id, one in after.holders.items()}})
            update.absent("holders")
        else:
            _add_holder(update, taken.task_id, after.holders[taken.task_id], most)
    update.equals("revision", seen.revision)
    update.equals("started", seen.started)
    update.equals("reports", seen.reports)
    if seen.corrected != after.corrected:
        update.set("corrected", _texts(after.corrected))
    if seen.asked <= seen.served:
        update.equals("asked", seen.asked)
    return update


def trim_expression(seen: SharedLimit, kept: int) -> Expression:
    update = Expression()
    starts = update.name("starts")
    update.removes += [f"{starts}[{index}]" for index in reversed(range(kept, len(seen.starts)))]
    if seen.used:
        served, newest = update.name("served"), update.value(number(seen.served))
        update.sets.append(f"{served} = {newest}")
        update.delete_from_set("used", seen.used)
        update.conditions.append(f"(attribute_not_exists({served}) OR {served} <= {newest})")
    return update


def change_expression(seen: SharedLimit, changed: SharedLimit) -> Expression:
    update = Expression()
    update.set_or_remove("limits", {"S": format_limits(changed.limits)} if changed.limits is not None else None)
    update.set_or_remove("paused_until", number(changed.paused_until) if changed.paused_until is not None else None)
    if not changed.throttled_until:
        _remove_throttling(update)
    elif changed.throttled_until != seen.throttled_until:
        update.set("throttled_until", number(changed.throttled_until))
        update.set("throttled_reason", {"S": changed.throttled_reason})
    if (changed.shards, changed.is_changing) != (seen.shards, seen.is_changing):
        update.set_or_remove("shards", _shards_value(changed))
    update.set("revision", number(changed.revision))
    if changed.opened_at != seen.opened_at:
        update.set("opened_at", number(changed.opened_at))
    if (changed.starts, changed.real) != (seen.starts, seen.real):
        update.set("starts", numbers(changed.starts))
        if changed.started != seen.started:
            update.set("started", number(changed.started))
        set_history(update, STARTS, changed.real, seen.real)
        update.equals("started", seen.started)
        update.equals("reports", seen.reports)
    if changed.holders is None and seen.holders is not None:
        update.remove("holders")
    if changed.reported_at != seen.reported_at:
        update.set("reported_at", number(changed.reported_at))
    update.equals("revision", seen.revision)
    return update


def _shards_value(shared: SharedLimit) -> Item | None:
    """Below 0 while it is changing; None for one shard, as in items of earlier versions."""
    if shared.is_changing:
        return number(-shared.shards)
    return number(shared.shards) if shared.shards > 1 else None


def correction_expression(correction: Correction, now_ms: int) -> Expression:
    """Leaves the room as it is when units are given back: the next exact claim finds more."""
    update, more = Expression(), correction.more
    corrected, token = update.name("corrected"), correction.token
    update.conditions.append(f"NOT contains({corrected}, {update.value({'S': token})})")
    none = update.value({"L": []})
    update.sets.append(
        f"{corrected} = list_append({update.value(_texts((token,)))}, if_not_exists({corrected}, {none}))"
    )
    update.increment("reports")
    add(update, EXTRA_UNITS, more)
    prepend_extra(update, STARTS, now_ms if more > 0 else correction.started_at, more)
    if more > 0:
        add(update, STARTS.unit_room, -more)
        update.set("reported_at", number(now_ms))
        newest = f"{update.name('starts')}[0]"
        update.conditions.append(f"(attribute_not_exists({newest}) OR {newest} < {update.value(number(now_ms))})")
    return update


def _texts(values: Sequence[str]) -> Item:
    return {"L": [{"S": value} for value in values]}


def throttle_expression(until: int, reason: str) -> Expression:
    update = Expression()
    update.set("throttled_until", number(until))
    update.set("throttled_reason", {"S": reason})
    update.increment("revision")
    throttled = update.name("throttled_until")
    update.conditions.append(f"(attribute_not_exists({throttled}) OR {throttled} < {update.value(number(until))})")
    shards = update.name("shards")
    update.conditions.append(f"(attribute_not_exists({shards}) OR {shards} > {update.value(number(0))})")
    return update


def _remove_throttling(update: Expression) -> None:
    update.remove("throttled_until")
    update.remove("throttled_reason")


def release_expression(task_id: str, at: int) -> Expression:
    update = Expression()
    holder = update.entry("holders", task_id)
    update.removes.append(holder)
    update.conditions.append(f"{holder}.{update.name('at')} = {update.value(number(at))}")
    return update


def _holder_value(holder: Holder) -> Item:
    return {"M": {"user": {"S": holder.user_id}, "at": number(holder.at)}}


def shared_limit_of(name: str, item: Item | None) -> SharedLimit:
    """Returns the item's shared limit; an empty one for None."""
    if not item:
        return SharedLimit(name)
    used = tuple(sorted(map(int, item.get("used", {}).get("NS", ()))))
    return SharedLimit(
        name,
        limits=parse_shared_limits(item["limits"]["S"]) if "limits" in item else None,
        started=integer(item, "started"),
        starts=integers(item, "starts"),
        real=history_of(item, STARTS),
        paused_until=integer(item, "paused_until") if "paused_until" in item else None,
        throttled_until=integer(item, "throttled_until"),
        throttled_reason=item.get("throttled_reason", {}).get("S", ""),
        revision=integer(item, "revision"),
        opened_at=integer(item, "opened_at"),
        asked=integer(item, "asked"),
        served=max((integer(item, "served"), *used)),
        used=used,
        holders=_holders_of(item["holders"]["M"]) if "holders" in item else None,
        newest=item.get("newest", {}).get("S", ""),
        reported_at=integer(item, "reported_at"),
        reports=integer(item, "reports"),
        corrected=tuple(token["S"] for token in item.get("corrected", {}).get("L", ())),
        turn=integer(item, "turn"),
        turn_from=integer(item, "turn_from"),
        shards=abs(integer(item, "shards")) or 1,
        is_changing=integer(item, "shards") < 0,
    )


def _holders_of(fields: Item) -> dict[str, Holder]:
    return {task_id: Holder(one["M"]["user"]["S"], integer(one["M"], "at")) for task_id, one in fields.items()}
