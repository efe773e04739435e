"""Schedules of several users' tasks that count against one shared limit."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest

from tests.extent import extent
from tests.simulation.mutants import TurnForEachOfAGroup
from tests.simulation.schedule import (
    Behaviour,
    Cancel,
    Empty,
    Kill,
    Pause,
    Plan,
    SetGroup,
    Submit,
    draw_groups,
    draw_shards,
    draw_shared,
    draw_shared_units,
)
from tests.simulation.world import Parts, World, run

#: 150 schedules, in blocks so that they spread over processes
BLOCKS = [range(first, first + 10) for first in range(0, extent(30, 150), 10)]


@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"seeds {seeds[0]}-{seeds[-1]}")
def test_shared_limits_hold_over_all_users_whatever_fails(seeds: range) -> None:
    broken = {seed: found for seed in seeds if (found := run(draw_shared(seed)).broken)}
    assert not broken


@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"seeds {seeds[0]}-{seeds[-1]}")
def test_a_shared_limit_over_shards_holds_whatever_fails(seeds: range) -> None:
    broken = {seed: found for seed in seeds if (found := run(draw_shards(seed)).broken)}
    assert not broken


@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"seeds {seeds[0]}-{seeds[-1]}")
def test_a_group_has_one_turn_at_a_time_whatever_fails(seeds: range) -> None:
    broken = {seed: found for seed in seeds if (found := run(draw_groups(seed)).broken)}
    assert not broken


@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"seeds {seeds[0]}-{seeds[-1]}")
def test_units_that_tasks_really_used_count_in_the_shared_limit_once_whatever_fails(seeds: range) -> None:
    broken = {seed: found for seed in seeds if (found := run(draw_shared_units(seed)).broken)}
    assert not broken


def starts_of(plan: Plan) -> list[tuple[int, str]]:
    """Time and user of each start, from the log."""
    world = World(plan)
    assert not world.run().broken
    return sorted((event["started_at"], event["user_id"]) for event in world.log.events if event["started_at"])


def shared_by(users: int, each: int, shared: str, *others: Kill, seed: int = 0) -> Plan:
    behaviours = (Behaviour(5, shared="s"),) * each
    many = tuple(Submit(20 * user, f"u{user}", f"t{user}", behaviours) for user in range(users))
    return Plan(seed, "20/second", False, 3, (0,) * 5, (*many, *others), shared=shared)


@pytest.mark.parametrize("shared", ["s: 1/2 seconds", "s: 1/second", "s: 3/second"])
def test_lanes_take_turns_one_turn_to_a_lane(shared: str) -> None:
    order = [user for _, user in starts_of(shared_by(5, 8, shared))]
    counts = dict.fromkeys(order, 0)
    for user in order[:35]:
        counts[user] += 1
        assert max(counts.values()) - min(counts.values()) <= 2


def test_starts_of_a_full_shared_limit_follow_each_other_without_a_gap() -> None:
    times = [at for at, _ in starts_of(shared_by(6, 8, "s: 1/2 seconds"))]
    assert {later - earlier for earlier, later in pairwise(times)} == {2_000}


def test_user_with_many_waiting_tasks_delays_the_first_of_another_by_one_turn() -> None:
    busy = Submit(0, "busy", "many", (Behaviour(5, shared="s"),) * 30)
    new = Submit(20_500, "new", "one", (Behaviour(5, shared="s"),))
    starts = starts_of(Plan(0, "20/second", True, 3, (0,) * 5, (busy, new), shared="s: 1/second"))
    [at] = [at for at, user in starts if user == "new"]
    begun_at = starts[0][0] + 20_500
    assert begun_at <= at <= begun_at + 2_000


@pytest.mark.parametrize("shared", ["s: 1 at once", "s: 100/second; 1 at once"])
@pytest.mark.parametrize("machines", [2, 3])
@pytest.mark.parametrize("is_lambda", [True, False])
def test_it_waits_for_one_turn_too_where_few_may_run_at_once(is_lambda: bool, machines: int, shared: str) -> None:
    busy = Submit(0, "busy", "many", (Behaviour(1_500, shared="s"),) * 12)
    new = Submit(2_000, "new", "few", (Behaviour(1_500, shared="s"),) * 3)
    starts = starts_of(Plan(0, "20/second", is_lambda, machines, (0,) * 5, (busy, new), shared=shared))
    assert "".join(user[0] for _, user in starts).startswith("bbnbnbnb")


@pytest.mark.parametrize("machine", range(3))
def test_order_of_turns_survives_the_death_of_a_worker(machine: int) -> None:
    kills = [Kill(at, machine) for at in (3_300, 9_300)]
    starts = starts_of(shared_by(5, 8, "s: 1/2 seconds", *kills))
    assert len(starts) == 40
    counts = dict.fromkeys((user for _, user in starts), 0)
    for _, user in starts[:30]:
        counts[user] += 1
    assert max(counts.values()) - min(counts.values()) <= 4  # a dead worker's messages come back ten seconds later


def tenant_against_one(users: int, each: int, shared: str, *others: Kill | Pause | Empty | Cancel | SetGroup) -> Plan:
    """A group of users with `each` tasks, and one user with as many tasks as all of them, who all want one limit."""
    task = Behaviour(5, shared="s")
    joins = [SetGroup(0, f"u{number}", "acme") for number in range(users)]
    many = [Submit(1_000 + 5 * number, f"u{number}", f"t{number}", (task,) * each) for number in range(users)]
    alone = Submit(1_000, "alone", "many", (task,) * (users * each))
    return Plan(0, "20/second", False, 6, (0,) * 8, (*joins, alone, *many, *others), shared=shared)


def lead_of(starts: list[tuple[int, str]]) -> int:
    """The most by which the group or the one user was ahead of the other while tasks of both waited."""
    sides = [1 if user == "alone" else -1 for _, user in starts]
    end = min(max(index for index, one in enumerate(sides) if one == side) for side in (1, -1))
    return max(abs(sum(sides[:index])) for index in range(1, end + 1))


def test_tenant_with_fifty_users_gets_one_share_like_one_user() -> None:
    starts = starts_of(tenant_against_one(50, 1, "s: 1/second"))
    assert len(starts) == 100
    assert lead_of(starts) <= 1


def test_users_of_a_group_take_its_turns_in_rotation() -> None:
    order = [user for _, user in starts_of(tenant_against_one(6, 4, "s: 1/2 seconds")) if user != "alone"]
    for begin in range(0, 24, 6):
        assert len(set(order[begin : begin + 6])) == 6


def test_starts_of_a_limit_that_a_group_wants_follow_each_other_without_a_gap() -> None:
    times = [at for at, _ in starts_of(tenant_against_one(6, 3, "s: 1/2 seconds"))]
    assert {later - earlier for earlier, later in pairwise(times)} == {2_000}


def test_share_of_a_limit_with_bursts_is_about_that_of_one_user() -> None:
    starts = starts_of(tenant_against_one(12, 4, "s: 3/second"))
    assert len(starts) == 96
    assert lead_of(starts) <= 16  # a turn each would make it 40


def test_each_user_of_a_group_with_turns_of_its_own_is_found_unfair() -> None:
    world = World(tenant_against_one(8, 3, "s: 1/second"), Parts(shared_claims=TurnForEachOfAGroup))
    assert [one.promise for one in world.run().broken] == ["one turn to a group"]


@pytest.mark.parametrize("machine", range(3))
def test_order_of_a_groups_turns_survives_the_death_of_a_worker(machine: int) -> None:
    kills = [Kill(at, machine) for at in (4_300, 12_300)]
    starts = starts_of(tenant_against_one(6, 3, "s: 1/2 seconds", *kills))
    assert len(starts) == 36
    assert lead_of(starts) <= 5  # a dead worker's messages come back ten seconds later


@pytest.mark.parametrize("stop", [partial(Pause, lasts_ms=40_000), Empty], ids=["paused", "emptied"])
def test_turn_of_a_group_goes_on_to_its_next_lane_when_lanes_are_stopped(stop: Callable[[int, str], Pause]) -> None:
    stops = [stop(4_500, f"u{number}") for number in range(3)]
    starts = starts_of(tenant_against_one(6, 3, "s: 1/2 seconds", *stops))
    others = [at for at, user in starts if user in ("u3", "u4", "u5")]
    assert len(others) == 9
    assert max(later - earlier for earlier, later in pairwise(sorted(others))) <= 6_200
    times = [at for at, _ in starts][:18]
    assert all(later - earlier <= 2_200 for earlier, later in pairwise(times))


def test_turn_of_a_group_goes_on_when_the_heads_that_wait_for_it_are_cancelled() -> None:
    cancels = [Cancel(4_500, f"u{number}", 0) for number in range(1, 4)]
    starts = starts_of(tenant_against_one(6, 1, "s: 1/2 seconds", *cancels))
    times = [at for at, _ in starts]
    assert len(starts) == 9
    assert all(later - earlier <= 2_200 for earlier, later in pairwise(times))
    assert lead_of(starts) <= 2


def test_user_who_changes_its_group_while_it_waits_loses_no_task_and_no_share() -> None:
    changes = [SetGroup(5_000, "u0", ""), SetGroup(5_100, "u1", "other"), SetGroup(9_000, "u0", "acme")]
    starts = starts_of(tenant_against_one(4, 4, "s: 1/2 seconds", *changes))
    assert len(starts) == 32
    times = [at for at, _ in starts]
    assert all(later - earlier <= 2_200 for earlier, later in pairwise(times))


@pytest.mark.parametrize("seed", [610, 1396])
def test_a_lane_behind_another_of_its_group_that_does_not_start_looks_seldom(seed: int) -> None:
    """Under a number at once alone, it looked each millisecond, and both waited for ever."""
    assert not run(draw_groups(seed)).broken


def test_a_lane_that_let_others_go_first_uses_no_turn_of_its_group_that_one_of_them_used() -> None:
    assert not run(draw_groups(120)).broken
