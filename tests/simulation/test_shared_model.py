"""Lanes that always want one shared limit, some in groups, in the model of `bench shared`: nobody wakes them."""

from collections import Counter

import pytest
from msgspec.structs import replace

from bench.shared import Model


def starts_of(rate: int, groups: int, lanes_each: int, others: int) -> Counter[str]:
    """How many starts each group and each other lane had in 15 seconds."""
    lanes = groups * lanes_each + others
    model = Model(f"api: {rate}/second", lanes, 26)
    group_of = {f"u{number}": f"g{number // lanes_each}" for number in range(groups * lanes_each)}
    for user, group in group_of.items():
        model._lanes.prepare(user, lambda lane, group=group: replace(lane, group=group))  # type: ignore[misc]
    model.run()
    assert model.over(rate) == 0
    return Counter(group_of.get(user, user) for _, _, user in model._measured())


@pytest.mark.parametrize(("groups", "lanes_each", "others"), [(1, 12, 6), (2, 5, 3)])
def test_each_group_has_the_share_of_one_other_lane(groups: int, lanes_each: int, others: int) -> None:
    counts = starts_of(2, groups, lanes_each, others)
    assert len(counts) == groups + others
    assert max(counts.values()) - min(counts.values()) <= 2
    assert sum(counts.values()) >= 29


def test_group_that_wants_a_shared_limit_alone_uses_all_of_it() -> None:
    assert starts_of(5, 1, 12, 0)["g0"] >= 72
