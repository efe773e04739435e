"""Schedules of several users' tasks that count against one shared limit."""

from itertools import pairwise

import pytest

from tests.extent import extent
from tests.simulation.schedule import Behaviour, Kill, Plan, Submit, draw_shared
from tests.simulation.world import World, run

#: 150 schedules, in blocks so that they spread over processes
BLOCKS = [range(first, first + 10) for first in range(0, extent(30, 150), 10)]


@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"seeds {seeds[0]}-{seeds[-1]}")
def test_shared_limits_hold_over_all_users_whatever_fails(seeds: range) -> None:
    broken = {seed: found for seed in seeds if (found := run(draw_shared(seed)).broken)}
    assert not broken


def starts_of(plan: Plan) -> list[tuple[int, str]]:
    """Time and user of each start, from the log."""
    world = World(plan)
    assert not world.run().broken
    return sorted((event["started_at"], event["user_id"]) for event in world.log.events)


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
