"""The stores and the log in memory: for tests and for a simulator. Each write is as atomic as DynamoDB's, and is
answered as DynamoDB's would be. The queue is in `memory_queue`.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from chalicelib.core.admission import Admission
from chalicelib.core.claim import Start
from chalicelib.core.history import History
from chalicelib.core.lane import BRIEF_MS, MARKED_BY_MS, Lane, Lease, Phase, Turn
from chalicelib.core.limits import (
    Limits,
    at_once,
    fingerprint,
    large_limits,
    memory_needed,
    small_limits,
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
from chalicelib.core.scheduled import DueTask
from chalicelib.core.task import (
    ATTEMPT_ERROR,
    ATTEMPTS_KEPT,
    FailedAttempt,
    Json,
    Outcome,
    Progress,
    Task,
    TaskRecord,
    TaskState,
)

#: Lists of starts grow by one with each quick write and are cut back once they are so much longer than needed.
TRIM_SLACK = 14
#: Characters of a payload, as JSON, that a list of records has.
LISTED_PAYLOAD = 1_000
#: Tasks older than the lane's backlog among which a missing predecessor is searched.
OLDER_SEARCHED = 300


class MemoryLaneStore:
    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        #: epoch seconds, of the lanes of forgotten users
        self.expires_at: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def user_ids(self) -> Sequence[str]:
        """Those whose lane is listed."""
        return [user_id for user_id, lane in self._lanes.items() if not _is_forgotten(lane)]

    def get(self, user_id: str) -> Lane:
        return self._lanes.get(user_id, Lane(user_id))

    def prepare(self, user_id: str, how: Callable[[Lane], Lane]) -> Lane:
        """Changes the lane whatever it was, atomically: for a test or a simulator that prepares one."""
        with self._lock:
            self._lanes[user_id] = how(self.get(user_id))
            return self._lanes[user_id]

    def try_fast_admit(
        self, user_id: str, limits: Limits, now_ms: int, task_id: str, only_if_free: bool = False, units: int = 1
    ) -> Write:
        def fits(lane: Lane) -> bool:
            special = lane.limits is not None or lane.paused_until is not None or lane.throttled_until > 0
            special = special or lane.retrying is not None or (only_if_free and not _is_free(lane, limits, now_ms))
            has_room = shows_room(lane.plans, lane.admitted, lane.planned_under, limits, units)
            if large_limits(limits):
                special = special or bool(lane.retries)
            special = special or any(at > now_ms - limit.window_ms for at in lane.retries[:1] for limit in limits)
            return not special and has_room and within(lane.planned, lane.admitted, limits, now_ms)

        def reserved(lane: Lane) -> Lane:
            planned, under = (now_ms, *lane.planned), fingerprint(limits)
            lane = replace(lane, planned=planned, admitted=lane.admitted + 1, newest=task_id, planned_under=under)
            plans, extra = less_room(lane.plans, limits, units), units - 1
            if extra and smallest_units_quota(limits):
                plans = replace(plans, extras=(now_ms, extra, *plans.extras))
            return replace(lane, plans=plans, waiting_units=lane.waiting_units + extra)

        return own_admission(self._write(user_id, fits, reserved), task_id)

    def admit(self, seen: Lane, admission: Admission) -> Write:
        after = admission.lane

        has_new_plans = after.revision != seen.revision

        def unmoved(lane: Lane) -> bool:
            if lane.retrying and not seen.retrying:
                return False
            if has_new_plans:
                return _moving(lane) == _moving(seen)
            return (lane.admitted, lane.revision) == (seen.admitted, seen.revision)

        def reserved(lane: Lane) -> Lane:
            names = ["planned", "admitted", "newest", "planned_under", "plans"]
            names += ["replanned_seq", "replanned_at", "revision", "retries", "turn"] if has_new_plans else []
            waiting_units = lane.waiting_units + after.waiting_units - seen.waiting_units
            return replace(lane, waiting_units=waiting_units, **{name: getattr(after, name) for name in names})

        return own_admission(self._write(seen.user_id, unmoved, reserved), after.newest)

    def try_fast_claim(self, start: Start, limits: Limits) -> Write:
        after = start.lane

        def fits(lane: Lane) -> bool:
            special = (
                lane.limits != after.limits or lane.paused_until is not None or lane.cancelled or lane.throttled_until
            )
            if start.slot:
                return not special and _has_slot(lane, start, limits) and _is_next(lane)
            unfinished = lane.retrying or (lane.running is not None and lane.running.filled_seq)
            return not special and lane.slots is None and not unfinished and _is_next(lane)

        def _is_next(lane: Lane) -> bool:
            following = lane.started_seq == after.started_seq - 1
            has_room = shows_room(lane.real, lane.started, lane.real.under, limits, start.units)
            if large_limits(limits):
                has_room = has_room and lane.real.roomed == lane.started
            if smallest_units_quota(limits) and lane.running and lane.running.used:
                has_room = has_room and lane.running.used[1] <= start.at
            if smallest_units_quota(limits):
                has_room = has_room and lane.reported_at <= start.at
            return following and has_room and within(lane.starts, lane.started, limits, start.at)

        def taken(lane: Lane) -> Lane:
            starts, started, took_ms = (start.at, *lane.starts), lane.started + 1, after.took_ms or lane.took_ms
            lane = replace(lane, starts=starts, started=started, took_ms=took_ms)
            real, extra = less_room(lane.real, limits, start.units), start.units - 1
            if large_limits(limits):
                real = replace(real, under=fingerprint(limits), roomed=lane.started)
            if extra:
                real = replace(real, extras=(start.at, extra, *real.extras), extra_units=real.extra_units + extra)
            turn = None if start.shared else lane.turn
            lane = replace(lane, real=real, waiting_units=lane.waiting_units - extra, turn=turn)
            if start.slot:
                return replace(_with_slot(lane, start.lease), started_seq=after.started_seq, next_receipt="")
            return replace(lane, started_seq=after.started_seq, running=after.running, head_receipt="")

        return own_claim(self._write(after.user_id, fits, taken), start)

    def claim(self, seen: Lane, start: Start) -> Write:
        return own_claim(self._take(seen, start), start)

    def change(self, seen: Lane, changed: Lane) -> Write:
        def unmoved(lane: Lane) -> bool:
            is_same_lease = (changed.running, changed.real) == (seen.running, seen.real) or _lease(lane) == _lease(seen)
            is_same_report = _reported(changed) == _reported(seen) or lane.reports == seen.reports
            slots = changed.slots or {}
            touched = [known for task_id, known in (seen.slots or {}).items() if slots.get(task_id) != known]
            is_same_lease = is_same_lease and is_same_report and all(_is_same_slot(lane, known) for known in touched)
            return _moving(lane) == _moving(seen) and is_same_lease

        def whole(lane: Lane) -> Lane:
            running = lane.running if changed.running == seen.running else changed.running
            names = ("head_receipt", "next_receipt", "newest", "took_ms", "freed", "reports")
            kept = {name: getattr(lane, name) for name in names}
            kept["slots"] = _changed_slots(lane, seen, changed)
            kept["turn"] = (lane if changed.turn == seen.turn else changed).turn
            kept["reported_at"] = (lane if changed.reported_at == seen.reported_at else changed).reported_at
            real = lane.real if changed.real == seen.real else changed.real
            return replace(changed, running=running, real=real, **kept)

        return self._write(seen.user_id, unmoved, whole)

    def forget(self, seen: Lane, changed: Lane, expires_at: int) -> Write:
        write = self.change(seen, changed)
        if isinstance(write, Written):
            gone = {"head_receipt": "", "next_receipt": "", "took_ms": 0}
            lane = self.prepare(seen.user_id, lambda lane: replace(lane, **gone))
            self.expires_at[seen.user_id] = expires_at
            return Written(lane)
        return write

    def save_head_receipt(self, seen: Lane, receipt: str) -> Write:
        def unmoved(lane: Lane) -> bool:
            return lane.revision == seen.revision and (seen.slots is None or lane.freed == seen.freed)

        return self._write(seen.user_id, unmoved, lambda lane: replace(lane, head_receipt=receipt))

    def save_turn(self, seen: Lane, turn: Turn) -> Write:
        def unmoved(lane: Lane) -> bool:
            is_as_seen = (lane.turn, lane.started) == (seen.turn, seen.started)
            return lane.revision == seen.revision and (is_as_seen or lane.turn == turn)

        return self._write(seen.user_id, unmoved, lambda lane: replace(lane, turn=turn))

    def save_next_receipt(self, seen: Lane, receipt: str) -> Write:
        def unmoved(lane: Lane) -> bool:
            return (lane.revision, lane.freed, lane.started) == (seen.revision, seen.freed, seen.started)

        return self._write(seen.user_id, unmoved, lambda lane: replace(lane, next_receipt=receipt))

    def save_slot_receipt(self, seen: Lane, lease: Lease, receipt: str, visible_at: int) -> Write:
        def unmoved(lane: Lane) -> bool:
            return (lane.revision, lane.freed) == (seen.revision, seen.freed) and _is_same_slot(lane, lease)

        def saved(lane: Lane) -> Lane:
            return _with_slot(lane, replace((lane.slots or {})[lease.task_id], receipt=receipt, visible_at=visible_at))

        return self._write(seen.user_id, unmoved, saved)

    def release_slot(self, user_id: str, lease: Lease, took_ms: int) -> Write:
        def is_its(lane: Lane) -> bool:
            return _token_in_slot(lane, lease) == lease.token

        def released(lane: Lane) -> Lane:
            slots = {other: known for other, known in (lane.slots or {}).items() if other != lease.task_id}
            return replace(lane, slots=slots, freed=lane.freed + 1, took_ms=took_ms or lane.took_ms)

        return self._write(user_id, is_its, released)

    def _take(self, seen: Lane, start: Start) -> Write:
        after = start.lane
        moves_admitted = after.admitted != seen.admitted

        def unmoved(lane: Lane) -> bool:
            same = (lane.started, lane.revision) == (seen.started, seen.revision)
            if start.slot:
                same = same and lane.reports == seen.reports and _are_slots_free(lane, seen, start)
            elif seen.slots is not None:
                same = same and lane.slots == {}
            return same and _lease(lane) == _lease(seen) and not (moves_admitted and lane.admitted != seen.admitted)

        def taken(lane: Lane) -> Lane:
            others: dict[str, Any] = {"head_receipt": "", "slots": after.slots}
            if start.slot:
                cleared = set(seen.slots or {}) - set(after.slots or {})
                slots = {other: known for other, known in (lane.slots or {}).items() if other not in cleared}
                others = {"slots": _with_slot(replace(lane, slots=slots), start.lease).slots}
                others["next_receipt"] = "" if after.next_receipt != seen.next_receipt else lane.next_receipt
            return replace(
                lane,
                **others,
                admitted=after.admitted if moves_admitted else lane.admitted,
                started_seq=after.started_seq,
                started=after.started,
                starts=after.starts,
                retries=after.retries,
                real=after.real,
                waiting_units=lane.waiting_units + after.waiting_units - seen.waiting_units,
                running=after.running if after.running != seen.running else lane.running,
                took_ms=after.took_ms or lane.took_ms,
                turn=None if start.shared else lane.turn,
                cancelled=after.cancelled,
                paused_until=lane.paused_until if seen.paused_until is None else None,
                throttled_until=0 if seen.throttled_until else lane.throttled_until,
                throttled_reason="" if seen.throttled_until else lane.throttled_reason,
            )

        return self._write(seen.user_id, unmoved, taken)

    def throttle(self, user_id: str, lease: Lease, until: int, reason: str) -> Lease | None:
        def throttled(lane: Lane) -> Lane:
            lane, revision = _with_lease(lane, lease, until, lease.last_token, Phase.RETRY), lane.revision + 1
            lane = _replaced(lane, lease, attempt=lease.attempt - 1)
            return replace(lane, throttled_until=until, throttled_reason=reason, revision=revision)

        return self._write_leased(user_id, lease, throttled)

    def correct_units(self, start: Start, used_units: int, now_ms: int) -> int | None:
        lease, more = start.lease, used_units - start.units
        assert lease is not None

        def is_open(lane: Lane) -> bool:
            found = _found(lane, lease)
            is_ahead = bool(start.slot and more > 0 and lane.starts and lane.starts[0] >= now_ms)
            return found is not None and found.token == lease.token and not found.is_corrected and not is_ahead

        def corrected(lane: Lane) -> Lane:
            extras = (now_ms if more > 0 else start.at, more, *lane.real.extras)
            real = replace(lane.real, extras=extras, extra_units=lane.real.extra_units + more)
            lane = _replaced(replace(lane, real=real), lease, used=(used_units, now_ms))
            lane = replace(lane, reported_at=now_ms, reports=lane.reports + 1) if lease.in_slot else lane
            if not smallest_units_quota(start.limits):
                return lane
            room = (lane.real.unit_room or 0) + (min(0, -more) if lease.in_slot else -more)
            planned_room = (lane.plans.unit_room or 0) + min(0, -more)
            plans = replace(lane.plans, unit_room=planned_room, is_outdated=True)
            return replace(lane, real=replace(real, unit_room=room), plans=plans)

        write = self._write(start.lane.user_id, is_open, corrected)
        if later := after_newest(own_correction(write, start), start, now_ms):
            return self.correct_units(start, used_units, later)
        return corrected_at(write, start)

    def renew_lease(self, user_id: str, lease: Lease, until: int) -> Lease | None:
        return self._write_leased(
            user_id, lease, lambda lane: _with_lease(lane, lease, until, lease.token, Phase.RUNNING)
        )

    def request_cancel(self, user_id: str, lease: Lease, now_ms: int) -> bool:
        def requested(lane: Lane) -> Lane:
            found = _found(lane, lease)
            at = (found and found.cancel_requested_at) or now_ms
            return replace(_replaced(lane, lease, cancel_requested_at=at), revision=lane.revision + 1)

        return bool(self._write_leased(user_id, lease, requested))

    def release_lease(self, user_id: str, lease: Lease, retry_at: int) -> Lease | None:
        def released(lane: Lane) -> Lane:
            return _with_lease(lane, lease, retry_at, lease.last_token, Phase.RETRY)

        return self._write_leased(user_id, lease, released)

    def end_lease(self, user_id: str, lease: Lease, now_ms: int, took_ms: int) -> bool:
        def ended(lane: Lane) -> Lane:
            return replace(_with_lease(lane, lease, now_ms, lease.last_token, Phase.STARTED), took_ms=took_ms)

        return bool(self._write_leased(user_id, lease, ended))

    def _write_leased(self, user_id: str, lease: Lease, change: Callable[[Lane], Lane]) -> Lease | None:
        """Returns the lease as stored; None when the lane's lease is another one."""

        def is_leased(lane: Lane) -> bool:
            found = _found(lane, lease)
            return found is not None and found.token == lease.token

        write = self._write(user_id, is_leased, change)
        return _found(write.lane, lease) if isinstance(write, Written) else None

    def _write(self, user_id: str, condition: Callable[[Lane], bool], change: Callable[[Lane], Lane]) -> Write:
        with self._lock:
            lane = self.get(user_id)
            if not condition(lane):
                return Stale(lane)
            self._lanes[user_id] = change(lane)
            return Written(self._lanes[user_id])


def _lease(lane: Lane) -> tuple[str, int, bool] | None:
    return (lane.running.token, lane.running.until, lane.running.is_corrected) if lane.running else None


def _reported(lane: Lane) -> tuple[History, int]:
    return lane.real, lane.reported_at


def _is_forgotten(lane: Lane) -> bool:
    return lane.forgotten_at > 0 and lane.forgotten_seq == lane.admitted


def _moving(lane: Lane) -> tuple[int, ...]:
    return lane.admitted, lane.started, lane.started_seq, lane.revision


def _is_free(lane: Lane, limits: Limits, now_ms: int) -> bool:
    """As far as DynamoDB's condition sees it."""
    if at_once(limits) > 1:
        has_slot = lane.slots is None or len(lane.slots) < at_once(limits)
        is_alone_over = lane.running is None or lane.running.until <= now_ms
        return lane.admitted == lane.started_seq and has_slot and is_alone_over
    is_marked = lane.running is not None and lane.running.phase is not Phase.STARTED
    none_waits = lane.admitted == lane.started_seq and bool(lane.starts) and lane.starts[0] <= now_ms - MARKED_BY_MS
    return not is_marked and (lane.took_ms < BRIEF_MS or none_waits)


def _with_lease(lane: Lane, lease: Lease, until: int, token: str, phase: Phase) -> Lane:
    freed = lane.freed + (lease.in_slot and phase is not Phase.RUNNING)
    return _replaced(replace(lane, freed=freed), lease, until=until, token=token, phase=phase)


def _replaced(lane: Lane, lease: Lease, **changes: Any) -> Lane:
    """The lane with these changes to the lease, wherever it is."""
    found = _found(lane, lease)
    assert found is not None
    changed = replace(found, **changes)
    return _with_slot(lane, changed) if lease.in_slot else replace(lane, running=changed)


def _found(lane: Lane, lease: Lease) -> Lease | None:
    return (lane.slots or {}).get(lease.task_id) if lease.in_slot else lane.running


def _with_slot(lane: Lane, lease: Lease | None) -> Lane:
    assert lease is not None
    return replace(lane, slots={**(lane.slots or {}), lease.task_id: lease})


def _token_in_slot(lane: Lane, lease: Lease) -> str | None:
    found = (lane.slots or {}).get(lease.task_id)
    return found.token if found else None


def _is_same_slot(lane: Lane, known: Lease) -> bool:
    found = (lane.slots or {}).get(known.task_id)
    return found is not None and (found.token, found.until) == (known.token, known.until)


def _has_slot(lane: Lane, start: Start, limits: Limits) -> bool:
    """As far as DynamoDB's quick condition sees it."""
    is_free = lane.slots is not None and len(lane.slots) < at_once(limits) and start.slot not in lane.slots
    return is_free and (lane.running is None or lane.running.until <= start.at)


def _are_slots_free(lane: Lane, seen: Lane, start: Start) -> bool:
    """Whether each lease that the claim takes for over still is that one."""
    if seen.slots is None:
        return lane.slots is None
    known = seen.slots.values()
    over = [one for one in known if one.until <= start.at and one.phase is not Phase.RETRY]
    own = [one for one in known if one.task_id == start.slot or one.task_id not in (start.lane.slots or {})]
    is_new = start.slot in seen.slots or start.slot not in (lane.slots or {})
    return lane.slots is not None and is_new and all(_is_same_slot(lane, one) for one in (*over, *own))


def _changed_slots(lane: Lane, seen: Lane, changed: Lane) -> Mapping[str, Lease] | None:
    """The lane's slots, with the changes from `seen` to `changed`."""
    if changed.slots == seen.slots or lane.slots is None:
        return lane.slots
    after = dict(lane.slots)
    for task_id, known in (seen.slots or {}).items():
        new = (changed.slots or {}).get(task_id)
        if new is None:
            after.pop(task_id, None)
        elif new != known:
            over = {"until": new.until, "token": new.token, "phase": new.phase, "used": new.used}
            after[task_id] = replace(after[task_id], **over)
    return after


def within(listed: Sequence[int], counted: int, limits: Limits, at: int, slack: int = TRIM_SLACK) -> bool:
    """Whether one more start at `at` breaks no limit, as far as the listed ones of `counted` starts can show it."""
    if counted and not (listed and listed[0] <= at):
        return False
    for limit in small_limits(limits):
        shown = len(listed) >= limit.quota and listed[limit.quota - 1] <= at - limit.window_ms
        if counted >= limit.quota and not shown:
            return False
    return len(listed) <= memory_needed(limits) + slack


def shows_room(history: History, total: int, under: str, limits: Limits, units: int) -> bool:
    """Whether the large limits allow one more, as far as the room shows it that the last exact write found."""
    large = large_limits(limits)
    if not large or not total:
        return True
    room = {False: (history.room, 1), True: (history.unit_room, units)}
    rooms = [room[limit.counts_units] for limit in large]
    return under == fingerprint(limits) and all(left is not None and left >= taken for left, taken in rooms)


def less_room(history: History, limits: Limits, units: int) -> History:
    large = large_limits(limits)
    if quotas := [limit.quota for limit in large if not limit.counts_units]:
        history = replace(history, room=(min(quotas) if history.room is None else history.room) - 1)
    if quotas := [limit.quota for limit in large if limit.counts_units]:
        history = replace(history, unit_room=(min(quotas) if history.unit_room is None else history.unit_room) - units)
    return history


class MemoryScheduledCounts:
    def __init__(self) -> None:
        self._counts: dict[str, dict[int, int]] = {}
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, user_id: str, today: int, days: Mapping[int, int], most: int) -> int | None:
        with self._lock:
            counts = {day: count for day, count in self._counts.get(user_id, {}).items() if day >= today}
            after = {day: counts.get(day, 0) + count for day, count in days.items()}
            if max(after.values(), default=0) > most:
                return None
            self._counts[user_id] = counts | after
            self._numbers[user_id] = self._numbers.get(user_id, 0) + 1
            return self._numbers[user_id]


class MemoryDueTasks:
    def __init__(self) -> None:
        self._listed: dict[str, set[DueTask]] = {}
        self._admitting: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()

    def add(self, user_id: str, tasks: Sequence[DueTask]) -> None:
        with self._lock:
            self._listed.setdefault(user_id, set()).update(tasks)

    def due(self, user_id: str, now_ms: int, most: int) -> list[DueTask]:
        with self._lock:
            return sorted(task for task in self._listed.get(user_id, ()) if task.run_at <= now_ms)[:most]

    def remove(self, user_id: str, tasks: Sequence[DueTask]) -> None:
        with self._lock:
            self._listed.setdefault(user_id, set()).difference_update(tasks)

    def try_begin_admitting(self, user_id: str, token: str, now_ms: int, until: int) -> bool:
        with self._lock:
            known = self._admitting.get(user_id)
            if known and known[1] > now_ms and known[0] != token:
                return False
            self._admitting[user_id] = (token, until)
            return True

    def end_admitting(self, user_id: str, token: str) -> None:
        with self._lock:
            if self._admitting.get(user_id, ("", 0))[0] == token:
                self._admitting[user_id] = (token, 0)

    def __len__(self) -> int:
        return sum(map(len, self._listed.values()))


class MemoryCallbackSlots:
    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    def take(self, user_id: str, now_ms: int, until_ms: int, most: int) -> int | None:
        with self._lock:
            for slot in range(most):
                if self._taken.get((user_id, slot), 0) <= now_ms:
                    self._taken[user_id, slot] = until_ms
                    return slot
        return None

    def give_back(self, user_id: str, slot: int, until_ms: int) -> None:
        with self._lock:
            if self._taken.get((user_id, slot)) == until_ms:
                del self._taken[user_id, slot]


class MemoryTaskStore:
    def __init__(self) -> None:
        self._records: dict[tuple[str, str], TaskRecord] = {}
        #: user id and time of each call of `keep_payloads`
        self.payloads_kept: list[tuple[str, int]] = []
        self._lock = threading.Lock()

    def create_if_absent(self, task: Task) -> None:
        with self._lock:
            self._records.setdefault((task.user_id, task.task_id), TaskRecord(_stored(task)))

    def create_many(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self.create_if_absent(task)

    def newest(
        self, user_id: str, state: TaskState | None, most: int, before: str | None
    ) -> tuple[list[TaskRecord], str | None]:
        with self._lock:
            ids = sorted((task_id for user, task_id in self._records if user == user_id), reverse=True)
            records = [self._records[user_id, task_id] for task_id in ids if before is None or task_id < before]
        found = [_as_listed(record) for record in records if state in (None, record.state)]
        return found[:most], found[most - 1].task.task_id if len(found) > most else None

    def get(self, user_id: str, task_id: str) -> TaskRecord | None:
        return self._records.get((user_id, task_id))

    def between(self, user_id: str, first_seq: int, last_seq: int, newest_seq: int | None) -> Sequence[TaskRecord]:
        with self._lock:
            mine = sorted((key for key in self._records if key[0] == user_id), reverse=True)
            searched = mine if newest_seq is None else mine[: OLDER_SEARCHED + newest_seq - first_seq]
            newest = [_as_listed(self._records[key]) for key in searched]
        found = [record for record in newest if first_seq <= record.task.seq <= last_seq]
        return sorted(found, key=lambda record: record.task.seq)

    def following(self, user_id: str, task_id: str, first_seq: int, last_seq: int) -> Sequence[TaskRecord]:
        with self._lock:
            ids = sorted(task for user, task in self._records if user == user_id and task >= task_id)
            records = [
                _as_listed(self._records[user_id, one]) for one in ids[: OLDER_SEARCHED + last_seq + 1 - first_seq]
            ]
        found = [record for record in records if first_seq <= record.task.seq <= last_seq]
        return sorted(found, key=lambda record: record.task.seq)

    def finish(self, task: Task, outcome: Outcome) -> None:
        known = self._records.get((task.user_id, task.task_id))
        progress = outcome.progress or (known.progress if known else None)
        outcome = replace(outcome, result=_as_json(outcome.result), progress=progress)
        self._note(TaskRecord(_stored(task), outcome.state, outcome, outcome.attempts, outcome.error, None, progress))

    def report_progress(self, task: Task, progress: Progress) -> bool:
        key = (task.user_id, task.task_id)
        with self._lock:
            known = self._records.get(key)
            if known and known.outcome is None and (known.progress is None or known.progress.at <= progress.at):
                self._records[key] = replace(known, progress=progress)
            return known is not None

    def mark_admitted(self, task: Task) -> bool:
        return self._note_scheduled(TaskRecord(_stored(task)))

    def cancel_scheduled(self, task: Task, outcome: Outcome) -> bool:
        return self._note_scheduled(TaskRecord(_stored(task), outcome.state, outcome, outcome.attempts, outcome.error))

    def _note_scheduled(self, record: TaskRecord) -> bool:
        key = (record.task.user_id, record.task.task_id)
        with self._lock:
            known = self._records.get(key)
            if known and (known.outcome or known.task.seq):
                return False
            self._records[key] = _with_payload_of(known, record)
            return True

    def request_cancel(self, task: Task, now_ms: int) -> None:
        key = (task.user_id, task.task_id)
        with self._lock:
            known = self._records.get(key, TaskRecord(_stored(task)))
            if known.outcome is None:
                self._records[key] = replace(known, cancel_requested_at=known.cancel_requested_at or now_ms)

    def attempt_failed(self, task: Task, attempt: FailedAttempt) -> None:
        record = TaskRecord(_stored(task), TaskState.QUEUED, None, attempt.number, attempt.error)
        kept = replace(attempt, error=attempt.error[:ATTEMPT_ERROR])
        self._note(replace(record, failed_attempts=(kept,)))

    def delete_finished(self, user_id: str, up_to_seq: int, most: int) -> tuple[int, bool]:
        with self._lock:
            mine = [record for record in self._records.values() if record.task.user_id == user_id]
            ended = [one for one in mine if 0 < one.task.seq <= up_to_seq or (one.outcome and not one.task.seq)]
            found = [(user_id, record.task.task_id) for record in ended]
            for key in found[:most]:
                del self._records[key]
        return len(found[:most]), len(found) >= most

    def records(self) -> list[TaskRecord]:
        with self._lock:
            return list(self._records.values())

    def change_record(self, task: Task, how: Callable[[TaskRecord], TaskRecord]) -> TaskRecord | None:
        """Changes a stored record, atomically; None if there is none."""
        key = (task.user_id, task.task_id)
        with self._lock:
            if key in self._records:
                self._records[key] = how(self._records[key])
            return self._records.get(key)

    def _note(self, record: TaskRecord) -> None:
        key = (record.task.user_id, record.task.task_id)
        with self._lock:
            known = self._records.get(key)
            if known is None or known.outcome is None:
                self._records[key] = _with_payload_of(known, record)

    def keep_payloads(self, user_id: str, now_ms: int) -> None:
        """Nothing expires here."""
        self.payloads_kept.append((user_id, now_ms))

    def lose_payload(self, user_id: str, task_id: str) -> None:
        """The payload has expired."""
        record = self._records[user_id, task_id]
        self._records[user_id, task_id] = replace(record, task=replace(record.task, payload=None, has_payload=False))


def _as_listed(record: TaskRecord) -> TaskRecord:
    """Lists leave out large payloads, as those of DynamoDB do."""
    if len(json.dumps(record.task.payload)) <= LISTED_PAYLOAD:
        return record
    return replace(record, task=replace(record.task, payload=None, has_payload=False))


def _with_payload_of(known: TaskRecord | None, record: TaskRecord) -> TaskRecord:
    """The record, with the cancel request that is known, and the payload if the task came without it."""
    if known is None:
        return record
    others = {one.number: one for one in (*known.failed_attempts, *record.failed_attempts)}
    attempts = tuple(others[number] for number in sorted(others))[-ATTEMPTS_KEPT:]
    kept = {"progress": record.progress or known.progress, "failed_attempts": attempts}
    record = replace(record, cancel_requested_at=known.cancel_requested_at, **kept)
    if record.task.has_payload:
        return record
    task = replace(record.task, payload=known.task.payload, has_payload=known.task.has_payload)
    return replace(record, task=task)


def _stored(task: Task) -> Task:
    return replace(task, payload=_as_json(task.payload), is_repeat=False)


def _as_json(value: Json) -> Json:
    """A copy of the value, through JSON."""
    return json.loads(json.dumps(value))


class MemoryCompletionLog:
    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def write(self, event: dict[str, Any]) -> None:
        with self._lock:
            self._events.append(_as_json(event))

    @property
    def events(self) -> Sequence[dict[str, Any]]:
        return tuple(self._events)
