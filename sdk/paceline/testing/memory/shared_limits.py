"""Shared limits in memory. Each write is as atomic as DynamoDB's, and is answered as DynamoDB's would be."""

import threading
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from chalicelib.core.limits import Limits, fingerprint, large_limits, most_at_once, smallest_units_quota
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
from paceline.testing.memory.stores import TRIM_SLACK, less_room, shows_room, within

#: Lists of starts may be so much longer than needed before a claim refuses to make them longer.
SHARED_SLACK = 64


class MemorySharedLimitStore:
    def __init__(self) -> None:
        self._stored: dict[str, SharedLimit] = {}
        #: the newest turn that was used without those in `used`, by name
        self._counted: dict[str, int] = {}
        self._changed: set[str] = set()
        self._waiters: dict[str, dict[int, Waiter]] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> SharedLimit:
        return self._stored.get(name, SharedLimit(name))

    def names(self) -> Sequence[str]:
        return sorted(self._changed)

    def try_claim(self, claim: SharedClaim) -> SharedWrite:
        def fits(shared: SharedLimit) -> bool:
            moved = (shared.shards, shared.is_changing) != (claim.shards, False)
            special = (
                moved or shared.paused_until is not None or shared.throttled_until > 0 or shared.limits != claim.own
            )
            room = shows_room(shared.real, shared.started, shared.real.under, claim.limits, claim.units)
            if large_limits(claim.limits):
                room = room and (not shared.started or shared.real.roomed == shared.started)
            is_new = shared.newest != claim.token
            has_turn = _has_turn(shared, claim, self._counted.get(claim.name, 0))
            ordinary = is_new and room and not special and has_turn and _has_slot(shared, claim)
            slack = TRIM_SLACK if large_limits(claim.limits) else SHARED_SLACK
            ordinary = ordinary and (not smallest_units_quota(claim.limits) or shared.reported_at <= claim.at)
            return ordinary and within(shared.starts, shared.started, claim.limits, claim.at, slack)

        def taken(shared: SharedLimit) -> SharedLimit:
            starts, started, extra = (claim.at, *shared.starts), shared.started + 1, claim.units - 1
            real = less_room(shared.real, claim.limits, claim.units)
            if large_limits(claim.limits):
                real = replace(real, under=fingerprint(claim.limits), roomed=started)
            if extra:
                real = replace(real, extras=(claim.at, extra, *real.extras), extra_units=real.extra_units + extra)
            served = max(shared.served, claim.turn)
            used = tuple(sorted({*shared.used, claim.turn})) if claim.is_newest_turn else shared.used
            holders = shared.holders
            if most_at_once(claim.limits) is not None:
                holders = {**(holders or {}), claim.task_id: Holder(claim.user_id, claim.at)}
            changes = {"starts": starts, "started": started, "real": real, "served": served, "used": used}
            changes["asked"] = shared.asked + claim.asks_again
            return replace(shared, **changes, holders=holders, newest=claim.token)

        return own_shared_claim(self._write(claim.name, fits, taken), claim.token)

    def claim(self, seen: SharedLimit, taken: Taken) -> SharedWrite:
        after = taken.after

        def unmoved(shared: SharedLimit) -> bool:
            names = ("revision", "started", "reports")
            same = all(getattr(shared, name) == getattr(seen, name) for name in names)
            same = same and (seen.asked > seen.served or shared.asked == seen.asked)
            return same and (shared.holders is None) == (seen.holders is None) and not shared.is_full(*_of(taken))

        def claimed(shared: SharedLimit) -> SharedLimit:
            names = ["starts", "started", "real", "served", "used", "newest", "corrected"]
            names += ["paused_until", "throttled_until"]
            self._counted[seen.name] = max(self._counted.get(seen.name, 0), after.served)
            holders = shared.holders
            if most_at_once(taken.limits) is not None and after.holders:
                holders = {**(holders or {}), taken.task_id: after.holders[taken.task_id]}
            values = {name: getattr(after, name) for name in names}
            values["asked"] = shared.asked + after.asked - seen.asked
            return replace(shared, throttled_reason=after.throttled_reason, holders=holders, **values)

        return own_shared_claim(self._write(seen.name, unmoved, claimed), after.newest)

    def trim(self, seen: SharedLimit, kept: int) -> None:
        def trimmed(shared: SharedLimit) -> SharedLimit:
            starts = shared.starts[:kept] + shared.starts[len(seen.starts) :]
            used = tuple(turn for turn in shared.used if turn not in seen.used)
            self._counted[seen.name] = seen.served
            return replace(shared, starts=starts, used=used)

        self._write(seen.name, lambda _: self._counted.get(seen.name, 0) <= seen.served, trimmed)

    def change(self, seen: SharedLimit, changed: SharedLimit) -> SharedWrite:
        has_new_starts = (changed.starts, changed.real) != (seen.starts, seen.real)

        def unmoved(shared: SharedLimit) -> bool:
            same_starts = (shared.started, shared.reports) == (seen.started, seen.reports)
            return shared.revision == seen.revision and (not has_new_starts or same_starts)

        def whole(shared: SharedLimit) -> SharedLimit:
            names = ["limits", "paused_until", "throttled_until", "throttled_reason", "revision", "opened_at"]
            names += ["shards", "is_changing", *(["holders"] if changed.holders is None else [])]
            names += ["reported_at"] if changed.reported_at != seen.reported_at else []
            names += ["starts", "real", "started"] if has_new_starts else []
            return replace(shared, **{name: getattr(changed, name) for name in names})

        if not index_of(seen.name):
            self._changed.add(seen.name)
        return self._write(seen.name, unmoved, whole)

    def ask(self, name: str) -> SharedLimit:
        return self._write(name, lambda _: True, lambda shared: replace(shared, asked=shared.asked + 1)).shared

    def withdraw(self, name: str, turn: int) -> None:
        def is_open(shared: SharedLimit) -> bool:
            return shared.asked == turn > shared.served

        self._write(name, is_open, lambda shared: replace(shared, asked=turn - 1))

    def save_group_turn(self, queue: SharedLimit, served: int, turn: int, turn_from: int) -> SharedWrite:
        return self._write(
            queue.name,
            lambda shared: (shared.turn, shared.served) == (queue.turn, queue.served),
            lambda shared: replace(shared, served=served, turn=turn, turn_from=turn_from),
        )

    def correct_units(self, correction: Correction, now_ms: int) -> SharedWrite:
        more = correction.more

        def is_open(shared: SharedLimit) -> bool:
            is_ahead = more > 0 and bool(shared.starts) and shared.starts[0] >= now_ms
            return not is_corrected(shared, correction) and not is_ahead

        def corrected(shared: SharedLimit) -> SharedLimit:
            real = shared.real
            extras = (now_ms if more > 0 else correction.started_at, more, *real.extras)
            room = (real.unit_room or 0) - more if more > 0 else real.unit_room
            return replace(
                shared,
                real=replace(real, extras=extras, extra_units=real.extra_units + more, unit_room=room),
                reported_at=now_ms if more > 0 else shared.reported_at,
                reports=shared.reports + 1,
                corrected=(correction.token, *shared.corrected),
            )

        write = self._write(correction.name, is_open, corrected)
        return SharedWritten(write.shared) if is_corrected(write.shared, correction) else write

    def throttle(self, name: str, until: int, reason: str) -> SharedLimit:
        def throttled(shared: SharedLimit) -> SharedLimit:
            revision = shared.revision + 1
            return replace(shared, throttled_until=until, throttled_reason=reason, revision=revision)

        return self._write(
            name, lambda shared: shared.throttled_until < until and not shared.is_changing, throttled
        ).shared

    def release(self, name: str, task_id: str, at: int) -> SharedLimit:
        def has(shared: SharedLimit) -> bool:
            holder = (shared.holders or {}).get(task_id)
            return holder is not None and holder.at == at

        def without(shared: SharedLimit) -> SharedLimit:
            return replace(
                shared, holders={other: one for other, one in (shared.holders or {}).items() if other != task_id}
            )

        return self._write(name, has, without).shared

    def add_waiter(self, name: str, waiter: Waiter, until: int) -> None:  # noqa: ARG002 - it lists for ever
        with self._lock:
            self._waiters.setdefault(name, {})[waiter.turn] = waiter

    def waiters(self, name: str, after_turn: int, most: int) -> list[Waiter]:
        with self._lock:
            listed = self._waiters.get(name, {})
            return [listed[turn] for turn in sorted(listed) if turn > after_turn][:most]

    def _write(
        self, name: str, condition: Callable[[SharedLimit], bool], change: Callable[[SharedLimit], SharedLimit]
    ) -> SharedWrite:
        with self._lock:
            shared = self.get(name)
            if not condition(shared):
                return SharedStale(shared)
            self._stored[name] = change(shared)
            return SharedWritten(self._stored[name])


def _has_turn(shared: SharedLimit, claim: SharedClaim, counted: int) -> bool:
    if claim.is_newest_turn:
        return counted < claim.turn and claim.turn not in shared.used
    return bool(claim.turn) or (shared.asked <= shared.served and not shared.used)


def _has_slot(shared: SharedLimit, claim: SharedClaim) -> bool:
    if most_at_once(claim.limits) is None:
        return True
    return shared.holders is not None and not shared.is_full(claim.limits, claim.task_id)


def _of(taken: Taken) -> tuple[Limits, str]:
    return taken.limits, taken.task_id
