from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.core.limits import Limits, parse_shared_limits
from chalicelib.core.ports import Correction, SharedClaim, SharedStale, SharedWrite, SharedWritten
from chalicelib.core.shared_limit import (
    Full,
    SharedLimit,
    Taken,
    Waiter,
    claim_shared,
    controlled_by,
    full_at,
    paused_shared,
    resumed_shared,
    with_shared_limits,
)
from tests.factories import NOW
from tests.integration.ports import Ports

LIMITS = parse_shared_limits("3/second; 50/minute")
FIVE_AT_ONCE = parse_shared_limits("5 at once")
InThreads = Callable[[int, Callable[[int], Any]], list[Any]]


def quick(ports: Ports, name: str, at: int = NOW, limits: Limits = LIMITS, **fields: Any) -> SharedWrite:
    token = fields.pop("token", f"w-{at}-{fields}")
    fields = {"user_id": "ann", "task_id": "t1", **fields}
    return ports.shared_limits.try_claim(SharedClaim(name, at=at, token=token, limits=limits, **fields))


def exact(ports: Ports, name: str, at: int = NOW, limits: Limits = LIMITS, **options: Any) -> SharedWrite:
    seen = ports.shared_limits.get(name)
    return ports.shared_limits.claim(seen, taken(seen, at, limits, **options))


def taken(seen: SharedLimit, at: int = NOW, limits: Limits = LIMITS, **options: Any) -> Taken:
    decision = claim_shared(seen, limits, at, at + 150, **{"task": ("ann", "t1"), "token": f"x-{at}", **options})
    assert isinstance(decision, Taken)
    return decision


def written(write: SharedWrite) -> SharedLimit:
    assert isinstance(write, SharedWritten)
    return write.shared


def stale(write: SharedWrite) -> SharedLimit:
    assert isinstance(write, SharedStale)
    return write.shared


def change(ports: Ports, name: str, how: Callable[[SharedLimit], SharedLimit]) -> SharedLimit:
    seen = ports.shared_limits.get(name)
    return written(ports.shared_limits.change(seen, how(seen)))


def test_unknown_name_is_empty(ports: Ports, user: str) -> None:
    assert ports.shared_limits.get(user) == SharedLimit(user)
    assert user not in ports.shared_limits.names()


def test_user_of_the_same_name_has_nothing_to_do_with_it(ports: Ports, user: str) -> None:
    written(quick(ports, user))
    for name in (user, f"shared{user}", f"shared#{user}"):
        assert ports.lanes.get(name).started == 0


def test_free_starts_are_taken_at_once_and_seen_by_all(ports: Ports, user: str) -> None:
    first = written(quick(ports, user, NOW))
    second = written(quick(ports, user, NOW + 5))
    assert (first.starts, second.starts, second.started) == ((NOW,), (NOW + 5, NOW), 2)
    assert ports.shared_limits.get(user) == second


def test_full_window_refuses_and_shows_when_it_opens(ports: Ports, user: str) -> None:
    for at in (NOW, NOW + 1, NOW + 2):
        written(quick(ports, user, at))
    full = stale(quick(ports, user, NOW + 999))
    assert full.starts == (NOW + 2, NOW + 1, NOW)
    assert isinstance(claim_shared(full, LIMITS, NOW + 500, NOW + 650), Full)
    assert written(quick(ports, user, NOW + 1_000)).started == 4


def test_no_start_lies_before_an_earlier_one(ports: Ports, user: str) -> None:
    written(quick(ports, user, NOW))
    assert stale(quick(ports, user, NOW - 1)).started == 1


def test_repeat_of_a_claim_is_recognised_and_takes_no_second_start(ports: Ports, user: str) -> None:
    written(quick(ports, user, NOW, token="mine"))
    assert written(quick(ports, user, NOW, token="mine")).started == 1
    seen = ports.shared_limits.get(user)
    again = taken(seen, NOW + 1)
    written(ports.shared_limits.claim(seen, again))
    assert written(ports.shared_limits.claim(seen, again)).started == 2


def test_long_list_is_trimmed_by_the_exact_way(ports: Ports, user: str) -> None:
    limits, at = parse_shared_limits("2/second"), NOW
    for _ in range(160):
        at += 500
        if isinstance(quick(ports, user, at, limits), SharedStale):
            written(exact(ports, user, at, limits))
    shared = ports.shared_limits.get(user)
    assert shared.started == 160
    assert len(shared.starts) <= 3 + 64 + 1


def test_list_is_trimmed_from_its_old_end_and_the_limit_still_holds(ports: Ports, user: str) -> None:
    limits = parse_shared_limits("2/second")
    for n in range(20):
        written(quick(ports, user, NOW + n * 500, limits))
    ports.shared_limits.trim(ports.shared_limits.get(user), 3)
    shared = ports.shared_limits.get(user)
    assert (shared.started, shared.starts) == (20, (NOW + 9_500, NOW + 9_000, NOW + 8_500))
    assert isinstance(quick(ports, user, NOW + 9_999, limits), SharedStale)
    assert written(quick(ports, user, NOW + 10_000, limits)).started == 21


def test_exact_claim_of_what_changed_meanwhile_is_stale(ports: Ports, user: str) -> None:
    seen = ports.shared_limits.get(user)
    written(quick(ports, user, NOW))
    assert stale(ports.shared_limits.claim(seen, taken(seen, NOW))).started == 1


def test_limits_set_at_run_time_hold_for_claims_that_know_them_alone(ports: Ports, user: str) -> None:
    own = parse_shared_limits("1/minute; 4 at once")
    change(ports, user, lambda shared: with_shared_limits(shared, own, NOW))
    assert stale(quick(ports, user)).limits == own
    assert stale(quick(ports, user, limits=own, own=own)).holders is None  # the exact way begins the list
    assert written(exact(ports, user, limits=own)).started == 1
    change(ports, user, lambda shared: with_shared_limits(shared, None, NOW))
    assert stale(quick(ports, user, NOW + 60_000, limits=own, own=own)).limits is None
    assert user in ports.shared_limits.names()


def test_nothing_starts_while_paused_and_a_resume_opens(ports: Ports, user: str) -> None:
    change(ports, user, lambda shared: paused_shared(shared, NOW + 9_000))
    assert stale(quick(ports, user)).paused_until == NOW + 9_000
    assert isinstance(claim_shared(ports.shared_limits.get(user), LIMITS, NOW, NOW + 150), Full)
    assert written(exact(ports, user, NOW + 9_000)).paused_until is None
    change(ports, user, lambda shared: paused_shared(shared, None))
    change(ports, user, lambda shared: resumed_shared(shared, NOW))
    assert written(quick(ports, user, NOW + 9_001)).started == 2


def test_change_of_what_changed_meanwhile_is_stale(ports: Ports, user: str) -> None:
    seen = ports.shared_limits.get(user)
    ports.shared_limits.throttle(user, NOW + 5_000, "slow down")
    assert stale(ports.shared_limits.change(seen, paused_shared(seen, None))).throttled_until == NOW + 5_000


def test_throttling_never_ends_earlier_by_another_one(ports: Ports, user: str) -> None:
    ports.shared_limits.throttle(user, NOW + 5_000, "slow down")
    shared = ports.shared_limits.throttle(user, NOW + 1_000, "again")
    assert (shared.throttled_until, shared.throttled_reason) == (NOW + 5_000, "slow down")
    assert stale(quick(ports, user)).throttled_until == NOW + 5_000
    assert written(exact(ports, user, NOW + 5_000)).throttled_until == 0


def test_turns_are_counted_and_nobody_without_one_starts_before_them(ports: Ports, user: str) -> None:
    assert [ports.shared_limits.ask(user).asked for _ in range(3)] == [1, 2, 3]
    assert stale(quick(ports, user)).waiting == 3
    assert written(quick(ports, user, turn=2, is_newest_turn=True)).served == 2
    assert stale(quick(ports, user, NOW + 1)).waiting == 1
    late = written(quick(ports, user, NOW + 1, turn=1))
    assert (late.served, late.started) == (2, 2)
    assert stale(quick(ports, user, NOW + 2, turn=2, is_newest_turn=True)).started == 2  # it was used
    assert written(quick(ports, user, NOW + 2, turn=3, is_newest_turn=True)).waiting == 0
    assert stale(quick(ports, user, NOW + 1_000)).used == (2, 3)  # the exact way begins anew
    free = written(exact(ports, user, NOW + 1_000))
    assert (free.started, free.served, free.used) == (4, 3, ())
    assert written(quick(ports, user, NOW + 1_001)).started == 5


def test_turn_is_taken_back_unless_a_later_one_was_given(ports: Ports, user: str) -> None:
    for _ in range(2):
        ports.shared_limits.ask(user)
    ports.shared_limits.withdraw(user, 1)
    assert ports.shared_limits.get(user).asked == 2
    ports.shared_limits.withdraw(user, 2)
    ports.shared_limits.withdraw(user, 2)
    assert ports.shared_limits.get(user).asked == 1
    assert ports.shared_limits.ask(user).asked == 2


@pytest.mark.parametrize("claim", [quick, exact])
def test_turn_that_was_used_is_not_taken_back(ports: Ports, user: str, claim: Callable[..., SharedWrite]) -> None:
    ports.shared_limits.ask(user)
    written(claim(ports, user, turn=1, **({"is_newest_turn": True} if claim is quick else {})))
    ports.shared_limits.withdraw(user, 1)
    assert ports.shared_limits.get(user).asked == 1


def test_claims_that_come_in_another_order_than_their_turns_are_all_written(ports: Ports, user: str) -> None:
    for _ in range(3):
        ports.shared_limits.ask(user)
    seen = ports.shared_limits.get(user)
    after = [written(quick(ports, user, turn=turn, is_newest_turn=turn > seen.served)) for turn in (2, 3, 1)]
    assert [(shared.started, shared.served) for shared in after] == [(1, 2), (2, 3), (3, 3)]
    assert ports.shared_limits.get(user).used == (1, 2, 3)


def test_trim_counts_the_turns_that_it_saw_and_never_lowers_the_newest(ports: Ports, user: str) -> None:
    for _ in range(4):
        ports.shared_limits.ask(user)
    early = written(quick(ports, user, turn=1, is_newest_turn=True))
    late = written(quick(ports, user, turn=3, is_newest_turn=True))
    written(quick(ports, user, turn=2, is_newest_turn=True))
    ports.shared_limits.trim(late, 0)
    trimmed = ports.shared_limits.get(user)
    assert (trimmed.served, trimmed.used, trimmed.started, len(trimmed.starts)) == (3, (2,), 3, 1)
    ports.shared_limits.trim(early, 0)
    assert ports.shared_limits.get(user).served == 3
    assert ports.shared_limits.get(user).waiting == 1
    assert stale(quick(ports, user, turn=1, is_newest_turn=True)).started == 3


def test_claim_that_asks_again_gives_the_next_turn_by_the_same_write(ports: Ports, user: str) -> None:
    assert [ports.shared_limits.ask(user).asked for _ in range(2)] == [1, 2]
    first = written(quick(ports, user, turn=1, is_newest_turn=True, asks_again=True))
    assert (first.asked, first.served) == (3, 1)
    decision = taken(first, NOW + 1, turn=2)
    second = written(ports.shared_limits.claim(first, replace(decision, after=replace(decision.after, asked=4))))
    assert (second.asked, second.served, second.started) == (4, 2, 2)


def test_groups_turn_is_stored_unless_another_lane_has_stored_one(ports: Ports, user: str) -> None:
    queue = ports.shared_limits.ask(f"{user} acme")
    assert (queue.asked, queue.turn) == (1, 0)
    saved = written(ports.shared_limits.save_group_turn(queue, 0, 7, NOW))
    assert (saved.asked, saved.served, saved.turn, saved.turn_from) == (1, 0, 7, NOW)
    assert stale(ports.shared_limits.save_group_turn(queue, 1, 8, 0)) == saved
    assert written(ports.shared_limits.save_group_turn(saved, 1, 7, NOW)).served == 1
    assert stale(ports.shared_limits.save_group_turn(saved, 0, 7, NOW)).served == 1
    assert ports.shared_limits.get(user) == SharedLimit(user)


def test_turn_asked_between_reading_and_an_exact_claim_refuses_it(ports: Ports, user: str) -> None:
    seen = ports.shared_limits.get(user)
    ports.shared_limits.ask(user)
    assert stale(ports.shared_limits.claim(seen, taken(seen))).waiting == 1


def test_as_many_tasks_at_once_as_allowed_and_each_release_counts_once(ports: Ports, user: str) -> None:
    written(exact(ports, user, NOW, FIVE_AT_ONCE, task=("ann", "t0")))
    for n in range(1, 5):
        written(quick(ports, user, NOW + n, FIVE_AT_ONCE, task_id=f"t{n}"))
    assert set(stale(quick(ports, user, NOW + 9, FIVE_AT_ONCE, task_id="t9")).holders or ()) == {
        f"t{n}" for n in range(5)
    }
    assert len(ports.shared_limits.release(user, "t3", NOW + 99).holders or ()) == 5
    for _ in range(2):
        assert len(ports.shared_limits.release(user, "t3", NOW + 3).holders or ()) == 4
    written(quick(ports, user, NOW + 10, FIVE_AT_ONCE, task_id="t5"))
    assert isinstance(quick(ports, user, NOW + 11, FIVE_AT_ONCE, task_id="t6"), SharedStale)
    again = written(quick(ports, user, NOW + 12, FIVE_AT_ONCE, task_id="t5"))
    assert len(again.holders or ()) == 5


def test_claims_without_a_number_at_once_show_the_task_as_it_was_listed_before(ports: Ports, user: str) -> None:
    listed = written(exact(ports, user, NOW, FIVE_AT_ONCE)).holders
    assert listed
    assert written(quick(ports, user, NOW + 1)).holders == listed
    assert written(exact(ports, user, NOW + 600)).holders == listed


def test_units_and_large_limits_count_as_in_lanes(ports: Ports, user: str) -> None:
    limits = parse_shared_limits("500/minute; 900 units/minute")
    written(quick(ports, user, NOW, limits, units=600))
    assert stale(quick(ports, user, NOW + 1, limits, units=301)).started == 1
    assert written(quick(ports, user, NOW + 1, limits, units=300)).started == 2
    full = claim_shared(ports.shared_limits.get(user), limits, NOW + 2, NOW + 152)
    assert isinstance(full, Full)
    assert NOW + 60_000 <= full.at <= NOW + 60_600
    assert written(exact(ports, user, full.at, limits, units=100)).started == 3


def test_listed_waiters_come_in_the_order_of_their_turns(ports: Ports, user: str) -> None:
    for turn in (12, 3, 100):
        ports.shared_limits.add_waiter(user, Waiter(turn, f"user{turn}", f"t{turn}", "acme" * (turn == 3)), NOW)
    assert [waiter.turn for waiter in ports.shared_limits.waiters(user, 0, 10)] == [3, 12, 100]
    assert [waiter.group for waiter in ports.shared_limits.waiters(user, 0, 10)] == ["acme", "", ""]
    assert ports.shared_limits.waiters(user, 3, 1) == [Waiter(12, "user12", "t12")]
    assert ports.shared_limits.waiters(user, 100, 10) == []


def test_racing_claims_never_take_more_than_the_limit_allows(
    atomic_ports: Ports, user: str, in_threads: InThreads
) -> None:
    def race(n: int) -> int:
        at, count = NOW, 0
        for round_number in range(6):
            write = quick(atomic_ports, user, at + n, task_id=f"t{n}", token=f"{n}.{round_number}")
            count += isinstance(write, SharedWritten)
            at = max(at, write.shared.starts[0] if write.shared.starts else at) + 100
        return count

    counts = in_threads(8, race)
    shared = atomic_ports.shared_limits.get(user)
    assert sum(counts) == shared.started > 0
    for newer, older in zip(shared.starts, shared.starts[3:], strict=False):
        assert newer - older >= 1_000


def test_revision_counts_changes(ports: Ports, user: str) -> None:
    change(ports, user, lambda shared: replace(shared, revision=shared.revision + 1))
    assert ports.shared_limits.throttle(user, NOW, "x").revision == 2


# --- shards


def test_claim_that_knows_of_other_shards_is_stale(ports: Ports, user: str) -> None:
    assert written(quick(ports, user)).shards == 1
    spread = change(ports, user, lambda shared: replace(shared, shards=3, revision=shared.revision + 1))
    assert (spread.shards, spread.is_changing) == (3, False)
    assert stale(quick(ports, user, NOW + 1)).shards == 3
    assert stale(quick(ports, user, NOW + 1, shards=2)).shards == 3
    assert written(quick(ports, user, NOW + 1, shards=3)).started == 2
    again = change(ports, user, lambda shared: replace(shared, shards=1, revision=shared.revision + 1))
    assert again == ports.shared_limits.get(user)
    assert stale(quick(ports, user, NOW + 2, shards=3)).shards == 1
    assert written(quick(ports, user, NOW + 2)).started == 3


def test_nothing_starts_and_nothing_is_throttled_while_the_shards_change(ports: Ports, user: str) -> None:
    seen = ports.shared_limits.get(user)
    change(ports, user, lambda shared: replace(shared, shards=3, is_changing=True, revision=shared.revision + 1))
    assert stale(quick(ports, user)).is_changing
    assert stale(quick(ports, user, shards=3)).shards == 3
    assert stale(ports.shared_limits.claim(seen, taken(seen))).is_changing
    assert ports.shared_limits.throttle(user, NOW + 5_000, "slow down").throttled_until == 0
    change(ports, user, lambda shared: replace(shared, is_changing=False, revision=shared.revision + 1))
    assert written(quick(ports, user, shards=3)).started == 1


@pytest.mark.parametrize("limits", [LIMITS, parse_shared_limits("500/minute"), parse_shared_limits("90 units/second")])
def test_shared_limit_that_counts_as_used_up_allows_the_next_start_a_window_later(
    ports: Ports, user: str, limits: Limits
) -> None:
    written(exact(ports, user, NOW - 90_000, limits))
    change(ports, user, lambda shared: replace(full_at(shared, limits, NOW, 1), revision=shared.revision + 1))
    full = claim_shared(ports.shared_limits.get(user), limits, NOW + 1, NOW + 150)
    assert isinstance(full, Full)
    longest_ms = max(limit.window_ms for limit in limits)
    assert NOW + longest_ms <= full.at <= NOW + longest_ms * 101 // 100
    assert written(exact(ports, user, full.at, limits)).starts[0] == full.at


def test_shard_follows_the_first_one_and_is_listed_nowhere(ports: Ports, user: str) -> None:
    ports.shared_limits.throttle(user, NOW + 5_000, "slow down")
    first = change(ports, user, lambda shared: paused_shared(replace(shared, shards=2), NOW + 9_000))
    shard = f"{user}#1"
    change(ports, shard, lambda shared: controlled_by(shared, first))
    followed = ports.shared_limits.get(shard)
    assert controlled_by(followed, first) == followed
    assert (followed.throttled_until, followed.throttled_reason) == (NOW + 5_000, "slow down")
    assert (followed.paused_until, followed.shards, followed.started) == (NOW + 9_000, 2, 0)
    assert shard not in ports.shared_limits.names()


def test_change_may_drop_the_list_of_those_that_run(ports: Ports, user: str) -> None:
    written(exact(ports, user, limits=FIVE_AT_ONCE))
    assert change(ports, user, lambda shared: replace(shared, revision=1)).holders
    assert change(ports, user, lambda shared: replace(shared, revision=2, holders=None)).holders is None


# --- correct_units

UNITS = parse_shared_limits("100 units/minute")


def correct(ports: Ports, name: str, more: int, now_ms: int = NOW + 500, token: str = "first") -> SharedWrite:
    return ports.shared_limits.correct_units(Correction(name, token, NOW, more), now_ms)


def next_at(ports: Ports, name: str, units: int, now_ms: int) -> int:
    decision = claim_shared(ports.shared_limits.get(name), UNITS, now_ms, now_ms, units)
    return decision.at


@pytest.mark.parametrize(("more", "at_once", "too_many"), [(-50, 90, 91), (10, 30, 31), (-60, 100, 101)])
def test_next_start_sees_the_units_that_were_really_used(
    ports: Ports, user: str, more: int, at_once: int, too_many: int
) -> None:
    written(quick(ports, user, limits=UNITS, units=60))
    written(correct(ports, user, more))
    assert next_at(ports, user, at_once, NOW + 600) == NOW + 600
    if too_many <= 100:
        assert next_at(ports, user, too_many, NOW + 600) >= NOW + 60_000
        stale(quick(ports, user, NOW + 600, UNITS, units=too_many))
    written(exact(ports, user, NOW + 600, UNITS, units=at_once))
    assert next_at(ports, user, 1, NOW + 700) >= NOW + 60_000


def test_each_correction_counts_once_whatever_is_repeated(ports: Ports, user: str) -> None:
    written(quick(ports, user, limits=UNITS, units=60))
    for _ in range(3):
        assert written(correct(ports, user, -40)).real.extra_units == 19
    written(exact(ports, user, NOW + 600, UNITS, units=10))
    assert written(correct(ports, user, -40)).reports == 1
    assert written(correct(ports, user, -20, token="second")).reports == 2


def test_more_units_count_after_a_start_that_was_claimed_ahead(ports: Ports, user: str) -> None:
    written(quick(ports, user, limits=UNITS, units=60))
    written(quick(ports, user, NOW + 100, UNITS))
    assert stale(correct(ports, user, 20, NOW + 100)).reports == 0
    assert written(correct(ports, user, 20, NOW + 101)).reported_at == NOW + 101
    stale(quick(ports, user, NOW + 100, UNITS, token="other"))
    assert next_at(ports, user, 1, NOW + 50) == NOW + 101
    assert written(correct(ports, user, 20, NOW + 90)).real.extra_units == 79


def test_units_given_back_to_an_old_start_make_no_room(ports: Ports, user: str) -> None:
    written(quick(ports, user, limits=UNITS, units=60))
    written(exact(ports, user, NOW + 70_000, UNITS, units=90))
    written(correct(ports, user, -50, NOW + 70_500))
    stale(quick(ports, user, NOW + 70_600, UNITS, units=11))
    assert next_at(ports, user, 11, NOW + 70_600) >= NOW + 130_000
    assert next_at(ports, user, 10, NOW + 70_600) == NOW + 70_600


def test_claim_and_resume_that_do_not_know_of_a_correction_are_stale(ports: Ports, user: str) -> None:
    written(quick(ports, user, NOW + 5_000, UNITS, units=60))
    seen = ports.shared_limits.get(user)
    written(correct(ports, user, 20, NOW + 5_001))
    stale(ports.shared_limits.claim(seen, taken(seen, NOW + 5_100, UNITS)))
    stale(ports.shared_limits.change(seen, resumed_shared(seen, NOW)))
    changed = change(ports, user, lambda shared: resumed_shared(shared, NOW))
    assert changed.reported_at == NOW + 500
